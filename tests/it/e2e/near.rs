//! What a node keeps of a shared hot store in its own memory, and that none of it stays stale.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use cartwright::deadline::Deadline;
use cartwright::domain::ids::SubjectId;
use cartwright::domain::profile::{Document, Version};
use cartwright::hot::{self, HotProfile, HotStore};
use cartwright::profiles::{Overlay, OverlayLimits, ProfileReader, Viewer};
use cartwright::telemetry::{Metrics, ReadSource};
use cartwright::warehouse;
use serde_json::{Value, json};

use crate::support::app::{PUBLIC_KEY, TestApp};
use crate::support::rounds;
use crate::support::stack::{Stack, Stores};

const PATIENCE: Duration = Duration::from_secs(30);

fn subject() -> SubjectId {
    SubjectId::from_stored("a:k.1")
}

fn profile(version: Version) -> [(SubjectId, HotProfile); 1] {
    let document = Document {
        version,
        ..Document::default()
    };
    let bytes = document.encode().into();
    [(subject(), HotProfile { version, bytes })]
}

struct Node {
    reader: Arc<ProfileReader>,
    metrics: Metrics,
}

impl Node {
    async fn new(stores: &Stores, near_bytes: u64) -> Node {
        let metrics = Metrics::new().unwrap();
        let reader = ProfileReader::new(
            hot::open(&stores.hot()).await.unwrap(),
            near_bytes,
            warehouse::open(&stores.warehouse()).await.unwrap(),
            Arc::new(Overlay::new(OverlayLimits::default())),
            metrics.clone(),
        );
        Node {
            reader: Arc::new(reader),
            metrics,
        }
    }

    /// The version read, and from where.
    async fn read(&self) -> (Option<u64>, ReadSource) {
        let subject = subject();
        let viewer = Viewer {
            anonymous: Some(&subject),
            ..Viewer::default()
        };
        let read = self.reader.read(viewer, Deadline::after(PATIENCE)).await;
        (read.profile.map(|profile| profile.version().n), read.source)
    }

    /// Waits until `n` is read, from the near cache.
    async fn keeps(&self, n: u64) {
        let kept = tokio::time::timeout(PATIENCE, async {
            while self.read().await != (Some(n), ReadSource::Near) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        let in_time = kept.await.is_ok();
        assert!(in_time, "{n} is not read: {:?}", self.read().await);
    }
}

/// One key under many readers and writers, while the tracking connection is killed again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hammered_key_never_ends_stale() {
    let stores = Stores::new(Stack::Networked).await;
    let writer: Arc<dyn HotStore> = hot::open(&stores.hot()).await.unwrap();
    let node = Arc::new(Node::new(&stores, 1 << 20).await);
    let next = Arc::new(AtomicU64::new(1));
    for round in 0..rounds(20) {
        let is_over = Arc::new(AtomicBool::new(false));
        let readers: Vec<_> = (0..4)
            .map(|_| {
                let (node, is_over) = (Arc::clone(&node), Arc::clone(&is_over));
                tokio::spawn(async move {
                    while !is_over.load(Ordering::SeqCst) {
                        node.read().await;
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        let writers: Vec<_> = (0..2)
            .map(|_| {
                let (writer, next) = (Arc::clone(&writer), Arc::clone(&next));
                tokio::spawn(async move {
                    for _ in 0..50 {
                        let n = next.fetch_add(1, Ordering::SeqCst);
                        // Its own connection is killed as well; the value is then put by a later one.
                        let _ = writer.put_newer(&profile(Version { epoch: 1, n })).await;
                    }
                })
            })
            .collect();
        if round % 4 == 3 {
            let _: i64 = stores.redis().command(&["client", "kill", "type", "normal"]);
        }
        for writer in writers {
            writer.await.unwrap();
        }
        let last = next.fetch_add(1, Ordering::SeqCst);
        let put = tokio::time::timeout(PATIENCE, async {
            while writer
                .put_newer(&profile(Version { epoch: 1, n: last }))
                .await
                .is_err()
            {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        put.await.expect("the writer connects again");
        is_over.store(true, Ordering::SeqCst);
        for reader in readers {
            reader.await.unwrap();
        }
        node.keeps(last).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_of_another_life_of_the_warehouse_is_a_miss() {
    let stores = Stores::new(Stack::Networked).await;
    let node = Node::new(&stores, 1 << 20).await;
    let store = hot::open(&stores.hot()).await.unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    store
        .put_newer(&profile(Version { epoch: 1, n: 7 }))
        .await
        .unwrap();
    // Nobody has told this node of an epoch yet.
    node.keeps(7).await;
    let running = {
        let (reader, stop) = (Arc::clone(&node.reader), stop.clone());
        tokio::spawn(async move { reader.run(stop).await })
    };
    let forgotten = tokio::time::timeout(PATIENCE, async {
        while node.read().await.0.is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    forgotten.await.expect("the old life's profile is not believed");
    let text = stores
        .column("select value from warehouse_meta where key = 'epoch'")
        .await;
    let epoch = text[0].parse().unwrap();
    store.put_newer(&profile(Version { epoch, n: 1 })).await.unwrap();
    node.keeps(1).await;
    stop.cancel();
    running.await.unwrap();
    assert!(node.metrics.render().contains("cartwright_near_size_bytes"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_this_build_cannot_read_is_read_past() {
    let stores = Stores::new(Stack::Networked).await;
    let node = Node::new(&stores, 1 << 20).await;
    let store = hot::open(&stores.hot()).await.unwrap();
    let [(subject, good)] = profile(Version { epoch: 1, n: 1 });
    let bad = HotProfile {
        bytes: bytes::Bytes::from_static(b"\xff of another build"),
        ..good
    };
    store.put_newer(&[(subject, bad)]).await.unwrap();
    for _ in 0..3 {
        assert_eq!(node.read().await, (None, ReadSource::None));
    }
    store
        .put_newer(&profile(Version { epoch: 1, n: 2 }))
        .await
        .unwrap();
    node.keeps(2).await;
}

const RULESET: &str = r#"
version: 1
currency: GBP
placements:
  promo: {kind: content, fallback: {headline: none}}
segments:
  odd: {when: "profile.cart.count % 2 == 1"}
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_says_that_its_profile_was_near_and_never_shows_an_old_one() {
    let app = TestApp::on(Stack::Networked).await.ruleset(RULESET).start().await;
    let ask = async || app.get("/personalize?anonymous_id=a1", PUBLIC_KEY).await.json();
    for n in 1..=10 {
        let event = json!({"event": "Product Added", "event_id": format!("e{n}"), "anonymous_id": "a1",
            "properties": {"product_id": format!("p{n}"), "quantity": 1, "price": 1.0, "currency": "GBP"}});
        assert_eq!(app.post("/events", PUBLIC_KEY, &event).await.status, 202);
        let segments = match n % 2 {
            1 => json!(["odd"]),
            _ => json!([]),
        };
        // Before the lane, after it, and until it is near.
        assert_eq!(ask().await["profile"]["segments"], segments);
        app.settle().await;
        let mut last = Value::Null;
        let near = tokio::time::timeout(PATIENCE, async {
            while last["profile"]["source"] != "near" {
                last = ask().await;
                assert_eq!(last["profile"]["segments"], segments, "{last}");
            }
        });
        assert!(near.await.is_ok(), "{last}");
    }
    app.stop().await;
}
