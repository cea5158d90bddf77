//! The hot store's promises, on every backend.

mod redis;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use cartwright::domain::ids::SubjectId;
use cartwright::domain::profile::Version;
use cartwright::hot::{self, HotConfig, HotObserver, HotProfile, HotStore};

fn subject(n: u32) -> SubjectId {
    SubjectId::from_stored(&format!("a:k.{n}"))
}

fn profile(epoch: u64, n: u64, bytes: &'static str) -> HotProfile {
    HotProfile {
        version: Version { epoch, n },
        bytes: Bytes::from_static(bytes.as_bytes()),
    }
}

async fn a_value_comes_back_as_it_was_put(store: Arc<dyn HotStore>) {
    assert_eq!(store.get(&subject(1)).await.unwrap(), None);
    store
        .put_newer(&[
            (subject(1), profile(1, 1, "one")),
            (subject(2), profile(1, 7, "two")),
        ])
        .await
        .unwrap();
    assert_eq!(store.get(&subject(1)).await.unwrap(), Some(profile(1, 1, "one")));
    assert_eq!(store.get(&subject(2)).await.unwrap(), Some(profile(1, 7, "two")));
    assert_eq!(store.get(&subject(3)).await.unwrap(), None);
}

async fn an_older_or_equal_version_never_overwrites(store: Arc<dyn HotStore>) {
    store
        .put_newer(&[(subject(1), profile(1, 5, "five"))])
        .await
        .unwrap();
    store
        .put_newer(&[(subject(1), profile(1, 4, "four"))])
        .await
        .unwrap();
    store
        .put_newer(&[(subject(1), profile(1, 5, "again"))])
        .await
        .unwrap();
    assert_eq!(store.get(&subject(1)).await.unwrap(), Some(profile(1, 5, "five")));
    store
        .put_newer(&[
            (subject(1), profile(1, 6, "six")),
            (subject(1), profile(1, 3, "three")),
        ])
        .await
        .unwrap();
    assert_eq!(store.get(&subject(1)).await.unwrap(), Some(profile(1, 6, "six")));
}

async fn another_epoch_always_replaces(store: Arc<dyn HotStore>) {
    store
        .put_newer(&[(subject(1), profile(9, 50, "old life"))])
        .await
        .unwrap();
    store
        .put_newer(&[(subject(1), profile(3, 1, "new life"))])
        .await
        .unwrap();
    assert_eq!(
        store.get(&subject(1)).await.unwrap(),
        Some(profile(3, 1, "new life"))
    );
}

async fn racing_writers_leave_the_newest(store: Arc<dyn HotStore>) {
    let writers: Vec<_> = (0..4u64)
        .map(|writer| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for n in (0..200).map(|n| n * 4 + writer) {
                    store
                        .put_newer(&[(subject(1), profile(1, n, "x"))])
                        .await
                        .unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(store.get(&subject(1)).await.unwrap().unwrap().version.n, 799);
}

async fn a_mark_is_kept_per_partition_and_answers_with_its_predecessor(store: Arc<dyn HotStore>) {
    assert_eq!(store.published(0).await.unwrap(), None);
    assert_eq!(store.publish(0, &[], 5).await.unwrap(), None);
    assert_eq!(store.publish(0, &[], 9).await.unwrap(), Some(5));
    assert_eq!(store.published(0).await.unwrap(), Some(9));
    assert_eq!(store.published(1).await.unwrap(), None);
    // A restored warehouse counts from where its backup was.
    assert_eq!(store.publish(0, &[], 3).await.unwrap(), Some(9));
    assert_eq!(store.published(0).await.unwrap(), Some(3));
}

async fn profiles_are_published_with_their_partitions_mark(store: Arc<dyn HotStore>) {
    // None, one, and more than fit into one call of a script.
    for (n, count) in [(1, 0), (2, 1), (3, 300)] {
        let profiles: Vec<_> = (0..count).map(|who| (subject(who), profile(1, n, "x"))).collect();
        let before = store.publish(7, &profiles, n * 10).await.unwrap();
        assert_eq!(before, (n > 1).then_some((n - 1) * 10), "{count} profiles");
        assert_eq!(store.published(7).await.unwrap(), Some(n * 10));
        for (who, profile) in profiles {
            assert_eq!(store.get(&who).await.unwrap(), Some(profile));
        }
    }
    // The newer stays, as ever.
    store
        .publish(7, &[(subject(1), profile(1, 2, "old"))], 31)
        .await
        .unwrap();
    assert_eq!(store.get(&subject(1)).await.unwrap().unwrap().version.n, 3);
}

#[derive(Debug, Default)]
struct Recording {
    following: AtomicBool,
    lost: AtomicUsize,
    changed: Mutex<Vec<SubjectId>>,
}

impl HotObserver for Recording {
    fn following(&self) {
        self.following.store(true, Ordering::SeqCst);
    }

    fn changed(&self, subject: &SubjectId) {
        self.changed.lock().unwrap().push(subject.clone());
    }

    fn lost(&self) {
        self.lost.fetch_add(1, Ordering::SeqCst);
        self.following.store(false, Ordering::SeqCst);
    }
}

/// What was read of a value before it changed is reported as changed, whoever changed it.
async fn a_change_is_reported_to_whoever_read_the_value(store: Arc<dyn HotStore>) {
    let observer = Arc::new(Recording::default());
    assert!(store.observe(Arc::clone(&observer) as Arc<dyn HotObserver>));
    eventually(|| observer.following.load(Ordering::SeqCst)).await;
    let is_reported = |n| observer.changed.lock().unwrap().contains(&subject(n));

    store
        .put_newer(&[(subject(1), profile(1, 5, "five"))])
        .await
        .unwrap();
    store.get(&subject(1)).await.unwrap();
    observer.changed.lock().unwrap().clear();
    store
        .put_newer(&[(subject(1), profile(1, 6, "six"))])
        .await
        .unwrap();
    eventually(|| is_reported(1)).await;

    // So is a subject whom the store did not know.
    assert_eq!(store.get(&subject(2)).await.unwrap(), None);
    store
        .put_newer(&[(subject(2), profile(1, 1, "one"))])
        .await
        .unwrap();
    eventually(|| is_reported(2)).await;
}

/// A process reads what it wrote: its own change is reported before the put returns, even where nobody had read the value.
async fn a_put_is_reported_before_it_returns(store: Arc<dyn HotStore>) {
    let observer = Arc::new(Recording::default());
    assert!(store.observe(Arc::clone(&observer) as Arc<dyn HotObserver>));
    for n in 1..=200 {
        let put = [(subject(n), profile(1, 1, "one"))];
        store.put_newer(&put).await.unwrap();
        assert!(observer.changed.lock().unwrap().contains(&subject(n)), "{n}");
    }
}

/// A store that cannot report changes says so.
async fn nothing_is_reported(store: Arc<dyn HotStore>) {
    let observer = Arc::new(Recording::default());
    assert!(!store.observe(Arc::clone(&observer) as Arc<dyn HotObserver>));
    store
        .put_newer(&[(subject(1), profile(1, 5, "five"))])
        .await
        .unwrap();
    assert!(!observer.following.load(Ordering::SeqCst));
}

async fn eventually(is_so: impl Fn() -> bool) {
    tokio::time::timeout(Duration::from_secs(20), async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
    .expect("not within 20 s");
}

async fn open(url: impl Into<String>) -> Arc<dyn HotStore> {
    hot::open(&config(url)).await.unwrap()
}

fn config(url: impl Into<String>) -> HotConfig {
    HotConfig {
        url: url.into(),
        memory_bytes: 1 << 20,
        ttl: Duration::from_secs(60),
        reports: true,
    }
}

/// As [`open`], once the store answers.
async fn open_ready(url: impl Into<String>) -> Arc<dyn HotStore> {
    let store = open(url).await;
    answers(&*store).await;
    store
}

/// Waits until the store takes reads and writes.
async fn answers(store: &dyn HotStore) {
    tokio::time::timeout(Duration::from_secs(30), async {
        while store.get(&subject(0)).await.is_err() || store.published(0).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("the store does not answer within 30 s");
}

/// The tests of what every backend promises; `$open` gives a store and what has to live as long.
macro_rules! promises {
    ($open:expr) => {
        suite! { $open,
            a_value_comes_back_as_it_was_put
            an_older_or_equal_version_never_overwrites
            another_epoch_always_replaces
            racing_writers_leave_the_newest
            a_mark_is_kept_per_partition_and_answers_with_its_predecessor
            profiles_are_published_with_their_partitions_mark
        }
    };
}

macro_rules! suite {
    ($open:expr, $($test:ident)*) => { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            let (store, _alive) = $open.await;
            super::$test(store).await;
        }
    )* };
}

mod memory {
    use super::*;

    async fn store() -> (Arc<dyn HotStore>, ()) {
        (open("memory:").await, ())
    }

    promises! { store() }
    suite! { store(),
        a_change_is_reported_to_whoever_read_the_value
        a_put_is_reported_before_it_returns
    }
}

mod redis_single {
    use super::*;
    use crate::support::redis::RedisServer;

    async fn store() -> (Arc<dyn HotStore>, RedisServer) {
        let server = RedisServer::start(&[]);
        (open_ready(server.url()).await, server)
    }

    promises! { store() }
    suite! { store(),
        a_change_is_reported_to_whoever_read_the_value
        a_put_is_reported_before_it_returns
    }
}

mod redis_tls {
    use super::*;
    use crate::support::redis::{RedisServer, tls};

    async fn store() -> (Arc<dyn HotStore>, RedisServer) {
        let arguments = tls();
        let server = RedisServer::start(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        (open_ready(server.tls_url()).await, server)
    }

    promises! { store() }
    suite! { store(),
        a_change_is_reported_to_whoever_read_the_value
        a_put_is_reported_before_it_returns
    }
}

mod redis_cluster {
    use super::*;
    use crate::support::redis::RedisCluster;

    async fn store() -> (Arc<dyn HotStore>, RedisCluster) {
        let cluster = RedisCluster::start();
        (open_ready(cluster.url()).await, cluster)
    }

    promises! { store() }
    suite! { store(), nothing_is_reported }
}

#[tokio::test]
async fn a_url_that_cannot_be_read_is_refused() {
    for url in [
        "memcached://x",
        "memory:x",
        "redis://:hunter2@",
        "redis-cluster://",
    ] {
        let error = hot::open(&config(url)).await.unwrap_err().to_string();
        assert!(
            error.contains("expected") && !error.contains("hunter2"),
            "{error}"
        );
    }
}
