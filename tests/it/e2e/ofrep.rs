//! OFREP, the OpenFeature Remote Evaluation Protocol.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use cartwright::domain::transform::DecisionRecord;
use serde_json::{Value, json};

use crate::support::api::{Api, Mode, OTHER, Options, PUBLIC, Reply, SERVER, send};
use crate::support::app::{PUBLIC_KEY, SERVER_KEY, TestApp};
use crate::support::stack::{Stack, on_both_stacks};

on_both_stacks!(
    every_content_placement_is_a_flag,
    an_experiment_has_the_variant_that_personalize_shows,
    whatever_the_payload_is_the_flag_has_its_value,
    what_has_not_changed_is_not_served_again,
    whatever_may_change_an_answer_changes_its_tag,
    a_degraded_answer_says_so_and_has_no_tag,
    a_single_flag_is_decided_and_recorded_alone,
    what_the_caller_got_wrong_has_the_protocols_code,
    a_user_is_proven_as_everywhere,
    a_page_may_ask_and_read_the_tag,
    without_a_ruleset_a_provider_keeps_what_it_has
);

const ALL: &str = "/ofrep/v1/evaluate/flags";
const PROMO: &str = "/ofrep/v1/evaluate/flags/promo";

fn context(context: Value) -> Value {
    json!({ "context": context })
}

/// A shopper whom both flags of the ruleset have something for.
fn shopper(guest: &str) -> Value {
    context(json!({"targetingKey": guest, "sessionId": "s1", "cart": "85123A:1:2.55", "plan": "ignored"}))
}

fn flag<'a>(reply: &'a Reply, key: &str) -> &'a Value {
    let flags = reply.json["flags"].as_array().unwrap().iter();
    let mut flags = flags.filter(|flag| flag["key"] == key);
    flags.next().unwrap()
}

/// All flags, for whoever holds `tag`.
async fn all_but(api: &Api, tag: &str, body: &Value) -> Reply {
    let headers = [
        ("Authorization", &*format!("Bearer {PUBLIC}")),
        ("Content-Type", "application/json; charset=utf-8"),
        ("If-None-Match", tag),
    ];
    api.send("POST", ALL, &headers, body.to_string().as_bytes()).await
}

/// The sum of a metric over the series that have all these in their labels.
async fn metric(api: &Api, name: &str, labels: &[&str]) -> u64 {
    let metrics = send(api.operator, "GET", "/metrics", &[], b"").await;
    let metrics = String::from_utf8(metrics.body).unwrap();
    let series = metrics
        .lines()
        .filter(|line| line.starts_with(&format!("{name}{{")));
    let series = series.filter(|line| labels.iter().all(|label| line.contains(label)));
    series
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum()
}

fn assert_failure(reply: &Reply, status: u16, code: &str) {
    assert_eq!(
        (reply.status, reply.json["errorCode"].as_str()),
        (status, Some(code)),
        "{reply:?}"
    );
    assert!(reply.json["errorDetails"].is_string(), "{reply:?}");
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
}

async fn every_content_placement_is_a_flag(stack: Stack) {
    let api = Api::start(stack).await;
    let reply = api.post(ALL, PUBLIC, &shopper("a1")).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert!(reply.header("server-timing").unwrap().starts_with("profile;dur="));
    let tag = reply.header("etag").unwrap();
    assert!(
        tag.starts_with('"') && tag.ends_with('"') && tag.len() > 40,
        "{tag}"
    );
    let keys = reply.json["flags"].as_array().unwrap();
    let keys: BTreeSet<&str> = keys.iter().map(|flag| flag["key"].as_str().unwrap()).collect();
    assert_eq!(keys, BTreeSet::from(["banner", "promo"]));
    let decision_id = &flag(&reply, "banner")["metadata"]["decision_id"];
    assert!(uuid::Uuid::parse_str(decision_id.as_str().unwrap()).is_ok());
    assert_eq!(
        *flag(&reply, "banner"),
        json!({"key": "banner", "value": {"headline": "welcome"}, "reason": "TARGETING_MATCH", "variant": "welcome",
            "metadata": {"cartwright_reason": "targeting_match", "experience": "welcome", "decision_id": decision_id}})
    );
    let promo = flag(&reply, "promo");
    assert_eq!(
        (&promo["reason"], &promo["value"]["headline"]),
        (&json!("SPLIT"), &promo["variant"])
    );
    assert_eq!(
        promo["metadata"],
        json!({"cartwright_reason": "split", "experience": "nudge", "decision_id": decision_id})
    );
    // Without any id or cart: the contextual answer, as from GET /personalize.
    for body in [
        json!({}),
        context(json!({})),
        context(json!({"targetingKey": ""})),
    ] {
        let reply = api.post(ALL, PUBLIC, &body).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let promo = flag(&reply, "promo");
        assert_eq!(
            (&promo["value"], &promo["reason"], &promo["variant"]),
            (&json!({"headline": "none"}), &json!("STATIC"), &json!("fallback"))
        );
        let metadata = promo["metadata"].as_object().unwrap();
        assert_eq!(
            (&metadata["cartwright_reason"], metadata.get("experience")),
            (&json!("no_match"), None)
        );
    }
    let counted = metric(
        &api,
        "cartwright_http_request_duration_seconds_count",
        &["\"ofrep\"", "\"200\""],
    )
    .await;
    assert_eq!(counted, 4);
    let decided = |kind| {
        let labels = [kind];
        let api = &api;
        async move { metric(api, "cartwright_decisions_total", &labels).await }
    };
    assert_eq!(
        (
            decided("content").await,
            decided("ranking").await,
            decided("recommendation").await
        ),
        (8, 0, 0)
    );
    api.stop().await;
}

async fn an_experiment_has_the_variant_that_personalize_shows(stack: Stack) {
    let api = Api::start(stack).await;
    let mut seen = BTreeSet::new();
    for guest in 0..12 {
        let guest = format!("a{guest}");
        let by_flag = |reply: &Reply| flag(reply, "promo")["variant"].as_str().unwrap().to_owned();
        let query = format!("anonymous_id={guest}&placements=promo&cart=85123A:1");
        let personalize = async || {
            let reply = api.personalize(&query, PUBLIC).await;
            reply.json["placements"]["promo"]["variant"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        // Whichever way comes first, neither may assign anew.
        let (ours, theirs) = if guest.ends_with(['0', '2', '4', '6', '8']) {
            let ours = by_flag(&api.post(ALL, PUBLIC, &shopper(&guest)).await);
            (ours, personalize().await)
        } else {
            let theirs = personalize().await;
            (by_flag(&api.post(ALL, PUBLIC, &shopper(&guest)).await), theirs)
        };
        let single = api.post(PROMO, PUBLIC, &shopper(&guest)).await;
        assert_eq!(
            (&*ours, single.json["variant"].as_str()),
            (&*theirs, Some(&*theirs))
        );
        assert_eq!(single.json["value"], json!({"headline": theirs}));
        seen.insert(ours);
    }
    assert_eq!(seen.len(), 2);
    api.stop().await;
}

async fn whatever_the_payload_is_the_flag_has_its_value(stack: Stack) {
    const PAYLOADS: &str = r"
version: 1
currency: GBP
placements:
  switch: {kind: content, fallback: true}
  count: {kind: content, fallback: 3}
  share: {kind: content, fallback: 0.25}
  text: {kind: content, fallback: plain}
  list: {kind: content, fallback: [1, two]}
  nothing: {kind: content, fallback: null}
  kept: {kind: content, fallback: from}
  named: {kind: content, fallback: none}
  pay: {kind: ranking, by: payment_method, candidates: [card]}
experiences:
  - {id: rival, placement: kept, holdout: 90, payload: shown}
  - {id: only, placement: named, variants: [{id: one, payload: shown}]}
";
    let api = Api::start_with(Options {
        ruleset: Some(PAYLOADS),
        ..Options::on(stack)
    })
    .await;
    // Nine of ten are kept from the rival.
    let mut guest = String::new();
    for number in 0..20 {
        guest = format!("a{number}");
        let kept = api.post(&format!("{ALL}/kept"), PUBLIC, &shopper(&guest)).await;
        if kept.json["value"] == "from" {
            break;
        }
    }
    let reply = api.post(ALL, PUBLIC, &shopper(&guest)).await;
    assert_eq!(reply.json["flags"].as_array().unwrap().len(), 8, "{reply:?}");
    for (key, value) in [
        ("switch", json!(true)),
        ("count", json!(3)),
        ("share", json!(0.25)),
        ("text", json!("plain")),
        ("list", json!([1, "two"])),
        ("kept", json!("from")),
        ("named", json!("shown")),
    ] {
        assert_eq!(flag(&reply, key)["value"], value, "{key}");
        let single = api.post(&format!("{ALL}/{key}"), PUBLIC, &shopper(&guest)).await;
        assert_eq!(single.json["value"], value, "{key}");
    }
    // The protocol's way of saying that the code's own default is meant.
    assert!(flag(&reply, "nothing").get("value").is_none());
    // Kept from it by an experiment is assigned by an experiment.
    let kept = flag(&reply, "kept");
    assert_eq!(
        (&kept["reason"], &kept["variant"]),
        (&json!("SPLIT"), &json!("fallback"))
    );
    assert_eq!(kept["metadata"]["cartwright_reason"], "holdout");
    assert_eq!(flag(&reply, "named")["variant"], "one");
    api.stop().await;
}

async fn what_has_not_changed_is_not_served_again(stack: Stack) {
    let api = Api::start(stack).await;
    let first = api.post(ALL, PUBLIC, &shopper("a1")).await;
    let tag = first.header("etag").unwrap().to_owned();
    for round in 0..3 {
        // What serving wrote into the profile, wherever it is by now, makes no difference.
        let again = all_but(&api, &tag, &shopper("a1")).await;
        assert_eq!((again.status, again.body.len()), (304, 0), "{round}: {again:?}");
        assert_eq!(again.header("etag"), Some(&*tag));
        assert_eq!(again.header("content-type"), None);
        let listed = all_but(&api, &format!("\"other\", W/{tag}"), &shopper("a1")).await;
        assert_eq!(listed.status, 304);
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        api.settle().await;
    }
    // Six looks did not use up the cap of two.
    let second = all_but(&api, "\"other\"", &shopper("a1")).await;
    assert_eq!((second.status, second.header("etag")), (200, Some(&*tag)));
    assert_eq!(
        flag(&second, "banner")["metadata"]["cartwright_reason"],
        "targeting_match"
    );
    tokio::time::sleep(std::time::Duration::from_millis(60)).await;
    let third = all_but(&api, &tag, &shopper("a1")).await;
    assert_eq!(third.status, 200);
    assert_eq!(flag(&third, "banner")["metadata"]["cartwright_reason"], "capped");
    assert_eq!(flag(&third, "banner")["variant"], "fallback");
    assert_eq!(
        metric(&api, "cartwright_decisions_total", &["\"targeting_match\""]).await,
        2
    );
    let queue = Arc::clone(&api.queue);
    let _stores = api.stop().await;
    // Stopped, every record is durable: of the three that were served, and no other.
    assert_eq!(queue.extent(0).await.unwrap().next, 3);
}

async fn whatever_may_change_an_answer_changes_its_tag(stack: Stack) {
    let api = Api::start(stack).await;
    // Without a session, so that no cap counts the many evaluations.
    let body = context(json!({"targetingKey": "a1", "cart": "85123A:1:2.55"}));
    let tag = api
        .post(ALL, PUBLIC, &body)
        .await
        .header("etag")
        .unwrap()
        .to_owned();
    let mut tags = BTreeSet::from([tag.clone()]);
    for (name, value) in [
        ("targetingKey", json!("a2")),
        ("sessionId", json!("s2")),
        ("cart", json!("85123A:2:2.55")),
        ("cart", json!("85123A:1:2.56")),
        ("cart", json!("85123A:1")),
        ("cart", json!([])),
        ("cart", Value::Null),
        ("currency", json!("EUR")),
        ("country", json!("GB")),
        ("locale", json!("GB")),
        ("device", json!("GB")),
        ("consent", json!("analytics:granted")),
        ("consent", json!("personalization:granted")),
        ("consent", json!("personalization:denied")),
    ] {
        let mut changed = body.clone();
        changed["context"][name] = value;
        let reply = all_but(&api, &tag, &changed).await;
        assert_eq!(reply.status, 200, "{changed}");
        assert!(tags.insert(reply.header("etag").unwrap().to_owned()), "{changed}");
    }
    let of_other_shop = api.post(ALL, OTHER, &body).await;
    assert!(tags.insert(of_other_shop.header("etag").unwrap().to_owned()));
    // What is ignored is not covered.
    let mut more = body.clone();
    more["context"]["plan"] = json!({"changed": true});
    assert_eq!(all_but(&api, &tag, &more).await.status, 304);
    // What the shopper did, at once and when it has arrived everywhere.
    let viewed = json!({"event": "Product Viewed", "event_id": "e1", "anonymous_id": "a1",
        "properties": {"product_id": "85123A"}});
    api.accept(PUBLIC, viewed).await;
    let after = all_but(&api, &tag, &body).await;
    assert_eq!(after.status, 200);
    let after = after.header("etag").unwrap().to_owned();
    assert!(tags.insert(after.clone()));
    api.settle().await;
    assert_eq!(all_but(&api, &after, &body).await.status, 304);
    // Another ruleset, even one that says the same here.
    let ruleset = format!("{}\n# again\n", crate::support::api::RULESET);
    let headers = [("Content-Type", "application/yaml")];
    let applied = send(
        api.operator,
        "POST",
        "/operator/v1/ruleset",
        &headers,
        ruleset.as_bytes(),
    )
    .await;
    assert_eq!(applied.status, 200, "{applied:?}");
    let reply = all_but(&api, &after, &body).await;
    assert_eq!(reply.status, 200);
    assert!(tags.insert(reply.header("etag").unwrap().to_owned()));
    api.stop().await;
}

async fn a_degraded_answer_says_so_and_has_no_tag(stack: Stack) {
    let api = Api::start(stack).await;
    let well = api.post(ALL, PUBLIC, &shopper("a1")).await;
    let tag = well.header("etag").unwrap().to_owned();
    api.settle().await;
    for (hot, warehouse, degraded) in [
        (Mode::Fails, Mode::Works, "hot"),
        (Mode::Fails, Mode::Fails, "hot,warehouse,profile"),
    ] {
        api.hot.set(hot);
        api.warehouse.set(warehouse);
        let reply = all_but(&api, &tag, &shopper("a1")).await;
        assert_eq!((reply.status, reply.header("etag")), (200, None), "{reply:?}");
        assert_eq!(flag(&reply, "promo")["metadata"]["degraded"], degraded);
        let single = api.post(PROMO, PUBLIC, &shopper("a1")).await;
        assert_eq!(single.json["metadata"]["degraded"], degraded);
    }
    api.hot.set(Mode::Works);
    api.warehouse.set(Mode::Works);
    api.stop().await;
}

async fn a_single_flag_is_decided_and_recorded_alone(stack: Stack) {
    let api = Api::start(stack).await;
    let reply = api.post(PROMO, PUBLIC, &shopper("a1")).await;
    assert_eq!((reply.status, reply.header("etag")), (200, None), "{reply:?}");
    assert_eq!(
        (&reply.json["key"], &reply.json["reason"]),
        (&json!("promo"), &json!("SPLIT"))
    );
    let decision_id = reply.json["metadata"]["decision_id"].clone();
    tokio::time::sleep(std::time::Duration::from_millis(60)).await;
    let (queue, log) = (Arc::clone(&api.queue), api.logged().await);
    assert_eq!(log.len(), 1);
    let (record, _) = DecisionRecord::from_event(&log[0]).unwrap();
    assert_eq!(&*log[0].event_id, decision_id.as_str().unwrap());
    let placements: Vec<&str> = record
        .placements
        .iter()
        .map(|served| &*served.placement)
        .collect();
    assert_eq!(placements, ["promo"]);
    // It can be asked why, as of any decision.
    api.settle().await;
    let path = format!("/admin/v1/decisions/{}", decision_id.as_str().unwrap());
    let past = api.get(&path, SERVER).await;
    assert_eq!(
        (past.status, &past.json["reproduced"]),
        (200, &json!(true)),
        "{past:?}"
    );
    // The other flag's cap is untouched.
    for _ in 0..2 {
        let banner = api.post(&format!("{ALL}/banner"), PUBLIC, &shopper("a1")).await;
        assert_eq!(banner.json["variant"], "welcome");
        tokio::time::sleep(std::time::Duration::from_millis(60)).await;
    }
    let _stores = api.stop().await;
    assert_eq!(queue.extent(0).await.unwrap().next, 3);
}

async fn what_the_caller_got_wrong_has_the_protocols_code(stack: Stack) {
    let options = Options::on(stack);
    let body_bytes = options.settings.body_bytes;
    let api = Api::start_with(options).await;
    let bearer = ("Authorization", &*format!("Bearer {PUBLIC}"));
    let json_type = ("Content-Type", "application/json");
    for body in ["", "{", "[]", "7", r#"{"context": {"targetingKey": }}"#] {
        for path in [ALL, PROMO] {
            let reply = api
                .send("POST", path, &[bearer, json_type], body.as_bytes())
                .await;
            assert_failure(&reply, 400, "PARSE_ERROR");
            let key = (path == PROMO).then_some("promo");
            assert_eq!(reply.json["key"].as_str(), key);
        }
    }
    for body in [
        context(json!("a1")),
        context(json!({"targetingKey": 1})),
        context(json!({"userId": "u", "user_id": "u"})),
        context(json!({"sessionId": ["s"]})),
        context(json!({"cart": true})),
        context(json!({"cart": "85123A"})),
        context(json!({"cart": [{"sku": "85123A", "quantity": 0}]})),
        context(json!({"country": "United Kingdom"})),
        context(json!({"targetingKey": "a\u{0}"})),
    ] {
        assert_failure(&api.post(ALL, PUBLIC, &body).await, 400, "INVALID_CONTEXT");
        let single = api.post(PROMO, PUBLIC, &body).await;
        assert_failure(&single, 400, "INVALID_CONTEXT");
        assert_eq!(single.json["key"], "promo");
    }
    // Nothing of that name, a ranking, and what only looks like a name.
    for key in [
        "nothing",
        "payment_methods",
        "upsell",
        "%22%3E",
        "promo%2F",
        "PROMO",
    ] {
        let reply = api.post(&format!("{ALL}/{key}"), PUBLIC, &shopper("a1")).await;
        assert_failure(&reply, 404, "FLAG_NOT_FOUND");
    }
    let reply = api
        .post(&format!("{ALL}/no%20%22flag"), PUBLIC, &shopper("a1"))
        .await;
    assert_eq!(reply.json["key"], "no \"flag");
    let broken = api.post(&format!("{ALL}/%FF"), PUBLIC, &shopper("a1")).await;
    assert_failure(&broken, 404, "FLAG_NOT_FOUND");
    for path in [ALL, PROMO] {
        let reply = api.send("POST", path, &[json_type], b"{}").await;
        assert_failure(&reply, 401, "GENERAL");
        assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
        assert_failure(&api.post(path, "nobody", &shopper("a1")).await, 401, "GENERAL");
        let in_url = api
            .send("POST", &format!("{path}?key={SERVER}"), &[], b"{}")
            .await;
        assert_failure(&in_url, 403, "GENERAL");
        let large = vec![b' '; body_bytes + 1];
        assert_failure(
            &api.send("POST", path, &[bearer, json_type], &large).await,
            413,
            "GENERAL",
        );
        let form = ("Content-Type", "application/x-www-form-urlencoded");
        assert_failure(
            &api.send("POST", path, &[bearer, form], b"a=b").await,
            415,
            "GENERAL",
        );
    }
    let queue = Arc::clone(&api.queue);
    let _stores = api.stop().await;
    assert_eq!(queue.extent(0).await.unwrap().next, 0, "nothing was served");
}

async fn a_user_is_proven_as_everywhere(stack: Stack) {
    let api = Api::start(stack).await;
    let user = |names: [&str; 2], token: Option<&str>| {
        let mut body = context(json!({names[0]: "u1"}));
        if let Some(token) = token {
            body["context"][names[1]] = json!(token);
        }
        body
    };
    let token = api.token("u1");
    let others = api.token("u2");
    for names in [["userId", "userToken"], ["user_id", "user_token"]] {
        for path in [ALL, PROMO] {
            assert_failure(&api.post(path, PUBLIC, &user(names, None)).await, 403, "GENERAL");
            assert_failure(
                &api.post(path, PUBLIC, &user(names, Some(&others))).await,
                403,
                "GENERAL",
            );
            assert_eq!(
                api.post(path, PUBLIC, &user(names, Some(&token))).await.status,
                200
            );
            assert_eq!(api.post(path, SERVER, &user(names, None)).await.status, 200);
        }
    }
    let proven = user(["userId", "userToken"], Some(&token)).to_string();
    let claimed = user(["userId", "userToken"], None).to_string();
    let public = format!("Bearer {PUBLIC}");
    type Attempt<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str, u16);
    let in_url = format!("{ALL}?key={PUBLIC}");
    let attempts: [Attempt<'_>; 7] = [
        (ALL, &[("X-API-Key", PUBLIC)], &proven, 200),
        (ALL, &[("x-api-key", SERVER)], &claimed, 200),
        (ALL, &[("X-API-Key", PUBLIC)], &claimed, 403),
        (ALL, &[("X-API-Key", "nobody")], &proven, 401),
        // The first that is there counts.
        (
            ALL,
            &[("Authorization", &public), ("X-API-Key", SERVER)],
            &claimed,
            403,
        ),
        (&in_url, &[("X-API-Key", "nobody")], &proven, 401),
        (&in_url, &[], &proven, 200),
    ];
    for (index, (path, headers, body, status)) in attempts.into_iter().enumerate() {
        let reply = api.send("POST", path, headers, body.as_bytes()).await;
        assert_eq!(reply.status, status, "{index}: {reply:?}");
    }
    api.stop().await;
}

async fn a_page_may_ask_and_read_the_tag(stack: Stack) {
    let api = Api::start(stack).await;
    let headers = [
        ("Origin", "https://shop.example"),
        ("Access-Control-Request-Method", "POST"),
        (
            "Access-Control-Request-Headers",
            "authorization,content-type,if-none-match,x-api-key",
        ),
    ];
    let preflight = api.send("OPTIONS", ALL, &headers, b"").await;
    let allowed = preflight
        .header("access-control-allow-headers")
        .unwrap()
        .to_ascii_lowercase();
    let allowed: BTreeSet<&str> = allowed.split(',').map(str::trim).collect();
    for name in ["authorization", "content-type", "if-none-match", "x-api-key"] {
        assert!(allowed.contains(name), "{name} in {allowed:?}");
    }
    let mut tag: Option<String> = None;
    for status in [200, 304] {
        let known = tag.clone().unwrap_or_default();
        let headers = [
            ("Origin", "https://shop.example"),
            ("X-API-Key", PUBLIC),
            ("If-None-Match", &*known),
        ];
        let reply = api
            .send("POST", ALL, &headers, shopper("a1").to_string().as_bytes())
            .await;
        assert_eq!(reply.status, status);
        assert_eq!(
            reply.header("access-control-allow-origin"),
            Some("https://shop.example")
        );
        let exposed = reply
            .header("access-control-expose-headers")
            .unwrap()
            .to_ascii_lowercase();
        assert!(exposed.split(',').any(|name| name.trim() == "etag"), "{exposed}");
        tag = reply.header("etag").map(str::to_owned);
    }
    api.stop().await;
}

async fn without_a_ruleset_a_provider_keeps_what_it_has(stack: Stack) {
    let api = Api::start_with(Options {
        ruleset: None,
        ..Options::on(stack)
    })
    .await;
    for path in [ALL, PROMO] {
        let reply = api.post(path, PUBLIC, &shopper("a1")).await;
        assert_failure(&reply, 503, "GENERAL");
        assert!(reply.header("retry-after").unwrap().parse::<u32>().is_ok());
    }
    api.stop().await;
}

/// The ruleset that `tests/ofrep/check.mjs` knows.
const OF_THE_SDKS: &str = r"
version: 1
currency: GBP
placements:
  payment_methods: {kind: ranking, by: payment_method, candidates: [card, paypal]}
  promo: {kind: content, fallback: {headline: none}}
  banner: {kind: content, fallback: {headline: plain}}
  switch: {kind: content, fallback: true}
  count: {kind: content, fallback: 3}
  text: {kind: content, fallback: plain}
experiences:
  - id: nudge
    placement: promo
    when: request.cart.count > 0
    variants:
      - {id: a, weight: 1, payload: {headline: a}}
      - {id: b, weight: 1, payload: {headline: b}}
  - {id: abroad, placement: banner, when: has(request.country) && request.country != 'GB', payload: {headline: bonjour}}
  - {id: waiting, placement: banner, when: profile.cart.count > 0, payload: {headline: still there}}
";

/// Runs the real clients under node. Where there is no node, a run of CI fails; elsewhere this says that nothing was tested.
#[tokio::test]
async fn openfeatures_own_sdks_are_served() {
    const MISSING: &str = "this test needs the programs node (18 or later) and npm; `make test` installs Debian's packages of \
        them as root, elsewhere install Node.js from https://nodejs.org";
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ofrep");
    let program = |name: &str| {
        let mut command = Command::new(name);
        command.current_dir(&folder);
        command
    };
    let is_there = |name| program(name).arg("--version").output().is_ok();
    if !(is_there("node") && is_there("npm")) {
        #[allow(clippy::disallowed_methods, reason = "a switch of this test alone")]
        let in_ci = std::env::var_os("CI").is_some();
        assert!(!in_ci, "{MISSING}");
        #[allow(clippy::disallowed_macros, reason = "whoever runs this by hand is to know")]
        {
            eprintln!("NOT TESTED: {MISSING}");
        }
        return;
    }
    if !is_installed(&folder) {
        let mut npm = program("npm");
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
        succeeded("npm ci", npm.output());
    }
    let app = TestApp::embedded()
        .ruleset(OF_THE_SDKS)
        // Who gets which variant is a matter of the key.
        .set("pseudonym_key", "k1:0123456789abcdef")
        .start()
        .await;
    let mut node = program("node");
    node.arg("check.mjs")
        .env("CARTWRIGHT_URL", format!("http://{}", app.addr()))
        .env("CARTWRIGHT_PUBLIC_KEY", PUBLIC_KEY)
        .env("CARTWRIGHT_SERVER_KEY", SERVER_KEY);
    let output = tokio::task::spawn_blocking(move || node.output()).await.unwrap();
    let told = succeeded("check.mjs", output);
    assert!(told.ends_with("all as it should be\n"), "{told}");
    app.stop().await;
}

/// Whether npm ended well in `folder`, with what the lock file says now.
fn is_installed(folder: &Path) -> bool {
    let changed = |file: &str| std::fs::metadata(folder.join(file)).and_then(|file| file.modified());
    let installed = changed("node_modules/.package-lock.json");
    installed.is_ok_and(|installed| installed >= changed("package-lock.json").unwrap())
}

fn succeeded(what: &str, output: io::Result<Output>) -> String {
    let output = output.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (told, complained) = (text(&output.stdout), text(&output.stderr));
    assert!(
        output.status.success(),
        "{what}: {}\n{told}\n{complained}",
        output.status
    );
    told
}
