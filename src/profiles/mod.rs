//! The read path: what is known of a shopper, within a slice of the request's deadline.
//!
//! ```text
//! hot ──hit──▶ decode ─┐
//!  └─miss─▶ warehouse ─┴▶ merge what belongs together ─▶ fold this node's newer events ─▶ decide
//! ```
//!
//! - Absence is an answer: a subject whom the warehouse does not know has no profile, and nothing is degraded.
//! - A store that fails or is slow costs its own slice and is named in [`Read::failed`]; the read itself never
//!   fails (invariant 5).
//! - Who may see what is decided by the caller, who knows the proof; see [`Viewer`] (invariant 8).
//! - What is folded or merged here is local to the request and never enters a store.

mod flight;
mod overlay;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

pub use overlay::{Overlay, OverlayLimits};

use self::flight::Flight;
use crate::deadline::Deadline;
use crate::domain::ids::{SubjectId, Timestamp};
use crate::domain::profile::{AsOf, Document};
use crate::hot::HotStore;
use crate::telemetry::{Metrics, ReadSource};
use crate::warehouse::Warehouse;

/// The most that one look into the hot store may take. Higher: a sick store eats the time in which the warehouse
/// could still answer. Lower: a short hiccup turns into load on the warehouse.
const HOT_SLICE: Duration = Duration::from_millis(15);

/// Kept back for deciding and encoding, which take microseconds; the rest is for a busy scheduler. Higher: reads
/// are given up needlessly. Lower: an answer can miss its deadline by the time a thread needs to come round.
const RESERVE: Duration = Duration::from_millis(5);

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

    /// The profile's bytes as it was decided with, for the decision record.
    pub fn into_bytes(self) -> Option<Bytes> {
        self.bytes
            .or_else(|| self.document.map(|document| document.encode().into()))
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

/// Reads profiles from the hot store, else from the warehouse.
#[derive(Debug)]
pub struct ProfileReader {
    hot: Arc<dyn HotStore>,
    flight: Arc<Flight>,
    overlay: Arc<Overlay>,
    metrics: Metrics,
}

impl ProfileReader {
    /// `overlay` is fed by whoever appends events on this node.
    pub fn new(
        hot: Arc<dyn HotStore>,
        warehouse: Arc<dyn Warehouse>,
        overlay: Arc<Overlay>,
        metrics: Metrics,
    ) -> Self {
        let flight = Arc::new(Flight::new(warehouse, Arc::clone(&hot)));
        ProfileReader {
            hot,
            flight,
            overlay,
            metrics,
        }
    }

    /// Everything that `viewer` may see, with the events of this node that the stores do not show yet.
    ///
    /// A proven user and a guest that no store links yet are merged for this request, unless the guest belongs
    /// to somebody else.
    pub async fn read(&self, viewer: Viewer<'_>, deadline: Deadline) -> Read {
        // Before the stores are read, so that what is found in them holds at least this much.
        let passed = &self.overlay.passed();
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
        let slice = deadline.slice(HOT_SLICE, RESERVE);
        let (hot_failed, missed) = match slice.bound(self.hot.get(subject)).await {
            Ok(Ok(Some(found))) => match Document::decode(&found.bytes) {
                Ok(document) => {
                    self.metrics.profile_read(ReadSource::Hot, started.elapsed());
                    return Read {
                        document: Some(document),
                        bytes: Some(found.bytes),
                        source: ReadSource::Hot,
                        ..Read::NOBODY
                    };
                }
                // Another build's format: the warehouse's copy is read, until the shopper's next event replaces it here.
                Err(_) => (false, false),
            },
            Ok(Ok(None)) => (false, true),
            Ok(Err(_)) | Err(_) => (true, false),
        };
        let read = self.read_warehouse(subject, missed, deadline).await;
        self.metrics.profile_read(read.source, started.elapsed());
        Read {
            failed: Failed {
                hot: hot_failed,
                ..read.failed
            },
            ..read
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
            Ok(Ok(Some(found))) => match Document::decode(&found.bytes) {
                Ok(document) => Read {
                    document: Some(document),
                    bytes: Some(found.bytes),
                    source: ReadSource::Warehouse,
                    ..Read::NOBODY
                },
                Err(error) => {
                    tracing::warn!(error = %error, "a profile in the warehouse cannot be decoded");
                    failed
                }
            },
            Ok(Err(_)) | Err(_) => failed,
        }
    }
}
