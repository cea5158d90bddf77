//! `fact_order`, `fact_order_line`, `order_cancellation` and `fact_refund`.

use std::collections::BTreeSet;
use std::sync::Arc;

use sqlx::PgConnection;

use super::error::{Failure, natural};
use super::rows::{Day, Instant, column, rank, shared, shop};
use crate::domain::ids::{Shop, SubjectId};
use crate::domain::transform::{Effect, OrderLine, OrderReport, Rank, RefundReport};
use crate::warehouse::fold::orders::{OrderKey, OrderRow, Orders, RefundRow};
use crate::warehouse::fold::{Map, Place};

/// Reads what `effects` may change, with the orders locked until the transaction ends.
pub(super) async fn read(conn: &mut PgConnection, effects: &[(Place, &Effect)]) -> Result<Orders, Failure> {
    let mut orders = Orders::default();
    let mut keys: BTreeSet<(&str, &str)> = BTreeSet::new();
    for (_, effect) in effects {
        let shop = effect.event.shop.as_str();
        keys.extend(effect.order.iter().map(|report| (shop, &*report.order_id)));
        keys.extend(effect.cancellation.iter().map(|report| (shop, &*report.order_id)));
        keys.extend(effect.refund.iter().map(|report| (shop, &*report.order_id)));
    }
    if keys.is_empty() {
        return Ok(orders);
    }
    let keys: Vec<(&str, &str)> = keys.into_iter().collect();
    lock(conn, &keys).await?;
    read_orders(conn, &keys, &mut orders).await?;
    read_cancellations(conn, &keys, &mut orders).await?;
    let refunds: BTreeSet<(&str, &str, &str)> = effects
        .iter()
        .filter_map(|(_, effect)| {
            let report = effect.refund.as_ref()?;
            Some((effect.event.shop.as_str(), &*report.order_id, &*report.refund_id))
        })
        .collect();
    if !refunds.is_empty() {
        let refunds: Vec<_> = refunds.into_iter().collect();
        read_refunds(conn, &refunds, &mut orders).await?;
    }
    Ok(orders)
}

async fn lock(conn: &mut PgConnection, keys: &[(&str, &str)]) -> Result<(), Failure> {
    sqlx::query!(
        "insert into order_lock (shop, order_id) select unnest($1::text[]), unnest($2::text[])
         on conflict (shop, order_id) do update set order_id = excluded.order_id",
        column(keys, |(shop, _)| *shop) as _,
        column(keys, |(_, order_id)| *order_id) as _
    )
    .execute(conn)
    .await?;
    Ok(())
}

async fn read_orders(
    conn: &mut PgConnection,
    keys: &[(&str, &str)],
    orders: &mut Orders,
) -> Result<(), Failure> {
    let rows = sqlx::query!(
        r#"select o.shop, o.order_id, o.verified, o.event_time as "event_time: Instant", o.event_id, o.subject,
                  o.currency, o.total_minor, o.payment_method, o.shipping_method, o.coupon, o.cancelled, o.generation
           from (select unnest($1::text[]) as shop, unnest($2::text[]) as order_id) as k
           join fact_order as o on o.shop = k.shop and o.order_id = k.order_id"#,
        column(keys, |(shop, _)| *shop) as _,
        column(keys, |(_, order_id)| *order_id) as _
    )
    .fetch_all(&mut *conn)
    .await?;
    if rows.is_empty() {
        return Ok(());
    }
    let mut lines = lines(conn, keys).await?;
    for row in rows {
        let (shop, order_id): OrderKey = (shop(row.shop)?, row.order_id.into());
        let report = OrderReport {
            lines: lines
                .remove(&(shop.clone(), Arc::clone(&order_id)))
                .unwrap_or_default(),
            order_id,
            rank: rank(row.verified, row.event_time, row.event_id),
            subject: row.subject.as_deref().map(SubjectId::from_stored),
            currency: row.currency.into(),
            total_minor: row.total_minor,
            payment_method: shared(row.payment_method),
            shipping_method: shared(row.shipping_method),
            coupon: shared(row.coupon),
        };
        let row = OrderRow {
            report,
            cancelled: row.cancelled,
            generation: natural(row.generation)?,
        };
        orders.add_stored_order(shop, row);
    }
    Ok(())
}

/// By order, in the order of the lines.
async fn lines(
    conn: &mut PgConnection,
    keys: &[(&str, &str)],
) -> Result<Map<OrderKey, Vec<OrderLine>>, Failure> {
    let rows = sqlx::query!(
        "select l.shop, l.order_id, l.line, l.item, l.category, l.quantity, l.unit_price, l.amount_minor, l.is_charge
         from (select unnest($1::text[]) as shop, unnest($2::text[]) as order_id) as k
         join fact_order_line as l on l.shop = k.shop and l.order_id = k.order_id
         order by l.shop, l.order_id, l.line",
        column(keys, |(shop, _)| *shop) as _,
        column(keys, |(_, order_id)| *order_id) as _
    )
    .fetch_all(conn)
    .await?;
    let mut lines: Map<OrderKey, Vec<OrderLine>> = Map::default();
    for row in rows {
        lines
            .entry((shop(row.shop)?, row.order_id.into()))
            .or_default()
            .push(OrderLine {
                line: natural(row.line)?,
                item: row.item.into(),
                category: shared(row.category),
                quantity: row.quantity,
                unit_price: row.unit_price.into(),
                amount_minor: row.amount_minor,
                is_charge: row.is_charge,
            });
    }
    Ok(lines)
}

async fn read_cancellations(
    conn: &mut PgConnection,
    keys: &[(&str, &str)],
    orders: &mut Orders,
) -> Result<(), Failure> {
    let rows = sqlx::query!(
        r#"select c.shop, c.order_id, c.verified, c.event_time as "event_time: Instant", c.event_id
           from (select unnest($1::text[]) as shop, unnest($2::text[]) as order_id) as k
           join order_cancellation as c on c.shop = k.shop and c.order_id = k.order_id"#,
        column(keys, |(shop, _)| *shop) as _,
        column(keys, |(_, order_id)| *order_id) as _
    )
    .fetch_all(conn)
    .await?;
    for row in rows {
        let rank = rank(row.verified, row.event_time, row.event_id);
        orders.add_stored_cancellation(shop(row.shop)?, row.order_id.into(), rank);
    }
    Ok(())
}

async fn read_refunds(
    conn: &mut PgConnection,
    keys: &[(&str, &str, &str)],
    orders: &mut Orders,
) -> Result<(), Failure> {
    let rows = sqlx::query!(
        r#"select r.shop, r.order_id, r.refund_id, r.verified, r.event_time as "event_time: Instant", r.event_id,
                  r.subject, r.currency, r.amount_minor, r.generation
           from (select unnest($1::text[]) as shop, unnest($2::text[]) as order_id, unnest($3::text[]) as refund_id) as k
           join fact_refund as r on r.shop = k.shop and r.order_id = k.order_id and r.refund_id = k.refund_id"#,
        column(keys, |(shop, ..)| *shop) as _,
        column(keys, |(_, order_id, _)| *order_id) as _,
        column(keys, |(.., refund_id)| *refund_id) as _
    )
    .fetch_all(conn)
    .await?;
    for row in rows {
        let report = RefundReport {
            order_id: row.order_id.into(),
            refund_id: row.refund_id.into(),
            rank: rank(row.verified, row.event_time, row.event_id),
            subject: row.subject.as_deref().map(SubjectId::from_stored),
            currency: row.currency.into(),
            amount_minor: row.amount_minor,
        };
        let row_generation = natural(row.generation)?;
        let stored = RefundRow {
            report,
            generation: row_generation,
        };
        orders.add_stored_refund(shop(row.shop)?, stored);
    }
    Ok(())
}

/// Writes what changed.
pub(super) async fn write(conn: &mut PgConnection, orders: &Orders) -> Result<(), Failure> {
    let changed = orders.changed_orders();
    if !changed.is_empty() {
        write_orders(conn, &changed).await?;
        write_lines(conn, &changed).await?;
    }
    write_cancellations(conn, &orders.changed_cancellations()).await?;
    write_refunds(conn, &orders.changed_refunds()).await
}

async fn write_orders(conn: &mut PgConnection, rows: &[(&Shop, &OrderRow)]) -> Result<(), Failure> {
    sqlx::query!(
        "insert into fact_order (shop, order_id, verified, event_time, event_id, subject, day, currency, total_minor,
                                 payment_method, shipping_method, coupon, cancelled, generation)
         select unnest($1::text[]), unnest($2::text[]), unnest($3::boolean[]), unnest($4::timestamptz[]),
                unnest($5::text[]), unnest($6::text[]), unnest($7::date[]), unnest($8::text[]), unnest($9::bigint[]),
                unnest($10::text[]), unnest($11::text[]), unnest($12::text[]), unnest($13::boolean[]),
                unnest($14::bigint[])
         on conflict (shop, order_id) do update set verified = excluded.verified, event_time = excluded.event_time,
             event_id = excluded.event_id, subject = excluded.subject, day = excluded.day,
             currency = excluded.currency, total_minor = excluded.total_minor,
             payment_method = excluded.payment_method, shipping_method = excluded.shipping_method,
             coupon = excluded.coupon, cancelled = excluded.cancelled, generation = excluded.generation",
        column(rows, |(shop, _)| shop.as_str()) as _,
        column(rows, |(_, row)| &*row.report.order_id) as _,
        column(rows, |(_, row)| row.report.rank.verified) as _,
        column(rows, |(_, row)| Instant(row.report.rank.stamp.time)) as _,
        column(rows, |(_, row)| &*row.report.rank.stamp.event_id) as _,
        column(rows, |(_, row)| row.report.subject.as_ref().map(SubjectId::as_str)) as _,
        column(rows, |(_, row)| Day(row.report.rank.stamp.time.day())) as _,
        column(rows, |(_, row)| &*row.report.currency) as _,
        column(rows, |(_, row)| row.report.total_minor) as _,
        column(rows, |(_, row)| row.report.payment_method.as_deref()) as _,
        column(rows, |(_, row)| row.report.shipping_method.as_deref()) as _,
        column(rows, |(_, row)| row.report.coupon.as_deref()) as _,
        column(rows, |(_, row)| row.cancelled) as _,
        column(rows, |(_, row)| i64::from(row.generation)) as _
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Replaces the lines of `orders`.
async fn write_lines(conn: &mut PgConnection, orders: &[(&Shop, &OrderRow)]) -> Result<(), Failure> {
    sqlx::query!(
        "delete from fact_order_line as l using (select unnest($1::text[]) as shop, unnest($2::text[]) as order_id) as k
         where l.shop = k.shop and l.order_id = k.order_id",
        column(orders, |(shop, _)| shop.as_str()) as _,
        column(orders, |(_, row)| &*row.report.order_id) as _
    )
    .execute(&mut *conn)
    .await?;
    let rows: Vec<(&Shop, &OrderReport, &OrderLine)> = orders
        .iter()
        .flat_map(|(shop, row)| row.report.lines.iter().map(|line| (*shop, &row.report, line)))
        .collect();
    sqlx::query!(
        "insert into fact_order_line (shop, order_id, line, item, category, quantity, unit_price, amount_minor,
                                      currency, is_charge)
         select unnest($1::text[]), unnest($2::text[]), unnest($3::bigint[]), unnest($4::text[]), unnest($5::text[]),
                unnest($6::bigint[]), unnest($7::text[]), unnest($8::bigint[]), unnest($9::text[]),
                unnest($10::boolean[])",
        column(&rows, |(shop, ..)| shop.as_str()) as _,
        column(&rows, |(_, report, _)| &*report.order_id) as _,
        column(&rows, |(.., line)| i64::from(line.line)) as _,
        column(&rows, |(.., line)| &*line.item) as _,
        column(&rows, |(.., line)| line.category.as_deref()) as _,
        column(&rows, |(.., line)| line.quantity) as _,
        column(&rows, |(.., line)| &*line.unit_price) as _,
        column(&rows, |(.., line)| line.amount_minor) as _,
        column(&rows, |(_, report, _)| &*report.currency) as _,
        column(&rows, |(.., line)| line.is_charge) as _
    )
    .execute(conn)
    .await?;
    Ok(())
}

async fn write_cancellations(conn: &mut PgConnection, rows: &[(&OrderKey, &Rank)]) -> Result<(), Failure> {
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "insert into order_cancellation (shop, order_id, verified, event_time, event_id)
         select unnest($1::text[]), unnest($2::text[]), unnest($3::boolean[]), unnest($4::timestamptz[]),
                unnest($5::text[])
         on conflict (shop, order_id) do update set verified = excluded.verified, event_time = excluded.event_time,
             event_id = excluded.event_id",
        column(rows, |((shop, _), _)| shop.as_str()) as _,
        column(rows, |((_, order_id), _)| &**order_id) as _,
        column(rows, |(_, rank)| rank.verified) as _,
        column(rows, |(_, rank)| Instant(rank.stamp.time)) as _,
        column(rows, |(_, rank)| &*rank.stamp.event_id) as _
    )
    .execute(conn)
    .await?;
    Ok(())
}

async fn write_refunds(conn: &mut PgConnection, rows: &[(&Shop, &RefundRow)]) -> Result<(), Failure> {
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "insert into fact_refund (shop, order_id, refund_id, verified, event_time, event_id, subject, day, currency,
                                  amount_minor, generation)
         select unnest($1::text[]), unnest($2::text[]), unnest($3::text[]), unnest($4::boolean[]),
                unnest($5::timestamptz[]), unnest($6::text[]), unnest($7::text[]), unnest($8::date[]),
                unnest($9::text[]), unnest($10::bigint[]), unnest($11::bigint[])
         on conflict (shop, order_id, refund_id) do update set verified = excluded.verified,
             event_time = excluded.event_time, event_id = excluded.event_id, subject = excluded.subject,
             day = excluded.day, currency = excluded.currency, amount_minor = excluded.amount_minor,
             generation = excluded.generation",
        column(rows, |(shop, _)| shop.as_str()) as _,
        column(rows, |(_, row)| &*row.report.order_id) as _,
        column(rows, |(_, row)| &*row.report.refund_id) as _,
        column(rows, |(_, row)| row.report.rank.verified) as _,
        column(rows, |(_, row)| Instant(row.report.rank.stamp.time)) as _,
        column(rows, |(_, row)| &*row.report.rank.stamp.event_id) as _,
        column(rows, |(_, row)| row.report.subject.as_ref().map(SubjectId::as_str)) as _,
        column(rows, |(_, row)| Day(row.report.rank.stamp.time.day())) as _,
        column(rows, |(_, row)| &*row.report.currency) as _,
        column(rows, |(_, row)| row.report.amount_minor) as _,
        column(rows, |(_, row)| i64::from(row.generation)) as _
    )
    .execute(conn)
    .await?;
    Ok(())
}
