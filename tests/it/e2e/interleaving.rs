//! An event of `POST /personalize` counts once in its own answer and in the next, in whatever order the append, the lane and the
//! read of the stores come to pass. Each order is forced.

use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::overlay::{RULESET, answered, counted_of};
use crate::support::app::{PUBLIC_KEY, TestApp, ask};
use crate::support::gates::{Gate, Gates};
use crate::support::stack::{Stack, on_both_stacks};

on_both_stacks!(
    threads = 4;
    applied_before_the_append_has_returned,
    applied_before_the_hot_store_is_read,
    applied_after_the_hot_store_was_read,
    applied_after_the_warehouse_was_read,
);

/// Whom the stores know, and whom they do not; with how many events count after one more.
const SHOPPERS: [(&str, &str); 2] = [("returning", "two"), ("new", "one")];

struct Scene {
    app: TestApp,
    gates: Gates,
}

impl Scene {
    /// One event of the returning shopper is in every store, and in no near cache.
    async fn set(stack: Stack) -> Scene {
        let gates = Gates::default();
        let app = TestApp::on(stack)
            .await
            .ruleset(RULESET)
            // Records of decisions would come between the events.
            .set("decisions.record", "sampled:0")
            .behind(&gates)
            .start()
            .await;
        let scene = Scene { app, gates };
        let stored = json!({"event": "Product Viewed", "event_id": "e0", "anonymous_id": "returning",
            "properties": {"product_id": "85123A"}});
        let passed = scene.passed();
        assert_eq!(scene.app.post("/events", PUBLIC_KEY, &stored).await.status, 202);
        scene.lane_passes(passed).await;
        scene
    }

    /// Sends an event along with the question how many count.
    fn post(&self, shopper: &str) -> JoinHandle<Value> {
        let addr = self.app.addr();
        let body = json!({"anonymous_id": shopper, "events": [
            {"event": "Product Viewed", "event_id": format!("{shopper}-1"),
             "properties": {"product_id": "22423"}}]});
        tokio::spawn(async move {
            ask(addr, Method::POST, "/personalize", PUBLIC_KEY, Some(&body))
                .await
                .json()
        })
    }

    /// How many batches the lane has applied, published and said to have passed.
    fn passed(&self) -> u64 {
        let metrics = self.app.running().metrics.render();
        let count = metrics
            .lines()
            .find_map(|line| line.strip_prefix(r#"cartwright_lane_freshness_seconds_count{lane="fast"} "#));
        count.map_or(0, |count| count.parse().unwrap())
    }

    /// Waits until the lane has passed more than it had.
    async fn lane_passes(&self, before: u64) {
        let passed = tokio::time::timeout(Duration::from_secs(30), async {
            while self.passed() == before {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        passed.await.expect("the lane to pass the event");
    }

    /// The lane applies and publishes each shopper's event while the read of its request is held at `gate`.
    async fn applied_while_held(&self, gate: &Gate) {
        for (shopper, expected) in SHOPPERS {
            let passed = self.passed();
            self.gates.lane.shut();
            gate.shut();
            let answer = self.post(shopper);
            gate.is_reached().await;
            self.gates.lane.open();
            self.lane_passes(passed).await;
            gate.open();
            self.counts_once(shopper, answer, expected).await;
        }
    }

    /// The answer, and those after it, count the event once.
    async fn counts_once(&self, shopper: &str, answer: JoinHandle<Value>, expected: &str) {
        let answer = answer.await.unwrap();
        assert_eq!(answer["events"][0]["status"], "accepted", "{answer}");
        assert_eq!(answer["degraded"], json!([]), "{answer}");
        assert_eq!(answered(&answer), expected, "{shopper}: {answer}");
        // From here on what was written back is found.
        self.gates.hot_is_blank.store(false, Ordering::SeqCst);
        for _ in 0..3 {
            assert_eq!(counted_of(&self.app, shopper).await, expected, "{shopper}");
        }
    }
}

async fn applied_before_the_append_has_returned(stack: Stack) {
    let scene = Scene::set(stack).await;
    for (shopper, expected) in SHOPPERS {
        let passed = scene.passed();
        scene.gates.appended.shut();
        let answer = scene.post(shopper);
        scene.gates.appended.is_reached().await;
        scene.lane_passes(passed).await;
        scene.gates.appended.open();
        scene.counts_once(shopper, answer, expected).await;
    }
    scene.app.stop().await;
}

/// The overlay still holds the event, and the request has noted how far the lane was before.
async fn applied_before_the_hot_store_is_read(stack: Stack) {
    let scene = Scene::set(stack).await;
    scene.applied_while_held(&scene.gates.hot_asked).await;
    scene.app.stop().await;
}

/// The profile of before is at hand when the lane says that it has passed the event. Nothing is at hand of a new shopper,
/// whom the warehouse is then asked for.
async fn applied_after_the_hot_store_was_read(stack: Stack) {
    let scene = Scene::set(stack).await;
    scene.applied_while_held(&scene.gates.hot_found).await;
    scene.app.stop().await;
}

/// The hot store has lost what it had: what the warehouse held before is at hand, and written back over what the lane published.
async fn applied_after_the_warehouse_was_read(stack: Stack) {
    let scene = Scene::set(stack).await;
    scene.gates.hot_is_blank.store(true, Ordering::SeqCst);
    scene.applied_while_held(&scene.gates.warehouse_found).await;
    scene.app.stop().await;
}
