//! No raw identifier at rest (invariant 6): whatever comes in, neither the log, nor the warehouse, nor the log lines at
//! their most talkative hold it.

use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use super::load::wait_until_applied;
use crate::support::process::{Client, Process, SERVER_KEY};

/// Each stands for a person, a device, a place or a secret, and nothing else holds it.
const RAW: [&str; 19] = [
    "rawuser-c0ffee",
    "rawanon-c0ffee",
    "rawsession-c0ffee",
    "rawclaim-c0ffee",
    "rawprevious-c0ffee",
    "rawtoken-c0ffee",
    "jane.c0ffee",
    "7700900123",
    "203.0.113.77",
    "2001:db8:77:88:99",
    "C0ffeeFirst",
    "C0ffeeStreet",
    "C0FFEE1AA",
    "rawquery-c0ffee",
    "rawadvertising-c0ffee",
    "4111111111111111",
    "rawpassword-c0ffee",
    "rawcookie-c0ffee",
    SERVER_KEY,
];

fn events() -> Value {
    let person = json!({"email": "jane.c0ffee@example.org", "phone": "+44 7700900123", "firstName": "C0ffeeFirst",
        "address": {"street": "1 C0ffeeStreet", "postalCode": "C0FFEE1AA"}, "password": "rawpassword-c0ffee"});
    let context = json!({"ip": "203.0.113.77", "traits": person, "userAgent": "Mozilla/5.0",
        "device": {"id": "rawadvertising-c0ffee", "advertisingId": "rawadvertising-c0ffee", "type": "mobile"},
        "page": {"url": "https://jane.c0ffee:x@shop.example/c?q=rawquery-c0ffee#rawquery-c0ffee",
                 "referrer": "https://search.example/?u=jane.c0ffee%40example.org"}});
    let ids = json!({"user_id": "rawuser-c0ffee", "anonymous_id": "rawanon-c0ffee", "session_id": "rawsession-c0ffee"});
    let event = |name: &str, properties: Value| {
        let mut event = ids.clone();
        event["event"] = json!(name);
        event["properties"] = properties;
        event["context"] = context.clone();
        event
    };
    let mut events = vec![
        event(
            "Product Viewed",
            json!({"product_id": "85123A", "url": "https://s.example/p?e=rawquery-c0ffee"}),
        ),
        event(
            "Wrote",
            json!({"text": "call jane.c0ffee@example.org", "jane.c0ffee@example.org": 1, "who": person}),
        ),
        event(
            "Order Completed",
            json!({"order_id": "o1", "currency": "GBP", "email": "jane.c0ffee@example.org",
            "customer": person, "card_number": "4111111111111111",
            "products": [{"product_id": "85123A", "quantity": 1, "price": 2.5}]}),
        ),
        // For quarantine: its name promises a product.
        event(
            "Product Added",
            json!({"email": "jane.c0ffee@example.org", "ip": "2001:db8:77:88:99::1"}),
        ),
        // Refused, with an address in its name and in its id.
        event("jane.c0ffee@example.org", json!({})),
    ];
    let mut with_id = event("Wrote", json!({}));
    with_id["event_id"] = json!("jane.c0ffee@example.org");
    events.push(with_id);
    events.push(json!({"type": "identify", "user_id": "rawuser-c0ffee", "traits": person}));
    events.push(
        json!({"event": "Alias", "user_id": "rawuser-c0ffee", "previous_id": "rawprevious-c0ffee",
        "previousId": "rawprevious-c0ffee"}),
    );
    let mut denied = event("Product Viewed", json!({"product_id": "85123A"}));
    denied["consent"] = json!({"analytics": "denied"});
    events.push(denied);
    json!({ "events": events })
}

#[test]
fn no_raw_identifier_is_kept_or_logged() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log-lines");
    let process = Process::start_logging(
        folder.path(),
        "trace",
        Stdio::from(std::fs::File::create(&log).unwrap()),
    );
    let mut client = Client::connect(process.addr).unwrap();
    let (status, receipts) = client.post("/events", &events().to_string()).unwrap();
    assert_eq!(status, 202, "{receipts}");
    let receipts: Value = serde_json::from_str(&receipts).unwrap();
    let statuses: Vec<_> = receipts["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["status"].as_str().unwrap())
        .collect();
    assert_eq!(
        statuses,
        [
            "accepted",
            "accepted",
            "accepted",
            "quarantined",
            "rejected",
            "rejected",
            "accepted",
            "accepted",
            "accepted"
        ]
    );
    let query =
        "user_id=rawuser-c0ffee&anonymous_id=rawanon-c0ffee&session_id=rawsession-c0ffee&q=rawquery-c0ffee";
    for path in [
        format!("/personalize?{query}"),
        format!("/personalize?{query}&explain=true"),
        format!("/personalize?{query}&user_token=rawtoken-c0ffee&cart=%FF"),
        format!("/nothing/here?{query}"),
        format!("/events?{query}"),
        format!("/personalize?key={SERVER_KEY}"),
    ] {
        assert!(client.get(&path).is_some(), "{path}");
    }
    let ask = json!({"user_id": "rawuser-c0ffee", "anonymous_id": "rawanon-c0ffee",
        "events": [{"event": "Product Viewed", "user_id": "rawclaim-c0ffee", "properties": {"product_id": "1"}}]});
    assert_eq!(client.post("/personalize", &ask.to_string()).unwrap().0, 200);
    for broken in [
        "{\"user_id\": \"rawuser-c0ffee\", ",
        "[\"jane.c0ffee@example.org\"]",
    ] {
        client.post("/events", broken).unwrap();
        client.post("/personalize", broken).unwrap();
    }
    wait_until_applied(&process);
    assert!(process.terminate().success());

    let mut bytes = 0;
    for path in files(folder.path()) {
        let content = text(&path);
        bytes += content.len();
        for raw in RAW {
            assert!(
                !content.contains(raw),
                "{raw} is in {}: {}",
                path.display(),
                around(&content, raw)
            );
        }
    }
    assert!(
        bytes > 100_000,
        "the log, the warehouse and the log lines were read: {bytes}"
    );
    assert!(text(&log).contains("ready"));
}

/// Whatever bytes a file holds; raw identifiers are ASCII and stay as they are.
fn text(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned()
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

fn around(content: &str, raw: &str) -> String {
    let start = content.find(raw).unwrap_or(0).saturating_sub(200);
    content
        .bytes()
        .skip(start)
        .take(400)
        .map(|b| if b.is_ascii_graphic() { b as char } else { ' ' })
        .collect()
}
