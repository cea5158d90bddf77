//! A warehouse restored from a backup.

use std::time::Duration;

use cartwright::domain::ids::SubjectId;
use cartwright::hot;
use serde_json::{Value, json};

use crate::support::app::{PUBLIC_KEY, TestApp};
use crate::support::stack::{Stack, Stores, on_both_stacks};

on_both_stacks!(a_restored_warehouse_catches_up_from_the_log_and_hot_profiles_follow);

const RULESET: &str = r#"
version: 1
currency: GBP
placements:
  promo: {kind: content, fallback: {headline: none}}
segments:
  ten: {when: profile.cart.count == 10}
  twenty: {when: profile.cart.count == 20}
"#;

async fn add(app: &TestApp, numbers: std::ops::Range<u32>) {
    for n in numbers {
        let event = json!({"event": "Product Added", "event_id": format!("e{n}"), "anonymous_id": "a1",
            "properties": {"product_id": format!("p{n}"), "quantity": 1, "price": 1.0, "currency": "GBP"}});
        assert_eq!(app.post("/events", PUBLIC_KEY, &event).await.status, 202);
    }
    app.settle().await;
}

async fn segments(app: &TestApp) -> Value {
    let answer = app.get("/personalize?anonymous_id=a1", PUBLIC_KEY).await.json();
    answer["profile"]["segments"].clone()
}

async fn start(stores: Stores) -> TestApp {
    TestApp::with(stores).ruleset(RULESET).start().await
}

async fn a_restored_warehouse_catches_up_from_the_log_and_hot_profiles_follow(stack: Stack) {
    let app = start(Stores::new(stack).await).await;
    add(&app, 0..10).await;
    assert_eq!(segments(&app).await, json!(["ten"]));
    let stores = app.stop().await;
    let backup = stores.back_up().await;

    let app = start(stores).await;
    add(&app, 10..20).await;
    assert_eq!(segments(&app).await, json!(["twenty"]));
    let mut stores = app.stop().await;
    stores.restore(backup).await;
    let count = "select cast(count(*) as text) from fact_event";
    assert_eq!(stores.column(count).await, ["10"]);

    let app = start(stores).await;
    app.settle().await;
    assert_eq!(app.stores().column(count).await, ["20"]);
    assert_eq!(segments(&app).await, json!(["twenty"]));
    if stack == Stack::Networked {
        follows(app.stores()).await;
    }
    app.stop().await;
}

/// The shared hot store holds the profile of the warehouse's new life.
async fn follows(stores: &Stores) {
    let row = stores
        .rows("select subject, cast(epoch as text), cast(n as text) from customer_profile")
        .await
        .remove(0);
    let [subject, epoch, n] = row.try_into().unwrap();
    let subject = SubjectId::from_stored(&subject.unwrap());
    let expected: (u64, u64) = (epoch.unwrap().parse().unwrap(), n.unwrap().parse().unwrap());
    let hot = hot::open(&stores.hot()).await.unwrap();
    let followed = tokio::time::timeout(Duration::from_secs(30), async {
        loop {
            let found = hot.get(&subject).await.ok().flatten();
            if found.is_some_and(|found| (found.version.epoch, found.version.n) == expected) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    followed
        .await
        .expect("the hot store follows the restored warehouse");
}
