//! Whatever a ruleset file holds: refused with reasons, or parsed, compiled and fit to decide by.
#![no_main]

use cartwright::domain::consent::Choice;
use cartwright::domain::decision::{ProfileState, Request, Terms, decide, segments_of};
use cartwright::domain::ids::{SubjectId, Timestamp};
use cartwright::domain::profile::{Cart, CartLine, Document, Snapshot};
use cartwright::domain::recommend::Population;
use cartwright::domain::ruleset::Ruleset;
use libfuzzer_sys::fuzz_target;

const NOW: Timestamp = Timestamp(1_700_000_000_000);

fuzz_target!(|bytes: &[u8]| {
    let Ok(source) = std::str::from_utf8(bytes) else {
        return;
    };
    match Ruleset::parse(source, 1) {
        Ok(ruleset) => use_it(&ruleset),
        Err(errors) => {
            assert!(!errors.problems.is_empty());
            for problem in &errors.problems {
                assert!(
                    problem.line >= 1 && problem.line <= source.split(['\n', '\r']).count() + 1,
                    "{problem}"
                );
                assert!(problem.column >= 1 && !problem.reason.is_empty(), "{problem}");
            }
        }
    }
});

fn use_it(ruleset: &Ruleset) {
    assert!(!ruleset.placements().is_empty());
    let population = Population::default();
    let profile = Snapshot::of(&Document::default());
    let guest = SubjectId::from_stored("a:k1.AAAA");
    let cart = Cart {
        lines: vec![CartLine {
            item: "85123A",
            quantity: 2,
            price_minor: Some(255),
        }],
        total_minor: 510,
        count: 2,
    };
    let request = Request {
        anonymous: Some(&guest),
        session: Some("s"),
        cart: Some(&cart),
        country: Some("GB"),
        ..Request::default()
    };
    let _ = segments_of(ruleset, &profile, NOW);
    for record_permit in [true, false] {
        let terms = Terms {
            consent_default: Choice::Granted,
            record_permit,
            explain: record_permit,
        };
        for profile in [
            ProfileState::Known(&profile),
            ProfileState::Absent,
            ProfileState::Unavailable,
        ] {
            let decision = decide(ruleset, &population, profile, &request, NOW, &terms);
            assert_eq!(decision.placements.len(), ruleset.placements().len());
            let mut answer = Vec::new();
            decision.write_placements(&mut answer);
            let json = serde_json::from_slice::<serde_json::Value>(&answer);
            assert!(json.is_ok(), "{}", String::from_utf8_lossy(&answer));
        }
    }
}
