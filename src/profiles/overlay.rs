//! The overlay: events that this node took, or heard of from the one that did, and that the stores may not show yet.
//!
//! Why: the fast lane needs some milliseconds. Without the overlay a shopper's next request could show a cart
//! without the item just added. Each event is kept until a stored profile covers its offset, or until the lane has
//! passed it.
//!
//! - A profile alone does not tell: what the lane found to be a duplicate, or set aside, changes no profile, so none
//!   would ever cover it. A request notes how far the lane is *before* it reads the stores, so what it finds there
//!   holds at least that much. A lane elsewhere says it by way of the stores, see `elsewhere`.
//! - An event id counts once for a shopper, however often it was taken.
//! - What lanes have passed is let go as soon as no request can be reading that began before, whether its shopper comes
//!   back or not; see [`Overlay::forget`].
//! - Bounded by bytes in all, by events per shopper and by age; what is over a bound goes, the oldest first. The
//!   answer is then as old as the stores are, which is all that is lost.
//! - An order counts as what it adds when it is new; what other reports and cancellations make of it is for the
//!   warehouse to say. Events of which the receipt said `duplicate` are not kept.
//! - Folded copies are local to one request. Nothing of the overlay is ever stored.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::BuildHasher as _;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

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

#[derive(Debug, Default)]
struct Shard {
    subjects: HashMap<SubjectId, VecDeque<Newer>, foldhash::fast::RandomState>,
    /// In the order of arrival; an entry whose event is gone already is skipped.
    arrivals: VecDeque<(SubjectId, u16, u64)>,
    bytes: usize,
}

#[derive(Debug, Clone)]
struct Newer {
    partition: u16,
    offset: u64,
    at: Instant,
    taken: Arc<Taken>,
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

impl Newer {
    /// What the entry takes in memory, nearly: itself, its event, its ids and its place among the arrivals.
    fn bytes(&self) -> usize {
        const IDS: usize = 4 * 64;
        const FIXED: usize =
            size_of::<Newer>() + size_of::<Taken>() + size_of::<(SubjectId, u16, u64)>() + IDS;
        FIXED + self.taken.event.body.len()
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
            shard
                .arrivals
                .retain(|(_, partition, offset)| !passed.covers(*partition, *offset));
            shard.forget(|newer| {
                newer.at.elapsed() < self.limits.max_age && !passed.covers(newer.partition, newer.offset)
            });
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

    /// Takes an event that is durable at `offset` of `partition`.
    pub fn add(&self, partition: u16, offset: u64, event: Event) {
        if self.passed.load().covers(partition, offset) {
            // Word of it was slower than the lane.
            return;
        }
        let folds = event.quarantine.is_none() || !event.consent.is_unstated();
        let Some(subject) = event.subject().filter(|_| folds).cloned() else {
            return;
        };
        let newer = Newer {
            partition,
            offset,
            at: Instant::now(),
            taken: Arc::new(Taken {
                event,
                effect: OnceLock::new(),
            }),
        };
        let shard = &mut *self.shard(&subject);
        let kept = shard.subjects.entry(subject.clone()).or_default();
        if kept
            .iter()
            .any(|kept| kept.taken.event.event_id == newer.taken.event.event_id)
        {
            return;
        }
        shard.bytes += newer.bytes();
        shard.arrivals.push_back((subject, partition, offset));
        kept.push_back(newer);
        if kept.len() > self.limits.max_events_per_subject
            && let Some(oldest) = kept.pop_front()
        {
            shard.bytes -= oldest.bytes();
        }
        while shard.bytes > self.limits.max_bytes / SHARDS || shard.arrivals.len() > self.max_arrivals() {
            shard.drop_oldest();
        }
    }

    /// What the kept events take in memory, nearly.
    pub fn size_bytes(&self) -> usize {
        let shards = self
            .shards
            .iter()
            .map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).bytes);
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
        let mut shard = self.shard(subject);
        let shard = &mut *shard;
        let Some(kept) = shard.subjects.get_mut(subject) else {
            return Vec::new();
        };
        kept.retain(|newer| {
            let keep = newer.at.elapsed() < self.limits.max_age && !(own && covered(newer));
            if !keep {
                shard.bytes -= newer.bytes();
            }
            keep
        });
        let uncovered = kept.iter().filter(|newer| !covered(newer)).cloned().collect();
        if kept.is_empty() {
            shard.subjects.remove(subject);
        }
        uncovered
    }

    /// Arrivals outlive their events until they come up, so they have a bound of their own.
    fn max_arrivals(&self) -> usize {
        self.limits.max_bytes / SHARDS / 256
    }

    fn shard(&self, subject: &SubjectId) -> MutexGuard<'_, Shard> {
        let index = self.hasher.hash_one(subject) as usize % SHARDS;
        // A panic while the lock was held can only have lost entries, never have torn one.
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shard {
    fn forget(&mut self, is_kept: impl Fn(&Newer) -> bool) {
        let Shard {
            subjects,
            bytes,
            arrivals,
        } = self;
        subjects.retain(|_, kept| {
            kept.retain(|newer| {
                let is_kept = is_kept(newer);
                if !is_kept {
                    *bytes -= newer.bytes();
                }
                is_kept
            });
            !kept.is_empty()
        });
        // After a rush, the room of the rush is given back.
        if subjects.len() < subjects.capacity() / 4 {
            subjects.shrink_to(subjects.len() * 2);
        }
        if arrivals.len() < arrivals.capacity() / 4 {
            arrivals.shrink_to(arrivals.len() * 2);
        }
    }

    fn drop_oldest(&mut self) {
        let Some((subject, partition, offset)) = self.arrivals.pop_front() else {
            self.subjects.clear();
            self.bytes = 0;
            return;
        };
        let Some(kept) = self.subjects.get_mut(&subject) else {
            return;
        };
        if let Some(at) = kept
            .iter()
            .position(|newer| (newer.partition, newer.offset) == (partition, offset))
            && let Some(dropped) = kept.remove(at)
        {
            self.bytes -= dropped.bytes();
        }
        if kept.is_empty() {
            self.subjects.remove(&subject);
        }
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
