//! Effects as the transform makes them, for the suites.

use std::sync::Arc;

use bytes::Bytes;
use cartwright::domain::consent::{Choice, ConsentStatement};
use cartwright::domain::event::{Event, Source};
use cartwright::domain::ids::{Environment, Shop, SubjectId, Timestamp};
use cartwright::domain::profile::{Affinity, Contribution, Delta};
use cartwright::domain::transform::{
    AssignmentMade, CancellationReport, DecisionServed, Effect, IdentityClaim, OrderLine, OrderReport,
    PlacementServed, ProductSeen, Proof, Rank, RefundReport,
};

pub(super) fn shop() -> Shop {
    Shop::new("acme", Environment::Live).unwrap()
}

pub(super) fn guest(name: &str) -> SubjectId {
    SubjectId::from_stored(&format!("a:k1.{name}"))
}

pub(super) fn user(name: &str) -> SubjectId {
    SubjectId::from_stored(&format!("u:k1.{name}"))
}

fn effect(id: &str, time: i64, subject: Option<SubjectId>, deltas: Vec<Delta>) -> Effect {
    let (user, anonymous) = match &subject {
        Some(subject) if subject.is_user() => (Some(subject.clone()), None),
        _ => (None, subject.clone()),
    };
    let time = Timestamp(1_600_000_000_000 + time);
    let event = Event {
        shop: shop(),
        source: Source::Public,
        event_id: id.into(),
        name: "Product Viewed".into(),
        anonymous,
        user,
        claimed_user: None,
        session: None,
        event_time: time,
        received_at: time,
        consent: ConsentStatement::default(),
        quarantine: None,
        body: Bytes::from_static(br#"{"properties":{}}"#),
    };
    Effect {
        subject,
        contribution: Contribution {
            stamp: event.stamp(),
            deltas,
            resets: false,
        },
        event,
        order: None,
        cancellation: None,
        refund: None,
        identity: None,
        products: Vec::new(),
        decision: None,
        quarantine: None,
    }
}

/// `subject` looks at `item`.
pub(super) fn viewed(id: &str, time: i64, subject: &SubjectId, item: &str) -> Effect {
    let item: Arc<str> = item.into();
    let weight = Delta::Weight {
        affinity: Affinity::Item,
        key: Arc::clone(&item),
        weight: 1.0,
    };
    let mut effect = effect(
        id,
        time,
        Some(subject.clone()),
        vec![
            Delta::Seen,
            weight,
            Delta::RecentItem {
                item: Arc::clone(&item),
            },
        ],
    );
    effect.products.push(ProductSeen {
        name: Some(format!("{item} as of {time}").into()),
        item,
        category: None,
        price_minor: Some(time),
        currency: Some("EUR".into()),
        is_charge: false,
        stock: None,
        image_url: None,
        stamp: effect.event.stamp(),
    });
    effect
}

fn rank(effect: &mut Effect, verified: bool) -> Rank {
    effect.event.source = if verified { Source::Server } else { Source::Public };
    Rank {
        verified,
        stamp: effect.event.stamp(),
    }
}

/// A report of an order with one item line of `total_minor` and one charge line of nothing.
pub(super) fn ordered(
    id: &str,
    time: i64,
    verified: bool,
    subject: &SubjectId,
    order_id: &str,
    total_minor: i64,
) -> Effect {
    let mut effect = effect(
        id,
        time,
        Some(subject.clone()),
        vec![Delta::Seen, Delta::OrderSeen],
    );
    let line = |line, item: &str, amount_minor: i64, is_charge| OrderLine {
        line,
        item: item.into(),
        category: Some("things".into()),
        quantity: 1,
        unit_price: amount_minor.to_string().into(),
        amount_minor,
        is_charge,
    };
    effect.order = Some(OrderReport {
        order_id: order_id.into(),
        rank: rank(&mut effect, verified),
        subject: Some(subject.clone()),
        currency: "EUR".into(),
        total_minor,
        payment_method: Some(format!("pay-{id}").into()),
        shipping_method: Some("parcel".into()),
        coupon: None,
        lines: vec![
            line(1, &format!("bought-{id}"), total_minor, false),
            line(2, "postage", 0, true),
        ],
    });
    effect
}

pub(super) fn cancelled(id: &str, time: i64, verified: bool, order_id: &str) -> Effect {
    let mut effect = effect(id, time, None, Vec::new());
    effect.cancellation = Some(CancellationReport {
        order_id: order_id.into(),
        rank: rank(&mut effect, verified),
    });
    effect
}

pub(super) fn refunded(
    id: &str,
    time: i64,
    subject: &SubjectId,
    order_id: &str,
    refund_id: &str,
    amount_minor: i64,
) -> Effect {
    let mut effect = effect(id, time, Some(subject.clone()), vec![Delta::Seen]);
    effect.refund = Some(RefundReport {
        order_id: order_id.into(),
        refund_id: refund_id.into(),
        rank: rank(&mut effect, true),
        subject: Some(subject.clone()),
        currency: "EUR".into(),
        amount_minor,
    });
    effect
}

/// `user` logs in on the device of `anonymous`.
pub(super) fn linked(id: &str, time: i64, anonymous: &SubjectId, user: &SubjectId) -> Effect {
    let mut effect = effect(id, time, Some(user.clone()), vec![Delta::Seen]);
    effect.event.anonymous = Some(anonymous.clone());
    effect.identity = Some(IdentityClaim::Link {
        anonymous: anonymous.clone(),
        user: user.clone(),
        proof: Proof::UserToken,
    });
    effect
}

pub(super) fn unlinked(id: &str, time: i64, anonymous: &SubjectId, user: &SubjectId) -> Effect {
    let mut effect = effect(id, time, None, Vec::new());
    effect.identity = Some(IdentityClaim::Unlink {
        anonymous: anonymous.clone(),
        user: user.clone(),
    });
    effect
}

pub(super) fn aliased(id: &str, time: i64, user: &SubjectId, previous: &SubjectId) -> Effect {
    let mut effect = effect(id, time, None, Vec::new());
    effect.identity = Some(IdentityClaim::Alias {
        user: user.clone(),
        previous: previous.clone(),
    });
    effect
}

/// `subject` states its choice on analytics.
pub(super) fn stated(id: &str, time: i64, subject: &SubjectId, analytics: Choice) -> Effect {
    let statement = ConsentStatement {
        analytics: Some(analytics),
        personalization: None,
    };
    let received_at = Timestamp(1_600_000_000_000 + time);
    let delta = Delta::Consent {
        statement,
        received_at,
        import: false,
    };
    let mut effect = effect(id, time, Some(subject.clone()), vec![delta]);
    effect.event.consent = statement;
    effect
}

/// `subject` withdraws personalization.
pub(super) fn withdrew(id: &str, time: i64, subject: &SubjectId) -> Effect {
    let mut effect = effect(id, time, Some(subject.clone()), Vec::new());
    effect.contribution.resets = true;
    effect
}

pub(super) fn quarantined(id: &str, time: i64, code: &str) -> Effect {
    let mut effect = viewed(id, time, &guest("q"), "sku");
    effect.quarantine = Some((code.into(), "as the test says".to_owned()));
    effect
}

pub(super) fn decided(id: &str, time: i64, subject: &SubjectId) -> Effect {
    let mut effect = effect(id, time, Some(subject.clone()), Vec::new());
    let placement = |placement: &str, variant: Option<&str>| PlacementServed {
        placement: placement.into(),
        experience: Some("free-shipping".into()),
        variant: variant.map(Into::into),
        reason: "split".into(),
    };
    effect.event.source = Source::Internal;
    effect.decision = Some(DecisionServed {
        decision_id: id.into(),
        decided_at: effect.event.event_time,
        ruleset_version: 3,
        placements: vec![placement("promo", Some("b")), placement("upsell", None)],
        exposures: Vec::new(),
        withheld: Vec::new(),
        facts: "{}".to_owned(),
    });
    effect
}

/// A decision that showed a variant of `experiment` at `time`.
pub(super) fn exposed(id: &str, time: i64, subject: &SubjectId, experiment: &str, variant: &str) -> Effect {
    let mut effect = decided(id, time, subject);
    if let Some(decision) = &mut effect.decision {
        decision.exposures.push(AssignmentMade {
            experiment: experiment.into(),
            variant: variant.into(),
        });
    }
    effect
}

/// The same event from a server key.
pub(super) fn by_server(mut effect: Effect) -> Effect {
    effect.event.source = Source::Server;
    effect
}

/// The same event from an import.
pub(super) fn imported(mut effect: Effect) -> Effect {
    effect.event.source = Source::Import;
    effect
}
