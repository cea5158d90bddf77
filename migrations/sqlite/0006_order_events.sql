-- Results look orders up by the events that reported them.

create index fact_order_event on fact_order (shop, event_id);
