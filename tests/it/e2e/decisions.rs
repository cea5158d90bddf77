//! What the warehouse keeps of decisions: segments by name, and enough to decide again.

use std::time::Duration;

use serde_json::json;

use crate::support::api::RULESET;
use crate::support::app::{PUBLIC_KEY, SERVER_KEY, TestApp};
use crate::support::stack::{Stack, on_both_stacks};

on_both_stacks!(every_recorded_decision_can_be_made_again_from_the_warehouse_alone);

async fn every_recorded_decision_can_be_made_again_from_the_warehouse_alone(stack: Stack) {
    let app = TestApp::on(stack)
        .await
        .ruleset(RULESET)
        .set("decisions.record", "all")
        .start()
        .await;
    // What goes together, and how it is paid.
    for n in 0..4 {
        let items =
            ["85123A", "22423", "47566"].map(|sku| json!({"product_id": sku, "price": 2.55, "quantity": 2}));
        let order = json!({"event": "Order Completed", "event_id": format!("o{n}"), "user_id": format!("u{n}"),
            "properties": {"order_id": format!("o{n}"), "currency": "GBP", "payment_method": "klarna", "products": items}});
        assert_eq!(app.post("/events", SERVER_KEY, &order).await.status, 202);
    }
    // A node that starts learns them at once.
    let stores = app.stop().await;
    let app = TestApp::with(stores)
        .ruleset(RULESET)
        .set("decisions.record", "all")
        .start()
        .await;
    let knows = tokio::time::timeout(Duration::from_secs(30), async {
        let query = "/personalize?placements=upsell&cart=85123A:1";
        while app.get(query, SERVER_KEY).await.json()["placements"]["upsell"]["reason"] != "recommended" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    knows.await.expect("the population is learned");
    let mut served = Vec::new();
    let names = "placements=payment_methods,promo,banner,upsell";
    for round in 0..4 {
        for who in ["anonymous_id=a1", "anonymous_id=a2", "user_id=u1"] {
            let query = format!(
                "/personalize?{who}&session_id=s1&{names}&cart=85123A:{}:2.55&country=GB&device=mobile",
                round + 1
            );
            let key = if who.starts_with("user") {
                SERVER_KEY
            } else {
                PUBLIC_KEY
            };
            let answer = app.get(&query, key).await;
            assert_eq!(answer.status, 200);
            served.push(answer.json());
            // A shopper clicks slower than a record is appended.
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }
    let denied = app
        .get(
            &format!("/personalize?anonymous_id=a1&{names}&consent=personalization:denied"),
            PUBLIC_KEY,
        )
        .await;
    served.push(denied.json());
    // Records are appended a moment after their answers.
    tokio::time::sleep(Duration::from_millis(100)).await;
    app.settle().await;
    let stores = app.stop().await;

    // Days later: another ruleset is in force, and the shop sells other things.
    let app = TestApp::with(stores)
        .ruleset("version: 1\ncurrency: GBP\nplacements: {promo: {kind: content, fallback: other}}\n")
        .start()
        .await;
    let order = json!({"event": "Order Completed", "event_id": "later", "user_id": "u9",
        "properties": {"order_id": "later", "currency": "GBP", "products": [{"sku": "new", "price": 1, "quantity": 1}]}});
    assert_eq!(app.post("/events", SERVER_KEY, &order).await.status, 202);
    app.settle().await;
    for answer in &served {
        let id = answer["decision_id"].as_str().unwrap();
        let past = app.get(&format!("/admin/v1/decisions/{id}"), SERVER_KEY).await;
        assert_eq!(past.status, 200);
        let past = past.json();
        assert_eq!(past["reproduced"], true, "{past}");
        // It is what the shopper saw, to the last score.
        assert_eq!(past["placements"], answer["placements"], "{past}");
        assert_eq!(past["explain"]["ruleset_version"], past["ruleset_version"]);
        let explained = past["explain"]["placements"].as_array().unwrap();
        assert_eq!(explained.len(), answer["placements"].as_object().unwrap().len());
        let known = answer["profile"]["known"] == true;
        assert_eq!(past["profile_version"].is_object(), known, "{past}");
    }
    let id = served[0]["decision_id"].as_str().unwrap();
    assert_eq!(
        app.get(&format!("/admin/v1/decisions/{id}"), PUBLIC_KEY)
            .await
            .status,
        403
    );
    assert_eq!(
        app.get("/admin/v1/decisions/nothing", SERVER_KEY).await.status,
        404
    );
    let operator = app
        .operator(hyper::Method::GET, &format!("/operator/v1/decisions/{id}"), "")
        .await;
    assert_eq!(operator.json()["served"].as_array().unwrap().len(), 4);
    let stores = app.stop().await;
    let reasons = stores
        .column("select distinct reason from fact_decision where placement = 'banner' order by reason")
        .await;
    assert_eq!(reasons, ["capped", "consent", "targeting_match"]);
    let segments = stores
        .column("select segment from customer_segment order by segment")
        .await;
    assert_eq!(segments, ["buyer"; 4]);
}
