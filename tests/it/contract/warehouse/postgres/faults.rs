//! What the server may do to a batch, and what the lane hears of it.

use std::sync::Arc;

use cartwright::domain::ids::Timestamp;
use cartwright::warehouse::{self, WarehouseConfig, WarehouseError};
use sqlx::Executor as _;
use tokio::net::{TcpListener, TcpStream};

use super::super::effects::{guest, viewed};
use super::super::{Backend as _, Lane};
use super::{Postgres, config};
use crate::support::postgres::Database;

#[tokio::test]
async fn a_session_lost_in_the_commit_leaves_the_outcome_unknown() {
    let database = Database::disposable().await;
    let mut conn = database.connect().await;
    // Deferred, so it runs within the commit.
    conn.execute(
        "create function die() returns trigger language plpgsql as $$ begin
             perform pg_terminate_backend(pg_backend_pid()); return null; end $$;
         create constraint trigger lost after insert on event_seen deferrable initially deferred
             for each row when (new.digest = event_digest('acme/live', 'deadly')) execute function die()",
    )
    .await
    .unwrap();
    let warehouse = warehouse::open(&config(&database, false)).await.unwrap();
    let mut lane = Lane {
        warehouse,
        partition: 0,
        offset: 0,
    };
    let unknown = lane
        .try_apply(&[viewed("deadly", 1_000, &guest("ann"), "sku1")])
        .await
        .unwrap_err();
    assert!(matches!(unknown, WarehouseError::Unknown(_)), "{unknown}");
    // The next one has a session of its own.
    lane.apply(&[viewed("e1", 1_000, &guest("ann"), "sku1")]).await;
}

#[tokio::test]
async fn a_session_lost_before_the_commit_is_unavailable_and_leaves_nothing_behind() {
    let database = Database::disposable().await;
    database
        .connect()
        .await
        .execute(
            "create function die() returns trigger language plpgsql as $$ begin
                 perform pg_terminate_backend(pg_backend_pid()); return null; end $$;
             create trigger lost after insert on fact_event
                 for each row when (new.event_id = 'deadly') execute function die()",
        )
        .await
        .unwrap();
    let warehouse = warehouse::open(&config(&database, false)).await.unwrap();
    let mut lane = Lane {
        warehouse,
        partition: 0,
        offset: 0,
    };
    let lost = lane
        .try_apply(&[viewed("deadly", 1_000, &guest("ann"), "sku1")])
        .await
        .unwrap_err();
    assert!(matches!(lost, WarehouseError::Unavailable(_)), "{lost}");
    assert_eq!(lane.warehouse.position(0).await.unwrap(), None);
    lane.apply(&[viewed("e1", 1_000, &guest("ann"), "sku1")]).await;
}

#[tokio::test]
async fn a_text_that_the_server_cannot_hold_is_rejected_and_can_be_set_aside() {
    let backend = Postgres::default();
    let mut lane = Lane::new(&backend).await;
    let mut bad = viewed("bad", 1_000, &guest("ann"), "sku1");
    bad.event.name = "Product\0Viewed".into();
    let rejected = lane.try_apply(std::slice::from_ref(&bad)).await.unwrap_err();
    assert!(matches!(rejected, WarehouseError::Rejected(_)), "{rejected}");
    bad.quarantine = Some(("unstorable".into(), "a\0b".to_owned()));
    assert_eq!(lane.apply(&[bad]).await.quarantined, 1);
}

#[tokio::test]
async fn an_event_of_a_month_that_the_retention_dropped_gets_its_partition_back() {
    let backend = Postgres::default();
    let mut lane = Lane::new(&backend).await;
    lane.apply(&[viewed("e1", 1_000, &guest("ann"), "sku1")]).await;
    let forget = async |day: i64| {
        let before = Timestamp(day * 86_400_000);
        lane.warehouse.forget_facts(before).await.unwrap()
    };
    // The last of September 2020 is not wholly before the thirtieth, but before the first of October.
    assert!(forget(18_535).await.is_empty());
    assert_eq!(backend.integers("select count(*) from fact_event").await, [1]);
    let (one, other) = tokio::join!(forget(18_536), forget(18_536));
    let dropped: Vec<String> = one.into_iter().chain(other).collect();
    assert_eq!(dropped, ["fact_event_202009"]);
    assert_eq!(backend.integers("select count(*) from fact_event").await, [0]);
    lane.apply(&[viewed("e2", 2_000, &guest("ann"), "sku1")]).await;
    assert_eq!(backend.integers("select count(*) from fact_event").await, [1]);
    // Next month's is there before its first event.
    let ahead = "select count(*) from pg_inherits where inhparent = 'fact_event'::regclass";
    assert!(backend.integers(ahead).await[0] >= 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_starts_without_the_server_and_works_once_it_is_there() {
    let backend = Postgres::default();
    let mut url: url_parts::Parts = url_parts::split(&backend.database().await.url());
    let server = url.authority.clone();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = closed.local_addr().unwrap();
    drop(closed);
    url.authority = place.to_string();
    let config = WarehouseConfig {
        url: url.join(),
        migrate: false,
    };
    let warehouse = warehouse::open(&config).await.unwrap();
    let absent = warehouse.document(&guest("ann")).await.unwrap_err();
    assert!(matches!(absent, WarehouseError::Unavailable(_)), "{absent}");

    let listener = TcpListener::bind(place).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut upstream = TcpStream::connect(&server).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut upstream).await });
        }
    });
    let mut lane = Lane {
        warehouse: Arc::clone(&warehouse),
        partition: 0,
        offset: 0,
    };
    lane.apply(&[viewed("e1", 1_000, &guest("ann"), "sku1")]).await;
    assert!(warehouse.document(&guest("ann")).await.unwrap().is_some());
}

#[tokio::test]
async fn look_ups_go_on_when_the_server_has_closed_what_lay_idle() {
    let backend = Postgres::default();
    let mut lane = Lane::new(&backend).await;
    lane.apply(&[viewed("e1", 1_000, &guest("ann"), "sku1")]).await;
    let ann = guest("ann");
    let many = || futures_util::future::join_all((0..4).map(|_| lane.warehouse.document(&ann)));
    assert!(many().await.into_iter().all(|found| found.unwrap().is_some()));
    let mut admin = backend.database().await.connect().await;
    let ended: Vec<bool> = sqlx::query_scalar(
        "select pg_terminate_backend(pid, 10000) from pg_stat_activity
         where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'",
    )
    .fetch_all(&mut admin)
    .await
    .unwrap();
    assert!(ended.len() >= 4, "{ended:?}");
    assert!(many().await.into_iter().all(|found| found.unwrap().is_some()));
}

#[tokio::test]
async fn a_look_up_cut_short_takes_its_line_along() {
    let backend = Postgres::default();
    let mut lane = Lane::new(&backend).await;
    lane.apply(&[viewed("e1", 1_000, &guest("ann"), "sku1")]).await;
    let (ann, bob) = (guest("ann"), guest("bob"));
    assert!(lane.warehouse.document(&ann).await.unwrap().is_some());
    let mut blocker = backend.database().await.connect().await;
    blocker
        .execute("begin; lock table customer_profile in access exclusive mode")
        .await
        .unwrap();
    let held_up = lane.warehouse.document(&ann);
    let cut = tokio::time::timeout(std::time::Duration::from_millis(200), held_up).await;
    assert!(cut.is_err(), "it did not wait for the lock: {cut:?}");
    blocker.execute("rollback").await.unwrap();
    // On a line that still owed the first answer this one would get it.
    assert!(lane.warehouse.document(&bob).await.unwrap().is_none());
    assert!(lane.warehouse.document(&ann).await.unwrap().is_some());
}

/// Just enough of URLs to put another place into one.
mod url_parts {
    pub(super) struct Parts {
        before: String,
        pub(super) authority: String,
        after: String,
    }

    pub(super) fn split(url: &str) -> Parts {
        let (before, rest) = url.split_once('@').unwrap();
        let (authority, after) = rest.split_once('/').unwrap();
        let authority = if authority.contains(':') {
            authority.to_owned()
        } else {
            format!("{authority}:5432")
        };
        Parts {
            before: before.to_owned(),
            authority,
            after: after.to_owned(),
        }
    }

    impl Parts {
        pub(super) fn join(&self) -> String {
            format!("{}@{}/{}", self.before, self.authority, self.after)
        }
    }
}
