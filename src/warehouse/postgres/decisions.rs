//! `fact_decision` and `decision_record`.

use sqlx::PgConnection;

use super::error::{Failure, integer, natural};
use super::rows::{Day, Instant, column};
use crate::domain::ids::{Shop, Timestamp};
use crate::domain::transform::{DecisionServed, Effect, PlacementServed};
use crate::warehouse::StoredDecision;

/// Inserts one row per placement, and the facts once.
pub(super) async fn insert(
    conn: &mut PgConnection,
    decisions: &[(&Effect, &DecisionServed)],
) -> Result<(), Failure> {
    if decisions.is_empty() {
        return Ok(());
    }
    // A record of losses alone is no decision.
    let decisions: Vec<_> = decisions
        .iter()
        .filter(|(_, decision)| !decision.placements.is_empty())
        .collect();
    let mut rows = Vec::with_capacity(decisions.len());
    for (effect, decision) in &decisions {
        let version = integer(decision.ruleset_version)?;
        rows.extend(
            decision
                .placements
                .iter()
                .map(|placement| (*effect, *decision, version, placement)),
        );
    }
    // One decision has one shopper, so it comes through one partition: no two writers meet here.
    sqlx::query!(
        "insert into fact_decision (shop, decision_id, placement, subject, experience, variant, reason,
                                    ruleset_version, decided_at, day)
         select unnest($1::text[]), unnest($2::text[]), unnest($3::text[]), unnest($4::text[]), unnest($5::text[]),
                unnest($6::text[]), unnest($7::text[]), unnest($8::bigint[]), unnest($9::timestamptz[]),
                unnest($10::date[])
         on conflict do nothing",
        column(&rows, |(effect, ..)| effect.event.shop.as_str()) as _,
        column(&rows, |(_, decision, ..)| &*decision.decision_id) as _,
        column(&rows, |(.., placement)| &*placement.placement) as _,
        column(&rows, |(effect, ..)| effect
            .event
            .subject()
            .map(|subject| subject.as_str())) as _,
        column(&rows, |(.., placement)| placement.experience.as_deref()) as _,
        column(&rows, |(.., placement)| placement.variant.as_deref()) as _,
        column(&rows, |(.., placement)| &*placement.reason) as _,
        column(&rows, |(_, _, version, _)| *version) as _,
        column(&rows, |(_, decision, ..)| Instant(decision.decided_at)) as _,
        column(&rows, |(_, decision, ..)| Day(decision.decided_at.day())) as _
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "insert into decision_record (shop, decision_id, facts)
         select k.shop, k.decision_id, k.facts::json
         from (select unnest($1::text[]) as shop, unnest($2::text[]) as decision_id, unnest($3::text[]) as facts) as k
         on conflict do nothing",
        column(&decisions, |(effect, _)| effect.event.shop.as_str()) as _,
        column(&decisions, |(_, decision)| &*decision.decision_id) as _,
        column(&decisions, |(_, decision)| &*decision.facts) as _
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// See [`crate::warehouse::Warehouse::decision`].
pub(super) async fn read(
    conn: &mut PgConnection,
    shop: &Shop,
    decision_id: &str,
) -> Result<Option<StoredDecision>, Failure> {
    let rows = sqlx::query!(
        r#"select d.placement, d.experience, d.variant, d.reason, d.ruleset_version,
                  d.decided_at as "decided_at: Instant", r.facts::text as "facts!"
           from fact_decision as d
           join decision_record as r on r.shop = d.shop and r.decision_id = d.decision_id
           where d.shop = $1 and d.decision_id = $2
           order by d.placement"#,
        shop.as_str(),
        decision_id
    )
    .fetch_all(conn)
    .await?;
    let Some(first) = rows.first() else {
        return Ok(None);
    };
    let (decided_at, facts) = (first.decided_at.0, first.facts.clone());
    let ruleset_version = natural(first.ruleset_version)?;
    let placements = rows.into_iter().map(|row| PlacementServed {
        placement: row.placement.into(),
        experience: row.experience.map(Into::into),
        variant: row.variant.map(Into::into),
        reason: row.reason.into(),
    });
    Ok(Some(StoredDecision {
        decided_at,
        ruleset_version,
        placements: placements.collect(),
        facts,
    }))
}

/// See [`crate::warehouse::Warehouse::decided_since`].
pub(super) async fn since(
    conn: &mut PgConnection,
    shop: &Shop,
    since: Timestamp,
    limit: u32,
) -> Result<Vec<(Timestamp, String)>, Failure> {
    let rows = sqlx::query!(
        r#"select d.decided_at as "decided_at: Instant", r.facts::text as "facts!"
           from (select distinct decision_id, decided_at from fact_decision
                 where shop = $1 and decided_at >= $2
                 order by decided_at desc, decision_id limit $3) as d
           join decision_record as r on r.shop = $1 and r.decision_id = d.decision_id"#,
        shop.as_str(),
        Instant(since) as _,
        i64::from(limit)
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.decided_at.0, row.facts))
        .collect())
}
