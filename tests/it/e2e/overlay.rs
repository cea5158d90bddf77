//! The shopper's next answer on the same node counts every event once, whatever the lane made of it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::app::{PUBLIC_KEY, SERVER_KEY, TestApp, call};
use crate::support::stack::{Stack, on_both_stacks};

on_both_stacks!(
    an_event_sent_again_after_a_restart_counts_once,
    the_same_event_sent_by_many_at_once_counts_once,
    an_event_that_the_lane_sets_aside_does_not_linger
);

pub(super) const RULESET: &str = r#"
version: 1
currency: GBP
placements:
  promo: {kind: content, fallback: {headline: none}}
segments:
  none: {when: profile.events == 0}
  one: {when: profile.events == 1}
  two: {when: profile.events == 2}
  three: {when: profile.events == 3}
"#;

fn added(id: &str) -> Value {
    json!({"event": "Product Added", "event_id": id, "anonymous_id": "a1",
        "properties": {"product_id": "85123A", "quantity": 1}})
}

/// How many events an answer counted. What is in the cart would not tell: an operation on it counts once by its nature.
pub(super) fn answered(answer: &Value) -> Value {
    answer["profile"]["segments"][0].clone()
}

pub(super) async fn counted_of(app: &TestApp, guest: &str) -> Value {
    let path = format!("/personalize?anonymous_id={guest}");
    answered(&app.get(&path, PUBLIC_KEY).await.json())
}

async fn counted(app: &TestApp) -> Value {
    counted_of(app, "a1").await
}

/// Waits until the lane has said how far it is, which it does just after the warehouse knows.
async fn settle(app: &TestApp, expected: &str) {
    app.settle().await;
    for _ in 0..400 {
        if counted(app).await == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{} instead of {expected}", counted(app).await);
}

async fn an_event_sent_again_after_a_restart_counts_once(stack: Stack) {
    let app = TestApp::on(stack).await.ruleset(RULESET).start().await;
    assert_eq!(app.post("/events", PUBLIC_KEY, &added("e1")).await.status, 202);
    assert_eq!(counted(&app).await, "one");
    let folder = app.stop().await;

    // The new process has no memory of the id, so it cannot hint; and the lane writes no profile for a duplicate.
    let app = TestApp::with(folder).start().await;
    assert_eq!(counted(&app).await, "one");
    let again = app.post("/events", PUBLIC_KEY, &added("e1")).await.json();
    assert_eq!(again["results"][0]["status"], "accepted");
    settle(&app, "one").await;
    assert_eq!(app.post("/events", PUBLIC_KEY, &added("e2")).await.status, 202);
    assert_eq!(counted(&app).await, "two");
    app.stop().await;
}

async fn the_same_event_sent_by_many_at_once_counts_once(stack: Stack) {
    let app = TestApp::on(stack).await.ruleset(RULESET).start().await;
    let addr = app.addr();
    let sent: Vec<_> = (0..16)
        .map(|_| {
            let request = hyper::Request::post(format!("/events?key={PUBLIC_KEY}"))
                .header("content-type", "application/json")
                .body(bytes::Bytes::from(added("e1").to_string()))
                .unwrap();
            tokio::spawn(call(addr, request))
        })
        .collect();
    for sent in sent {
        assert_eq!(sent.await.unwrap().status, 202);
    }
    settle(&app, "one").await;
    app.stop().await;
}

async fn an_event_that_the_lane_sets_aside_does_not_linger(stack: Stack) {
    let mut app = TestApp::on(stack)
        .await
        .ruleset(RULESET)
        .set("dedupe.window", "1d")
        .start()
        .await;
    let mut old = added("e1");
    old["timestamp"] = json!("2020-01-01T00:00:00Z");
    app.post("/events", SERVER_KEY, &old).await;
    let mut of_the_page = added("e2");
    of_the_page["timestamp"] = json!("2020-01-01T00:00:00Z");
    app.post("/events", PUBLIC_KEY, &of_the_page).await;
    // A server may report the past; a page's event of then can't be told from a duplicate.
    settle(&app, "one").await;
    app.expect_quarantined(1);
    app.stop().await;
}
