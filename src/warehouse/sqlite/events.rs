//! `event_seen` and `fact_event`, and the dates that facts refer to.

use std::borrow::Cow;
use std::sync::{Mutex, PoisonError};

use sqlx::sqlite::SqliteConnection;

use super::error::integer;
use super::rows::{Insert, fetch_packed, json};
use crate::domain::ids::Timestamp;
use crate::domain::transform::Effect;
use crate::warehouse::WarehouseError;
use crate::warehouse::batch::{choice, source};
use crate::warehouse::fold::{Place, Set, dedupe_time};

/// Remembers the ids of `effects`; returns those that were not seen before, each id once, in log order.
pub(super) async fn remember<'e>(
    conn: &mut SqliteConnection,
    effects: &[(Place, &'e Effect)],
) -> Result<Vec<(Place, &'e Effect)>, WarehouseError> {
    // In the order of the key: neighbours share pages, whatever order the log has.
    let mut by_key = effects.to_vec();
    by_key.sort_unstable_by(|(_, a), (_, b)| key(a).cmp(&key(b)));
    let seen = seen(conn, &by_key).await?;
    let mut known: Set<(&str, &str)> = seen.iter().map(|(shop, id)| (&**shop, &**id)).collect();
    let mut new = Vec::with_capacity(effects.len());
    for (place, effect) in effects {
        // Of two events with one id in one batch the first counts.
        if known.insert(key(effect)) {
            new.push((*place, *effect));
        }
    }
    if new.len() < effects.len() {
        by_key.clone_from(&new);
        by_key.sort_unstable_by(|(_, a), (_, b)| key(a).cmp(&key(b)));
    }
    insert_seen(conn, &by_key).await?;
    Ok(new)
}

fn key(effect: &Effect) -> (&str, &str) {
    (effect.event.shop.as_str(), &effect.event.event_id)
}

/// The ids of `effects` that were seen before. Looked up first and inserted afterwards: `returning` would hand over
/// a row per new event, and nearly all are new.
async fn seen(
    conn: &mut SqliteConnection,
    effects: &[(Place, &Effect)],
) -> Result<Vec<(String, String)>, WarehouseError> {
    let keys: Vec<(&str, &str)> = effects.iter().map(|(_, effect)| key(effect)).collect();
    fetch_packed(
        conn,
        "select json_group_array(json_array(s.shop, s.event_id)) from json_each(?1) as k
         cross join event_seen as s on s.shop = k.value ->> 0 and s.event_id = k.value ->> 1",
        &keys,
    )
    .await
}

const INSERT_SEEN: Insert = Insert {
    into: "insert into event_seen (shop, event_id, prunable_time)",
    columns: 3,
    then: "",
};

async fn insert_seen(
    conn: &mut SqliteConnection,
    effects: &[(Place, &Effect)],
) -> Result<(), WarehouseError> {
    INSERT_SEEN
        .run(conn, effects, |(_, effect), values| {
            let event = &effect.event;
            values.push_shop(&event.shop).push_shared(&event.event_id);
            values.push(dedupe_time(event).map(|time| time.0));
        })
        .await?;
    Ok(())
}

const INSERT: Insert = Insert {
    into: "insert into fact_event (shop, event_id, name, anonymous_id, user_id, claimed_user_id, session_id, source, \
           event_time, received_at, day, consent_analytics, consent_personalization, partition, log_offset, body)",
    columns: 16,
    then: "",
};

pub(super) async fn insert(
    conn: &mut SqliteConnection,
    effects: &[(Place, Cow<'_, Effect>)],
) -> Result<(), WarehouseError> {
    let mut rows = Vec::with_capacity(effects.len());
    for (place, effect) in effects {
        let body = std::str::from_utf8(&effect.event.body).map_err(|error| {
            WarehouseError::Rejected(format!("body of event {}: {error}", effect.event.event_id).into())
        })?;
        rows.push((place.partition, integer(place.offset)?, &effect.event, body));
    }
    INSERT
        .run(conn, &rows, |(partition, offset, event, body), values| {
            values
                .push_shop(&event.shop)
                .push_shared(&event.event_id)
                .push_shared(&event.name);
            values
                .push_subject(event.anonymous.as_ref())
                .push_subject(event.user.as_ref());
            values
                .push_subject(event.claimed_user.as_ref())
                .push(event.session.clone());
            values
                .push(source(event.source))
                .push_time(event.event_time)
                .push_time(event.received_at);
            values.push(event.received_at.day());
            values
                .push(event.consent.analytics.map(choice))
                .push(event.consent.personalization.map(choice));
            values.push(*partition).push(*offset).push(*body);
        })
        .await?;
    Ok(())
}

/// Adds the days that are missing in `dim_date`.
pub(super) async fn insert_dates(conn: &mut SqliteConnection, days: &Set<i64>) -> Result<(), WarehouseError> {
    // SQLite's calendar ends with the year 9999.
    sqlx::query(
        "insert into dim_date (day, date, year, quarter, month, day_of_month, weekday)
         select day, date, cast(strftime('%Y', date) as integer), (cast(strftime('%m', date) as integer) + 2) / 3,
                cast(strftime('%m', date) as integer), cast(strftime('%d', date) as integer),
                cast(strftime('%u', date) as integer)
         from (select value as day, date(value * 86400, 'unixepoch') as date from json_each(?1))
         where date is not null
         on conflict do nothing",
    )
    .bind(json(days)?)
    .execute(conn)
    .await?;
    Ok(())
}

/// Walks `event_seen` in key order, a stretch per batch, and forgets what is older than the floor. An index by
/// time would double the table; the walk costs some pages that lie side by side.
#[derive(Debug, Default)]
pub(super) struct Pruner {
    /// The last key looked at; `None` at the start of a round.
    last: Mutex<Option<(String, String)>>,
}

/// Looked at per batch beyond the batch's own number of events, so that a quiet shop is pruned as well.
const PRUNE_AT_LEAST: usize = 64;

impl Pruner {
    /// Looks at twice as many ids as the batch may have added, so that a round ends however fast the table grows.
    pub(super) async fn prune(
        &self,
        conn: &mut SqliteConnection,
        floor: Timestamp,
        events: usize,
    ) -> Result<(), WarehouseError> {
        let after = self
            .last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
            .unwrap_or_default();
        let stretch =
            i64::try_from(events.saturating_mul(2).saturating_add(PRUNE_AT_LEAST)).unwrap_or(i64::MAX);
        let last: Option<(String, String)> = sqlx::query_as(
            "select shop, event_id from event_seen where (shop, event_id) > (?1, ?2)
             order by shop, event_id limit 1 offset ?3",
        )
        .bind(&after.0)
        .bind(&after.1)
        .bind(stretch)
        .fetch_optional(&mut *conn)
        .await?;
        let sql = match &last {
            Some(_) => {
                "delete from event_seen where (shop, event_id) > (?1, ?2) and (shop, event_id) <= (?4, ?5)
                 and prunable_time < ?3"
            }
            None => "delete from event_seen where (shop, event_id) > (?1, ?2) and prunable_time < ?3",
        };
        let mut delete = sqlx::query(sql).bind(&after.0).bind(&after.1).bind(floor.0);
        if let Some((shop, event_id)) = &last {
            delete = delete.bind(shop).bind(event_id);
        }
        delete.execute(conn).await?;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = last;
        Ok(())
    }
}
