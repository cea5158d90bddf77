use cartwright::config::StoreUrl;
use hyper::Method;
use serde_json::json;

use crate::support::app::{PUBLIC_KEY, SERVER_KEY, TestApp};
use crate::support::stack::{Stack, on_both_stacks};

on_both_stacks!(
    a_bare_start_is_ready_and_answers,
    an_event_is_in_the_warehouse_after_a_restart_and_counts_in_the_next_answer,
    a_warehouse_filled_under_another_pseudonym_key_is_refused,
    a_ruleset_applied_while_running_is_in_force_at_once,
    a_ruleset_with_problems_ends_the_start_by_file_and_line,
    a_request_under_way_at_the_stop_is_answered
);

async fn a_bare_start_is_ready_and_answers(stack: Stack) {
    let app = TestApp::on(stack).await.start().await;
    assert_eq!(app.operator(Method::GET, "/health/ready", "").await.status, 200);
    let answer = app.get("/personalize?anonymous_id=a1", PUBLIC_KEY).await;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert_eq!(answer.json()["placements"]["payment_methods"]["kind"], "ranking");
    let metrics = app.operator(Method::GET, "/metrics", "").await;
    let text = String::from_utf8(metrics.body.to_vec()).unwrap();
    assert!(text.contains("cartwright_ready 1"), "{text}");
    app.stop().await;
}

async fn an_event_is_in_the_warehouse_after_a_restart_and_counts_in_the_next_answer(stack: Stack) {
    let app = TestApp::on(stack).await.start().await;
    let event = json!({"event": "Product Viewed", "event_id": "e1", "anonymous_id": "a1",
        "properties": {"product_id": "p1"}});
    let answer = app.post("/events", PUBLIC_KEY, &event).await;
    assert_eq!(answer.status, 202, "{:?}", answer.body);
    assert_eq!(answer.json()["results"][0]["status"], "accepted");
    let folder = app.stop().await;

    let app = TestApp::with(folder).start().await;
    let answer = app.get("/personalize?anonymous_id=a1", PUBLIC_KEY).await.json();
    assert_eq!(answer["profile"]["known"], true, "{answer}");
    let source = match stack {
        Stack::Embedded => "warehouse",
        Stack::Networked => "hot",
    };
    assert_eq!(answer["profile"]["source"], source, "{answer}");
    app.stop().await;
}

#[tokio::test]
async fn on_shared_stores_keys_are_never_made() {
    let (mut config, _stores) = TestApp::on(Stack::Networked).await.config();
    (config.keys.server, config.keys.pseudonym) = (None, None);
    let error = Box::pin(cartwright::app::App::start(config.clone()))
        .await
        .map(drop)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("server_key, pseudonym_key are not configured")
            && error.contains("cartwright keys generate"),
        "{error}"
    );
    assert!(!config.key_file().exists());
}

#[tokio::test]
async fn an_outdated_schema_is_not_touched_and_names_the_command() {
    let database = crate::support::postgres::Database::empty().await;
    let bare = TestApp::on(Stack::Networked).await;
    let behind = bare.set("warehouse.url", database.url());
    let (config, _stores) = behind.config();
    let start = || Box::pin(cartwright::app::App::start(config.clone()));
    let error = start().await.map(drop).unwrap_err().to_string();
    assert!(error.contains("run `cartwright migrate`"), "{error}");
    cartwright::app::migrate(&config).await.unwrap();
    cartwright::app::migrate(&config).await.unwrap();
    let running = start().await.unwrap();
    assert!(running.public_addr.is_some());
    Box::pin(running.stop()).await;
}

#[tokio::test]
async fn keys_that_nobody_configured_are_made_once() {
    let bare = || TestApp::embedded().set("environment", "test");
    let (mut config, folder) = bare().config();
    (config.keys.public, config.keys.server) = (None, None);
    let running = Box::pin(cartwright::app::App::start(config.clone()))
        .await
        .unwrap();
    let first = running.keys.named();
    assert!(first[0].1.as_ref().unwrap().starts_with("pk_test_"));
    Box::pin(running.stop()).await;

    let running = Box::pin(cartwright::app::App::start(config)).await.unwrap();
    assert_eq!(running.keys.named(), first);
    Box::pin(running.stop()).await;
    drop(folder);
}

async fn a_warehouse_filled_under_another_pseudonym_key_is_refused(stack: Stack) {
    let folder = TestApp::on(stack).await.start().await.stop().await;
    let other = TestApp::with(folder).set("pseudonym_key", "k1:another-secret-key");
    let error = other.try_start().await.map(drop).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("is not the key that this warehouse was filled with"),
        "{error}"
    );
}

#[tokio::test]
async fn a_second_process_on_the_same_log_is_refused() {
    let app = TestApp::embedded().start().await;
    let (mut config, _stores) = TestApp::embedded().config();
    config.data_dir.clone_from(&app.data_dir);
    config.queue.url = StoreUrl::new(&format!("disk:{}", app.data_dir.join("queue").display()));
    let error = Box::pin(cartwright::app::App::start(config))
        .await
        .map(|_| ())
        .unwrap_err();
    assert!(error.to_string().contains("in use by another process"), "{error}");
    app.stop().await;
}

async fn a_ruleset_applied_while_running_is_in_force_at_once(stack: Stack) {
    let app = TestApp::on(stack).await.start().await;
    let ruleset =
        "version: 1\ncurrency: GBP\nplacements:\n  hero:\n    kind: content\n    fallback: {text: hi}\n";
    let answer = app.operator(Method::POST, "/operator/v1/ruleset", ruleset).await;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    let answer = app.get("/personalize", SERVER_KEY).await.json();
    assert_eq!(answer["placements"]["hero"]["payload"]["text"], "hi", "{answer}");
    app.stop().await;
}

async fn a_ruleset_with_problems_ends_the_start_by_file_and_line(stack: Stack) {
    let broken = TestApp::on(stack)
        .await
        .ruleset("version: 1\ncurrency: GBP\nplacements:\n  hero:\n    kind: banner\n");
    let error = format!("{:#}", broken.try_start().await.map(drop).unwrap_err());
    assert!(error.contains("ruleset.yaml:5:"), "{error}");
}

async fn a_request_under_way_at_the_stop_is_answered(stack: Stack) {
    let app = TestApp::on(stack).await.start().await;
    let addr = app.addr();
    // A body that ends only after the stop has begun.
    let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
    let body = r#"{"event":"Product Viewed","event_id":"late","anonymous_id":"a1","properties":{"product_id":"p1"}}"#;
    let (early, late) = body.split_at(20);
    let head = format!(
        "POST /events?key={PUBLIC_KEY} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(early.as_bytes()).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    let stopping = tokio::spawn(app.stop());
    tokio::time::sleep(std::time::Duration::from_millis(400)).await;
    stream.write_all(late.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    assert!(answer.to_lowercase().contains("connection: close"), "{answer}");
    let folder = stopping.await.unwrap();

    let app = TestApp::with(folder).start().await;
    app.settle().await;
    let answer = app.get("/personalize?anonymous_id=a1", PUBLIC_KEY).await.json();
    assert_eq!(answer["profile"]["known"], true, "{answer}");
    app.stop().await;
}
