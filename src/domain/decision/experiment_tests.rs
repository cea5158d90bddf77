//! Who takes part in what: schedules, groups, traffic, holdouts, bandits, and the candidates a shop offers.

use std::collections::HashMap;

use super::*;
use crate::domain::consent::Choice;
use crate::domain::experiment::{DayOutcome, Posteriors};
use crate::domain::ids::{Environment, PseudonymKey, Shop, Stamp, Timestamp};
use crate::domain::profile::{Contribution, Delta, ProfilePart};
use crate::domain::recommend::Population;
use crate::domain::ruleset::{HELD_OUT, Ruleset, SERVED};

const NOW: Timestamp = Timestamp(1_795_514_400_000); // 2026-11-24T10:00:00Z

const TERMS: Terms = Terms {
    consent_default: Choice::Granted,
    record_permit: true,
    explain: false,
};

fn ruleset(top: &str, experiences: &str) -> Ruleset {
    let source = format!(
        "version: 1
currency: GBP
{top}
placements:
  promo: {{kind: content, fallback: none}}
  banner: {{kind: content, fallback: none}}
  pay: {{kind: ranking, by: payment_method, candidates: [card, paypal, {{id: klarna, when: request.cart.total > 35.0}}]}}
experiences:
{experiences}"
    );
    Ruleset::parse(&source, 1).unwrap_or_else(|e| panic!("{:#?}", e.problems))
}

fn subjects(count: usize) -> Vec<SubjectId> {
    let shop = Shop::new("acme", Environment::Live).unwrap();
    let key = PseudonymKey::new("k1", b"secret");
    (0..count)
        .map(|n| key.anonymous(&shop, &format!("guest-{n}")))
        .collect()
}

fn remembering(experiment: &str, variant: &str) -> Snapshot {
    let mut part = ProfilePart::default();
    let contribution = Contribution {
        stamp: Stamp {
            time: Timestamp(0),
            event_id: "e".into(),
        },
        deltas: vec![Delta::Assigned {
            experiment: experiment.into(),
            variant: variant.into(),
            is_guest: true,
        }],
        resets: false,
    };
    part.fold(&contribution, 0);
    part.snapshot()
}

fn at<'a>(
    rules: &'a Ruleset,
    population: &'a Population,
    state: ProfileState<'_>,
    who: Option<&'a SubjectId>,
    now: Timestamp,
) -> Decision<'a> {
    let request = Request {
        anonymous: who,
        ..Request::default()
    };
    decide(rules, population, state, &request, now, &TERMS)
}

fn promo<'d>(decision: &'d Decision<'_>) -> (Option<&'d str>, &'static str) {
    let placement = &decision.placements[0];
    (placement.experience, placement.reason.as_str())
}

#[test]
fn a_schedule_holds_from_its_first_instant_until_before_its_last() {
    let rules = ruleset(
        "time_zone: Europe/London",
        "  - {id: black-friday, placement: promo, from: 2026-11-27, until: 2026-11-28T06:00, payload: 1}
  - {id: berlin, placement: promo, from: 2026-11-29, time_zone: Europe/Berlin, payload: 1}",
    );
    let population = Population::default();
    let at_utc = |text: &str| {
        let now = crate::domain::time::parse_rfc3339(text).unwrap();
        let decision = at(&rules, &population, ProfileState::Absent, None, now);
        promo(&decision).0.map(str::to_owned)
    };
    for (now, expected) in [
        ("2026-11-26T23:59:59.999Z", None),
        ("2026-11-27T00:00:00Z", Some("black-friday")),
        ("2026-11-28T05:59:59Z", Some("black-friday")),
        ("2026-11-28T06:00:00Z", None),
        ("2026-11-28T22:59:59Z", None),
        ("2026-11-28T23:00:00Z", Some("berlin")),
    ] {
        assert_eq!(at_utc(now).as_deref(), expected, "{now}");
    }
}

#[test]
fn of_a_group_everybody_sees_one_and_keeps_it_whatever_joins() {
    let member = |id: &str, placement: &str| {
        format!(
            "  - {{id: {id}, placement: {placement}, group: checkout, variants: [{{id: a, payload: 1}}, {{id: b, payload: 2}}]}}\n"
        )
    };
    let two = ruleset("", &[member("x", "promo"), member("y", "banner")].concat());
    let three = ruleset(
        "",
        &[member("x", "promo"), member("y", "banner"), member("z", "banner")].concat(),
    );
    let population = Population::default();
    let (shoppers, mut counts) = (subjects(3_000), HashMap::new());
    for who in &shoppers {
        let before = at(&two, &population, ProfileState::Absent, Some(who), NOW);
        let [(experiment, variant)] = before.assigned[..] else {
            panic!("{:?}", before.assigned);
        };
        *counts.entry(experiment).or_insert(0) += 1;
        let part = remembering(experiment, variant);
        let after = at(&three, &population, ProfileState::Known(&part), Some(who), NOW);
        assert_eq!(after.exposures[..], [(experiment, variant)]);
        assert_eq!(after.assigned.len(), 0);
        let fresh = at(&three, &population, ProfileState::Absent, Some(who), NOW);
        assert_eq!(fresh.assigned.len(), 1);
    }
    assert!(
        counts.values().all(|count| (1_350..1_650).contains(count)),
        "{counts:?}"
    );
    // Without an id nobody can be told apart.
    let nobody = at(&two, &population, ProfileState::Absent, None, NOW);
    assert_eq!((nobody.exposures.len(), promo(&nobody)), (0, (None, "no_match")));
}

#[test]
fn traffic_takes_its_share_and_growing_it_keeps_who_is_in() {
    let rules = |percent: u32| {
        ruleset(
            "",
            &format!(
                "  - {{id: x, placement: promo, traffic: {percent}, variants: [{{id: a, payload: 1}}, {{id: b, payload: 2}}]}}"
            ),
        )
    };
    let (few, many) = (rules(10), rules(60));
    let population = Population::default();
    let (mut in_few, mut in_many) = (0, 0);
    for who in &subjects(5_000) {
        let small = at(&few, &population, ProfileState::Absent, Some(who), NOW);
        let large = at(&many, &population, ProfileState::Absent, Some(who), NOW);
        in_few += small.exposures.len();
        in_many += large.exposures.len();
        if !small.exposures.is_empty() {
            assert_eq!(small.exposures, large.exposures);
        }
    }
    assert!((430..570).contains(&in_few), "{in_few}");
    assert!((2_850..3_150).contains(&in_many), "{in_many}");
}

#[test]
fn who_is_held_out_takes_part_as_such_and_sees_what_comes_next() {
    let rules = ruleset(
        "",
        "  - {id: x, placement: promo, priority: 1, holdout: 20, payload: 1}
  - {id: y, placement: banner, priority: 1, holdout: 20, payload: 1}
  - {id: next, placement: banner, payload: 2}",
    );
    let population = Population::default();
    let mut held = 0;
    for who in &subjects(2_000) {
        let decision = at(&rules, &population, ProfileState::Absent, Some(who), NOW);
        let variant = |experiment: &str| {
            let mut exposures = decision.exposures.iter();
            exposures.find(|(id, _)| *id == experiment).unwrap().1
        };
        let x_held = variant("x") == HELD_OUT;
        held += u32::from(x_held);
        let expected = if x_held {
            (None, "holdout")
        } else {
            (Some("x"), "targeting_match")
        };
        assert_eq!(promo(&decision), expected);
        let banner = &decision.placements[1];
        let expected = if variant("y") == HELD_OUT { "next" } else { "y" };
        assert_eq!(
            (banner.experience, banner.reason),
            (Some(expected), Reason::TargetingMatch)
        );
        assert_eq!(decision.assigned, decision.exposures);
    }
    assert!((340..460).contains(&held), "{held}");
    // What the profile remembers holds, whatever the hash says.
    for (remembered, expected) in [
        (HELD_OUT, (None, "holdout")),
        (SERVED, (Some("x"), "targeting_match")),
    ] {
        let part = remembering("x", remembered);
        for who in &subjects(20) {
            let decision = at(&rules, &population, ProfileState::Known(&part), Some(who), NOW);
            assert_eq!(promo(&decision), expected);
            assert_eq!(decision.exposures[0], ("x", remembered));
        }
    }
}

#[test]
fn the_global_holdout_sees_exempt_experiences_alone() {
    let rules = ruleset(
        "holdout: 10",
        "  - {id: x, placement: promo, payload: 1}
  - {id: legal, placement: banner, holdout_exempt: true, payload: 1}",
    );
    let population = Population::default();
    let mut held = 0;
    for who in &subjects(2_000) {
        let decision = at(&rules, &population, ProfileState::Absent, Some(who), NOW);
        assert_eq!(decision.placements[1].experience, Some("legal"));
        match promo(&decision) {
            (None, "holdout") => held += 1,
            (Some("x"), "targeting_match") => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(decision.exposures.len(), 0);
    }
    assert!((150..250).contains(&held), "{held}");
    let nobody = at(&rules, &population, ProfileState::Absent, None, NOW);
    assert_eq!(promo(&nobody), (Some("x"), "targeting_match"));
}

#[test]
fn weights_hold_over_a_million_shoppers_and_experiments_are_independent() {
    let variants = |weights: &[(&str, f64)]| -> Vec<crate::domain::ruleset::Variant> {
        let list: Vec<String> = weights
            .iter()
            .map(|(id, weight)| format!("{{id: {id}, weight: {weight}, payload: 1}}"))
            .collect();
        let rules = ruleset(
            "",
            &format!("  - {{id: x, placement: promo, variants: [{}]}}", list.join(", ")),
        );
        rules.experiences()[0].variants.clone()
    };
    let (one, other) = (
        variants(&[("a", 70.0), ("b", 20.0), ("c", 10.0)]),
        variants(&[("a", 50.0), ("b", 50.0)]),
    );
    const SHOPPERS: u32 = 1_000_000;
    let mut joint = [[0u32; 2]; 3];
    for n in 0..SHOPPERS {
        let subject = format!("a:k1.{n:x}");
        let first = bucketing::choose("one", &subject, &one).unwrap();
        let second = bucketing::choose("other", &subject, &other).unwrap();
        joint[first][second] += 1;
    }
    // Pearson's test against the product of the shares: of independence and of the weights at once, 5 degrees of freedom.
    let mut chi_square = 0.0;
    for (row, share) in joint.iter().zip([0.7, 0.2, 0.1]) {
        for count in row {
            let expected = f64::from(SHOPPERS) * share * 0.5;
            chi_square += (f64::from(*count) - expected).powi(2) / expected;
        }
    }
    // Exceeded by chance once in a hundred thousand hashes.
    assert!(chi_square < 30.86, "{chi_square} {joint:?}");
}

#[test]
fn a_ranking_never_shows_what_is_not_offered() {
    let rules = ruleset(
        "",
        "  - {id: no-paypal, placement: pay, when: has(request.device), hide: [paypal]}",
    );
    let population = Population::default();
    let ranked = |offered: &[&str], device: Option<&str>| -> Vec<String> {
        let candidates = [("pay", offered)];
        let request = Request {
            candidates: &candidates,
            device,
            ..Request::default()
        };
        let decision = decide(&rules, &population, ProfileState::Absent, &request, NOW, &TERMS);
        let Filling::Ranking(items) = &decision.placements[2].filling else {
            panic!()
        };
        items.iter().map(|item| item.id.to_owned()).collect()
    };
    assert_eq!(ranked(&["paypal", "card"], None), ["card", "paypal"]);
    assert_eq!(ranked(&["gift_card", "paypal"], None), ["paypal", "gift_card"]);
    assert_eq!(ranked(&["gift_card", "paypal"], Some("mobile")), ["gift_card"]);
    // A condition keeps its word; but rather what is offered than nothing.
    assert_eq!(ranked(&["klarna", "card"], None), ["card"]);
    assert_eq!(ranked(&["klarna"], None), ["klarna"]);
    assert_eq!(ranked(&[], None), [""; 0]);
}

const BANDIT: &str = "  - id: x
    placement: promo
    bandit: {explore: 10, half_life_days: 14}
    variants: [{id: a, payload: 1}, {id: b, payload: 2}, {id: c, payload: 3}]";

#[test]
fn a_bandit_prefers_what_works_explores_and_can_be_made_again() {
    let rules = ruleset("", BANDIT);
    let outcome = |variant: &str, converted| DayOutcome {
        variant: variant.into(),
        day: NOW.day(),
        exposures: 2_000,
        subjects: 2_000,
        converted,
        revenue_minor: 0.0,
        revenue_squares: 0.0,
    };
    let mut posteriors = Posteriors::default();
    posteriors.learn(
        &"x".into(),
        &[outcome("a", 100), outcome("b", 200), outcome("c", 100)],
        14.0,
        NOW.day(),
    );
    let population = Population::default().with_posteriors(posteriors);
    let (shoppers, mut counts) = (subjects(3_000), HashMap::new());
    for who in &shoppers {
        let decision = at(&rules, &population, ProfileState::Absent, Some(who), NOW);
        assert_eq!(promo(&decision), (Some("x"), "bandit"));
        let (_, variant) = decision.assigned[0];
        *counts.entry(variant).or_insert(0) += 1;
        // From what the record holds.
        let excerpt = serde_json::to_string(&decision.consulted.excerpt(&population)).unwrap();
        let excerpt = serde_json::from_str(&excerpt).unwrap();
        let again = Population::of_excerpt(&excerpt);
        assert_eq!(
            at(&rules, &again, ProfileState::Absent, Some(who), NOW).assigned[0],
            ("x", variant)
        );
        // And it stays, whatever is learnt.
        let part = remembering("x", "c");
        let kept = at(&rules, &population, ProfileState::Known(&part), Some(who), NOW);
        assert_eq!(kept.exposures[0], ("x", "c"));
    }
    // A tenth explores, a third of it each.
    assert!((2_700..2_900).contains(&counts["b"]), "{counts:?}");
    assert!(counts["a"] > 60 && counts["c"] > 60, "{counts:?}");
}

/// One simulated shop of `days` days; shoppers convert at `rates`. Returns who converted.
fn simulate(rules: &Ruleset, rates: &[(&str, f64)], seed: usize) -> u32 {
    const DAYS: i64 = 20;
    const SHOPPERS_A_DAY: usize = 200;
    let shop = Shop::new("acme", Environment::Live).unwrap();
    let key = PseudonymKey::new("k1", format!("seed {seed}").as_bytes());
    let mut outcomes: Vec<DayOutcome> = Vec::new();
    let mut total = 0;
    for day in 0..DAYS {
        let mut posteriors = Posteriors::default();
        posteriors.learn(&"x".into(), &outcomes, 14.0, day);
        let population = Population::default().with_posteriors(posteriors);
        for n in 0..SHOPPERS_A_DAY {
            let who = key.anonymous(&shop, &format!("{day}-{n}"));
            let decision = at(rules, &population, ProfileState::Absent, Some(&who), NOW);
            let (_, variant) = decision.assigned[0];
            let (_, rate) = rates.iter().find(|(name, _)| *name == variant).unwrap();
            let converts = bucketing::is_among(*rate, "conversion", who.as_str(), variant);
            total += u32::from(converts);
            let known = outcomes
                .iter()
                .position(|o| o.day == day && *o.variant == *variant);
            let at = known.unwrap_or_else(|| {
                outcomes.push(DayOutcome {
                    variant: variant.into(),
                    day,
                    exposures: 0,
                    subjects: 0,
                    converted: 0,
                    revenue_minor: 0.0,
                    revenue_squares: 0.0,
                });
                outcomes.len() - 1
            });
            outcomes[at].subjects += 1;
            outcomes[at].converted += u64::from(converts);
        }
    }
    total
}

#[test]
#[allow(clippy::disallowed_macros, reason = "the figure is for people")]
fn a_bandit_earns_more_than_an_even_split() {
    let (bandit, even) = (
        ruleset("", BANDIT),
        ruleset(
            "",
            &BANDIT.replace("    bandit: {explore: 10, half_life_days: 14}\n", ""),
        ),
    );
    let rates = [("a", 0.05), ("b", 0.10), ("c", 0.04)];
    let shops = 12;
    let gains: Vec<f64> = (0..shops)
        .map(|seed| {
            let learnt = simulate(&bandit, &rates, seed);
            let split = simulate(&even, &rates, seed);
            f64::from(learnt) / f64::from(split) - 1.0
        })
        .collect();
    let mean = gains.iter().sum::<f64>() / shops as f64;
    let variance = gains.iter().map(|gain| (gain - mean).powi(2)).sum::<f64>() / (shops - 1) as f64;
    println!(
        "reward of 4,000 shoppers over an even split: {:+.1} % (standard deviation {:.1} points over {shops} shops)",
        mean * 100.0,
        variance.sqrt() * 100.0
    );
    // The best that can be had is +57 %.
    assert!(mean > 0.25, "{gains:?}");
    assert!(gains.iter().all(|gain| *gain > 0.0), "{gains:?}");
}

#[test]
fn what_is_forced_is_served_whatever_holds_it_back_and_assigns_nobody() {
    let rules = ruleset(
        "",
        "  - {id: first, placement: promo, priority: 9, payload: 9}
  - {id: x, placement: promo, when: request.cart.total > 999.0, until: 2020-01-01, variants: [{id: a, payload: 1}, {id: b, weight: 0, payload: 2}]}
  - {id: y, placement: banner, traffic: 0, payload: 3}",
    );
    let population = Population::default();
    let shown = |forced: &[(&str, &str)]| {
        let request = Request {
            forced,
            ..Request::default()
        };
        let decision = decide(&rules, &population, ProfileState::Absent, &request, NOW, &TERMS);
        assert_eq!(decision.assigned.len(), 0);
        let placements = decision.placements.iter();
        placements
            .map(|placement| placement.experience.unwrap_or("-").to_owned() + placement.variant.unwrap_or(""))
            .take(2)
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(shown(&[]), "first -");
    assert_eq!(shown(&[("x", "b"), ("y", "")]), "xb y");
    // What there is not cannot be shown.
    assert_eq!(shown(&[("x", "c"), ("x", ""), ("z", "a")]), "first -");
}
