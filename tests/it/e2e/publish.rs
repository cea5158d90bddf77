//! What becomes of hot profiles when the worker dies, or the hot store is away or loses what it was given.

use std::sync::Arc;
use std::time::Duration;

use cartwright::domain::profile::Version;
use cartwright::hot::{self, HotConfig};

use super::drain::{Rig, ids};
use crate::support::api::PARTITION;
use crate::support::stack::Stack;

impl Rig {
    async fn stored_version(&self, guest: &str) -> Version {
        let document = self.store.document(&self.guest(guest)).await.unwrap();
        document.expect("a document").0
    }

    /// Waits until the hot profile of `guest` is the one in the warehouse.
    async fn shows(&self, guest: &str) {
        self.settle().await;
        let version = self.stored_version(guest).await;
        eventually(async || {
            let hot = self.hot.get(&self.guest(guest)).await.ok().flatten();
            hot.is_some_and(|hot| hot.version == version)
        })
        .await;
    }

    async fn newest_change(&self) -> u64 {
        self.store.changes(PARTITION, 0, 0).await.unwrap().newest
    }

    /// Waits until everything is marked as published.
    async fn is_marked(&self) {
        let newest = self.newest_change().await;
        eventually(async || self.hot.published(PARTITION).await.ok().flatten() == Some(newest)).await;
    }

    /// Every key in Redis with its value.
    fn dump(&self) -> Vec<(String, Vec<u8>)> {
        let redis = self.stores.redis();
        let keys: Vec<String> = redis.command(&["keys", "*"]);
        keys.into_iter()
            .map(|key| {
                let value = redis.command(&["get", &key]);
                (key, value)
            })
            .collect()
    }
}

async fn eventually(is_so: impl AsyncFn() -> bool) {
    tokio::time::timeout(Duration::from_secs(30), async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("not within 30 s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hot_store_that_falls_silent_does_not_hold_up_the_warehouse_and_is_caught_up() {
    let rig = Rig::new(Stack::Networked).await;
    rig.view("a1", ids(0..3)).await;
    let lane = rig.start(Arc::clone(&rig.store));
    rig.shows("a1").await;
    rig.stores.redis().pause();
    rig.view("a1", ids(3..5)).await;
    rig.settle().await;
    rig.view("a2", ids(5..6)).await;
    rig.settle().await;
    assert_eq!(rig.events_of("a1").await, 5);
    rig.stores.redis().resume();
    rig.shows("a1").await;
    rig.shows("a2").await;
    rig.is_marked().await;
    lane.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_failover_lost_is_put_again() {
    let rig = Rig::new(Stack::Networked).await;
    rig.view("a1", ids(0..3)).await;
    let lane = rig.start(Arc::clone(&rig.store));
    rig.shows("a1").await;
    rig.is_marked().await;
    let before = rig.dump();
    let restore = || {
        let mut connection = rig.stores.redis().connection();
        for (key, value) in &before {
            let () = redis::cmd("SET")
                .arg(key)
                .arg(value)
                .query(&mut connection)
                .unwrap();
        }
    };
    rig.view("a1", ids(3..5)).await;
    rig.shows("a1").await;
    rig.is_marked().await;
    // A replica takes over that had not seen the last writes. Nothing else happens meanwhile ...
    restore();
    rig.shows("a1").await;
    rig.is_marked().await;
    // ... or the next event comes first, of somebody else.
    restore();
    rig.view("a2", ids(5..6)).await;
    rig.shows("a1").await;
    rig.shows("a2").await;
    lane.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hot_store_that_lost_everything_is_marked_and_not_filled() {
    let rig = Rig::new(Stack::Networked).await;
    rig.view("a1", ids(0..3)).await;
    let lane = rig.start(Arc::clone(&rig.store));
    rig.shows("a1").await;
    rig.is_marked().await;
    let _: () = rig.stores.redis().command(&["flushall"]);
    rig.is_marked().await;
    assert_eq!(rig.hot.get(&rig.guest("a1")).await.unwrap(), None);
    lane.stop().await;

    // The same at a start; and a mark from before the warehouse was restored from a backup.
    let _: () = rig.stores.redis().command(&["flushall"]);
    let lane = rig.start(Arc::clone(&rig.store));
    rig.is_marked().await;
    assert_eq!(rig.hot.get(&rig.guest("a1")).await.unwrap(), None);
    lane.stop().await;
    rig.hot.publish(PARTITION, &[], 1_000_000).await.unwrap();
    let lane = rig.start(Arc::clone(&rig.store));
    rig.is_marked().await;
    lane.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_between_commit_and_put_leaves_nothing_stale() {
    let mut rig = Rig::new(Stack::Networked).await;
    rig.view("a1", ids(0..3)).await;
    let lane = rig.start(Arc::clone(&rig.store));
    rig.shows("a1").await;
    rig.is_marked().await;
    lane.stop().await;

    // Its successor commits, and what it puts reaches nobody.
    let nowhere = HotConfig {
        url: "memory:".to_owned(),
        ..rig.stores.hot()
    };
    let nowhere = hot::open(&nowhere).await.unwrap();
    let shared = std::mem::replace(&mut rig.hot, nowhere);
    // More than one page of changes.
    for n in 0..600 {
        rig.view(&format!("b{n}"), [format!("b{n}")]).await;
    }
    rig.view("a1", ids(3..5)).await;
    let lane = rig.start(Arc::clone(&rig.store));
    rig.settle().await;
    lane.stop().await;
    rig.hot = shared;
    let stale = rig.hot.get(&rig.guest("a1")).await.unwrap().unwrap().version;
    assert_ne!(stale, rig.stored_version("a1").await);

    // Whoever comes next finds nothing in the log, and still puts it right.
    let lane = rig.start(Arc::clone(&rig.store));
    rig.shows("a1").await;
    rig.shows("b0").await;
    rig.shows("b599").await;
    rig.is_marked().await;
    lane.stop().await;
}
