//! `dim_product`: what is said of a product.

use std::sync::Arc;

use sqlx::PgConnection;

use super::error::Failure;
use super::rows::{Instant, column, event, shared, shop, stamp, time};
use crate::domain::ids::{Shop, Stamp};
use crate::domain::product::{CatalogueItem, Product, Stated};
use crate::warehouse::WarehouseError;
use crate::warehouse::batch::Products;

type Row<'p> = (&'p (Shop, Arc<str>), &'p Product);

/// Joins `seen` into the stored rows. Popular products are in every batch, so this comes late: their rows are
/// locked from here to the commit.
pub(super) async fn join(conn: &mut PgConnection, mut seen: Products) -> Result<(), Failure> {
    if seen.is_empty() {
        return Ok(());
    }
    let mut keys: Vec<(Shop, Arc<str>)> = seen.keys().cloned().collect();
    keys.sort_unstable();
    let mut new = keys.len();
    for (key, stored) in read(conn, &keys).await? {
        new -= 1;
        if let Some(product) = seen.get_mut(&key) {
            product.merge(stored.clone());
            if *product == stored {
                seen.remove(&key);
            }
        }
    }
    let mut rows: Vec<Row<'_>> = seen.iter().collect();
    rows.sort_unstable_by_key(|(key, _)| *key);
    if new > 0 && claim(conn, &rows).await? != new {
        return Err(Failure::Again("another batch saw the same product first".into()));
    }
    write(conn, &rows).await
}

/// The stored rows, locked in key order.
async fn read(
    conn: &mut PgConnection,
    keys: &[(Shop, Arc<str>)],
) -> Result<Vec<((Shop, Arc<str>), Product)>, Failure> {
    let rows = sqlx::query!(
        r#"select p.shop, p.item, p.name, p.category, p.price_minor, p.currency, p.is_charge,
                  p.name_time as "name_time: Instant", p.name_event,
                  p.category_time as "category_time: Instant", p.category_event,
                  p.price_time as "price_time: Instant", p.price_event,
                  p.charge_time as "charge_time: Instant", p.charge_event, p.stock, p.image_url,
                  p.stock_time as "stock_time: Instant", p.stock_event,
                  p.image_time as "image_time: Instant", p.image_event
           from unnest($1::text[], $2::text[]) as k(shop, item)
           join dim_product as p on p.shop = k.shop and p.item = k.item
           order by p.shop, p.item
           for update of p"#,
        column(keys, |(shop, _)| shop.as_str()) as _,
        column(keys, |(_, item)| &**item) as _
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            let price = row.price_minor.zip(shared(row.currency));
            let charge = stamp(Some(row.charge_time), Some(row.charge_event));
            let product = Product {
                name: stated(shared(row.name), stamp(row.name_time, row.name_event)),
                category: stated(shared(row.category), stamp(row.category_time, row.category_event)),
                price: stated(price, stamp(row.price_time, row.price_event)),
                is_charge: stated(Some(row.is_charge), charge)
                    .ok_or_else(|| WarehouseError::Inconsistent("dim_product without charge_time".into()))?,
                stock: stated(row.stock, stamp(row.stock_time, row.stock_event)),
                image_url: stated(shared(row.image_url), stamp(row.image_time, row.image_event)),
            };
            Ok(((shop(row.shop)?, row.item.into()), product))
        })
        .collect()
}

fn stated<T>(value: Option<T>, stamp: Option<Stamp>) -> Option<Stated<T>> {
    value.zip(stamp).map(|(value, stamp)| Stated { value, stamp })
}

/// Inserts the rows that are absent, so that they are locked as well; returns how many they were.
async fn claim(conn: &mut PgConnection, rows: &[Row<'_>]) -> Result<usize, Failure> {
    let inserted = sqlx::query!(
        "insert into dim_product (shop, item, is_charge, charge_time, charge_event)
         select * from unnest($1::text[], $2::text[], $3::boolean[], $4::timestamptz[], $5::text[])
         on conflict do nothing",
        column(rows, |((shop, _), _)| shop.as_str()) as _,
        column(rows, |((_, item), _)| &**item) as _,
        column(rows, |(_, product)| product.is_charge.value) as _,
        column(rows, |(_, product)| Instant(product.is_charge.stamp.time)) as _,
        column(rows, |(_, product)| &*product.is_charge.stamp.event_id) as _
    )
    .execute(conn)
    .await?;
    Ok(usize::try_from(inserted.rows_affected()).unwrap_or(usize::MAX))
}

async fn write(conn: &mut PgConnection, rows: &[Row<'_>]) -> Result<(), Failure> {
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "update dim_product as p
         set name = k.name, category = k.category, price_minor = k.price_minor, currency = k.currency,
             is_charge = k.is_charge, name_time = k.name_time, name_event = k.name_event,
             category_time = k.category_time, category_event = k.category_event, price_time = k.price_time,
             price_event = k.price_event, charge_time = k.charge_time, charge_event = k.charge_event,
             stock = k.stock, image_url = k.image_url, stock_time = k.stock_time, stock_event = k.stock_event,
             image_time = k.image_time, image_event = k.image_event
         from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::boolean[],
                     $8::timestamptz[], $9::text[], $10::timestamptz[], $11::text[], $12::timestamptz[], $13::text[],
                     $14::timestamptz[], $15::text[], $16::bigint[], $17::text[], $18::timestamptz[], $19::text[],
                     $20::timestamptz[], $21::text[])
              as k(shop, item, name, category, price_minor, currency, is_charge, name_time, name_event, category_time,
                   category_event, price_time, price_event, charge_time, charge_event, stock, image_url, stock_time,
                   stock_event, image_time, image_event)
         where p.shop = k.shop and p.item = k.item",
        column(rows, |((shop, _), _)| shop.as_str()) as _,
        column(rows, |((_, item), _)| &**item) as _,
        column(rows, |(_, product)| product.name.as_ref().map(|name| &*name.value)) as _,
        column(rows, |(_, product)| product.category.as_ref().map(|category| &*category.value)) as _,
        column(rows, |(_, product)| product.price.as_ref().map(|price| price.value.0)) as _,
        column(rows, |(_, product)| product.price.as_ref().map(|price| &*price.value.1)) as _,
        column(rows, |(_, product)| product.is_charge.value) as _,
        column(rows, |(_, product)| time(product.name.as_ref().map(|name| &name.stamp))) as _,
        column(rows, |(_, product)| event(product.name.as_ref().map(|name| &name.stamp))) as _,
        column(rows, |(_, product)| time(product.category.as_ref().map(|category| &category.stamp))) as _,
        column(rows, |(_, product)| event(product.category.as_ref().map(|category| &category.stamp))) as _,
        column(rows, |(_, product)| time(product.price.as_ref().map(|price| &price.stamp))) as _,
        column(rows, |(_, product)| event(product.price.as_ref().map(|price| &price.stamp))) as _,
        column(rows, |(_, product)| Instant(product.is_charge.stamp.time)) as _,
        column(rows, |(_, product)| &*product.is_charge.stamp.event_id) as _,
        column(rows, |(_, product)| product.stock.as_ref().map(|stock| stock.value)) as _,
        column(rows, |(_, product)| product.image_url.as_ref().map(|url| &*url.value)) as _,
        column(rows, |(_, product)| time(product.stock.as_ref().map(|stock| &stock.stamp))) as _,
        column(rows, |(_, product)| event(product.stock.as_ref().map(|stock| &stock.stamp))) as _,
        column(rows, |(_, product)| time(product.image_url.as_ref().map(|url| &url.stamp))) as _,
        column(rows, |(_, product)| event(product.image_url.as_ref().map(|url| &url.stamp))) as _
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// See [`crate::warehouse::Warehouse::catalogue`].
pub(super) async fn catalogue(
    conn: &mut PgConnection,
    shop: &Shop,
    max_items: usize,
) -> Result<Vec<CatalogueItem>, Failure> {
    let rows = sqlx::query!(
        "select item, category, price_minor, currency, stock, is_charge from dim_product
         where shop = $1 order by item limit $2",
        shop.as_str(),
        i64::try_from(max_items).unwrap_or(i64::MAX)
    )
    .fetch_all(conn)
    .await?;
    let items = rows.into_iter().map(|row| CatalogueItem {
        item: row.item.into(),
        category: shared(row.category),
        price: row.price_minor.zip(shared(row.currency)),
        stock: row.stock,
        is_charge: row.is_charge,
    });
    Ok(items.collect())
}
