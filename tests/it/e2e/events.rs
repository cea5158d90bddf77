//! `POST /events`.

use std::io::Write as _;

use base64::Engine as _;
use serde_json::{Value, json};

use crate::support::api::{Api, Mode, OTHER, Options, PUBLIC, Reply, SERVER};
use crate::support::stack::{Stack, on_both_stacks};

on_both_stacks!(
    receipts_come_in_the_order_sent,
    every_shape_and_every_place_of_the_key_is_taken,
    what_cannot_be_taken_is_refused_whole,
    a_full_log_is_a_503_that_says_when_to_come_back,
    more_than_a_node_takes_is_shed_at_once,
    a_client_that_leaves_does_not_tear_an_append,
    only_the_shops_pages_pass_the_preflight,
    raw_identifiers_stay_out_of_the_log,
    shops_share_nothing
);

fn viewed(id: &str) -> Value {
    json!({"event": "Product Viewed", "event_id": id, "anonymous_id": "a1", "properties": {"product_id": "85123A"}})
}

fn statuses(reply: &Reply) -> Vec<&str> {
    reply.json["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|receipt| receipt["status"].as_str().unwrap())
        .collect()
}

async fn receipts_come_in_the_order_sent(stack: Stack) {
    let api = Api::start(stack).await;
    let body = json!({"events": [
        viewed("e1"),
        {"event_id": "e2"},
        {"event": "Product Viewed", "event_id": "e3", "anonymous_id": "a1", "properties": {}},
        viewed("e1"),
        {"event": "My Own Event", "anonymous_id": "a1"},
    ]});
    let reply = api.post("/events", SERVER, &body).await;
    assert_eq!(reply.status, 202);
    assert_eq!(
        statuses(&reply),
        ["accepted", "rejected", "quarantined", "duplicate", "accepted"],
        "{reply:?}"
    );
    let results = &reply.json["results"];
    assert_eq!(
        (&results[1]["event_id"], &results[1]["code"]),
        (&json!("e2"), &json!("missing_name"))
    );
    assert_eq!(results[2]["code"], "missing_product_id");
    assert!(results[4]["event_id"].is_string());
    // A later duplicate is recognised too, and appended all the same: the warehouse decides.
    let again = api.post("/events", SERVER, &viewed("e1")).await;
    assert_eq!(statuses(&again), ["duplicate"]);
    assert_eq!(api.logged().await.len(), 5);
    api.stop().await;
}

async fn every_shape_and_every_place_of_the_key_is_taken(stack: Stack) {
    let api = Api::start(stack).await;
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("{PUBLIC}:"));
    let json = ("Content-Type", "application/json");
    let one = viewed("1").to_string();
    let mut gzipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzipped
        .write_all(json!([viewed("5")]).to_string().as_bytes())
        .unwrap();
    let gzipped = gzipped.finish().unwrap();
    let with_key = json!({"key": PUBLIC, "events": [viewed("4")]}).to_string();
    let path = format!("/events?key={PUBLIC}");
    type Attempt<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [u8]);
    let attempts: [Attempt<'_>; 6] = [
        (
            "/events",
            &[("Authorization", &format!("Bearer {PUBLIC}")), json],
            one.as_bytes(),
        ),
        (
            "/events",
            &[("Authorization", &format!("Basic {basic}")), json],
            one.as_bytes(),
        ),
        (
            &path,
            &[("Content-Type", "text/plain;charset=UTF-8")],
            one.as_bytes(),
        ),
        ("/events", &[("Content-Type", "text/plain")], with_key.as_bytes()),
        (&path, &[json, ("Content-Encoding", "gzip")], &gzipped),
        (&path, &[], one.as_bytes()),
    ];
    for (index, (path, headers, body)) in attempts.into_iter().enumerate() {
        let reply = api.send("POST", path, headers, body).await;
        assert_eq!(reply.status, 202, "{index}: {reply:?}");
    }
    api.stop().await;
}

async fn what_cannot_be_taken_is_refused_whole(stack: Stack) {
    let options = Options::on(stack);
    let (body_bytes, inflated_bytes) = (options.settings.body_bytes, options.settings.inflated_bytes);
    let api = Api::start_with(options).await;
    let body = viewed("1").to_string();
    api.send("POST", "/events", &[], body.as_bytes())
        .await
        .assert_problem(401, "missing_key");
    api.send("POST", "/events?key=nope", &[], body.as_bytes())
        .await
        .assert_problem(401, "unknown_key");
    let in_url = format!("/events?key={SERVER}");
    api.send("POST", &in_url, &[], body.as_bytes())
        .await
        .assert_problem(403, "server_key_in_url");
    let path = format!("/events?key={PUBLIC}");
    let big = vec![b' '; body_bytes + 1];
    api.send("POST", &path, &[], &big)
        .await
        .assert_problem(413, "body_too_large");
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    bomb.write_all(&vec![b' '; inflated_bytes + 1]).unwrap();
    let bomb = bomb.finish().unwrap();
    api.send("POST", &path, &[("Content-Encoding", "gzip")], &bomb)
        .await
        .assert_problem(413, "body_too_large");
    api.send("POST", &path, &[("Content-Encoding", "gzip")], b"{}")
        .await
        .assert_problem(400, "invalid_gzip");
    api.send("POST", &path, &[("Content-Encoding", "br")], b"{}")
        .await
        .assert_problem(415, "unsupported_encoding");
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    api.send("POST", &path, &form, b"a=b")
        .await
        .assert_problem(415, "unsupported_media_type");
    for bad in [&b"{"[..], b"7", b"\xff", b"{\"events\": 7}"] {
        api.send("POST", &path, &[], bad)
            .await
            .assert_problem(400, "invalid_body");
    }
    let many = json!(vec![json!({"event": "x"}); 1_001]);
    api.post("/events", SERVER, &many)
        .await
        .assert_problem(400, "too_many_events");
    assert!(api.logged().await.is_empty());
    api.stop().await;
}

async fn a_full_log_is_a_503_that_says_when_to_come_back(stack: Stack) {
    let api = Api::start(stack).await;
    api.log.set(Mode::Fails);
    let reply = api.post("/events", SERVER, &viewed("1")).await;
    reply.assert_problem(503, "log_full");
    assert!(reply.header("retry-after").unwrap().parse::<u32>().unwrap() > 0);
    // What came along with a request for a decision is not acknowledged either.
    let ask = json!({"anonymous_id": "a1", "events": [{"event": "Cart Viewed"}]});
    api.post("/personalize", SERVER, &ask)
        .await
        .assert_problem(503, "log_full");
    api.log.set(Mode::Works);
    let reply = api.post("/events", SERVER, &viewed("1")).await;
    assert_eq!(
        statuses(&reply),
        ["accepted"],
        "a refused event leaves no hint behind"
    );
    api.stop().await;
}

async fn more_than_a_node_takes_is_shed_at_once(stack: Stack) {
    let mut options = Options::on(stack);
    options.settings.in_flight = 2;
    let api = std::sync::Arc::new(Api::start_with(options).await);
    api.log.set(Mode::Hangs);
    let held: Vec<_> = (0..2)
        .map(|n| {
            let api = std::sync::Arc::clone(&api);
            tokio::spawn(async move {
                api.post("/events", SERVER, &viewed(&format!("h{n}")))
                    .await
                    .status
            })
        })
        .collect();
    while api.log.calls.load(std::sync::atomic::Ordering::SeqCst) < 2 {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    let shed = api.post("/events", SERVER, &viewed("x")).await;
    shed.assert_problem(503, "overloaded");
    assert!(shed.header("retry-after").is_some());
    api.log.set(Mode::Works);
    for held in held {
        assert_eq!(held.await.unwrap(), 202);
    }
    std::sync::Arc::into_inner(api).unwrap().stop().await;
}

async fn a_client_that_leaves_does_not_tear_an_append(stack: Stack) {
    use tokio::io::AsyncWriteExt as _;
    let api = Api::start(stack).await;
    let body = json!([viewed("g1"), viewed("g2"), viewed("g3")]).to_string();
    let head = format!(
        "POST /events?key={PUBLIC} HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    for _ in 0..20 {
        let mut stream = tokio::net::TcpStream::connect(api.public).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body.as_bytes()).await.unwrap();
        drop(stream);
    }
    api.accept(SERVER, viewed("last")).await;
    // Whole bodies or nothing.
    assert_eq!(api.logged().await.len() % 3, 1);
    api.settle().await;
    api.stop().await;
}

async fn only_the_shops_pages_pass_the_preflight(stack: Stack) {
    let api = Api::start(stack).await;
    for path in ["/events", "/personalize"] {
        let preflight = |origin| {
            let headers = [
                ("Origin", origin),
                ("Access-Control-Request-Method", "POST"),
                ("Access-Control-Request-Headers", "authorization,content-type"),
            ];
            let api = &api;
            async move { api.send("OPTIONS", path, &headers, b"").await }
        };
        let allowed = preflight("https://shop.example").await;
        assert_eq!(allowed.status, 200, "{allowed:?}");
        assert_eq!(
            allowed.header("access-control-allow-origin"),
            Some("https://shop.example")
        );
        assert!(
            allowed
                .header("access-control-allow-headers")
                .unwrap()
                .contains("authorization")
        );
        assert_eq!(
            preflight("https://evil.example")
                .await
                .header("access-control-allow-origin"),
            None
        );
    }
    // Errors are readable for the page as well.
    let refused = api
        .send("GET", "/personalize", &[("Origin", "https://shop.example")], b"")
        .await;
    refused.assert_problem(401, "missing_key");
    assert_eq!(
        refused.header("access-control-allow-origin"),
        Some("https://shop.example")
    );
    api.stop().await;
}

async fn raw_identifiers_stay_out_of_the_log(stack: Stack) {
    let api = Api::start(stack).await;
    let event = json!({"event": "Signed Up", "user_id": "jane@example.org", "anonymous_id": "raw-anonymous",
        "session_id": "raw-session", "properties": {"email": "jane@example.org"}});
    api.accept(SERVER, event).await;
    let logged = format!("{:?}", api.logged().await);
    for raw in ["jane@example.org", "raw-anonymous", "raw-session"] {
        assert!(!logged.contains(raw), "{raw} in {logged}");
    }
    api.stop().await;
}

async fn shops_share_nothing(stack: Stack) {
    let api = Api::start(stack).await;
    api.accept(SERVER, viewed("e1")).await;
    // The same id in another shop is another event.
    api.accept(OTHER, viewed("e1")).await;
    let ours = api.personalize("anonymous_id=a1&placements=banner", SERVER).await;
    assert_eq!(ours.json["profile"]["known"], true);
    let events = api.logged().await;
    assert_ne!(events[0].anonymous, events[1].anonymous);
    api.stop().await;
}
