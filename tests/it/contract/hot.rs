//! The hot store's promises.

use std::sync::atomic::{AtomicBool, Ordering};
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
    assert_eq!(store.mark_published(0, 5).await.unwrap(), None);
    assert_eq!(store.mark_published(0, 9).await.unwrap(), Some(5));
    assert_eq!(store.published(0).await.unwrap(), Some(9));
    assert_eq!(store.published(1).await.unwrap(), None);
    // A restored warehouse counts from where its backup was.
    assert_eq!(store.mark_published(0, 3).await.unwrap(), Some(9));
    assert_eq!(store.published(0).await.unwrap(), Some(3));
}

#[derive(Debug, Default)]
struct Recording {
    following: AtomicBool,
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

async fn eventually(is_so: impl Fn() -> bool) {
    tokio::time::timeout(Duration::from_secs(20), async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
    .expect("not within 20 s");
}

macro_rules! suite {
    ($open:expr, $($test:ident)*) => { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            super::$test($open.await).await;
        }
    )* };
}

mod memory {
    use super::*;

    async fn open() -> Arc<dyn HotStore> {
        hot::open(&HotConfig {
            url: "memory:".into(),
            memory_bytes: 1 << 20,
        })
        .await
        .unwrap()
    }

    suite! { open(),
        a_value_comes_back_as_it_was_put
        an_older_or_equal_version_never_overwrites
        another_epoch_always_replaces
        racing_writers_leave_the_newest
        a_mark_is_kept_per_partition_and_answers_with_its_predecessor
        a_change_is_reported_to_whoever_read_the_value
    }
}

#[tokio::test]
async fn an_unknown_scheme_is_refused() {
    assert!(
        hot::open(&HotConfig {
            url: "memcached://x".into(),
            memory_bytes: 1
        })
        .await
        .is_err()
    );
}
