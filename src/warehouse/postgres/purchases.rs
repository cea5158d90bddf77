//! What was bought, for the population's models.

use std::sync::Arc;

use futures_util::TryStreamExt as _;
use sqlx::PgConnection;

use super::error::Failure;
use crate::domain::ids::Shop;
use crate::domain::recommend::{PurchasedOrder, Purchases};
use crate::warehouse::turns::Turns;

/// The newest orders that stand, with their items but not their charges; at most `max_lines` lines.
pub(super) async fn newest(
    conn: &mut PgConnection,
    shop: &Shop,
    max_lines: usize,
) -> Result<Purchases, Failure> {
    let mut rows = sqlx::query!(
        r#"select o.order_id, o.payment_method, o.shipping_method, l.item as "item?"
           from fact_order as o
           left join fact_order_line as l
           on l.shop = o.shop and l.order_id = o.order_id and not l.is_charge and l.quantity > 0
           where o.shop = $1 and not o.cancelled
           order by o.event_time desc, o.order_id desc, l.line
           limit $2"#,
        shop.as_str(),
        i64::try_from(max_lines).unwrap_or(i64::MAX)
    )
    .fetch(conn);
    let mut purchases = Purchases::default();
    let mut current: Option<String> = None;
    let mut turns = Turns::default();
    // One row at a time: all of them would take hundreds of megabytes.
    while let Some(row) = rows.try_next().await? {
        turns.row().await;
        if current.as_ref() != Some(&row.order_id) {
            current = Some(row.order_id);
            purchases.orders.push(PurchasedOrder {
                items: Vec::new(),
                payment_method: row.payment_method.map(Into::into),
                shipping_method: row.shipping_method.map(Into::into),
            });
        }
        if let (Some(order), Some(item)) = (purchases.orders.last_mut(), row.item) {
            order.items.push(Arc::from(item));
        }
    }
    Ok(purchases)
}
