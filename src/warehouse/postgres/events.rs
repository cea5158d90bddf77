//! `event_seen` and `fact_event`, and the dates that facts refer to.

use std::borrow::Cow;

use sqlx::PgConnection;

use super::error::{Failure, integer};
use super::rows::{Day, Instant, column};
use crate::domain::ids::{SubjectId, Timestamp};
use crate::domain::transform::Effect;
use crate::warehouse::WarehouseError;
use crate::warehouse::batch::{choice, source};
use crate::warehouse::fold::{Set, dedupe_time};

/// Remembers the ids of `effects`; returns those that were not seen before, each id once, in log order.
pub(super) async fn remember<'e>(
    conn: &mut PgConnection,
    effects: &[(u64, &'e Effect)],
) -> Result<Vec<(u64, &'e Effect)>, Failure> {
    let mut sorted: Vec<&Effect> = effects.iter().map(|(_, effect)| *effect).collect();
    // Stable: of two events with one id the first one in the log decides.
    sorted.sort_by(|a, b| {
        (a.event.shop.as_str(), &a.event.event_id).cmp(&(b.event.shop.as_str(), &b.event.event_id))
    });
    let inserted = sqlx::query!(
        "insert into event_seen (shop, event_id, prunable_time)
         select * from unnest($1::text[], $2::text[], $3::timestamptz[])
         on conflict do nothing
         returning shop, event_id",
        column(&sorted, |effect| effect.event.shop.as_str()) as _,
        column(&sorted, |effect| &*effect.event.event_id) as _,
        column(&sorted, |effect| dedupe_time(&effect.event).map(Instant)) as _
    )
    .fetch_all(conn)
    .await?;
    if inserted.len() == effects.len() {
        return Ok(effects.to_vec());
    }
    let mut new: Set<(&str, &str)> = inserted
        .iter()
        .map(|row| (row.shop.as_str(), row.event_id.as_str()))
        .collect();
    let mut first = effects.to_vec();
    first.retain(|(_, effect)| new.remove(&(effect.event.shop.as_str(), &*effect.event.event_id)));
    Ok(first)
}

pub(super) async fn insert(
    conn: &mut PgConnection,
    partition: u16,
    effects: &[(u64, Cow<'_, Effect>)],
) -> Result<(), Failure> {
    let mut rows = Vec::with_capacity(effects.len());
    for (offset, effect) in effects {
        let body = std::str::from_utf8(&effect.event.body).map_err(|error| {
            WarehouseError::Rejected(format!("body of event {}: {error}", effect.event.event_id).into())
        })?;
        rows.push((integer(*offset)?, &effect.event, body));
    }
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "insert into fact_event (shop, event_id, name, anonymous_id, user_id, claimed_user_id, session_id, source,
                                 event_time, received_at, day, consent_analytics, consent_personalization, partition,
                                 log_offset, body)
         select k.shop, k.event_id, k.name, k.anonymous_id, k.user_id, k.claimed_user_id, k.session_id, k.source,
                k.event_time, k.received_at, k.day, k.analytics, k.personalization, $1::int, k.log_offset,
                k.body::json
         from unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
                     $10::timestamptz[], $11::timestamptz[], $12::date[], $13::text[], $14::text[], $15::bigint[],
                     $16::text[])
              as k(shop, event_id, name, anonymous_id, user_id, claimed_user_id, session_id, source, event_time,
                   received_at, day, analytics, personalization, log_offset, body)",
        i32::from(partition),
        column(&rows, |(_, event, _)| event.shop.as_str()) as _,
        column(&rows, |(_, event, _)| &*event.event_id) as _,
        column(&rows, |(_, event, _)| &*event.name) as _,
        column(&rows, |(_, event, _)| event.anonymous.as_ref().map(SubjectId::as_str)) as _,
        column(&rows, |(_, event, _)| event.user.as_ref().map(SubjectId::as_str)) as _,
        column(&rows, |(_, event, _)| event.claimed_user.as_ref().map(SubjectId::as_str)) as _,
        column(&rows, |(_, event, _)| event.session.as_deref()) as _,
        column(&rows, |(_, event, _)| source(event.source)) as _,
        column(&rows, |(_, event, _)| Instant(event.event_time)) as _,
        column(&rows, |(_, event, _)| Instant(event.received_at)) as _,
        column(&rows, |(_, event, _)| Day(event.received_at.day())) as _,
        column(&rows, |(_, event, _)| event.consent.analytics.map(choice)) as _,
        column(&rows, |(_, event, _)| event.consent.personalization.map(choice)) as _,
        column(&rows, |(offset, ..)| *offset) as _,
        column(&rows, |(.., body)| *body) as _
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Adds the days that are missing in `dim_date`.
pub(super) async fn insert_dates(conn: &mut PgConnection, days: &Set<i64>) -> Result<(), Failure> {
    let mut days: Vec<i64> = days.iter().copied().collect();
    days.sort_unstable();
    sqlx::query!(
        "insert into dim_date (day, year, quarter, month, day_of_month, weekday)
         select day, extract(year from day)::int, extract(quarter from day)::int, extract(month from day)::int,
                extract(day from day)::int, extract(isodow from day)::int
         from unnest($1::date[]) as day
         on conflict do nothing",
        column(&days, |day| Day(*day)) as _
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Pruned per batch beyond twice the batch's own number of events, so that a quiet shop is pruned as well and a
/// busy one catches up.
const PRUNE_AT_LEAST: usize = 64;

/// Forgets some of the ids older than `floor`, oldest first; rows that another batch prunes are left to it.
pub(super) async fn prune(conn: &mut PgConnection, floor: Timestamp, events: usize) -> Result<(), Failure> {
    let limit = events.saturating_mul(2).saturating_add(PRUNE_AT_LEAST);
    sqlx::query!(
        "delete from event_seen where ctid = any(array(
             select ctid from event_seen where prunable_time < $1 order by prunable_time limit $2
             for update skip locked))",
        Instant(floor) as _,
        i64::try_from(limit).unwrap_or(i64::MAX)
    )
    .execute(conn)
    .await?;
    Ok(())
}
