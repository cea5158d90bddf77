//! Whatever a condition holds: refused with a place inside it, or compiled and evaluated, twice to the same end.
#![no_main]

use cartwright::domain::ids::Timestamp;
use cartwright::domain::ruleset::fields::{CartFacts, Facts, ProfileFacts, RequestFacts};
use cartwright::domain::ruleset::predicate::Predicate;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(source) = std::str::from_utf8(bytes) else {
        return;
    };
    let predicate = match Predicate::compile(source) {
        Ok(predicate) => predicate,
        Err(error) => {
            assert!(!error.message.is_empty());
            assert!(error.offset.is_none_or(|at| at <= source.len()), "{error:?}");
            let _ = error.line_and_column(source);
            return;
        }
    };
    let segments = ["vip", "returning"];
    let items = ["85123A", "22423", "€"];
    let scores = [("card", 0.5), ("paypal", f64::INFINITY), ("klarna", f64::NAN)];
    let cart = CartFacts {
        total: 12.5,
        count: 3,
        items: items[..].into(),
    };
    let full = Facts {
        now: Timestamp(1_700_000_000_000),
        profile: ProfileFacts {
            known: true,
            segments: segments[..].into(),
            orders: i64::MAX,
            revenue: 1e308,
            refunds: i64::MIN,
            last_order: Some(Timestamp(i64::MIN)),
            first_seen: Some(Timestamp(i64::MAX)),
            last_seen: Some(Timestamp(1_600_000_000_000)),
            payment_methods: scores[..].into(),
            recent_items: items[..].into(),
            cart,
            ..ProfileFacts::default()
        },
        request: RequestFacts {
            cart,
            country: Some("GB"),
            ..RequestFacts::default()
        },
    };
    for facts in [Facts::default(), full] {
        assert_eq!(predicate.eval(&facts), predicate.eval(&facts));
    }
});
