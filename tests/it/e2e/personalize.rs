//! `GET` and `POST /personalize`.

use std::time::{Duration, Instant};

use cartwright::domain::consent::Choice;
use cartwright::domain::transform::DecisionRecord;
use serde_json::{Value, json};

use crate::support::api::{Api, Mode, Options, PUBLIC, Reply, SERVER};
use crate::support::stack::{Stack, on_both_stacks};

on_both_stacks!(
    an_answer_fills_every_placement,
    an_acknowledged_event_shows_in_the_next_answer_before_any_lane_ran,
    events_sent_along_count_in_this_very_answer_and_do_not_go_away,
    an_order_counts_before_and_after_the_lane,
    a_cap_holds_although_records_are_not_awaited,
    an_experiment_is_always_recorded_and_sticks,
    without_a_place_for_its_record_no_experiment_takes_part,
    whatever_is_broken_the_answer_comes_in_time,
    a_miss_is_fetched_once_for_all_who_wait,
    without_a_ruleset_the_answer_says_so,
    what_the_caller_got_wrong_is_named,
    beyond_the_bound_an_answer_does_without_the_profile,
    a_record_holds_what_is_needed_to_decide_again_and_nobodys_raw_id,
    with_analytics_denied_nothing_kept_points_at_the_shopper,
    the_direct_way_and_the_router_answer_alike
);

fn added(id: &str, guest: &str) -> Value {
    json!({"event": "Product Added", "event_id": id, "anonymous_id": guest,
        "properties": {"product_id": "85123A", "price": 2.55, "quantity": 1, "currency": "GBP"}})
}

fn order(id: &str, user: &str) -> Value {
    json!({"event": "Order Completed", "event_id": id, "user_id": user, "properties": {"order_id": id,
        "currency": "GBP", "payment_method": "klarna",
        "products": [{"product_id": "85123A", "price": 2.55, "quantity": 2}]}})
}

async fn an_answer_fills_every_placement(stack: Stack) {
    let api = Api::start(stack).await;
    let reply = api
        .personalize("anonymous_id=a1&session_id=s1&cart=85123A:1:2.55", PUBLIC)
        .await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert!(reply.header("server-timing").unwrap().starts_with("profile;dur="));
    let answer: cartwright::http::Answer = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(
        uuid::Uuid::parse_str(&answer.decision_id)
            .unwrap()
            .get_version_num(),
        7
    );
    assert_eq!(answer.placements.len(), 4);
    assert_eq!(
        (
            answer.profile.known,
            &*answer.profile.source,
            answer.profile.age_ms
        ),
        (false, "none", None)
    );
    assert!(answer.degraded.is_empty());
    assert_eq!(reply.reason("promo"), "split");
    assert_eq!(reply.reason("banner"), "targeting_match");
    assert_eq!(
        answer.placements["payment_methods"].items.as_ref().unwrap().len(),
        3
    );
    let reply = api
        .personalize("anonymous_id=a1&placements=promo,nothing", PUBLIC)
        .await;
    assert_eq!(reply.json["placements"].as_object().unwrap().len(), 2);
    assert_eq!(
        reply.json["placements"]["nothing"],
        json!({"kind": "content", "payload": null, "reason": "no_match"})
    );
    api.stop().await;
}

async fn an_acknowledged_event_shows_in_the_next_answer_before_any_lane_ran(stack: Stack) {
    let mut api = Api::start(stack).await;
    api.pause_lane().await;
    api.accept(PUBLIC, added("e1", "a1")).await;
    let reply = api.personalize("anonymous_id=a1", PUBLIC).await;
    assert_eq!(reply.segments(), ["filler"]);
    assert_eq!(
        (&reply.json["profile"]["known"], &reply.json["profile"]["source"]),
        (&json!(true), &json!("none"))
    );
    // Sent twice, it counts once.
    let cleared = json!({"event": "Product Removed", "event_id": "e2", "anonymous_id": "a1",
        "properties": {"product_id": "85123A", "quantity": 1}});
    assert_eq!(
        api.post("/events", PUBLIC, &added("e1", "a1")).await.json["results"][0]["status"],
        "duplicate"
    );
    api.accept(PUBLIC, cleared).await;
    assert!(
        api.personalize("anonymous_id=a1", PUBLIC)
            .await
            .segments()
            .is_empty()
    );
    // And nothing changes when the lane has caught up.
    api.resume_lane();
    api.settle().await;
    let reply = api.personalize("anonymous_id=a1", PUBLIC).await;
    assert!(reply.segments().is_empty());
    assert_eq!(reply.json["profile"]["source"], "hot");
    assert!(reply.json["profile"]["age_ms"].is_u64());
    api.stop().await;
}

async fn events_sent_along_count_in_this_very_answer_and_do_not_go_away(stack: Stack) {
    let mut api = Api::start(stack).await;
    api.pause_lane().await;
    let ask = json!({"anonymous_id": "a1", "session_id": "s1", "placements": ["banner"],
        "events": [{"event": "Product Added", "event_id": "e1", "properties": {"product_id": "85123A", "quantity": 2}},
                   {"event_id": "e2"}]});
    let reply = api.post("/personalize", PUBLIC, &ask).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.segments(), ["filler"]);
    assert_eq!(reply.json["events"][0]["status"], "accepted");
    assert_eq!(
        reply.json["events"][1],
        json!({"event_id": "e2", "status": "rejected", "code": "missing_name"})
    );
    assert_eq!(
        api.personalize("anonymous_id=a1", PUBLIC).await.segments(),
        ["filler"]
    );
    api.resume_lane();
    api.settle().await;
    let settled = api.personalize("anonymous_id=a1", PUBLIC).await;
    assert_eq!(settled.segments(), ["filler"]);
    assert_eq!(settled.json["profile"]["source"], "hot");
    api.stop().await;
}

async fn an_order_counts_before_and_after_the_lane(stack: Stack) {
    let mut api = Api::start(stack).await;
    api.pause_lane().await;
    api.accept(SERVER, order("o1", "u1")).await;
    let ranking = |reply: &crate::support::api::Reply| {
        reply.json["placements"]["payment_methods"]["items"][0]["id"].clone()
    };
    let before = api.personalize("user_id=u1", SERVER).await;
    assert_eq!(
        (before.segments(), ranking(&before)),
        (vec!["buyer"], json!("klarna"))
    );
    api.resume_lane();
    api.settle().await;
    let after = api.personalize("user_id=u1", SERVER).await;
    assert_eq!(
        (after.segments(), ranking(&after)),
        (vec!["buyer"], json!("klarna"))
    );
    assert_eq!(after.json["profile"]["source"], "hot");
    api.stop().await;
}

async fn a_cap_holds_although_records_are_not_awaited(stack: Stack) {
    let api = Api::start(stack).await;
    let mut reasons = Vec::new();
    for _ in 0..4 {
        let reply = api
            .personalize("anonymous_id=a1&session_id=s1&placements=banner", PUBLIC)
            .await;
        reasons.push(reply.reason("banner").to_owned());
        // A shopper clicks slower than a record is appended.
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    assert_eq!(
        reasons,
        ["targeting_match", "targeting_match", "capped", "capped"]
    );
    let fresh = api
        .personalize("anonymous_id=a1&session_id=s2&placements=banner", PUBLIC)
        .await;
    assert_eq!(fresh.reason("banner"), "targeting_match");
    // Without an id a cap cannot be counted, and nothing is stored.
    let nobody = api.personalize("placements=banner", PUBLIC).await;
    assert_eq!(nobody.reason("banner"), "capped");
    let queue = std::sync::Arc::clone(&api.queue);
    let _stores = api.stop().await;
    assert_eq!(queue.extent(0).await.unwrap().next, 3);
}

async fn an_experiment_is_always_recorded_and_sticks(stack: Stack) {
    let api = Api::start(stack).await;
    let mut variants = std::collections::BTreeSet::new();
    for guest in 0..20 {
        let query = format!("anonymous_id=a{guest}&placements=promo&cart=85123A:1");
        let reply = api.personalize(&query, PUBLIC).await;
        assert_eq!(reply.reason("promo"), "split");
        let variant = reply.json["placements"]["promo"]["variant"].clone();
        assert_eq!(
            api.personalize(&query, PUBLIC).await.json["placements"]["promo"]["variant"],
            variant
        );
        variants.insert(variant.to_string());
    }
    assert_eq!(variants.len(), 2);
    let api_log = std::sync::Arc::clone(&api.queue);
    let _stores = api.stop().await;
    // Stopped, every record is durable.
    assert_eq!(api_log.extent(0).await.unwrap().next, 40);
}

async fn without_a_place_for_its_record_no_experiment_takes_part(stack: Stack) {
    let api = Api::start(stack).await;
    api.log.set(Mode::Fails);
    let mut withheld = None;
    for n in 0..10_000 {
        let reply = api
            .personalize(
                &format!("anonymous_id=a{n}&placements=promo&cart=85123A:1"),
                PUBLIC,
            )
            .await;
        assert_eq!(reply.status, 200);
        if reply.reason("promo") != "split" {
            withheld = Some(reply);
            break;
        }
    }
    let withheld = withheld.expect("the places to run out");
    assert_eq!(
        (withheld.reason("promo"), withheld.degraded()),
        ("degraded", vec!["decisions"])
    );
    api.log.set(Mode::Works);
    // The loss is told by a record to come, and shown in the results.
    let told = tokio::time::timeout(Duration::from_secs(30), async {
        loop {
            api.personalize("anonymous_id=later&placements=promo&cart=85123A:1", PUBLIC)
                .await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            api.settle().await;
            let results = api.get("/admin/v1/experiments/nudge/results", SERVER).await;
            // As long as the places fill up, there are more.
            if results.json["lost_exposures"].as_u64() >= Some(1) {
                return results.json;
            }
        }
    });
    let results = told.await.expect("the loss to be told");
    assert_eq!(results["sample_ratio"]["ok"], true);
    api.stop().await;
}

async fn whatever_is_broken_the_answer_comes_in_time(stack: Stack) {
    let mut options = Options::on(stack);
    options.settings.budget = Duration::from_millis(200);
    let api = Api::start_with(options).await;
    api.accept(SERVER, added("e1", "a1")).await;
    api.settle().await;
    let cases = [
        (Mode::Fails, Mode::Works, vec!["hot"], "warehouse"),
        (Mode::Hangs, Mode::Works, vec!["hot"], "warehouse"),
        (
            Mode::Fails,
            Mode::Fails,
            vec!["hot", "warehouse", "profile"],
            "none",
        ),
        (
            Mode::Hangs,
            Mode::Hangs,
            vec!["hot", "warehouse", "profile"],
            "none",
        ),
    ];
    for (hot, warehouse, degraded, source) in cases {
        api.hot.set(hot);
        api.warehouse.set(warehouse);
        let started = Instant::now();
        let reply = api
            .personalize("anonymous_id=a1&session_id=s&cart=85123A:1", PUBLIC)
            .await;
        let elapsed = started.elapsed();
        assert_eq!(reply.status, 200);
        assert!(
            elapsed < Duration::from_millis(400),
            "{hot:?} {warehouse:?}: {elapsed:?}"
        );
        assert_eq!(reply.degraded(), degraded, "{hot:?} {warehouse:?}");
        assert_eq!(reply.json["profile"]["source"], source, "{hot:?} {warehouse:?}");
        assert_eq!(reply.json["placements"].as_object().unwrap().len(), 4);
    }
    let started = Instant::now();
    let reply = api.personalize("anonymous_id=a2&deadline_ms=20", PUBLIC).await;
    assert!(
        started.elapsed() < Duration::from_millis(150),
        "a request may shorten its budget"
    );
    assert_eq!(reply.degraded(), ["hot", "warehouse", "profile"]);
    for switch in [&api.hot, &api.warehouse] {
        switch.set(Mode::Works);
    }
    api.stop().await;
}

async fn a_miss_is_fetched_once_for_all_who_wait(stack: Stack) {
    let api = std::sync::Arc::new(Api::start(stack).await);
    api.warehouse.set(Mode::Hangs);
    let asked = api.warehouse.calls.load(std::sync::atomic::Ordering::SeqCst);
    let waiting: Vec<_> = (0..16)
        .map(|_| {
            let api = std::sync::Arc::clone(&api);
            tokio::spawn(async move { api.personalize("anonymous_id=new", PUBLIC).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    api.warehouse.set(Mode::Works);
    for waiting in waiting {
        let reply = waiting.await.unwrap();
        assert_eq!((reply.status, reply.degraded().len()), (200, 0), "{reply:?}");
    }
    assert_eq!(
        api.warehouse.calls.load(std::sync::atomic::Ordering::SeqCst) - asked,
        1
    );
    std::sync::Arc::into_inner(api).unwrap().stop().await;
}

async fn without_a_ruleset_the_answer_says_so(stack: Stack) {
    let api = Api::start_with(Options {
        ruleset: None,
        ..Options::on(stack)
    })
    .await;
    let reply = api.personalize("anonymous_id=a1&placements=promo", PUBLIC).await;
    assert_eq!((reply.status, reply.degraded()), (200, vec!["ruleset"]));
    assert_eq!(
        reply.json["placements"]["promo"],
        json!({"kind": "content", "payload": null, "reason": "degraded"})
    );
    api.stop().await;
}

async fn what_the_caller_got_wrong_is_named(stack: Stack) {
    let api = Api::start(stack).await;
    for (query, status, code) in [
        ("cart=85123A", 400, "invalid_cart"),
        ("placements=a,,b", 400, "invalid_placements"),
        ("deadline_ms=0", 400, "invalid_deadline"),
        ("country=England", 400, "invalid_parameter"),
        ("explain=true", 403, "server_key_required"),
        ("user_id=u1", 403, "user_token_required"),
        ("user_id=u1&user_token=t1.1.x", 403, "invalid_user_token"),
    ] {
        api.personalize(query, PUBLIC).await.assert_problem(status, code);
    }
    api.send("GET", "/personalize", &[], b"")
        .await
        .assert_problem(401, "missing_key");
    api.personalize("", "nope")
        .await
        .assert_problem(401, "unknown_key");
    let in_url = api
        .send("GET", &format!("/personalize?key={SERVER}"), &[], b"")
        .await;
    in_url.assert_problem(403, "server_key_in_url");
    assert_eq!(in_url.header("www-authenticate"), None);
    let by_url = api
        .send(
            "GET",
            &format!("/personalize?key={PUBLIC}&placements=promo"),
            &[],
            b"",
        )
        .await;
    assert_eq!(by_url.status, 200);
    api.post("/personalize", PUBLIC, &json!([]))
        .await
        .assert_problem(400, "invalid_body");
    api.post("/personalize", PUBLIC, &json!({"cart": [{"sku": "a"}]}))
        .await
        .assert_problem(400, "invalid_body");
    let explained = api.personalize("explain=true&placements=promo", SERVER).await;
    assert!(explained.json["explain"].is_object(), "{explained:?}");
    api.stop().await;
}

async fn beyond_the_bound_an_answer_does_without_the_profile(stack: Stack) {
    let mut options = Options::on(stack);
    options.settings.in_flight = 1;
    let api = std::sync::Arc::new(Api::start_with(options).await);
    api.hot.set(Mode::Hangs);
    api.warehouse.set(Mode::Hangs);
    let held = {
        let api = std::sync::Arc::clone(&api);
        tokio::spawn(async move { api.personalize("anonymous_id=a1", PUBLIC).await })
    };
    while api.hot.calls.load(std::sync::atomic::Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let reply = api.personalize("anonymous_id=a2", PUBLIC).await;
    assert_eq!(
        (reply.status, reply.degraded()),
        (200, vec!["profile", "overload"])
    );
    api.hot.set(Mode::Works);
    api.warehouse.set(Mode::Works);
    assert_eq!(held.await.unwrap().status, 200);
    std::sync::Arc::into_inner(api).unwrap().stop().await;
}

async fn a_record_holds_what_is_needed_to_decide_again_and_nobodys_raw_id(stack: Stack) {
    let mut options = Options::on(stack);
    options.settings.record_share = 1.0;
    let api = Api::start_with(options).await;
    api.accept(SERVER, order("o1", "raw-user")).await;
    api.settle().await;
    let reply = api
        .personalize(
            "user_id=raw-user&session_id=raw-session&placements=upsell&cart=85123A:2:2.55&currency=GBP",
            SERVER,
        )
        .await;
    let events = loop {
        let events = api.logged().await;
        if events.len() > 1 {
            break events;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    let record = &events[1];
    assert_eq!(
        (&*record.name, Some(&*record.event_id)),
        ("Decision Served", reply.json["decision_id"].as_str())
    );
    let (_, facts) = DecisionRecord::from_event(record).unwrap();
    let facts = facts.unwrap().to_json();
    let body = String::from_utf8_lossy(&record.body);
    for text in [&*body, &*facts] {
        assert!(
            !text.contains("raw-user") && !text.contains("raw-session"),
            "{text}"
        );
    }
    let facts: Value = serde_json::from_str(&facts).unwrap();
    assert_eq!(
        facts["request"]["cart"],
        json!([{"item": "85123A", "quantity": 2, "price_minor": 255}])
    );
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(facts["profile"].as_str().unwrap())
        .unwrap();
    let profile = cartwright::domain::profile::Snapshot::read(bytes.into()).unwrap();
    assert_eq!(profile.purchases("").orders, 1);
    api.stop().await;
}

async fn with_analytics_denied_nothing_kept_points_at_the_shopper(stack: Stack) {
    let mut options = Options::on(stack);
    options.settings.record_share = 1.0;
    let api = Api::start_with(options).await;
    let ids = "anonymous_id=a1&session_id=s1&placements=promo,banner&cart=85123A:1";
    // By the request; then as the profile remembers, from an event that came along with such a request.
    let denied = format!("{ids}&consent=analytics:denied");
    assert_eq!(api.personalize(&denied, PUBLIC).await.reason("promo"), "split");
    let ask = json!({"anonymous_id": "a1", "session_id": "s1", "consent": {"analytics": "denied"},
        "events": [added("e1", "a1")]});
    assert_eq!(api.post("/personalize", PUBLIC, &ask).await.status, 200);
    for settled in [false, true] {
        assert_eq!(api.personalize(ids, PUBLIC).await.status, 200, "{settled}");
        api.settle().await;
    }
    let events = loop {
        let events = api.logged().await;
        if events.len() == 5 {
            break events;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    for event in events {
        if &*event.name == "Decision Served" {
            let (_, facts) = DecisionRecord::from_event(&event).unwrap();
            let facts: Value = serde_json::from_str(&facts.unwrap().to_json()).unwrap();
            assert_eq!((event.anonymous, event.user, event.session), (None, None, None));
            assert_eq!(facts["profile"], Value::Null, "{facts}");
            for id in ["anonymous", "user", "session"] {
                assert_eq!(facts["request"][id], Value::Null, "{facts}");
            }
        } else {
            // The one id whose consent this is, which goes to its part and nowhere else.
            assert_eq!(
                (event.claimed_user, event.user, event.session),
                (None, None, None)
            );
            assert_eq!(event.consent.analytics, Some(Choice::Denied));
        }
    }
    api.stop().await;
}

/// `GET` alone is answered without the router.
async fn the_direct_way_and_the_router_answer_alike(stack: Stack) {
    let api = Api::start(stack).await;
    let key = format!("Bearer {PUBLIC}");
    let headers = [("Authorization", &*key), ("Origin", "https://shop.example")];
    let ask = async |method: &str, path: &str| {
        let reply = api.send(method, path, &headers, b"").await;
        assert_eq!(
            reply.header("access-control-allow-origin"),
            Some("https://shop.example")
        );
        reply
    };
    let get = ask("GET", "/personalize?anonymous_id=a1").await;
    assert_eq!(get.status, 200, "{get:?}");
    let head = ask("HEAD", "/personalize?anonymous_id=a1").await;
    assert_eq!((head.status, &*head.body), (200, &b""[..]));
    let names = |reply: &Reply| {
        let mut names: Vec<String> = reply.headers.iter().map(|(name, _)| name.clone()).collect();
        names.sort_unstable();
        names
    };
    assert_eq!(names(&get), names(&head));
    // Who names no origin is told nothing of origins.
    let plain = api
        .send("GET", "/personalize?anonymous_id=a1", &headers[..1], b"")
        .await;
    assert_eq!(plain.status, 200, "{plain:?}");
    let of_origins = |name: &String| name.starts_with("access-control") || name == "vary";
    assert!(names(&get).iter().any(of_origins) && !names(&plain).iter().any(of_origins));
    let put = ask("PUT", "/personalize?anonymous_id=a1").await;
    put.assert_problem(405, "method_not_allowed");
    assert_eq!(put.header("allow"), Some("GET,HEAD,POST"));
    for path in ["/personalize/", "/personalise", "/Personalize"] {
        ask("GET", path).await.assert_problem(404, "not_found");
    }
    api.stop().await;
}
