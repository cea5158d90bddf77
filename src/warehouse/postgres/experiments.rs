//! `fact_exposure` and `exposure_loss`, and what became of them.

use std::collections::BTreeMap;

use sqlx::PgConnection;

use super::error::{Failure, integer, natural};
use super::rows::{Day, Instant, column};
use crate::domain::experiment::{DayOutcome, Outcomes};
use crate::domain::transform::{DecisionServed, Effect};
use crate::warehouse::OutcomeQuery;

/// Inserts one row per exposure, and adds up the losses.
pub(super) async fn insert(
    conn: &mut PgConnection,
    decisions: &[(&Effect, &DecisionServed)],
) -> Result<(), Failure> {
    let mut exposures = Vec::new();
    // In key order, as other partitions may add to the same rows; and each row once a statement.
    let mut losses: BTreeMap<(&str, &str, i64), i64> = BTreeMap::new();
    for (effect, decision) in decisions {
        let version = integer(decision.ruleset_version)?;
        let made = decision.exposures.iter();
        exposures.extend(made.map(|exposure| (*effect, *decision, version, exposure)));
        for (experiment, count) in &decision.withheld {
            let key = (
                effect.event.shop.as_str(),
                &**experiment,
                decision.decided_at.day(),
            );
            *losses.entry(key).or_default() += integer(*count)?;
        }
    }
    if !exposures.is_empty() {
        sqlx::query!(
            "insert into fact_exposure (shop, decision_id, experiment, variant, subject, ruleset_version, decided_at, day)
             select unnest($1::text[]), unnest($2::text[]), unnest($3::text[]), unnest($4::text[]),
                    unnest($5::text[]), unnest($6::bigint[]), unnest($7::timestamptz[]), unnest($8::date[])
             on conflict do nothing",
            column(&exposures, |(effect, ..)| effect.event.shop.as_str()) as _,
            column(&exposures, |(_, decision, ..)| &*decision.decision_id) as _,
            column(&exposures, |(.., exposure)| &*exposure.experiment) as _,
            column(&exposures, |(.., exposure)| &*exposure.variant) as _,
            column(&exposures, |(effect, ..)| effect
                .event
                .subject()
                .map(|subject| subject.as_str())) as _,
            column(&exposures, |(_, _, version, _)| *version) as _,
            column(&exposures, |(_, decision, ..)| Instant(decision.decided_at)) as _,
            column(&exposures, |(_, decision, ..)| Day(decision.decided_at.day())) as _
        )
        .execute(&mut *conn)
        .await?;
    }
    if !losses.is_empty() {
        let losses: Vec<_> = losses.into_iter().collect();
        sqlx::query!(
            "insert into exposure_loss (shop, experiment, day, losses)
             select unnest($1::text[]), unnest($2::text[]), unnest($3::date[]), unnest($4::bigint[])
             on conflict (shop, experiment, day) do update set losses = exposure_loss.losses + excluded.losses",
            column(&losses, |((shop, ..), _)| *shop) as _,
            column(&losses, |((_, experiment, _), _)| *experiment) as _,
            column(&losses, |((.., day), _)| Day(*day)) as _,
            column(&losses, |(_, count)| *count) as _
        )
        .execute(conn)
        .await?;
    }
    Ok(())
}

/// See [`crate::warehouse::Warehouse::outcomes`].
pub(super) async fn outcomes(conn: &mut PgConnection, query: &OutcomeQuery<'_>) -> Result<Outcomes, Failure> {
    let rows = sqlx::query!(
        r#"with exposed as materialized (
               select coalesce(p.linked_user_id, e.subject) as customer, e.variant, e.decision_id, e.decided_at
               from fact_exposure as e
               left join customer_profile as p on p.shop = e.shop and p.subject = e.subject
               where e.shop = $1 and e.experiment = $2 and e.subject is not null
           ), customers as materialized (
               select customer, min(variant) as variant, count(distinct variant) as variants,
                      count(*) as exposures, min(decided_at) as first_at
               from exposed group by customer
           ), relevant as materialized (
               select coalesce(f.user_id, f.anonymous_id) as subject, f.event_time, f.name = $3 as is_goal,
                      coalesce(o.total_minor, 0) as revenue, f.body #>> '{properties,decision_id}' as decision_id
               from fact_event as f
               left join fact_order as o
               on o.shop = f.shop and o.event_id = f.event_id and not o.cancelled and o.currency = $4
               where f.shop = $1 and f.received_at >= (select min(decided_at) from exposed)
                 and (f.name = $3 or o.order_id is not null)
           ), happened as (
               select coalesce(d.customer, p.linked_user_id, r.subject) as customer, r.event_time, r.is_goal, r.revenue
               from relevant as r
               left join exposed as d on d.decision_id = r.decision_id
               left join customer_profile as p on p.shop = $1 and p.subject = r.subject
           ), achieved as (
               select c.customer, bool_or(h.is_goal) as converted, sum(h.revenue) as revenue
               from happened as h
               join customers as c on c.customer = h.customer
               where h.event_time >= c.first_at and h.event_time < c.first_at + $5 * interval '1 millisecond'
               group by c.customer
           )
           select case when c.variants = 1 then c.variant end as "variant?",
                  (c.first_at at time zone 'UTC')::date - date '1970-01-01' as "day!",
                  sum(c.exposures)::bigint as "exposures!", count(*) as "subjects!",
                  count(*) filter (where a.converted) as "converted!",
                  coalesce(sum(a.revenue), 0)::double precision as "revenue!",
                  coalesce(sum(a.revenue * a.revenue), 0)::double precision as "squares!"
           from customers as c
           left join achieved as a on a.customer = c.customer
           group by 1, 2"#,
        query.shop.as_str(),
        query.experiment,
        &*query.goal.event,
        query.currency,
        query.goal.window_ms as f64
    )
    .fetch_all(&mut *conn)
    .await?;
    let lost = sqlx::query_scalar!(
        r#"select coalesce(sum(losses), 0)::bigint as "lost!" from exposure_loss where shop = $1 and experiment = $2"#,
        query.shop.as_str(),
        query.experiment
    )
    .fetch_one(conn)
    .await?;
    let mut outcomes = Outcomes {
        lost: natural(lost)?,
        ..Outcomes::default()
    };
    for row in rows {
        let subjects = natural(row.subjects)?;
        match row.variant {
            None => outcomes.crossovers += subjects,
            Some(variant) => outcomes.variants.push(DayOutcome {
                variant: variant.into(),
                day: i64::from(row.day),
                exposures: natural(row.exposures)?,
                subjects,
                converted: natural(row.converted)?,
                revenue_minor: row.revenue,
                revenue_squares: row.squares,
            }),
        }
    }
    Ok(outcomes)
}
