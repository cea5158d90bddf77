//! The read path: what is known of a shopper, within a slice of the request's deadline.
//!
//! ```text
//! near ──hit──────────┐
//!  └─miss─▶ hot ──hit─┼▶ decode ─▶ merge what belongs together ─▶ fold this node's newer events ─▶ decide
//!            └─miss─▶ warehouse
//! ```
//!
//! - Absence is an answer: a subject whom the warehouse does not know has no profile, and nothing is degraded.
//! - A store that fails or is slow costs its own slice and is named in [`Read::failed`]; the read itself never
//!   fails (invariant 5). One that keeps failing is left alone for a while, see [`breaker`].
//! - What was read from the hot store is kept in this process for as long as it reports changes, see [`near`].
//! - A value of another epoch is a miss, see [`epoch`].
//! - Who may see what is decided by the caller, who knows the proof; see [`Viewer`] (invariant 8).
//! - What is folded or merged here is local to the request and never enters a store.

mod breaker;
mod elsewhere;
mod epoch;
mod flight;
mod near;
mod overlay;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

pub use overlay::{Overlay, OverlayLimits};

use self::breaker::Breaker;
use self::elsewhere::Elsewhere;
use self::epoch::Epoch;
use self::flight::Flight;
use self::near::{Found, Near};
use crate::deadline::Deadline;
use crate::domain::ids::{SubjectId, Timestamp};
use crate::domain::profile::{AsOf, DecodeError, Document};
use crate::hot::{HotProfile, HotStore};
use crate::telemetry::{Metrics, ReadSource, Store};
use crate::warehouse::Warehouse;

/// The most that one look into the hot store may take. Higher: a sick store eats the time in which the warehouse
/// could still answer. Lower: a short hiccup turns into load on the warehouse.
const HOT_SLICE: Duration = Duration::from_millis(15);

/// Kept back for deciding and encoding, which take microseconds; the rest is for a busy scheduler. Higher: reads
/// are given up needlessly. Lower: an answer can miss its deadline by the time a thread needs to come round.
const RESERVE: Duration = Duration::from_millis(5);

/// How often the warehouse's epoch and other nodes' lanes are looked at. Higher: after a restore, old profiles are shown for
/// longer, and an event sent twice counts twice for longer. Lower: more queries for nothing.
const REFRESH: Duration = Duration::from_secs(2);

/// What a request may see, as far as its key and its token prove it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Viewer<'a> {
    /// The user, proven by a server key or a token.
    pub user: Option<&'a SubjectId>,
    pub anonymous: Option<&'a SubjectId>,
    /// Whether a guest who belongs to a user is answered with that user's document: a server key only.
    pub follows_link: bool,
}

/// Which stores did not answer in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Failed {
    pub hot: bool,
    pub warehouse: bool,
}

impl Failed {
    fn or(self, other: Failed) -> Failed {
        Failed {
            hot: self.hot || other.hot,
            warehouse: self.warehouse || other.warehouse,
        }
    }
}

/// What a read found.
#[derive(Debug, Clone)]
pub struct Read {
    /// The profile to decide with; `None` where there is none or it could not be read.
    pub document: Option<Document>,
    /// The stored bytes, while `document` is exactly what they hold.
    pub bytes: Option<Bytes>,
    pub source: ReadSource,
    pub failed: Failed,
    /// A profile may exist that could not be read.
    pub incomplete: bool,
}

impl Read {
    /// The answer where nobody is to be read.
    pub const NOBODY: Read = Read {
        document: None,
        bytes: None,
        source: ReadSource::None,
        failed: Failed {
            hot: false,
            warehouse: false,
        },
        incomplete: false,
    };

    /// # Errors
    /// When another build wrote it.
    fn of(found: HotProfile, source: ReadSource) -> Result<Read, DecodeError> {
        Ok(Read {
            document: Some(Document::decode(&found.bytes)?),
            bytes: Some(found.bytes),
            source,
            ..Read::NOBODY
        })
    }

    /// The profile's bytes as it was decided with, for the decision record.
    pub fn encoded(&self) -> Option<Cow<'_, [u8]>> {
        let made = || Some(Cow::Owned(self.document.as_ref()?.encode()));
        self.bytes.as_deref().map(Cow::Borrowed).or_else(made)
    }

    /// When what was read was stored; `None` where nothing stored was found.
    pub fn stored_at(&self) -> Option<Timestamp> {
        self.document
            .as_ref()
            .map(|document| document.stored_at)
            .filter(|at| *at > Timestamp(0))
    }

    fn linked_user(&self) -> Option<&SubjectId> {
        self.document
            .as_ref()
            .and_then(|document| document.linked_user.as_ref())
    }

    /// Joins the profile of another identity of the same person.
    fn join(self, other: Read) -> Read {
        let failed = self.failed.or(other.failed);
        let incomplete = self.incomplete || other.incomplete;
        let joined = match (self.document.is_some(), other.document.is_some()) {
            (_, false) => self,
            (false, true) => other,
            (true, true) => {
                let mut joined = self;
                if let (Some(ours), Some(theirs)) = (&mut joined.document, &other.document) {
                    ours.part.merge(&theirs.part);
                }
                Read {
                    bytes: None,
                    ..joined
                }
            }
        };
        Read {
            failed,
            incomplete,
            ..joined
        }
    }
}

/// Reads profiles from the near cache, else from the hot store, else from the warehouse.
#[derive(Debug)]
pub struct ProfileReader {
    near: Option<Arc<Near>>,
    hot: Arc<dyn HotStore>,
    hot_breaker: Breaker,
    warehouse: Arc<dyn Warehouse>,
    flight: Arc<Flight>,
    epoch: Epoch,
    overlay: Arc<Overlay>,
    metrics: Metrics,
}

/// What one look into the hot store came to.
enum Looked {
    Found(HotProfile),
    /// It has none: the warehouse's may be written back.
    Missed,
    Failed,
}

impl ProfileReader {
    /// `overlay` is fed by whoever appends events on this node. At most `near_bytes` of what is read from `hot` are
    /// kept; 0 where `hot` is in this process itself.
    pub fn new(
        hot: Arc<dyn HotStore>,
        near_bytes: u64,
        warehouse: Arc<dyn Warehouse>,
        overlay: Arc<Overlay>,
        metrics: Metrics,
    ) -> Self {
        let breaker = |store| Breaker::new(store, metrics.clone());
        ProfileReader {
            near: near::in_front_of(&*hot, near_bytes),
            flight: Arc::new(Flight::new(
                Arc::clone(&warehouse),
                Arc::clone(&hot),
                breaker(Store::Warehouse),
            )),
            hot_breaker: breaker(Store::Hot),
            hot,
            warehouse,
            epoch: Epoch::default(),
            overlay,
            metrics,
        }
    }

    /// Follows the warehouse's epoch, and how far lanes elsewhere are, until told to stop.
    pub async fn run(&self, stop: CancellationToken) {
        let mut elsewhere = Elsewhere::default();
        loop {
            let look = async {
                self.epoch.refresh(&self.warehouse).await;
                elsewhere.look(&self.overlay, &self.warehouse, &self.hot).await;
                if let Some(near) = &self.near {
                    self.metrics.near_size(near.size_bytes());
                }
                tokio::time::sleep(REFRESH).await;
            };
            if stop.run_until_cancelled(look).await.is_none() {
                return;
            }
        }
    }

    /// Everything that `viewer` may see, with the events of this node that the stores do not show yet.
    ///
    /// A proven user and a guest that no store links yet are merged for this request, unless the guest belongs
    /// to somebody else.
    pub async fn read(&self, viewer: Viewer<'_>, deadline: Deadline) -> Read {
        // Before the stores are read, so that what is found in them holds at least this much.
        let passed = &*self.overlay.passed();
        let Viewer {
            user,
            anonymous,
            follows_link,
        } = viewer;
        match (user, anonymous) {
            (None, None) => Read::NOBODY,
            (Some(user), None) => self.read_whole(user, deadline, passed).await,
            (None, Some(guest)) => {
                let read = self.read_stored(guest, deadline).await;
                match read.linked_user().cloned().filter(|_| follows_link) {
                    Some(user) => self.read_customer(&user, guest, deadline, passed).await,
                    None => self.with_newer(read, guest, true, passed),
                }
            }
            (Some(user), Some(guest)) => {
                let (of_user, of_guest) = tokio::join!(
                    self.read_stored(user, deadline),
                    self.read_stored(guest, deadline)
                );
                match of_guest.linked_user() {
                    Some(owner) if owner == user => self.with_guest(of_user, user, guest, passed),
                    Some(_) => self.with_newer(of_user, user, true, passed),
                    None => self
                        .with_newer(of_user, user, true, passed)
                        .join(self.with_newer(of_guest, guest, true, passed)),
                }
            }
        }
    }

    async fn read_whole(&self, subject: &SubjectId, deadline: Deadline, passed: &AsOf) -> Read {
        let read = self.read_stored(subject, deadline).await;
        self.with_newer(read, subject, true, passed)
    }

    /// A customer's document, which holds the guest's part already.
    async fn read_customer(
        &self,
        user: &SubjectId,
        guest: &SubjectId,
        deadline: Deadline,
        passed: &AsOf,
    ) -> Read {
        let read = self.read_stored(user, deadline).await;
        self.with_guest(read, user, guest, passed)
    }

    fn with_guest(&self, read: Read, user: &SubjectId, guest: &SubjectId, passed: &AsOf) -> Read {
        let read = self.with_newer(read, user, true, passed);
        self.with_newer(read, guest, false, passed)
    }

    /// Folds the events of `subject` that this node took and `read` does not hold yet. `own` says that the
    /// document is the subject's own, so events that it covers are done with.
    fn with_newer(&self, mut read: Read, subject: &SubjectId, own: bool, passed: &AsOf) -> Read {
        if self.overlay.fold(subject, &mut read.document, own, passed) {
            read.bytes = None;
        }
        read
    }

    /// One subject's document as stored.
    async fn read_stored(&self, subject: &SubjectId, deadline: Deadline) -> Read {
        let started = Instant::now();
        let read = match self.find_near(subject) {
            Some(read) => read,
            None => self.read_shared(subject, deadline).await,
        };
        self.metrics.profile_read(read.source, started.elapsed());
        read
    }

    fn find_near(&self, subject: &SubjectId) -> Option<Read> {
        match self.near.as_ref()?.get(subject)? {
            Found::Absent(_) => Some(Read::NOBODY),
            Found::Profile(profile) if self.epoch.has(profile.version) => {
                Read::of(profile, ReadSource::Near).ok()
            }
            Found::Profile(_) => None,
        }
    }

    async fn read_shared(&self, subject: &SubjectId, deadline: Deadline) -> Read {
        let near = self.near.as_ref();
        let ticket = near.and_then(|near| near.ticket(subject));
        let keep = |profile: Option<HotProfile>| {
            if let (Some(near), Some(ticket)) = (near, ticket) {
                near.put(ticket, subject, profile);
            }
        };
        let looked = self.look_hot(subject, deadline).await;
        let missed = matches!(looked, Looked::Missed);
        let hot_failed = matches!(looked, Looked::Failed);
        if let Looked::Found(profile) = looked {
            // Another build's format: the warehouse's copy is read, until the shopper's next event replaces it here.
            if let Ok(read) = Read::of(profile.clone(), ReadSource::Hot) {
                keep(Some(profile));
                return read;
            }
        }
        let mut read = self.read_warehouse(subject, missed, deadline).await;
        if missed && read.document.is_none() && !read.incomplete {
            keep(None);
        }
        read.failed.hot = hot_failed;
        read
    }

    async fn look_hot(&self, subject: &SubjectId, deadline: Deadline) -> Looked {
        let Some(permit) = self.hot_breaker.admit() else {
            return Looked::Failed;
        };
        let slice = deadline.slice(HOT_SLICE, RESERVE);
        let had_its_time = slice.remaining() >= HOT_SLICE / 2;
        match slice.bound(self.hot.get(subject)).await {
            Ok(Ok(found)) => {
                permit.succeeded();
                match found {
                    Some(profile) if self.epoch.has(profile.version) => Looked::Found(profile),
                    // A put of the current epoch replaces it.
                    Some(_) | None => Looked::Missed,
                }
            }
            Ok(Err(_)) => {
                permit.failed();
                Looked::Failed
            }
            Err(_) => {
                // A request in a hurry says nothing of the store.
                if had_its_time {
                    permit.failed();
                }
                Looked::Failed
            }
        }
    }

    async fn read_warehouse(&self, subject: &SubjectId, write_back: bool, deadline: Deadline) -> Read {
        let slice = deadline.slice(Duration::MAX, RESERVE);
        let failed = Read {
            failed: Failed {
                hot: false,
                warehouse: true,
            },
            incomplete: true,
            ..Read::NOBODY
        };
        match slice.bound(self.flight.fetch(subject, write_back)).await {
            Ok(Ok(None)) => Read::NOBODY,
            Ok(Ok(Some(found))) => Read::of(found, ReadSource::Warehouse).unwrap_or_else(|error| {
                tracing::warn!(error = %error, "a profile in the warehouse cannot be decoded");
                failed
            }),
            Ok(Err(_)) | Err(_) => failed,
        }
    }
}
