//! The overlay: events that this node took, or heard of from the one that did, and that the stores may not show yet.
//!
//! Why: the fast lane needs some milliseconds. Without the overlay a shopper's next request could show a cart
//! without the item just added. Each event is kept until a stored profile covers its offset, or until the lane has
//! passed it.
//!
//! - A profile alone does not tell: what the lane found to be a duplicate, or set aside, changes no profile, so none
//!   would ever cover it. A request notes how far the lane is *before* it reads the stores, so what it finds there
//!   holds at least that much. A lane elsewhere says it by way of the stores, see `elsewhere`.
//! - An event id counts once for a shopper, however often it was taken. Of its places in the log the first is kept: it is what the
//!   lane counts, and what a profile's `as_of` covers.
//! - What lanes have passed is let go as soon as no request can be reading that began before, whether its shopper comes
//!   back or not; see [`Overlay::forget`].
//! - Bounded by bytes in all, by events per shopper and by age; what is over a bound goes, the oldest first. The
//!   answer is then as old as the stores are, which is all that is lost. What was heard has a bound of its own, so that a shopper
//!   who stays with one node loses nothing to those of all others.
//! - An order counts as what it adds when it is new; what other reports and cancellations make of it is for the
//!   warehouse to say. Events of which the receipt said `duplicate` are not kept.
//! - Folded copies are local to one request. Nothing of the overlay is ever stored.

mod shard;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::hash::BuildHasher as _;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use self::shard::{Newer, Shard, Via};
use super::draft::Draft;
use crate::domain::event::Event;
use crate::domain::ids::SubjectId;
use crate::domain::order::{Sign, order_contribution, refund_contribution};
use crate::domain::profile::{AsOf, ProfilePart};
use crate::domain::transform::{Effect, transform};

/// Locks are taken per shopper; this many, and two requests rarely meet at one.
const SHARDS: usize = 16;

/// What the overlay may hold.
#[derive(Debug, Clone, Copy)]
pub struct OverlayLimits {
    /// Of what this node took, and as much again of what it heard.
    pub max_bytes: usize,
    /// The newest events of one shopper; folding them is paid by each of their requests.
    pub max_events_per_subject: usize,
    /// Higher: events that no lane will ever fold linger. Lower: a lane that lags for longer shows.
    pub max_age: Duration,
}

impl Default for OverlayLimits {
    fn default() -> Self {
        OverlayLimits {
            max_bytes: 32 << 20,
            max_events_per_subject: 128,
            max_age: Duration::from_secs(300),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Overlay {
    limits: OverlayLimits,
    hasher: foldhash::fast::RandomState,
    shards: [Mutex<Shard>; SHARDS],
    /// How far the lanes are, as far as this process knows: applied and published.
    passed: ArcSwap<AsOf>,
}

/// An event, and what it does, found out when it is first folded: every request of its shopper folds it again.
#[derive(Debug)]
struct Taken {
    event: Event,
    /// Far larger than most events, and most are never folded.
    effect: OnceLock<Box<Effect>>,
}

impl Taken {
    fn effect(&self) -> &Effect {
        self.effect.get_or_init(|| Box::new(transform(&self.event)))
    }
}

impl Overlay {
    pub fn new(limits: OverlayLimits) -> Self {
        Overlay {
            limits,
            hasher: foldhash::fast::RandomState::default(),
            shards: Default::default(),
            passed: ArcSwap::default(),
        }
    }

    /// Notes that a lane applied and published everything below `next` of `partition`.
    pub fn lane_passed(&self, partition: u16, next: u64) {
        self.passed.rcu(|passed| {
            let mut passed = AsOf::clone(passed);
            passed.advance(partition, next);
            passed
        });
    }

    /// How far the lanes are. To be taken before the stores are read.
    pub(super) fn passed(&self) -> Arc<AsOf> {
        self.passed.load_full()
    }

    /// Lets go of the events that lanes had passed by `passed`, which is to be older than any read under way, and of
    /// those that are too old.
    pub(super) fn forget(&self, passed: &AsOf) {
        for shard in &self.shards {
            let shard = &mut *shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.forget(passed, self.limits.max_age);
        }
    }

    /// The partitions of which events are kept that no lane is known to have passed.
    pub(super) fn partitions(&self) -> BTreeSet<u16> {
        let passed = self.passed();
        let mut partitions = BTreeSet::new();
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let waiting = shard.subjects.values().flatten();
            partitions.extend(
                waiting
                    .filter(|newer| !passed.covers(newer.partition, newer.offset))
                    .map(|newer| newer.partition),
            );
        }
        partitions
    }

    /// Takes an event that this node made durable at `offset` of `partition`.
    pub fn add(&self, partition: u16, offset: u64, event: Event) {
        self.take(partition, offset, event, Via::Client);
    }

    /// Takes an event that another node made durable.
    pub fn add_heard(&self, partition: u16, offset: u64, event: Event) {
        self.take(partition, offset, event, Via::Node);
    }

    fn take(&self, partition: u16, offset: u64, event: Event, via: Via) {
        let folds = event.quarantine.is_none() || !event.consent.is_unstated();
        let Some(subject) = event.subject().filter(|_| folds).cloned() else {
            return;
        };
        let shard = &mut *self.shard(&subject);
        // Word of it may have been slower than the lane.
        if shard.note_place(&subject, &event.event_id, partition, offset)
            || self.passed.load().covers(partition, offset)
        {
            return;
        }
        let newer = Newer {
            partition,
            offset,
            via,
            at: Instant::now(),
            taken: Arc::new(Taken {
                event,
                effect: OnceLock::new(),
            }),
        };
        shard.insert(subject.clone(), newer);
        shard.bound(&subject, &self.limits);
    }

    /// Notes that an event, if it is still kept, is at `offset` of `partition` as well.
    pub fn note_place(&self, partition: u16, offset: u64, event: &Event) {
        if let Some(subject) = event.subject() {
            self.shard(subject)
                .note_place(subject, &event.event_id, partition, offset);
        }
    }

    /// What the kept events take in memory, nearly.
    pub fn size_bytes(&self) -> usize {
        let shards = self
            .shards
            .iter()
            .map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).size_bytes());
        shards.sum()
    }

    /// Folds into `draft` what neither it nor `passed` covers of `subject`'s events. Returns whether anything was
    /// folded. `own` says that the document is the subject's own: events that are covered are let go.
    pub(super) fn fold(&self, subject: &SubjectId, draft: &mut Draft, own: bool, passed: &AsOf) -> bool {
        let newer = self.newer_than(subject, draft.as_of(), own, passed);
        let mut folded = false;
        for newer in &newer {
            let effect = as_remembered(newer.taken.effect(), draft);
            if effect.subject.as_ref() == Some(subject) {
                fold_whole(draft.part(), &effect);
                folded = true;
            }
        }
        folded
    }

    fn newer_than(&self, subject: &SubjectId, as_of: Option<&AsOf>, own: bool, passed: &AsOf) -> Vec<Newer> {
        let covered = |newer: &Newer| {
            let mut covering = as_of.into_iter().chain([passed]);
            covering.any(|as_of| as_of.covers(newer.partition, newer.offset))
        };
        let Shard { subjects, arrivals } = &mut *self.shard(subject);
        let Some(kept) = subjects.get_mut(subject) else {
            return Vec::new();
        };
        kept.retain(|newer| {
            let keep = newer.at.elapsed() < self.limits.max_age && !(own && covered(newer));
            if !keep {
                arrivals[newer.via as usize].bytes -= newer.bytes();
            }
            keep
        });
        let uncovered = kept.iter().filter(|newer| !covered(newer)).cloned().collect();
        if kept.is_empty() {
            subjects.remove(subject);
        }
        uncovered
    }

    fn shard(&self, subject: &SubjectId) -> MutexGuard<'_, Shard> {
        let index = self.hasher.hash_one(subject) as usize % SHARDS;
        // A panic while the lock was held can only have lost entries, never have torn one.
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An event that says nothing of analytics counts as the profile remembers.
fn as_remembered<'e>(effect: &'e Effect, draft: &Draft) -> Cow<'e, Effect> {
    if effect.event.consent.analytics.is_none() && draft.is_analytics_denied() {
        Cow::Owned(effect.clone().without_analytics())
    } else {
        Cow::Borrowed(effect)
    }
}

/// Folds an event as if it were the only report of its order or refund.
fn fold_whole(part: &mut ProfilePart, effect: &Effect) {
    let generation = part.generation();
    part.fold(&effect.contribution, generation);
    if let Some(order) = effect
        .order
        .as_ref()
        .filter(|order| order.subject == effect.subject)
    {
        part.fold(&order_contribution(order, false, Sign::Add), generation);
    }
    if let Some(refund) = effect
        .refund
        .as_ref()
        .filter(|refund| refund.subject == effect.subject)
    {
        part.fold(&refund_contribution(refund, Sign::Add), generation);
    }
}
