//! What was bought, for the population's models.

use std::sync::Arc;

use futures_util::TryStreamExt as _;
use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;

use super::rows::{optional, shared};
use crate::domain::ids::Shop;
use crate::domain::recommend::{PurchasedOrder, Purchases};
use crate::warehouse::WarehouseError;
use crate::warehouse::turns::Turns;

/// The newest orders that stand, with their items but not their charges; at most `max_lines` lines.
pub(super) async fn newest(
    conn: &mut SqliteConnection,
    shop: &Shop,
    max_lines: usize,
) -> Result<Purchases, WarehouseError> {
    let mut rows = sqlx::query(
        "select o.order_id, o.payment_method, o.shipping_method, l.item
         from fact_order as o
         left join fact_order_line as l
         on l.shop = o.shop and l.order_id = o.order_id and l.is_charge = 0 and l.quantity > 0
         where o.shop = ?1 and o.cancelled = 0
         order by o.event_time desc, o.order_id desc, l.line
         limit ?2",
    )
    .bind(shop.as_str())
    .bind(i64::try_from(max_lines).unwrap_or(i64::MAX))
    .fetch(conn);
    let mut purchases = Purchases::default();
    let mut current: Option<Arc<str>> = None;
    let mut turns = Turns::default();
    // One row at a time: all of them would take hundreds of megabytes.
    while let Some(row) = rows.try_next().await? {
        turns.row().await;
        let order_id: &str = row.try_get("order_id")?;
        if current.as_deref() != Some(order_id) {
            current = Some(order_id.into());
            purchases.orders.push(PurchasedOrder {
                items: Vec::new(),
                payment_method: optional(&row, "payment_method")?,
                shipping_method: optional(&row, "shipping_method")?,
            });
        }
        if let (Some(order), Some(_)) = (
            purchases.orders.last_mut(),
            row.try_get::<Option<&str>, _>("item")?,
        ) {
            order.items.push(shared(&row, "item")?);
        }
    }
    Ok(purchases)
}
