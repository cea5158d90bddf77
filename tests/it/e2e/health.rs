//! Health, unknown routes and what operators ask.

use serde_json::json;

use crate::support::api::{Api, Mode, Options, PUBLIC, RULESET, send};
use crate::support::stack::{Stack, on_both_stacks};

on_both_stacks!(
    a_node_is_ready_from_its_ruleset_on_until_it_stops,
    what_is_not_there_is_a_problem_on_both_listeners,
    operators_see_the_lanes_and_import_history,
    a_ruleset_with_mistakes_is_refused_with_every_line
);

async fn a_node_is_ready_from_its_ruleset_on_until_it_stops(stack: Stack) {
    let api = Api::start_with(Options {
        ruleset: None,
        ..Options::on(stack)
    })
    .await;
    for listener in [api.public, api.operator] {
        assert_eq!(send(listener, "GET", "/health/live", &[], b"").await.status, 200);
        send(listener, "GET", "/health/ready", &[], b"")
            .await
            .assert_problem(503, "not_ready");
    }
    let applied = send(
        api.operator,
        "POST",
        "/operator/v1/ruleset",
        &[],
        RULESET.as_bytes(),
    )
    .await;
    assert_eq!((applied.status, &applied.json), (200, &json!({"version": 1})));
    for listener in [api.public, api.operator] {
        assert_eq!(send(listener, "GET", "/health/ready", &[], b"").await.status, 200);
    }
    // Sick stores are metrics and degraded answers, not readiness.
    api.hot.set(Mode::Fails);
    api.warehouse.set(Mode::Fails);
    assert_eq!(
        send(api.public, "GET", "/health/ready", &[], b"").await.status,
        200
    );
    let operator = api.operator;
    api.stopping.cancel();
    send(operator, "GET", "/health/ready", &[], b"")
        .await
        .assert_problem(503, "not_ready");
    api.stop().await;
}

async fn what_is_not_there_is_a_problem_on_both_listeners(stack: Stack) {
    let api = Api::start(stack).await;
    for listener in [api.public, api.operator] {
        send(listener, "GET", "/nothing?user_id=x", &[], b"")
            .await
            .assert_problem(404, "not_found");
        send(listener, "DELETE", "/health/live", &[], b"")
            .await
            .assert_problem(405, "method_not_allowed");
    }
    api.get("/operator/v1/status", PUBLIC)
        .await
        .assert_problem(404, "not_found");
    api.get("/metrics", PUBLIC).await.assert_problem(404, "not_found");
    let contract = api.get("/openapi.yaml", PUBLIC).await;
    assert!(contract.body.starts_with(b"openapi: 3.1."));
    api.stop().await;
}

async fn operators_see_the_lanes_and_import_history(stack: Stack) {
    let api = Api::start(stack).await;
    let events = json!([{"event": "Order Completed", "event_id": "o1", "user_id": "u1", "timestamp": "2010-12-01T08:26:00Z",
        "properties": {"order_id": "536365", "currency": "GBP", "products": [{"product_id": "85123A", "price": 2.55, "quantity": 6}]}}]);
    let headers = [("Content-Type", "application/json")];
    let body = events.to_string();
    for _ in 0..2 {
        let imported = send(
            api.operator,
            "POST",
            "/operator/v1/events",
            &headers,
            body.as_bytes(),
        )
        .await;
        assert_eq!(imported.status, 200, "{imported:?}");
    }
    api.settle().await;
    let status = send(api.operator, "GET", "/operator/v1/status", &[], b"").await;
    assert_eq!(status.json["log"]["next_offset"], 2, "{status:?}");
    assert_eq!(status.json["fast_lane"], json!({"offset": 2, "lag_records": 0}));
    assert_eq!(status.json["ruleset_version"], 1);
    // A web page on the operator's machine gets nowhere.
    let from_page = [("Content-Type", "text/plain"), ("Origin", "https://evil.example")];
    let refused = send(
        api.operator,
        "POST",
        "/operator/v1/events",
        &from_page,
        body.as_bytes(),
    )
    .await;
    refused.assert_problem(404, "not_found");
    let metrics = send(api.operator, "GET", "/metrics", &[], b"").await;
    assert!(String::from_utf8(metrics.body).unwrap().contains("cartwright_"));
    api.stop().await;
}

async fn a_ruleset_with_mistakes_is_refused_with_every_line(stack: Stack) {
    let api = Api::start(stack).await;
    let source = b"version: 1\ncurrency: GBP\nplacements:\n  a: {kind: nonsense}\nwhat: 1\n";
    let refused = send(api.operator, "POST", "/operator/v1/ruleset", &[], source).await;
    refused.assert_problem(422, "invalid_ruleset");
    assert!(
        refused.json["detail"].as_str().unwrap().lines().count() >= 2,
        "{refused:?}"
    );
    assert_eq!(
        send(api.operator, "GET", "/operator/v1/status", &[], b"")
            .await
            .json["ruleset_version"],
        1
    );
    api.stop().await;
}
