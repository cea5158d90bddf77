//! What is not near is fetched from the hot store, else from the warehouse.
//!
//! ```text
//! first to miss ─▶ hot ──found──▶ lands
//!                   └─missed, failed─▶ a round to the warehouse ──▶ lands
//! others who miss it ─▶ wait for the landing
//! ```
//!
//! - Whoever is first asks the hot store within its own request: no task, no second timer. Should it go away or run out of time
//!   before the store has answered, a task takes the flight over with a budget of its own, where somebody waits
//!   for it or the answer may be kept.
//! - The warehouse is asked by tasks, see [`super::rounds`].

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::breaker::Breaker;
use super::epoch::Epoch;
use super::flight::{Boarding, FlightId, Flights, Grounded, HotSaid, Landing, Since};
use super::near::{self, Found, Near, Ticket};
use super::read::{Failed, Read};
use super::rounds::{Question, Rounds};
use crate::deadline::Deadline;
use crate::domain::ids::SubjectId;
use crate::domain::profile::{AsOf, Snapshot};
use crate::hot::HotStore;
use crate::telemetry::{Metrics, ReadSource, Store};
use crate::warehouse::Warehouse;

/// The most that one look into the hot store may take. Higher: a sick store eats the time in which the warehouse
/// could still answer. Lower: a short hiccup turns into load on the warehouse.
const HOT_SLICE: Duration = Duration::from_millis(15);

/// Kept back for deciding and encoding, which take microseconds; the rest is for a busy scheduler. Higher: reads
/// are given up needlessly. Lower: an answer can miss its deadline by the time a thread needs to come round.
const RESERVE: Duration = Duration::from_millis(5);

/// See the module.
#[derive(Debug)]
pub(super) struct Fetcher {
    pub(super) near: Option<Arc<Near>>,
    pub(super) hot: Arc<dyn HotStore>,
    hot_breaker: Breaker,
    pub(super) warehouse: Arc<dyn Warehouse>,
    pub(super) epoch: Epoch,
    pub(super) flights: Flights,
    pub(super) rounds: Rounds,
}

/// What one look into the hot store came to.
enum Looked {
    Found(Arc<Snapshot>),
    Said(HotSaid),
    /// The request was in too much of a hurry to tell.
    Unknown,
}

impl Fetcher {
    pub(super) fn new(
        hot: Arc<dyn HotStore>,
        near_bytes: u64,
        warehouse: Arc<dyn Warehouse>,
        metrics: &Metrics,
    ) -> Self {
        let breaker = |store| Breaker::new(store, metrics.clone());
        Fetcher {
            near: near::in_front_of(&*hot, near_bytes),
            hot_breaker: breaker(Store::Hot),
            hot,
            warehouse,
            epoch: Epoch::default(),
            flights: Flights::default(),
            rounds: Rounds::new(breaker(Store::Warehouse)),
        }
    }

    pub(super) fn find_near(&self, subject: &SubjectId) -> Option<Read> {
        match self.near.as_ref()?.get(subject)? {
            Found::Absent(_) => Some(Read::NOBODY),
            Found::Profile(profile) if self.epoch.has(profile.version()) => {
                Some(Read::of(profile, ReadSource::Near))
            }
            Found::Profile(_) => None,
        }
    }

    /// What the stores have of `subject`. `passed` is how far the lanes were before.
    pub(super) async fn fetch(
        self: &Arc<Self>,
        subject: &SubjectId,
        passed: &Arc<AsOf>,
        deadline: Deadline,
    ) -> Read {
        let ticket = self.near.as_ref().and_then(|near| near.ticket(subject));
        let passed = Arc::clone(passed);
        let (id, landing) = match self.flights.board(subject, Since { ticket, passed }) {
            Boarding::Joined(id, landing) => (id, Some(landing)),
            Boarding::First(id) => {
                let pilot = Pilot {
                    fetcher: Arc::clone(self),
                    subject: subject.clone(),
                    id,
                    ticket,
                    is_task: false,
                    is_over: false,
                };
                match pilot.look(deadline.slice(HOT_SLICE, RESERVE)).await {
                    Looked::Found(profile) => {
                        pilot.land(&profile);
                        return Read::of(profile, ReadSource::Hot);
                    }
                    Looked::Said(said) => (id, pilot.turn(said)),
                    Looked::Unknown => (id, None),
                }
            }
        };
        self.read(subject, id, landing, deadline.slice(Duration::MAX, RESERVE))
            .await
    }

    /// Waits for a flight to land.
    async fn read(
        &self,
        subject: &SubjectId,
        id: FlightId,
        landing: Option<oneshot::Receiver<Landing>>,
        slice: Deadline,
    ) -> Read {
        let failed = |hot| Read {
            failed: Failed { hot, warehouse: true },
            incomplete: true,
            ..Read::NOBODY
        };
        let Some(landing) = landing else {
            return failed(true);
        };
        let Ok(Ok(landing)) = slice.bound(landing).await else {
            return failed(self.flights.is_hot_silent(subject, id));
        };
        let mut read = match landing.found {
            Ok(Some(found)) => Read::of(found, landing.source),
            Ok(None) => Read::NOBODY,
            Err(Grounded) => failed(false),
        };
        read.failed.hot = landing.hot_failed;
        read
    }

    /// Keeps near what was read under `ticket`.
    pub(super) fn keep(&self, ticket: Option<Ticket>, subject: &SubjectId, profile: Option<Arc<Snapshot>>) {
        if let (Some(near), Some(ticket)) = (&self.near, ticket) {
            near.put(ticket, subject, profile);
        }
    }

    async fn look(&self, subject: &SubjectId, slice: Deadline) -> Looked {
        let Some(permit) = self.hot_breaker.admit() else {
            return Looked::Said(HotSaid::Nothing);
        };
        let had_its_time = slice.remaining() >= HOT_SLICE / 2;
        match slice.bound(self.hot.get(subject)).await {
            Ok(Ok(found)) => {
                permit.succeeded();
                match found {
                    // Another build's format: the warehouse's copy is read, until the shopper's next event replaces it here.
                    Some(profile) if self.epoch.has(profile.version) => match Snapshot::read(profile.bytes) {
                        Ok(profile) => Looked::Found(Arc::new(profile)),
                        Err(_) => Looked::Said(HotSaid::Foreign),
                    },
                    // A put of the current epoch replaces it.
                    Some(_) | None => Looked::Said(HotSaid::Missed),
                }
            }
            Ok(Err(_)) => {
                permit.failed();
                Looked::Said(HotSaid::Nothing)
            }
            Err(_) if had_its_time => {
                permit.failed();
                Looked::Said(HotSaid::Nothing)
            }
            // It says nothing of the store.
            Err(_) => Looked::Unknown,
        }
    }
}

/// Takes one flight to the hot store and, where that does not do, on to the warehouse.
struct Pilot {
    fetcher: Arc<Fetcher>,
    subject: SubjectId,
    id: FlightId,
    ticket: Option<Ticket>,
    /// It flies in a task of its own, not in a request.
    is_task: bool,
    is_over: bool,
}

impl Pilot {
    async fn look(&self, slice: Deadline) -> Looked {
        self.fetcher.look(&self.subject, slice).await
    }

    /// Ends with what the hot store had.
    fn land(mut self, profile: &Arc<Snapshot>) {
        self.is_over = true;
        self.fetcher
            .keep(self.ticket, &self.subject, Some(Arc::clone(profile)));
        self.fetcher.flights.land(&self.subject, self.id, || Landing {
            found: Ok(Some(Arc::clone(profile))),
            source: ReadSource::Hot,
            hot_failed: false,
        });
    }

    /// Goes on to the warehouse. Returns who waits for the landing.
    fn turn(mut self, hot: HotSaid) -> Option<oneshot::Receiver<Landing>> {
        self.is_over = true;
        // Before it is asked, or the answer could come first.
        let landing = self.fetcher.flights.turn(&self.subject, self.id, hot);
        let question = Question {
            subject: self.subject.clone(),
            flight: self.id,
            ticket: self.ticket,
            hot,
        };
        Rounds::ask(&self.fetcher, question);
        landing
    }

    async fn go_on(self) {
        match self.look(Deadline::after(HOT_SLICE)).await {
            Looked::Found(profile) => self.land(&profile),
            Looked::Said(said) => drop(self.turn(said)),
            // A task is in no hurry; one that was held up for so long counts as much.
            Looked::Unknown => drop(self.turn(HotSaid::Nothing)),
        }
    }
}

impl Drop for Pilot {
    /// The request went away, or had no time left, before the hot store answered.
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let fetcher = &self.fetcher;
        let goes_on =
            !self.is_task && (self.ticket.is_some() || fetcher.flights.is_awaited(&self.subject, self.id));
        match Handle::try_current() {
            Ok(runtime) if goes_on => {
                let pilot = Pilot {
                    fetcher: Arc::clone(fetcher),
                    subject: self.subject.clone(),
                    id: self.id,
                    ticket: self.ticket,
                    is_task: true,
                    is_over: false,
                };
                runtime.spawn(pilot.go_on());
            }
            _ => fetcher.flights.land(&self.subject, self.id, || Landing {
                found: Err(Grounded),
                source: ReadSource::None,
                hot_failed: true,
            }),
        }
    }
}
