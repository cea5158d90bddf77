//! `dim_product`: what is said of a product.

use std::collections::BTreeMap;

use sqlx::PgConnection;

use super::error::Failure;
use super::rows::{Instant, column, shared};
use crate::domain::ids::{Shop, Stamp};
use crate::domain::product::{CatalogueItem, Product, Stated};
use crate::warehouse::batch::Products;

/// What one event said of a product, of that which no later event of the batch has said again.
struct Row<'p> {
    shop: &'p Shop,
    item: &'p str,
    stamp: &'p Stamp,
    product: &'p Product,
}

impl<'p> Row<'p> {
    /// A field's value, where this event stated it.
    fn said<T>(&self, field: Option<&'p Stated<T>>) -> Option<&'p T> {
        let stated = field.filter(|stated| stated.stamp == *self.stamp)?;
        Some(&stated.value)
    }
}

/// Joins `seen` into the stored rows. Popular products are in every batch, so this comes late: their rows are
/// locked from here to the commit.
pub(super) async fn join(conn: &mut PgConnection, seen: &Products) -> Result<(), Failure> {
    let mut rows = Vec::with_capacity(seen.len());
    let mut later: BTreeMap<usize, Vec<Row<'_>>> = BTreeMap::new();
    for ((shop, item), product) in seen {
        let row = |stamp| Row {
            shop,
            item,
            stamp,
            product,
        };
        let mut stamps = vec![&product.is_charge.stamp];
        let others = [
            product.name.as_ref().map(|stated| &stated.stamp),
            product.category.as_ref().map(|stated| &stated.stamp),
            product.price.as_ref().map(|stated| &stated.stamp),
            product.stock.as_ref().map(|stated| &stated.stamp),
            product.image_url.as_ref().map(|stated| &stated.stamp),
        ];
        for stamp in others.into_iter().flatten() {
            if !stamps.contains(&stamp) {
                stamps.push(stamp);
            }
        }
        // Every event says whether it is a charge, so the latest comes first.
        for (turn, stamp) in stamps.into_iter().enumerate() {
            match turn {
                0 => rows.push(row(stamp)),
                _ => later.entry(turn).or_default().push(row(stamp)),
            }
        }
    }
    // One statement takes each product once.
    for mut rows in std::iter::once(rows).chain(later.into_values()) {
        rows.sort_unstable_by_key(|row| (row.shop, row.item));
        join_rows(conn, &rows).await?;
    }
    Ok(())
}

/// As [`Product::merge`]: of each field the statement with the greatest (time, event, value) stays.
async fn join_rows(conn: &mut PgConnection, rows: &[Row<'_>]) -> Result<(), Failure> {
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        r#"insert into dim_product as p (shop, item, name, category, price_minor, currency, is_charge, name_time, name_event,
                                         category_time, category_event, price_time, price_event, charge_time,
                                         charge_event, stock, image_url, stock_time, stock_event, image_time,
                                         image_event)
           select k.shop, k.item, k.name, k.category, k.price_minor, k.currency, coalesce(k.is_charge, false),
                  case when k.name is not null then k.time end, case when k.name is not null then k.event end,
                  case when k.category is not null then k.time end, case when k.category is not null then k.event end,
                  case when k.price_minor is not null then k.time end,
                  case when k.price_minor is not null then k.event end,
                  k.time, k.event, k.stock, k.image_url,
                  case when k.stock is not null then k.time end, case when k.stock is not null then k.event end,
                  case when k.image_url is not null then k.time end, case when k.image_url is not null then k.event end
           from (select unnest($1::text[]) as shop, unnest($2::text[]) as item, unnest($3::timestamptz[]) as time,
                        unnest($4::text[]) as event, unnest($5::text[]) as name, unnest($6::text[]) as category,
                        unnest($7::bigint[]) as price_minor, unnest($8::text[]) as currency,
                        unnest($9::boolean[]) as is_charge, unnest($10::bigint[]) as stock,
                        unnest($11::text[]) as image_url) as k
           on conflict (shop, item) do update set
               name = case when p.name_time is null or (excluded.name_time, excluded.name_event, excluded.name collate "C")
                   > (p.name_time, p.name_event, p.name collate "C")
                   then excluded.name else p.name end,
               name_time = case when p.name_time is null or (excluded.name_time, excluded.name_event, excluded.name collate "C")
                   > (p.name_time, p.name_event, p.name collate "C")
                   then excluded.name_time else p.name_time end,
               name_event = case when p.name_time is null or (excluded.name_time, excluded.name_event, excluded.name collate "C")
                   > (p.name_time, p.name_event, p.name collate "C")
                   then excluded.name_event else p.name_event end,
               category = case when p.category_time is null or (excluded.category_time, excluded.category_event, excluded.category collate "C")
                   > (p.category_time, p.category_event, p.category collate "C")
                   then excluded.category else p.category end,
               category_time = case when p.category_time is null or (excluded.category_time, excluded.category_event, excluded.category collate "C")
                   > (p.category_time, p.category_event, p.category collate "C")
                   then excluded.category_time else p.category_time end,
               category_event = case when p.category_time is null or (excluded.category_time, excluded.category_event, excluded.category collate "C")
                   > (p.category_time, p.category_event, p.category collate "C")
                   then excluded.category_event else p.category_event end,
               price_minor = case when p.price_time is null or (excluded.price_time, excluded.price_event, excluded.price_minor, excluded.currency collate "C")
                   > (p.price_time, p.price_event, p.price_minor, p.currency collate "C")
                   then excluded.price_minor else p.price_minor end,
               currency = case when p.price_time is null or (excluded.price_time, excluded.price_event, excluded.price_minor, excluded.currency collate "C")
                   > (p.price_time, p.price_event, p.price_minor, p.currency collate "C")
                   then excluded.currency else p.currency end,
               price_time = case when p.price_time is null or (excluded.price_time, excluded.price_event, excluded.price_minor, excluded.currency collate "C")
                   > (p.price_time, p.price_event, p.price_minor, p.currency collate "C")
                   then excluded.price_time else p.price_time end,
               price_event = case when p.price_time is null or (excluded.price_time, excluded.price_event, excluded.price_minor, excluded.currency collate "C")
                   > (p.price_time, p.price_event, p.price_minor, p.currency collate "C")
                   then excluded.price_event else p.price_event end,
               is_charge = case when p.charge_time is null or (excluded.charge_time, excluded.charge_event, excluded.is_charge)
                   > (p.charge_time, p.charge_event, p.is_charge)
                   then excluded.is_charge else p.is_charge end,
               charge_time = case when p.charge_time is null or (excluded.charge_time, excluded.charge_event, excluded.is_charge)
                   > (p.charge_time, p.charge_event, p.is_charge)
                   then excluded.charge_time else p.charge_time end,
               charge_event = case when p.charge_time is null or (excluded.charge_time, excluded.charge_event, excluded.is_charge)
                   > (p.charge_time, p.charge_event, p.is_charge)
                   then excluded.charge_event else p.charge_event end,
               stock = case when p.stock_time is null or (excluded.stock_time, excluded.stock_event, excluded.stock)
                   > (p.stock_time, p.stock_event, p.stock)
                   then excluded.stock else p.stock end,
               stock_time = case when p.stock_time is null or (excluded.stock_time, excluded.stock_event, excluded.stock)
                   > (p.stock_time, p.stock_event, p.stock)
                   then excluded.stock_time else p.stock_time end,
               stock_event = case when p.stock_time is null or (excluded.stock_time, excluded.stock_event, excluded.stock)
                   > (p.stock_time, p.stock_event, p.stock)
                   then excluded.stock_event else p.stock_event end,
               image_url = case when p.image_time is null or (excluded.image_time, excluded.image_event, excluded.image_url collate "C")
                   > (p.image_time, p.image_event, p.image_url collate "C")
                   then excluded.image_url else p.image_url end,
               image_time = case when p.image_time is null or (excluded.image_time, excluded.image_event, excluded.image_url collate "C")
                   > (p.image_time, p.image_event, p.image_url collate "C")
                   then excluded.image_time else p.image_time end,
               image_event = case when p.image_time is null or (excluded.image_time, excluded.image_event, excluded.image_url collate "C")
                   > (p.image_time, p.image_event, p.image_url collate "C")
                   then excluded.image_event else p.image_event end"#,
        column(rows, |row| row.shop.as_str()) as _,
        column(rows, |row| row.item) as _,
        column(rows, |row| Instant(row.stamp.time)) as _,
        column(rows, |row| &*row.stamp.event_id) as _,
        column(rows, |row| row.said(row.product.name.as_ref()).map(|name| &**name)) as _,
        column(rows, |row| row.said(row.product.category.as_ref()).map(|category| &**category)) as _,
        column(rows, |row| row.said(row.product.price.as_ref()).map(|price| price.0)) as _,
        column(rows, |row| row.said(row.product.price.as_ref()).map(|price| &*price.1)) as _,
        column(rows, |row| row.said(Some(&row.product.is_charge)).copied()) as _,
        column(rows, |row| row.said(row.product.stock.as_ref()).copied()) as _,
        column(rows, |row| row.said(row.product.image_url.as_ref()).map(|url| &**url)) as _
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
