//! A part of the overlay under one lock.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{OverlayLimits, SHARDS, Taken};
use crate::domain::ids::SubjectId;
use crate::domain::profile::AsOf;

/// How this node came by an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Via {
    /// A client sent it here.
    Client,
    /// Another node told.
    Node,
}

#[derive(Debug, Default)]
pub(super) struct Shard {
    /// Of each the events in the order of the log.
    pub(super) subjects: HashMap<SubjectId, VecDeque<Newer>, foldhash::fast::RandomState>,
    /// By [`Via`].
    pub(super) arrivals: [Arrivals; 2],
}

/// A partition, and an offset there.
type Place = (u16, u64);

#[derive(Debug, Default)]
pub(super) struct Arrivals {
    /// In the order of arrival; an entry whose event is gone already is skipped.
    order: VecDeque<(SubjectId, Place)>,
    pub(super) bytes: usize,
}

#[derive(Debug, Clone)]
pub(super) struct Newer {
    pub(super) partition: u16,
    pub(super) offset: u64,
    pub(super) via: Via,
    pub(super) at: Instant,
    pub(super) taken: Arc<Taken>,
}

impl Newer {
    fn place(&self) -> Place {
        (self.partition, self.offset)
    }

    /// What the entry takes in memory, nearly: itself, its event, its ids and its place among the arrivals.
    pub(super) fn bytes(&self) -> usize {
        const IDS: usize = 4 * 64;
        const FIXED: usize = size_of::<Newer>() + size_of::<Taken>() + size_of::<(SubjectId, Place)>() + IDS;
        FIXED + self.taken.event.body.len()
    }
}

impl Shard {
    pub(super) fn size_bytes(&self) -> usize {
        self.arrivals.iter().map(|arrivals| arrivals.bytes).sum()
    }

    pub(super) fn insert(&mut self, subject: SubjectId, newer: Newer) {
        let place = newer.place();
        let arrivals = self.arrivals(newer.via);
        arrivals.bytes += newer.bytes();
        arrivals.order.push_back((subject.clone(), place));
        let kept = self.subjects.entry(subject).or_default();
        // Mostly none is.
        let behind = kept.iter().rev().take_while(|kept| kept.place() > place).count();
        kept.insert(kept.len() - behind, newer);
    }

    /// Whether the event of this id is kept. Of its places in the log the first counts, so if that is this one it is where it is from now on.
    pub(super) fn note_place(
        &mut self,
        subject: &SubjectId,
        event_id: &str,
        partition: u16,
        offset: u64,
    ) -> bool {
        let Some(kept) = self.subjects.get_mut(subject) else {
            return false;
        };
        let twin = kept
            .iter()
            .position(|kept| *kept.taken.event.event_id == *event_id);
        let Some(at) = twin else { return false };
        let comes_first = |twin: &Newer| twin.partition == partition && offset < twin.offset;
        if kept.get(at).is_some_and(comes_first)
            && let Some(mut twin) = kept.remove(at)
        {
            self.arrivals(twin.via).bytes -= twin.bytes();
            twin.offset = offset;
            self.insert(subject.clone(), twin);
        }
        true
    }

    /// Lets the oldest go of what is over a bound.
    pub(super) fn bound(&mut self, subject: &SubjectId, limits: &OverlayLimits) {
        if let Some(kept) = self.subjects.get_mut(subject)
            && kept.len() > limits.max_events_per_subject
            && let Some(oldest) = kept.pop_front()
        {
            self.arrivals(oldest.via).bytes -= oldest.bytes();
        }
        let max_bytes = limits.max_bytes / SHARDS;
        for via in [Via::Client, Via::Node] {
            // Arrivals outlive their events until they come up, so they have a bound of their own.
            while self.arrivals(via).bytes > max_bytes || self.arrivals(via).order.len() > max_bytes / 256 {
                self.drop_oldest(via);
            }
        }
    }

    /// Lets go of what lanes had passed by `passed`, and of what is too old.
    pub(super) fn forget(&mut self, passed: &AsOf, max_age: Duration) {
        let Shard { subjects, arrivals } = self;
        subjects.retain(|_, kept| {
            kept.retain(|newer| {
                let is_kept = newer.at.elapsed() < max_age && !passed.covers(newer.partition, newer.offset);
                if !is_kept {
                    arrivals[newer.via as usize].bytes -= newer.bytes();
                }
                is_kept
            });
            !kept.is_empty()
        });
        // After a rush, the room of the rush is given back.
        if subjects.len() < subjects.capacity() / 4 {
            subjects.shrink_to(subjects.len() * 2);
        }
        for Arrivals { order, .. } in arrivals {
            order.retain(|(_, (partition, offset))| !passed.covers(*partition, *offset));
            if order.len() < order.capacity() / 4 {
                order.shrink_to(order.len() * 2);
            }
        }
    }

    pub(super) fn arrivals(&mut self, via: Via) -> &mut Arrivals {
        &mut self.arrivals[via as usize]
    }

    fn drop_oldest(&mut self, via: Via) {
        let Some((subject, place)) = self.arrivals(via).order.pop_front() else {
            // What has no arrival could never be let go.
            *self = Shard::default();
            return;
        };
        let Some(kept) = self.subjects.get_mut(&subject) else {
            return;
        };
        let at = kept.iter().position(|newer| newer.place() == place);
        let dropped = at.and_then(|at| kept.remove(at));
        if kept.is_empty() {
            self.subjects.remove(&subject);
        }
        if let Some(dropped) = dropped {
            self.arrivals(dropped.via).bytes -= dropped.bytes();
        }
    }
}
