//! What a batch does to the rows already stored, in memory and without SQL, for every backend alike.
//!
//! A backend reads the rows that a batch touches, hands them over here, and writes back what changed. The effects
//! are folded one after the other **in log order**, each seeing the links and generations that the ones before it
//! left, so that the views do not depend on where one batch ends and the next begins.
//!
//! - [`orders`]: reports of orders, cancellations and refunds against the rows stored.
//! - [`people`]: links and aliases, who owns an anonymous id, whose parts make up a document.
//! - [`parts`]: contributions into parts, parts into documents.

pub(super) mod orders;
pub(super) mod parts;
pub(super) mod people;

use std::borrow::Cow;

use foldhash::fast::RandomState;

use self::orders::Orders;
use self::parts::Parts;
use self::people::People;
use crate::domain::consent::{Choice, Stated};
use crate::domain::event::{Event, Source};
use crate::domain::ids::Timestamp;
use crate::domain::order::{order_contribution, refund_contribution};
use crate::domain::profile::{Contribution, Delta};
use crate::domain::transform::Effect;

pub(super) type Map<K, V> = std::collections::HashMap<K, V, RandomState>;
pub(super) type Set<K> = std::collections::HashSet<K, RandomState>;

/// Where a record stands in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    pub(super) partition: u16,
    pub(super) offset: u64,
}

/// The code under which an event older than the dedupe window is quarantined.
pub(super) const TOO_OLD: &str = "older_than_dedupe_window";

/// The instant by which an event id is kept and refused: `None` is kept for good and never refused.
///
/// - A public event is sent again with the same time of its own, so that decides, whenever it comes again.
/// - A server may report the far past, so its time of receipt decides.
/// - An import may be repeated years later and must still count once.
pub(super) fn dedupe_time(event: &Event) -> Option<Timestamp> {
    match event.source {
        Source::Public | Source::Internal => Some(event.event_time),
        Source::Server => Some(event.received_at),
        Source::Import => None,
    }
}

/// What became of folded effects.
#[derive(Debug, Default)]
pub(super) struct Folded<'e> {
    /// Each as it counted: where the shopper had denied analytics before, without the shopper.
    pub(super) counted: Vec<(Place, Cow<'e, Effect>)>,
    /// Those in quarantine whose shopper had denied analytics before, and must not be kept there either.
    pub(super) unnamed: Set<Place>,
}

/// Folds new `effects`, those of a partition in log order. Of an effect that goes to quarantine only its consent counts.
pub(super) fn fold<'e>(
    effects: &[(Place, &'e Effect)],
    orders: &mut Orders,
    people: &mut People,
    parts: &mut Parts,
) -> Folded<'e> {
    let mut folded = Folded::default();
    folded.counted.reserve(effects.len());
    for (place, effect) in effects {
        parts.turn_to(place.partition);
        if effect.quarantine.is_some() {
            if is_denied(effect, people, parts) {
                folded.unnamed.insert(*place);
            }
            fold_consent(effect, people, parts);
            continue;
        }
        let effect = if is_denied(effect, people, parts) {
            Cow::Owned(Effect::clone(effect).without_analytics())
        } else {
            Cow::Borrowed(*effect)
        };
        fold_one(&effect, orders, people, parts);
        folded.counted.push((*place, effect));
    }
    folded
}

fn fold_one(effect: &Effect, orders: &mut Orders, people: &mut People, parts: &mut Parts) {
    let shop = &effect.event.shop;
    if let Some(claim) = &effect.identity {
        people.claim(claim, &effect.event.stamp());
        for identity in claim.identities() {
            parts.touch(identity);
        }
    }
    if let Some(subject) = &effect.subject {
        parts.fold(shop, subject, &effect.contribution, None, people);
    }
    let order_id = effect.order.as_ref().map(|report| &report.order_id);
    let cancelled_id = effect.cancellation.as_ref().map(|report| &report.order_id);
    if let Some(order_id) = order_id.or(cancelled_id) {
        let (order, cancellation) = (effect.order.as_ref(), effect.cancellation.as_ref());
        orders.report(shop, order_id, order, cancellation, |row, sign, generation| {
            let Some(subject) = &row.report.subject else {
                return 0;
            };
            let contribution = order_contribution(&row.report, row.cancelled, sign);
            parts.fold(shop, subject, &contribution, generation, people)
        });
    }
    if let Some(report) = &effect.refund {
        orders.refund(shop, report, |row, sign, generation| {
            let Some(subject) = &row.report.subject else {
                return 0;
            };
            parts.fold(
                shop,
                subject,
                &refund_contribution(&row.report, sign),
                generation,
                people,
            )
        });
    }
}

/// Consent counts even where nothing else of an event does.
fn fold_consent(effect: &Effect, people: &mut People, parts: &mut Parts) {
    let Some(subject) = &effect.subject else { return };
    let Contribution {
        stamp,
        deltas,
        resets,
    } = &effect.contribution;
    let deltas: Vec<Delta> = deltas
        .iter()
        .filter(|delta| matches!(delta, Delta::Consent { .. }))
        .cloned()
        .collect();
    if !deltas.is_empty() {
        let consent = Contribution {
            stamp: stamp.clone(),
            deltas,
            resets: *resets,
        };
        parts.fold(&effect.event.shop, subject, &consent, None, people);
    }
}

/// Whether the person had denied analytics before, and this event does not allow it again.
fn is_denied(effect: &Effect, people: &mut People, parts: &Parts) -> bool {
    let Some(subject) = &effect.subject else {
        return false;
    };
    let mut analytics = parts.analytics(subject, people);
    if analytics.is_none_or(|stated| stated.choice == Choice::Granted) {
        return false;
    }
    if effect.event.source != Source::Import {
        let choice = effect.event.consent.analytics;
        let stated = choice.map(|choice| Stated {
            received_at: effect.event.received_at,
            choice,
        });
        analytics = analytics.max(stated);
    }
    analytics.is_some_and(|stated| stated.choice == Choice::Denied)
}
