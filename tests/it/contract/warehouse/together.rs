//! Batches of several partitions in one transaction.

use std::sync::Arc;

use cartwright::domain::ids::SubjectId;
use cartwright::domain::profile::Document;
use cartwright::domain::transform::Effect;
use cartwright::warehouse::{Applied, Warehouse, WarehouseError};

use super::effects::{
    cancelled, decided, guest, linked, ordered, quarantined, refunded, unlinked, user, viewed, withdrew,
};
use super::{Backend, Lane, batch};

/// The next effects of some partitions.
type Stretch<'e> = (u16, u64, &'e [Effect]);

async fn apply(warehouse: &dyn Warehouse, stretches: &[Stretch<'_>]) -> Result<Vec<Applied>, WarehouseError> {
    let numbered: Vec<Vec<(u64, Effect)>> = stretches
        .iter()
        .map(|(_, from, effects)| (*from..).zip(effects.iter().cloned()).collect())
        .collect();
    let batches: Vec<_> = stretches
        .iter()
        .zip(&numbered)
        .map(|((partition, from, _), effects)| batch(*partition, *from, effects))
        .collect();
    warehouse.apply_together(&batches).await
}

async fn as_of(lane: &Lane, subject: &SubjectId) -> Vec<(u16, u64)> {
    lane.document(subject).await.unwrap().as_of().iter().collect()
}

fn subjects(applied: &Applied) -> Vec<SubjectId> {
    applied
        .documents
        .iter()
        .map(|(subject, ..)| subject.clone())
        .collect()
}

pub(super) async fn together_is_as_one_after_the_other(fresh: &(dyn Fn() -> Box<dyn Backend> + Sync)) {
    let (ann, bob, cyd) = (guest("ann"), guest("bob"), user("cyd"));
    let stretches: [&[&[Effect]]; 2] = [
        &[
            &[
                viewed("a1", 1_000, &ann, "sku1"),
                ordered("a2", 2_000, true, &cyd, "o1", 1_500),
                linked("a3", 3_000, &ann, &cyd),
                quarantined("a4", 4_000, "bad_price"),
            ],
            &[
                cancelled("a5", 9_000, true, "o2"),
                viewed("a6", 9_500, &bob, "sku3"),
                withdrew("a7", 9_600, &bob),
            ],
        ],
        &[
            &[
                viewed("b1", 500, &bob, "sku1"),
                viewed("a1", 1_000, &ann, "sku1"),
                ordered("b2", 2_500, false, &bob, "o2", 700),
                decided("b3", 6_000, &ann),
            ],
            &[
                refunded("b4", 7_000, &cyd, "o1", "r1", 500),
                viewed("b5", 8_000, &ann, "sku2"),
                linked("b6", 8_500, &bob, &cyd),
            ],
        ],
    ];
    let backends = [fresh(), fresh()];
    let (one, many) = (Lane::new(&*backends[0]).await, Lane::new(&*backends[1]).await);
    let partitions = [0, 5];
    let mut from = [0; 2];
    for round in [0, 1] {
        let parts: Vec<Stretch<'_>> = (0..2)
            .map(|at| (partitions[at], from[at], stretches[at][round]))
            .collect();
        let together = apply(&*one.warehouse, &parts).await.unwrap();
        for (part, together) in parts.iter().zip(&together) {
            let alone = apply(&*many.warehouse, &[*part]).await.unwrap().remove(0);
            let counts =
                |applied: &Applied| (applied.new_events, applied.duplicate_events, applied.quarantined);
            assert_eq!(counts(together), counts(&alone), "partition {}", part.0);
        }
        for at in 0..2 {
            from[at] += stretches[at][round].len() as u64;
        }
    }
    for subject in [&ann, &bob, &cyd] {
        let view = one.view(subject).await;
        assert!(view.is_some(), "{subject}");
        assert_eq!(view, many.view(subject).await, "{subject}");
    }
    for partition in partitions {
        assert_eq!(
            one.warehouse.position(partition).await.unwrap(),
            many.warehouse.position(partition).await.unwrap()
        );
    }
    assert_eq!(facts(backends[0].dump().await), facts(backends[1].dump().await));
}

/// Versions and change numbers count writes, so they may differ; the facts may not.
fn facts(dump: Vec<String>) -> Vec<String> {
    let same = ["fact_", "order_", "identity", "event_seen", "dim_", "quarantine"];
    dump.into_iter()
        .filter(|row| same.iter().any(|table| row.starts_with(table)))
        .collect()
}

pub(super) async fn a_document_says_of_each_partition_how_far_it_is_folded(backend: &dyn Backend) {
    let lane = Lane::new(backend).await;
    let (ann, bob, cyd) = (guest("ann"), guest("bob"), guest("cyd"));
    let applied = apply(
        &*lane.warehouse,
        &[
            (
                3,
                0,
                &[
                    viewed("a1", 1_000, &ann, "sku1"),
                    viewed("a2", 1_001, &cyd, "sku1"),
                ],
            ),
            (
                4,
                0,
                &[
                    viewed("b1", 2_000, &bob, "sku1"),
                    viewed("b2", 2_001, &ann, "sku1"),
                    viewed("b3", 2_002, &ann, "sku1"),
                ],
            ),
            (9, 0, &[]),
        ],
    )
    .await
    .unwrap();
    assert_eq!(as_of(&lane, &ann).await, [(3, 2), (4, 3)]);
    assert_eq!(as_of(&lane, &bob).await, [(4, 3)]);
    assert_eq!(as_of(&lane, &cyd).await, [(3, 2)]);
    assert_eq!(lane.document(&ann).await.unwrap().events(), 3);

    // What several changed each of them publishes; it is among the changes of one.
    assert_eq!(subjects(&applied[0]), [ann.clone(), cyd.clone()]);
    assert_eq!(subjects(&applied[1]), [ann.clone(), bob.clone()]);
    assert!(applied[2].documents.is_empty());
    // Until it is published, so is neither partition.
    let numbers: Vec<u64> = applied.iter().map(|applied| applied.change_seq).collect();
    assert_eq!(numbers, [2, 2, 0]);
    let mut told = Vec::new();
    for (partition, applied) in [3, 4, 9].into_iter().zip(&applied) {
        let changes = lane.warehouse.changes(partition, 0, 10).await.unwrap();
        assert_eq!(changes.newest, applied.change_seq);
        for change in changes.documents {
            assert_eq!(Document::decode(&change.bytes).unwrap().version, change.version);
            told.push(change.subject);
        }
    }
    told.sort_unstable();
    assert_eq!(told, [ann, bob, cyd]);
    let mut progress = lane.warehouse.progress().await.unwrap();
    progress.sort_unstable_by_key(|progress| progress.position.partition);
    let progress = progress.iter().map(|progress| {
        (
            progress.position.partition,
            progress.position.offset,
            progress.change_seq,
        )
    });
    assert_eq!(progress.collect::<Vec<_>>(), [(3, 2, 2), (4, 3, 2), (9, 0, 0)]);
    for (partition, offset) in [(3, Some(2)), (5, None), (9, Some(0))] {
        let position = lane.warehouse.position(partition).await.unwrap();
        assert_eq!(position.map(|position| position.offset), offset);
    }
}

pub(super) async fn a_login_joins_what_several_partitions_say(backend: &dyn Backend) {
    let lane = Lane::new(backend).await;
    let (ann, cyd, dan) = (guest("ann"), user("cyd"), user("dan"));
    let first: [Stretch<'_>; 2] = [
        (0, 0, &[viewed("a1", 1_000, &ann, "sku1")]),
        (
            1,
            0,
            &[viewed("b1", 2_000, &cyd, "sku1"), linked("b2", 3_000, &ann, &cyd)],
        ),
    ];
    apply(&*lane.warehouse, &first).await.unwrap();
    assert_eq!(lane.document(&cyd).await.unwrap().events(), 3);
    assert_eq!(as_of(&lane, &cyd).await, [(0, 1), (1, 2)]);
    assert_eq!(as_of(&lane, &ann).await, [(0, 1), (1, 2)]);

    // The device changes hands, which only one of the partitions says.
    let second: [Stretch<'_>; 2] = [
        (0, 1, &[viewed("a2", 4_000, &cyd, "sku1")]),
        (
            1,
            2,
            &[unlinked("b3", 5_000, &ann, &cyd), linked("b4", 6_000, &ann, &dan)],
        ),
    ];
    let applied = apply(&*lane.warehouse, &second).await.unwrap();
    assert_eq!(as_of(&lane, &cyd).await, [(0, 2), (1, 4)]);
    assert_eq!(as_of(&lane, &dan).await, [(1, 4)]);
    assert!(subjects(&applied[0]).contains(&cyd));
    assert_eq!(subjects(&applied[1]), [ann.clone(), cyd.clone(), dan.clone()]);
    let ann = lane.document(&ann).await.unwrap();
    assert_eq!(ann.linked_user(), Some(&dan));
}

pub(super) async fn one_position_that_moved_refuses_all(backend: &dyn Backend) {
    let lane = Lane::new(backend).await;
    let ann = guest("ann");
    let applied: [Stretch<'_>; 2] = [
        (0, 0, &[viewed("a1", 1_000, &ann, "sku1")]),
        (1, 0, &[viewed("b1", 1_000, &ann, "sku1")]),
    ];
    apply(&*lane.warehouse, &applied).await.unwrap();
    let before = backend.dump().await;
    let stale: [Stretch<'_>; 2] = [
        (0, 1, &[viewed("a2", 2_000, &ann, "sku1")]),
        (1, 0, &[viewed("b2", 2_000, &ann, "sku1")]),
    ];
    let refused = apply(&*lane.warehouse, &stale).await.unwrap_err();
    let WarehouseError::PositionMoved { found, .. } = refused else {
        panic!("{refused}");
    };
    assert_eq!(found.map(|found| (found.partition, found.offset)), Some((1, 1)));
    assert_eq!(backend.dump().await, before);
    assert!(
        Arc::clone(&lane.warehouse)
            .apply_together(&[])
            .await
            .unwrap()
            .is_empty()
    );
}
