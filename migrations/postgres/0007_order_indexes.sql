-- Plans of a batch are made once, often while tables are small, and a look-up by (shop, order_id) is then as cheap by any index
-- that begins with the shop: the newest was taken, and read all orders of the shop. So only the key begins with it.

create index fact_order_by_time on fact_order (event_time, shop);
drop index fact_order_time;
create index fact_order_by_event on fact_order (event_id, shop);
drop index fact_order_event;
