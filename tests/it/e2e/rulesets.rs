//! Rulesets as operators handle them: the kill switch, a dry run, the versions kept.

use std::time::{Duration, Instant};

use cartwright::app::{App, Running};
use cartwright::config::Config;
use hyper::Method;
use serde_json::{Value, json};

use crate::support::app::{PUBLIC_KEY, TestApp, ask};
use crate::support::stack::{Stack, on_both_stacks};

on_both_stacks!(a_dry_run_says_what_would_change_and_changes_nothing);

const RULESET: &str = "
version: 1
currency: GBP
placements:
  promo: {kind: content, fallback: none}
experiences:
  - {id: loud, placement: promo, priority: 1, payload: loud}
  - {id: calm, placement: promo, when: has(request.country), payload: calm}
";

async fn node(config: &Config) -> Running {
    Box::pin(App::start(config.clone())).await.unwrap()
}

/// What a node shows.
async fn shown(node: &Running) -> Value {
    let addr = node.public_addr.unwrap();
    let answer = ask(addr, Method::GET, "/personalize?country=GB", PUBLIC_KEY, None).await;
    answer.json()["placements"]["promo"]["payload"].clone()
}

async fn operate(node: &Running, path: &str) -> u16 {
    ask(node.operator_addr, Method::POST, path, "", None).await.status
}

/// Waits until every node shows `what`; at most two seconds, and as much again for a busy machine.
async fn reaches(nodes: &[&Running], what: &str) {
    let started = Instant::now();
    for node in nodes {
        while shown(node).await != what {
            assert!(
                started.elapsed() < Duration::from_secs(4),
                "{what} is not shown everywhere"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_reaches_every_node_and_outlives_restarts_and_rulesets() {
    let (mut config, _stores) = TestApp::on(Stack::Networked).await.ruleset(RULESET).config();
    let first = node(&config).await;
    config.ruleset = None;
    let other = config.data_dir.with_file_name("other");
    let second = node(&Config {
        data_dir: other,
        ..config.clone()
    })
    .await;
    reaches(&[&first, &second], "loud").await;

    assert_eq!(operate(&first, "/operator/v1/experiences/loud/pause").await, 204);
    // At once on the node that was told.
    assert_eq!(shown(&first).await, "calm");
    reaches(&[&second], "calm").await;
    assert_eq!(operate(&first, "/operator/v1/experiences/lou/pause").await, 404);

    // A node that starts knows, and a later ruleset does not bring it back.
    Box::pin(second.stop()).await;
    let third = node(&config).await;
    assert_eq!(shown(&third).await, "calm");
    let addr = first.operator_addr;
    let later = RULESET.replace("payload: calm", "payload: calmer");
    let request = hyper::Request::post("/operator/v1/ruleset")
        .body(later.into())
        .unwrap();
    assert_eq!(crate::support::app::call(addr, request).await.status, 200);
    reaches(&[&first, &third], "calmer").await;

    assert_eq!(operate(&third, "/operator/v1/experiences/loud/resume").await, 204);
    reaches(&[&third, &first], "loud").await;
    Box::pin(first.stop()).await;
    Box::pin(third.stop()).await;
}

#[tokio::test]
async fn what_is_kept_on_disk_names_what_is_paused() {
    let app = TestApp::embedded().ruleset(RULESET).start().await;
    let paused = app
        .operator(Method::POST, "/operator/v1/experiences/loud/pause", "")
        .await;
    assert_eq!(paused.status, 204);
    let kept = std::fs::read_to_string(app.data_dir.join("ruleset.kept")).unwrap();
    assert!(kept.starts_with("# version 1\n# paused loud\n"), "{kept}");
    app.stop().await;
}

async fn a_dry_run_says_what_would_change_and_changes_nothing(stack: Stack) {
    let app = TestApp::on(stack)
        .await
        .ruleset(RULESET)
        .set("decisions.record", "all")
        .start()
        .await;
    for n in 0..4 {
        let country = if n == 0 { "" } else { "&country=GB" };
        let path = format!("/personalize?anonymous_id=a{n}{country}");
        assert_eq!(
            app.get(&path, PUBLIC_KEY).await.json()["placements"]["promo"]["payload"],
            "loud"
        );
    }
    let other = RULESET.replace("priority: 1", "priority: -1");
    let run = tokio::time::timeout(Duration::from_secs(30), async {
        loop {
            app.settle().await;
            let answer = app
                .operator(
                    Method::POST,
                    "/operator/v1/ruleset/dry-run?hours=1",
                    other.clone(),
                )
                .await;
            assert_eq!(answer.status, 200);
            let run = answer.json();
            if run["decisions"] == 4 {
                return run;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let run = run.await.expect("every decision is recorded");
    let expected = json!({"decisions": 4, "changed": 3, "unreadable": 0,
        "changes": [{"placement": "promo", "from": "loud \"loud\"", "to": "calm \"calm\"", "decisions": 3}]});
    assert_eq!(run, expected);
    // The same experience with other words is a change as well.
    let reworded = RULESET.replace("payload: loud", "payload: louder");
    let run = app
        .operator(Method::POST, "/operator/v1/ruleset/dry-run?hours=1", reworded)
        .await;
    assert_eq!(run.json()["changed"], 4);
    let broken = app
        .operator(Method::POST, "/operator/v1/ruleset/dry-run?hours=1", "version: 2")
        .await;
    assert_eq!(broken.status, 422);
    let listed = app
        .operator(Method::GET, "/operator/v1/rulesets", "")
        .await
        .json();
    assert_eq!(listed.as_array().unwrap().len(), 1);
    let one = app
        .operator(Method::GET, "/operator/v1/rulesets/1", "")
        .await
        .json();
    assert_eq!((&one, &one["source"]), (&listed[0], &json!(RULESET)));
    assert_eq!(
        app.operator(Method::GET, "/operator/v1/rulesets/2", "")
            .await
            .status,
        404
    );
    app.stop().await;
}
