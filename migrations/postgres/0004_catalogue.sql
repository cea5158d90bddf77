-- What a shop says of its products besides what events tell.

alter table dim_product
    add column stock bigint,
    add column image_url text,
    add column stock_time timestamptz,
    add column stock_event text collate "C",
    add column image_time timestamptz,
    add column image_event text collate "C";

comment on column dim_product.stock is 'pieces that can be sold; null: never said';
comment on column dim_product.image_url is 'where its picture is';
comment on column dim_product.stock_time is 'when the stock was said';
comment on column dim_product.stock_event is 'which event said the stock';
comment on column dim_product.image_time is 'when the image was said';
comment on column dim_product.image_event is 'which event said the image';
