//! The golden corpus: whole decisions, pinned to the byte.
//!
//! `tests/fixtures/decision/v1/ruleset.yaml` and `purchases.json` hold for all cases. A case `NAME.json` states the
//! shopper's history and the request; `NAME.expected.json` is what [`decide`] makes of it. A difference means
//! that shoppers see something else than before: if that is intended, look at each one, then rewrite them with
//! `UPDATE_GOLDEN=1 cargo test --test it golden`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cartwright::domain::consent::{Choice, ConsentStatement};
use cartwright::domain::decision::{Decision, ProfileState, Request, Terms, decide};
use cartwright::domain::ids::{Stamp, SubjectId, Timestamp};
use cartwright::domain::profile::{
    Affinity, Cart, CartLine, CartOp, Contribution, Delta, Document, Snapshot,
};
use cartwright::domain::recommend::{Population, PurchasedOrder, Purchases};
use cartwright::domain::ruleset::Ruleset;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// What the case is about.
    #[allow(dead_code)]
    about: String,
    now_ms: i64,
    profile: Profile,
    #[serde(default)]
    request: Ask,
    #[serde(default = "granted")]
    consent_default: Choice,
    #[serde(default = "yes")]
    record_permit: bool,
    #[serde(default)]
    explain: bool,
}

fn granted() -> Choice {
    Choice::Granted
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Profile {
    Known(Vec<Deed>),
    Absent,
    Unavailable,
}

/// Something that the shopper did, some days before `now_ms`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Deed {
    days_ago: i64,
    #[serde(flatten)]
    what: What,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum What {
    Ordered {
        revenue_minor: i64,
        payment: String,
        shipping: String,
    },
    Saw(String),
    Added {
        item: String,
        quantity: u32,
        price_minor: i64,
    },
    Served {
        experience: String,
        session: Option<String>,
    },
    Assigned {
        experiment: String,
        variant: String,
    },
    Personalization(Choice),
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Ask {
    user: Option<String>,
    anonymous: Option<String>,
    session: Option<String>,
    placements: Option<Vec<String>>,
    cart: Option<Vec<(String, i64, Option<i64>)>>,
    currency: Option<String>,
    country: Option<String>,
    locale: Option<String>,
    device: Option<String>,
    #[serde(default)]
    consent: ConsentStatement,
}

#[derive(Deserialize)]
struct Sale {
    times: usize,
    items: Vec<Arc<str>>,
    payment: Option<Arc<str>>,
    shipping: Option<Arc<str>>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/decision/v1")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn deltas(what: &What, at: Timestamp) -> Vec<Delta> {
    let used = |affinity, key: &str| Delta::Weight {
        affinity,
        key: key.into(),
        weight: 1.0,
    };
    match what {
        What::Ordered {
            revenue_minor,
            payment,
            shipping,
        } => vec![
            Delta::Orders {
                orders: 1,
                cancelled: 0,
                currency: "GBP".into(),
                revenue_minor: *revenue_minor,
            },
            Delta::OrderSeen,
            used(Affinity::PaymentMethod, payment),
            used(Affinity::ShippingMethod, shipping),
        ],
        What::Saw(item) => vec![Delta::RecentItem {
            item: item.as_str().into(),
        }],
        What::Added {
            item,
            quantity,
            price_minor,
        } => vec![Delta::Cart(CartOp::Add {
            item: item.as_str().into(),
            quantity: *quantity,
            price_minor: Some(*price_minor),
        })],
        What::Served { experience, session } => vec![Delta::Served {
            experience: experience.as_str().into(),
            session: session.as_deref().map(Into::into),
        }],
        What::Assigned { experiment, variant } => {
            vec![Delta::Assigned {
                experiment: experiment.as_str().into(),
                variant: variant.as_str().into(),
                is_guest: false,
            }]
        }
        What::Personalization(choice) => vec![Delta::Consent {
            statement: ConsentStatement {
                personalization: Some(*choice),
                analytics: None,
            },
            received_at: at,
            import: false,
        }],
    }
}

fn profile(deeds: &[Deed], now: Timestamp) -> Snapshot {
    let mut document = Document::default();
    for (number, deed) in deeds.iter().enumerate() {
        let time = Timestamp(now.0 - deed.days_ago * 86_400_000);
        let mut deltas = deltas(&deed.what, time);
        deltas.push(Delta::Seen);
        let stamp = Stamp {
            time,
            event_id: format!("event-{number}").into(),
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

/// The decision as one JSON document, member by member as written for the wire.
fn show(decision: &Decision<'_>) -> String {
    let mut out = b"{\"segments\":".to_vec();
    decision.write_segments(&mut out);
    out.extend_from_slice(b",\n\"placements\":");
    decision.write_placements(&mut out);
    let rest = serde_json::json!({
        "assigned": decision.assigned.as_slice(),
        "served": decision.served.as_slice(),
        "profile_used": decision.profile_used,
        "experiment_served": !decision.exposures.is_empty(),
        "experiment_withheld": !decision.withheld.is_empty(),
        "errors": decision.errors,
        "explanation": decision.explanation.as_deref().map(|text| serde_json::from_str::<serde_json::Value>(text).unwrap()),
    });
    out.extend_from_slice(format!(",\n\"record\":{rest}}}\n").as_bytes());
    String::from_utf8(out).unwrap()
}

fn outcome(case: &Case, ruleset: &Ruleset, population: &Population) -> String {
    let now = Timestamp(case.now_ms);
    let known = match &case.profile {
        Profile::Known(deeds) => profile(deeds, now),
        Profile::Absent | Profile::Unavailable => profile(&[], now),
    };
    let profile = match &case.profile {
        Profile::Known(_) => ProfileState::Known(&known),
        Profile::Absent => ProfileState::Absent,
        Profile::Unavailable => ProfileState::Unavailable,
    };
    let ask = &case.request;
    let cart = ask.cart.as_ref().map(|lines| {
        let lines: Vec<CartLine<'_>> = lines
            .iter()
            .map(|(item, quantity, price_minor)| CartLine {
                item,
                quantity: *quantity,
                price_minor: *price_minor,
            })
            .collect();
        Cart {
            total_minor: lines
                .iter()
                .map(|line| line.price_minor.unwrap_or(0) * line.quantity)
                .sum(),
            count: lines.iter().map(|line| line.quantity).sum(),
            lines,
        }
    });
    let user = ask.user.as_deref().map(SubjectId::from_stored);
    let anonymous = ask.anonymous.as_deref().map(SubjectId::from_stored);
    let placements: Option<Vec<&str>> = ask
        .placements
        .as_ref()
        .map(|names| names.iter().map(String::as_str).collect());
    let request = Request {
        user: user.as_ref(),
        anonymous: anonymous.as_ref(),
        session: ask.session.as_deref(),
        placements: placements.as_deref(),
        cart: cart.as_ref(),
        currency: ask.currency.as_deref(),
        country: ask.country.as_deref(),
        locale: ask.locale.as_deref(),
        candidates: &[],
        forced: &[],
        device: ask.device.as_deref(),
        consent: ask.consent,
    };
    let terms = Terms {
        consent_default: case.consent_default,
        record_permit: case.record_permit,
        explain: case.explain,
    };
    show(&decide(ruleset, population, profile, &request, now, &terms))
}

/// Every case with its path and its outcome.
fn outcomes() -> Vec<(PathBuf, String)> {
    let folder = folder();
    let ruleset = Ruleset::parse(&read(&folder.join("ruleset.yaml")), 1)
        .unwrap_or_else(|errors| panic!("{}", errors.lines("ruleset.yaml").collect::<Vec<_>>().join("\n")));
    let sales: Vec<Sale> = serde_json::from_str(&read(&folder.join("purchases.json"))).unwrap();
    let orders = sales.into_iter().flat_map(|sale| {
        let order = PurchasedOrder {
            items: sale.items,
            payment_method: sale.payment,
            shipping_method: sale.shipping,
        };
        std::iter::repeat_n(order, sale.times)
    });
    let population = Population::build(&Purchases {
        orders: orders.collect(),
    });
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.ends_with(".json") && !name.ends_with(".expected.json") && name != "purchases.json"
        })
        .collect();
    paths.sort();
    let outcome = |path: PathBuf| {
        let case = serde_json::from_str(&read(&path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let outcome = outcome(&case, &ruleset, &population);
        (path, outcome)
    };
    paths.into_iter().map(outcome).collect()
}

#[test]
fn decisions_are_those_of_the_golden_corpus_to_the_byte() {
    let outcomes = outcomes();
    assert!(outcomes.len() >= 12, "the corpus has {} cases", outcomes.len());
    #[allow(clippy::disallowed_methods, reason = "a switch of this test alone")]
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    if update {
        for (path, outcome) in &outcomes {
            std::fs::write(path.with_extension("expected.json"), outcome).unwrap();
        }
    }
    let different: Vec<_> = outcomes
        .iter()
        .filter_map(|(path, outcome)| {
            let expected = read(&path.with_extension("expected.json"));
            let name = path.file_name()?.to_str()?;
            (*outcome != expected).then(|| format!("{name}\nexpected {expected}found    {outcome}"))
        })
        .collect();
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn the_golden_corpus_covers_every_reason_in_use() {
    use cartwright::domain::decision::Reason;
    let all: String = outcomes().into_iter().map(|(_, outcome)| outcome).collect();
    for reason in Reason::ALL {
        let used = all.contains(&format!("\"reason\":\"{}\"", reason.as_str()));
        let reserved = matches!(reason, Reason::Bandit | Reason::Holdout);
        assert_eq!(used, !reserved, "{}", reason.as_str());
    }
}
