//! Batches of different partitions that meet, with the interleaving forced: a session of the test's own holds a
//! row until everybody who must wait for it does.

use std::sync::Arc;
use std::time::Duration;

use cartwright::domain::ids::SubjectId;
use cartwright::domain::transform::Effect;
use cartwright::warehouse::{Applied, Warehouse, WarehouseError};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor as _};

use super::super::effects::{
    aliased, cancelled, guest, linked, ordered, refunded, unlinked, user, viewed, withdrew,
};
use super::super::{Backend as _, Lane, batch};
use super::Postgres;

async fn lane(backend: &Postgres, partition: u16) -> Lane {
    Lane {
        partition,
        ..Lane::new(backend).await
    }
}

/// One of several that share a process's connections.
fn lane_of(warehouse: &Arc<dyn Warehouse>, partition: u16) -> Lane {
    Lane {
        warehouse: Arc::clone(warehouse),
        partition,
        offset: 0,
    }
}

/// A lane's first batch, on its way.
fn start(lane: &Lane, effects: Vec<Effect>) -> tokio::task::JoinHandle<Result<Applied, WarehouseError>> {
    let (warehouse, partition, offset) = (Arc::clone(&lane.warehouse), lane.partition, lane.offset);
    tokio::spawn(async move {
        let numbered: Vec<(u64, Effect)> = (offset..).zip(effects).collect();
        warehouse.apply(&batch(partition, offset, &numbered)).await
    })
}

/// Returns once `count` sessions wait for a lock.
async fn until_waiting(observer: &mut PgConnection, count: i64) {
    for _ in 0..1_000 {
        let waiting: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity
             where datname = current_database() and wait_event_type = 'Lock'",
        )
        .fetch_one(&mut *observer)
        .await
        .unwrap();
        if waiting >= count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{count} sessions never waited");
}

async fn hold(conn: &mut PgConnection, sql: &str) {
    conn.execute("begin").await.unwrap();
    conn.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
}

async fn link_meets_guest_event(link_first: bool) {
    let backend = Postgres::default();
    let (ann, cyd) = (guest("ann"), user("cyd"));
    let mut seed = lane(&backend, 9).await;
    seed.apply(&[
        viewed("s1", 1_000, &ann, "sku1"),
        viewed("s2", 1_000, &cyd, "sku1"),
    ])
    .await;
    let (folding, linking) = (lane(&backend, 0).await, lane(&backend, 1).await);
    let mut holder = backend.database().await.connect().await;
    let mut observer = backend.database().await.connect().await;

    // Both lanes have looked at the links, and neither sees the other's.
    hold(
        &mut holder,
        &format!("select from customer_profile where subject = '{ann}' for update"),
    )
    .await;
    let fold = || start(&folding, vec![viewed("f1", 2_000, &ann, "sku2")]);
    let link = || start(&linking, vec![linked("l1", 3_000, &ann, &cyd)]);
    let (first, second) = if link_first {
        let first = link();
        until_waiting(&mut observer, 1).await;
        (first, fold())
    } else {
        let first = fold();
        until_waiting(&mut observer, 1).await;
        (first, link())
    };
    until_waiting(&mut observer, 2).await;
    holder.execute("commit").await.unwrap();
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();

    let document = seed.document(&cyd).await.unwrap();
    assert_eq!(document.events(), 4, "link first: {link_first}");
    let document = seed.document(&ann).await.unwrap();
    assert_eq!((document.events(), document.linked_user()), (2, Some(&cyd)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_event_folded_behind_a_link_in_the_making_reaches_the_user() {
    link_meets_guest_event(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_made_behind_a_guest_event_in_the_folding_takes_it_to_the_user() {
    link_meets_guest_event(false).await;
}

/// Whom the links bring in is found once others are locked. To wait with those in hand could be to wait for whoever waits for them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_a_link_brings_in_is_waited_for_with_nobody_else_locked() {
    let backend = Postgres::default();
    let (ann, cyd) = (guest("ann"), user("cyd"));
    let mut seed = lane(&backend, 9).await;
    seed.apply(&[viewed("s1", 1_000, &ann, "sku1"), linked("l1", 2_000, &ann, &cyd)])
        .await;
    let row = |subject| format!("select from customer_profile where subject = '{subject}' for update nowait");
    let mut holder = backend.database().await.connect().await;
    let mut observer = backend.database().await.connect().await;
    hold(&mut holder, &row(&ann)).await;
    let folding = start(&lane(&backend, 0).await, vec![viewed("f1", 3_000, &cyd, "sku2")]);
    until_waiting(&mut observer, 1).await;
    hold(&mut observer, &row(&cyd)).await;
    observer.execute("commit").await.unwrap();
    holder.execute("commit").await.unwrap();
    folding.await.unwrap().unwrap();
    assert_eq!(seed.document(&cyd).await.unwrap().events(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_devices_linked_to_one_user_at_once_are_both_in_the_document() {
    let backend = Postgres::default();
    let (phone, laptop, cyd) = (guest("phone"), guest("laptop"), user("cyd"));
    let mut seed = lane(&backend, 9).await;
    seed.apply(&[
        viewed("s1", 1_000, &phone, "sku1"),
        viewed("s2", 1_000, &laptop, "sku2"),
        viewed("s3", 1_000, &cyd, "sku3"),
    ])
    .await;
    let (one, two) = (lane(&backend, 0).await, lane(&backend, 1).await);
    let mut holder = backend.database().await.connect().await;
    let mut observer = backend.database().await.connect().await;
    hold(
        &mut holder,
        &format!("select from customer_profile where subject = '{cyd}' for update"),
    )
    .await;
    let first = start(&one, vec![linked("l1", 2_000, &phone, &cyd)]);
    let second = start(&two, vec![linked("l2", 2_000, &laptop, &cyd)]);
    until_waiting(&mut observer, 2).await;
    holder.execute("commit").await.unwrap();
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
    assert_eq!(seed.document(&cyd).await.unwrap().events(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_and_its_cancellation_in_two_partitions_at_once_end_cancelled() {
    let backend = Postgres::default();
    let cyd = user("cyd");
    let (one, two) = (lane(&backend, 0).await, lane(&backend, 1).await);
    let mut holder = backend.database().await.connect().await;
    let mut observer = backend.database().await.connect().await;
    hold(
        &mut holder,
        "insert into order_lock (shop, order_id) values ('acme/live', 'o1')",
    )
    .await;
    let first = start(&one, vec![ordered("o", 1_000, true, &cyd, "o1", 900)]);
    let second = start(&two, vec![cancelled("c", 2_000, true, "o1")]);
    until_waiting(&mut observer, 2).await;
    holder.execute("commit").await.unwrap();
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
    let part = one.document(&cyd).await.unwrap();
    assert_eq!(
        (part.purchases("").orders, part.purchases("").cancelled_orders),
        (0, 1)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_order_reported_in_two_partitions_at_once_counts_once() {
    let backend = Postgres::default();
    let (ann, cyd) = (guest("ann"), user("cyd"));
    let (page, server) = (lane(&backend, 0).await, lane(&backend, 1).await);
    let mut holder = backend.database().await.connect().await;
    let mut observer = backend.database().await.connect().await;
    hold(
        &mut holder,
        "insert into order_lock (shop, order_id) values ('acme/live', 'o1')",
    )
    .await;
    let first = start(&page, vec![ordered("p", 2_000, false, &ann, "o1", 900)]);
    let second = start(&server, vec![ordered("s", 1_000, true, &cyd, "o1", 1_000)]);
    until_waiting(&mut observer, 2).await;
    holder.execute("commit").await.unwrap();
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
    assert_eq!(
        page.document(&cyd).await.unwrap().purchases("EUR").revenue_minor,
        1_000
    );
    assert_eq!(
        page.document(&ann).await.unwrap().purchases("EUR").revenue_minor,
        0
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_victim_of_a_deadlock_begins_again() {
    let backend = Postgres::default();
    let (ann, bob) = (guest("ann"), guest("bob"));
    let mut seed = lane(&backend, 9).await;
    seed.apply(&[
        viewed("s1", 1_000, &ann, "sku1"),
        viewed("s2", 1_000, &bob, "sku1"),
    ])
    .await;
    let mut holder = backend.database().await.connect().await;
    let mut observer = backend.database().await.connect().await;
    // The batch's session looks for deadlocks first, so it is the one that is ended.
    holder.execute("set deadlock_timeout = '20s'").await.unwrap();
    let lock =
        |subject: &SubjectId| format!("select from customer_profile where subject = '{subject}' for update");
    hold(&mut holder, &lock(&bob)).await;
    let lane = lane(&backend, 0).await;
    let applied = start(
        &lane,
        vec![
            viewed("e1", 2_000, &ann, "sku2"),
            viewed("e2", 2_000, &bob, "sku2"),
        ],
    );
    until_waiting(&mut observer, 1).await;
    // The batch holds ann and waits for bob; now bob's holder wants ann.
    holder.execute(AssertSqlSafe(lock(&ann))).await.unwrap();
    holder.execute("commit").await.unwrap();
    assert_eq!(applied.await.unwrap().unwrap().new_events, 2);
    assert_eq!(seed.document(&ann).await.unwrap().events(), 2);
    let deadlocks = "select deadlocks from pg_stat_database where datname = current_database()";
    for _ in 0..100 {
        observer.execute("select pg_stat_clear_snapshot()").await.unwrap();
        if backend.integers(deadlocks).await != [0] {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("there was no deadlock");
}

/// A batch that has all but moved its position and committed, since it waits for the product `sku9`, whose row is held.
async fn nearly_done(
    backend: &Postgres,
    holder: &mut PgConnection,
    mut effects: Vec<Effect>,
) -> tokio::task::JoinHandle<Result<Applied, WarehouseError>> {
    let mut seed = lane(backend, 8).await;
    let passer_by = guest("passer-by");
    seed.apply(&[viewed("p1", 1_000, &passer_by, "sku9")]).await;
    hold(holder, "select from dim_product where item = 'sku9' for update").await;
    effects.push(viewed("p2", 9_000, &passer_by, "sku9"));
    let first = start(&lane(backend, 0).await, effects);
    until_waiting(&mut backend.database().await.connect().await, 1).await;
    first
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_whom_two_lanes_see_for_the_first_time_at_once_keeps_both_events() {
    let backend = Postgres::default();
    let ann = guest("ann");
    let mut holder = backend.database().await.connect().await;
    let first = nearly_done(&backend, &mut holder, vec![viewed("e1", 2_000, &ann, "sku1")]).await;
    let second = start(&lane(&backend, 1).await, vec![viewed("e2", 2_000, &ann, "sku2")]);
    until_waiting(&mut backend.database().await.connect().await, 2).await;
    holder.execute("commit").await.unwrap();
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
    let document = lane(&backend, 0).await.document(&ann).await.unwrap();
    assert_eq!((document.events(), document.version().n), (2, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_first_seen_and_linked_while_the_user_is_waited_for_stays_in_the_users_document() {
    let backend = Postgres::default();
    let (ann, cyd) = (guest("ann"), user("cyd"));
    let mut seed = lane(&backend, 9).await;
    seed.apply(&[viewed("s1", 1_000, &cyd, "sku1")]).await;
    let mut holder = backend.database().await.connect().await;
    let linking = vec![viewed("e1", 2_000, &ann, "sku1"), linked("l1", 3_000, &ann, &cyd)];
    let first = nearly_done(&backend, &mut holder, linking).await;
    // It names her as well and says nothing of her, so all that it writes is his document.
    let mut naming = viewed("e2", 4_000, &ann, "sku2");
    naming.contribution.deltas.clear();
    let second = start(
        &lane(&backend, 1).await,
        vec![naming, viewed("e3", 4_000, &cyd, "sku2")],
    );
    until_waiting(&mut backend.database().await.connect().await, 2).await;
    holder.execute("commit").await.unwrap();
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
    assert_eq!(seed.document(&cyd).await.unwrap().events(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_and_its_end_between_two_who_did_nothing_yet_meet_in_any_order() {
    for unlink_first in [false, true] {
        let backend = Postgres::default();
        let (ann, cyd) = (guest("ann"), user("cyd"));
        let link = vec![linked("l1", 2_000, &ann, &cyd)];
        let unlink = vec![unlinked("u1", 3_000, &ann, &cyd)];
        let (first, second) = match unlink_first {
            true => (unlink, link),
            false => (link, unlink),
        };
        let mut holder = backend.database().await.connect().await;
        let first = nearly_done(&backend, &mut holder, first).await;
        let second = start(&lane(&backend, 1).await, second);
        until_waiting(&mut backend.database().await.connect().await, 2).await;
        holder.execute("commit").await.unwrap();
        first.await.unwrap().unwrap();
        second.await.unwrap().unwrap();
        let lane = lane(&backend, 0).await;
        assert_eq!(lane.document(&ann).await.unwrap().linked_user(), None);
        assert_eq!(lane.document(&cyd).await.unwrap().events(), 1);
        let whole = "select count(*) from identity where first_time is not null and unlink_time is not null";
        assert_eq!(backend.integers(whole).await, [1], "unlink first: {unlink_first}");
    }
}

/// As while a log is read anew into an empty warehouse: what several partitions say of shoppers, none of whom is there yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn newcomers_whom_all_lanes_meet_at_once_are_all_counted() {
    const LANES: u16 = 4;
    let backend = Postgres::default();
    let warehouse = backend.open().await;
    let mut running = Vec::new();
    for partition in 0..LANES {
        let mut lane = lane_of(&warehouse, partition);
        running.push(tokio::spawn(async move {
            for batch in 0..12 {
                let newcomers = (0..40).map(|n| format!("{batch}-{n}"));
                let effects: Vec<_> = newcomers
                    .flat_map(|name| {
                        let (id, time) = (format!("p{partition}-{name}"), 1_000 + batch);
                        let (anonymous, known) = (guest(&name), user(&name));
                        [
                            viewed(&format!("v{id}"), time, &anonymous, "sku1"),
                            linked(&format!("l{id}"), time, &anonymous, &known),
                        ]
                    })
                    .collect();
                // Fails where it begins again too often.
                lane.apply(&effects).await;
            }
        }));
    }
    for lane in running {
        lane.await.unwrap();
    }
    let lane = Lane {
        warehouse,
        partition: 0,
        offset: 0,
    };
    for batch in 0..12 {
        for n in 0..40 {
            let document = lane.document(&user(&format!("{batch}-{n}"))).await.unwrap();
            assert_eq!(document.events(), 2 * i64::from(LANES));
        }
    }
}

/// What a partition's lane has to say of people that all lanes share.
fn story(partition: u64, length: u64) -> Vec<Effect> {
    let guests = ["ann", "bob", "eve", "kiosk"].map(guest);
    let users = ["cyd", "dan", "fay"].map(user);
    let mut state = partition.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut below = move |bound: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % bound).unwrap()
    };
    (0..length)
        .map(|n| {
            let (id, time) = (format!("p{partition}n{n}"), (n * 100 + partition) as i64);
            let (anonymous, known) = (&guests[below(4)], &users[below(3)]);
            let order = format!("o{}", below(12));
            match below(12) {
                0 => linked(&id, time, anonymous, known),
                1 => unlinked(&id, time, anonymous, known),
                2 if n % 9 == 0 => aliased(&id, time, known, &users[below(3)]),
                3 => ordered(&id, time, below(2) == 0, known, &order, time),
                4 => cancelled(&id, time, true, &order),
                5 => refunded(&id, time, known, &order, &format!("r{}", below(3)), 7),
                6 | 7 => viewed(&id, time, known, &format!("sku{}", below(5))),
                _ => viewed(&id, time, anonymous, &format!("sku{}", below(5))),
            }
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lanes_that_run_side_by_side_end_like_one_lane() {
    const LANES: u16 = 4;
    let (together, alone) = (Postgres::default(), Postgres::default());
    let warehouse = together.open().await;
    let mut running = Vec::new();
    for partition in 0..LANES {
        let mut lane = lane_of(&warehouse, partition);
        running.push(tokio::spawn(async move {
            for (n, piece) in story(u64::from(partition), 120).chunks(6).enumerate() {
                lane.apply(piece).await;
                assert!(lane.offset > 0, "{n}");
            }
        }));
    }
    for lane in running {
        lane.await.unwrap();
    }
    let mut single = Lane::new(&alone).await;
    for partition in (0..LANES).rev() {
        single.apply(&story(u64::from(partition), 120)).await;
    }

    let several = Lane {
        warehouse,
        partition: 0,
        offset: 0,
    };
    for subject in ["ann", "bob", "eve", "kiosk"]
        .map(guest)
        .into_iter()
        .chain(["cyd", "dan", "fay"].map(user))
    {
        assert_eq!(
            several.view(&subject).await,
            single.view(&subject).await,
            "{subject}"
        );
    }
    let facts = |dump: Vec<String>| -> Vec<String> {
        let same = [
            "fact_order",
            "fact_refund",
            "order_",
            "identity",
            "event_seen",
            "dim_",
        ];
        dump.into_iter()
            .filter(|row| same.iter().any(|table| row.starts_with(table)))
            .collect()
    };
    assert_eq!(facts(together.dump().await), facts(alone.dump().await));
    // Each partition numbered its changes by itself, and no number was given twice.
    let twice = "select change_seq from customer_profile group by partition, change_seq having count(*) > 1";
    assert_eq!(together.integers(twice).await, [0; 0]);
    let beyond = "select count(*) from customer_profile as c join position as p using (partition)
                  where c.change_seq > p.change_seq";
    assert_eq!(together.integers(beyond).await, [0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_partition_was_taken_over_in_the_middle_of_a_batch_is_refused() {
    let backend = Postgres::default();
    let ann = guest("ann");
    let mut owner = lane(&backend, 0).await;
    owner.apply(&[viewed("e0", 1_000, &ann, "sku1")]).await;
    let mut observer = backend.database().await.connect().await;
    let mut holder = backend.database().await.connect().await;
    hold(
        &mut holder,
        "select from customer_profile where subject like 'a:%' for update",
    )
    .await;
    // Both apply the same stretch of the log; one of them holds the position.
    let zombie = start(&owner, vec![viewed("e1", 2_000, &ann, "sku2")]);
    until_waiting(&mut observer, 1).await;
    let successor = start(&owner, vec![viewed("e1", 2_000, &ann, "sku2")]);
    until_waiting(&mut observer, 2).await;
    holder.execute("commit").await.unwrap();
    let outcomes = [zombie.await.unwrap(), successor.await.unwrap()];
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    let moved = |outcome: &Result<Applied, WarehouseError>| {
        matches!(outcome, Err(WarehouseError::PositionMoved { found: Some(_), .. }))
    };
    assert!(outcomes.iter().any(moved), "{outcomes:?}");
    assert_eq!(owner.document(&ann).await.unwrap().events(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_withdrawal_meets_an_event_of_the_same_shopper_in_any_order() {
    let backend = Postgres::default();
    let (ann, cyd) = (guest("ann"), user("cyd"));
    let mut seed = lane(&backend, 9).await;
    seed.apply(&[viewed("s1", 1_000, &ann, "sku1"), linked("l", 1_000, &ann, &cyd)])
        .await;
    let (one, two) = (lane(&backend, 0).await, lane(&backend, 1).await);
    let mut holder = backend.database().await.connect().await;
    let mut observer = backend.database().await.connect().await;
    hold(
        &mut holder,
        &format!("select from customer_profile where subject = '{ann}' for update"),
    )
    .await;
    let first = start(&one, vec![withdrew("w", 2_000, &cyd)]);
    until_waiting(&mut observer, 1).await;
    let second = start(&two, vec![viewed("v", 3_000, &ann, "sku2")]);
    until_waiting(&mut observer, 2).await;
    holder.execute("commit").await.unwrap();
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
    // The event came after the withdrawal: it counts, in the new generation of guest and user alike.
    assert_eq!(seed.document(&cyd).await.unwrap().events(), 1);
    assert_eq!(seed.document(&ann).await.unwrap().events(), 1);
}
