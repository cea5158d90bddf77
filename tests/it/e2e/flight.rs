//! Requests that miss near: which of them share a read of the stores, and which must not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use cartwright::deadline::Deadline;
use cartwright::domain::ids::SubjectId;
use cartwright::domain::profile::{Document, Version};
use cartwright::hot::{self, HotError, HotObserver, HotProfile, HotStore};
use cartwright::profiles::{Overlay, OverlayLimits, ProfileReader, Read, Viewer};
use cartwright::telemetry::{Metrics, ReadSource};
use cartwright::warehouse;
use futures_util::future::join_all;
use tokio::runtime::Handle;

use crate::support::faults::FaultyWarehouse;
use crate::support::gates::Gate;
use crate::support::stack::{Stack, Stores};

const PATIENCE: Duration = Duration::from_secs(30);

fn subject(n: usize) -> SubjectId {
    SubjectId::from_stored(&format!("a:k.{n}"))
}

fn profile(subject: &SubjectId, n: u64) -> [(SubjectId, HotProfile); 1] {
    let version = Version { epoch: 1, n };
    let document = Document {
        version,
        ..Document::default()
    };
    let bytes = document.encode().into();
    [(subject.clone(), HotProfile { version, bytes })]
}

/// A real store that can hold what it found, once, or take its time; and counts.
#[derive(Debug)]
struct Held {
    inner: Arc<dyn HotStore>,
    holds_next: AtomicBool,
    found: Gate,
    takes: Duration,
    asked: AtomicUsize,
}

impl Held {
    fn new(inner: Arc<dyn HotStore>) -> Held {
        Held {
            inner,
            holds_next: AtomicBool::new(false),
            found: Gate::default(),
            takes: Duration::ZERO,
            asked: AtomicUsize::new(0),
        }
    }
}

#[async_trait]
impl HotStore for Held {
    async fn get(&self, subject: &SubjectId) -> Result<Option<HotProfile>, HotError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.holds_next.swap(false, Ordering::SeqCst) {
            // At one stroke, or the reader would give up: a look may take some milliseconds and no more.
            return tokio::task::block_in_place(|| {
                Handle::current().block_on(async {
                    let found = self.inner.get(subject).await;
                    self.found.pass().await;
                    found
                })
            });
        }
        if !self.takes.is_zero() {
            tokio::time::sleep(self.takes).await;
        }
        self.inner.get(subject).await
    }

    async fn put_newer(&self, profiles: &[(SubjectId, HotProfile)]) -> Result<(), HotError> {
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

struct Node {
    reader: ProfileReader,
    overlay: Arc<Overlay>,
}

impl Node {
    async fn new(stores: &Stores, hot: Arc<dyn HotStore>, near_bytes: u64) -> Node {
        let warehouse = warehouse::open(&stores.warehouse()).await.unwrap();
        let overlay = Arc::new(Overlay::new(OverlayLimits::default()));
        let metrics = Metrics::new().unwrap();
        Node {
            reader: ProfileReader::new(hot, near_bytes, warehouse, Arc::clone(&overlay), metrics),
            overlay,
        }
    }

    async fn read(&self, subject: &SubjectId, budget: Duration) -> Read {
        let viewer = Viewer {
            anonymous: Some(subject),
            ..Viewer::default()
        };
        self.reader.read(viewer, Deadline::after(budget)).await
    }
}

fn version(read: &Read) -> Option<u64> {
    read.profile.as_ref().map(|profile| profile.version().n)
}

#[tokio::test]
async fn requests_that_miss_one_profile_together_cost_one_get() {
    let stores = Stores::new(Stack::Networked).await;
    for (n, near_bytes) in [(1, 0), (2, 1 << 20)] {
        let who = subject(n);
        let store = hot::open(&stores.hot()).await.unwrap();
        store.put_newer(&profile(&who, 7)).await.unwrap();
        let node = Node::new(&stores, store, near_bytes).await;
        let _: String = stores.redis().command(&["config", "resetstat"]);
        // All of them ask before the first of them can have an answer: this thread reads it.
        let reads = join_all((0..64).map(|_| node.read(&who, PATIENCE))).await;
        assert!(reads.iter().all(|read| version(read) == Some(7)), "{reads:?}");
        let stats: String = stores.redis().command(&["info", "commandstats"]);
        assert!(stats.contains("cmdstat_get:calls=1,"), "{stats}");
        let source = node.read(&who, PATIENCE).await.source;
        let expected = if near_bytes == 0 {
            ReadSource::Hot
        } else {
            ReadSource::Near
        };
        assert_eq!(source, expected);
    }
}

/// What the store reports as changed, or what a lane has passed, since another request began to read.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_reads_after_a_change_does_not_join_a_read_of_before() {
    let stores = Stores::new(Stack::Networked).await;
    for (n, near_bytes) in [(1, 0), (2, 1 << 20)] {
        let who = subject(n);
        let store = Arc::new(Held::new(hot::open(&stores.hot()).await.unwrap()));
        store.put_newer(&profile(&who, 1)).await.unwrap();
        let node = Arc::new(Node::new(&stores, Arc::clone(&store) as Arc<dyn HotStore>, near_bytes).await);
        store.found.shut();
        store.holds_next.store(true, Ordering::SeqCst);
        let spawn = || {
            let (node, who) = (Arc::clone(&node), who.clone());
            tokio::spawn(async move { version(&node.read(&who, PATIENCE).await) })
        };
        let early = spawn();
        store.found.is_reached().await;
        // Nothing has changed yet, so this one waits for what the other finds.
        let joined = spawn();
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(store.asked.load(Ordering::SeqCst), 1);

        store.put_newer(&profile(&who, 2)).await.unwrap();
        if near_bytes == 0 {
            // Nobody reports: the lane says that it has passed what it published.
            node.overlay.lane_passed(0, 1);
        }
        assert_eq!(version(&node.read(&who, PATIENCE).await), Some(2));
        assert_eq!(store.asked.load(Ordering::SeqCst), 2);
        store.found.open();
        assert_eq!([early.await.unwrap(), joined.await.unwrap()], [Some(1); 2]);
        // And what the early one found is not kept.
        assert_eq!(version(&node.read(&who, PATIENCE).await), Some(2));
    }
}

#[tokio::test]
async fn a_read_outlives_a_request_in_a_hurry() {
    let stores = Stores::embedded();
    let who = subject(1);
    let store = Arc::new(Held {
        takes: Duration::from_millis(10),
        ..Held::new(hot::open(&stores.hot()).await.unwrap())
    });
    store.put_newer(&profile(&who, 7)).await.unwrap();
    let node = Node::new(&stores, Arc::clone(&store) as Arc<dyn HotStore>, 1 << 20).await;
    tokio::time::pause();
    let hurried = node.read(&who, Duration::from_millis(7)).await;
    assert!(hurried.failed.hot && hurried.incomplete, "{hurried:?}");
    let patient = node.read(&who, PATIENCE).await;
    assert_eq!((version(&patient), patient.source), (Some(7), ReadSource::Hot));
    assert_eq!(node.read(&who, PATIENCE).await.source, ReadSource::Near);
    // The hurried one's own, and the one that went on without it.
    assert_eq!(store.asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn requests_that_miss_different_profiles_together_share_rounds_to_the_warehouse() {
    let stores = Stores::embedded();
    let faulty = FaultyWarehouse::new(warehouse::open(&stores.warehouse()).await.unwrap(), []);
    let faulty = Arc::new(faulty);
    let reader = ProfileReader::new(
        hot::open(&stores.hot()).await.unwrap(),
        0,
        Arc::clone(&faulty) as Arc<dyn warehouse::Warehouse>,
        Arc::new(Overlay::new(OverlayLimits::default())),
        Metrics::new().unwrap(),
    );
    let shoppers: Vec<SubjectId> = (0..64).map(subject).collect();
    let reads = shoppers.iter().map(|who| {
        let viewer = Viewer {
            anonymous: Some(who),
            ..Viewer::default()
        };
        reader.read(viewer, Deadline::after(PATIENCE))
    });
    let reads = join_all(reads).await;
    assert!(
        reads
            .iter()
            .all(|read| !read.incomplete && read.profile.is_none())
    );
    let rounds = faulty.rounds();
    assert_eq!(rounds.iter().sum::<usize>(), 64);
    assert!(rounds.len() <= 4, "{rounds:?}");
}
