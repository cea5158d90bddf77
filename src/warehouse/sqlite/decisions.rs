//! `fact_decision` and `decision_record`.

use sqlx::sqlite::SqliteConnection;

use super::error::integer;
use super::rows::Insert;
use crate::domain::transform::{DecisionServed, Effect};
use crate::warehouse::WarehouseError;

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
