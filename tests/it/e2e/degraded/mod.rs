//! What shoppers and beacons notice of sick servers: nothing but thinner answers and a 503 that says when to come back.
//!
//! Each case of the matrix lets the servers fall sick under load, in flight or before the start, and well again. The
//! tables that it prints are in docs/operations.md. Only what must hold is asserted; times are printed, and bounded far
//! above what they should be.

mod proxied;
mod real;

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
use crate::support::rounds;
use crate::support::stack::{Server, Sickness, Stores};

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
/// How long most cases last.
const SICK: Duration = Duration::from_millis(400);
/// Longer than anything heals in; a test fails with a reason instead of hanging.
const PATIENCE: Duration = Duration::from_secs(60);

/// Longer than the service itself waits for its log.
const WORST_EVENT: Duration = Duration::from_secs(11);
/// A log on this machine answers within far less, and a slow one takes longer.
const LATE: Duration = Duration::from_millis(250);

/// Who is sick together, with a name in the table.
type Group = (&'static str, &'static [Server]);

/// How they are sick, with a name in the table, and for how long once it has shown.
type Way = (&'static str, Sickness, Duration);

/// Without these, answers are thinner.
const STORES: [Group; 3] = [
    ("Redis", &[Server::Hot]),
    ("Postgres", &[Server::Postgres]),
    ("both", &[Server::Hot, Server::Postgres]),
];

/// Without these, no event is taken as well.
const LOGS: [Group; 2] = [
    ("the log's Redis", &[Server::Log]),
    ("all three", &[Server::Log, Server::Hot, Server::Postgres]),
];

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
    worst_event: Mutex<Duration>,
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

    /// Whether it was taken.
    async fn post(&self, addr: SocketAddr, event_id: &str) -> bool {
        let request = Request::post("/events")
            .header(header::AUTHORIZATION, format!("Bearer {PUBLIC_KEY}"))
            .header(header::CONTENT_TYPE, "application/json");
        let request = request.body(viewed(event_id, "busy").to_string().into());
        let started = Instant::now();
        let answer = call(addr, request.unwrap()).await;
        let took = started.elapsed();
        let mut worst = self.worst_event.lock().await;
        *worst = worst.max(took);
        drop(worst);
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
        answer.status == 202
    }

    /// Waits until the answers show that `servers` are sick.
    async fn noticed(&self, servers: &[Server], name: &str) {
        let started = Instant::now();
        loop {
            let thinner = !self.degraded.lock().await.is_empty();
            let held_up =
                self.turned_away.load(Ordering::Relaxed) > 0 || *self.worst_event.lock().await > LATE;
            if servers.iter().all(|server| match server {
                Server::Log => held_up,
                Server::Hot | Server::Postgres => thinner,
            }) {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "{name}: nothing shows");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until a shopper whom nobody has seen is answered from stores that are all well, and an event is taken.
    async fn well_again(&self, addr: SocketAddr, case: usize) -> Duration {
        let started = Instant::now();
        for n in 0.. {
            let shopper = format!("anonymous_id=well-{case}-{n}");
            if self.personalize(addr, &shopper).await.is_empty()
                && self.post(addr, &format!("well-{case}-{n}")).await
            {
                break;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "answers stay degraded ({:?}), or events are still turned away ({} so far)",
                self.degraded.lock().await,
                self.turned_away.load(Ordering::Relaxed)
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        started.elapsed()
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

/// One line of the table; asserts what must hold.
async fn line(table: &mut String, name: &str, servers: &[Server], tally: &Tally, well: Duration) {
    let bad = tally.bad.lock().await;
    assert!(bad.is_empty(), "{name}: {bad:?}");
    let worst = *tally.worst.lock().await;
    assert!(worst < WORST, "{name}: an answer took {worst:?}");
    let worst_event = *tally.worst_event.lock().await;
    assert!(
        worst_event < WORST_EVENT,
        "{name}: an event was answered after {worst_event:?}"
    );
    let mut degraded: Vec<String> = tally.degraded.lock().await.iter().cloned().collect();
    if degraded.is_empty() {
        assert_eq!(servers, [Server::Log], "{name}: no answer said what was missing");
        degraded.push("nothing".to_owned());
    }
    writeln!(
        table,
        "| {name} | {} | {} | {} ms | {} | {} of {} | {} ms | {} ms |",
        tally.asked.load(Ordering::Relaxed),
        bad.len(),
        worst.as_millis(),
        degraded.join(", "),
        tally.turned_away.load(Ordering::Relaxed),
        tally.posted.load(Ordering::Relaxed),
        worst_event.as_millis(),
        well.as_millis()
    )
    .unwrap();
}

const HEAD: &str = "| sick | asked | not 200 | slowest | `degraded` named | events answered 503 | slowest event | healthy after |\n\
                    |---|---|---|---|---|---|---|---|\n";

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

/// Lets each group fall sick in each way under load, and well again, which the answers must follow by themselves.
async fn in_flight(title: &str, stores: Stores, groups: &[Group], ways: &[Way]) {
    let mut app = node(stores).start().await;
    greet_regular(&app).await;
    let mut table = String::new();
    let mut accepted = vec!["o1".to_owned()];
    let mut case = 0;
    for _ in 0..rounds(1) {
        for &(who, servers) in groups {
            for &(how, sickness, lasts) in ways {
                case += 1;
                let name = format!("{who} {how}");
                let tally = Arc::new(Tally::default());
                app.stores_mut().sicken(servers, sickness);
                let load = Load::start(app.addr(), &tally, case);
                tally.noticed(servers, &name).await;
                tokio::time::sleep(lasts).await;
                assert_eq!(app.operator(Method::GET, "/health/ready", "").await.status, 200);
                app.stores_mut().heal(servers, sickness).await;
                let well = tally.well_again(app.addr(), case).await;
                load.stop().await;
                app.settle().await;
                line(&mut table, &name, servers, &tally, well).await;
                accepted.extend(tally.accepted.lock().await.drain(..));
            }
        }
    }
    show(title, &table);
    nothing_is_lost(app.stores(), &accepted).await;
    app.stop().await;
}

/// Starts a node while each group is sick in each way, and lets it find them well again.
async fn at_the_start(title: &str, stores: Stores, groups: &[Group], ways: &[Way]) {
    // An earlier life, which leaves a ruleset and a customer behind.
    let app = node(stores).start().await;
    greet_regular(&app).await;
    let mut stores = app.stop().await;
    let mut table = String::new();
    let mut accepted = vec!["o1".to_owned()];
    let mut case = 100;
    for &(who, servers) in groups {
        for &(how, sickness, lasts) in ways {
            case += 1;
            stores.sicken(servers, sickness);
            let started = Instant::now();
            let mut app = node(stores).start().await;
            let name = format!("{who} {how} (start took {} ms)", started.elapsed().as_millis());
            assert_eq!(app.operator(Method::GET, "/health/ready", "").await.status, 200);
            let tally = Arc::new(Tally::default());
            let load = Load::start(app.addr(), &tally, case);
            tally.noticed(servers, &name).await;
            tokio::time::sleep(lasts).await;
            app.stores_mut().heal(servers, sickness).await;
            let well = tally.well_again(app.addr(), case).await;
            load.stop().await;
            app.settle().await;
            line(&mut table, &name, servers, &tally, well).await;
            accepted.extend(tally.accepted.lock().await.drain(..));
            let known = app.get("/personalize?user_id=regular", SERVER_KEY).await.json();
            assert_eq!(known["profile"]["segments"], json!(["buyer"]), "{known}");
            stores = app.stop().await;
        }
    }
    show(title, &table);
    nothing_is_lost(&stores, &accepted).await;
}

/// What was acknowledged is there, each once. What was not may be there: a reply can be lost after the deed.
async fn nothing_is_lost(stores: &Stores, accepted: &[String]) {
    let kept = stores.column("select event_id from fact_event").await;
    let unique: BTreeSet<&String> = kept.iter().collect();
    assert_eq!(unique.len(), kept.len());
    let lost: Vec<_> = accepted.iter().filter(|id| !unique.contains(id)).collect();
    assert!(
        lost.is_empty(),
        "{} acknowledged events are lost: {lost:?}",
        lost.len()
    );
}
