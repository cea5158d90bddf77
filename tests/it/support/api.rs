//! The API over real sockets and the embedded stores, with a switch for each thing that can break.
//!
//! Put together from the public parts, so that a test can stand between any two of them; the whole product under
//! its own composition is another matter.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cartwright::decisions::Decisions;
use cartwright::domain::consent::Choice;
use cartwright::domain::event::{Event, EventLimits};
use cartwright::domain::experiment::Outcomes;
use cartwright::domain::ids::{Environment, PseudonymKey, Shop, SubjectId, Timestamp};
use cartwright::domain::product::CatalogueItem;
use cartwright::domain::profile::Version;
use cartwright::domain::recommend::Purchases;
use cartwright::domain::recommend::sessions::Interaction;
use cartwright::domain::user_token::UserTokenKey;
use cartwright::drain::{BatchLimits, FastLane, Lag};
use cartwright::experiments::Experiments;
use cartwright::hot::{HotError, HotObserver, HotProfile, HotStore};
use cartwright::http::{Settings, State, StateParts, operator_router, public_service};
use cartwright::ingest::{Ingest, News};
use cartwright::keys::{ApiKey, KeyKind, KeyRing};
use cartwright::listener::{Limits, Listener};
use cartwright::operations::Operations;
use cartwright::population::Populations;
use cartwright::profiles::{Overlay, OverlayLimits, ProfileReader};
use cartwright::queue::{
    AppendError, Entry, EventQueue, Extent, Leases, Position, ReadError, ReadLimits, Records,
};
use cartwright::recorder::recorder;
use cartwright::rulesets::Rulesets;
use cartwright::telemetry::Metrics;
use cartwright::warehouse::{
    Applied, Batch, Changes, OutcomeQuery, Progress, StoredDecision, StoredRuleset, Warehouse, WarehouseError,
};
use cartwright::{clock, hot, queue, warehouse};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::stack::{Stack, Stores};

/// The only partition of the logs of [`Stores::queue`].
pub(crate) const PARTITION: u16 = 0;

pub(crate) const PUBLIC: &str = "pk_live_test";
pub(crate) const SERVER: &str = "sk_live_test";
/// The server key of another shop.
pub(crate) const OTHER: &str = "sk_other_test";

pub(crate) const RULESET: &str = r#"
version: 1
currency: GBP
placements:
  payment_methods: {kind: ranking, by: payment_method, candidates: [card, paypal, klarna]}
  promo: {kind: content, fallback: {headline: none}}
  banner: {kind: content, fallback: {headline: plain}}
  upsell: {kind: recommendation, limit: 2, fallback: ["85123A", "22423"]}
segments:
  buyer: {when: profile.orders > 0}
  filler: {when: profile.cart.count > 0}
experiences:
  - id: nudge
    placement: promo
    when: request.cart.count > 0
    variants:
      - {id: a, weight: 1, payload: {headline: a}}
      - {id: b, weight: 1, payload: {headline: b}}
  - id: welcome
    placement: banner
    cap: {per: session, count: 2}
    payload: {headline: welcome}
"#;

/// How a store behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Works = 0,
    Fails = 1,
    Hangs = 2,
}

#[derive(Debug, Default)]
pub(crate) struct Switch {
    mode: AtomicU8,
    pub(crate) calls: AtomicUsize,
}

impl Switch {
    pub(crate) fn set(&self, mode: Mode) {
        self.mode.store(mode as u8, Ordering::SeqCst);
    }

    /// Counts a call; `true` where it is to fail. Never returns while the store hangs.
    async fn pass(&self) -> bool {
        self.calls.fetch_add(1, Ordering::SeqCst);
        while self.mode.load(Ordering::SeqCst) == Mode::Hangs as u8 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.mode.load(Ordering::SeqCst) == Mode::Fails as u8
    }
}

#[derive(Debug)]
struct SwitchedHot(Arc<dyn HotStore>, Arc<Switch>);

#[async_trait]
impl HotStore for SwitchedHot {
    async fn get(&self, subject: &SubjectId) -> Result<Option<HotProfile>, HotError> {
        if self.1.pass().await {
            return Err(HotError::Unavailable("switched off".into()));
        }
        self.0.get(subject).await
    }

    async fn put_newer(&self, profiles: &[(SubjectId, HotProfile)]) -> Result<(), HotError> {
        self.0.put_newer(profiles).await
    }

    async fn published(&self, partition: u16) -> Result<Option<u64>, HotError> {
        self.0.published(partition).await
    }

    async fn publish(
        &self,
        partition: u16,
        profiles: &[(SubjectId, HotProfile)],
        change_seq: u64,
    ) -> Result<Option<u64>, HotError> {
        self.0.publish(partition, profiles, change_seq).await
    }

    fn observe(&self, observer: Arc<dyn HotObserver>) -> bool {
        self.0.observe(observer)
    }
}

/// Switches reads of documents; the lane goes on.
#[derive(Debug)]
struct SwitchedWarehouse(Arc<dyn Warehouse>, Arc<Switch>);

#[async_trait]
impl Warehouse for SwitchedWarehouse {
    async fn progress(&self) -> Result<Vec<Progress>, WarehouseError> {
        self.0.progress().await
    }

    async fn apply_together(&self, batches: &[Batch<'_>]) -> Result<Vec<Applied>, WarehouseError> {
        self.0.apply_together(batches).await
    }

    async fn documents(
        &self,
        subjects: &[SubjectId],
    ) -> Result<Vec<(SubjectId, Version, Bytes)>, WarehouseError> {
        if self.1.pass().await {
            return Err(WarehouseError::Unavailable("switched off".into()));
        }
        self.0.documents(subjects).await
    }

    async fn epoch(&self) -> Result<Option<u64>, WarehouseError> {
        self.0.epoch().await
    }

    async fn changes(&self, partition: u16, after: u64, limit: u32) -> Result<Changes, WarehouseError> {
        self.0.changes(partition, after, limit).await
    }

    async fn newest_ruleset(&self, known: Option<u64>) -> Result<Option<StoredRuleset>, WarehouseError> {
        self.0.newest_ruleset(known).await
    }

    async fn store_ruleset(&self, source: &str, now: Timestamp) -> Result<StoredRuleset, WarehouseError> {
        self.0.store_ruleset(source, now).await
    }

    async fn ruleset(&self, version: u64) -> Result<Option<StoredRuleset>, WarehouseError> {
        self.0.ruleset(version).await
    }

    async fn rulesets(&self, limit: u32) -> Result<Vec<StoredRuleset>, WarehouseError> {
        self.0.rulesets(limit).await
    }

    async fn paused(&self) -> Result<Vec<String>, WarehouseError> {
        self.0.paused().await
    }

    async fn set_paused(&self, experience: &str, paused: bool, now: Timestamp) -> Result<(), WarehouseError> {
        self.0.set_paused(experience, paused, now).await
    }

    async fn decided_since(
        &self,
        shop: &Shop,
        since: Timestamp,
        limit: u32,
    ) -> Result<Vec<(Timestamp, String)>, WarehouseError> {
        self.0.decided_since(shop, since, limit).await
    }

    async fn decision(
        &self,
        shop: &Shop,
        decision_id: &str,
    ) -> Result<Option<StoredDecision>, WarehouseError> {
        self.0.decision(shop, decision_id).await
    }

    async fn purchases(&self, shop: &Shop, max_lines: usize) -> Result<Purchases, WarehouseError> {
        self.0.purchases(shop, max_lines).await
    }

    async fn interactions(&self, shop: &Shop, max_events: usize) -> Result<Vec<Interaction>, WarehouseError> {
        self.0.interactions(shop, max_events).await
    }

    async fn catalogue(&self, shop: &Shop, max_items: usize) -> Result<Vec<CatalogueItem>, WarehouseError> {
        self.0.catalogue(shop, max_items).await
    }

    async fn outcomes(&self, query: &OutcomeQuery<'_>) -> Result<Outcomes, WarehouseError> {
        self.0.outcomes(query).await
    }

    async fn key_check_value(&self, own: &str) -> Result<String, WarehouseError> {
        self.0.key_check_value(own).await
    }

    async fn close(&self) {
        self.0.close().await;
    }
}

/// Switches appends: a failing one says that the log is full.
#[derive(Debug)]
struct SwitchedQueue(Arc<dyn EventQueue>, Arc<Switch>);

#[async_trait]
impl EventQueue for SwitchedQueue {
    fn partitions(&self) -> u16 {
        self.0.partitions()
    }

    fn leases(self: Arc<Self>) -> Arc<dyn Leases> {
        Arc::clone(&self.0).leases()
    }

    fn append_bytes(&self) -> usize {
        self.0.append_bytes()
    }

    async fn append_records(&self, partition: u16, records: &Arc<Records>) -> Result<u64, AppendError> {
        if self.1.pass().await {
            return Err(AppendError::Full {
                size_bytes: 2,
                limit_bytes: 1,
            });
        }
        self.0.append_records(partition, records).await
    }

    async fn read(&self, from: Position, limits: ReadLimits) -> Result<Vec<Entry>, ReadError> {
        self.0.read(from, limits).await
    }

    async fn trim(&self, below: Position) -> Result<(), ReadError> {
        self.0.trim(below).await
    }

    async fn extent(&self, partition: u16) -> Result<Extent, ReadError> {
        self.0.extent(partition).await
    }

    async fn close(&self) {
        self.0.close().await;
    }
}

/// A running API.
pub(crate) struct Api {
    pub(crate) public: SocketAddr,
    pub(crate) operator: SocketAddr,
    pub(crate) shop: Shop,
    pub(crate) tokens: UserTokenKey,
    pub(crate) hot: Arc<Switch>,
    pub(crate) warehouse: Arc<Switch>,
    pub(crate) log: Arc<Switch>,
    pub(crate) queue: Arc<dyn EventQueue>,
    pub(crate) store: Arc<dyn Warehouse>,
    /// Makes the node unready, as the first step of a stop.
    pub(crate) stopping: CancellationToken,
    closing: CancellationToken,
    lane: CancellationToken,
    lane_task: Option<JoinHandle<()>>,
    fast_lane: Arc<FastLane>,
    /// How far the lane is: applied, and put into the hot store.
    published: Arc<AtomicU64>,
    servers: Vec<JoinHandle<bool>>,
    worker: JoinHandle<()>,
    worker_stop: CancellationToken,
    stores: Stores,
}

/// What a test wants to be different.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) stack: Stack,
    pub(crate) settings: Settings,
    pub(crate) ruleset: Option<&'static str>,
}

impl Options {
    pub(crate) fn on(stack: Stack) -> Self {
        let settings = Settings {
            budget: Duration::from_secs(2),
            consent_default: Choice::Granted,
            record_share: 0.0,
            body_bytes: 256 << 10,
            inflated_bytes: 512 << 10,
            in_flight: 64,
            allowed_origins: vec!["https://shop.example".to_owned()],
        };
        Options {
            stack,
            settings,
            ruleset: Some(RULESET),
        }
    }
}

impl Api {
    pub(crate) async fn start(stack: Stack) -> Api {
        Api::start_with(Options::on(stack)).await
    }

    pub(crate) async fn start_with(options: Options) -> Api {
        let stores = Stores::new(options.stack).await;
        std::fs::create_dir_all(stores.path().join("data")).unwrap();
        let queue = queue::open(&stores.queue()).await.unwrap();
        let store = warehouse::open(&stores.warehouse()).await.unwrap();
        let memory = hot::open(&stores.hot()).await.unwrap();

        let switches: [Arc<Switch>; 3] = Default::default();
        let [hot_switch, warehouse_switch, log_switch] = switches;
        let hot: Arc<dyn HotStore> = Arc::new(SwitchedHot(memory, Arc::clone(&hot_switch)));
        let warehouse: Arc<dyn Warehouse> = Arc::new(SwitchedWarehouse(
            Arc::clone(&store),
            Arc::clone(&warehouse_switch),
        ));
        let log: Arc<dyn EventQueue> = Arc::new(SwitchedQueue(Arc::clone(&queue), Arc::clone(&log_switch)));

        let metrics = Metrics::new().unwrap();
        let rulesets = Arc::new(Rulesets::open(
            Arc::clone(&warehouse),
            stores.path().join("ruleset.yaml"),
        ));
        if let Some(source) = options.ruleset {
            warehouse.store_ruleset(source, clock::now()).await.unwrap();
            rulesets.refresh().await.unwrap();
        }
        let shop = Shop::new("demo", Environment::Live).unwrap();
        let other = Shop::new("other", Environment::Live).unwrap();
        let keys = KeyRing::new([
            (
                PUBLIC,
                ApiKey {
                    kind: KeyKind::Public,
                    shop: shop.clone(),
                },
            ),
            (
                SERVER,
                ApiKey {
                    kind: KeyKind::Server,
                    shop: shop.clone(),
                },
            ),
            (
                OTHER,
                ApiKey {
                    kind: KeyKind::Server,
                    shop: other,
                },
            ),
        ]);
        let pseudonym_key = PseudonymKey::new("k1", b"pseudonym secret");
        let tokens = UserTokenKey::new("t1", b"token secret");
        let overlay = Arc::new(Overlay::new(OverlayLimits::default()));
        let news = News::alone(Arc::clone(&overlay), metrics.clone());
        let ingest = Arc::new(Ingest::new(
            Arc::clone(&log),
            pseudonym_key.clone(),
            Some(tokens.clone()),
            EventLimits::default(),
            Arc::clone(&news),
            metrics.clone(),
        ));
        let (records, worker) = recorder(Arc::clone(&log), news, metrics.clone());
        let worker_stop = CancellationToken::new();
        let worker = tokio::spawn(worker.run(worker_stop.clone()));
        let stopping = CancellationToken::new();
        let passed = Arc::clone(&overlay);
        let published = Arc::new(AtomicU64::new(0));
        let state = State::from(StateParts {
            settings: options.settings,
            keys,
            pseudonym_key,
            user_token_key: Some(tokens.clone()),
            profiles: Arc::new(ProfileReader::new(
                Arc::clone(&hot),
                0,
                Arc::clone(&warehouse),
                overlay,
                metrics.clone(),
            )),
            rulesets: Arc::clone(&rulesets),
            populations: Arc::new(Populations::new(
                Arc::clone(&warehouse),
                Arc::clone(&rulesets),
                shop.clone(),
            )),
            ingest,
            recorder: records,
            operations: Operations::new(
                Arc::clone(&log),
                Arc::clone(&warehouse),
                Arc::clone(&rulesets),
                shop.clone(),
            ),
            decisions: Decisions::new(Arc::clone(&warehouse)),
            experiments: Experiments::new(Arc::clone(&warehouse), Arc::clone(&rulesets)),
            metrics: metrics.clone(),
            stopping: stopping.clone(),
        });
        let limits = Limits {
            connections: 128,
            grace: Duration::from_secs(5),
        };
        let closing = CancellationToken::new();
        let public = Listener::bind("127.0.0.1:0").await.unwrap();
        let operator = Listener::bind("127.0.0.1:0").await.unwrap();
        let addresses = [public.addr(), operator.addr()];
        let servers = vec![
            tokio::spawn(public.serve(public_service(state.clone()), limits, closing.clone())),
            tokio::spawn(operator.serve(operator_router(state), limits, closing.clone())),
        ];
        let fast_lane = Arc::new(FastLane {
            queue: log,
            warehouse,
            hot,
            ruleset: Arc::new(move || rulesets.current()),
            passed: {
                let published = Arc::clone(&published);
                Arc::new(move |partition, next| {
                    passed.lane_passed(partition, next);
                    published.store(next, Ordering::SeqCst);
                })
            },
            metrics,
            lag: Lag::default(),
            partition: PARTITION,
            together: None,
            limits: BatchLimits::default(),
            dedupe_window: Duration::from_secs(30 * 86_400),
        });
        let mut api = Api {
            public: addresses[0],
            operator: addresses[1],
            shop,
            tokens,
            hot: hot_switch,
            warehouse: warehouse_switch,
            log: log_switch,
            queue,
            store,
            stopping,
            closing,
            lane: CancellationToken::new(),
            lane_task: None,
            fast_lane,
            published,
            servers,
            worker,
            worker_stop,
            stores,
        };
        api.resume_lane();
        api
    }

    pub(crate) fn resume_lane(&mut self) {
        self.lane = CancellationToken::new();
        let (lane, stop) = (Arc::clone(&self.fast_lane), self.lane.clone());
        self.lane_task = Some(tokio::spawn(async move { lane.run(stop).await.unwrap() }));
    }

    /// Stops the lane, so that only this node's own memory knows of later events.
    pub(crate) async fn pause_lane(&mut self) {
        self.lane.cancel();
        if let Some(task) = self.lane_task.take() {
            task.await.unwrap();
        }
    }

    /// Waits until every durable event is in the warehouse and the hot store.
    pub(crate) async fn settle(&self) {
        for _ in 0..2_000 {
            let next = self.queue.extent(PARTITION).await.unwrap().next;
            if self.published.load(Ordering::SeqCst) >= next {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("the lane did not catch up");
    }

    /// Every event in the log.
    pub(crate) async fn logged(&self) -> Vec<Event> {
        let extent = self.queue.extent(PARTITION).await.unwrap();
        let from = Position {
            log_id: extent.log_id,
            partition: PARTITION,
            offset: extent.first,
        };
        let limits = ReadLimits {
            max_records: 10_000,
            max_bytes: 64 << 20,
            wait: Duration::ZERO,
        };
        self.queue
            .read(from, limits)
            .await
            .unwrap()
            .into_iter()
            .map(|entry| entry.event.unwrap())
            .collect()
    }

    /// In order; the stores go with what is returned.
    pub(crate) async fn stop(mut self) -> Stores {
        self.stopping.cancel();
        self.closing.cancel();
        for server in self.servers.drain(..) {
            assert!(server.await.unwrap());
        }
        self.worker_stop.cancel();
        (&mut self.worker).await.unwrap();
        self.pause_lane().await;
        self.store.close().await;
        self.stores
    }

    pub(crate) async fn get(&self, path: &str, key: &str) -> Reply {
        self.send("GET", path, &[("Authorization", &format!("Bearer {key}"))], b"")
            .await
    }

    pub(crate) async fn personalize(&self, query: &str, key: &str) -> Reply {
        self.get(&format!("/personalize?{query}"), key).await
    }

    pub(crate) async fn post(&self, path: &str, key: &str, body: &Value) -> Reply {
        let headers = [
            ("Authorization", &*format!("Bearer {key}")),
            ("Content-Type", "application/json"),
        ];
        self.send("POST", path, &headers, body.to_string().as_bytes())
            .await
    }

    /// Posts events and checks that each was accepted.
    pub(crate) async fn accept(&self, key: &str, events: Value) {
        let reply = self.post("/events", key, &events).await;
        assert_eq!(reply.status, 202, "{reply:?}");
        for receipt in reply.json["results"].as_array().unwrap() {
            assert_eq!(receipt["status"], "accepted", "{receipt}");
        }
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Reply {
        send(self.public, method, path, headers, body).await
    }

    pub(crate) fn token(&self, user_id: &str) -> String {
        self.tokens
            .make(&self.shop, user_id, clock::now().0 / 1_000 + 600)
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Null where the body is no JSON.
    pub(crate) json: Value,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// Checks that this is a problem with `status` and `code`.
    pub(crate) fn assert_problem(&self, status: u16, code: &str) {
        assert_eq!(
            (self.status, self.json["code"].as_str()),
            (status, Some(code)),
            "{self:?}"
        );
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        assert_eq!(self.json["status"], status);
    }

    pub(crate) fn reason(&self, placement: &str) -> &str {
        self.json["placements"][placement]["reason"]
            .as_str()
            .unwrap_or_default()
    }

    pub(crate) fn segments(&self) -> Vec<&str> {
        self.json["profile"]["segments"]
            .as_array()
            .unwrap()
            .iter()
            .map(|name| name.as_str().unwrap())
            .collect()
    }

    pub(crate) fn degraded(&self) -> Vec<&str> {
        self.json["degraded"]
            .as_array()
            .unwrap()
            .iter()
            .map(|name| name.as_str().unwrap())
            .collect()
    }
}

/// One request on a connection of its own.
pub(crate) async fn send(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Reply {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n");
    if !body.is_empty() {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += "\r\n";
    let mut stream = TcpStream::connect(to).await.unwrap();
    // A server that refuses a body early may close before it is all sent.
    let _ = stream.write_all(&[head.as_bytes(), body].concat()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    parse(&answer)
}

fn parse(answer: &[u8]) -> Reply {
    let end = answer
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .expect("an answer");
    let head = std::str::from_utf8(&answer[..end]).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.map(|line| line.split_once(": ").unwrap());
    let headers = headers
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let body = answer[end + 4..].to_vec();
    let json = serde_json::from_slice(&body).unwrap_or(Value::Null);
    Reply {
        status,
        headers,
        body,
        json,
    }
}
