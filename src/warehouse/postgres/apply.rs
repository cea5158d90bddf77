//! Batches in one transaction, read from top to bottom.
//!
//! Transactions of different partitions meet at orders, identities, event ids and products. They meet in that order, and
//! within each in key order, so that none waits for one that waits for it; where it happens all the same the server
//! ends one of them, and that one begins again.
//!
//! Who must be locked follows from the links, and the links hold still only under the locks. So whom the batch names is locked
//! first, in order, then the links are read. They bring in others at times: those are locked as well, without waiting since that
//! would be out of order, and the links are read again. Where one of them is locked by somebody else, the transaction begins
//! again and locks all of them in order.

use std::collections::BTreeSet;
use std::time::Duration;

use sqlx::{PgConnection, Postgres, Transaction};

use super::error::{Failure, commit};
use super::profiles::Former;
use super::{
    BEGIN, PgWarehouse, WRITE, decisions, events, experiments, identity, orders, position, products,
    profiles, quarantine, segments,
};
use crate::domain::ids::SubjectId;
use crate::domain::transform::Effect;
use crate::warehouse::batch::{
    applied, days, decisions_served, next_versions, products_seen, sort_out, with_quarantined,
};
use crate::warehouse::fold::orders::Orders;
use crate::warehouse::fold::parts::Before;
use crate::warehouse::fold::people::People;
use crate::warehouse::fold::{Folded, Place, fold};
use crate::warehouse::{Applied, Batch, Progress, WarehouseError};

/// Beginning again is rare; so many times in a row means that something else is wrong.
const ATTEMPTS: u32 = 6;

/// Subjects to lock beyond the guess.
type Also = BTreeSet<SubjectId>;

pub(super) async fn apply(
    warehouse: &PgWarehouse,
    batches: &[Batch<'_>],
) -> Result<Vec<Applied>, WarehouseError> {
    let Some(first) = batches.first() else {
        return Ok(Vec::new());
    };
    let mut also = Also::new();
    let mut attempt = 1;
    loop {
        match apply_once(warehouse, batches, first, &mut also).await {
            Err(Failure::Again(reason)) if attempt < ATTEMPTS => {
                tracing::debug!(partition = first.next.partition, attempt, %reason, "batch begins again");
                warehouse.partitions.forget();
                // Apart from each other, so that the same two don't meet again.
                let apart = u64::from(first.next.partition % 8 + 1) * u64::from(attempt);
                tokio::time::sleep(Duration::from_millis(2 * apart)).await;
                attempt += 1;
            }
            other => return Ok(other?),
        }
    }
}

async fn apply_once(
    warehouse: &PgWarehouse,
    batches: &[Batch<'_>],
    first: &Batch<'_>,
    also: &mut Also,
) -> Result<Vec<Applied>, Failure> {
    let written = tokio::time::timeout(WRITE, write(warehouse, batches, first, also)).await;
    let Written {
        tx,
        applied,
        new_days,
    } = written
        .map_err(|_| WarehouseError::Unavailable("the server hangs in the middle of a batch".into()))??;
    commit(tx).await?;
    warehouse.dates.remember(new_days);
    Ok(applied)
}

/// What is left to commit.
struct Written {
    tx: Transaction<'static, Postgres>,
    applied: Vec<Applied>,
    new_days: BTreeSet<i64>,
}

/// All of the transaction but its commit.
async fn write(
    warehouse: &PgWarehouse,
    batches: &[Batch<'_>],
    first: &Batch<'_>,
    also: &mut Also,
) -> Result<Written, Failure> {
    let epoch = warehouse.ready().await?;
    warehouse.partitions.ensure(&warehouse.writer, batches).await?;
    let mut tx = warehouse.writer.begin_with(BEGIN).await?;

    // The positions are compared first and moved at the end; in between their rows are ours.
    let locked = position::lock(&mut tx, batches).await?;
    let mut change_seqs = compare(batches, &locked)?;

    // What does not count; and what does, once.
    let (quarantined, candidates) = sort_out(batches);
    let new = events::remember(&mut tx, &candidates).await?;
    let effects = with_quarantined(batches, &new);

    // Everything stored that the effects may change, locked; then the effects, one after the other.
    let mut orders = orders::read(&mut tx, &new).await?;
    let (mut people, before, former) = lock_people(&mut tx, &effects, &orders, also).await?;
    let Former { progress, mut parts } = former;
    let Folded { counted, unnamed } = fold(&effects, &mut orders, &mut people, &mut parts);
    quarantine::insert(&mut tx, first.next.log_id, &quarantined, &unnamed, first.now).await?;

    // Facts and dimensions.
    let new_days = warehouse.dates.unknown(&days(&counted));
    events::insert_dates(&mut tx, &new_days).await?;
    events::insert(&mut tx, &counted).await?;
    let decisions = decisions_served(&counted);
    decisions::insert(&mut tx, &decisions).await?;
    experiments::insert(&mut tx, &decisions).await?;
    orders::write(&mut tx, &orders).await?;
    identity::write(&mut tx, &people).await?;

    // Parts and documents, each document with its next version.
    let folded = parts.outcome(&before, &mut people);
    let stored = progress.keys().cloned().collect();
    let documents = next_versions(folded.documents, progress, epoch, batches, &mut change_seqs);
    profiles::write(&mut tx, &documents, folded.parts, &stored, &people).await?;

    if let Some(ruleset) = first.ruleset {
        segments::update(&mut tx, ruleset, &documents, &people, first.now).await?;
    }
    if let Some(floor) = first.dedupe_floor {
        warehouse.pruner.prune(&mut tx, floor, effects.len()).await?;
    }
    position::store(&mut tx, batches, &change_seqs).await?;
    products::join(&mut tx, &products_seen(&counted)).await?;
    let applied = applied(batches, &candidates, &new, &quarantined, &documents, &change_seqs);
    Ok(Written {
        tx,
        applied,
        new_days,
    })
}

/// The partitions' change numbers, if each stands where its batch expects it.
fn compare(batches: &[Batch<'_>], locked: &[Option<Progress>]) -> Result<Vec<u64>, WarehouseError> {
    let compared = batches.iter().zip(locked).map(|(batch, locked)| {
        let found = locked.map(|locked| locked.position);
        match found == batch.expected {
            true => Ok(locked.map_or(0, |locked| locked.change_seq)),
            false => Err(WarehouseError::PositionMoved {
                expected: batch.expected,
                found,
            }),
        }
    });
    compared.collect()
}

/// Locks everybody whose part or document the effects may change, and says who they are to each other.
async fn lock_people(
    conn: &mut PgConnection,
    effects: &[(Place, &Effect)],
    orders: &Orders,
    also: &mut Also,
) -> Result<(People, Before, Former), Failure> {
    let mut locked = also.clone();
    locked.extend(named(effects, orders).touched().cloned());
    let mut former = Former::default();
    former.lock(conn, &Vec::from_iter(&locked)).await?;
    loop {
        let mut people = named(effects, orders);
        identity::read(conn, &mut people).await?;
        let before = Before::of(&mut people);
        let subjects: Also = before.subjects(&people).into_iter().collect();
        let more: Vec<&SubjectId> = subjects.difference(&locked).collect();
        if more.is_empty() {
            nobody_joined(conn, &before, &former).await?;
            return Ok((people, before, former));
        }
        also.extend(more.iter().copied().cloned());
        former.lock_more(conn, &more).await?;
        locked.extend(subjects);
    }
}

/// The people whom the effects and the orders name.
fn named(effects: &[(Place, &Effect)], orders: &Orders) -> People {
    let mut people = People::of(effects.iter().map(|(_, effect)| *effect));
    for (shop, subject) in orders.stored_subjects() {
        people.touch(shop, subject);
    }
    people
}

/// Who belongs to somebody has a document, so whoever had none under the locks came with a link that was made since.
async fn nobody_joined(conn: &mut PgConnection, before: &Before, former: &Former) -> Result<(), Failure> {
    let joined = before
        .joined()
        .filter(|subject| !former.progress.contains_key(*subject));
    let joined: Vec<&SubjectId> = joined.collect();
    match !joined.is_empty() && profiles::exist(conn, &joined).await? {
        true => Err(Failure::Again(
            "a link to somebody new was made in the meantime".into(),
        )),
        false => Ok(()),
    }
}
