//! Bodies of every kind, honest and hostile.

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::domain::consent::Choice;
use crate::domain::ids::{Environment, IdKind};
use crate::domain::transform::transform;

const NOW: Timestamp = Timestamp(1_795_000_000_000);
const DAY_MS: i64 = 86_400_000;

struct Desk {
    shop: Shop,
    key: PseudonymKey,
    tokens: UserTokenKey,
    limits: EventLimits,
}

fn desk() -> Desk {
    Desk {
        shop: Shop::new("acme", Environment::Live).unwrap(),
        key: PseudonymKey::new("k1", b"secret"),
        tokens: UserTokenKey::new("t1", b"token secret"),
        limits: EventLimits::default(),
    }
}

impl Desk {
    fn judge_bytes(&self, source: Source, body: &[u8]) -> Result<Vec<Outcome>, BodyError> {
        let ctx = IngestContext {
            shop: &self.shop,
            source,
            key: &self.key,
            user_token_key: Some(&self.tokens),
            received_at: NOW,
            limits: &self.limits,
        };
        let mut n = 0;
        let mut fresh = || {
            n += 1;
            format!("fresh-{n}")
        };
        Ok(Body::parse(body, self.limits.max_events)?.validate(&ctx, &mut fresh))
    }

    fn judge(&self, source: Source, event: &Json) -> Outcome {
        self.judge_bytes(source, json!([event]).to_string().as_bytes())
            .unwrap()
            .remove(0)
    }

    fn accept(&self, source: Source, event: &Json) -> Event {
        match self.judge(source, event) {
            Outcome::Accepted(event) => event,
            other => panic!("{event}: {other:?}"),
        }
    }
}

fn accepted(event: Json) -> Event {
    desk().accept(Source::Public, &event)
}

fn body_of(event: &Event) -> Json {
    serde_json::from_slice(&event.body).unwrap()
}

fn rejected(source: Source, event: Json) -> RejectCode {
    match desk().judge(source, &event) {
        Outcome::Rejected { code, .. } => code,
        other => panic!("{event}: {other:?}"),
    }
}

fn quarantined(event: Json) -> String {
    match desk().judge(Source::Public, &event) {
        Outcome::Quarantined(event) => event.quarantine.unwrap().to_string(),
        other => panic!("{event}: {other:?}"),
    }
}

#[test]
fn every_shape_of_a_body_is_understood() {
    let event = json!({"event": "Product Viewed", "event_id": "e", "properties": {"product_id": "p"}});
    let desk = desk();
    for body in [
        event.clone(),
        json!([event]),
        json!({"events": [event]}),
        json!({"batch": [event], "sentAt": "2026-11-18T00:00:00Z", "writeKey": "pk"}),
    ] {
        let outcomes = desk
            .judge_bytes(Source::Public, body.to_string().as_bytes())
            .unwrap();
        assert!(
            matches!(&outcomes[..], [Outcome::Accepted(e)] if &*e.event_id == "e"),
            "{body}"
        );
    }
    let body = json!({"key": "pk_1", "events": []}).to_string();
    assert_eq!(Body::parse(body.as_bytes(), 1).unwrap().key(), Some("pk_1"));
}

#[test]
fn only_what_is_not_json_fails_the_whole_body() {
    let limits = EventLimits::default();
    let parse = |text: &[u8]| Body::parse(text, 2).map(|body| body.len());
    assert_eq!(parse(b"[{},1]"), Ok(2));
    assert_eq!(parse(b"[]"), Ok(0));
    assert_eq!(parse(b"[{},{},{}]"), Err(BodyError::TooManyEvents { limit: 2 }));
    assert_eq!(parse(b"7"), Err(BodyError::Shape));
    assert_eq!(parse(b"{\"events\":7}"), Err(BodyError::Shape));
    assert!(matches!(parse(b"[{}"), Err(BodyError::Json { .. })));
    assert!(matches!(parse(b"[{}] x"), Err(BodyError::Json { .. })));
    assert!(matches!(
        parse(b"{\"event\":\"\xff\"}"),
        Err(BodyError::Json { .. })
    ));
    assert!(matches!(
        parse("[".repeat(limits.max_event_bytes).as_bytes()),
        Err(BodyError::Json { .. })
    ));
}

#[test]
fn segment_calls_are_understood() {
    let event = accepted(json!({
        "type": "track", "event": "product viewed", "messageId": "m", "anonymousId": "a", "userId": "u",
        "timestamp": "2026-11-18T00:00:00Z", "sentAt": "2026-11-18T00:00:01Z", "properties": {"sku": "p"}
    }));
    assert_eq!((&*event.event_id, &*event.name), ("m", "Product Viewed"));
    assert!(event.anonymous.is_some() && event.user.is_none() && event.claimed_user.is_some());
    assert_eq!(event.event_time, Timestamp(NOW.0 - 1000));
    for (kind, name) in [
        ("page", "Page Viewed"),
        ("screen", "Screen Viewed"),
        ("identify", "Identify"),
    ] {
        assert_eq!(&*accepted(json!({"type": kind, "messageId": "m"})).name, name);
    }
    let identify = accepted(json!({"type": "identify", "messageId": "m", "traits":
        {"name": "Ann", "plan": "gold", "email": "ann@example.org"}}));
    let traits = &body_of(&identify)["properties"];
    assert_eq!(traits["plan"], "gold");
    assert!(traits.get("name").is_none() && traits["email"].as_str().unwrap().starts_with("k1."));
}

#[test]
fn broken_envelopes_are_rejected_with_their_reason() {
    for (event, code) in [
        (json!(7), "malformed_event"),
        (json!({}), "missing_name"),
        (json!({"event": ""}), "missing_name"),
        (json!({"event": {}}), "invalid_name"),
        (json!({"event": "a\nb"}), "invalid_name"),
        (json!({"event": "bob@example.org came"}), "invalid_name"),
        (json!({"event": "x".repeat(129)}), "invalid_name"),
        (json!({"event": "decision served"}), "reserved_name"),
        (
            json!({"event": "alias", "user_id": "a", "previous_id": "b"}),
            "server_only",
        ),
        (json!({"event": "Identity Unlinked"}), "server_only"),
        (
            json!({"event": "X", "event_id": "y".repeat(129)}),
            "invalid_event_id",
        ),
        (json!({"event": "X", "event_id": []}), "invalid_event_id"),
        (
            json!({"event": "X", "event_id": "a@example.org"}),
            "invalid_event_id",
        ),
        (json!({"event": "X", "user_id": "u\u{0}"}), "invalid_user_id"),
        (json!({"event": "X", "user_id": true}), "invalid_user_id"),
        (
            json!({"event": "X", "anonymous_id": "a".repeat(257)}),
            "invalid_anonymous_id",
        ),
        (json!({"event": "X", "session_id": {}}), "invalid_session_id"),
        (
            json!({"event": "X", "timestamp": "yesterday"}),
            "invalid_timestamp",
        ),
        (json!({"event": "X", "timestamp": 1.5}), "invalid_timestamp"),
        (
            json!({"event": "X", "timestamp": 1, "sent_at": []}),
            "invalid_sent_at",
        ),
        (
            json!({"event": "X", "properties": {"a": "b".repeat(9000)}}),
            "string_too_long",
        ),
        (
            json!({"event": "X", "properties": {"a": vec![0; 40_000]}}),
            "event_too_large",
        ),
    ] {
        assert_eq!(rejected(Source::Public, event.clone()).as_str(), code, "{event}");
    }
    assert_eq!(
        rejected(Source::Server, json!({"event": "Alias", "user_id": "a"})),
        RejectCode::MissingIdentity
    );
    let mut deep = json!(1);
    for _ in 0..20 {
        deep = json!([deep]);
    }
    assert_eq!(
        rejected(Source::Public, json!({"event": "X", "properties": {"a": deep}})),
        RejectCode::TooDeep
    );
    let many: serde_json::Map<String, Json> = (0..300).map(|n| (n.to_string(), json!(n))).collect();
    assert_eq!(
        rejected(Source::Public, json!({"event": "X", "properties": many})),
        RejectCode::TooManyMembers
    );
}

#[test]
fn ill_typed_known_properties_are_quarantined() {
    let order = |more: Json| {
        let mut properties = json!({"order_id": "o", "currency": "GBP", "total": 1});
        for (key, value) in more.as_object().unwrap() {
            properties[key] = value.clone();
        }
        json!({"event": "Order Completed", "event_id": "e", "properties": properties})
    };
    let product =
        |properties: Json| json!({"event": "Product Added", "event_id": "e", "properties": properties});
    for (event, code) in [
        (product(json!({})), "missing_product_id"),
        (product(json!([])), "invalid_properties"),
        (product(json!({"product_id": {}})), "invalid_product_id"),
        (
            product(json!({"product_id": "p", "price": "cheap"})),
            "invalid_price",
        ),
        (
            product(json!({"product_id": "p", "quantity": 1.5})),
            "invalid_quantity",
        ),
        (
            product(json!({"product_id": "p", "quantity": -1})),
            "invalid_quantity",
        ),
        (order(json!({"order_id": null})), "missing_order_id"),
        (order(json!({"order_id": ["o"]})), "invalid_order_id"),
        (order(json!({"currency": "pounds"})), "invalid_currency"),
        (order(json!({"currency": null})), "missing_currency"),
        (order(json!({"total": "much"})), "invalid_total"),
        (order(json!({"total": null})), "invalid_total"),
        (order(json!({"products": {}})), "invalid_products"),
        (order(json!({"products": [{"price": 1}]})), "missing_product_id"),
        (
            order(json!({"products": [{"sku": "p", "price": 1e17, "quantity": 1e17}]})),
            "invalid_price",
        ),
        (
            json!({"event": "Checkout Step Viewed", "event_id": "e", "properties": {"step": "two"}}),
            "invalid_step",
        ),
    ] {
        assert_eq!(quarantined(event.clone()), code, "{event}");
    }
    let huge = br#"{"event":"X","event_id":"e","properties":{"n":1e999}}"#;
    match &desk().judge_bytes(Source::Public, huge).unwrap()[0] {
        Outcome::Quarantined(event) => {
            assert_eq!(event.quarantine.as_deref(), Some("number_out_of_range"));
            assert_eq!(&event.body[..], br#"{"properties":{"n":null}}"#);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn clocks_are_corrected_once() {
    let time = |source, timestamp: Json, sent_at: Json| {
        let event = json!({"event": "X", "event_id": "e", "timestamp": timestamp, "sent_at": sent_at});
        NOW.0 - desk().accept(source, &event).event_time.0
    };
    let public = |timestamp, sent_at| time(Source::Public, timestamp, sent_at);
    assert_eq!(public(json!(null), json!(null)), 0);
    // A clock two hours ahead, an event sent five seconds after it happened.
    assert_eq!(public(json!(NOW.0 + 7_195_000), json!(NOW.0 + 7_200_000)), 5000);
    assert_eq!(public(json!(2000), json!(1000)), 0);
    assert_eq!(public(json!(0), json!(90 * DAY_MS)), 30 * DAY_MS);
    assert_eq!(public(json!(NOW.0 - 5), json!(null)), 5);
    assert_eq!(public(json!(NOW.0 + 5), json!(null)), 0);
    assert_eq!(public(json!(NOW.0 - 31 * DAY_MS), json!(null)), 30 * DAY_MS);
    assert_eq!(public(json!(i64::MIN), json!(i64::MAX)), 30 * DAY_MS);
    assert_eq!(
        time(Source::Import, json!(NOW.0 - 5000 * DAY_MS), json!(null)),
        5000 * DAY_MS
    );
    assert_eq!(
        time(Source::Server, json!(NOW.0 - 31 * DAY_MS), json!(null)),
        31 * DAY_MS
    );
}

#[test]
fn an_absent_id_is_derived_where_there_is_a_timestamp() {
    let event = |more: Json, sent_at: i64| json!({"event": "X", "anonymous_id": "a", "timestamp": 5, "sent_at": sent_at, "properties": more});
    let id = |event: Json| accepted(event).event_id;
    assert_eq!(id(event(json!({"a": 1}), 6)), id(event(json!({"a": 1}), 7)));
    assert_ne!(id(event(json!({"a": 1}), 6)), id(event(json!({"a": 2}), 6)));
    assert!(id(event(json!({}), 6)).starts_with("d-"));
    assert_eq!(&*id(json!({"event": "X"})), "fresh-1");
}

#[test]
fn a_user_is_proven_by_a_server_or_a_token_only() {
    let desk = desk();
    let user = desk.key.user(&desk.shop, "u1");
    let event =
        |token: Option<String>| json!({"event": "X", "event_id": "e", "user_id": "u1", "user_token": token});
    let claimed = desk.accept(Source::Public, &event(None));
    assert_eq!((claimed.user, claimed.claimed_user), (None, Some(user.clone())));
    let seconds = NOW.0 / 1000;
    let proven = desk.accept(
        Source::Public,
        &event(Some(desk.tokens.make(&desk.shop, "u1", seconds + 60))),
    );
    assert_eq!((proven.user, proven.claimed_user), (Some(user.clone()), None));
    for token in [
        desk.tokens.make(&desk.shop, "u1", seconds),
        desk.tokens.make(&desk.shop, "u2", seconds + 60),
        UserTokenKey::new("t1", b"guess").make(&desk.shop, "u1", seconds + 60),
    ] {
        assert_eq!(desk.accept(Source::Public, &event(Some(token))).user, None);
    }
    assert_eq!(desk.accept(Source::Server, &event(None)).user, Some(user));
}

#[test]
fn nothing_personal_is_kept() {
    let event = accepted(json!({
        "event": "Order Completed", "event_id": "e", "anonymous_id": "raw-guest", "user_id": "raw-user",
        "session_id": "raw-session", "user_token": "t1.2000000000.rawtoken",
        "properties": {
            "order_id": 17, "currency": "gbp", "products": [{"product_id": "p", "name": "Lamp", "price": "1.50"}],
            "email": "Ann@Example.org", "user_id": 4711, "note": "write to ann@example.org, or to x@b.example.",
            "shipping_address": {"street": "Long Lane 7"}, "customer": {"name": "Ann Smith", "id": "c7", "tier": 2},
            "ann@example.org": 1, "esc": "ann\u{41}@example.org", "password": "hunter2", "emails": ["z@z.example"],
            "image_url": "https://ann:pw@cdn.example/i.png?sig=1#x", "version": "1.2.3", "time": "10:30"
        },
        "context": {
            "ip": "203.0.113.77", "peer": "2001:db8:1:2:3::4", "via": "203.0.113.78:443", "device": {"id": "d", "type": "mobile"},
            "page": {"url": "https://acme.example/p?email=ann@example.org", "search": "?q=1", "path": "/a?b"},
            "userAgent": "Mozilla/5.0 (X11; Linux)", "campaign": {"name": "spring"}
        }
    }));
    let text = std::str::from_utf8(&event.body).unwrap();
    let all = format!("{event:?} {text}").to_lowercase();
    for raw in [
        "raw-",
        "rawtoken",
        "ann",
        "example.org",
        "x@b",
        "z@z",
        "long lane",
        "hunter2",
        "sig=",
        "q=1",
        "?b",
        ".77",
        ".78",
        "3::4",
        "4711",
        "\"c7\"",
        "smith",
        "pw@",
    ] {
        assert!(!all.contains(raw), "{raw} is in {text}");
    }
    let body = body_of(&event);
    let (properties, context) = (&body["properties"], &body["context"]);
    let key = desk().key;
    let email = key.pseudonym(IdKind::Email, &desk().shop, "ann@example.org");
    assert_eq!(properties["email"], email);
    assert_eq!(
        properties["note"],
        format!(
            "write to {email}, or to {}.",
            key.pseudonym(IdKind::Email, &desk().shop, "x@b.example")
        )
    );
    assert_eq!(properties["products"][0]["name"], "Lamp");
    assert_eq!(properties["customer"]["tier"], 2);
    assert_eq!(properties["image_url"], "https://cdn.example/i.png");
    assert_eq!(
        (&properties["version"], &properties["time"]),
        (&json!("1.2.3"), &json!("10:30"))
    );
    assert_eq!(
        (&context["ip"], &context["via"]),
        (&json!("203.0.113.0"), &json!("203.0.113.0"))
    );
    assert_eq!(context["peer"], "2001:db8:1::");
    assert_eq!(
        context["page"],
        json!({"url": "https://acme.example/p", "search": "", "path": "/a"})
    );
    assert_eq!(context["campaign"]["name"], "spring");
    assert_eq!(context["device"]["type"], "mobile");
}

#[test]
fn an_ip_address_is_found_whatever_blanks_are_around_it() {
    let many = " ".repeat(100);
    for blank in ["", " ", "\t", "\u{b}", "\r\n", "\u{a0}", "\u{2003}", &many] {
        for (address, network) in [
            ("203.0.113.77", "203.0.113.0"),
            ("2001:db8:1:2::4", "2001:db8:1::"),
        ] {
            let event = accepted(json!({"event": "X", "event_id": "e",
                "properties": {"peer": format!("{blank}{address}{blank}")}}));
            assert_eq!(body_of(&event)["properties"]["peer"], network, "{blank:?}");
        }
    }
}

#[test]
fn a_name_with_an_address_is_refused_wherever_the_address_stands() {
    for name in [
        "Viewed ann@example.org",
        "Order ://shop.example/@?q=ann@example.org",
        "@ @ ann%40example.org",
    ] {
        let event = json!({"event": name, "event_id": "e"});
        assert_eq!(rejected(Source::Public, event), RejectCode::InvalidName, "{name}");
    }
}

#[test]
fn names_that_become_the_same_are_written_once() {
    let event = accepted(
        json!({"event": "X", "event_id": "e", "consent": {"analytics": "denied"},
        "properties": {"ann@example.org": 1, "bob@example.org": 2, "plain": 3, "cyd@example.org": 4}}),
    );
    let text = std::str::from_utf8(&event.body).unwrap();
    assert_eq!(text.matches("[removed]").count(), 1, "{text}");
    assert_eq!(body_of(&event)["properties"], json!({"[removed]": 1, "plain": 3}));
    // Granted, they are told apart.
    let event = accepted(json!({"event": "X", "event_id": "e",
        "properties": {"ann@example.org": 1, "bob@example.org": 2}}));
    assert_eq!(body_of(&event)["properties"].as_object().unwrap().len(), 2);
}

#[test]
fn with_analytics_denied_no_identifier_stays_but_the_one_whose_consent_it_is() {
    let event = accepted(json!({
        "event": "Product Viewed", "event_id": "e", "anonymous_id": "a", "user_id": "u", "session_id": "s",
        "consent": {"analytics": "denied"},
        "properties": {"product_id": "p", "email": "ann@example.org", "note": "ann@example.org"}
    }));
    assert!(event.anonymous.is_some() && event.claimed_user.is_none() && event.session.is_none());
    assert_eq!(
        body_of(&event)["properties"],
        json!({"product_id": "p", "note": "[removed]"})
    );
    let unreadable = accepted(json!({"event": "X", "event_id": "e", "consent": 7}));
    assert_eq!(unreadable.consent, ConsentStatement::DENIED);
    let segment = accepted(json!({"event": "X", "event_id": "e",
        "context": {"consent": {"categoryPreferences": {"Analytics": true, "Personalization": false}}}}));
    assert_eq!(segment.consent.analytics, Some(Choice::Granted));
    assert_eq!(segment.consent.personalization, Some(Choice::Denied));
}

#[test]
fn bodies_are_rewritten_without_blanks_repeats_or_what_stores_refuse() {
    let body =
        br#" { "event":"X" , "event_id":"e", "properties":{ "a" : 1.50, "a":2, "b\u0041":"\u0000\ud800\n",
        "c":[ 1 , "x" ], "d":{ } } , "context" : null } "#;
    match &desk().judge_bytes(Source::Public, body).unwrap()[0] {
        Outcome::Accepted(event) => assert_eq!(
            std::str::from_utf8(&event.body).unwrap(),
            "{\"properties\":{\"a\":1.50,\"bA\":\"\u{fffd}\u{fffd}\\n\",\"c\":[1,\"x\"],\"d\":{}}}"
        ),
        other => panic!("{other:?}"),
    }
}

#[test]
fn codes_are_distinct_words() {
    let mut codes: Vec<&str> = RejectCode::ALL.iter().map(|code| code.as_str()).collect();
    codes.extend(QuarantineCode::ALL.iter().map(|code| code.as_str()));
    let count = codes.len();
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes.len(), count);
    assert!(
        codes
            .iter()
            .all(|code| code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
    );
}

fn any_json() -> impl Strategy<Value = Json> {
    let text = prop_oneof![
        "\\PC{0,12}",
        "[a-z]{1,4}@[a-z]{1,4}\\.[a-z]{2}",
        "https?://[a-z@?#/.:]{0,12}",
        "[0-9a-f:.]{0,12}",
        "[%40@.a]{0,8}"
    ];
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        text.prop_map(Json::from),
    ];
    let key = prop_oneof![
        "\\PC{0,8}",
        prop::sample::select(vec![
            "event",
            "event_id",
            "user_id",
            "anonymous_id",
            "timestamp",
            "sent_at",
            "properties",
            "context",
            "consent",
            "products",
            "product_id",
            "price",
            "quantity",
            "order_id",
            "currency",
            "total",
            "step",
            "email",
            "ip",
            "url",
            "device",
            "type",
            "events",
            "key",
        ])
        .prop_map(str::to_owned)
    ];
    leaf.prop_recursive(4, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Json::from),
            prop::collection::vec((key.clone(), inner), 0..6)
                .prop_map(|m| Json::Object(m.into_iter().collect())),
        ]
    })
}

/// Every outcome's event must transform, and its body must be JSON again.
fn survives(body: &[u8]) {
    for source in [Source::Public, Source::Server] {
        for outcome in desk().judge_bytes(source, body).into_iter().flatten() {
            if let Outcome::Accepted(event) | Outcome::Quarantined(event) = outcome {
                assert!(serde_json::from_slice::<Json>(&event.body).is_ok(), "{event:?}");
                let effect = transform(&event);
                assert_eq!(effect.quarantine.is_some(), event.quarantine.is_some());
            }
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        survives(&bytes);
    }

    #[test]
    fn no_json_panics(body in any_json()) {
        survives(body.to_string().as_bytes());
    }

    #[test]
    fn no_event_panics(
        name in prop::sample::select(KnownEvent::ALL.to_vec()),
        properties in any_json(),
        context in any_json(),
        consent in any_json(),
    ) {
        let event = json!({"event": name.as_str(), "event_id": "e", "anonymous_id": "a", "user_id": "u",
            "properties": properties, "context": context, "consent": consent});
        survives(event.to_string().as_bytes());
    }

    #[test]
    fn a_cut_body_never_panics(body in any_json(), cut in 0usize..64) {
        let text = body.to_string();
        survives(&text.as_bytes()[..cut.min(text.len())]);
    }

    #[test]
    fn no_email_stays(local in "[a-z0-9]{2,8}", domain in "[a-z]{3,8}\\.(com|org)", before in "\\PC{0,6}", after in "[ ,;!]?") {
        let address = format!("{local}@{domain}");
        let note = format!("{before} {address}{after}");
        let event = accepted(json!({"event": "X", "event_id": "e", "properties": {"note": note}}));
        prop_assert!(!String::from_utf8_lossy(&event.body).contains(&address));
    }
}
