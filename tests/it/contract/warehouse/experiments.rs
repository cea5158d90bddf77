//! Exposures, and what became of them.

use cartwright::domain::experiment::{DayOutcome, Outcomes};
use cartwright::domain::ruleset::Goal;
use cartwright::domain::transform::Effect;
use cartwright::warehouse::OutcomeQuery;

use super::effects::{cancelled, decided, exposed, guest, linked, ordered, shop, user, viewed};
use super::{Backend, Lane};

const HOUR: i64 = 3_600_000;

async fn outcomes(lane: &Lane, event: &str, hours: i64) -> Outcomes {
    let goal = Goal {
        event: event.into(),
        window_ms: hours * HOUR,
    };
    let query = OutcomeQuery {
        shop: &shop(),
        experiment: "x",
        goal: &goal,
        currency: "EUR",
    };
    let mut outcomes = lane.warehouse.outcomes(&query).await.unwrap();
    outcomes
        .variants
        .sort_by(|a, b| (&a.variant, a.day).cmp(&(&b.variant, b.day)));
    outcomes
}

fn named(name: &str, mut effect: Effect) -> Effect {
    effect.event.name = name.into();
    effect
}

/// An event that says which decision it came of, and nothing of who.
fn came_of(decision: &str, mut effect: Effect) -> Effect {
    effect.event.anonymous = None;
    effect.event.body = format!(r#"{{"properties":{{"decision_id":"{decision}"}}}}"#).into();
    effect
}

fn variant(name: &str, exposures: u64, subjects: u64, converted: u64, revenues: &[f64]) -> DayOutcome {
    DayOutcome {
        variant: name.into(),
        day: 18_518,
        exposures,
        subjects,
        converted,
        revenue_minor: revenues.iter().sum(),
        revenue_squares: revenues.iter().map(|revenue| revenue * revenue).sum(),
    }
}

pub(super) async fn outcomes_follow_customers_across_a_login(backend: &dyn Backend) {
    let mut lane = Lane::new(backend).await;
    assert_eq!(outcomes(&lane, "Bought", 1).await, Outcomes::default());
    let bought = |id: &str, time, who: &_, order: &str, total| {
        named("Bought", ordered(id, time, true, who, order, total))
    };
    lane.apply(&[
        // Before any exposure: counts for nothing.
        bought("b0", -HOUR, &user("cyd"), "o0", 9_900),
        // A guest sees `a` twice, logs in and buys twice.
        exposed("d1", 0, &guest("cyd"), "x", "a"),
        exposed("d2", 1_000, &guest("cyd"), "x", "a"),
        linked("l1", 2_000, &guest("cyd"), &user("cyd")),
        bought("b1", 3_000, &user("cyd"), "o1", 100),
        bought("b2", 4_000, &user("cyd"), "o2", 200),
        // Bought and took it back: reached the goal, and is worth nothing.
        exposed("d3", 0, &guest("dan"), "x", "a"),
        bought("b3", 5_000, &guest("dan"), "o3", 500),
        cancelled("c3", 6_000, true, "o3"),
        // Too late, and nothing at all.
        exposed("d4", 0, &guest("eve"), "x", "b"),
        bought("b4", HOUR, &guest("eve"), "o4", 500),
        exposed("d5", 0, &guest("fay"), "x", "b"),
        named("Bought elsewhere", viewed("v5", 1_000, &guest("fay"), "sku")),
        // Told by the decision alone.
        exposed("d6", 0, &guest("gil"), "x", "b"),
        came_of(
            "d6",
            named("Bought", viewed("v6", 1_000, &guest("nobody"), "sku")),
        ),
        // One device saw `a`, the other `b`, and then they are one customer.
        exposed("d7", 0, &guest("hal1"), "x", "a"),
        exposed("d8", 0, &guest("hal2"), "x", "b"),
        linked("l7", 2_000, &guest("hal1"), &user("hal")),
        linked("l8", 2_001, &guest("hal2"), &user("hal")),
        // Another experiment, and a decision without any.
        exposed("d9", 0, &guest("ida"), "y", "a"),
        decided("d10", 0, &guest("joe")),
    ])
    .await;
    let expected = Outcomes {
        variants: vec![variant("a", 3, 2, 2, &[300.0]), variant("b", 3, 3, 1, &[])],
        crossovers: 1,
        lost: 0,
    };
    assert_eq!(outcomes(&lane, "Bought", 1).await, expected);
    let later = outcomes(&lane, "Bought", 2).await;
    assert_eq!(later.variants[1], variant("b", 3, 3, 2, &[500.0]));
    // Orders are worth the same whatever the goal.
    let other = outcomes(&lane, "Bought elsewhere", 1).await;
    let counts = |at: usize| (other.variants[at].converted, other.variants[at].revenue_minor);
    assert_eq!([counts(0), counts(1)], [(0, 300.0), (1, 0.0)]);
}

pub(super) async fn losses_add_up_once(backend: &dyn Backend) {
    let mut lane = Lane::new(backend).await;
    let losing = |id: &str, time, count| {
        let mut effect = decided(id, time, &guest("nobody"));
        effect.event.anonymous = None;
        effect.subject = None;
        if let Some(decision) = &mut effect.decision {
            decision.placements.clear();
            decision.withheld = vec![("x".into(), count), ("y".into(), 1)];
        }
        effect
    };
    lane.apply(&[losing("d1", 0, 3), losing("d2", 0, 4)]).await;
    lane.apply(&[losing("d2", 0, 4), losing("d3", 86_400_000, 5)])
        .await;
    assert_eq!(outcomes(&lane, "Bought", 1).await.lost, 12);
    // They are no decisions.
    assert_eq!(
        backend.integers("select count(*) from decision_record").await,
        [0]
    );
    assert_eq!(backend.integers("select count(*) from fact_decision").await, [0]);
}
