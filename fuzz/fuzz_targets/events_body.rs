//! Whatever arrives at `POST /events`: parsed, judged, pseudonymised, sent through the log's encoding, transformed
//! and folded without a panic.
//!
//! What else must hold of every event stored: its body is JSON, no address of the marked domain and no whole IP
//! address is left in it, the log gives back what it took, and the profile it is folded into can be stored, read,
//! shown and decided upon.
#![no_main]

use std::net::IpAddr;
use std::sync::LazyLock;

use cartwright::domain::consent::Choice;
use cartwright::domain::decision::{ProfileState, Request, Terms, decide, segments_of};
use cartwright::domain::event::{Body, EventLimits, IngestContext, Outcome, Source};
use cartwright::domain::ids::{Environment, PseudonymKey, Shop, Timestamp};
use cartwright::domain::profile::{Document, ProfilePart, Snapshot};
use cartwright::domain::recommend::Population;
use cartwright::domain::ruleset::Ruleset;
use cartwright::domain::transform::transform;
use cartwright::domain::user_token::UserTokenKey;
use cartwright::queue::fuzzing::through_the_log;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const NOW: Timestamp = Timestamp(1_700_000_000_000);
/// The e-mail address that the seeds and the dictionary plant.
const PLANTED_ADDRESS: &str = "jane@planted.example";
/// The ids that this target plants around what it is given.
const PLANTED_IDS: [&str; 3] = ["raw-user-4711", "raw-anonymous-4711", "raw-session-4711"];

struct World {
    shop: Shop,
    key: PseudonymKey,
    tokens: UserTokenKey,
    limits: EventLimits,
    ruleset: Ruleset,
    population: Population,
}

static WORLD: LazyLock<World> = LazyLock::new(|| World {
    shop: Shop::new("fuzz", Environment::Live).unwrap(),
    key: PseudonymKey::new("k1", b"fuzz"),
    tokens: UserTokenKey::new("t1", b"fuzz"),
    limits: EventLimits::default(),
    ruleset: Ruleset::parse(include_str!("../../examples/ruleset.yaml"), 1).unwrap(),
    population: Population::default(),
});

fuzz_target!(|bytes: &[u8]| {
    let source = if bytes.len() % 2 == 0 {
        Source::Public
    } else {
        Source::Server
    };
    // The fuzzer learns the ids from the comparisons below and writes them where no rule calls them ids.
    let holds = |id: &str| bytes.windows(id.len()).any(|window| window == id.as_bytes());
    if PLANTED_IDS.into_iter().any(holds) {
        return;
    }
    judge(bytes, source);
    // The same bytes as the properties of an event whose ids are known.
    if let Ok(text) = std::str::from_utf8(bytes) {
        let [user, anonymous, session] = PLANTED_IDS;
        let planted = format!(
            r#"{{"event":"Order Completed","user_id":"{user}","anonymous_id":"{anonymous}","session_id":"{session}",
            "properties":{text},"context":{{"user":"{user}","device":{{"id":"{anonymous}"}}}}}}"#
        );
        judge(planted.as_bytes(), source);
    }
});

fn judge(bytes: &[u8], source: Source) {
    let world = &*WORLD;
    let Ok(body) = Body::parse(bytes, world.limits.max_events) else {
        return;
    };
    let context = IngestContext {
        shop: &world.shop,
        source,
        key: &world.key,
        user_token_key: Some(&world.tokens),
        received_at: NOW,
        limits: &world.limits,
    };
    let validate = || {
        let mut fresh = 0;
        body.validate(&context, &mut || {
            fresh += 1;
            format!("fresh-{fresh}")
        })
    };
    let outcomes = validate();
    assert_eq!(outcomes.len(), body.len());
    assert_eq!(outcomes, validate(), "the same input, the same verdict");

    let mut part = ProfilePart::default();
    for outcome in outcomes {
        let (Outcome::Accepted(event) | Outcome::Quarantined(event)) = outcome else {
            continue;
        };
        assert!(event.event_time <= event.received_at);
        let stored: Value = serde_json::from_slice(&event.body).expect("the stored body is JSON");
        check_anonymous(&stored);
        for text in [&*event.event_id, &*event.name] {
            assert!(!text.to_lowercase().contains(PLANTED_ADDRESS), "{text}");
        }
        assert_eq!(through_the_log(&event).as_ref(), Ok(&event));
        let effect = transform(&event);
        part.fold(&effect.contribution, part.generation());
    }
    let document = Document {
        part,
        ..Document::default()
    };
    assert_eq!(Document::decode(&document.encode()).as_ref(), Ok(&document));
    let profile = Snapshot::of(&document);
    assert_eq!(Snapshot::read(profile.bytes().clone()).as_ref(), Ok(&profile));
    let shown = profile.to_json(NOW);
    assert!(serde_json::from_str::<Value>(&shown).is_ok(), "{shown}");

    let _ = segments_of(&world.ruleset, &profile, NOW);
    let terms = Terms {
        consent_default: Choice::Granted,
        record_permit: true,
        explain: true,
    };
    let profile = ProfileState::Known(&profile);
    let decision = decide(
        &world.ruleset,
        &world.population,
        profile,
        &Request::default(),
        NOW,
        &terms,
    );
    let mut answer = Vec::new();
    decision.write_placements(&mut answer);
    assert!(
        serde_json::from_slice::<Value>(&answer).is_ok(),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    let explanation = decision.explanation.unwrap_or_default();
    assert!(
        serde_json::from_str::<Value>(&explanation).is_ok(),
        "{explanation}"
    );
}

/// Checks every text of a stored body, keys included.
fn check_anonymous(value: &Value) {
    match value {
        Value::String(text) => check_text(text),
        Value::Array(items) => items.iter().for_each(check_anonymous),
        Value::Object(members) => members.iter().for_each(|(name, value)| {
            check_text(name);
            check_anonymous(value);
        }),
        _ => {}
    }
}

fn check_text(text: &str) {
    assert!(
        !text.to_lowercase().contains(PLANTED_ADDRESS),
        "an address is left in {text:?}"
    );
    assert!(!PLANTED_IDS.contains(&text), "{text} is left");
    let whole = match text.trim().parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(IpAddr::V4(v4)) => v4.octets()[3] != 0,
        Ok(IpAddr::V6(v6)) => v6.segments()[3..].iter().any(|segment| *segment != 0),
        Err(_) => false,
    };
    assert!(!whole, "an IP address is left: {text:?}");
}
