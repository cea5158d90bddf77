//! Single flight: of many requests that miss the same profile, one asks the stores.
//!
//! - A flight is joined only by a request for which nothing has changed since it began ([`Since`]): neither has the hot store
//!   reported a change in the subject's shard, nor has a lane passed any event. So what it lands is at least as new as what
//!   the request was sure to find by itself. Where something has changed a new flight begins, and the old one lands
//!   for those who wait for it.
//! - The first request asks the hot store itself, without a task; nobody else pays for it. How a flight outlives it is
//!   told in [`super::fetch`].

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;
use tokio::sync::oneshot;

use super::near::Ticket;
use crate::domain::ids::SubjectId;
use crate::domain::profile::{AsOf, Snapshot};
use crate::telemetry::ReadSource;

/// Locks are held for a look-up or a swap; this many, and two requests rarely meet at one.
const SHARDS: usize = 16;

/// Why a flight brought nothing. The cause is logged where it happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the warehouse did not answer")]
pub(super) struct Grounded;

/// What a flight brought.
#[derive(Debug, Clone)]
pub(super) struct Landing {
    /// `None` where neither store has one.
    pub found: Result<Option<Arc<Snapshot>>, Grounded>,
    pub source: ReadSource,
    pub hot_failed: bool,
}

/// What the hot store said before the warehouse is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HotSaid {
    /// It has none: what the warehouse has may be written back.
    Missed,
    /// It has one that this build cannot read.
    Foreign,
    /// It failed, or was left alone.
    Nothing,
}

/// The state of things when a flight began, or a request wants to join it.
#[derive(Debug, Clone)]
pub(super) struct Since {
    /// `None` while the hot store does not report.
    pub ticket: Option<Ticket>,
    pub passed: Arc<AsOf>,
}

impl Since {
    fn is_still(&self, now: &Since) -> bool {
        self.ticket == now.ticket && Arc::ptr_eq(&self.passed, &now.passed)
    }
}

/// Names one flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FlightId(u64);

#[derive(Debug)]
struct Aloft {
    id: FlightId,
    since: Since,
    /// `None` while the hot store is being asked.
    hot: Option<HotSaid>,
    waiting: Vec<oneshot::Sender<Landing>>,
}

#[derive(Debug, Default)]
struct Shard {
    aloft: HashMap<SubjectId, Aloft, RandomState>,
    /// Those that a newer flight of their subject took the place of.
    displaced: Vec<Aloft>,
}

impl Shard {
    fn find(&mut self, subject: &SubjectId, id: FlightId) -> Option<&mut Aloft> {
        let displaced = self.displaced.iter_mut().find(|flight| flight.id == id);
        match self.aloft.get_mut(subject) {
            Some(flight) if flight.id == id => Some(flight),
            _ => displaced,
        }
    }

    fn remove(&mut self, subject: &SubjectId, id: FlightId) -> Option<Aloft> {
        if self.aloft.get(subject).is_some_and(|flight| flight.id == id) {
            return self.aloft.remove(subject);
        }
        let at = self.displaced.iter().position(|flight| flight.id == id)?;
        Some(self.displaced.swap_remove(at))
    }
}

/// How a request came aboard.
#[derive(Debug)]
pub(super) enum Boarding {
    /// It is the first, and asks.
    First(FlightId),
    Joined(FlightId, oneshot::Receiver<Landing>),
}

/// The flights under way.
#[derive(Debug, Default)]
pub(super) struct Flights {
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
    begun: AtomicU64,
}

impl Flights {
    pub(super) fn board(&self, subject: &SubjectId, since: Since) -> Boarding {
        let shard = &mut *self.shard(subject);
        if let Some(flight) = shard.aloft.get_mut(subject)
            && flight.since.is_still(&since)
        {
            let (announce, landing) = oneshot::channel();
            flight.waiting.push(announce);
            return Boarding::Joined(flight.id, landing);
        }
        let id = FlightId(self.begun.fetch_add(1, Ordering::Relaxed));
        let flight = Aloft {
            id,
            since,
            hot: None,
            waiting: Vec::new(),
        };
        let before = shard.aloft.insert(subject.clone(), flight);
        shard.displaced.extend(before);
        Boarding::First(id)
    }

    /// The warehouse is asked from now on. Returns who waits for the landing.
    pub(super) fn turn(
        &self,
        subject: &SubjectId,
        id: FlightId,
        hot: HotSaid,
    ) -> Option<oneshot::Receiver<Landing>> {
        let mut shard = self.shard(subject);
        let flight = shard.find(subject, id)?;
        let (announce, landing) = oneshot::channel();
        flight.hot = Some(hot);
        flight.waiting.push(announce);
        Some(landing)
    }

    /// Whether a flight is still under way of which the hot store has not said anything.
    pub(super) fn is_hot_silent(&self, subject: &SubjectId, id: FlightId) -> bool {
        let mut shard = self.shard(subject);
        let flight = shard.find(subject, id);
        flight.is_some_and(|flight| matches!(flight.hot, None | Some(HotSaid::Nothing)))
    }

    /// Whether anybody waits for a flight. Nobody can join it any more where it is not awaited.
    pub(super) fn is_awaited(&self, subject: &SubjectId, id: FlightId) -> bool {
        let mut shard = self.shard(subject);
        let flight = shard.find(subject, id);
        let is_awaited =
            flight.is_some_and(|flight| flight.waiting.iter().any(|waiting| !waiting.is_closed()));
        if !is_awaited {
            shard.remove(subject, id);
        }
        is_awaited
    }

    /// Ends a flight; `landing` is made only where somebody waits for it.
    pub(super) fn land(&self, subject: &SubjectId, id: FlightId, landing: impl Fn() -> Landing) {
        let flight = self.shard(subject).remove(subject, id);
        for waiting in flight.into_iter().flat_map(|flight| flight.waiting) {
            // Who is impatient has gone.
            let _ = waiting.send(landing());
        }
    }

    fn shard(&self, subject: &SubjectId) -> MutexGuard<'_, Shard> {
        // The low bits pick the bucket inside the shard's map.
        let high = (self.hasher.hash_one(subject) >> 32) as usize;
        // Whole between any two statements.
        self.shards[high % SHARDS]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject() -> SubjectId {
        SubjectId::from_stored("a:k.1")
    }

    fn nothing() -> Landing {
        Landing {
            found: Ok(None),
            source: ReadSource::None,
            hot_failed: false,
        }
    }

    fn first(boarding: Boarding) -> FlightId {
        match boarding {
            Boarding::First(id) => id,
            Boarding::Joined(..) => panic!("it joined"),
        }
    }

    fn joined(boarding: Boarding) -> oneshot::Receiver<Landing> {
        match boarding {
            Boarding::First(_) => panic!("it did not join"),
            Boarding::Joined(_, landing) => landing,
        }
    }

    #[test]
    fn a_flight_is_joined_until_it_lands() {
        let (flights, who) = (Flights::default(), subject());
        let since = Since {
            ticket: None,
            passed: Arc::default(),
        };
        let id = first(flights.board(&who, since.clone()));
        let mut landing = joined(flights.board(&who, since.clone()));
        assert!(flights.is_awaited(&who, id));
        assert!(landing.try_recv().is_err());
        flights.land(&who, id, nothing);
        assert!(landing.try_recv().is_ok());
        let next = first(flights.board(&who, since.clone()));
        assert_ne!(next, id);
        assert!(flights.is_hot_silent(&who, next));
        let own = flights.turn(&who, next, HotSaid::Missed).unwrap();
        assert!(!flights.is_hot_silent(&who, next));
        // Who waited has gone, so it ends, and nobody joins it.
        drop(own);
        assert!(!flights.is_awaited(&who, next));
        first(flights.board(&who, since));
    }

    #[test]
    fn a_flight_from_before_a_change_is_not_joined_and_lands_for_its_own() {
        let (flights, who) = (Flights::default(), subject());
        let before = Since {
            ticket: None,
            passed: Arc::default(),
        };
        let after = Since {
            ticket: None,
            passed: Arc::default(),
        };
        let old = first(flights.board(&who, before.clone()));
        let mut of_old = joined(flights.board(&who, before.clone()));
        let new = first(flights.board(&who, after.clone()));
        let mut of_new = joined(flights.board(&who, after));
        // Somebody who looked before the change and boards after it gets a flight of their own as well.
        let late = first(flights.board(&who, before));
        for (id, landing) in [(old, &mut of_old), (new, &mut of_new)] {
            assert!(landing.try_recv().is_err());
            flights.land(&who, id, nothing);
            assert!(landing.try_recv().is_ok());
        }
        flights.land(&who, late, nothing);
        let shard = flights.shard(&who);
        assert!(shard.aloft.is_empty() && shard.displaced.is_empty());
    }
}
