-- As for PostgreSQL, whose planner needs it: only the key of an order begins with the shop.

create index fact_order_by_time on fact_order (event_time, shop);
drop index fact_order_time;
create index fact_order_by_event on fact_order (event_id, shop);
drop index fact_order_event;
