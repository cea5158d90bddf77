//! What each event does, and that orders cancel exactly.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value as Json, json};
use smallvec::smallvec;

use super::*;
use crate::domain::consent::{Choice, ConsentStatement};
use crate::domain::decision::{Facts, Request, Terms};
use crate::domain::event::Source;
use crate::domain::ids::{Environment, Shop};
use crate::domain::order::{Sign, order_contribution, refund_contribution};
use crate::domain::profile::{Affinity, CapWindow, CartOp, Delta, ProfilePart, Snapshot};
use crate::domain::recommend::ExcerptRef;

const NOW: Timestamp = Timestamp(1_795_000_000_000);

fn shop() -> Shop {
    Shop::new("acme", Environment::Live).unwrap()
}

fn event(name: &str, properties: Json) -> Event {
    Event {
        shop: shop(),
        source: Source::Server,
        event_id: "e1".into(),
        name: name.into(),
        anonymous: None,
        user: Some(SubjectId::from_stored("u:k1.u")),
        claimed_user: None,
        session: Some("k1.s".into()),
        event_time: NOW,
        received_at: NOW,
        consent: ConsentStatement::default(),
        quarantine: None,
        body: json!({"properties": properties}).to_string().into(),
    }
}

fn folded(effects: &[Effect]) -> Snapshot {
    let mut part = ProfilePart::default();
    for effect in effects {
        part.fold(&effect.contribution, 0);
    }
    part.snapshot()
}

fn order_properties() -> Json {
    json!({"order_id": "o1", "currency": "GBP", "payment_method": "paypal", "shipping_method": "post",
    "total": 999, "coupon": "TEN", "products": [
        {"product_id": "p1", "name": "Lamp", "category": "light", "price": 2.555, "quantity": 2},
        {"sku": "p2", "price": "1.10", "quantity": 3},
        {"product_id": "POST", "category": "charge", "price": 4}
    ]})
}

#[test]
fn a_product_view_weighs_and_is_remembered() {
    let effect = transform(&event(
        "Product Viewed",
        json!({"product_id": "p", "category": "c", "price": "3", "currency": "GBP"}),
    ));
    let part = folded(std::slice::from_ref(&effect));
    assert_eq!(part.score(Affinity::Item, "p", NOW), 1.0);
    assert_eq!(part.score(Affinity::Category, "c", NOW), 1.0);
    assert_eq!(part.recent_items().collect::<Vec<_>>(), ["p"]);
    assert_eq!((part.events(), part.first_seen()), (1, Some(NOW)));
    assert_eq!(
        (effect.products[0].price_minor, effect.products.len()),
        (Some(300), 1)
    );
}

#[test]
fn the_cart_follows_additions_removals_snapshots_and_orders() {
    let at = |ms: i64, name: &str, properties: Json| {
        let mut event = event(name, properties);
        event.event_time = Timestamp(NOW.0 + ms);
        event.event_id = format!("e{ms}").into();
        transform(&event)
    };
    let mut effects = vec![
        at(
            1,
            "Product Added",
            json!({"product_id": "a", "quantity": 2, "price": 1.5, "currency": "GBP"}),
        ),
        at(2, "Product Removed", json!({"product_id": "a"})),
    ];
    assert_eq!(
        (folded(&effects).cart().count, folded(&effects).cart().total_minor),
        (1, 150)
    );
    effects.push(at(3, "Cart Viewed", json!({"cart_id": "c"})));
    assert_eq!(folded(&effects).cart().count, 1);
    effects.push(at(
        4,
        "Checkout Started",
        json!({"products": [{"product_id": "b", "quantity": 5}]}),
    ));
    assert_eq!(
        (
            folded(&effects).cart().lines[0].item,
            folded(&effects).cart().count
        ),
        ("b", 5)
    );
    assert_eq!(folded(&effects).checkout_step(), 1);
    effects.push(at(
        5,
        "Checkout Step Completed",
        json!({"step": "2", "payment_method": "card", "shipping_method": "post"}),
    ));
    let part = folded(&effects);
    assert_eq!(
        (
            part.checkout_step(),
            part.score(Affinity::PaymentMethod, "card", NOW)
        ),
        (2, 0.5)
    );
    effects.push(at(6, "Order Completed", order_properties()));
    let part = folded(&effects);
    assert_eq!(
        (part.cart().count, part.checkout_step(), part.last_order()),
        (0, 0, Some(Timestamp(NOW.0 + 6)))
    );
}

#[test]
fn an_order_is_reported_with_its_lines_rounded_one_by_one() {
    let effect = transform(&event("Order Completed", order_properties()));
    let order = effect.order.unwrap();
    let amounts: Vec<_> = order
        .lines
        .iter()
        .map(|line| (line.line, line.amount_minor, line.is_charge))
        .collect();
    assert_eq!(amounts, [(1, 511, false), (2, 330, false), (3, 400, true)]);
    assert_eq!(
        (order.total_minor, &*order.currency, &*order.lines[0].unit_price),
        (1241, "GBP", "2.555")
    );
    assert!(order.rank.verified);
    let mut part = ProfilePart::default();
    part.fold(&order_contribution(&order, false, Sign::Add), 0);
    let ordered = part.snapshot();
    assert_eq!(
        (
            ordered.purchases("").orders,
            ordered.purchases("GBP").revenue_minor,
            ordered.purchases("GBP").average_order_minor
        ),
        (1, 1241, Some(1241))
    );
    assert_eq!(ordered.score(Affinity::PaymentMethod, "paypal", NOW), 1.0);
    assert_eq!(ordered.score(Affinity::Item, "POST", NOW), 0.0);
    assert_eq!(ordered.top(Affinity::Item, NOW), [("p1", 5.0), ("p2", 5.0)]);
    part.fold(&order_contribution(&order, false, Sign::Retract), 0);
    part.fold(&order_contribution(&order, true, Sign::Add), 0);
    let cancelled = part.snapshot();
    assert_eq!(
        (
            cancelled.purchases("").orders,
            cancelled.purchases("").cancelled_orders,
            cancelled.purchases("GBP").revenue_minor
        ),
        (0, 1, 0)
    );
    assert!(cancelled.top(Affinity::Item, NOW).is_empty());
}

#[test]
fn an_order_without_priced_lines_is_worth_its_stated_total() {
    let order = transform(&event(
        "Order Completed",
        json!({"order_id": 7, "currency": "JPY", "revenue": "100.5"}),
    ))
    .order;
    let order = order.unwrap();
    assert_eq!(
        (&*order.order_id, order.total_minor, order.lines.len()),
        ("7", 100, 0)
    );
    let unpriced = json!({"order_id": 7, "currency": "GBP", "total": 3, "products": [{"sku": "a"}]});
    assert_eq!(
        transform(&event("Order Completed", unpriced))
            .order
            .unwrap()
            .total_minor,
        300
    );
}

#[test]
fn refunds_and_cancellations_are_reported() {
    let refund = json!({"currency": "GBP", "refund_id": "C1", "products": [{"sku": "a", "quantity": -2, "price": 1.25}]});
    let refund = transform(&event("Order Refunded", refund)).refund.unwrap();
    assert_eq!(
        (&*refund.order_id, &*refund.refund_id, refund.amount_minor),
        ("", "C1", 250)
    );
    let mut part = ProfilePart::default();
    part.fold(&refund_contribution(&refund, Sign::Add), 0);
    let part = part.snapshot();
    assert_eq!(
        (part.purchases("").refunds, part.purchases("GBP").refunded_minor),
        (1, 250)
    );
    let plain = transform(&event(
        "Order Refunded",
        json!({"order_id": "o", "currency": "GBP", "total": 2}),
    ));
    assert_eq!(&*plain.refund.unwrap().refund_id, "e1");
    let effect = transform(&event("Order Cancelled", json!({"order_id": "o1"})));
    assert_eq!(&*effect.cancellation.unwrap().order_id, "o1");
    assert!(effect.contribution.deltas.is_empty());
}

#[test]
fn links_need_proof() {
    let (guest, user) = (SubjectId::from_stored("a:k1.a"), SubjectId::from_stored("u:k1.u"));
    let mut login = event("Identify", json!({}));
    login.anonymous = Some(guest.clone());
    let link = |proof| {
        Some(IdentityClaim::Link {
            anonymous: guest.clone(),
            user: user.clone(),
            proof,
        })
    };
    assert_eq!(transform(&login).identity, link(Proof::ServerKey));
    login.source = Source::Public;
    assert_eq!(transform(&login).identity, link(Proof::UserToken));
    login.claimed_user = login.user.take();
    let effect = transform(&login);
    assert_eq!((effect.identity, effect.subject), (None, Some(guest.clone())));

    let mut unlink = event("Identity Unlinked", json!({}));
    unlink.anonymous = Some(guest.clone());
    assert_eq!(
        transform(&unlink).identity,
        Some(IdentityClaim::Unlink {
            anonymous: guest,
            user: user.clone()
        })
    );
    let mut alias = event("Alias", json!({}));
    let previous = SubjectId::from_stored("u:k1.v");
    alias.claimed_user = Some(previous.clone());
    assert_eq!(
        transform(&alias).identity,
        Some(IdentityClaim::Alias { user, previous })
    );
    alias.source = Source::Public;
    assert_eq!(transform(&alias).identity, None);
}

#[test]
fn with_analytics_denied_facts_stay_without_a_subject() {
    let mut order = event("Order Completed", order_properties());
    order.consent.analytics = Some(Choice::Denied);
    let effect = transform(&order);
    assert_eq!(
        (effect.order.unwrap().subject, effect.event.subject()),
        (None, None)
    );
    assert!(effect.subject.is_some());
    assert!(matches!(effect.contribution.deltas[..], [Delta::Consent { .. }]));
    let later = transform(&event("Product Viewed", json!({"sku": "p"}))).without_analytics();
    assert_eq!((later.subject, later.contribution.deltas.len()), (None, 0));
}

#[test]
fn withdrawn_personalization_resets() {
    let mut viewed = event("Product Viewed", json!({"sku": "p"}));
    viewed.consent.personalization = Some(Choice::Denied);
    let part = folded(&[transform(&viewed)]);
    assert_eq!((part.generation(), part.events()), (1, 0));
    assert!(!part.personalization_allowed(Choice::Granted));
}

#[test]
fn a_quarantined_event_folds_its_consent_only() {
    let mut broken = event("Product Viewed", json!({}));
    broken.quarantine = Some("missing_product_id".into());
    broken.consent.personalization = Some(Choice::Granted);
    let effect = transform(&broken);
    assert_eq!(&*effect.quarantine.unwrap().0, "missing_product_id");
    assert!(matches!(effect.contribution.deltas[..], [Delta::Consent { .. }]));
    // A rule that came later than the event must not fold it either.
    let effect = transform(&event("Product Viewed", json!({})));
    assert!(effect.quarantine.is_some() && effect.contribution.deltas.is_empty());
}

#[test]
fn a_decision_record_makes_the_round_trip() {
    let record: DecisionRecord = DecisionRecord {
        decided_at: NOW,
        ruleset_version: 4,
        placements: smallvec![PlacementServed {
            placement: "promo".into(),
            experience: Some("nudge".into()),
            variant: Some("b".into()),
            reason: "split".into(),
        }],
        assigned: smallvec![AssignmentMade {
            experiment: "nudge".into(),
            variant: "b".into(),
        }],
        exposures: smallvec![AssignmentMade {
            experiment: "nudge".into(),
            variant: "b".into(),
        }],
        capped: smallvec!["nudge".into()],
        withheld: vec![("nudge".into(), 3)],
    };
    let (guest, user) = (SubjectId::from_stored("a:k1.a"), SubjectId::from_stored("u:k1.u"));
    let subject = DecisionSubject {
        anonymous: Some(&guest),
        user: Some(&user),
        session: Some("k1.s"),
    };
    let request = Request {
        user: subject.user,
        placements: Some(&["promo"]),
        country: Some("GB"),
        ..Request::default()
    };
    let terms = Terms {
        consent_default: Choice::Granted,
        record_permit: true,
        explain: false,
    };
    let profile = Some(&[0, 255, 7][..]);
    let facts = Facts::new(&request, true, &terms, false, profile, ExcerptRef::default());
    let event =
        |record: &DecisionRecord, id: &str, subject: DecisionSubject<'_>, facts: Option<&Facts<'_, '_>>| {
            let shop = shop();
            let head = record.head(
                id,
                &shop,
                subject,
                ConsentStatement::default(),
                Timestamp(NOW.0 + 1),
            );
            let mut body = Vec::new();
            record.write_body(facts, &mut body);
            Event::of(&head, body.into())
        };
    let served_event = event(&record, "d1", subject, Some(&facts));
    let effect = transform(&served_event);
    let part = folded(std::slice::from_ref(&effect));
    assert_eq!((part.assignment("nudge"), part.events()), (Some("b"), 0));
    assert_eq!(part.cap_count("nudge", CapWindow::Session("k1.s")), 1);
    assert_eq!((effect.identity, effect.subject), (None, Some(user.clone())));
    let served = effect.decision.unwrap();
    assert_eq!(
        (&*served.placements, served.ruleset_version),
        (&*record.placements, 4)
    );
    assert_eq!(
        (&*served.exposures, &*served.withheld),
        (&*record.exposures, &*record.withheld)
    );
    assert_eq!(&*served.decision_id, "d1");
    // What is written and what was read have the same fields in the same order.
    assert_eq!(served.facts, serde_json::to_string(&facts).unwrap());
    let told: serde_json::Value = serde_json::from_slice(&effect.event.body).unwrap();
    assert_eq!(told["properties"]["exposures"][0]["variant"], "b");
    let losses = event(&record, "d2", DecisionSubject::default(), None);
    assert_eq!(transform(&losses).decision.unwrap().facts, "");

    let quiet = DecisionRecord {
        assigned: smallvec![],
        capped: smallvec![],
        ..record
    };
    let quiet_event = event(&quiet, "d3", subject, Some(&facts));
    assert_eq!(transform(&quiet_event).subject, None);
    let forged = Event {
        body: "{}".into(),
        ..quiet_event
    };
    assert_eq!(&*transform(&forged).quarantine.unwrap().0, "invalid_record");
}

/// Reports of a few orders by two shoppers, some competing, and cancellations.
fn any_reports() -> impl Strategy<Value = Vec<(u8, Effect)>> {
    let one = (
        0u8..3,
        any::<bool>(),
        any::<bool>(),
        0i64..5,
        1u32..900,
        prop::bool::weighted(0.3),
        0u8..3,
    );
    prop::collection::vec(one, 1..12).prop_map(|reports| {
        let effects = reports.into_iter().enumerate().map(|(n, (order, verified, ben, ms, pence, cancels, method))| {
            let properties = json!({"order_id": order, "currency": "GBP", "payment_method": format!("m{method}"),
                "products": [{"sku": format!("p{method}"), "price": format!("{}.{:02}", pence / 100, pence % 100)}]});
            let mut report = event(if cancels { "Order Cancelled" } else { "Order Completed" }, properties);
            report.event_id = format!("e{n}").into();
            report.event_time = Timestamp(NOW.0 + ms);
            report.source = if verified { Source::Server } else { Source::Public };
            report.user = Some(SubjectId::from_stored(if ben { "u:ben" } else { "u:ann" }));
            (order, transform(&report))
        });
        effects.collect()
    })
}

/// A warehouse's bookkeeping: retract the old effective row, add the new one.
fn profiles(reports: &[(u8, Effect)]) -> BTreeMap<SubjectId, Snapshot> {
    let mut rows: BTreeMap<u8, (Option<OrderReport>, bool)> = BTreeMap::new();
    let mut parts: BTreeMap<SubjectId, ProfilePart> = BTreeMap::new();
    for (order, effect) in reports {
        let row = rows.entry(*order).or_default();
        let old = row.clone();
        row.1 |= effect.cancellation.is_some();
        if let Some(report) = &effect.order
            && row.0.as_ref().is_none_or(|have| have.rank < report.rank)
        {
            row.0 = Some(report.clone());
        }
        for ((report, cancelled), sign) in [(&old, Sign::Retract), (&*row, Sign::Add)] {
            if let Some(report) = report {
                let part = parts.entry(report.subject.clone().unwrap()).or_default();
                part.fold(&order_contribution(report, *cancelled, sign), 0);
            }
        }
    }
    let parts = parts.into_iter();
    parts.map(|(subject, part)| (subject, part.snapshot())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_order_of_reports_ends_in_the_same_profiles(
        (reports, shuffled) in any_reports().prop_flat_map(|r| (Just(r.clone()), Just(r).prop_shuffle()))
    ) {
        let (a, b) = (profiles(&reports), profiles(&shuffled));
        for subject in ["u:ann", "u:ben"].map(SubjectId::from_stored) {
            let empty = ProfilePart::default().snapshot();
            let (a, b) = (a.get(&subject).unwrap_or(&empty), b.get(&subject).unwrap_or(&empty));
            prop_assert_eq!(a.purchases("").orders, b.purchases("").orders);
            prop_assert_eq!(a.purchases("").cancelled_orders, b.purchases("").cancelled_orders);
            prop_assert_eq!(a.purchases("GBP").revenue_minor, b.purchases("GBP").revenue_minor);
            prop_assert_eq!(a.top(Affinity::Item, NOW), b.top(Affinity::Item, NOW));
            prop_assert_eq!(a.top(Affinity::PaymentMethod, NOW), b.top(Affinity::PaymentMethod, NOW));
        }
    }
}

#[test]
fn the_cart_delta_carries_what_was_sent() {
    let effect = transform(&event(
        "Product Added",
        json!({"product_id": 5, "quantity": "2", "price": 9.995, "currency": "JPY"}),
    ));
    let expected = Delta::Cart(CartOp::Add {
        item: "5".into(),
        quantity: 2,
        price_minor: Some(10),
    });
    assert!(effect.contribution.deltas.contains(&expected));
}
