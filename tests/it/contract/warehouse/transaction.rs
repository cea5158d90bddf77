//! One transaction per batch: all or nothing, once, at one position.

use std::sync::Arc;

use bytes::Bytes;
use cartwright::domain::ids::Timestamp;
use cartwright::domain::ruleset::Ruleset;
use cartwright::domain::transform::Effect;
use cartwright::warehouse::{Applied, Changes, StoredRuleset, WarehouseError};

use super::effects::{
    by_server, decided, guest, imported, ordered, quarantined, refunded, shop, user, viewed,
};
use super::{Backend, Batch, Lane, NOW, batch};

fn mixed() -> Vec<Effect> {
    vec![
        viewed("e1", 1_000, &guest("ann"), "sku1"),
        viewed("e2", 2_000, &guest("bob"), "sku1"),
        viewed("e1", 1_000, &guest("ann"), "sku1"),
        ordered("e3", 3_000, true, &user("cyd"), "o1", 1_500),
        refunded("e4", 4_000, &user("cyd"), "o1", "r1", 500),
        quarantined("e5", 5_000, "bad_price"),
        decided("e6", 6_000, &guest("ann")),
        viewed("e7", 7_000, &guest("ann"), "sku2"),
    ]
}

fn numbered(effects: &[Effect]) -> Vec<(u64, Effect)> {
    (0..).zip(effects.iter().cloned()).collect()
}

pub(super) async fn a_batch_is_applied_whole(backend: &dyn Backend) {
    let mut lane = Lane::new(backend).await;
    assert_eq!(lane.warehouse.position(0).await.unwrap(), None);
    let applied = lane.apply(&mixed()).await;
    assert_eq!(
        (applied.new_events, applied.duplicate_events, applied.quarantined),
        (6, 1, 1)
    );
    assert_eq!(
        lane.warehouse.position(0).await.unwrap(),
        Some(batch(0, 0, &numbered(&mixed())).next)
    );

    let ann = lane.document(&guest("ann")).await.unwrap();
    assert_eq!(ann.events(), 2);
    assert!(ann.as_of().covers(0, 7) && !ann.as_of().covers(0, 8));
    let cyd = lane.document(&user("cyd")).await.unwrap();
    assert_eq!(
        (
            cyd.purchases("").orders,
            cyd.purchases("EUR").revenue_minor,
            cyd.purchases("EUR").refunded_minor
        ),
        (1, 1_500, 500)
    );

    // The documents returned are the ones stored.
    assert_eq!(applied.documents.len(), 3);
    for (subject, version, bytes) in &applied.documents {
        let stored = lane.warehouse.document(subject).await.unwrap().unwrap();
        assert_eq!(stored, (*version, bytes.clone()));
    }
    assert_eq!(backend.integers("select count(*) from fact_event").await, [6]);
    assert_eq!(
        backend.integers("select count(*) from fact_order_line").await,
        [2]
    );
    assert_eq!(backend.integers("select count(*) from fact_decision").await, [2]);
    assert_eq!(
        backend.integers("select count(*) from decision_record").await,
        [1]
    );
    assert_eq!(
        backend
            .integers("select count(*) from quarantine where code = 'bad_price'")
            .await,
        [1]
    );
    assert_eq!(
        backend
            .integers("select price_minor from dim_product where item = 'sku1'")
            .await,
        [2_000]
    );
    let unknown_days = "select count(*) from fact_event where day not in (select day from dim_date)";
    assert_eq!(backend.integers(unknown_days).await, [0]);
    assert_eq!(
        backend
            .integers("select orders from dim_customer where is_user")
            .await,
        [1]
    );
}

pub(super) async fn a_redelivered_batch_changes_nothing(backend: &dyn Backend) {
    let mut lane = Lane::new(backend).await;
    lane.apply(&mixed()).await;
    let before = backend.dump().await;
    lane.offset = 0;
    let refused = lane.try_apply(&mixed()).await.unwrap_err();
    assert!(
        matches!(
            refused,
            WarehouseError::PositionMoved {
                expected: None,
                found: Some(_)
            }
        ),
        "{refused}"
    );
    assert_eq!(backend.dump().await, before);
}

pub(super) async fn the_same_events_at_new_offsets_change_no_view(backend: &dyn Backend) {
    let mut lane = Lane::new(backend).await;
    lane.apply(&mixed()).await;
    let views = [lane.view(&guest("ann")).await, lane.view(&user("cyd")).await];
    let applied = lane.apply(&mixed()).await;
    assert_eq!((applied.new_events, applied.duplicate_events), (0, 7));
    assert!(applied.documents.is_empty());
    assert_eq!(
        [lane.view(&guest("ann")).await, lane.view(&user("cyd")).await],
        views
    );
    assert_eq!(backend.integers("select count(*) from fact_event").await, [6]);
}

pub(super) async fn a_position_that_moved_is_refused(backend: &dyn Backend) {
    let mut lane = Lane::new(backend).await;
    lane.apply(&mixed()).await;
    let before = backend.dump().await;
    for wrong in [3, 9] {
        let effects = [(wrong, viewed("other", 9_000, &guest("ann"), "sku9"))];
        let refused = lane
            .warehouse
            .apply(&batch(0, wrong, &effects))
            .await
            .unwrap_err();
        assert!(
            matches!(refused, WarehouseError::PositionMoved { .. }),
            "{refused}"
        );
    }
    let mut other_log = batch(0, 8, &[]);
    other_log.expected.as_mut().unwrap().log_id = uuid::Uuid::from_u128(8);
    assert!(matches!(
        lane.warehouse.apply(&other_log).await,
        Err(WarehouseError::PositionMoved { .. })
    ));
    assert_eq!(backend.dump().await, before);
}

pub(super) async fn partitions_move_apart(backend: &dyn Backend) {
    let mut first = Lane::new(backend).await;
    first.apply(&[viewed("e1", 1_000, &guest("ann"), "sku1")]).await;
    let mut second = Lane {
        warehouse: Arc::clone(&first.warehouse),
        partition: 5,
        offset: 0,
    };
    second
        .apply(&[
            viewed("e2", 2_000, &guest("ann"), "sku1"),
            viewed("e3", 1, &guest("bob"), "sku1"),
        ])
        .await;
    assert_eq!(first.warehouse.position(0).await.unwrap().unwrap().offset, 1);
    assert_eq!(first.warehouse.position(5).await.unwrap().unwrap().offset, 2);
    let ann = first.document(&guest("ann")).await.unwrap();
    assert_eq!(ann.as_of().iter().collect::<Vec<_>>(), [(0, 1), (5, 2)]);
    let changes = "select change_seq from customer_profile where partition = 5 order by change_seq";
    assert_eq!(backend.integers(changes).await, [1, 2]);
    first.warehouse.close().await;
}

pub(super) async fn changes_are_told_in_order_by_whoever_wrote_last(backend: &dyn Backend) {
    let mut first = Lane::new(backend).await;
    let warehouse = Arc::clone(&first.warehouse);
    assert_eq!(warehouse.changes(0, 0, 10).await.unwrap(), Changes::default());
    let applied = first
        .apply(&["ann", "bob", "cyd"].map(|name| viewed(name, 1_000, &guest(name), "sku1")))
        .await;
    assert_eq!(applied.change_seq, 3);
    let all = warehouse.changes(0, 0, 10).await.unwrap();
    assert_eq!(all.newest, 3);
    for (change, (subject, version, bytes)) in all.documents.iter().zip(&applied.documents) {
        assert_eq!(
            (&change.subject, &change.version, &change.bytes),
            (subject, version, bytes)
        );
    }
    let numbers = |changes: &Changes| -> Vec<u64> {
        changes.documents.iter().map(|change| change.change_seq).collect()
    };
    assert_eq!(numbers(&all), [1, 2, 3]);
    assert_eq!(numbers(&warehouse.changes(0, 1, 1).await.unwrap()), [2]);
    assert_eq!(
        warehouse.changes(0, 0, 0).await.unwrap(),
        Changes {
            documents: vec![],
            newest: 3
        }
    );

    // Another partition writes one of them: from then on it is that one's to tell.
    let mut second = Lane {
        warehouse: Arc::clone(&warehouse),
        partition: 5,
        offset: 0,
    };
    second
        .apply(&[viewed("e2", 2_000, &all.documents[0].subject, "sku1")])
        .await;
    assert_eq!(numbers(&warehouse.changes(0, 0, 10).await.unwrap()), [2, 3]);
    let theirs = warehouse.changes(5, 0, 10).await.unwrap();
    assert_eq!(
        (numbers(&theirs), &theirs.documents[0].subject),
        (vec![1], &all.documents[0].subject)
    );

    // A batch that writes no document counts on from there.
    let applied = first.apply(&[viewed("ann", 1_000, &guest("ann"), "sku1")]).await;
    assert_eq!((applied.documents.len(), applied.change_seq), (0, 3));
    warehouse.close().await;
}

pub(super) async fn where_batches_end_does_not_matter(fresh: &(dyn Fn() -> Box<dyn Backend> + Sync)) {
    let (one, many) = (fresh(), fresh());
    let (one, many) = (&*one, &*many);
    let mut effects = mixed();
    effects.extend((0..40).map(|n| {
        let subject = if n % 3 == 0 {
            user("cyd")
        } else {
            guest(["ann", "bob"][n % 2])
        };
        match n % 5 {
            0 => ordered(
                &format!("s{n}"),
                10_000 - n as i64,
                n % 2 == 0,
                &subject,
                &format!("o{}", n % 7),
                n as i64,
            ),
            1 => super::effects::linked(&format!("s{n}"), n as i64, &guest("bob"), &user("cyd")),
            2 if n > 30 => super::effects::withdrew(&format!("s{n}"), n as i64, &subject),
            _ => viewed(
                &format!("s{n}"),
                20_000 + n as i64,
                &subject,
                &format!("sku{}", n % 4),
            ),
        }
    }));
    let mut whole = Lane::new(one).await;
    whole.apply(&effects).await;
    let mut split = Lane::new(many).await;
    for piece in effects.chunks(3) {
        split.apply(piece).await;
    }
    for subject in [guest("ann"), guest("bob"), user("cyd")] {
        assert_eq!(
            whole.view(&subject).await,
            split.view(&subject).await,
            "{subject}"
        );
        assert!(whole.view(&subject).await.is_some(), "{subject}");
    }
    // Versions and change numbers count writes, so they may differ; the facts may not.
    let facts = |dump: Vec<String>| -> Vec<String> {
        let same = ["fact_", "order_", "identity", "event_seen", "dim_", "quarantine"];
        dump.into_iter()
            .filter(|row| same.iter().any(|table| row.starts_with(table)))
            .collect()
    };
    assert_eq!(facts(one.dump().await), facts(many.dump().await));
}

pub(super) async fn versions_only_grow(backend: &dyn Backend) {
    let mut lane = Lane::new(backend).await;
    let mut last = None;
    for n in 0..4 {
        lane.apply(&[viewed(&format!("e{n}"), 1_000 - n, &guest("ann"), "sku1")])
            .await;
        let version = lane.document(&guest("ann")).await.unwrap().version();
        assert!(Some(version) > last);
        last = Some(version);
    }
    let reopened = backend.open().await;
    assert_eq!(
        reopened.document(&guest("ann")).await.unwrap().unwrap().0,
        last.unwrap()
    );
}

pub(super) async fn what_cannot_be_counted_is_quarantined(backend: &dyn Backend) {
    let lane = Lane::new(backend).await;
    let effects = numbered(&[
        viewed("old", 1_000, &guest("ann"), "sku1"),
        viewed("new", 90_000, &guest("ann"), "sku1"),
        imported(viewed("old-import", 1_000, &guest("ann"), "sku1")),
        by_server(viewed("old-receipt", 1_000, &guest("ann"), "sku1")),
    ]);
    let unreadable = [(4, Bytes::from_static(b"\xff\xfe"), "checksum".to_owned())];
    let mut batch: Batch<'_> = batch(0, 0, &effects);
    batch.unreadable = &unreadable;
    batch.next.offset = 5;
    batch.dedupe_floor = Some(Timestamp(1_600_000_050_000));
    let Applied {
        new_events,
        quarantined,
        ..
    } = lane.warehouse.apply(&batch).await.unwrap();
    assert_eq!((new_events, quarantined), (2, 3));
    assert_eq!(lane.document(&guest("ann")).await.unwrap().events(), 2);
    let too_old = "select log_offset from quarantine where code = 'older_than_dedupe_window' order by 1";
    assert_eq!(backend.integers(too_old).await, [0, 3]);
    let unreadable =
        "select log_offset from quarantine where code = 'unreadable_record' and record is not null";
    assert_eq!(backend.integers(unreadable).await, [4]);
}

pub(super) async fn forgotten_ids_are_pruned_and_imports_are_not(backend: &dyn Backend) {
    let mut lane = Lane::new(backend).await;
    let mut effects: Vec<Effect> = (0..300)
        .map(|n| viewed(&format!("e{n}"), n, &guest("ann"), "sku1"))
        .collect();
    effects.extend((0..10).map(|n| imported(viewed(&format!("i{n}"), n, &guest("ann"), "sku1"))));
    lane.apply(&effects).await;
    for _ in 0..12 {
        let mut empty = batch(0, lane.offset, &[]);
        empty.dedupe_floor = Some(Timestamp(1_600_000_000_200));
        lane.warehouse.apply(&empty).await.unwrap();
    }
    assert_eq!(backend.integers("select count(*) from event_seen").await, [110]);
}

pub(super) async fn an_effect_that_cannot_be_stored_rejects_the_batch(backend: &dyn Backend) {
    let mut lane = Lane::new(backend).await;
    lane.apply(&mixed()).await;
    let before = backend.dump().await;
    let mut bad = viewed("bad", 1, &guest("ann"), "sku1");
    bad.event.body = Bytes::from_static(b"\xff\xff");
    let rejected = lane
        .try_apply(&[viewed("good", 1, &guest("ann"), "sku1"), bad])
        .await
        .unwrap_err();
    assert!(matches!(rejected, WarehouseError::Rejected(_)), "{rejected}");
    assert_eq!(backend.dump().await, before);
    lane.apply(&[viewed("good", 1, &guest("ann"), "sku1")]).await;
}

/// Dropping `apply` at any await leaves all or nothing, and the warehouse usable.
pub(super) async fn an_apply_cut_short_leaves_all_or_nothing(backend: &dyn Backend) {
    let mut lane = Lane::new(backend).await;
    for polls in 0..60 {
        let id = format!("cut{polls}");
        let effects: Vec<(u64, Effect)> =
            vec![(lane.offset, ordered(&id, polls, true, &guest("ann"), &id, 100))];
        let batch = batch(0, lane.offset, &effects);
        {
            let mut apply = lane.warehouse.apply(&batch);
            let mut left = polls;
            std::future::poll_fn(|cx| {
                left -= 1;
                match apply.as_mut().poll(cx) {
                    std::task::Poll::Pending if left > 0 => std::task::Poll::Pending,
                    _ => std::task::Poll::Ready(()),
                }
            })
            .await;
        }
        let next = Lane {
            warehouse: Arc::clone(&lane.warehouse),
            ..lane
        };
        // A commit under way may still land after its caller is gone: ask in the partition's turn.
        let mut stranger = super::batch(0, 1, &[]);
        stranger.expected.as_mut().unwrap().log_id = uuid::Uuid::from_u128(8);
        let refused = next.warehouse.apply(&stranger).await.unwrap_err();
        let WarehouseError::PositionMoved { found, .. } = refused else {
            panic!("{refused}")
        };
        let reached = found.map_or(0, |position| position.offset);
        let orders = next
            .document(&guest("ann"))
            .await
            .map_or(0, |document| document.purchases("").orders);
        assert_eq!(orders, reached as i64, "after {polls} polls");
        lane = Lane {
            offset: reached,
            ..next
        };
    }
    assert!(lane.offset > 0, "no apply came through in 60 polls");
}

pub(super) async fn readers_see_whole_batches_while_one_is_applied(backend: &dyn Backend) {
    let mut lane = Lane::new(backend).await;
    lane.apply(&[
        viewed("first", 0, &guest("ann"), "sku1"),
        viewed("first-too", 0, &guest("bob"), "sku1"),
    ])
    .await;
    let warehouse = Arc::clone(&lane.warehouse);
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let reader = tokio::spawn(async move {
        let (mut last, mut reads) = (0, 0u32);
        while stopped.try_recv().is_err() {
            let offset = warehouse.position(0).await.unwrap().unwrap().offset;
            assert!(
                offset >= last && offset.is_multiple_of(2),
                "{offset} after {last}"
            );
            assert!(warehouse.document(&guest("ann")).await.unwrap().is_some());
            (last, reads) = (offset, reads + 1);
        }
        reads
    });
    for n in 0..30 {
        let both = [
            viewed(&format!("a{n}"), n, &guest("ann"), "sku1"),
            viewed(&format!("b{n}"), n, &guest("bob"), "sku1"),
        ];
        lane.apply(&both).await;
    }
    stop.send(()).unwrap();
    assert!(reader.await.unwrap() > 0);
}

pub(super) async fn rulesets_count_up_and_the_same_source_keeps_its_version(backend: &dyn Backend) {
    let warehouse = backend.open().await;
    assert_eq!(warehouse.newest_ruleset(None).await.unwrap(), None);
    let first = warehouse.store_ruleset("a: 1", NOW).await.unwrap();
    let again = warehouse
        .store_ruleset("a: 1", Timestamp(NOW.0 + 1))
        .await
        .unwrap();
    assert_eq!(first, again);
    let second = warehouse.store_ruleset("a: 2", NOW).await.unwrap();
    assert!(second.version > first.version);
    assert_eq!(
        warehouse.newest_ruleset(Some(first.version)).await.unwrap(),
        Some(second.clone())
    );
    assert_eq!(
        warehouse.newest_ruleset(Some(second.version)).await.unwrap(),
        None
    );
    // Going back is a new version.
    assert!(warehouse.store_ruleset("a: 1", NOW).await.unwrap().version > second.version);
}

pub(super) async fn every_ruleset_is_kept(backend: &dyn Backend) {
    let warehouse = backend.open().await;
    for source in ["a", "b", "a"] {
        warehouse.store_ruleset(source, NOW).await.unwrap();
    }
    let versions = |list: Vec<StoredRuleset>| -> Vec<(u64, String)> {
        list.into_iter()
            .map(|one| (one.version, one.source.to_string()))
            .collect()
    };
    let newest = versions(warehouse.rulesets(2).await.unwrap());
    assert_eq!(newest, [(3, "a".to_owned()), (2, "b".to_owned())]);
    assert_eq!(warehouse.rulesets(9).await.unwrap().len(), 3);
    assert_eq!(&*warehouse.ruleset(2).await.unwrap().unwrap().source, "b");
    assert_eq!(warehouse.ruleset(4).await.unwrap(), None);
}

pub(super) async fn pauses_are_kept_until_they_end(backend: &dyn Backend) {
    let warehouse = backend.open().await;
    assert_eq!(warehouse.paused().await.unwrap(), [""; 0]);
    for id in ["b", "a", "b"] {
        warehouse.set_paused(id, true, NOW).await.unwrap();
    }
    assert_eq!(warehouse.paused().await.unwrap(), ["a", "b"]);
    warehouse.set_paused("b", false, NOW).await.unwrap();
    warehouse.set_paused("never", false, NOW).await.unwrap();
    warehouse.close().await;
    assert_eq!(backend.open().await.paused().await.unwrap(), ["a"]);
}

pub(super) async fn the_first_key_check_value_stays(backend: &dyn Backend) {
    let warehouse = backend.open().await;
    assert_eq!(warehouse.key_check_value("mine").await.unwrap(), "mine");
    assert_eq!(warehouse.key_check_value("other").await.unwrap(), "mine");
    warehouse.close().await;
    assert_eq!(
        backend.open().await.key_check_value("other").await.unwrap(),
        "mine"
    );
}

pub(super) async fn purchases_are_the_newest_orders_without_charges(backend: &dyn Backend) {
    let mut lane = Lane::new(backend).await;
    lane.apply(&[
        ordered("e1", 1_000, true, &user("cyd"), "o1", 100),
        ordered("e3", 3_000, true, &user("dan"), "o3", 300),
        ordered("e2", 2_000, true, &user("cyd"), "o2", 200),
        ordered("e4", 4_000, true, &user("cyd"), "o4", 400),
        super::effects::cancelled("e5", 5_000, true, "o4"),
    ])
    .await;
    let purchases = lane.warehouse.purchases(&shop(), 100).await.unwrap();
    let items: Vec<Vec<&str>> = purchases
        .orders
        .iter()
        .map(|order| order.items.iter().map(|item| &**item).collect())
        .collect();
    assert_eq!(items, [["bought-e3"], ["bought-e2"], ["bought-e1"]]);
    assert_eq!(purchases.orders[0].payment_method.as_deref(), Some("pay-e3"));
    assert_eq!(
        lane.warehouse.purchases(&shop(), 2).await.unwrap().orders.len(),
        2
    );
}

pub(super) async fn the_catalogue_holds_the_latest_of_each_statement(backend: &dyn Backend) {
    let mut lane = Lane::new(backend).await;
    let said = |id: &str, time, item: &str, stock: Option<i64>, image: Option<&str>| {
        let mut effect = viewed(id, time, &guest("cyd"), item);
        effect.products[0].stock = stock;
        effect.products[0].image_url = image.map(Into::into);
        effect
    };
    lane.apply(&[
        said("e1", 1, "a", Some(5), Some("old")),
        said("e2", 2, "b", None, None),
    ])
    .await;
    lane.apply(&[
        said("e4", 4, "a", Some(0), None),
        said("e3", 3, "a", Some(7), Some("new")),
    ])
    .await;
    let catalogue = lane.warehouse.catalogue(&shop(), 10).await.unwrap();
    let stocks: Vec<(&str, Option<i64>, Option<i64>)> = catalogue
        .iter()
        .map(|one| (&*one.item, one.stock, one.price.as_ref().map(|(minor, _)| *minor)))
        .collect();
    assert_eq!(stocks, [("a", Some(0), Some(4)), ("b", None, Some(2))]);
    assert_eq!(
        backend
            .integers("select count(*) from dim_product where image_url = 'new'")
            .await,
        [1]
    );
    assert_eq!(lane.warehouse.catalogue(&shop(), 1).await.unwrap().len(), 1);
}

pub(super) async fn sessions_are_gathered_from_the_newest_events(backend: &dyn Backend) {
    let mut lane = Lane::new(backend).await;
    let touched = |id: &str, time, who: &str, item: &str| {
        let mut effect = viewed(id, time, &guest(who), item);
        effect.event.body = format!(r#"{{"properties":{{"sku":"{item}"}}}}"#).into();
        effect
    };
    let mut by_session = touched("e4", 4, "cyd", "d");
    by_session.event.session = Some("k1.s".into());
    lane.apply(&[
        touched("e1", 1, "cyd", "a"),
        touched("e2", 2, "dan", "b"),
        touched("e3", 3, "cyd", "c"),
        by_session,
        decided("e5", 5, &guest("cyd")),
    ])
    .await;
    let gathered = |limit: usize| {
        let warehouse = Arc::clone(&lane.warehouse);
        async move {
            let mut found = warehouse.interactions(&shop(), limit).await.unwrap();
            found.sort_by_key(|one| one.at);
            let session = |item: &str| found.iter().find(|one| *one.item == *item).map(|one| one.session);
            let items: Vec<String> = found.iter().map(|one| one.item.to_string()).collect();
            (items.concat(), ["a", "b", "c", "d"].map(session))
        }
    };
    let (items, [a, b, c, d]) = gathered(10).await;
    assert_eq!(items, "abcd");
    assert!(a == c && a != b && a != d && b != d);
    // The third one touches nothing.
    let (newest, _) = gathered(3).await;
    assert_eq!(newest, "cd");
}

pub(super) async fn segments_follow_the_documents_written(backend: &dyn Backend) {
    let lane = Lane::new(backend).await;
    let ruleset = "\
version: 1
currency: EUR
placements: {promo: {kind: content, fallback: null}}
segments:
  new: {when: profile.orders == 0}
  buyer: {when: profile.orders >= 1}
";
    let ruleset = Ruleset::parse(ruleset, 1).unwrap();
    let steps = [
        (viewed("e0", 1_000, &user("cyd"), "sku1"), NOW, "new"),
        (
            viewed("e1", 2_000, &user("cyd"), "sku1"),
            Timestamp(NOW.0 + 1),
            "new",
        ),
        (
            ordered("e2", 3_000, true, &user("cyd"), "o1", 100),
            Timestamp(NOW.0 + 2),
            "buyer",
        ),
        (
            super::effects::cancelled("e3", 4_000, true, "o1"),
            Timestamp(NOW.0 + 3),
            "new",
        ),
    ];
    for (offset, (effect, now, segment)) in (0..).zip(steps) {
        let effects = [(offset, effect)];
        let mut batch = batch(0, offset, &effects);
        batch.ruleset = Some(&ruleset);
        batch.now = now;
        lane.warehouse.apply(&batch).await.unwrap();
        assert_eq!(
            backend.integers("select count(*) from customer_segment").await,
            [1]
        );
        let named = match segment {
            "new" => "select since from customer_segment where segment = 'new'",
            _ => "select since from customer_segment where segment = 'buyer'",
        };
        // Who stays keeps the day of entry.
        let entered = if offset == 1 { NOW } else { now };
        assert_eq!(backend.integers(named).await, [entered.0], "after {offset}");
    }
}

pub(super) async fn documents_of_many_are_read_together(backend: &dyn Backend) {
    let mut lane = Lane::new(backend).await;
    lane.apply(&mixed()).await;
    let known = [guest("ann"), guest("bob"), user("cyd")];
    let mut asked: Vec<_> = (0..100).map(|n| guest(&format!("nobody-{n}"))).collect();
    asked.splice(50..50, known.clone());
    let mut found = lane.warehouse.documents(&asked).await.unwrap();
    found.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    let mut expected = Vec::new();
    for subject in known {
        let (version, bytes) = lane.warehouse.document(&subject).await.unwrap().unwrap();
        expected.push((subject, version, bytes));
    }
    expected.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(found, expected);
    assert!(lane.warehouse.documents(&[]).await.unwrap().is_empty());
}
