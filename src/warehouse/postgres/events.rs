//! `event_seen` and `fact_event`, and the dates that facts refer to.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use sha2::{Digest as _, Sha256};
use sqlx::PgConnection;

use super::copy::copy;
use super::error::{Failure, integer};
use super::rows::{Day, Digest, Instant, column};
use crate::domain::ids::{SubjectId, Timestamp};
use crate::domain::transform::Effect;
use crate::warehouse::WarehouseError;
use crate::warehouse::batch::{choice, source};
use crate::warehouse::fold::{Place, Set, dedupe_time};

/// How `event_seen` knows an event; SQL has the same as `event_digest(shop, event_id)`. A shop has no line break in it.
fn digest_of(effect: &Effect) -> Digest {
    let hash: [u8; 32] = Sha256::new()
        .chain_update(effect.event.shop.as_str())
        .chain_update("\n")
        .chain_update(&*effect.event.event_id)
        .finalize()
        .into();
    Digest(std::array::from_fn(|at| hash[at]))
}

/// Remembers the ids of `effects`; returns those that were not seen before, each id once, in log order.
///
/// Where another batch remembers one of them at the same time, the one that comes second begins again.
pub(super) async fn remember<'e>(
    conn: &mut PgConnection,
    effects: &[(Place, &'e Effect)],
) -> Result<Vec<(Place, &'e Effect)>, Failure> {
    let mut sorted: Vec<(Digest, usize)> = effects
        .iter()
        .enumerate()
        .map(|(at, (_, effect))| (digest_of(effect), at))
        .collect();
    // Of two events with one id the first one in the log decides.
    sorted.sort_unstable();
    sorted.dedup_by_key(|(digest, _)| *digest);
    let effect = |at: usize| effects.get(at).map(|(_, effect)| &effect.event);
    let seen = sqlx::query_scalar!(
        r#"with candidate as materialized (
               select k.digest, k.prunable_time, k.at, s.digest is not null as is_seen
               from (select unnest($1::uuid[]) as digest, unnest($2::timestamptz[]) as prunable_time,
                            unnest($3::bigint[]) as at) as k
               left join event_seen as s on s.digest = k.digest),
           remembered as (
               insert into event_seen (digest, prunable_time)
               select digest, prunable_time from candidate where not is_seen)
           select at as "at!" from candidate where is_seen"#,
        column(&sorted, |(digest, _)| *digest) as _,
        column(&sorted, |(_, at)| effect(*at).and_then(dedupe_time).map(Instant)) as _,
        column(&sorted, |(_, at)| i64::try_from(*at).unwrap_or(i64::MAX)) as _
    )
    .fetch_all(conn)
    .await?;
    if seen.is_empty() && sorted.len() == effects.len() {
        return Ok(effects.to_vec());
    }
    let seen: Set<i64> = seen.into_iter().collect();
    let mut new: Vec<usize> = sorted.into_iter().map(|(_, at)| at).collect();
    new.retain(|at| i64::try_from(*at).is_ok_and(|at| !seen.contains(&at)));
    new.sort_unstable();
    Ok(new
        .into_iter()
        .filter_map(|at| effects.get(at).copied())
        .collect())
}

const COPY: &str = "copy fact_event (shop, event_id, name, anonymous_id, user_id, claimed_user_id, session_id, source, \
                    event_time, received_at, day, consent_analytics, consent_personalization, partition, log_offset, \
                    body) from stdin (format binary)";

pub(super) async fn insert(
    conn: &mut PgConnection,
    effects: &[(Place, Cow<'_, Effect>)],
) -> Result<(), Failure> {
    if effects.is_empty() {
        return Ok(());
    }
    copy(conn, COPY, effects, |(place, effect), rows| {
        let event = &effect.event;
        let body = std::str::from_utf8(&event.body).map_err(|error| {
            WarehouseError::Rejected(format!("body of event {}: {error}", event.event_id).into())
        })?;
        rows.start(16);
        rows.text(event.shop.as_str());
        rows.text(&event.event_id);
        rows.text(&event.name);
        rows.optional(event.anonymous.as_ref().map(SubjectId::as_str));
        rows.optional(event.user.as_ref().map(SubjectId::as_str));
        rows.optional(event.claimed_user.as_ref().map(SubjectId::as_str));
        rows.optional(event.session.as_deref());
        rows.text(source(event.source));
        rows.instant(Instant(event.event_time))?;
        rows.instant(Instant(event.received_at))?;
        rows.day(Day(event.received_at.day()))?;
        rows.optional(event.consent.analytics.map(choice));
        rows.optional(event.consent.personalization.map(choice));
        rows.int(i32::from(place.partition));
        rows.bigint(integer(place.offset)?);
        rows.text(body);
        Ok(())
    })
    .await
}

/// The days known to be in `dim_date`, which forgets none.
#[derive(Debug, Default)]
pub(super) struct Dates {
    known: Mutex<BTreeSet<i64>>,
}

impl Dates {
    /// Of `days` those not known to be there, in order.
    pub(super) fn unknown(&self, days: &Set<i64>) -> BTreeSet<i64> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        days.iter().copied().filter(|day| !known.contains(day)).collect()
    }

    /// Once the transaction that inserted them is committed.
    pub(super) fn remember(&self, days: BTreeSet<i64>) {
        if !days.is_empty() {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.extend(days);
        }
    }
}

/// Adds the days that are missing in `dim_date`.
pub(super) async fn insert_dates(conn: &mut PgConnection, days: &BTreeSet<i64>) -> Result<(), Failure> {
    if days.is_empty() {
        return Ok(());
    }
    let days: Vec<Day> = days.iter().copied().map(Day).collect();
    sqlx::query!(
        "insert into dim_date (day, year, quarter, month, day_of_month, weekday)
         select day, extract(year from day)::int, extract(quarter from day)::int, extract(month from day)::int,
                extract(day from day)::int, extract(isodow from day)::int
         from unnest($1::date[]) as day
         on conflict do nothing",
        days as _
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// How far the floor moves between two looks, unless [`PRUNE_EVENTS`] come first. Less: a statement in every small batch.
const PRUNE_STEP_MS: i64 = 1_000;
const PRUNE_EVENTS: usize = 512;

/// Pages looked through at once, and one more for so many events since the last look. A page holds some 150 ids, so a round takes a
/// third of the time in which the table fills, whatever its size.
const PRUNE_PAGES: usize = 16;
const EVENTS_PER_PAGE: usize = 50;

/// Forgets ids, in rounds through the pages of `event_seen`.
///
/// Ids are inserted in the order of time and forgotten in the same, so old ones stand together and a page of them goes at once. An index
/// by time would name them, and be a sixth of what the server does for an event.
#[derive(Debug, Default)]
pub(super) struct Pruner {
    round: tokio::sync::Mutex<Round>,
}

#[derive(Debug)]
struct Round {
    /// The next page; `None` before the first look, which takes one by chance: a worker that starts again and again gets everywhere.
    next: Option<i64>,
    looked_at: Timestamp,
    /// Since the last look.
    events: usize,
}

impl Default for Round {
    fn default() -> Self {
        Round {
            next: None,
            looked_at: Timestamp(i64::MIN),
            events: 0,
        }
    }
}

impl Pruner {
    /// Forgets the ids older than `floor` on some pages. Rows that another batch prunes are left to it, and so is a look that it is taking.
    pub(super) async fn prune(
        &self,
        conn: &mut PgConnection,
        floor: Timestamp,
        events: usize,
    ) -> Result<(), Failure> {
        let Ok(mut round) = self.round.try_lock() else {
            return Ok(());
        };
        round.events += events;
        let is_due = floor.0 >= round.looked_at.0.saturating_add(PRUNE_STEP_MS);
        if !is_due && round.events < PRUNE_EVENTS {
            return Ok(());
        }
        let pages = i64::try_from(PRUNE_PAGES + round.events / EVENTS_PER_PAGE).unwrap_or(i64::MAX);
        let looked = sqlx::query!(
            r#"with span as materialized (
                   select pages, coalesce($1::bigint, floor(random() * greatest(pages - $2::bigint, 0))::bigint) as first
                   from (select pg_relation_size('event_seen') / current_setting('block_size')::bigint as pages) as s),
               pruned as (
                   delete from event_seen where ctid = any(array(
                       select ctid from event_seen
                       where ctid >= (select format('(%s,0)', first)::tid from span)
                       and ctid < (select format('(%s,0)', first + $2::bigint)::tid from span)
                       and prunable_time < $3
                       for update skip locked)))
               select pages as "pages!", first as "first!" from span"#,
            round.next,
            pages,
            Instant(floor) as _
        )
        .fetch_one(conn)
        .await?;
        let next = looked.first.saturating_add(pages);
        *round = Round {
            next: Some(if next < looked.pages { next } else { 0 }),
            looked_at: floor,
            events: 0,
        };
        Ok(())
    }
}
