//! `dim_product`: what is said of a product.

use std::sync::Arc;

use serde::Deserialize;
use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;

use super::rows::{Insert, Values, fetch_packed, optional, shared};
use crate::domain::ids::{Shop, Stamp, Timestamp};
use crate::domain::product::{CatalogueItem, Product, Stated};
use crate::warehouse::WarehouseError;
use crate::warehouse::batch::Products;

/// Joins `seen` into the stored rows.
pub(super) async fn join(conn: &mut SqliteConnection, mut seen: Products) -> Result<(), WarehouseError> {
    if seen.is_empty() {
        return Ok(());
    }
    let keys: Vec<(&str, &str)> = seen.keys().map(|(shop, item)| (shop.as_str(), &**item)).collect();
    for (key, stored) in read(conn, &keys).await? {
        if let Some(product) = seen.get_mut(&key) {
            product.merge(stored);
        }
    }
    write(conn, &seen).await
}

/// Time and event of a statement.
type Said = (Option<i64>, Option<Arc<str>>);

/// A stored row, in the order of its statement.
#[derive(Deserialize)]
struct ProductRow {
    shop: Shop,
    item: Arc<str>,
    name: Option<Arc<str>>,
    category: Option<Arc<str>>,
    price_minor: Option<i64>,
    currency: Option<Arc<str>>,
    is_charge: i64,
    stock: Option<i64>,
    image_url: Option<Arc<str>>,
    name_said: Said,
    category_said: Said,
    price_said: Said,
    charge_said: Said,
    stock_said: Said,
    image_said: Said,
}

async fn read(
    conn: &mut SqliteConnection,
    keys: &[(&str, &str)],
) -> Result<Vec<((Shop, Arc<str>), Product)>, WarehouseError> {
    let rows: Vec<ProductRow> = fetch_packed(
        conn,
        "select json_group_array(json_array(p.shop, p.item, p.name, p.category, p.price_minor, p.currency,
                p.is_charge, p.stock, p.image_url, json_array(p.name_time, p.name_event), json_array(p.category_time, p.category_event),
                json_array(p.price_time, p.price_event), json_array(p.charge_time, p.charge_event),
                json_array(p.stock_time, p.stock_event), json_array(p.image_time, p.image_event)))
         from json_each(?1) as k
         cross join dim_product as p on p.shop = k.value ->> 0 and p.item = k.value ->> 1",
        keys,
    )
    .await?;
    rows.into_iter().map(product).collect()
}

fn product(row: ProductRow) -> Result<((Shop, Arc<str>), Product), WarehouseError> {
    let product = Product {
        name: stated(row.name, row.name_said),
        category: stated(row.category, row.category_said),
        price: stated(row.price_minor.zip(row.currency), row.price_said),
        is_charge: stated(Some(row.is_charge != 0), row.charge_said)
            .ok_or_else(|| WarehouseError::Inconsistent("dim_product row without charge_time".into()))?,
        stock: stated(row.stock, row.stock_said),
        image_url: stated(row.image_url, row.image_said),
    };
    Ok(((row.shop, row.item), product))
}

fn stated<T>(value: Option<T>, (time, event_id): Said) -> Option<Stated<T>> {
    let stamp = Stamp {
        time: Timestamp(time?),
        event_id: event_id?,
    };
    value.map(|value| Stated { value, stamp })
}

const WRITE: Insert = Insert {
    into: "insert into dim_product (shop, item, name, category, price_minor, currency, is_charge, name_time, \
           name_event, category_time, category_event, price_time, price_event, charge_time, charge_event, \
           stock, image_url, stock_time, stock_event, image_time, image_event)",
    columns: 21,
    then: "on conflict (shop, item) do update set name = excluded.name, category = excluded.category, \
           price_minor = excluded.price_minor, currency = excluded.currency, is_charge = excluded.is_charge, \
           name_time = excluded.name_time, name_event = excluded.name_event, \
           category_time = excluded.category_time, category_event = excluded.category_event, \
           price_time = excluded.price_time, price_event = excluded.price_event, \
           charge_time = excluded.charge_time, charge_event = excluded.charge_event, \
           stock = excluded.stock, image_url = excluded.image_url, stock_time = excluded.stock_time, \
           stock_event = excluded.stock_event, image_time = excluded.image_time, image_event = excluded.image_event",
};

async fn write(conn: &mut SqliteConnection, products: &Products) -> Result<(), WarehouseError> {
    let mut rows: Vec<(&(Shop, Arc<str>), &Product)> = products.iter().collect();
    rows.sort_unstable_by_key(|(key, _)| *key);
    WRITE
        .run(conn, &rows, |((shop, item), product), values| {
            bind(shop, item, product, values)
        })
        .await?;
    Ok(())
}

fn bind(shop: &Shop, item: &Arc<str>, product: &Product, values: &mut Values) {
    let Product {
        name,
        category,
        price,
        is_charge,
        stock,
        image_url,
    } = product;
    values.push_shop(shop).push_shared(item);
    values.push(name.as_ref().map(|name| Arc::clone(&name.value)));
    values.push(category.as_ref().map(|category| Arc::clone(&category.value)));
    values.push(price.as_ref().map(|price| price.value.0));
    values.push(price.as_ref().map(|price| Arc::clone(&price.value.1)));
    values.push(is_charge.value);
    values.push_stamp(name.as_ref().map(|name| &name.stamp));
    values.push_stamp(category.as_ref().map(|category| &category.stamp));
    values.push_stamp(price.as_ref().map(|price| &price.stamp));
    values.push_stamp(Some(&is_charge.stamp));
    values.push(stock.as_ref().map(|stock| stock.value));
    values.push(image_url.as_ref().map(|url| Arc::clone(&url.value)));
    values.push_stamp(stock.as_ref().map(|stock| &stock.stamp));
    values.push_stamp(image_url.as_ref().map(|url| &url.stamp));
}

/// See [`crate::warehouse::Warehouse::catalogue`].
pub(super) async fn catalogue(
    conn: &mut SqliteConnection,
    shop: &Shop,
    max_items: usize,
) -> Result<Vec<CatalogueItem>, WarehouseError> {
    let rows = sqlx::query(
        "select item, category, price_minor, currency, stock, is_charge from dim_product
         where shop = ?1 order by item limit ?2",
    )
    .bind(shop.as_str())
    .bind(i64::try_from(max_items).unwrap_or(i64::MAX))
    .fetch_all(conn)
    .await?;
    let items = rows.iter().map(|row| {
        let price: Option<i64> = row.try_get("price_minor")?;
        Ok(CatalogueItem {
            item: shared(row, "item")?,
            category: optional(row, "category")?,
            price: price.zip(optional(row, "currency")?),
            stock: row.try_get("stock")?,
            is_charge: row.try_get("is_charge")?,
        })
    });
    items.collect()
}
