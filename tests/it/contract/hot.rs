//! The hot store's promises.

use std::sync::Arc;

use bytes::Bytes;
use cartwright::domain::ids::SubjectId;
use cartwright::domain::profile::Version;
use cartwright::hot::{self, HotConfig, HotProfile, HotStore};

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
