//! Batches in one transaction, read from top to bottom.

use super::error::commit;
use super::{
    SqliteWarehouse, decisions, events, experiments, identity, orders, position, products, profiles,
    quarantine, segments,
};
use crate::warehouse::batch::{
    applied, days, decisions_served, next_versions, products_seen, sort_out, with_quarantined,
};
use crate::warehouse::fold::parts::Before;
use crate::warehouse::fold::people::People;
use crate::warehouse::fold::{Folded, fold};
use crate::warehouse::{Applied, Batch, WarehouseError};

pub(super) async fn apply(
    warehouse: &SqliteWarehouse,
    batches: &[Batch<'_>],
) -> Result<Vec<Applied>, WarehouseError> {
    let Some(first) = batches.first() else {
        return Ok(Vec::new());
    };
    let mut tx = warehouse.writer.begin_with("begin immediate").await?;

    // The positions are compared first and moved last; in between the write lock is ours.
    let mut change_seqs = Vec::with_capacity(batches.len());
    for batch in batches {
        let stored = position::read(&mut tx, batch.next.partition).await?;
        let found = stored.map(|row| row.position);
        if found != batch.expected {
            return Err(WarehouseError::PositionMoved {
                expected: batch.expected,
                found,
            });
        }
        change_seqs.push(stored.map_or(0, |row| row.change_seq));
    }

    // What does not count; and what does, once.
    let (quarantined, candidates) = sort_out(batches);
    let new = events::remember(&mut tx, &candidates).await?;
    let effects = with_quarantined(batches, &new);

    // Everything stored that the effects may change; then the effects, one after the other.
    let mut orders = orders::read(&mut tx, &new).await?;
    let mut people = People::of(effects.iter().map(|(_, effect)| *effect));
    for (shop, subject) in orders.stored_subjects() {
        people.touch(shop, subject);
    }
    identity::read(&mut tx, &mut people).await?;
    let before = Before::of(&mut people);
    let profiles::Former { progress, mut parts } = profiles::read(&mut tx, &before.subjects(&people)).await?;
    let Folded { counted, unnamed } = fold(&effects, &mut orders, &mut people, &mut parts);
    quarantine::insert(&mut tx, first.next.log_id, &quarantined, &unnamed, first.now).await?;

    // Facts and dimensions.
    events::insert_dates(&mut tx, &days(&counted)).await?;
    events::insert(&mut tx, &counted).await?;
    let decisions = decisions_served(&counted);
    decisions::insert(&mut tx, &decisions).await?;
    experiments::insert(&mut tx, &decisions).await?;
    products::join(&mut tx, products_seen(&counted)).await?;
    orders::write(&mut tx, &orders).await?;
    identity::write(&mut tx, &people).await?;

    // Parts and documents, each document with its next version.
    let folded = parts.outcome(&before, &mut people);
    profiles::write_parts(&mut tx, folded.parts, &people).await?;
    let documents = next_versions(
        folded.documents,
        progress,
        warehouse.epoch,
        batches,
        &mut change_seqs,
    );
    profiles::write_documents(&mut tx, &documents, &people).await?;

    if let Some(ruleset) = first.ruleset {
        segments::update(&mut tx, ruleset, &documents, &people, first.now).await?;
    }

    if let Some(floor) = first.dedupe_floor {
        warehouse.pruner.prune(&mut tx, floor, effects.len()).await?;
    }
    for (batch, change_seq) in batches.iter().zip(&change_seqs) {
        position::store(&mut tx, batch.next, *change_seq, batch.now).await?;
    }
    commit(tx).await?;

    Ok(applied(
        batches,
        &candidates,
        &new,
        &quarantined,
        &documents,
        &change_seqs,
    ))
}
