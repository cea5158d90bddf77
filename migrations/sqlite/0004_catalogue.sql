-- What a shop says of its products besides what events tell.

alter table dim_product add column stock integer; -- pieces that can be sold; null: never said
alter table dim_product add column image_url text;
alter table dim_product add column stock_time integer; -- when the stock was said, and by which event
alter table dim_product add column stock_event text;
alter table dim_product add column image_time integer; -- when the image was said, and by which event
alter table dim_product add column image_event text;
