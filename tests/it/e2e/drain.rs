//! The fast lane between a log and a warehouse that does not always do as asked.

use std::sync::Arc;
use std::time::Duration;

use cartwright::clock;
use cartwright::domain::event::{Body, EventLimits, Source};
use cartwright::domain::ids::{Environment, PseudonymKey, Shop, SubjectId};
use cartwright::domain::profile::Snapshot;
use cartwright::drain::{BatchLimits, FastLane, Lag, LaneError, Worker};
use cartwright::hot::{self, HotStore};
use cartwright::ingest::{Ingest, News, Origin};
use cartwright::profiles::{Overlay, OverlayLimits};
use cartwright::queue::{self, Entry, EventQueue, Position, QueueConfig, ReadLimits};
use cartwright::telemetry::Metrics;
use cartwright::warehouse::{self, StoredPosition, Warehouse, WarehouseError};
use hyper::Method;
use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::api::PARTITION;
use crate::support::app::{PUBLIC_KEY, TestApp};
use crate::support::faults::{Fault, FaultyWarehouse};
use crate::support::stack::{Stack, Stores, on_both_stacks};

on_both_stacks!(
    poison_goes_to_quarantine_and_everything_around_it_counts,
    a_commit_whose_answer_is_lost_counts_once_and_shows,
    a_store_that_is_away_is_waited_for,
    a_batch_that_another_worker_took_is_not_applied_twice,
    a_stop_waits_for_the_batch_under_way,
    what_time_does_not_heal_stops_the_lane_with_its_remedy,
    without_its_lane_a_node_answers_and_takes_events
);

/// A log, a lane and its stores.
pub(super) struct Rig {
    pub(super) queue: Arc<dyn EventQueue>,
    pub(super) store: Arc<dyn Warehouse>,
    pub(super) hot: Arc<dyn HotStore>,
    ingest: Ingest,
    key: PseudonymKey,
    shop: Shop,
    metrics: Metrics,
    pub(super) stores: Stores,
}

impl Rig {
    pub(super) async fn new(stack: Stack) -> Rig {
        Rig::of_partitions(stack, 1).await
    }

    async fn of_partitions(stack: Stack, partitions: u16) -> Rig {
        let stores = Stores::new(stack).await;
        std::fs::create_dir_all(stores.path().join("data")).unwrap();
        let config = QueueConfig {
            partitions,
            ..stores.queue()
        };
        let queue = queue::open(&config).await.unwrap();
        let store = warehouse::open(&stores.warehouse()).await.unwrap();
        let metrics = Metrics::new().unwrap();
        let key = PseudonymKey::new("k1", b"secret");
        let overlay = Arc::new(Overlay::new(OverlayLimits::default()));
        Rig {
            ingest: Ingest::new(
                Arc::clone(&queue),
                key.clone(),
                None,
                EventLimits::default(),
                News::alone(overlay, metrics.clone()),
                metrics.clone(),
            ),
            hot: hot::open(&stores.hot()).await.unwrap(),
            shop: Shop::new("demo", Environment::Live).unwrap(),
            queue,
            store,
            key,
            metrics,
            stores,
        }
    }

    /// Appends a view of a product by `guest` for each id.
    pub(super) async fn view(&self, guest: &str, ids: impl IntoIterator<Item = String>) {
        let events: Vec<Value> = ids
            .into_iter()
            .map(|id| {
                json!({"event": "Product Viewed", "event_id": id, "anonymous_id": guest,
                "properties": {"product_id": "85123A"}})
            })
            .collect();
        let bytes = serde_json::to_vec(&events).unwrap();
        let body = Body::parse(&bytes, 1_000).unwrap();
        let origin = Origin {
            shop: &self.shop,
            source: Source::Server,
        };
        self.ingest.accept(&body, origin, clock::now()).await.unwrap();
    }

    pub(super) fn guest(&self, name: &str) -> SubjectId {
        self.key.anonymous(&self.shop, name)
    }

    pub(super) fn start(&self, warehouse: Arc<dyn Warehouse>) -> Lane {
        let lane = self.lane(warehouse);
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        Lane {
            stop,
            task: tokio::spawn(async move { lane.run(stopped).await }),
        }
    }

    fn lane(&self, warehouse: Arc<dyn Warehouse>) -> FastLane {
        FastLane {
            queue: Arc::clone(&self.queue),
            warehouse,
            hot: Arc::clone(&self.hot),
            ruleset: Arc::new(|| None),
            passed: Arc::new(|_, _| {}),
            metrics: self.metrics.clone(),
            lag: Lag::default(),
            partition: PARTITION,
            together: None,
            limits: BatchLimits::default(),
            dedupe_window: Duration::from_secs(30 * 86_400),
        }
    }

    /// Waits until everything in the log is in the warehouse.
    pub(super) async fn settle(&self) {
        for _ in 0..10_000 {
            let next = self.queue.extent(PARTITION).await.unwrap().next;
            let position = self.store.position(PARTITION).await.unwrap();
            if position.map_or(0, |position| position.offset) >= next {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("the lane did not catch up");
    }

    /// Events in the guest's document in the warehouse.
    pub(super) async fn events_of(&self, guest: &str) -> i64 {
        let document = self.store.document(&self.guest(guest)).await.unwrap();
        document.map_or(0, |(_, bytes)| Snapshot::read(bytes).unwrap().events())
    }

    fn metric(&self, name: &str) -> String {
        let text = self.metrics.render();
        let lines: Vec<_> = text.lines().filter(|line| line.starts_with(name)).collect();
        lines.join("\n")
    }
}

pub(super) struct Lane {
    stop: CancellationToken,
    task: JoinHandle<Result<(), LaneError>>,
}

impl Lane {
    pub(super) async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }

    /// Waits until the lane stops by itself.
    async fn error(self) -> String {
        let ended = tokio::time::timeout(Duration::from_secs(20), self.task).await;
        ended.expect("the lane to stop").unwrap().unwrap_err().to_string()
    }
}

pub(super) fn ids(range: std::ops::Range<u32>) -> impl Iterator<Item = String> {
    range.map(|n| format!("e{n}"))
}

async fn poison_goes_to_quarantine_and_everything_around_it_counts(stack: Stack) {
    let rig = Rig::new(stack).await;
    rig.view("a1", ids(0..200)).await;
    let poison = ["e0", "e77", "e78", "e199"];
    let faulty = FaultyWarehouse::new(Arc::clone(&rig.store), []).poisoned_by(&poison);
    let lane = rig.start(Arc::new(faulty));
    rig.settle().await;
    assert_eq!(rig.events_of("a1").await, 196);
    let quarantined = rig
        .stores
        .column("select event_id || ' ' || code || ' ' || detail from quarantine order by log_offset")
        .await;
    let expected = poison.map(|id| format!("{id} unstorable the batch cannot be stored: poison"));
    assert_eq!(quarantined, expected);
    // And the lane goes on.
    rig.view("a1", ids(200..203)).await;
    rig.settle().await;
    assert_eq!(rig.events_of("a1").await, 199);
    lane.stop().await;
    let counted = rig.metric("cartwright_quarantined_total");
    assert!(
        counted.contains("unstorable") && counted.ends_with(" 4"),
        "{counted}"
    );
}

async fn a_commit_whose_answer_is_lost_counts_once_and_shows(stack: Stack) {
    let rig = Rig::new(stack).await;
    rig.view("a1", ids(0..10)).await;
    let faulty = FaultyWarehouse::new(Arc::clone(&rig.store), []);
    let lane = rig.start(Arc::new(faulty));
    rig.settle().await;
    lane.stop().await;
    rig.view("a1", ids(10..15)).await;
    let faulty = Arc::new(FaultyWarehouse::new(
        Arc::clone(&rig.store),
        [Fault::FailAfterWrite],
    ));
    let lane = rig.start(Arc::clone(&faulty) as Arc<dyn Warehouse>);
    rig.settle().await;
    // Nothing else happens to this shopper, and still the hot profile is the one that was stored.
    let (version, _) = rig.store.document(&rig.guest("a1")).await.unwrap().unwrap();
    for _ in 0..1_000 {
        let hot = rig.hot.get(&rig.guest("a1")).await.unwrap();
        if hot.is_some_and(|hot| hot.version == version) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let hot = rig.hot.get(&rig.guest("a1")).await.unwrap().unwrap();
    assert_eq!(hot.version, version);
    assert_eq!((rig.events_of("a1").await, faulty.faults_left()), (15, 0));
    lane.stop().await;
}

async fn a_store_that_is_away_is_waited_for(stack: Stack) {
    let rig = Rig::new(stack).await;
    rig.view("a1", ids(0..10)).await;
    let away = Fault::Reject(WarehouseError::Unavailable("away".into()));
    let script = [
        away.clone(),
        Fault::Slow(Duration::from_millis(20)),
        away.clone(),
        away,
    ];
    let faulty = Arc::new(FaultyWarehouse::new(Arc::clone(&rig.store), script));
    let lane = rig.start(Arc::clone(&faulty) as Arc<dyn Warehouse>);
    rig.settle().await;
    for n in 10..14 {
        rig.view("a1", ids(n..n + 1)).await;
        rig.settle().await;
    }
    assert_eq!((rig.events_of("a1").await, faulty.faults_left()), (14, 0));
    lane.stop().await;
}

#[tokio::test]
async fn a_locked_file_is_waited_for_and_events_are_taken_meanwhile() {
    let rig = Rig::new(Stack::Embedded).await;
    rig.view("a1", ids(0..1)).await;
    let lane = rig.start(Arc::clone(&rig.store));
    rig.settle().await;
    let options = SqliteConnectOptions::new().filename(rig.stores.path().join("data/warehouse.db"));
    let pool = SqlitePool::connect_with(options).await.unwrap();
    let tx = pool.begin_with("begin immediate").await.unwrap();
    // A backup, a shell: the lane waits, the log does not.
    rig.view("a1", ids(1..20)).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(rig.events_of("a1").await, 1);
    tx.rollback().await.unwrap();
    rig.settle().await;
    assert_eq!(rig.events_of("a1").await, 20);
    pool.close().await;
    lane.stop().await;
}

async fn a_batch_that_another_worker_took_is_not_applied_twice(stack: Stack) {
    let rig = Rig::new(stack).await;
    rig.view("a1", ids(0..100)).await;
    // Two workers on one partition, as when one is believed dead: whoever comes second starts anew from the position.
    let until = Arc::new(tokio::sync::Notify::new());
    let held = Arc::new(FaultyWarehouse::new(
        Arc::clone(&rig.store),
        [Fault::Hold(Arc::clone(&until))],
    ));
    let zombie = rig.start(Arc::clone(&held) as Arc<dyn Warehouse>);
    held.began.notified().await;
    let lane = rig.start(Arc::clone(&rig.store));
    rig.settle().await;
    until.notify_one();
    rig.view("a1", ids(100..150)).await;
    rig.settle().await;
    assert_eq!(rig.events_of("a1").await, 150);
    zombie.stop().await;
    lane.stop().await;
    assert_eq!(
        rig.stores
            .column("select cast(count(*) as text) from fact_event")
            .await,
        ["150"]
    );
}

async fn a_stop_waits_for_the_batch_under_way(stack: Stack) {
    let rig = Rig::new(stack).await;
    rig.view("a1", ids(0..5)).await;
    let until = Arc::new(tokio::sync::Notify::new());
    let held = Arc::new(FaultyWarehouse::new(
        Arc::clone(&rig.store),
        [Fault::Hold(Arc::clone(&until))],
    ));
    let lane = rig.start(Arc::clone(&held) as Arc<dyn Warehouse>);
    held.began.notified().await;
    lane.stop.cancel();
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert!(!lane.task.is_finished());
    until.notify_one();
    lane.stop().await;
    assert_eq!(rig.events_of("a1").await, 5);
}

/// Whether all places for transactions are held, so that the rest waits for them together, or the batches of all eight lanes share
/// fewer.
fn all_wait(transactions: &[usize]) -> bool {
    transactions.len() >= 4 || transactions.iter().sum::<usize>() >= 8
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lanes_share_transactions_and_what_one_cannot_store_costs_the_others_nothing() {
    let rig = Rig::of_partitions(Stack::Networked, 8).await;
    for n in 0..40 {
        let guest = format!("a{n}");
        rig.view(&guest, (0..3).map(|event| format!("{guest}-{event}")))
            .await;
    }
    // While the first transactions are held the other lanes' batches wait, and go together.
    let gates: [_; 4] = std::array::from_fn(|_| Arc::new(tokio::sync::Notify::new()));
    let script = gates.clone().map(Fault::Hold);
    let held = FaultyWarehouse::new(Arc::clone(&rig.store), script).poisoned_by(&["a7-1", "a20-2"]);
    let held = Arc::new(held);
    let stop = CancellationToken::new();
    let worker = Worker::new(rig.lane(Arc::clone(&held) as Arc<dyn Warehouse>));
    let working = tokio::spawn(worker.run(stop.clone()));
    while !all_wait(&held.batches()) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    gates.iter().for_each(|gate| gate.notify_one());

    let counted = async |sql| rig.stores.column(sql).await.len();
    let kept = "select event_id from fact_event";
    while counted(kept).await < 118 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.cancel();
    working.await.unwrap();
    assert_eq!(counted(kept).await, 118);
    assert_eq!(counted("select event_id from quarantine").await, 2);
    assert!(
        held.batches().iter().any(|batches| *batches > 1),
        "{:?}",
        held.batches()
    );
    for n in [0, 7, 20, 39] {
        let expected = if n == 7 || n == 20 { 2 } else { 3 };
        assert_eq!(rig.events_of(&format!("a{n}")).await, expected, "a{n}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_stops_the_lane_whose_batch_it_is_and_no_other() {
    let rig = Rig::of_partitions(Stack::Networked, 8).await;
    for n in 0..40 {
        rig.view(&format!("a{n}"), ids(3 * n..3 * n + 3)).await;
    }
    // How many events stand in other partitions than that of e1.
    let mut elsewhere = 0;
    for partition in 0..8 {
        let from = Position {
            log_id: rig.queue.extent(partition).await.unwrap().log_id,
            partition,
            offset: 0,
        };
        let limits = ReadLimits {
            max_records: 1_000,
            max_bytes: 1 << 20,
            wait: Duration::ZERO,
        };
        let entries = rig.queue.read(from, limits).await.unwrap();
        let is_e1 = |entry: &Entry| entry.event.as_ref().is_ok_and(|event| &*event.event_id == "e1");
        if !entries.iter().any(is_e1) {
            elsewhere += entries.len();
        }
    }
    assert!((60..120).contains(&elsewhere), "{elsewhere}");
    let gates: [_; 4] = std::array::from_fn(|_| Arc::new(tokio::sync::Notify::new()));
    let script = gates.clone().map(Fault::Hold);
    let exploding = FaultyWarehouse::new(Arc::clone(&rig.store), script).panicking_at("e1");
    let exploding = Arc::new(exploding);
    let stop = CancellationToken::new();
    let worker = Worker::new(rig.lane(Arc::clone(&exploding) as Arc<dyn Warehouse>));
    let working = tokio::spawn(worker.run(stop.clone()));
    while !all_wait(&exploding.batches()) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    gates.iter().for_each(|gate| gate.notify_one());
    let kept = async || rig.stores.column("select event_id from fact_event").await;
    while kept().await.len() < elsewhere || !rig.metric("cartwright_lane_running").ends_with(" 0") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // The others still run.
    let before = kept().await.len();
    for n in 100..130 {
        rig.view(&format!("b{n}"), [format!("late{n}")]).await;
    }
    while kept().await.len() == before {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.cancel();
    working.await.unwrap();
    assert!(!kept().await.contains(&"e1".to_owned()));
}

async fn what_time_does_not_heal_stops_the_lane_with_its_remedy(stack: Stack) {
    // Stored data that contradict each other.
    let rig = Rig::new(stack).await;
    rig.view("a1", ids(0..5)).await;
    let script = [Fault::Reject(WarehouseError::Inconsistent("two of one".into()))];
    let lane = rig.start(Arc::new(FaultyWarehouse::new(Arc::clone(&rig.store), script)));
    let error = lane.error().await;
    assert!(error.contains("inconsistent: two of one"), "{error}");
    assert!(rig.metric("cartwright_lane_running").ends_with(" 0"));

    // A warehouse that is ahead of the log.
    let log_id = rig.queue.extent(PARTITION).await.unwrap().log_id.0;
    let ahead = warehouse::Batch {
        expected: None,
        next: StoredPosition {
            log_id,
            partition: PARTITION,
            offset: 6,
        },
        effects: &[],
        unreadable: &[],
        now: clock::now(),
        ruleset: None,
        dedupe_floor: None,
    };
    rig.store.apply(&ahead).await.unwrap();
    let error = rig.start(Arc::clone(&rig.store)).error().await;
    assert!(error.contains("does not fit the log"), "{error}");
    let remedy = match stack {
        Stack::Embedded => "put back the log's newest folder",
        Stack::Networked => "before anything is appended",
    };
    assert!(error.contains(remedy), "{error}");
}

async fn without_its_lane_a_node_answers_and_takes_events(stack: Stack) {
    let app = TestApp::on(stack).await.start().await;
    let event = |id: &str| {
        json!({"event": "Product Viewed", "event_id": id, "anonymous_id": "a1",
        "properties": {"product_id": "85123A"}})
    };
    assert_eq!(app.post("/events", PUBLIC_KEY, &event("e1")).await.status, 202);
    let folder = app.stop().await;
    // The log is lost, the warehouse is not.
    folder.lose_log();
    let app = TestApp::with(folder).start().await;
    let mut running = String::new();
    for _ in 0..1_000 {
        let metrics = app.operator(Method::GET, "/metrics", "").await;
        let text = String::from_utf8(metrics.body.to_vec()).unwrap();
        let line = text
            .lines()
            .find(|line| line.starts_with("cartwright_lane_running"));
        running = line.unwrap_or_default().to_owned();
        if running.ends_with(" 0") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(running.ends_with(" 0"), "{running}");
    assert_eq!(app.operator(Method::GET, "/health/ready", "").await.status, 200);
    assert_eq!(app.post("/events", PUBLIC_KEY, &event("e2")).await.status, 202);
    let answer = app.get("/personalize?anonymous_id=a1", PUBLIC_KEY).await;
    assert_eq!(
        (answer.status, &answer.json()["profile"]["known"]),
        (200, &json!(true))
    );
    app.stop_behind().await;
}
