//! `fact_order`, `fact_order_line`, `order_cancellation` and `fact_refund`.

use std::sync::Arc;

use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::rows::{Insert, json, optional, rank, shared, shop};
use crate::domain::ids::{Shop, SubjectId};
use crate::domain::transform::{Effect, OrderLine, OrderReport, Rank, RefundReport};
use crate::warehouse::WarehouseError;
use crate::warehouse::fold::orders::{OrderKey, OrderRow, Orders, RefundRow};
use crate::warehouse::fold::{Map, Place, Set};

/// Reads what `effects` may change.
pub(super) async fn read(
    conn: &mut SqliteConnection,
    effects: &[(Place, &Effect)],
) -> Result<Orders, WarehouseError> {
    let mut order_ids: Set<(&str, &str)> = Set::default();
    let mut refund_ids: Set<(&str, &str, &str)> = Set::default();
    for (_, effect) in effects {
        let shop = effect.event.shop.as_str();
        order_ids.extend(effect.order.iter().map(|report| (shop, &*report.order_id)));
        order_ids.extend(effect.cancellation.iter().map(|report| (shop, &*report.order_id)));
        refund_ids.extend(
            effect
                .refund
                .iter()
                .map(|report| (shop, &*report.order_id, &*report.refund_id)),
        );
    }
    let mut orders = Orders::default();
    if !order_ids.is_empty() {
        let keys = json(&order_ids)?;
        let mut lines = lines(conn, &keys).await?;
        for row in rows(conn, &keys).await? {
            let shop = shop(&row, "shop")?;
            let order = order(&row, |order_id| {
                lines.remove(&(shop.clone(), order_id)).unwrap_or_default()
            })?;
            orders.add_stored_order(shop, order);
        }
        for (shop, order_id, rank) in cancellations(conn, &keys).await? {
            orders.add_stored_cancellation(shop, order_id, rank);
        }
    }
    if !refund_ids.is_empty() {
        for (shop, row) in refunds(conn, &json(&refund_ids)?).await? {
            orders.add_stored_refund(shop, row);
        }
    }
    Ok(orders)
}

async fn rows(conn: &mut SqliteConnection, keys: &str) -> Result<Vec<SqliteRow>, WarehouseError> {
    Ok(sqlx::query(
        "select o.* from json_each(?1) as k
         cross join fact_order as o on o.shop = k.value ->> 0 and o.order_id = k.value ->> 1",
    )
    .bind(keys)
    .fetch_all(conn)
    .await?)
}

fn order(
    row: &SqliteRow,
    lines: impl FnOnce(Arc<str>) -> Vec<OrderLine>,
) -> Result<OrderRow, WarehouseError> {
    let order_id = shared(row, "order_id")?;
    let report = OrderReport {
        lines: lines(Arc::clone(&order_id)),
        order_id,
        rank: rank(row)?,
        subject: optional(row, "subject")?.map(|subject| SubjectId::from_stored(&subject)),
        currency: shared(row, "currency")?,
        total_minor: row.try_get("total_minor")?,
        payment_method: optional(row, "payment_method")?,
        shipping_method: optional(row, "shipping_method")?,
        coupon: optional(row, "coupon")?,
    };
    Ok(OrderRow {
        report,
        cancelled: row.try_get("cancelled")?,
        generation: row.try_get("generation")?,
    })
}

/// By order, in the order of the lines.
async fn lines(
    conn: &mut SqliteConnection,
    keys: &str,
) -> Result<Map<OrderKey, Vec<OrderLine>>, WarehouseError> {
    let rows = sqlx::query(
        "select l.* from json_each(?1) as k
         cross join fact_order_line as l on l.shop = k.value ->> 0 and l.order_id = k.value ->> 1
         order by l.shop, l.order_id, l.line",
    )
    .bind(keys)
    .fetch_all(conn)
    .await?;
    let mut lines: Map<OrderKey, Vec<OrderLine>> = Map::default();
    for row in &rows {
        lines
            .entry((shop(row, "shop")?, shared(row, "order_id")?))
            .or_default()
            .push(OrderLine {
                line: row.try_get("line")?,
                item: shared(row, "item")?,
                category: optional(row, "category")?,
                quantity: row.try_get("quantity")?,
                unit_price: shared(row, "unit_price")?,
                amount_minor: row.try_get("amount_minor")?,
                is_charge: row.try_get("is_charge")?,
            });
    }
    Ok(lines)
}

async fn cancellations(
    conn: &mut SqliteConnection,
    keys: &str,
) -> Result<Vec<(Shop, Arc<str>, Rank)>, WarehouseError> {
    let rows = sqlx::query(
        "select c.* from json_each(?1) as k
         cross join order_cancellation as c on c.shop = k.value ->> 0 and c.order_id = k.value ->> 1",
    )
    .bind(keys)
    .fetch_all(conn)
    .await?;
    rows.iter()
        .map(|row| Ok((shop(row, "shop")?, shared(row, "order_id")?, rank(row)?)))
        .collect()
}

async fn refunds(conn: &mut SqliteConnection, keys: &str) -> Result<Vec<(Shop, RefundRow)>, WarehouseError> {
    let rows = sqlx::query(
        "select r.* from json_each(?1) as k
         cross join fact_refund as r
         on r.shop = k.value ->> 0 and r.order_id = k.value ->> 1 and r.refund_id = k.value ->> 2",
    )
    .bind(keys)
    .fetch_all(conn)
    .await?;
    rows.iter()
        .map(|row| {
            let report = RefundReport {
                order_id: shared(row, "order_id")?,
                refund_id: shared(row, "refund_id")?,
                rank: rank(row)?,
                subject: optional(row, "subject")?.map(|subject| SubjectId::from_stored(&subject)),
                currency: shared(row, "currency")?,
                amount_minor: row.try_get("amount_minor")?,
            };
            Ok((
                shop(row, "shop")?,
                RefundRow {
                    report,
                    generation: row.try_get("generation")?,
                },
            ))
        })
        .collect()
}

/// Writes what changed.
pub(super) async fn write(conn: &mut SqliteConnection, orders: &Orders) -> Result<(), WarehouseError> {
    let changed = orders.changed_orders();
    if !changed.is_empty() {
        write_orders(conn, &changed).await?;
        delete_lines(conn, &changed).await?;
        insert_lines(conn, &changed).await?;
    }
    write_cancellations(conn, &orders.changed_cancellations()).await?;
    write_refunds(conn, &orders.changed_refunds()).await
}

const WRITE_ORDERS: Insert = Insert {
    into: "insert into fact_order (shop, order_id, verified, event_time, event_id, subject, day, currency, \
           total_minor, payment_method, shipping_method, coupon, cancelled, generation)",
    columns: 14,
    then: "on conflict (shop, order_id) do update set verified = excluded.verified, \
           event_time = excluded.event_time, event_id = excluded.event_id, subject = excluded.subject, \
           day = excluded.day, currency = excluded.currency, total_minor = excluded.total_minor, \
           payment_method = excluded.payment_method, shipping_method = excluded.shipping_method, \
           coupon = excluded.coupon, cancelled = excluded.cancelled, generation = excluded.generation",
};

async fn write_orders(
    conn: &mut SqliteConnection,
    rows: &[(&Shop, &OrderRow)],
) -> Result<(), WarehouseError> {
    WRITE_ORDERS
        .run(conn, rows, |(shop, row), values| {
            let report = &row.report;
            values
                .push_shop(shop)
                .push_shared(&report.order_id)
                .push_rank(&report.rank);
            values
                .push_subject(report.subject.as_ref())
                .push(report.rank.stamp.time.day());
            values.push_shared(&report.currency).push(report.total_minor);
            values
                .push(report.payment_method.clone())
                .push(report.shipping_method.clone());
            values
                .push(report.coupon.clone())
                .push(row.cancelled)
                .push(row.generation);
        })
        .await?;
    Ok(())
}

async fn delete_lines(
    conn: &mut SqliteConnection,
    rows: &[(&Shop, &OrderRow)],
) -> Result<(), WarehouseError> {
    let keys: Vec<(&str, &str)> = rows
        .iter()
        .map(|(shop, row)| (shop.as_str(), &*row.report.order_id))
        .collect();
    sqlx::query(
        "delete from fact_order_line where (shop, order_id) in
         (select value ->> 0, value ->> 1 from json_each(?1))",
    )
    .bind(json(&keys)?)
    .execute(conn)
    .await?;
    Ok(())
}

const INSERT_LINES: Insert = Insert {
    into: "insert into fact_order_line (shop, order_id, line, item, category, quantity, unit_price, amount_minor, \
           currency, is_charge)",
    columns: 10,
    then: "",
};

async fn insert_lines(
    conn: &mut SqliteConnection,
    rows: &[(&Shop, &OrderRow)],
) -> Result<(), WarehouseError> {
    let lines: Vec<(&Shop, &OrderReport, &OrderLine)> = rows
        .iter()
        .flat_map(|(shop, row)| row.report.lines.iter().map(|line| (*shop, &row.report, line)))
        .collect();
    INSERT_LINES
        .run(conn, &lines, |(shop, report, line), values| {
            values
                .push_shop(shop)
                .push_shared(&report.order_id)
                .push(line.line)
                .push_shared(&line.item);
            values
                .push(line.category.clone())
                .push(line.quantity)
                .push_shared(&line.unit_price);
            values
                .push(line.amount_minor)
                .push_shared(&report.currency)
                .push(line.is_charge);
        })
        .await?;
    Ok(())
}

const WRITE_CANCELLATIONS: Insert = Insert {
    into: "insert into order_cancellation (shop, order_id, verified, event_time, event_id)",
    columns: 5,
    then: "on conflict (shop, order_id) do update set verified = excluded.verified, \
           event_time = excluded.event_time, event_id = excluded.event_id",
};

async fn write_cancellations(
    conn: &mut SqliteConnection,
    rows: &[(&OrderKey, &Rank)],
) -> Result<(), WarehouseError> {
    WRITE_CANCELLATIONS
        .run(conn, rows, |((shop, order_id), rank), values| {
            values.push_shop(shop).push_shared(order_id).push_rank(rank);
        })
        .await?;
    Ok(())
}

const WRITE_REFUNDS: Insert = Insert {
    into: "insert into fact_refund (shop, order_id, refund_id, verified, event_time, event_id, subject, day, \
           currency, amount_minor, generation)",
    columns: 11,
    then: "on conflict (shop, order_id, refund_id) do update set verified = excluded.verified, \
           event_time = excluded.event_time, event_id = excluded.event_id, subject = excluded.subject, \
           day = excluded.day, currency = excluded.currency, amount_minor = excluded.amount_minor, \
           generation = excluded.generation",
};

async fn write_refunds(
    conn: &mut SqliteConnection,
    rows: &[(&Shop, &RefundRow)],
) -> Result<(), WarehouseError> {
    WRITE_REFUNDS
        .run(conn, rows, |(shop, row), values| {
            let report = &row.report;
            values
                .push_shop(shop)
                .push_shared(&report.order_id)
                .push_shared(&report.refund_id);
            values
                .push_rank(&report.rank)
                .push_subject(report.subject.as_ref());
            values
                .push(report.rank.stamp.time.day())
                .push_shared(&report.currency);
            values.push(report.amount_minor).push(row.generation);
        })
        .await?;
    Ok(())
}
