//! Several nodes on one log: partitions are shared out, move when a worker dies, and nothing is lost or counted twice.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cartwright::app::{App, Running};
use cartwright::config::Config;
use cartwright::queue::{self, QueueConfig};
use hyper::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::app::{Answer, PUBLIC_KEY, SERVER_KEY, TestApp, ask};
use crate::support::redis::RedisServer;
use crate::support::stack::{Stack, Stores};

/// Longer than leases last and batches take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) async fn eventually(what: &str, is_so: impl AsyncFn() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(waited.await.is_ok(), "not within {PATIENCE:?}: {what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_are_shared_out_evenly_and_their_tokens_grow() {
    let server = RedisServer::start(&[]);
    let config = QueueConfig {
        url: server.url(),
        partitions: 10,
        ..Stores::embedded().queue()
    };
    let log = queue::open(&config).await.unwrap();
    eventually("the log answers", async || log.extent(0).await.is_ok()).await;
    let leases = Arc::clone(&log).leases();
    let [first, second, third] = [1, 2, 3].map(Uuid::from_u128);
    let partitions = async |worker: Uuid| -> BTreeSet<u16> {
        let held = leases.renew(worker).await.unwrap();
        held.iter().map(|lease| lease.partition).collect()
    };
    assert_eq!(partitions(first).await.len(), 10);
    // The second one's share is free once the first has heard of it.
    assert_eq!(partitions(second).await.len(), 0);
    let firsts = partitions(first).await;
    let seconds = partitions(second).await;
    assert_eq!((firsts.len(), seconds.len()), (5, 5));
    assert!(firsts.is_disjoint(&seconds));
    partitions(third).await;
    partitions(first).await;
    partitions(second).await;
    let shares = [
        partitions(first).await,
        partitions(second).await,
        partitions(third).await,
    ];
    assert_eq!(shares.iter().map(BTreeSet::len).collect::<Vec<_>>(), [4, 4, 2]);
    assert_eq!(shares.iter().flatten().collect::<BTreeSet<_>>().len(), 10);

    // What is given back is taken at once, under greater tokens.
    let before = leases.renew(first).await.unwrap();
    leases.release(first).await.unwrap();
    leases.release(third).await.unwrap();
    let after = leases.renew(second).await.unwrap();
    assert_eq!(after.len(), 10);
    for lease in before {
        let now = after.iter().find(|now| now.partition == lease.partition).unwrap();
        assert!(now.token > lease.token, "{lease:?} {now:?}");
    }
    log.close().await;
}

/// A node on the stores of a test, besides the test's own.
pub(super) struct Node {
    running: Option<Running>,
}

impl Node {
    pub(super) async fn start(config: &Config, roles: &str) -> Node {
        let mut config = config.clone();
        config.roles.api = roles.contains("api");
        config.roles.drain = roles.contains("drain");
        Node {
            running: Some(Box::pin(App::start(config)).await.unwrap()),
        }
    }

    pub(super) fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    pub(super) async fn get(&self, path: &str) -> Value {
        let addr = self.running().public_addr.unwrap();
        ask(addr, Method::GET, path, SERVER_KEY, None).await.json()
    }

    async fn send_events(&self, events: &Value) -> Answer {
        let addr = self.running().public_addr.unwrap();
        ask(addr, Method::POST, "/events", PUBLIC_KEY, Some(events)).await
    }

    /// The status of the answer.
    pub(super) async fn post(&self, events: &Value) -> u16 {
        self.send_events(events).await.status
    }

    /// The answer with its receipts.
    pub(super) async fn send(&self, events: &Value) -> Value {
        self.send_events(events).await.json()
    }

    /// As by a crash: nothing is finished or given back.
    fn crash(&mut self) {
        self.running.take();
    }

    pub(super) async fn stop(mut self) {
        if let Some(running) = self.running.take() {
            Box::pin(running.stop()).await;
        }
    }

    /// How many partitions its lanes report on.
    fn runs(&self) -> bool {
        self.running()
            .metrics
            .render()
            .contains("cartwright_lane_running{lane=\"fast\"} 1")
    }
}

fn added(id: &str, guest: &str) -> Value {
    json!({"event": "Product Added", "event_id": id, "anonymous_id": guest,
        "properties": {"product_id": "85123A", "price": 2.5, "quantity": 1, "currency": "GBP"}})
}

const RULESET: &str = r#"
version: 1
currency: GBP
placements:
  promo: {kind: content, fallback: {headline: none}}
segments:
  carted: {when: "profile.cart.count > 0"}
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_api_nodes_and_two_workers_lose_and_repeat_nothing_when_a_worker_dies() {
    let (config, stores) = TestApp::on(Stack::Networked).await.ruleset(RULESET).config();
    let apis = [
        Node::start(&config, "api").await,
        Node::start(&config, "api").await,
    ];
    let mut workers = vec![
        Node::start(&config, "drain").await,
        Node::start(&config, "drain").await,
    ];
    eventually("both workers have lanes", async || workers.iter().all(Node::runs)).await;

    let mut acknowledged = BTreeSet::new();
    let mut crashed_at = None;
    for n in 0..240 {
        let id = format!("e{n}");
        let status = apis[n % 2].post(&added(&id, &format!("guest-{}", n % 40))).await;
        assert_eq!(status, 202);
        acknowledged.insert(id);
        if n == 120 {
            workers[0].crash();
            crashed_at = Some(tokio::time::Instant::now());
        }
    }
    let kept = async || -> Vec<String> {
        stores
            .column("select event_id from fact_event order by event_id")
            .await
    };
    eventually("every event is applied", async || {
        kept().await.len() >= acknowledged.len()
    })
    .await;
    assert!(crashed_at.is_some());
    let kept = kept().await;
    assert_eq!(kept.len(), acknowledged.len(), "each once");
    assert_eq!(kept.into_iter().collect::<BTreeSet<_>>(), acknowledged);

    // What one node took is what the other one answers with.
    let segments = async |node: &Node, guest: &str| {
        node.get(&format!("/personalize?anonymous_id={guest}")).await["profile"]["segments"].clone()
    };
    assert_eq!(apis[0].post(&added("last", "newcomer")).await, 202);
    assert_eq!(segments(&apis[0], "newcomer").await, json!(["carted"]));
    eventually("the other node shows it", async || {
        segments(&apis[1], "newcomer").await == json!(["carted"])
    })
    .await;
    for node in apis {
        node.stop().await;
    }
    for node in workers {
        node.stop().await;
    }
}

/// A guest logs in at one node while no lane runs; the other node answers with both, whether it has been told of that or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_on_one_node_counts_on_another_before_any_lane_has_run() {
    let (config, _stores) = TestApp::on(Stack::Networked).await.ruleset(RULESET).config();
    let apis = [
        Node::start(&config, "api").await,
        Node::start(&config, "api").await,
    ];
    let worker = Node::start(&config, "drain").await;
    assert_eq!(apis[0].post(&added("e1", "phone")).await, 202);
    let guest = "/personalize?anonymous_id=phone";
    eventually("the guest's cart is stored", async || {
        apis[1].get(guest).await["profile"]["segments"] == json!(["carted"])
    })
    .await;
    worker.stop().await;

    let login = json!({"event": "Signed In", "event_id": "l1", "user_id": "jane", "anonymous_id": "phone"});
    let addr = apis[0].running().public_addr.unwrap();
    let taken = ask(addr, Method::POST, "/events", SERVER_KEY, Some(&login)).await;
    assert_eq!(taken.status, 202);
    // No store links the two yet.
    for node in &apis {
        let answer = node.get("/personalize?user_id=jane&anonymous_id=phone").await;
        assert_eq!(answer["profile"]["segments"], json!(["carted"]), "{answer}");
        let alone = node.get("/personalize?user_id=jane").await;
        assert_eq!(alone["degraded"], json!([]), "{alone}");
    }
    // Once a lane has run it is so for the user alone, everywhere.
    let worker = Node::start(&config, "drain").await;
    for node in &apis {
        eventually("the link is stored", async || {
            node.get("/personalize?user_id=jane").await["profile"]["segments"] == json!(["carted"])
        })
        .await;
    }
    worker.stop().await;
    for node in apis {
        node.stop().await;
    }
}

/// A node without a lane of its own shows what it took at once, and lets go of what a lane elsewhere found to be a duplicate, of
/// which no profile tells.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_lanes_counts_an_event_once_that_another_node_had_taken() {
    let (config, _stores) = TestApp::on(Stack::Networked).await.ruleset(COUNTED).config();
    let first = Node::start(&config, "api").await;
    let worker = Node::start(&config, "drain").await;
    let cart =
        async |node: &Node| node.get("/personalize?anonymous_id=a1").await["profile"]["segments"].clone();
    assert_eq!(first.post(&added("e1", "a1")).await, 202);
    assert_eq!(cart(&first).await, json!(["one"]));
    let apis = [first, Node::start(&config, "api").await];
    eventually("the other node shows it", async || {
        cart(&apis[1]).await == json!(["one"])
    })
    .await;

    // The second node was not there to be told of the id, so it cannot know; the lane does.
    let again = apis[1].send(&added("e1", "a1")).await;
    assert_eq!(again["results"][0]["status"], "accepted");
    eventually("it counts once", async || cart(&apis[1]).await == json!(["one"])).await;
    assert_eq!(apis[1].post(&added("e2", "a1")).await, 202);
    assert_eq!(cart(&apis[1]).await, json!(["two"]));
    for node in &apis {
        eventually("both show both", async || cart(node).await == json!(["two"])).await;
    }
    worker.stop().await;
    for node in apis {
        node.stop().await;
    }
}

const COUNTED: &str = r#"
version: 1
currency: GBP
placements:
  promo: {kind: content, fallback: {headline: none}}
segments:
  one: {when: profile.cart.count == 1}
  two: {when: profile.cart.count == 2}
"#;
