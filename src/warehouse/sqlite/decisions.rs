//! `fact_decision` and `decision_record`.

use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;

use super::error::{integer, natural};
use super::rows::{Insert, optional, shared};
use crate::domain::ids::{Shop, Timestamp};
use crate::domain::transform::{DecisionServed, Effect, PlacementServed};
use crate::warehouse::{StoredDecision, WarehouseError};

const INSERT: Insert = Insert {
    into: "insert into fact_decision (shop, decision_id, placement, subject, experience, variant, reason, \
           ruleset_version, decided_at, day)",
    columns: 10,
    then: "on conflict do nothing",
};

const INSERT_RECORD: Insert = Insert {
    into: "insert into decision_record (shop, decision_id, facts)",
    columns: 3,
    then: "on conflict do nothing",
};

/// Inserts one row per placement, and the facts once.
pub(super) async fn insert(
    conn: &mut SqliteConnection,
    decisions: &[(&Effect, &DecisionServed)],
) -> Result<(), WarehouseError> {
    let mut rows = Vec::with_capacity(decisions.len());
    for (effect, decision) in decisions {
        let version = integer(decision.ruleset_version)?;
        rows.extend(
            decision
                .placements
                .iter()
                .map(|placement| (*effect, *decision, version, placement)),
        );
    }
    INSERT
        .run(conn, &rows, |(effect, decision, version, placement), values| {
            values
                .push_shop(&effect.event.shop)
                .push_shared(&decision.decision_id);
            values
                .push_shared(&placement.placement)
                .push_subject(effect.event.subject());
            values
                .push(placement.experience.clone())
                .push(placement.variant.clone());
            values
                .push_shared(&placement.reason)
                .push(*version)
                .push_time(decision.decided_at);
            values.push(decision.decided_at.day());
        })
        .await?;
    // A record of losses alone is no decision.
    let decided = decisions
        .iter()
        .filter(|(_, decision)| !decision.placements.is_empty());
    let decided: Vec<_> = decided.collect();
    INSERT_RECORD
        .run(conn, &decided, |(effect, decision), values| {
            values
                .push_shop(&effect.event.shop)
                .push_shared(&decision.decision_id)
                .push(&*decision.facts);
        })
        .await?;
    Ok(())
}

/// See [`crate::warehouse::Warehouse::decision`].
pub(super) async fn read(
    conn: &mut SqliteConnection,
    shop: &Shop,
    decision_id: &str,
) -> Result<Option<StoredDecision>, WarehouseError> {
    let rows = sqlx::query(
        "select d.placement, d.experience, d.variant, d.reason, d.ruleset_version, d.decided_at, r.facts
         from fact_decision as d
         join decision_record as r on r.shop = d.shop and r.decision_id = d.decision_id
         where d.shop = ?1 and d.decision_id = ?2
         order by d.placement",
    )
    .bind(shop.as_str())
    .bind(decision_id)
    .fetch_all(conn)
    .await?;
    let Some(first) = rows.first() else {
        return Ok(None);
    };
    let placements = rows.iter().map(|row| {
        Ok(PlacementServed {
            placement: shared(row, "placement")?,
            experience: optional(row, "experience")?,
            variant: optional(row, "variant")?,
            reason: shared(row, "reason")?,
        })
    });
    Ok(Some(StoredDecision {
        decided_at: Timestamp(first.try_get("decided_at")?),
        ruleset_version: natural(first.try_get("ruleset_version")?)?,
        facts: first.try_get("facts")?,
        placements: placements.collect::<Result<_, WarehouseError>>()?,
    }))
}

/// See [`crate::warehouse::Warehouse::decided_since`].
pub(super) async fn since(
    conn: &mut SqliteConnection,
    shop: &Shop,
    since: Timestamp,
    limit: u32,
) -> Result<Vec<(Timestamp, String)>, WarehouseError> {
    let rows: Vec<(i64, String)> = sqlx::query_as(
        "select d.decided_at, r.facts
         from (select distinct decision_id, decided_at from fact_decision
               where shop = ?1 and day >= ?2 and decided_at >= ?3
               order by decided_at desc, decision_id limit ?4) as d
         join decision_record as r on r.shop = ?1 and r.decision_id = d.decision_id",
    )
    .bind(shop.as_str())
    .bind(since.day())
    .bind(since.0)
    .bind(limit)
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|(at, facts)| (Timestamp(at), facts))
        .collect())
}
