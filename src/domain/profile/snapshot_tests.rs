//! What is read in place is what was folded, in both formats, and damaged bytes are an error or a shorter list.

use proptest::prelude::*;

use super::cart::Change;
use super::format::Entries;
use super::tests::{DAY_MS, NOW, any_history, folded};
use super::*;
use crate::domain::consent::Choice;
use crate::domain::decision::{Facts, PastInput, Request, Terms};
use crate::domain::ids::SubjectId;
use crate::domain::recommend::ExcerptRef;
use crate::domain::ruleset::Ruleset;

/// A part as the build before format 3 wrote it, without its format byte: orders, a refund, weights, a cart, a
/// capped experience, an assignment and consent.
const FORMER_PART: &str = "\
010180f8b2e5bd68000180f8b2e5bd6801060180f8bf85a4680180f8b2e5bd680180f8bf85a4680180888093bd68a7fec6be\
    0302020345555200000002f403034742500402f2c0010000020532323432337cda0ccc83d6f53fe80a06383531323341dad8\
    c14acfb01640e60a01066c6967687473a03b299f78201e40b205010670617970616cbb233e295957f23fe6010104706f7374\
    bb233e295957f23fe60101066d6f62696c659fe9a7745b2cfc3fcc030280888093bd68a7fec6be03037465618098cdc0bc68\
    83bcc09e030532323432330180888093bd68a7fec6be030380888093bd68a7fec6be0301037465610401fe0380888093bd68\
    a7fec6be030205636166c3a9020080f8b2e5bd68aba6a2ca0201037465610100010662616e6e657280f8b2e5bd680101cec4\
    020101e1abd1b6968ca6c52580f8b2e5bd68010108636865636b6f75740180f8b2e5bd68aba6a2ca020162";

/// What that build wrote of a document in front of its part.
const FORMER_HEAD: &str = "4d030203c0843d2807010c753a6b312e736f6d656f6e658af8b2e5bd68";

fn unhex(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex
        .chars()
        .map(|digit| digit.to_digit(16).unwrap() as u8)
        .collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn former(head: &str) -> Vec<u8> {
    unhex(&format!("02{head}{FORMER_PART}"))
}

/// Writes as the former format was written.
fn write_former<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_extend(value, vec![2]).unwrap()
}

fn document(part: ProfilePart) -> Document {
    let mut document = Document {
        version: Version { epoch: 77, n: 3 },
        linked_user: Some(SubjectId::from_stored("u:k1.someone")),
        stored_at: Timestamp(NOW.0 + 5),
        part,
        ..Document::default()
    };
    document.as_of.advance(3, 1_000_000);
    document.as_of.advance(40, 7);
    document
}

impl Snapshot {
    /// The variant that the shopper was first assigned in `experiment`.
    pub(crate) fn assignment(&self, experiment: &str) -> Option<&str> {
        let mut assignments = self.assignments();
        assignments.find_map(|(have, variant)| (have == experiment).then_some(variant))
    }
}

/// A part of which these are the recent items.
fn recent(items: impl Iterator<Item = Delta>) -> ProfilePart {
    let mut part = ProfilePart::default();
    let stamp = Stamp {
        time: NOW,
        event_id: "e".into(),
    };
    let contribution = Contribution {
        stamp,
        deltas: items.collect(),
        resets: false,
    };
    part.fold(&contribution, 0);
    part
}

/// Asks for everything, and returns how many entries there were.
fn read_all(profile: &Snapshot) -> usize {
    let weights = Affinity::ALL.map(|affinity| {
        profile.weights(affinity).score("k1", NOW);
        profile.score(affinity, "k1", NOW);
        profile.top(affinity, NOW).len()
    });
    profile.purchases("CU1");
    profile.main_currency();
    for window in [
        CapWindow::Lifetime,
        CapWindow::Day(NOW.day()),
        CapWindow::Session("session1"),
    ] {
        profile.cap_count("exp1", window);
    }
    profile.assignment("test1");
    assert!(!profile.to_json(NOW).is_empty());
    weights.iter().sum::<usize>()
        + profile.totals().count()
        + profile.recent_items().count()
        + profile.cart().lines.len()
        + profile.assignments().count()
}

#[test]
fn a_part_of_the_former_format_is_read() {
    let part = ProfilePart::decode(&former("")).unwrap();
    assert_eq!(write_former(&part), former(""));
    let (current, profile) = (part.encode(), part.snapshot());
    assert_eq!(current.first(), Some(&3));
    assert_eq!(ProfilePart::decode(&current), Ok(part));
    assert_eq!((profile.generation(), profile.events()), (1, 3));
    assert_eq!(profile.first_seen(), Some(Timestamp(NOW.0 - 40 * DAY_MS)));
    assert_eq!(profile.last_seen(), Some(NOW));
    assert_eq!(profile.last_order(), profile.first_seen());
    assert_eq!(profile.checkout_step(), 2);
    assert_eq!(
        profile.purchases("GBP"),
        Purchases {
            orders: 2,
            cancelled_orders: 1,
            refunds: 1,
            revenue_minor: 12_345,
            refunded_minor: 0,
            average_order_minor: Some(6_172)
        }
    );
    assert_eq!(
        (profile.main_currency(), profile.purchases("EUR").refunded_minor),
        (Some("GBP"), 250)
    );
    let keys = |affinity| {
        profile
            .top(affinity, NOW)
            .into_iter()
            .map(|(key, _)| key)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        Affinity::ALL.map(keys),
        [
            vec!["85123A", "22423"],
            vec!["lights"],
            vec!["paypal"],
            vec!["post"],
            vec!["mobile"]
        ]
    );
    assert_eq!(profile.score(Affinity::Item, "22423", NOW), 0.954_842);
    assert_eq!(profile.recent_items().collect::<Vec<_>>(), ["tea", "22423"]);
    let cart = profile.cart();
    let lines: Vec<_> = cart
        .lines
        .iter()
        .map(|line| (line.item, line.quantity, line.price_minor))
        .collect();
    assert_eq!(lines, [("tea", 1, Some(255)), ("café", 1, None)]);
    for window in [
        CapWindow::Lifetime,
        CapWindow::Day(NOW.day()),
        CapWindow::Session("k1.session"),
    ] {
        assert_eq!(profile.cap_count("banner", window), 1);
    }
    assert_eq!(profile.assignments().collect::<Vec<_>>(), [("checkout", "b")]);
    assert!(profile.analytics_allowed(Choice::Denied));
    assert!(!profile.personalization_allowed(Choice::Granted));
}

#[test]
fn a_document_of_the_former_format_is_read() {
    let bytes = former(FORMER_HEAD);
    let stored = Document::decode(&bytes).unwrap();
    assert_eq!(stored, document(ProfilePart::decode(&former("")).unwrap()));
    assert_eq!(write_former(&stored), bytes);
    let profile = Snapshot::read(bytes.into()).unwrap();
    assert_eq!(profile, Snapshot::of(&stored));
    assert_eq!(profile.document(), Ok(stored));
    assert_eq!(profile.version(), Version { epoch: 77, n: 3 });
    assert_eq!(
        profile.as_of().iter().collect::<Vec<_>>(),
        [(3, 1_000_000), (40, 7)]
    );
    assert_eq!(profile.linked_user().map(SubjectId::as_str), Some("u:k1.someone"));
    assert_eq!(profile.stored_at(), Timestamp(NOW.0 + 5));
}

#[test]
fn a_decision_record_that_holds_the_former_format_is_decided_again() {
    let request = Request {
        consent: ConsentStatement {
            analytics: None,
            personalization: Some(Choice::Granted),
        },
        ..Request::default()
    };
    let terms = Terms {
        consent_default: Choice::Denied,
        record_permit: true,
        explain: false,
    };
    let profile = former(FORMER_HEAD);
    let population = ExcerptRef::default();
    let facts = Facts::new(&request, true, &terms, false, Some(&profile), population);
    let past = PastInput::read(&serde_json::to_string(&facts).unwrap()).unwrap();
    assert_eq!(past.profile_version(), Some(Version { epoch: 77, n: 3 }));
    let ruleset = "version: 1
currency: GBP
placements:
  promo: {kind: content, fallback: none}
segments:
  back: {when: profile.orders == 2}
";
    let ruleset = Ruleset::parse(ruleset, 1).unwrap();
    let is_back = past.decide_again(&ruleset, NOW, false, |decision| {
        decision.segments.as_slice() == ["back"]
    });
    assert!(is_back);
}

#[test]
fn long_sections_have_longer_lengths() {
    for length in [1, 4, 5, 100, 600, 700, 100_000] {
        let deltas = (0..24).map(|n| Delta::RecentItem {
            item: format!("{n:02}{}", "x".repeat(length)).into(),
        });
        let document = document(recent(deltas));
        let profile = Snapshot::of(&document);
        assert_eq!(profile.recent_items().count(), 24);
        assert_eq!(Snapshot::read(profile.bytes().clone()).as_ref(), Ok(&profile));
        assert_eq!(profile.document(), Ok(document));
    }
}

#[test]
fn a_text_that_is_none_ends_its_section_and_is_told_to_who_folds() {
    let deltas = ["tea", "cup", "pen"].map(|item| Delta::RecentItem { item: item.into() });
    let part = recent(deltas.into_iter());
    let mut bytes = document(part).encode();
    let whole: Vec<String> = Snapshot::read(bytes.clone().into())
        .unwrap()
        .recent_items()
        .map(str::to_owned)
        .collect();
    assert_eq!(whole.len(), 3);
    let at = bytes
        .windows(3)
        .position(|window| window == whole[1].as_bytes())
        .unwrap();
    bytes[at] = 0xff;
    let profile = Snapshot::read(bytes.into()).unwrap();
    assert_eq!(profile.recent_items().collect::<Vec<_>>(), [&*whole[0]]);
    assert_eq!(profile.document(), Err(DecodeError::Malformed));
}

#[test]
fn a_count_that_is_a_lie_ends_with_the_bytes() {
    // Entries of one byte each: the empty text.
    let mut section = postcard::to_extend(&u64::MAX, Vec::new()).unwrap();
    assert_eq!(Entries::<&str>::of(&section).count(), 0);
    section.extend([0; 5]);
    assert_eq!(Entries::<&str>::of(&section).count(), 5);
    assert_eq!(Entries::<&str>::of(&[]).count(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_was_folded_is_what_is_read(history in any_history(90, 60)) {
        let part = folded(&history);
        let (state, profile) = (&part.state, part.snapshot());
        prop_assert_eq!(profile.generation(), part.generation);
        prop_assert_eq!(profile.consent(), &part.consent);
        prop_assert_eq!(profile.events(), state.events);
        prop_assert_eq!(profile.first_seen(), state.first_seen);
        prop_assert_eq!(profile.last_seen(), state.last_seen);
        prop_assert_eq!(profile.last_order(), state.last_order);
        prop_assert_eq!(profile.checkout_step(), state.checkout_step.map_or(0, |(_, step)| step));

        let totals: Vec<(&str, Totals)> = state.totals.iter().map(|(key, totals)| (key, *totals)).collect();
        prop_assert_eq!(profile.totals().collect::<Vec<_>>(), totals.clone());
        let sum = |field: fn(&Totals) -> i64| totals.iter().fold(0i64, |sum, (_, totals)| sum.wrapping_add(field(totals)));
        prop_assert_eq!(profile.purchases("").orders, sum(|totals| totals.orders));
        prop_assert_eq!(profile.purchases("").cancelled_orders, sum(|totals| totals.cancelled));
        prop_assert_eq!(profile.purchases("").refunds, sum(|totals| totals.refunds));
        for (currency, totals) in &totals {
            prop_assert_eq!(profile.purchases(currency).revenue_minor, totals.revenue_minor);
            prop_assert_eq!(profile.purchases(currency).refunded_minor, totals.refunded_minor);
            let mean = (totals.orders > 0).then(|| totals.revenue_minor / totals.orders);
            prop_assert_eq!(profile.purchases(currency).average_order_minor, mean);
        }
        prop_assert_eq!(profile.purchases("other").revenue_minor, 0);

        for affinity in Affinity::ALL {
            let weights = profile.weights(affinity);
            let mut kept = 0;
            for (key, weight) in state.affinities[affinity.index()].iter() {
                let score = weight.score_at(NOW, affinity.half_life_ms());
                prop_assert_eq!(weights.score(key, NOW), score);
                prop_assert_eq!(profile.score(affinity, key, NOW), score);
                let shown = profile.top(affinity, NOW).into_iter().find(|(have, _)| *have == key);
                prop_assert_eq!(shown, (score > 0.0).then_some((key, score)));
                kept += usize::from(score > 0.0);
            }
            prop_assert_eq!(profile.top(affinity, NOW).len(), kept);
            for missing in ["", "k", "zzz"] {
                prop_assert_eq!((weights.score(missing, NOW), profile.score(affinity, missing, NOW)), (0.0, 0.0));
            }
        }

        let recent: Vec<&str> = state.recent.iter().map(|recent| &*recent.item).collect();
        prop_assert_eq!(profile.recent_items().collect::<Vec<_>>(), recent);
        let changes = state.cart.operations.iter().map(|operation| Change {
            item: &operation.item,
            quantity: operation.quantity,
            price_minor: operation.price_minor,
        });
        prop_assert_eq!(profile.cart(), Cart::of(changes));

        for n in 0..4 {
            let experience = format!("exp{n}");
            let cap = state.caps.iter().find(|(have, _)| *have == experience).map(|(_, cap)| cap);
            for window in [CapWindow::Lifetime, CapWindow::Day(NOW.day() - 1), CapWindow::Session("session1")] {
                prop_assert_eq!(profile.cap_count(&experience, window), cap.map_or(0, |cap| cap.count(window)));
            }
            let test = format!("test{n}");
            let assigned = state.assignments.iter().find(|(have, _)| *have == test);
            prop_assert_eq!(profile.assignment(&test), assigned.map(|(_, assigned)| &*assigned.variant));
        }
        let assignments: Vec<(&str, &str)> =
            state.assignments.iter().map(|(key, assigned)| (key, &*assigned.variant)).collect();
        prop_assert_eq!(profile.assignments().collect::<Vec<_>>(), assignments);
    }

    #[test]
    fn both_formats_come_back_and_the_current_one_is_hardly_longer(history in any_history(90, 60)) {
        let document = document(folded(&history));
        let (former, current) = (write_former(&document), document.encode());
        prop_assert_eq!(Document::decode(&former), Ok(document.clone()));
        prop_assert_eq!(Document::decode(&current), Ok(document.clone()));
        prop_assert_eq!(ProfilePart::decode(&write_former(&document.part)), Ok(document.part.clone()));
        prop_assert_eq!(ProfilePart::decode(&document.part.encode()), Ok(document.part.clone()));
        // Ten lengths, of two bytes at most.
        prop_assert!(current.len() <= former.len() + 20);
        let profile = Snapshot::of(&document);
        prop_assert_eq!(profile.bytes(), &current);
        prop_assert_eq!(Snapshot::read(current.into()), Ok(profile.clone()));
        prop_assert_eq!(Snapshot::read(former.into()), Ok(profile.clone()));
        prop_assert_eq!(profile.document(), Ok(document));
    }

    #[test]
    fn what_is_cut_off_is_an_error_and_a_section_cut_off_a_shorter_list(history in any_history(90, 30)) {
        let document = document(folded(&history));
        for bytes in [document.encode(), write_former(&document)] {
            for cut in 0..bytes.len() {
                prop_assert!(Snapshot::read(bytes[..cut].to_vec().into()).is_err());
                prop_assert!(Document::decode(&bytes[..cut]).is_err());
            }
        }
        let section = postcard::to_extend(&document.part.state.totals, Vec::new()).unwrap();
        let whole: Vec<(&str, Totals)> = Entries::of(&section).collect();
        for cut in 0..section.len() {
            let cut: Vec<(&str, Totals)> = Entries::of(&section[..cut]).collect();
            prop_assert!(cut.len() <= whole.len() && cut == whole[..cut.len()]);
        }
    }

    #[test]
    fn nothing_panics_on_any_bytes(
        random in prop::collection::vec(any::<u8>(), 0..300),
        history in any_history(90, 30),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let document = document(folded(&history));
        let mut all = vec![random.clone(), [&[3], &*random].concat(), [&[2], &*random].concat()];
        for mut damaged in [document.encode(), write_former(&document)] {
            for (at, flip) in &flips {
                let at = at.index(damaged.len());
                damaged[at] ^= flip;
            }
            all.push(damaged);
        }
        for bytes in all {
            let decoded = Document::decode(&bytes);
            let length = bytes.len();
            match Snapshot::read(bytes.into()) {
                Ok(profile) => prop_assert!(read_all(&profile) <= length.max(profile.bytes().len())),
                Err(_) => prop_assert!(decoded.is_err()),
            }
        }
    }
}
