//! One order counts once, whoever reports it, in whatever order.

use cartwright::domain::ids::SubjectId;
use cartwright::domain::transform::{Effect, OrderLine};

use super::effects::{cancelled, guest, ordered, refunded, user, withdrew};
use super::{Backend, Lane, permutations};

/// Orders that stand, cancelled orders, revenue and refunds of a subject.
async fn totals(lane: &Lane, subject: &SubjectId) -> (i64, i64, i64, i64) {
    match lane.document(subject).await {
        Some(profile) => (
            profile.purchases("").orders,
            profile.purchases("").cancelled_orders,
            profile.purchases("EUR").revenue_minor,
            profile.purchases("EUR").refunded_minor,
        ),
        None => (0, 0, 0, 0),
    }
}

/// Applies `effects` in every order, each in a warehouse of its own, one batch per effect and all in one; calls
/// `check` on each.
async fn in_every_order(
    fresh: &(dyn Fn() -> Box<dyn Backend> + Sync),
    effects: &[Effect],
    subjects: &[SubjectId],
    expected: &[(i64, i64, i64, i64)],
) {
    let mut first: Option<Vec<Option<String>>> = None;
    for (at, order) in permutations(effects).into_iter().enumerate() {
        let backend = fresh();
        let mut lane = Lane::new(&*backend).await;
        let size = if at % 2 == 0 { 1 } else { order.len() };
        for piece in order.chunks(size) {
            lane.apply(piece).await;
        }
        let ids: Vec<&str> = order.iter().map(|effect| &*effect.event.event_id).collect();
        let mut views = Vec::new();
        for (subject, expected) in subjects.iter().zip(expected) {
            assert_eq!(totals(&lane, subject).await, *expected, "{subject} after {ids:?}");
            views.push(lane.view(subject).await);
        }
        assert_eq!(
            *first.get_or_insert_with(|| views.clone()),
            views,
            "after {ids:?}"
        );
    }
}

pub(super) async fn the_verified_report_wins_whichever_comes_first(
    fresh: &(dyn Fn() -> Box<dyn Backend> + Sync),
) {
    // The page says it later than the server; still the server is right. The owner changes with the winner.
    let effects = [
        ordered("page", 2_000, false, &guest("ann"), "o1", 900),
        ordered("server", 1_000, true, &user("cyd"), "o1", 1_000),
        ordered("page-again", 3_000, false, &guest("ann"), "o1", 900),
    ];
    in_every_order(
        fresh,
        &effects,
        &[guest("ann"), user("cyd")],
        &[(0, 0, 0, 0), (1, 0, 1_000, 0)],
    )
    .await;
}

pub(super) async fn a_cancellation_may_come_before_its_order(fresh: &(dyn Fn() -> Box<dyn Backend> + Sync)) {
    let effects = [
        cancelled("c1", 5_000, true, "o1"),
        ordered("e1", 1_000, true, &user("cyd"), "o1", 1_000),
        ordered("e2", 2_000, true, &user("cyd"), "o2", 700),
        cancelled("c2", 6_000, true, "o1"),
    ];
    in_every_order(fresh, &effects, &[user("cyd")], &[(1, 1, 700, 0)]).await;
}

pub(super) async fn a_browser_cannot_cancel_what_a_server_reported(
    fresh: &(dyn Fn() -> Box<dyn Backend> + Sync),
) {
    let effects = [
        ordered("e1", 1_000, true, &user("cyd"), "o1", 1_000),
        cancelled("c1", 5_000, false, "o1"),
        ordered("e2", 1_000, false, &guest("ann"), "o2", 300),
        cancelled("c2", 5_000, false, "o2"),
    ];
    in_every_order(
        fresh,
        &effects,
        &[user("cyd"), guest("ann")],
        &[(1, 0, 1_000, 0), (0, 1, 0, 0)],
    )
    .await;
}

pub(super) async fn a_refund_counts_once(fresh: &(dyn Fn() -> Box<dyn Backend> + Sync)) {
    let effects = [
        ordered("e1", 1_000, true, &user("cyd"), "o1", 1_000),
        refunded("f1", 2_000, &user("cyd"), "o1", "r1", 200),
        refunded("f2", 3_000, &user("cyd"), "o1", "r1", 250),
        refunded("f3", 2_500, &user("cyd"), "o1", "r2", 10),
    ];
    in_every_order(fresh, &effects, &[user("cyd")], &[(1, 0, 1_000, 260)]).await;
}

pub(super) async fn the_lines_of_the_winning_report_replace_the_former_ones(backend: &dyn Backend) {
    let mut lane = Lane::new(backend).await;
    let mut long = ordered("e1", 1_000, true, &user("cyd"), "o1", 100);
    let lines = &mut long.order.as_mut().unwrap().lines;
    let model = lines[0].clone();
    lines.extend((3..6).map(|line| OrderLine {
        line,
        ..model.clone()
    }));
    lane.apply(&[long]).await;
    assert_eq!(
        backend.integers("select count(*) from fact_order_line").await,
        [5]
    );
    lane.apply(&[ordered("e2", 2_000, true, &user("cyd"), "o1", 100)])
        .await;
    assert_eq!(
        backend.integers("select count(*) from fact_order_line").await,
        [2]
    );
    let item = "select count(*) from fact_order_line where item = 'bought-e2'";
    assert_eq!(backend.integers(item).await, [1]);
}

pub(super) async fn a_correction_after_a_withdrawal_brings_nothing_back(backend: &dyn Backend) {
    let mut lane = Lane::new(backend).await;
    let cyd = user("cyd");
    lane.apply(&[ordered("e1", 1_000, true, &cyd, "o1", 1_000)]).await;
    lane.apply(&[withdrew("w", 2_000, &cyd)]).await;
    assert_eq!(totals(&lane, &cyd).await, (0, 0, 0, 0));
    lane.apply(&[ordered("e2", 3_000, true, &cyd, "o1", 1_200)]).await;
    lane.apply(&[cancelled("c", 4_000, true, "o1")]).await;
    assert_eq!(totals(&lane, &cyd).await, (0, 0, 0, 0));
    lane.apply(&[ordered("e3", 5_000, true, &cyd, "o2", 300)]).await;
    assert_eq!(totals(&lane, &cyd).await, (1, 0, 300, 0));
}
