//! What a batch says, before any SQL: what counts and what goes to quarantine, the days, products and decisions
//! that its facts refer to, and the next versions of the documents it changed.

use std::borrow::Cow;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use serde::Serialize;
use smallvec::SmallVec;

use super::fold::parts::{Changed, Partitions};
use super::fold::people::People;
use super::fold::{Map, Place, Set, TOO_OLD, dedupe_time};
use super::{Applied, Batch};
use crate::domain::consent::{Choice, ConsentStatement};
use crate::domain::event::{Event, Source};
use crate::domain::ids::{Shop, SubjectId, Timestamp};
use crate::domain::product::Product;
use crate::domain::profile::{AsOf, Snapshot, Version};
use crate::domain::ruleset::Ruleset;
use crate::domain::segment;
use crate::domain::transform::{DecisionServed, Effect};

/// The code under which a record that could not be decoded is quarantined.
const UNREADABLE: &str = "unreadable_record";

/// Products by shop and item.
pub(super) type Products = Map<(Shop, Arc<str>), Product>;

/// One record to set aside.
#[derive(Debug)]
pub(super) struct Quarantined<'a> {
    pub(super) place: Place,
    pub(super) code: &'a str,
    pub(super) detail: &'a str,
    pub(super) record: Record<'a>,
}

#[derive(Debug)]
pub(super) enum Record<'a> {
    Event(&'a Event),
    Unreadable(&'a [u8]),
}

/// All of an event, so that it can be judged again.
#[derive(Serialize)]
struct EventJson<'a> {
    source: &'static str,
    name: &'a str,
    anonymous_id: Option<&'a SubjectId>,
    user_id: Option<&'a SubjectId>,
    claimed_user_id: Option<&'a SubjectId>,
    session_id: Option<&'a str>,
    event_time: Timestamp,
    received_at: Timestamp,
    consent: ConsentStatement,
    body: Cow<'a, str>,
}

/// An event as the JSON that quarantine keeps; unless `named`, without whom it is about.
pub(super) fn event_json(event: &Event, named: bool) -> String {
    let json = EventJson {
        source: source(event.source),
        name: &event.name,
        anonymous_id: event.anonymous.as_ref().filter(|_| named),
        user_id: event.user.as_ref().filter(|_| named),
        claimed_user_id: event.claimed_user.as_ref().filter(|_| named),
        session_id: event.session.as_deref().filter(|_| named),
        event_time: event.event_time,
        received_at: event.received_at,
        consent: event.consent,
        body: String::from_utf8_lossy(&event.body),
    };
    // Strings and numbers always serialise.
    serde_json::to_string(&json).unwrap_or_default()
}

/// A source's key in `dim_source`.
pub(super) fn source(source: Source) -> &'static str {
    match source {
        Source::Public => "public",
        Source::Server => "server",
        Source::Import => "import",
        Source::Internal => "internal",
    }
}

/// A choice as facts spell it.
pub(super) fn choice(choice: Choice) -> &'static str {
    match choice {
        Choice::Granted => "granted",
        Choice::Denied => "denied",
    }
}

/// The effects of some batches, each with its place.
fn effects<'b>(batches: &'b [Batch<'_>]) -> impl Iterator<Item = (&'b Batch<'b>, Place, &'b Effect)> {
    batches.iter().flat_map(|batch| {
        let partition = batch.next.partition;
        batch.effects.iter().map(move |(offset, effect)| {
            let place = Place {
                partition,
                offset: *offset,
            };
            (batch, place, effect)
        })
    })
}

/// Tells records to quarantine from effects to apply.
pub(super) fn sort_out<'b>(batches: &'b [Batch<'_>]) -> (Vec<Quarantined<'b>>, Vec<(Place, &'b Effect)>) {
    let mut quarantined = Vec::new();
    let mut candidates = Vec::with_capacity(batches.iter().map(|batch| batch.effects.len()).sum());
    for (batch, place, effect) in effects(batches) {
        let too_old = batch
            .dedupe_floor
            .zip(dedupe_time(&effect.event))
            .is_some_and(|(floor, time)| time < floor);
        let reason = match &effect.quarantine {
            Some((code, detail)) => Some((&**code, detail.as_str())),
            None if too_old => Some((
                TOO_OLD,
                "its id may have been forgotten, so it can't be told from a duplicate",
            )),
            None => None,
        };
        match reason {
            Some((code, detail)) => {
                let record = Record::Event(&effect.event);
                quarantined.push(Quarantined {
                    place,
                    code,
                    detail,
                    record,
                });
            }
            None => candidates.push((place, effect)),
        }
    }
    for batch in batches {
        quarantined.extend(
            batch
                .unreadable
                .iter()
                .map(|(offset, bytes, reason)| Quarantined {
                    place: Place {
                        partition: batch.next.partition,
                        offset: *offset,
                    },
                    code: UNREADABLE,
                    detail: reason,
                    record: Record::Unreadable(bytes),
                }),
        );
    }
    (quarantined, candidates)
}

/// The new effects, and those in quarantine for their consent, in log order.
pub(super) fn with_quarantined<'b>(
    batches: &'b [Batch<'_>],
    new: &[(Place, &'b Effect)],
) -> Vec<(Place, &'b Effect)> {
    let mut all = new.to_vec();
    let quarantined = effects(batches).filter(|(_, _, effect)| effect.quarantine.is_some());
    all.extend(quarantined.map(|(_, place, effect)| (place, effect)));
    all.sort_by_key(|(place, _)| *place);
    all
}

/// The days that the facts of `effects` refer to.
pub(super) fn days(effects: &[(Place, Cow<'_, Effect>)]) -> Set<i64> {
    let mut days = Set::default();
    for (_, effect) in effects {
        days.insert(effect.event.received_at.day());
        days.extend(effect.order.as_ref().map(|report| report.rank.stamp.time.day()));
        days.extend(effect.refund.as_ref().map(|report| report.rank.stamp.time.day()));
        days.extend(effect.decision.as_ref().map(|decision| decision.decided_at.day()));
    }
    days
}

pub(super) fn decisions_served<'c>(
    effects: &'c [(Place, Cow<'_, Effect>)],
) -> Vec<(&'c Effect, &'c DecisionServed)> {
    effects
        .iter()
        .filter_map(|(_, effect)| Some((&**effect, effect.decision.as_ref()?)))
        .collect()
}

/// What the effects say of products, one row each.
pub(super) fn products_seen(effects: &[(Place, Cow<'_, Effect>)]) -> Products {
    let mut products = Products::default();
    for (_, effect) in effects {
        for seen in &effect.products {
            let key = (effect.event.shop.clone(), Arc::clone(&seen.item));
            match products.entry(key) {
                Entry::Occupied(mut entry) => entry.get_mut().merge(Product::seen(seen)),
                Entry::Vacant(entry) => {
                    entry.insert(Product::seen(seen));
                }
            }
        }
    }
    products
}

/// A document to write, encoded.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) subject: SubjectId,
    pub(super) profile: Snapshot,
    /// The batches, by their places, that changed it.
    from: SmallVec<[usize; 2]>,
    /// Among whose changes it is, and its number there.
    pub(super) partition: u16,
    pub(super) change_seq: u64,
}

/// Gives each document the version after its `former` one, says how far it is folded now, and numbers it among the changes of the
/// first partition that had a part in it. `change_seqs` are the partitions' greatest numbers, in the order of the batches; those of the other
/// partitions move on as well, or what they changed would seem to be published before it is.
pub(super) fn next_versions(
    documents: Vec<Changed>,
    mut former: Map<SubjectId, (u64, AsOf)>,
    epoch: u64,
    batches: &[Batch<'_>],
    change_seqs: &mut [u64],
) -> Vec<Written> {
    let mut next = |changed: Changed| {
        let Changed {
            subject,
            mut document,
            from,
        } = changed;
        let (n, as_of) = former.remove(&subject).unwrap_or_default();
        document.version = Version {
            epoch,
            n: n.saturating_add(1),
        };
        document.as_of = as_of;
        let from = batches_of(batches, &from);
        for at in &from {
            let (batch, change_seq) = batches.get(*at).zip(change_seqs.get_mut(*at))?;
            document.as_of.advance(batch.next.partition, batch.next.offset);
            *change_seq = change_seq.saturating_add(1);
        }
        let first = from.first().copied()?;
        let (batch, change_seq) = batches.get(first).zip(change_seqs.get(first).copied())?;
        document.stored_at = batch.now;
        Some(Written {
            subject,
            profile: Snapshot::of(&document),
            from,
            partition: batch.next.partition,
            change_seq,
        })
    };
    documents.into_iter().filter_map(&mut next).collect()
}

/// Which of `batches` are of the partitions `from`, and all where it names none.
fn batches_of(batches: &[Batch<'_>], from: &Partitions) -> SmallVec<[usize; 2]> {
    let is_named = |at: &usize| {
        batches
            .get(*at)
            .is_some_and(|batch| from.contains(&batch.next.partition))
    };
    let named: SmallVec<[usize; 2]> = (0..batches.len()).filter(is_named).collect();
    match named.is_empty() {
        true => (0..batches.len()).collect(),
        false => named,
    }
}

/// How many of each partition.
fn count(places: impl Iterator<Item = Place>) -> Map<u16, u64> {
    let mut counts = Map::default();
    for place in places {
        *counts.entry(place.partition).or_default() += 1;
    }
    counts
}

/// What became of each batch.
pub(super) fn applied(
    batches: &[Batch<'_>],
    candidates: &[(Place, &Effect)],
    new: &[(Place, &Effect)],
    quarantined: &[Quarantined<'_>],
    documents: &[Written],
    change_seqs: &[u64],
) -> Vec<Applied> {
    let new = count(new.iter().map(|(place, _)| *place));
    let candidates = count(candidates.iter().map(|(place, _)| *place));
    let quarantined = count(quarantined.iter().map(|row| row.place));
    let mut applied: Vec<Applied> = batches
        .iter()
        .zip(change_seqs)
        .map(|(batch, change_seq)| {
            let of = |counts: &Map<u16, u64>| counts.get(&batch.next.partition).copied().unwrap_or(0);
            Applied {
                documents: Vec::new(),
                new_events: of(&new),
                duplicate_events: of(&candidates).saturating_sub(of(&new)),
                quarantined: of(&quarantined),
                change_seq: *change_seq,
            }
        })
        .collect();
    for written in documents {
        for at in &written.from {
            if let Some(applied) = applied.get_mut(*at) {
                let (subject, profile) = (written.subject.clone(), &written.profile);
                let bytes = profile.bytes().clone();
                applied.documents.push((subject, profile.version(), bytes));
            }
        }
    }
    applied
}

/// A subject in a segment.
pub(super) type Membership = (SubjectId, Arc<str>);

/// Who left which segment, and who entered which.
#[derive(Debug)]
pub(super) struct Moves<'p> {
    pub(super) left: Vec<Membership>,
    pub(super) entered: Vec<(&'p Shop, Membership)>,
}

/// Evaluates the segments of `documents` against the memberships `stored`, so that only the difference is written
/// and `since` stays with who stays.
pub(super) fn moves<'p>(
    ruleset: &Ruleset,
    documents: &[Written],
    people: &'p People,
    stored: Vec<Membership>,
    now: Timestamp,
) -> Moves<'p> {
    let mut left: Set<Membership> = stored.into_iter().collect();
    let mut entered = Vec::new();
    for written in documents {
        let Some(shop) = people.shop(&written.subject) else {
            continue;
        };
        for segment in segment::of(ruleset, &written.profile, now) {
            let membership = (written.subject.clone(), segment);
            if !left.remove(&membership) {
                entered.push((shop, membership));
            }
        }
    }
    let left = left.into_iter().collect();
    Moves { left, entered }
}
