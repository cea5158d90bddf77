//! Experiments from the ruleset to their results.

use cartwright::app::{App, Running};
use cartwright::config::Config;
use hyper::Method;
use serde_json::{Value, json};

use crate::support::app::{PUBLIC_KEY, SERVER_KEY, TestApp, ask};
use crate::support::stack::{Stack, on_both_stacks};

on_both_stacks!(
    an_experiment_is_measured_from_exposure_to_order,
    a_ranking_shows_what_the_request_offers,
    a_variant_can_be_tried_out_in_a_test_environment_alone,
    a_guest_keeps_the_variant_at_login,
);

const RULESET: &str = r#"
version: 1
currency: GBP
placements:
  promo: {kind: content, fallback: none}
  pay: {kind: ranking, by: payment_method, candidates: [card, paypal]}
experiences:
  - id: nudge
    placement: promo
    goal: {event: Order Completed, within_days: 1}
    variants: [{id: a, payload: 1}, {id: b, payload: 2}]
  - {id: plain, placement: promo, payload: 3}
"#;

async fn results(app: &TestApp, id: &str) -> Value {
    let path = format!("/admin/v1/experiments/{id}/results");
    let answer = app.get(&path, SERVER_KEY).await;
    assert_eq!(answer.status, 200);
    answer.json()
}

async fn an_experiment_is_measured_from_exposure_to_order(stack: Stack) {
    let app = TestApp::on(stack).await.ruleset(RULESET).start().await;
    let mut seen = [(0u64, 0u64); 2];
    for n in 0..24 {
        let query = format!("/personalize?anonymous_id=a{n}&placements=promo");
        let answer = app.get(&query, PUBLIC_KEY).await.json();
        let variant = usize::from(answer["placements"]["promo"]["variant"] == "b");
        seen[variant].0 += 1;
        if n % 3 == 0 {
            seen[variant].1 += 1;
            let order = json!({"event": "Order Completed", "event_id": format!("o{n}"), "anonymous_id": format!("a{n}"),
                "properties": {"order_id": format!("o{n}"), "currency": "GBP", "total": 10.50}});
            assert_eq!(app.post("/events", SERVER_KEY, &order).await.status, 202);
        }
    }
    // The records follow their answers.
    let measured = tokio::time::timeout(std::time::Duration::from_secs(30), async {
        loop {
            app.settle().await;
            let results = results(&app, "nudge").await;
            let subjects = results["variants"].as_array().unwrap().iter();
            if subjects
                .map(|variant| variant["subjects"].as_u64().unwrap())
                .sum::<u64>()
                == 24
            {
                return results;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
    let measured = measured.await.expect("every exposure is stored");
    for (at, name) in ["a", "b"].into_iter().enumerate() {
        let variant = &measured["variants"][at];
        let counts = ["subjects", "exposures", "conversions"].map(|count| variant[count].as_u64().unwrap());
        assert_eq!(
            (&variant["variant"], counts),
            (&json!(name), [seen[at].0, seen[at].0, seen[at].1])
        );
        assert_eq!(variant["revenue"], seen[at].1 as f64 * 10.5);
    }
    assert_eq!(measured["verdict"], "no_winner_yet");
    assert_eq!(
        (&measured["crossovers"], &measured["lost_exposures"]),
        (&json!(0), &json!(0))
    );

    // Who may ask, and for what.
    let path = "/admin/v1/experiments/nudge/results";
    assert_eq!(app.get(path, PUBLIC_KEY).await.status, 403);
    assert_eq!(app.get(path, "nobody").await.status, 401);
    for unknown in ["plain", "nothing", "%00"] {
        let path = format!("/admin/v1/experiments/{unknown}/results");
        assert_eq!(app.get(&path, SERVER_KEY).await.status, 404, "{unknown}");
    }
    let operator = app
        .operator(Method::GET, "/operator/v1/experiments/nudge/results", "")
        .await;
    assert_eq!(operator.json(), measured);
    app.stop().await;
}

async fn a_ranking_shows_what_the_request_offers(stack: Stack) {
    let app = TestApp::on(stack).await.ruleset(RULESET).start().await;
    let ids = |answer: Value| -> Vec<String> {
        let items = answer["placements"]["pay"]["items"].as_array().unwrap().iter();
        items
            .map(|item| item["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let query = "/personalize?placements=pay&candidates.pay=paypal,voucher";
    let asked = ids(app.get(query, PUBLIC_KEY).await.json());
    assert_eq!(asked, ["paypal", "voucher"]);
    let body = json!({"placements": ["pay"], "candidates": {"pay": ["paypal", "voucher"]}});
    let told = ids(app.post("/personalize", PUBLIC_KEY, &body).await.json());
    assert_eq!(told, asked);
    assert_eq!(
        app.get(&format!("{query}&candidates.pay=card"), PUBLIC_KEY)
            .await
            .status,
        400
    );
    app.stop().await;
}

async fn a_variant_can_be_tried_out_in_a_test_environment_alone(stack: Stack) {
    let query = "/personalize?anonymous_id=a1&placements=promo&force=nudge:";
    let app = TestApp::on(stack).await.ruleset(RULESET).start().await;
    let refused = app.get(&format!("{query}b"), PUBLIC_KEY).await;
    assert_eq!(
        (refused.status, &refused.json()["code"]),
        (403, &json!("test_key_required"))
    );
    app.stop().await;

    let app = TestApp::on(stack)
        .await
        .ruleset(RULESET)
        .set("environment", "test")
        .start()
        .await;
    for variant in ["a", "b", "a"] {
        let answer = app.get(&format!("{query}{variant}"), PUBLIC_KEY).await.json();
        assert_eq!(answer["placements"]["promo"]["variant"], *variant);
    }
    app.settle().await;
    let stores = app.stop().await;
    for table in ["fact_decision", "fact_exposure"] {
        let rows = stores
            .rows(&format!("select cast(count(*) as text) from {table}"))
            .await;
        assert_eq!(rows[0][0].as_deref(), Some("0"));
    }
}

/// Whatever the user's own hash would say.
async fn a_guest_keeps_the_variant_at_login(stack: Stack) {
    let app = TestApp::on(stack).await.ruleset(RULESET).start().await;
    let mut moved = 0;
    for n in 0..12 {
        let shown = async |who: &str, key: &str| -> Value {
            let path = format!("/personalize?placements=promo&{who}");
            app.get(&path, key).await.json()["placements"]["promo"]["variant"].clone()
        };
        let guest = shown(&format!("anonymous_id=a{n}"), PUBLIC_KEY).await;
        // The record is appended a moment after the answer.
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        let login = json!({"event": "Signed In", "event_id": format!("l{n}"), "anonymous_id": format!("a{n}"), "user_id": format!("u{n}")});
        assert_eq!(app.post("/events", SERVER_KEY, &login).await.status, 202);
        assert_eq!(
            shown(&format!("anonymous_id=a{n}&user_id=u{n}"), SERVER_KEY).await,
            guest
        );
        app.settle().await;
        assert_eq!(shown(&format!("user_id=u{n}"), SERVER_KEY).await, guest);
        moved += u32::from(shown(&format!("user_id=stranger{n}"), SERVER_KEY).await != guest);
    }
    // By hash alone some would have moved.
    assert!(moved > 0);
    let measured = results(&app, "nudge").await;
    assert_eq!(measured["crossovers"], 0);
    app.stop().await;
}

/// Nothing but the log has been written when the other node is asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_on_another_node_keeps_the_variant_before_any_lane_has_run() {
    let (mut config, _stores) = TestApp::on(Stack::Networked).await.ruleset(RULESET).config();
    config.roles.drain = false;
    let first = Box::pin(App::start(config.clone())).await.unwrap();
    let second = Config {
        data_dir: config.data_dir.with_file_name("second"),
        ..config
    };
    let second = Box::pin(App::start(second)).await.unwrap();
    let shown = async |node: &Running, who: &str| -> Value {
        let path = format!("/personalize?placements=promo&{who}");
        let answer = ask(node.public_addr.unwrap(), Method::GET, &path, SERVER_KEY, None).await;
        assert_eq!(answer.status, 200);
        answer.json()["placements"]["promo"]["variant"].clone()
    };
    let mut strangers = 0;
    for n in 0..12 {
        let guest = shown(&first, &format!("anonymous_id=a{n}")).await;
        assert!(guest == "a" || guest == "b", "{guest}");
        let login = json!({"event": "Signed In", "event_id": format!("l{n}"), "anonymous_id": format!("a{n}"), "user_id": format!("u{n}")});
        let addr = second.public_addr.unwrap();
        let posted = ask(addr, Method::POST, "/events", SERVER_KEY, Some(&login)).await;
        assert_eq!(posted.status, 202);
        let who = format!("anonymous_id=a{n}&user_id=u{n}");
        assert_eq!(shown(&second, &who).await, guest);
        assert_eq!(shown(&first, &who).await, guest);
        strangers += u32::from(shown(&first, &format!("user_id=other{n}")).await != guest);
    }
    // By the user's own hash some would have moved.
    assert!(strangers > 0);
    Box::pin(first.stop()).await;
    Box::pin(second.stop()).await;
}
