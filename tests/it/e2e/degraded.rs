//! What shoppers and beacons notice of sick servers: nothing but thinner answers and a 503 that says when to come back.
//!
//! Each case of the matrix lets the servers fall sick under load, in flight or before the start, and well again. The
//! table that it prints is in docs/operations.md. Only what must hold is asserted; times are printed, and bounded far
//! above what they should be.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::{Method, Request, header};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::support::app::{Builder, PUBLIC_KEY, SERVER_KEY, TestApp, call};
use crate::support::proxy::Weather;
use crate::support::rounds;
use crate::support::stack::{Stack, Stores};

const RULESET: &str = r#"
version: 1
currency: GBP
placements:
  payment_methods: {kind: ranking, by: payment_method, candidates: [card, paypal]}
  promo: {kind: content, fallback: {headline: none}}
  upsell: {kind: recommendation, limit: 2, fallback: ["85123A", "22423"]}
segments:
  buyer: {when: profile.orders > 0}
"#;

const DEADLINE: Duration = Duration::from_millis(150);
/// Far above the deadline: a loaded machine may be late, a stuck request is caught.
const WORST: Duration = Duration::from_millis(1_150);
/// How long a case lasts once it has shown.
const SICK: Duration = Duration::from_millis(400);
/// Longer than anything heals in; a test fails with a reason instead of hanging.
const PATIENCE: Duration = Duration::from_secs(60);

const BOTH: &[&str] = &["redis", "postgres"];

/// Every way to be sick, with its name in the table.
fn weathers() -> [(&'static str, Weather); 5] {
    [
        (
            "slow (every reply 300 ms late)",
            Weather::Slow(Duration::from_millis(300)),
        ),
        ("silent (takes connections, answers nothing)", Weather::Swallows),
        ("refusing connections", Weather::Refuses),
        ("resetting connections", Weather::Resets),
        ("cut in the middle of a reply", Weather::Cuts(3)),
    ]
}

/// What was asked and answered meanwhile.
#[derive(Debug, Default)]
struct Tally {
    asked: AtomicUsize,
    /// Answers other than a 200 with every placement filled: must be none.
    bad: Mutex<Vec<String>>,
    degraded: Mutex<BTreeSet<String>>,
    worst: Mutex<Duration>,
    posted: AtomicUsize,
    turned_away: AtomicUsize,
    accepted: Mutex<Vec<String>>,
}

impl Tally {
    async fn personalize(&self, addr: SocketAddr, shopper: &str) -> Vec<String> {
        let path = format!("/personalize?{shopper}&placements=payment_methods,promo,upsell&country=GB");
        let request = Request::get(path).header(header::AUTHORIZATION, format!("Bearer {SERVER_KEY}"));
        let started = Instant::now();
        let answer = call(addr, request.body(Bytes::new()).unwrap()).await;
        let took = started.elapsed();
        self.asked.fetch_add(1, Ordering::Relaxed);
        let body = answer.json();
        let filled = ["payment_methods", "promo", "upsell"]
            .iter()
            .all(|name| body["placements"][name]["kind"].is_string());
        if answer.status != 200 || !filled {
            self.bad.lock().await.push(format!("{}: {body}", answer.status));
        }
        let mut worst = self.worst.lock().await;
        *worst = worst.max(took);
        drop(worst);
        let names: Vec<String> = serde_json::from_value(body["degraded"].clone()).unwrap_or_default();
        self.degraded.lock().await.extend(names.iter().cloned());
        names
    }

    async fn post(&self, addr: SocketAddr, event_id: &str) {
        let request = Request::post("/events")
            .header(header::AUTHORIZATION, format!("Bearer {PUBLIC_KEY}"))
            .header(header::CONTENT_TYPE, "application/json");
        let answer = call(
            addr,
            request.body(viewed(event_id, "busy").to_string().into()).unwrap(),
        )
        .await;
        self.posted.fetch_add(1, Ordering::Relaxed);
        match answer.status {
            202 => self.accepted.lock().await.push(event_id.to_owned()),
            503 if answer.headers.contains_key("retry-after") => {
                self.turned_away.fetch_add(1, Ordering::Relaxed);
            }
            other => self
                .bad
                .lock()
                .await
                .push(format!("POST /events: {other}: {:?}", answer.body)),
        }
    }
}

fn viewed(event_id: &str, guest: &str) -> Value {
    json!({"event": "Product Viewed", "event_id": event_id, "anonymous_id": guest,
        "properties": {"product_id": "85123A"}})
}

/// Shoppers and a beacon, until told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(addr: SocketAddr, tally: &Arc<Tally>, case: usize) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = Vec::new();
        for client in 0..3_usize {
            let (stop, tally) = (Arc::clone(&stop), Arc::clone(tally));
            tasks.push(tokio::spawn(async move {
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    // One whose profile is hot, and one whom only the warehouse can say nothing of.
                    let shopper = match client {
                        0 => "user_id=regular".to_owned(),
                        _ => format!("anonymous_id=new-{case}-{client}-{n}"),
                    };
                    tally.personalize(addr, &shopper).await;
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            }));
        }
        let (stopped, tally) = (Arc::clone(&stop), Arc::clone(tally));
        tasks.push(tokio::spawn(async move {
            for n in 0.. {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                tally.post(addr, &format!("e-{case}-{n}")).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }));
        Load { stop, tasks }
    }

    async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

/// Waits until a shopper whom nobody has seen is answered from stores that are all well, and the log is empty.
async fn healthy(app: &TestApp, case: usize) -> Duration {
    let started = Instant::now();
    let tally = Tally::default();
    for n in 0.. {
        if tally
            .personalize(app.addr(), &format!("anonymous_id=well-{case}-{n}"))
            .await
            .is_empty()
        {
            break;
        }
        assert!(
            started.elapsed() < PATIENCE,
            "answers stay degraded: {:?}",
            tally.degraded.lock().await
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let well = started.elapsed();
    app.settle().await;
    well
}

/// One line of the table; asserts what must hold.
async fn line(table: &mut String, name: &str, tally: &Tally, well: Duration) {
    let bad = tally.bad.lock().await;
    assert!(bad.is_empty(), "{name}: {bad:?}");
    let worst = *tally.worst.lock().await;
    assert!(worst < WORST, "{name}: an answer took {worst:?}");
    let degraded: Vec<String> = tally.degraded.lock().await.iter().cloned().collect();
    assert!(!degraded.is_empty(), "{name}: no answer said what was missing");
    writeln!(
        table,
        "| {name} | {} | {} | {} ms | {} | {} of {} | {} ms |",
        tally.asked.load(Ordering::Relaxed),
        bad.len(),
        worst.as_millis(),
        degraded.join(", "),
        tally.turned_away.load(Ordering::Relaxed),
        tally.posted.load(Ordering::Relaxed),
        well.as_millis()
    )
    .unwrap();
}

const HEAD: &str = "| sick | asked | not 200 | slowest | `degraded` named | events answered 503 | healthy after |\n\
                    |---|---|---|---|---|---|---|\n";

#[allow(clippy::disallowed_macros, reason = "the table is for people")]
fn show(title: &str, table: &str) {
    eprintln!(
        "\n{title} (deadline {} ms)\n\n{HEAD}{table}",
        DEADLINE.as_millis()
    );
}

fn node(stores: Stores) -> Builder {
    TestApp::with(stores)
        .ruleset(RULESET)
        .set("deadline_ms", DEADLINE.as_millis().to_string())
}

async fn greet_regular(app: &TestApp) {
    let order = json!({"event": "Order Completed", "event_id": "o1", "user_id": "regular",
        "properties": {"order_id": "o1", "currency": "GBP", "products": [{"product_id": "85123A", "price": 2.5, "quantity": 1}]}});
    assert_eq!(app.post("/events", SERVER_KEY, &order).await.status, 202);
    app.settle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_fall_sick_in_flight_thin_answers_and_lose_nothing() {
    let stores = Stores::new(Stack::Networked).await.behind_proxies().await;
    let app = node(stores).start().await;
    greet_regular(&app).await;
    let mut table = String::new();
    let mut accepted = vec!["o1".to_owned()];
    let mut case = 0;
    for _ in 0..rounds(1) {
        for (who, servers) in app.stores().sick() {
            for (how, weather) in weathers() {
                case += 1;
                let tally = Arc::new(Tally::default());
                app.stores().weather(servers, weather);
                let load = Load::start(app.addr(), &tally, case);
                let started = Instant::now();
                while tally.degraded.lock().await.is_empty() {
                    assert!(started.elapsed() < PATIENCE, "{who} {how}: nothing shows");
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                tokio::time::sleep(SICK).await;
                assert_eq!(app.operator(Method::GET, "/health/ready", "").await.status, 200);
                load.stop().await;
                app.stores().weather(BOTH, Weather::Fair);
                let well = healthy(&app, case).await;
                line(&mut table, &format!("{who} {how}"), &tally, well).await;
                accepted.extend(tally.accepted.lock().await.drain(..));
            }
        }
    }
    show("Servers that fall sick in flight", &table);
    // What was acknowledged is there, each once. What was not may be there: a reply can be lost after the deed.
    let kept = app
        .stores()
        .column("select event_id from fact_event order by event_id")
        .await;
    let unique: BTreeSet<&String> = kept.iter().collect();
    assert_eq!(unique.len(), kept.len());
    let lost: Vec<_> = accepted.iter().filter(|id| !unique.contains(id)).collect();
    assert!(
        lost.is_empty(),
        "{} acknowledged events are lost: {lost:?}",
        lost.len()
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_starts_without_its_servers_and_joins_them_later() {
    let mut stores = Stores::new(Stack::Networked).await.behind_proxies().await;
    // An earlier life, which leaves a ruleset and a customer behind.
    let app = node(stores).start().await;
    greet_regular(&app).await;
    stores = app.stop().await;

    let mut table = String::new();
    let cases = stores.sick();
    let mut case = 100;
    for (who, servers) in cases {
        for (how, weather) in [weathers()[2], weathers()[1]] {
            case += 1;
            stores.weather(servers, weather);
            let started = Instant::now();
            let app = node(stores).start().await;
            let took = started.elapsed();
            assert_eq!(app.operator(Method::GET, "/health/ready", "").await.status, 200);
            let tally = Arc::new(Tally::default());
            let load = Load::start(app.addr(), &tally, case);
            tokio::time::sleep(SICK).await;
            load.stop().await;
            app.stores().weather(BOTH, Weather::Fair);
            let well = healthy(&app, case).await;
            let name = format!("{who} {how} (start took {} ms)", took.as_millis());
            line(&mut table, &name, &tally, well).await;
            let known = app.get("/personalize?user_id=regular", SERVER_KEY).await.json();
            assert_eq!(known["profile"]["segments"], json!(["buyer"]), "{known}");
            stores = app.stop().await;
        }
    }
    show("Servers that are away at the start", &table);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_key_that_shows_late_stops_the_node() {
    let stores = Stores::new(Stack::Networked).await.behind_proxies().await;
    let stores = node(stores).start().await.stop().await;
    stores.weather(BOTH, Weather::Refuses);
    let other = node(stores).set("pseudonym_key", "k1:another-secret-key");
    let (config, stores) = other.config();
    let mut running = Box::pin(cartwright::app::App::start(config)).await.unwrap();
    let addr = running.operator_addr;
    let ready = async || {
        let request = Request::get("/health/ready").body(Bytes::new()).unwrap();
        call(addr, request).await.status
    };
    assert_eq!(ready().await, 200);
    stores.weather(BOTH, Weather::Fair);
    let error = tokio::time::timeout(PATIENCE, running.failed()).await.unwrap();
    assert!(
        error
            .to_string()
            .contains("is not the key that this warehouse was filled with"),
        "{error}"
    );
    assert_eq!(ready().await, 503);
    Box::pin(running.stop()).await;
}
