//! Identities are joined on proof, and the same way in every order of arrival.

use cartwright::domain::consent::Choice;
use cartwright::domain::ids::SubjectId;
use cartwright::domain::transform::Effect;

use super::effects::{aliased, guest, linked, ordered, stated, unlinked, user, viewed, withdrew};
use super::{Backend, Lane, permutations};

async fn events(lane: &Lane, subject: &SubjectId) -> i64 {
    lane.document(subject)
        .await
        .map_or(0, |document| document.events())
}

async fn same_in_every_order(
    fresh: &(dyn Fn() -> Box<dyn Backend> + Sync),
    effects: &[Effect],
    expected: &[(SubjectId, i64, Option<SubjectId>)],
) {
    let mut first: Option<Vec<Option<String>>> = None;
    for (at, order) in permutations(effects).into_iter().enumerate() {
        let backend = fresh();
        let mut lane = Lane::new(&*backend).await;
        let size = [1, order.len(), 2][at % 3];
        for piece in order.chunks(size) {
            lane.apply(piece).await;
        }
        let ids: Vec<&str> = order.iter().map(|effect| &*effect.event.event_id).collect();
        let mut views = Vec::new();
        for (subject, count, owner) in expected {
            assert_eq!(
                events(&lane, subject).await,
                *count,
                "{subject} after {ids:?} by {size}"
            );
            let linked = lane
                .document(subject)
                .await
                .and_then(|document| document.linked_user().cloned());
            assert_eq!(linked, *owner, "{subject} after {ids:?} by {size}");
            views.push(lane.view(subject).await);
        }
        assert_eq!(
            *first.get_or_insert_with(|| views.clone()),
            views,
            "after {ids:?} by {size}"
        );
    }
}

pub(super) async fn guest_login_late_guest_event_and_order_end_alike(
    fresh: &(dyn Fn() -> Box<dyn Backend> + Sync),
) {
    let (ann, cyd) = (guest("ann"), user("cyd"));
    let effects = [
        viewed("before", 1_000, &ann, "sku1"),
        linked("login", 2_000, &ann, &cyd),
        viewed("late", 1_500, &ann, "sku2"),
        ordered("order", 3_000, true, &cyd, "o1", 500),
    ];
    let expected = [(ann.clone(), 2, Some(cyd.clone())), (cyd, 4, None)];
    same_in_every_order(fresh, &effects, &expected).await;
}

pub(super) async fn an_unlink_takes_the_guest_out_again(fresh: &(dyn Fn() -> Box<dyn Backend> + Sync)) {
    let (ann, cyd) = (guest("ann"), user("cyd"));
    let effects = [
        viewed("before", 1_000, &ann, "sku1"),
        linked("login", 2_000, &ann, &cyd),
        unlinked("unlink", 3_000, &ann, &cyd),
        viewed("late", 1_500, &ann, "sku2"),
    ];
    let expected = [(ann.clone(), 2, None), (cyd, 1, None)];
    same_in_every_order(fresh, &effects, &expected).await;
}

pub(super) async fn a_shared_device_joins_nobody_to_a_stranger(
    fresh: &(dyn Fn() -> Box<dyn Backend> + Sync),
) {
    let (kiosk, cyd, dan) = (guest("kiosk"), user("cyd"), user("dan"));
    let effects = [
        viewed("view", 500, &kiosk, "sku1"),
        linked("first", 1_000, &kiosk, &cyd),
        linked("second", 2_000, &kiosk, &dan),
        viewed("dans", 2_500, &dan, "sku2"),
    ];
    let expected = [
        (kiosk.clone(), 1, Some(cyd.clone())),
        (cyd.clone(), 2, None),
        (dan.clone(), 2, None),
    ];
    same_in_every_order(fresh, &effects, &expected).await;

    // The next in line owns the device once the first one is taken off it.
    let mut effects = effects.to_vec();
    effects.remove(3);
    effects.push(unlinked("off", 3_000, &kiosk, &cyd));
    let expected = [(kiosk, 1, Some(dan.clone())), (cyd, 1, None), (dan, 2, None)];
    same_in_every_order(fresh, &effects, &expected).await;
}

pub(super) async fn an_alias_joins_two_users_and_their_devices(
    fresh: &(dyn Fn() -> Box<dyn Backend> + Sync),
) {
    let (ann, cyd, dan) = (guest("ann"), user("cyd"), user("dan"));
    let effects = [
        viewed("view", 500, &ann, "sku1"),
        linked("login", 1_000, &ann, &dan),
        viewed("cyds", 2_500, &cyd, "sku2"),
        aliased("alias", 3_000, &cyd, &dan),
    ];
    let expected = [(ann, 1, Some(dan.clone())), (cyd, 3, None), (dan, 3, None)];
    same_in_every_order(fresh, &effects, &expected).await;
}

pub(super) async fn a_withdrawal_reaches_every_device_of_the_person(backend: &dyn Backend) {
    let mut lane = Lane::new(backend).await;
    let (phone, laptop, cyd) = (guest("phone"), guest("laptop"), user("cyd"));
    lane.apply(&[
        viewed("e1", 1_000, &phone, "sku1"),
        viewed("e2", 1_000, &laptop, "sku1"),
        linked("l1", 2_000, &phone, &cyd),
        linked("l2", 2_000, &laptop, &cyd),
    ])
    .await;
    assert_eq!(events(&lane, &cyd).await, 4);
    lane.apply(&[withdrew("w", 3_000, &phone)]).await;
    assert_eq!(events(&lane, &cyd).await, 0);
    // What comes after counts again, on whichever device.
    lane.apply(&[viewed("e3", 4_000, &laptop, "sku2")]).await;
    assert_eq!(events(&lane, &cyd).await, 1);
    assert_eq!(events(&lane, &laptop).await, 1);
}

pub(super) async fn a_login_on_a_device_never_seen_points_to_the_user(backend: &dyn Backend) {
    let mut lane = Lane::new(backend).await;
    lane.apply(&[linked("l1", 2_000, &guest("new"), &user("cyd"))])
        .await;
    assert_eq!(
        lane.document(&guest("new")).await.unwrap().linked_user(),
        Some(&user("cyd"))
    );
    // Saying it again writes the user's own event, and nothing of the device.
    let applied = lane
        .apply(&[linked("l2", 3_000, &guest("new"), &user("cyd"))])
        .await;
    assert_eq!(applied.documents.len(), 1);
    assert_eq!(
        backend
            .integers("select count(*) from identity where first_time < last_time")
            .await,
        [1]
    );
}

pub(super) async fn a_denial_remembered_takes_the_shopper_off_later_events(backend: &dyn Backend) {
    let mut lane = Lane::new(backend).await;
    let (ann, cyd) = (guest("ann"), user("cyd"));
    lane.apply(&[
        viewed("e1", 1_000, &ann, "sku1"),
        linked("l1", 2_000, &ann, &cyd),
        stated("no", 3_000, &ann, Choice::Denied),
        viewed("e2", 4_000, &cyd, "sku2"),
        ordered("e3", 5_000, true, &cyd, "o1", 100),
    ])
    .await;
    // The facts stay, without her.
    assert_eq!(backend.integers("select count(*) from fact_event").await, [5]);
    let hers = "select count(*) from fact_event where event_id in ('e2', 'e3') and user_id is not null";
    assert_eq!(backend.integers(hers).await, [0]);
    assert_eq!(
        backend
            .integers("select count(*) from fact_order where subject is null")
            .await,
        [1]
    );
    assert_eq!(events(&lane, &cyd).await, 2);
    // Allowed again, events count again.
    lane.apply(&[
        stated("yes", 6_000, &cyd, Choice::Granted),
        viewed("e4", 7_000, &ann, "sku1"),
    ])
    .await;
    assert_eq!(events(&lane, &cyd).await, 3);
}

pub(super) async fn consent_counts_even_in_quarantine(backend: &dyn Backend) {
    let mut lane = Lane::new(backend).await;
    let ann = guest("ann");
    let mut broken = stated("no", 1_000, &ann, Choice::Denied);
    broken.quarantine = Some(("bad_price".into(), String::new()));
    lane.apply(&[broken, viewed("e1", 2_000, &ann, "sku1")]).await;
    assert_eq!(events(&lane, &ann).await, 0);
    assert_eq!(backend.integers("select count(*) from fact_event").await, [1]);
}

pub(super) async fn quarantine_keeps_nothing_of_who_had_denied_analytics(backend: &dyn Backend) {
    let mut lane = Lane::new(backend).await;
    let (ann, bob) = (guest("ann"), guest("bob"));
    let broken = |id: &str, time: i64, who: &SubjectId| {
        let mut effect = viewed(id, time, who, "sku1");
        effect.quarantine = Some(("bad_price".into(), String::new()));
        effect
    };
    lane.apply(&[
        stated("no", 1_000, &ann, Choice::Denied),
        broken("q1", 2_000, &ann),
        broken("q2", 2_000, &bob),
    ])
    .await;
    // Remembered from an earlier batch as well.
    lane.apply(&[broken("q3", 3_000, &ann)]).await;
    let kept: Vec<bool> = backend
        .dump()
        .await
        .iter()
        .filter(|row| row.contains("bad_price"))
        .map(|row| row.contains(ann.as_str()) || row.contains(bob.as_str()))
        .collect();
    assert_eq!(kept.len(), 3);
    assert_eq!(kept.iter().filter(|named| **named).count(), 1);
}
