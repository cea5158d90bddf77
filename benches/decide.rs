//! What a decision costs, with 10 to 5,000 experiences.
//!
//! `cargo bench --bench decide`. Each row is the median of [`ROUNDS`] rounds on one thread: `decide` and writing
//! the answer, for a known shopper, three placements and a cart. In `none match` every condition is evaluated
//! and fails, the worst case; in `some match` the first that applies stands in the middle.

#![allow(clippy::disallowed_macros)] // A benchmark prints its table.

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use cartwright::domain::consent::Choice;
use cartwright::domain::decision::{ProfileState, Request, Terms, decide};
use cartwright::domain::ids::{Stamp, SubjectId, Timestamp};
use cartwright::domain::profile::{Affinity, Cart, CartLine, Contribution, Delta, Document, Snapshot};
use cartwright::domain::recommend::sessions::{Interaction, SessionIndex, Tuning};
use cartwright::domain::recommend::{Population, PurchasedOrder, Purchases};
use cartwright::domain::ruleset::Ruleset;

const NOW: Timestamp = Timestamp(1_316_000_000_000);
const ROUNDS: usize = 401;
/// Distinct conditions at the most, however many experiences there are.
const CONDITIONS: usize = 300;

fn ruleset(experiences: usize, matching: Option<usize>) -> Ruleset {
    let mut source = String::from(
        "version: 1\ncurrency: GBP\nplacements:\n  pay: {kind: ranking, by: payment_method, candidates: [card, paypal, klarna, invoice]}\n  promo: {kind: content, fallback: {headline: none}}\n  upsell: {kind: recommendation, limit: 4, fallback: [item-0]}\nsegments:\n  vip: {when: profile.revenue > 1000.0}\n  returning: {when: profile.orders >= 2}\n  new: {when: profile.orders == 0}\n  lapsed: {when: \"has(profile.last_order) && now - profile.last_order > duration('1440h')\"}\nexperiences:\n",
    );
    for n in 0..experiences {
        let condition = n % CONDITIONS;
        let when = if matching == Some(n) {
            "request.cart.total > 1.0".to_owned()
        } else {
            match condition % 3 {
                0 => format!("request.country == 'DE' && request.cart.total > {condition}.5"),
                1 => format!(
                    "profile.orders >= {} && 'vip' in profile.segments",
                    condition + 100
                ),
                _ => format!(
                    "request.cart.total >= {}.0 && request.cart.total < {}.0",
                    condition + 500,
                    condition + 600
                ),
            }
        };
        let _ = writeln!(
            source,
            "  - {{id: e{n}, placement: promo, when: \"{when}\", variants: [{{id: a, payload: {{headline: x}}}}, {{id: b, payload: {{headline: y}}}}]}}"
        );
    }
    match Ruleset::parse(&source, 1) {
        Ok(ruleset) => ruleset,
        Err(errors) => panic!("{errors}"),
    }
}

/// Orders of one to twenty items out of `items`, skewed to the first: the shape of a shop, without its data.
fn purchases(orders: usize, items: u64) -> Purchases {
    let mut state = 7u64;
    let mut random = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    let names: Vec<Arc<str>> = (0..items).map(|n| format!("item-{n}").into()).collect();
    let mut order = || PurchasedOrder {
        items: (0..=random() % 40)
            .map(|_| Arc::clone(&names[(random() % (1 + random() % items)) as usize]))
            .collect(),
        payment_method: Some(["card", "paypal"][(random() % 2) as usize].into()),
        shipping_method: None,
    };
    Purchases {
        orders: (0..orders).map(|_| order()).collect(),
    }
}

fn shopper() -> Snapshot {
    let mut document = Document::default();
    for n in 0..12 {
        let deltas = vec![
            Delta::Seen,
            Delta::Orders {
                orders: 1,
                cancelled: 0,
                currency: "GBP".into(),
                revenue_minor: 4_000,
            },
            Delta::Weight {
                affinity: Affinity::PaymentMethod,
                key: "paypal".into(),
                weight: 1.0,
            },
            Delta::RecentItem {
                item: format!("item-{n}").into(),
            },
        ];
        let stamp = Stamp {
            time: Timestamp(NOW.0 - n * 86_400_000),
            event_id: format!("e{n}").into(),
        };
        document.part.fold(
            &Contribution {
                stamp,
                deltas,
                resets: false,
            },
            0,
        );
    }
    Snapshot::of(&document)
}

/// Nanoseconds of one call, as the median over the rounds.
fn measure(mut call: impl FnMut()) -> f64 {
    // About a millisecond a round, so that most rounds are not interrupted.
    const CALLS: u32 = 500;
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..CALLS {
                call();
            }
            start.elapsed().as_nanos() as f64 / f64::from(CALLS)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}

/// The median and the 99th percentile of single calls, in nanoseconds. The clock's own time is in them.
fn percentiles(mut call: impl FnMut()) -> [u128; 2] {
    let mut times: Vec<u128> = (0..200_000)
        .map(|_| {
            let start = Instant::now();
            call();
            start.elapsed().as_nanos()
        })
        .collect();
    times.sort_unstable();
    [times.len() / 2, times.len() * 99 / 100].map(|at| times[at])
}

/// Every order as a session, in the order of its lines.
fn sessions(purchases: &Purchases) -> SessionIndex {
    let orders = purchases.orders.iter().zip(0u64..);
    let touched = orders.flat_map(|(order, session)| {
        order.items.iter().zip(0i64..).map(move |(item, at)| Interaction {
            session,
            item: Arc::clone(item),
            at,
        })
    });
    SessionIndex::build(touched.collect(), Tuning::default())
}

fn main() {
    let purchases = purchases(18_000, 3_600);
    let lines: usize = purchases.orders.iter().map(|order| order.items.len()).sum();
    let start = Instant::now();
    let population = Population::build(&purchases).with_sessions(Arc::new(sessions(&purchases)));
    println!(
        "population and session index of {lines} lines: {:.0} ms\n",
        start.elapsed().as_secs_f64() * 1e3
    );

    let part = shopper();
    let anonymous = SubjectId::from_stored("a:k1.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    let lines = [CartLine {
        item: "item-3",
        quantity: 2,
        price_minor: Some(1_250),
    }];
    let cart = Cart {
        lines: lines.to_vec(),
        total_minor: 2_500,
        count: 2,
    };
    let request = Request {
        anonymous: Some(&anonymous),
        session: Some("s1"),
        cart: Some(&cart),
        country: Some("GB"),
        ..Request::default()
    };
    let terms = Terms {
        consent_default: Choice::Granted,
        record_permit: true,
        explain: false,
    };
    let mut out = Vec::with_capacity(4096);

    println!(
        "{:>12}  {:>11}  {:>13}  {:>13}  {:>17}",
        "experiences", "conditions", "none match ns", "some match ns", "one call p50, p99"
    );
    for experiences in [10, 20, 100, 1_000, 5_000] {
        let mut row = [0.0; 2];
        let mut conditions = 0;
        let mut single = [0; 2];
        for (cell, matching) in row.iter_mut().zip([None, Some(experiences / 2)]) {
            let ruleset = ruleset(experiences, matching);
            conditions = ruleset.conditions().len();
            let mut call = || {
                let profile = ProfileState::Known(black_box(&part));
                let decision = decide(&ruleset, &population, profile, black_box(&request), NOW, &terms);
                out.clear();
                decision.write_segments(&mut out);
                decision.write_placements(&mut out);
                black_box(&out);
            };
            *cell = measure(&mut call);
            single = percentiles(&mut call);
        }
        println!(
            "{experiences:>12}  {conditions:>11}  {:>13.0}  {:>13.0}  {:>8} {:>8}",
            row[0], row[1], single[0], single[1]
        );
    }
    println!("\nby placement, 20 experiences:");
    let ruleset = ruleset(20, Some(10));
    for name in ["pay", "promo", "upsell"] {
        let names = [name];
        let request = Request {
            placements: Some(&names),
            ..request
        };
        let cost = measure(|| {
            let profile = ProfileState::Known(black_box(&part));
            black_box(decide(
                &ruleset,
                &population,
                profile,
                black_box(&request),
                NOW,
                &terms,
            ));
        });
        println!("{name:>12}  {cost:>13.0}");
    }
}
