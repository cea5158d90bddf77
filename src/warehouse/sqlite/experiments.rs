//! `fact_exposure` and `exposure_loss`, and what became of them.

use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;

use super::error::{integer, natural};
use super::rows::{Insert, optional};
use crate::domain::experiment::{DayOutcome, Outcomes};
use crate::domain::transform::{DecisionServed, Effect};
use crate::warehouse::{OutcomeQuery, WarehouseError};

const INSERT: Insert = Insert {
    into: "insert into fact_exposure (shop, decision_id, experiment, variant, subject, ruleset_version, decided_at, day)",
    columns: 8,
    then: "on conflict do nothing",
};

const ADD_LOSSES: Insert = Insert {
    into: "insert into exposure_loss (shop, experiment, day, losses)",
    columns: 4,
    then: "on conflict do update set losses = losses + excluded.losses",
};

/// Inserts one row per exposure, and adds up the losses.
pub(super) async fn insert(
    conn: &mut SqliteConnection,
    decisions: &[(&Effect, &DecisionServed)],
) -> Result<(), WarehouseError> {
    let mut exposures = Vec::new();
    let mut losses = Vec::new();
    for (effect, decision) in decisions {
        let version = integer(decision.ruleset_version)?;
        let made = decision.exposures.iter();
        exposures.extend(made.map(|exposure| (*effect, *decision, version, exposure)));
        for (experiment, count) in &decision.withheld {
            losses.push((*effect, *decision, experiment, integer(*count)?));
        }
    }
    INSERT
        .run(
            conn,
            &exposures,
            |(effect, decision, version, exposure), values| {
                values
                    .push_shop(&effect.event.shop)
                    .push_shared(&decision.decision_id);
                values
                    .push_shared(&exposure.experiment)
                    .push_shared(&exposure.variant);
                values.push_subject(effect.event.subject()).push(*version);
                values
                    .push_time(decision.decided_at)
                    .push(decision.decided_at.day());
            },
        )
        .await?;
    ADD_LOSSES
        .run(conn, &losses, |(effect, decision, experiment, count), values| {
            values.push_shop(&effect.event.shop).push_shared(experiment);
            values.push(decision.decided_at.day()).push(*count);
        })
        .await?;
    Ok(())
}

/// See [`crate::warehouse::Warehouse::outcomes`].
pub(super) async fn outcomes(
    conn: &mut SqliteConnection,
    query: &OutcomeQuery<'_>,
) -> Result<Outcomes, WarehouseError> {
    let rows = sqlx::query(
        "with exposed as materialized (
             select coalesce(p.linked_user_id, e.subject) as customer, e.variant, e.decision_id, e.decided_at
             from fact_exposure as e
             left join customer_profile as p on p.shop = e.shop and p.subject = e.subject
             where e.shop = ?1 and e.experiment = ?2 and e.subject is not null
         ), customers as materialized (
             select customer, min(variant) as variant, count(distinct variant) as variants, count(*) as exposures,
                    min(decided_at) as first_at
             from exposed group by customer
         ), relevant as materialized (
             select coalesce(f.user_id, f.anonymous_id) as subject, f.event_time, f.name = ?3 as is_goal,
                    coalesce(o.total_minor, 0) as revenue, f.body ->> '$.properties.decision_id' as decision_id
             from fact_event as f
             left join fact_order as o
             on o.shop = f.shop and o.event_id = f.event_id and o.cancelled = 0 and o.currency = ?4
             where f.shop = ?1 and f.day >= (select min(decided_at) / 86400000 from exposed)
               and (f.name = ?3 or o.order_id is not null)
         ), happened as (
             select coalesce(d.customer, p.linked_user_id, r.subject) as customer, r.event_time, r.is_goal, r.revenue
             from relevant as r
             left join exposed as d on d.decision_id = r.decision_id
             left join customer_profile as p on p.shop = ?1 and p.subject = r.subject
         ), achieved as (
             select c.customer, max(h.is_goal) as converted, sum(h.revenue) as revenue
             from happened as h
             join customers as c on c.customer = h.customer
             where h.event_time >= c.first_at and h.event_time < c.first_at + ?5
             group by c.customer
         )
         select case when c.variants = 1 then c.variant end as variant, c.first_at / 86400000 as day,
                sum(c.exposures) as exposures, count(*) as subjects, coalesce(sum(a.converted), 0) as converted,
                coalesce(sum(1.0 * a.revenue), 0.0) as revenue,
                coalesce(sum(1.0 * a.revenue * a.revenue), 0.0) as squares
         from customers as c
         left join achieved as a on a.customer = c.customer
         group by 1, 2",
    )
    .bind(query.shop.as_str())
    .bind(query.experiment)
    .bind(&*query.goal.event)
    .bind(query.currency)
    .bind(query.goal.window_ms)
    .fetch_all(&mut *conn)
    .await?;
    let lost: i64 = sqlx::query_scalar(
        "select coalesce(sum(losses), 0) from exposure_loss where shop = ?1 and experiment = ?2",
    )
    .bind(query.shop.as_str())
    .bind(query.experiment)
    .fetch_one(conn)
    .await?;
    let mut outcomes = Outcomes {
        lost: natural(lost)?,
        ..Outcomes::default()
    };
    for row in &rows {
        let subjects = natural(row.try_get("subjects")?)?;
        match optional(row, "variant")? {
            None => outcomes.crossovers += subjects,
            Some(variant) => outcomes.variants.push(DayOutcome {
                variant,
                day: row.try_get("day")?,
                exposures: natural(row.try_get("exposures")?)?,
                subjects,
                converted: natural(row.try_get("converted")?)?,
                revenue_minor: row.try_get("revenue")?,
                revenue_squares: row.try_get("squares")?,
            }),
        }
    }
    Ok(outcomes)
}
