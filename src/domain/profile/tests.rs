//! The laws of the monoid, within the bounds and beyond them.

use proptest::prelude::*;

use super::*;
use crate::domain::consent::Choice;

pub(super) const NOW: Timestamp = Timestamp(1_795_000_000_000);
pub(super) const DAY_MS: i64 = 86_400_000;

impl ProfilePart {
    /// What it says, to read.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let part = self.clone();
        Snapshot::of(&Document {
            part,
            ..Document::default()
        })
    }
}

/// A contribution with the generation it belongs to.
pub(super) type Folded = (Contribution, u32);

fn key(prefix: &'static str, n: usize) -> impl Strategy<Value = Arc<str>> {
    (0..n).prop_map(move |i| Arc::from(format!("{prefix}{i}")))
}

fn any_delta(keys: usize) -> impl Strategy<Value = Delta> {
    let choice = || prop::option::of(prop_oneof![Just(Choice::Granted), Just(Choice::Denied)]);
    prop_oneof![
        Just(Delta::Seen),
        (
            prop::sample::select(Affinity::ALL.to_vec()),
            key("k", keys),
            -3.0..6.0f64
        )
            .prop_map(|(affinity, key, weight)| Delta::Weight {
                affinity,
                key,
                weight
            }),
        key("item", keys).prop_map(|item| Delta::RecentItem { item }),
        (key("item", keys), 0u32..4, prop::option::of(0i64..900)).prop_map(
            |(item, quantity, price_minor)| Delta::Cart(CartOp::Add {
                item,
                quantity,
                price_minor
            })
        ),
        (key("item", keys), 0u32..4)
            .prop_map(|(item, quantity)| Delta::Cart(CartOp::Remove { item, quantity })),
        Just(Delta::CartCleared),
        (0u16..5).prop_map(Delta::CheckoutStep),
        (-2i64..3, -1i64..2, key("CU", 3), -500i64..5000).prop_map(
            |(orders, cancelled, currency, revenue_minor)| Delta::Orders {
                orders,
                cancelled,
                currency,
                revenue_minor
            }
        ),
        (-1i64..2, key("CU", 3), any::<i64>()).prop_map(|(refunds, currency, refunded_minor)| {
            Delta::Refunds {
                refunds,
                currency,
                refunded_minor,
            }
        }),
        Just(Delta::OrderSeen),
        (key("exp", 3), prop::option::of(key("session", 3)))
            .prop_map(|(experience, session)| Delta::Served { experience, session }),
        (key("test", 3), key("variant", 3), any::<bool>()).prop_map(|(experiment, variant, is_guest)| {
            Delta::Assigned {
                experiment,
                variant,
                is_guest,
            }
        }),
        (choice(), choice(), 0i64..9, any::<bool>()).prop_map(|(analytics, personalization, ms, import)| {
            Delta::Consent {
                statement: ConsentStatement {
                    analytics,
                    personalization,
                },
                received_at: Timestamp(ms),
                import,
            }
        }),
    ]
}

/// Events with distinct ids over two days (so that days of a cap stay within their bound), few of them resets.
pub(super) fn any_history(keys: usize, len: usize) -> impl Strategy<Value = Vec<Folded>> {
    let one = (
        -2 * DAY_MS..0,
        prop::collection::vec(any_delta(keys), 0..5),
        prop::bool::weighted(0.05),
        prop_oneof![9 => Just(0u32), 1 => Just(1u32)],
    );
    prop::collection::vec(one, 0..len).prop_map(|events| {
        let events = events
            .into_iter()
            .enumerate()
            .map(|(n, (age_ms, deltas, resets, generation))| {
                // Coarse times, so that many tie.
                let time = Timestamp(NOW.0 + age_ms / 3_600_000 * 3_600_000);
                let stamp = Stamp {
                    time,
                    event_id: format!("e{n}").into(),
                };
                (
                    Contribution {
                        stamp,
                        deltas,
                        resets,
                    },
                    generation,
                )
            });
        events.collect()
    })
}

pub(super) fn folded(history: &[Folded]) -> ProfilePart {
    let mut part = ProfilePart::default();
    for (contribution, generation) in history {
        part.fold(contribution, *generation);
    }
    part
}

fn merged(a: &ProfilePart, b: &ProfilePart) -> ProfilePart {
    let mut part = a.clone();
    part.merge(b);
    part
}

/// Equal but for the rounding of sums of weights.
fn assert_same(a: &ProfilePart, b: &ProfilePart) {
    let without_weights = |part: &ProfilePart| {
        let mut part = part.clone();
        part.state.affinities = Default::default();
        part
    };
    assert_eq!(without_weights(a), without_weights(b));
    for affinity in Affinity::ALL {
        let half_life_ms = affinity.half_life_ms();
        let values = |part: &ProfilePart| -> Vec<(String, f64)> {
            let weights = part.state.affinities[affinity.index()].iter();
            weights
                .map(|(key, weight)| (key.to_owned(), weight.value_at(NOW, half_life_ms)))
                .collect()
        };
        let (a, b) = (values(a), values(b));
        assert_eq!(a.len(), b.len());
        for ((key_a, value_a), (key_b, value_b)) in a.iter().zip(&b) {
            assert_eq!(key_a, key_b);
            assert!((value_a - value_b).abs() < 1e-9, "{key_a}: {value_a} {value_b}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn any_order_gives_the_same_profile(
        (history, shuffled) in any_history(6, 24).prop_flat_map(|h| (Just(h.clone()), Just(h).prop_shuffle()))
    ) {
        assert_same(&folded(&history), &folded(&shuffled));
    }

    #[test]
    fn merge_joins_disjoint_sets_of_events(history in any_history(6, 24), cut in 0usize..24) {
        let (left, right) = history.split_at(cut.min(history.len()));
        assert_same(&folded(&history), &merged(&folded(left), &folded(right)));
    }

    #[test]
    fn merge_is_commutative_and_associative(a in any_history(6, 12), b in any_history(6, 12), c in any_history(6, 12)) {
        // Ids are distinct only within one history; tell the three apart.
        let named = |mut history: Vec<Folded>, name: &str| {
            for (contribution, _) in &mut history {
                contribution.stamp.event_id = format!("{name}{}", contribution.stamp.event_id).into();
            }
            folded(&history)
        };
        let (a, b, c) = (named(a, "a"), named(b, "b"), named(c, "c"));
        assert_same(&merged(&a, &b), &merged(&b, &a));
        assert_same(&merged(&merged(&a, &b), &c), &merged(&a, &merged(&b, &c)));
    }

    #[test]
    fn parts_of_several_identities_join_in_any_order(a in any_history(6, 12), b in any_history(6, 12)) {
        let mut b = b;
        for (contribution, _) in &mut b {
            contribution.stamp.event_id = format!("b{}", contribution.stamp.event_id).into();
        }
        let (a, b) = (folded(&a), folded(&b));
        let (mut ab, mut ba) = (a.clone(), b.clone());
        ab.join(&b);
        ba.join(&a);
        assert_same(&ab, &ba);
        prop_assert_eq!(ab.state.events, a.state.events + b.state.events);
        prop_assert_eq!(ab.generation(), a.generation().max(b.generation()));
    }

    #[test]
    fn the_empty_part_is_the_identity(history in any_history(6, 24)) {
        let part = folded(&history);
        prop_assert_eq!(&merged(&part, &ProfilePart::default()), &part);
        prop_assert_eq!(&merged(&ProfilePart::default(), &part), &part);
    }

    #[test]
    fn folding_is_merging_what_one_event_gives(history in any_history(6, 12), last in any_history(6, 2)) {
        let mut last = last;
        for (contribution, _) in &mut last {
            contribution.stamp.event_id = "last".into();
        }
        let mut by_fold = folded(&history);
        for (contribution, generation) in &last {
            by_fold.fold(contribution, *generation);
        }
        assert_same(&by_fold, &merged(&folded(&history), &folded(&last)));
    }

    #[test]
    fn parts_and_documents_survive_encoding(history in any_history(90, 40), epoch in any::<u64>(), offset in any::<u64>()) {
        let part = folded(&history);
        prop_assert_eq!(&ProfilePart::decode(&part.encode()).unwrap(), &part);
        let mut document = Document { version: Version { epoch, n: 7 }, part, ..Document::default() };
        document.as_of.advance(3, offset);
        prop_assert_eq!(&Document::decode(&document.encode()).unwrap(), &document);
        let snapshot = Snapshot::of(&document);
        let json: serde_json::Value = serde_json::from_str(&snapshot.to_json(NOW)).unwrap();
        prop_assert_eq!(json["orders"].as_i64(), Some(snapshot.purchases("").orders));
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), history in any_history(6, 12), at in any::<prop::sample::Index>(), flip in any::<u8>()) {
        let mut damaged = folded(&history).encode();
        let at = at.index(damaged.len());
        damaged[at] ^= flip;
        for bytes in [&bytes, &damaged] {
            if let Ok(mut part) = ProfilePart::decode(bytes) {
                part.merge(&folded(&history));
                let snapshot = part.snapshot();
                snapshot.top(Affinity::Item, NOW);
                snapshot.cart();
            }
            let _ = Document::decode(bytes);
        }
    }

    #[test]
    fn the_size_is_bounded_beyond_every_bound(history in any_history(500, 400)) {
        let part = folded(&history);
        for affinity in Affinity::ALL {
            prop_assert!(part.state.affinities[affinity.index()].iter().count() <= affinity.bound());
        }
        prop_assert!(part.state.recent.len() <= fold::MAX_RECENT);
        prop_assert!(part.encode().len() < 64 * 1024);
    }

    /// Recent items and the cart are exact in any order, however many there were.
    #[test]
    fn bounded_sets_are_exact_beyond_their_bounds(
        (history, shuffled) in any_history(60, 300).prop_flat_map(|h| (Just(h.clone()), Just(h).prop_shuffle()))
    ) {
        let (a, b) = (folded(&history), folded(&shuffled));
        prop_assert_eq!(&a.state.recent, &b.state.recent);
        prop_assert_eq!(&a.state.cart, &b.state.cart);
    }

    /// A score is never more than the truth, and what is missing is at most what was evicted: a key that isn't
    /// kept weighs no more than `events beyond the bound` times the least weight kept.
    #[test]
    fn an_evicted_weight_is_lost_and_nothing_is_invented(
        views in prop::collection::vec((0usize..90, 0.1..3.0f64), 65..300)
    ) {
        let mut part = ProfilePart::default();
        let mut truth = std::collections::BTreeMap::<usize, f64>::new();
        for (n, (item, weight)) in views.iter().enumerate() {
            let key: Arc<str> = format!("item{item}").into();
            let deltas = vec![Delta::Weight { affinity: Affinity::Item, key, weight: *weight }];
            let stamp = Stamp { time: NOW, event_id: n.to_string().into() };
            part.fold(&Contribution { stamp, deltas, resets: false }, 0);
            *truth.entry(*item).or_default() += weight;
        }
        let part = part.snapshot();
        let kept = part.top(Affinity::Item, NOW);
        let least = kept.last().map_or(0.0, |(_, score)| *score);
        for (item, weight) in truth {
            let score = part.score(Affinity::Item, &format!("item{item}"), NOW);
            prop_assert!(score <= weight + 1e-6);
            let evictions = views.len() as f64;
            prop_assert!(weight - score <= evictions * least + 1e-6);
        }
    }

    #[test]
    fn weights_decay_by_half_and_never_overflow(weight in -9.0..9.0f64, age in 0i64..4000, far in any::<i64>()) {
        let half_life_ms = 30 * DAY_MS;
        let mut sum = DecayedWeight::new(weight, Timestamp(NOW.0 - age * DAY_MS), half_life_ms);
        let expected = weight * (-(age as f64) / 30.0).exp2();
        prop_assert!((sum.value_at(NOW, half_life_ms) - expected).abs() < 1e-9);
        sum.add(&DecayedWeight::new(f64::INFINITY, Timestamp(far), half_life_ms));
        prop_assert!(sum.value_at(Timestamp(far), half_life_ms).is_finite());
        prop_assert!(sum.score_at(Timestamp(i64::MIN), half_life_ms).is_finite());
    }
}

fn at(ms: i64, id: &str, deltas: Vec<Delta>) -> Contribution {
    Contribution {
        stamp: Stamp {
            time: Timestamp(ms),
            event_id: id.into(),
        },
        deltas,
        resets: false,
    }
}

fn add(item: &str, quantity: u32, price_minor: i64) -> Delta {
    Delta::Cart(CartOp::Add {
        item: item.into(),
        quantity,
        price_minor: Some(price_minor),
    })
}

#[test]
fn the_cart_is_what_remains_after_the_last_clear() {
    let mut part = ProfilePart::default();
    part.fold(
        &at(
            4,
            "d",
            vec![Delta::Cart(CartOp::Remove {
                item: "b".into(),
                quantity: 1,
            })],
        ),
        0,
    );
    part.fold(
        &at(
            3,
            "c",
            vec![Delta::CartCleared, add("a", 1, 250), add("b", 3, 100)],
        ),
        0,
    );
    part.fold(&at(1, "a", vec![add("old", 1, 1)]), 0);
    let snapshot = part.snapshot();
    let cart = snapshot.cart();
    let lines: Vec<_> = cart.lines.iter().map(|line| (line.item, line.quantity)).collect();
    assert_eq!(lines, [("a", 1), ("b", 2)]);
    assert_eq!((cart.total_minor, cart.count), (450, 3));
    part.fold(&at(5, "e", vec![Delta::CartCleared]), 0);
    assert!(part.snapshot().cart().lines.is_empty());
}

#[test]
fn a_reset_keeps_consent_only() {
    let denied = ConsentStatement {
        analytics: None,
        personalization: Some(Choice::Denied),
    };
    let consent = Delta::Consent {
        statement: denied,
        received_at: Timestamp(5),
        import: false,
    };
    let mut part = ProfilePart::default();
    part.fold(&at(1, "a", vec![Delta::Seen]), 0);
    part.fold(
        &Contribution {
            resets: true,
            ..at(2, "b", vec![consent, Delta::Seen])
        },
        0,
    );
    part.fold(&at(3, "late", vec![Delta::Seen]), 0);
    let reset = part.snapshot();
    assert_eq!((reset.generation(), reset.events()), (1, 0));
    assert!(!reset.personalization_allowed(Choice::Granted));
    assert!(reset.analytics_allowed(Choice::Granted));
    part.fold(&at(4, "c", vec![Delta::Seen]), 1);
    assert_eq!(part.snapshot().events(), 1);
}

#[test]
fn an_import_can_only_reduce_consent() {
    let granted = ConsentStatement {
        analytics: Some(Choice::Granted),
        personalization: None,
    };
    let stated = |statement, import| {
        vec![Delta::Consent {
            statement,
            received_at: Timestamp(9),
            import,
        }]
    };
    let mut part = ProfilePart::default();
    part.fold(&at(1, "a", stated(granted, true)), 0);
    assert!(!part.snapshot().analytics_allowed(Choice::Denied));
    part.fold(&at(1, "b", stated(granted, false)), 0);
    assert!(part.snapshot().analytics_allowed(Choice::Denied));
    part.fold(&at(1, "c", stated(ConsentStatement::DENIED, true)), 0);
    assert!(!part.snapshot().analytics_allowed(Choice::Granted));
}

#[test]
fn caps_count_per_day_session_and_lifetime() {
    let served = |session: &str| {
        vec![Delta::Served {
            experience: "x".into(),
            session: Some(session.into()),
        }]
    };
    let mut part = ProfilePart::default();
    part.fold(&at(0, "a", served("s1")), 0);
    part.fold(&at(DAY_MS, "b", served("s1")), 0);
    part.fold(&at(DAY_MS + 1, "c", served("s2")), 0);
    let part = part.snapshot();
    let count = |window| part.cap_count("x", window);
    assert_eq!(count(CapWindow::Lifetime), 3);
    assert_eq!(
        (
            count(CapWindow::Day(0)),
            count(CapWindow::Day(1)),
            count(CapWindow::Day(2))
        ),
        (1, 2, 0)
    );
    assert_eq!(
        (count(CapWindow::Session("s1")), count(CapWindow::Session("s3"))),
        (2, 0)
    );
    assert_eq!(part.cap_count("y", CapWindow::Lifetime), 0);
}

#[test]
fn the_earliest_assignment_stays() {
    let assigned_to = |variant: &str, is_guest: bool| {
        vec![Delta::Assigned {
            experiment: "t".into(),
            variant: variant.into(),
            is_guest,
        }]
    };
    let assigned = |variant: &str| assigned_to(variant, false);
    let mut part = ProfilePart::default();
    part.fold(&at(2, "a", assigned("late")), 0);
    part.fold(&at(1, "b", assigned("early")), 0);
    part.fold(&at(3, "c", assigned("later")), 0);
    assert_eq!(part.snapshot().assignment("t"), Some("early"));
    // A guest's, however early, comes after the user's own.
    let mut guest = ProfilePart::default();
    guest.fold(&at(0, "g", assigned_to("guest's", true)), 0);
    assert_eq!(guest.snapshot().assignment("t"), Some("guest's"));
    let [mut one, mut other] = [part.clone(), guest.clone()];
    one.join(&guest);
    other.join(&part);
    let [one, other] = [one.snapshot(), other.snapshot()];
    assert_eq!(
        (one.assignment("t"), other.assignment("t")),
        (Some("early"), Some("early"))
    );
}

#[test]
fn scores_are_sorted_and_rounded() {
    let weight = |key: &str, weight| Delta::Weight {
        affinity: Affinity::Item,
        key: key.into(),
        weight,
    };
    let mut part = ProfilePart::default();
    part.fold(
        &at(
            NOW.0,
            "a",
            vec![
                weight("b", 1.0),
                weight("a", 1.0),
                weight("c", 2.0),
                weight("gone", -1.0),
            ],
        ),
        0,
    );
    let part = part.snapshot();
    assert_eq!(
        part.top(Affinity::Item, NOW),
        [("c", 2.0), ("a", 1.0), ("b", 1.0)]
    );
    let later = Timestamp(NOW.0 + 30 * DAY_MS);
    assert_eq!(part.score(Affinity::Item, "c", later), 1.0);
    assert_eq!(part.score(Affinity::Item, "unknown", later), 0.0);
}

#[test]
fn unknown_formats_are_told_from_damage() {
    assert_eq!(Document::decode(&[9, 0]), Err(DecodeError::Format(9)));
    assert_eq!(Document::decode(&[]), Err(DecodeError::Malformed));
    let mut bytes = Document::default().encode();
    bytes.push(0);
    assert_eq!(Document::decode(&bytes), Err(DecodeError::Malformed));
}
