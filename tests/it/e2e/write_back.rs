//! A hot store that takes requests and answers none: it is left alone, and nothing is written into it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use cartwright::deadline::Deadline;
use cartwright::domain::ids::SubjectId;
use cartwright::hot::{self, HotError, HotObserver, HotProfile, HotStore};
use cartwright::profiles::{Overlay, OverlayLimits, ProfileReader, Read, Viewer};
use cartwright::telemetry::{Metrics, ReadSource};
use cartwright::warehouse;
use serde_json::json;

use crate::support::app::{PUBLIC_KEY, TestApp};

const PATIENCE: Duration = Duration::from_secs(30);

/// A real store that can fall silent, and counts.
#[derive(Debug)]
struct Moody {
    inner: Arc<dyn HotStore>,
    is_silent: AtomicBool,
    asked: AtomicUsize,
    put: AtomicUsize,
}

#[async_trait]
impl HotStore for Moody {
    async fn get(&self, subject: &SubjectId) -> Result<Option<HotProfile>, HotError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.is_silent.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        self.inner.get(subject).await
    }

    async fn put_newer(&self, profiles: &[(SubjectId, HotProfile)]) -> Result<(), HotError> {
        self.put.fetch_add(1, Ordering::SeqCst);
        self.inner.put_newer(profiles).await
    }

    async fn published(&self, partition: u16) -> Result<Option<u64>, HotError> {
        self.inner.published(partition).await
    }

    async fn publish(
        &self,
        partition: u16,
        profiles: &[(SubjectId, HotProfile)],
        change_seq: u64,
    ) -> Result<Option<u64>, HotError> {
        self.inner.publish(partition, profiles, change_seq).await
    }

    fn observe(&self, observer: Arc<dyn HotObserver>) -> bool {
        self.inner.observe(observer)
    }
}

#[tokio::test]
async fn only_a_true_miss_is_written_back_and_a_silent_store_is_left_alone() {
    let app = TestApp::embedded().start().await;
    let event = json!({"event": "Product Viewed", "event_id": "e1", "anonymous_id": "a1",
        "properties": {"product_id": "85123A"}});
    assert_eq!(app.post("/events", PUBLIC_KEY, &event).await.status, 202);
    let stores = app.stop().await;
    let subjects = stores.column("select subject from customer_profile").await;
    let subject = SubjectId::from_stored(&subjects[0]);

    let store = Arc::new(Moody {
        inner: hot::open(&stores.hot()).await.unwrap(),
        is_silent: AtomicBool::new(true),
        asked: AtomicUsize::new(0),
        put: AtomicUsize::new(0),
    });
    let reader = ProfileReader::new(
        Arc::clone(&store) as Arc<dyn HotStore>,
        0,
        warehouse::open(&stores.warehouse()).await.unwrap(),
        Arc::new(Overlay::new(OverlayLimits::default())),
        Metrics::new().unwrap(),
    );
    let read = async || -> Read {
        let viewer = Viewer {
            anonymous: Some(&subject),
            ..Viewer::default()
        };
        reader.read(viewer, Deadline::after(PATIENCE)).await
    };
    for _ in 0..100 {
        let read = read().await;
        assert!(read.failed.hot && read.profile.is_some(), "{read:?}");
        assert_eq!(read.source, ReadSource::Warehouse);
    }
    // Each of the few that asked waited for its slice; the others did not ask.
    assert!(store.asked.load(Ordering::SeqCst) < 50, "{store:?}");
    assert_eq!(store.put.load(Ordering::SeqCst), 0, "{store:?}");

    store.is_silent.store(false, Ordering::SeqCst);
    let healed = tokio::time::timeout(PATIENCE, async {
        while read().await.source != ReadSource::Hot {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    healed.await.expect("the profile is written back, and found");
    assert!(store.put.load(Ordering::SeqCst) > 0);
}
