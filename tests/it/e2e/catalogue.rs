//! What a shop says of its products, and what is recommended then.

use hyper::Method;
use serde_json::{Value, json};

use crate::support::app::{PUBLIC_KEY, SERVER_KEY, TestApp, ask};
use crate::support::stack::{Stack, on_both_stacks};

on_both_stacks!(what_is_sold_out_is_not_recommended);

const RULESET: &str = r#"
version: 1
currency: GBP
placements:
  upsell: {kind: recommendation, limit: 3, fallback: [mug]}
  cheap: {kind: recommendation, limit: 3, fallback: [mug], price: {max: 5}, categories: [kitchen], exclude: [spoon]}
"#;

async fn put(app: &TestApp, key: &str, body: &Value) -> (u16, Value) {
    let answer = ask(app.addr(), Method::PUT, "/admin/v1/products", key, Some(body)).await;
    (answer.status, answer.json())
}

/// What is shown beside a cart of tea, once the models have been built.
async fn shown(app: &TestApp, placement: &str) -> Vec<String> {
    app.settle().await;
    let trained = app.operator(Method::POST, "/operator/v1/train", "").await;
    assert_eq!(trained.status, 200);
    let path = format!("/personalize?placements={placement}&cart=tea:1");
    let answer = app.get(&path, PUBLIC_KEY).await.json();
    let items = answer["placements"][placement]["items"]
        .as_array()
        .unwrap()
        .iter();
    items
        .map(|item| item["id"].as_str().unwrap().to_owned())
        .collect()
}

async fn what_is_sold_out_is_not_recommended(stack: Stack) {
    let app = TestApp::on(stack).await.ruleset(RULESET).start().await;
    for n in 0..5 {
        let products =
            ["tea", "cup", "pot", "spoon"].map(|sku| json!({"sku": sku, "price": 3, "quantity": 1}));
        let order = json!({"event": "Order Completed", "event_id": format!("o{n}"), "user_id": format!("u{n}"),
            "properties": {"order_id": format!("o{n}"), "currency": "GBP", "products": products}});
        assert_eq!(app.post("/events", SERVER_KEY, &order).await.status, 202);
    }
    let mut all = shown(&app, "upsell").await;
    all.sort();
    assert_eq!(all, ["cup", "pot", "spoon"]);
    // Nobody knows what these are yet.
    assert_eq!(shown(&app, "cheap").await, ["mug"]);

    let catalogue = json!([
        {"sku": "cup", "stock": 0, "category": "kitchen"},
        {"product_id": "pot", "stock": 4, "category": "kitchen", "price": 4.5, "currency": "GBP", "image_url": "https://shop.example/pot.jpg"},
        {"sku": "spoon", "category": "kitchen", "price": 1, "currency": "GBP"},
        {"sku": "", "stock": 1},
    ]);
    let (status, receipts) = put(&app, SERVER_KEY, &catalogue).await;
    let statuses: Vec<&str> = receipts["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["status"].as_str().unwrap())
        .collect();
    assert_eq!(
        (status, statuses),
        (202, vec!["accepted", "accepted", "accepted", "quarantined"])
    );
    assert!(!shown(&app, "upsell").await.contains(&"cup".to_owned()));
    assert_eq!(shown(&app, "cheap").await, ["pot"]);

    // Back in stock, and dearer.
    let (status, _) = put(&app, SERVER_KEY, &json!({"products": [
        {"sku": "cup", "stock": 9, "price": 2, "currency": "GBP"}, {"sku": "pot", "price": "5.01", "currency": "GBP"}]})).await;
    assert_eq!(status, 202);
    assert_eq!(shown(&app, "cheap").await, ["cup"]);

    // A browser cannot sell a shop out, in either way.
    assert_eq!(put(&app, PUBLIC_KEY, &catalogue).await.0, 403);
    let forged =
        json!({"event": "Product Updated", "event_id": "f", "properties": {"sku": "cup", "stock": 0}});
    let refused = app.post("/events", PUBLIC_KEY, &forged).await.json();
    assert_eq!(refused["results"][0]["code"], "server_only");
    let viewed = json!({"event": "Product Viewed", "event_id": "v", "anonymous_id": "a", "properties": {"sku": "cup", "stock": 0}});
    assert_eq!(app.post("/events", PUBLIC_KEY, &viewed).await.status, 202);
    assert_eq!(shown(&app, "cheap").await, ["cup"]);
    assert_eq!(put(&app, SERVER_KEY, &json!({})).await.0, 400);

    let mut app = app;
    app.expect_quarantined(1);
    app.stop().await;
}
