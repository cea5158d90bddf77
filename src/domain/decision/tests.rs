//! The rules of a decision as tables. Whole answers are pinned in `tests/fixtures/decision/v1`.

use std::collections::HashMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::domain::consent::ConsentStatement;
use crate::domain::ids::{Environment, PseudonymKey, Shop, Stamp, Timestamp};
use crate::domain::profile::{Affinity, CartLine, Contribution, Delta, ProfilePart};
use crate::domain::recommend::{Population, PurchasedOrder, Purchases};
use crate::domain::ruleset::Ruleset;

const NOW: Timestamp = Timestamp(1_300_000_000_000);
const DAY_MS: i64 = 86_400_000;

const PLACEMENTS: &str = "version: 1
currency: GBP
placements:
  promo: {kind: content, fallback: none}
  pay: {kind: ranking, by: payment_method, candidates: [card, paypal, {id: klarna, when: request.cart.total > 35.0}]}
  upsell: {kind: recommendation, limit: 3, fallback: [mug, bag]}
segments:
  vip: {when: profile.revenue > 1000.0}
  new: {when: profile.orders == 0}
";

fn ruleset(experiences: &str) -> Ruleset {
    let source = format!("{PLACEMENTS}experiences:\n{experiences}");
    Ruleset::parse(&source, 1).unwrap_or_else(|e| panic!("{:#?}", e.problems))
}

fn bare() -> Ruleset {
    Ruleset::parse(PLACEMENTS, 1).unwrap()
}

fn id(name: &str) -> SubjectId {
    let shop = Shop::new("acme", Environment::Live).unwrap();
    PseudonymKey::new("k1", b"secret").anonymous(&shop, name)
}

fn part(age_days: i64, deltas: Vec<Delta>) -> Snapshot {
    let mut part = ProfilePart::default();
    let stamp = Stamp {
        time: Timestamp(NOW.0 - age_days * DAY_MS),
        event_id: "e".into(),
    };
    part.fold(
        &Contribution {
            stamp,
            deltas,
            resets: false,
        },
        0,
    );
    part.snapshot()
}

fn paid_by(method: &str) -> Delta {
    Delta::Weight {
        affinity: Affinity::PaymentMethod,
        key: method.into(),
        weight: 1.0,
    }
}

fn bought(revenue_minor: i64) -> Delta {
    Delta::Orders {
        orders: 1,
        cancelled: 0,
        currency: "GBP".into(),
        revenue_minor,
    }
}

fn population() -> Population {
    let order = |items: &[&str], paid: &str| PurchasedOrder {
        items: items.iter().map(|item| Arc::from(*item)).collect(),
        payment_method: Some(paid.into()),
        shipping_method: None,
    };
    let mut orders = vec![order(&["tea", "cup"], "paypal"); 4];
    orders.extend(vec![order(&["tea", "bag"], "paypal"); 3]);
    orders.extend(vec![order(&["pen"], "card"); 2]);
    Population::build(&Purchases { orders })
}

fn cart(items: &[&'static str], total_minor: i64) -> Cart<'static> {
    let line = |item: &&'static str| CartLine {
        item,
        quantity: 1,
        price_minor: None,
    };
    Cart {
        lines: items.iter().map(line).collect(),
        total_minor,
        count: items.len() as i64,
    }
}

const TERMS: Terms = Terms {
    consent_default: Choice::Granted,
    record_permit: true,
    explain: false,
};

fn denied() -> ConsentStatement {
    ConsentStatement {
        personalization: Some(Choice::Denied),
        analytics: None,
    }
}

/// Everything that one placement's answer consists of, on one line.
fn show(decision: &Decision<'_>, name: &str) -> String {
    let placement = decision.placements.iter().find(|p| p.name == name).unwrap();
    let what = match &placement.filling {
        Filling::Content(payload) => payload.map_or("null", |payload| payload.as_json()).to_owned(),
        Filling::Ranking(items) | Filling::Recommendation(items) => {
            items.iter().map(|item| item.id).collect::<Vec<_>>().join(" ")
        }
    };
    let experience = placement.experience.unwrap_or("-");
    format!(
        "{what} | {experience} {} | {}",
        placement.variant.unwrap_or("-"),
        placement.reason.as_str()
    )
}

#[test]
fn the_first_experience_by_priority_and_then_by_place_is_served() {
    let rules = ruleset(
        "  - {id: late, placement: promo, payload: 1}
  - {id: later, placement: promo, payload: 2}
  - {id: first, placement: promo, payload: 3, priority: 9, when: request.cart.total > 50.0}
",
    );
    let (empty, population, request) = (ProfileState::Absent, Population::default(), Request::default());
    let decision = decide(&rules, &population, empty, &request, NOW, &TERMS);
    assert_eq!(show(&decision, "promo"), "1 | late - | targeting_match");
    let cart = cart(&[], 5001);
    let request = Request {
        cart: Some(&cart),
        ..request
    };
    let decision = decide(&rules, &population, empty, &request, NOW, &TERMS);
    assert_eq!(show(&decision, "promo"), "3 | first - | targeting_match");
}

#[test]
fn profiles_that_cannot_be_used_leave_what_the_request_alone_says() {
    let rules = ruleset(
        "  - {id: known, placement: promo, payload: 1, priority: 9, when: profile.orders == 0}
  - {id: capped, placement: promo, payload: 2, priority: 8, cap: {per: day, count: 9}}
  - {id: test, placement: promo, priority: 7, variants: [{id: a, payload: 3}, {id: b, payload: 3}]}
  - {id: abroad, placement: promo, payload: 4, when: \"has(request.country) && request.country != 'GB'\"}
",
    );
    let (population, guest) = (population(), id("guest"));
    let here = Request {
        anonymous: Some(&guest),
        ..Request::default()
    };
    let cases: &[(&str, ProfileState<'_>, Request<'_>, &str, &str)] = &[
        (
            "new",
            ProfileState::Absent,
            here,
            "1 | known - | targeting_match",
            "paypal card | - - | popular",
        ),
        (
            "down",
            ProfileState::Unavailable,
            here,
            "\"none\" | - - | degraded",
            "paypal card | - - | degraded",
        ),
        (
            "down abroad",
            ProfileState::Unavailable,
            Request {
                country: Some("DE"),
                ..here
            },
            "4 | abroad - | targeting_match",
            "paypal card | - - | degraded",
        ),
        (
            "denied",
            ProfileState::Absent,
            Request {
                consent: denied(),
                ..here
            },
            "\"none\" | - - | consent",
            "paypal card | - - | consent",
        ),
        (
            "denied and down",
            ProfileState::Unavailable,
            Request {
                consent: denied(),
                ..here
            },
            "\"none\" | - - | consent",
            "paypal card | - - | consent",
        ),
    ];
    for (name, profile, request, promo, pay) in cases {
        let decision = decide(&rules, &population, *profile, request, NOW, &TERMS);
        assert_eq!(show(&decision, "promo"), *promo, "{name}");
        assert_eq!(show(&decision, "pay"), *pay, "{name}");
        assert_eq!(decision.segments.is_empty(), *name != "new", "{name}");
        assert!(decision.exposures.is_empty(), "{name}");
    }
}

#[test]
fn the_latest_word_on_consent_decides() {
    let rules = bare();
    let population = population();
    let stated = |choice| {
        let statement = ConsentStatement {
            personalization: choice,
            analytics: None,
        };
        part(
            1,
            vec![
                paid_by("card"),
                Delta::Consent {
                    statement,
                    received_at: NOW,
                    import: false,
                },
            ],
        )
    };
    let (granted, refused, silent) = (Some(Choice::Granted), Some(Choice::Denied), None);
    for (default, stored, requested, used) in [
        (Choice::Granted, silent, silent, true),
        (Choice::Denied, silent, silent, false),
        (Choice::Denied, granted, silent, true),
        (Choice::Granted, refused, silent, false),
        (Choice::Granted, granted, refused, false),
        (Choice::Denied, refused, granted, true),
    ] {
        let part = stated(stored);
        let request = Request {
            consent: ConsentStatement {
                personalization: requested,
                analytics: None,
            },
            ..Request::default()
        };
        let terms = Terms {
            consent_default: default,
            ..TERMS
        };
        let decision = decide(
            &rules,
            &population,
            ProfileState::Known(&part),
            &request,
            NOW,
            &terms,
        );
        assert_eq!(
            decision.profile_used, used,
            "{default:?} {stored:?} {requested:?}"
        );
        let reason = if used { "ranked" } else { "consent" };
        assert!(show(&decision, "pay").ends_with(reason));
    }
}

#[test]
fn caps_hold_back_what_was_shown_often_enough() {
    let rules = |per: &str| {
        ruleset(&format!(
            "  - {{id: x, placement: promo, payload: 1, cap: {{per: {per}, count: 2}}}}\n"
        ))
    };
    let served = |times: usize, age_days| {
        let once = Delta::Served {
            experience: "x".into(),
            session: Some("s1".into()),
        };
        part(age_days, vec![once; times])
    };
    let (population, guest) = (Population::default(), id("guest"));
    for (per, times, age_days, session, shown) in [
        ("lifetime", 0, 0, None, true),
        ("lifetime", 1, 9, None, true),
        ("lifetime", 2, 9, None, false),
        ("day", 2, 1, None, true),
        ("day", 2, 0, None, false),
        ("session", 2, 0, Some("s2"), true),
        ("session", 2, 0, Some("s1"), false),
        ("session", 0, 0, None, false),
    ] {
        let rules = rules(per);
        let part = served(times, age_days);
        let request = Request {
            anonymous: Some(&guest),
            session,
            ..Request::default()
        };
        let decision = decide(
            &rules,
            &population,
            ProfileState::Known(&part),
            &request,
            NOW,
            &TERMS,
        );
        let expected = if shown {
            "1 | x - | targeting_match"
        } else {
            "\"none\" | - - | capped"
        };
        assert_eq!(
            show(&decision, "promo"),
            expected,
            "{per} {times} {age_days} {session:?}"
        );
        assert_eq!(decision.served.as_slice(), if shown { &["x"][..] } else { &[] });
    }
    let rules = rules("lifetime");
    let decision = decide(
        &rules,
        &population,
        ProfileState::Absent,
        &Request::default(),
        NOW,
        &TERMS,
    );
    assert_eq!(
        show(&decision, "promo"),
        "\"none\" | - - | capped",
        "nobody to count for"
    );
    // Whoever denied analytics is not counted, so the cap could never be reached.
    let denied = ConsentStatement {
        analytics: Some(Choice::Denied),
        personalization: None,
    };
    let remembered = part(
        1,
        vec![Delta::Consent {
            statement: denied,
            received_at: NOW,
            import: false,
        }],
    );
    for (part, consent) in [(served(0, 0), denied), (remembered, ConsentStatement::default())] {
        let request = Request {
            anonymous: Some(&guest),
            consent,
            ..Request::default()
        };
        let state = ProfileState::Known(&part);
        let decision = decide(&rules, &population, state, &request, NOW, &TERMS);
        assert_eq!(show(&decision, "promo"), "\"none\" | - - | capped", "{consent:?}");
    }
}

const EXPERIMENT: &str = "  - {id: test, placement: promo, variants: [{id: a, weight: 1, payload: 1}, {id: b, weight: 3, payload: 2}]}\n";

#[test]
fn an_experiment_needs_a_subject_and_a_permit() {
    let rules = ruleset(EXPERIMENT);
    let (population, guest, user) = (Population::default(), id("guest"), id("user"));
    let anonymous = Request {
        anonymous: Some(&guest),
        ..Request::default()
    };
    let absent = ProfileState::Absent;
    let decision = decide(&rules, &population, absent, &anonymous, NOW, &TERMS);
    assert!(decision.exposures.len() == 1 && decision.assigned.len() == 1);
    assert!(show(&decision, "promo").ends_with("split"));

    // The anonymous id goes before the user's, so that a login keeps the variant.
    let both = Request {
        user: Some(&user),
        ..anonymous
    };
    let after = decide(&rules, &population, absent, &both, NOW, &TERMS);
    assert_eq!(show(&after, "promo"), show(&decision, "promo"));

    let nobody = decide(&rules, &population, absent, &Request::default(), NOW, &TERMS);
    assert_eq!(show(&nobody, "promo"), "\"none\" | - - | no_match");

    let unrecorded = Terms {
        record_permit: false,
        ..TERMS
    };
    let withheld = decide(&rules, &population, absent, &anonymous, NOW, &unrecorded);
    assert_eq!(show(&withheld, "promo"), "\"none\" | - - | degraded");
    assert!(
        withheld.withheld[..] == ["test"] && withheld.exposures.is_empty() && withheld.assigned.is_empty()
    );
}

#[test]
fn a_stored_assignment_outlives_new_weights_but_not_its_variant() {
    let (population, guest) = (Population::default(), id("guest"));
    let request = Request {
        anonymous: Some(&guest),
        ..Request::default()
    };
    for (variants, served, is_new) in [
        (
            "[{id: a, weight: 0, payload: 1}, {id: b, weight: 1, payload: 2}]",
            "1 | test a | split",
            false,
        ),
        (
            "[{id: c, weight: 1, payload: 3}, {id: d, weight: 0, payload: 4}]",
            "3 | test c | split",
            true,
        ),
    ] {
        let rules = ruleset(&format!(
            "  - {{id: test, placement: promo, variants: {variants}}}\n"
        ));
        let part = part(
            3,
            vec![Delta::Assigned {
                experiment: "test".into(),
                variant: "a".into(),
                is_guest: false,
            }],
        );
        let decision = decide(
            &rules,
            &population,
            ProfileState::Known(&part),
            &request,
            NOW,
            &TERMS,
        );
        assert_eq!(show(&decision, "promo"), served);
        assert_eq!(!decision.assigned.is_empty(), is_new);
    }
}

#[test]
fn the_hash_is_murmur3() {
    // Published vectors of MurmurHash3_x86_32 with seed 0, fed in pieces.
    for (pieces, expected) in [
        (vec![""], 0),
        (vec!["hello"], 0x248b_fa47),
        (vec!["he", "llo, wo", "rld"], 0x149b_bb7f),
        (
            vec!["The quick brown fox jumps over ", "the lazy dog"],
            0x2e4f_f723,
        ),
    ] {
        assert_eq!(bucketing::hash_pieces(&pieces), expected, "{pieces:?}");
    }
}

/// Who gets what in an experiment `e` of the given weights.
fn split(weights: &[u32], subjects: u32) -> Vec<usize> {
    let variants: Vec<String> = weights
        .iter()
        .enumerate()
        .map(|(n, weight)| format!("{{id: v{n}, weight: {weight}, payload: 1}}"))
        .collect();
    let rules = ruleset(&format!(
        "  - {{id: e, placement: promo, variants: [{}]}}\n",
        variants.join(", ")
    ));
    let variants = &rules.experiences()[0].variants;
    (0..subjects)
        .map(|n| bucketing::choose("e", &format!("a:k1.{n}"), variants).unwrap())
        .collect()
}

#[test]
fn weights_hold_over_a_hundred_thousand_subjects() {
    for weights in [&[50, 50][..], &[90, 10], &[1, 2, 7], &[0, 5, 5]] {
        let total: u32 = weights.iter().sum();
        let subjects = 100_000;
        let chosen = split(weights, subjects);
        for (index, weight) in weights.iter().enumerate() {
            let share = f64::from(*weight) / f64::from(total);
            let count = chosen.iter().filter(|chosen| **chosen == index).count() as f64;
            let expected = share * f64::from(subjects);
            // Four standard deviations of a binomial count.
            let tolerance = 4.0 * (f64::from(subjects) * share * (1.0 - share)).sqrt();
            assert!(
                (count - expected).abs() <= tolerance,
                "{weights:?} {index}: {count} instead of {expected}"
            );
        }
    }
}

#[test]
fn a_growing_weight_moves_shoppers_to_its_variant_only() {
    let before = split(&[50, 30, 20], 20_000);
    let after = split(&[50, 60, 20], 20_000);
    let mut moved = 0;
    for (before, after) in before.iter().zip(&after) {
        if before != after {
            assert_eq!(*after, 1);
            moved += 1;
        }
    }
    // From 30/100 to 60/130 of all.
    assert!((2_900..3_600).contains(&moved), "{moved}");
}

#[test]
fn experiments_are_independent_of_each_other() {
    let rules = ruleset(EXPERIMENT);
    let mut variants = rules.experiences()[0].variants.clone();
    variants.iter_mut().for_each(|variant| variant.weight = 1.0);
    let mut both: HashMap<(usize, usize), u32> = HashMap::new();
    for n in 0..20_000 {
        let subject = format!("a:k1.{n}");
        let chosen = |experiment| bucketing::choose(experiment, &subject, &variants).unwrap();
        *both.entry((chosen("one"), chosen("two"))).or_default() += 1;
    }
    assert!(
        both.values().all(|count| (4_750..5_250).contains(count)),
        "{both:?}"
    );
}

#[test]
fn the_guide_states_the_bucketing_vectors() {
    let guide = include_str!("../../../docs/ruleset.md");
    for (experiment, subject) in [
        ("free-shipping-nudge", "a:k1.0"),
        ("free-shipping-nudge", "a:k1.2"),
        ("free-shipping-nudge", "a:k1.31"),
        ("win-back", "u:k1.1"),
    ] {
        let variants = |a: u32, b: u32| {
            let source = format!("[{{id: a, weight: {a}, payload: 1}}, {{id: b, weight: {b}, payload: 1}}]");
            ruleset(&format!("  - {{id: e, placement: promo, variants: {source}}}\n")).experiences()[0]
                .variants
                .clone()
        };
        let name = |(a, b)| ["a", "b"][bucketing::choose(experiment, subject, &variants(a, b)).unwrap()];
        let hash = |variant| hash(experiment, subject, variant);
        let (a, b) = (hash("a"), hash("b"));
        let row = format!(
            "| `{experiment}` | `{subject}` | {a} | {b} | {} | {} |",
            name((50, 50)),
            name((90, 10))
        );
        assert!(guide.contains(&row), "docs/ruleset.md lacks {row}");
    }
}

#[test]
fn rankings_follow_the_shopper_the_more_they_ordered() {
    let rules = bare();
    let population = population();
    let request = Request::default();
    for (orders, expected) in [
        (0, "paypal card | - - | popular"),
        (3, "card paypal | - - | ranked"),
    ] {
        let part = part(0, vec![paid_by("card"); orders]);
        let decision = decide(
            &rules,
            &population,
            ProfileState::Known(&part),
            &request,
            NOW,
            &TERMS,
        );
        assert_eq!(show(&decision, "pay"), expected);
    }
    // (3 + 2 · 3/11) / (3 + 2) and (0 + 2 · 8/11) / (3 + 2)
    let part = part(0, vec![paid_by("card"); 3]);
    let decision = decide(
        &rules,
        &population,
        ProfileState::Known(&part),
        &request,
        NOW,
        &TERMS,
    );
    let Filling::Ranking(items) = &decision.placements[1].filling else {
        panic!()
    };
    assert_eq!(
        items.iter().map(|item| item.micros).collect::<Vec<_>>(),
        [709_091, 290_909]
    );

    let empty = Population::default();
    let nothing = decide(&rules, &empty, ProfileState::Absent, &request, NOW, &TERMS);
    assert_eq!(show(&nothing, "pay"), "card paypal | - - | no_match");
}

#[test]
fn candidates_and_arrangements_change_a_ranking() {
    let cart = cart(&[], 4000);
    let request = Request {
        cart: Some(&cart),
        ..Request::default()
    };
    for (experience, expected) in [
        ("", "paypal card klarna | - - | popular"),
        ("pin: [klarna, card]", "klarna card paypal | x - | popular"),
        ("boost: {card: 9}", "card paypal klarna | x - | popular"),
        ("hide: [paypal]", "card klarna | x - | popular"),
    ] {
        let rules = if experience.is_empty() {
            bare()
        } else {
            ruleset(&format!("  - {{id: x, placement: pay, {experience}}}\n"))
        };
        let population = population();
        let decision = decide(&rules, &population, ProfileState::Absent, &request, NOW, &TERMS);
        assert_eq!(show(&decision, "pay"), expected);
    }
}

#[test]
fn recommendations_go_from_the_cart_to_the_recent_items_to_the_popular_to_the_fallback() {
    let rules = bare();
    let (population, nothing) = (population(), Population::default());
    let seen = |item: &str| part(0, vec![Delta::RecentItem { item: item.into() }]);
    let (tea, pen) = (cart(&["tea"], 100), cart(&["pen"], 100));
    let (saw_tea, saw_none) = (seen("tea"), part(0, vec![]));
    let all = cart(&["tea", "cup", "bag", "pen", "mug"], 100);
    let cases: &[(&Population, &Snapshot, Option<&Cart<'_>>, &str)] = &[
        // 4 / sqrt(7 · 4) is more than 3 / sqrt(7 · 3); pen fills up.
        (
            &population,
            &saw_none,
            Some(&tea),
            "cup bag pen | - - | recommended",
        ),
        (&population, &saw_tea, None, "cup bag tea | - - | recommended"),
        (&population, &saw_none, None, "tea cup bag | - - | popular"),
        (&population, &saw_none, Some(&pen), "tea cup bag | - - | popular"),
        (&nothing, &saw_none, Some(&tea), "mug bag | - - | no_match"),
        (&population, &saw_none, Some(&all), "mug bag | - - | no_match"),
    ];
    for (population, part, cart, expected) in cases {
        let request = Request {
            cart: *cart,
            ..Request::default()
        };
        let decision = decide(
            &rules,
            population,
            ProfileState::Known(part),
            &request,
            NOW,
            &TERMS,
        );
        assert_eq!(show(&decision, "upsell"), *expected);
    }
    let request = Request {
        cart: Some(&tea),
        ..Request::default()
    };
    let degraded = decide(
        &rules,
        &population,
        ProfileState::Unavailable,
        &request,
        NOW,
        &TERMS,
    );
    assert_eq!(show(&degraded, "upsell"), "cup bag pen | - - | recommended");
    let request = Request {
        consent: denied(),
        ..request
    };
    let refused = decide(
        &rules,
        &population,
        ProfileState::Known(&saw_tea),
        &request,
        NOW,
        &TERMS,
    );
    assert_eq!(
        show(&refused, "upsell"),
        "cup bag pen | - - | consent",
        "popular, without the cart"
    );
}

#[test]
fn segments_need_no_request_and_agree_with_decisions() {
    let rules = bare();
    let rich = part(1, vec![bought(100_001)]);
    assert_eq!(crate::domain::segment::of(&rules, &rich, NOW), [Arc::from("vip")]);
    let (population, request) = (Population::default(), Request::default());
    let decision = decide(
        &rules,
        &population,
        ProfileState::Known(&rich),
        &request,
        NOW,
        &TERMS,
    );
    assert_eq!(decision.segments.as_slice(), ["vip"]);
    let new = decide(&rules, &population, ProfileState::Absent, &request, NOW, &TERMS);
    assert_eq!(new.segments.as_slice(), ["new"]);
}

#[test]
fn failing_conditions_are_false_counted_once_and_explained() {
    let rules = ruleset(
        "  - {id: x, placement: promo, payload: 1, when: request.country == 'GB'}
  - {id: y, placement: promo, payload: 2, when: request.country == 'GB'}
",
    );
    let (population, request) = (Population::default(), Request::default());
    let terms = Terms {
        explain: true,
        ..TERMS
    };
    let decision = decide(&rules, &population, ProfileState::Absent, &request, NOW, &terms);
    assert_eq!(decision.errors, 1);
    assert_eq!(show(&decision, "promo"), "\"none\" | - - | no_match");
    let explained: serde_json::Value =
        serde_json::from_str(decision.explanation.as_deref().unwrap()).unwrap();
    assert_eq!(
        explained["placements"][0]["experiences"][1]["error"],
        "no_such_key"
    );
    assert_eq!(
        explained["placements"][0]["experiences"][1]["outcome"],
        "not_matched"
    );
}

#[test]
fn a_cart_in_another_currency_has_no_total() {
    let rules = ruleset("  - {id: x, placement: promo, payload: 1, when: request.cart.total > 1.0}\n");
    let (population, cart) = (Population::default(), cart(&[], 100_000));
    for (currency, expected, errors) in [
        ("GBP", "1 | x - | targeting_match", 0),
        ("JPY", "\"none\" | - - | no_match", 2),
    ] {
        let request = Request {
            cart: Some(&cart),
            currency: Some(currency),
            ..Request::default()
        };
        let decision = decide(&rules, &population, ProfileState::Absent, &request, NOW, &TERMS);
        assert_eq!(show(&decision, "promo"), expected);
        assert_eq!(decision.errors, errors, "the experience and the candidate");
    }
}

#[test]
fn only_what_was_asked_for_is_answered_once_and_always() {
    let rules = bare();
    let population = Population::default();
    let names = ["pay", "nope\"\n", "pay"];
    let request = Request {
        placements: Some(&names),
        ..Request::default()
    };
    let decision = decide(&rules, &population, ProfileState::Absent, &request, NOW, &TERMS);
    let mut json = Vec::new();
    decision.write_placements(&mut json);
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let expected = serde_json::json!({
        "pay": {"kind": "ranking", "items": [{"id": "card", "score": 0.5}, {"id": "paypal", "score": 0.5}],
                "reason": "no_match"},
        "nope\"\n": {"kind": "content", "payload": null, "reason": "no_match"},
    });
    assert_eq!(json, expected);
}

#[test]
fn scores_are_written_as_json_numbers() {
    for (micros, text) in [
        (0, "0"),
        (1, "0.000001"),
        (710_000, "0.71"),
        (1_000_000, "1"),
        (12_345_678, "12.345678"),
    ] {
        let decision = Decision {
            placements: smallvec::smallvec![PlacementDecision {
                name: "p",
                experience: None,
                variant: None,
                filling: Filling::Ranking(vec![Item {
                    id: "x",
                    micros,
                    because: None
                }]),
                reason: Reason::Ranked,
            }],
            ..Decision::default()
        };
        let mut json = Vec::new();
        decision.write_placements(&mut json);
        let expected = format!(
            r#"{{"p":{{"kind":"ranking","items":[{{"id":"x","score":{text}}}],"reason":"ranked"}}}}"#
        );
        assert_eq!(String::from_utf8(json).unwrap(), expected);
    }
}

fn any_delta() -> impl Strategy<Value = Delta> {
    let name = prop::sample::select(vec!["card", "paypal", "tea", "cup", "mug", "x", "test", "a"]);
    prop_oneof![
        name.clone().prop_map(paid_by),
        name.clone()
            .prop_map(|item| Delta::RecentItem { item: item.into() }),
        (name.clone(), name.clone()).prop_map(|(e, v)| Delta::Assigned {
            experiment: e.into(),
            variant: v.into(),
            is_guest: false,
        }),
        name.prop_map(|e| Delta::Served {
            experience: e.into(),
            session: Some("s".into())
        }),
        (-5i64..5, any::<i64>()).prop_map(|(orders, revenue_minor)| Delta::Orders {
            orders,
            cancelled: 0,
            currency: "GBP".into(),
            revenue_minor
        }),
        (prop::bool::ANY).prop_map(|granted| Delta::Consent {
            statement: ConsentStatement {
                personalization: Some(if granted { Choice::Granted } else { Choice::Denied }),
                analytics: None
            },
            received_at: NOW,
            import: false,
        }),
    ]
}

proptest! {
    #[test]
    fn every_requested_placement_is_filled(
        deltas in prop::collection::vec(any_delta(), 0..20),
        state in 0u8..3,
        names in prop::option::of(prop::collection::vec(
            prop::sample::select(vec!["promo", "pay", "upsell", "payment_methods", "shipping", "nope"]), 0..8)),
        items in prop::collection::vec(prop::sample::select(vec!["tea", "cup", "bag", "pen", "mug", "85123A"]), 0..8),
        total_minor in any::<i64>(),
        choice in prop::option::of(prop::bool::ANY),
        (permit, explain, demo, with_id, has_sales) in any::<(bool, bool, bool, bool, bool)>(),
        country in prop::option::of("[A-Z]{2}"),
        session in prop::option::of("s"),
    ) {
        let rules = if demo {
            Ruleset::parse(include_str!("../../../examples/ruleset.yaml"), 1).unwrap()
        } else {
            ruleset(EXPERIMENT)
        };
        let population = if has_sales { population() } else { Population::default() };
        let part = part(2, deltas);
        let profile = match state {
            0 => ProfileState::Known(&part),
            1 => ProfileState::Absent,
            _ => ProfileState::Unavailable,
        };
        let (guest, cart) = (id("guest"), cart(&items, total_minor));
        let personalization = choice.map(|granted| if granted { Choice::Granted } else { Choice::Denied });
        let request = Request {
            anonymous: with_id.then_some(&guest),
            session: session.as_deref(),
            placements: names.as_deref(),
            cart: Some(&cart),
            country: country.as_deref(),
            consent: ConsentStatement { personalization, analytics: None },
            ..Request::default()
        };
        let terms = Terms { record_permit: permit, explain, ..TERMS };
        let decision = decide(&rules, &population, profile, &request, NOW, &terms);
        match &names {
            None => prop_assert_eq!(decision.placements.len(), rules.placements().len()),
            Some(names) => for name in names {
                prop_assert!(decision.placements.iter().any(|placement| placement.name == *name));
            },
        }
        for placement in &decision.placements {
            let declared = rules.placement(placement.name);
            prop_assert_eq!(declared.map_or("content", |declared| declared.kind.as_str()), placement.kind());
            match &placement.filling {
                Filling::Content(payload) => prop_assert_eq!(payload.is_some(), declared.is_some()),
                Filling::Ranking(items) | Filling::Recommendation(items) => prop_assert!(!items.is_empty()),
            }
        }
        prop_assert!(decision.exposures.is_empty() || (permit && with_id));
        let mut json = Vec::new();
        decision.write_placements(&mut json);
        prop_assert!(serde_json::from_slice::<serde_json::Value>(&json).is_ok());
        let again = decide(&rules, &population, profile, &request, NOW, &terms);
        let mut same = Vec::new();
        again.write_placements(&mut same);
        prop_assert_eq!(json, same);
        prop_assert_eq!(decision.explanation.is_some(), explain);
    }
}

#[test]
fn sessions_go_before_what_is_bought_together_and_say_because_of_what() {
    use crate::domain::recommend::sessions::{Interaction, SessionIndex, Tuning};

    let mut touched = Vec::new();
    // After `tea` comes `pot`, after `pot` comes `tray`; `cup` is bought with `tea` (see `population`).
    for session in 0..6 {
        for (at, item) in (0i64..).zip(["tea", "pot", "tray"]) {
            touched.push(Interaction {
                session,
                item: item.into(),
                at,
            });
        }
    }
    for session in 6..12 {
        touched.push(Interaction {
            session,
            item: "pen".into(),
            at: 0,
        });
        touched.push(Interaction {
            session,
            item: "ink".into(),
            at: 1,
        });
    }
    let index = SessionIndex::build(touched, Tuning::default());
    let population = population().with_sessions(Arc::new(index));
    let rules = ruleset(
        "  - {id: tidy, placement: upsell, when: has(request.country), hide: [pot], boost: {ink: 9.0}}\n",
    );
    let shown = |items: &[&'static str], country: Option<&'static str>| {
        let cart = cart(items, 100);
        let request = Request {
            placements: Some(&["upsell"]),
            cart: Some(&cart),
            country,
            ..Request::default()
        };
        let decision = decide(&rules, &population, ProfileState::Absent, &request, NOW, &TERMS);
        let Filling::Recommendation(items) = &decision.placements[0].filling else {
            panic!()
        };
        assert!(items.is_sorted_by(|a, b| a.micros >= b.micros));
        items
            .iter()
            .map(|item| format!("{}<{}", item.id, item.because.unwrap_or("-")))
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(shown(&["tea"], None), "pot<tea tray<tea cup<tea");
    assert_eq!(shown(&["tray", "tea"], None), "pot<tea cup<tea bag<tea");
    assert_eq!(shown(&["tea"], Some("GB")), "tray<tea cup<tea bag<tea");
    assert_eq!(shown(&["pen", "tea"], Some("GB")), "ink<pen tray<tea cup<tea");
    assert_eq!(shown(&[], None), "tea<- cup<- bag<-");
}
