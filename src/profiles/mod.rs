//! The read path: what is known of a shopper, within a slice of the request's deadline.
//!
//! ```text
//! near ──hit──────────┐
//!  └─miss─▶ hot ──hit─┼▶ fold newer events ─▶ merge what belongs together ─▶ decide
//!            └─miss─▶ warehouse
//! ```
//!
//! - Absence is an answer: a subject whom the warehouse does not know has no profile, and nothing is degraded.
//! - A store that fails or is slow costs its own slice and is named in [`Read::failed`]; the read itself never
//!   fails (invariant 5). One that keeps failing is left alone for a while, see [`breaker`].
//! - What was read from the hot store is kept in this process for as long as it reports changes, see [`near`].
//! - Requests that miss the same profile share one read of the stores, see [`flight`]; those that miss different ones share
//!   round trips to the warehouse, see [`rounds`].
//! - A value of another epoch is a miss, see [`epoch`].
//! - Who may see what is decided by the caller, who knows the proof; see [`Viewer`] (invariant 8).
//! - A profile is read in place, see [`Snapshot`](crate::domain::profile::Snapshot). It is decoded only where something is folded or
//!   merged, see [`draft`].
//! - What is folded or merged here is local to the request and never enters a store.

mod breaker;
mod draft;
mod elsewhere;
mod epoch;
mod fetch;
mod flight;
mod near;
mod overlay;
mod read;
mod rounds;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

pub use overlay::{Overlay, OverlayLimits};
pub use read::{Failed, Read};

use self::draft::Draft;
use self::elsewhere::Elsewhere;
use self::fetch::Fetcher;
use crate::deadline::Deadline;
use crate::domain::ids::SubjectId;
use crate::domain::profile::AsOf;
use crate::hot::HotStore;
use crate::telemetry::Metrics;
use crate::warehouse::Warehouse;

/// How often the warehouse's epoch and other nodes' lanes are looked at. Higher: after a restore, old profiles are shown for
/// longer, and an event sent twice counts twice for longer. Lower: more queries for nothing.
const REFRESH: Duration = Duration::from_secs(2);

/// What lanes had passed so many looks ago is older than any read under way, for no request reads for as long. More: what is
/// of no use any more takes up memory for longer.
const SETTLED_LOOKS: usize = 5;

/// What a request may see, as far as its key and its token prove it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Viewer<'a> {
    /// The user, proven by a server key or a token.
    pub user: Option<&'a SubjectId>,
    pub anonymous: Option<&'a SubjectId>,
    /// Whether a guest who belongs to a user is answered with that user's document: a server key only.
    pub follows_link: bool,
}

/// Reads profiles from the near cache, else from the hot store, else from the warehouse.
#[derive(Debug)]
pub struct ProfileReader {
    fetcher: Arc<Fetcher>,
    overlay: Arc<Overlay>,
    metrics: Metrics,
}

impl ProfileReader {
    /// `overlay` is fed by whoever appends events on this node or hears of others. At most `near_bytes` of what is read from `hot` are
    /// kept; 0 where `hot` is in this process itself.
    pub fn new(
        hot: Arc<dyn HotStore>,
        near_bytes: u64,
        warehouse: Arc<dyn Warehouse>,
        overlay: Arc<Overlay>,
        metrics: Metrics,
    ) -> Self {
        ProfileReader {
            fetcher: Arc::new(Fetcher::new(hot, near_bytes, warehouse, &metrics)),
            overlay,
            metrics,
        }
    }

    /// Follows the warehouse's epoch, and how far lanes elsewhere are, until told to stop.
    pub async fn run(&self, stop: CancellationToken) {
        let mut elsewhere = Elsewhere::default();
        let mut settling = VecDeque::new();
        loop {
            let Fetcher { warehouse, hot, .. } = &*self.fetcher;
            let look = async {
                self.fetcher.epoch.refresh(warehouse).await;
                elsewhere.look(&self.overlay, warehouse, hot).await;
                if let Some(near) = &self.fetcher.near {
                    self.metrics.near_size(near.size_bytes());
                }
                settling.push_back(self.overlay.passed());
                if settling.len() > SETTLED_LOOKS
                    && let Some(settled) = settling.pop_front()
                {
                    self.overlay.forget(&settled);
                }
                tokio::time::sleep(REFRESH).await;
            };
            if stop.run_until_cancelled(look).await.is_none() {
                return;
            }
        }
    }

    /// Everything that `viewer` may see, with the events that the stores do not show yet.
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
        let draft = match (user, anonymous) {
            (None, None) => return Read::NOBODY,
            (Some(user), None) => {
                let read = self.read_stored(user, deadline, passed).await;
                self.with_newer(read.into(), user, true, passed)
            }
            (None, Some(guest)) => {
                let read = self.read_stored(guest, deadline, passed).await;
                match read.linked_user().cloned().filter(|_| follows_link) {
                    Some(user) => {
                        // Their document holds the guest's part already.
                        let read = self.read_stored(&user, deadline, passed).await;
                        self.with_guest(read, &user, guest, passed)
                    }
                    None => self.with_newer(read.into(), guest, true, passed),
                }
            }
            (Some(user), Some(guest)) => {
                let (of_user, of_guest) = tokio::join!(
                    self.read_stored(user, deadline, passed),
                    self.read_stored(guest, deadline, passed)
                );
                match of_guest.linked_user() {
                    Some(owner) if owner == user => self.with_guest(of_user, user, guest, passed),
                    Some(_) => self.with_newer(of_user.into(), user, true, passed),
                    None => self
                        .with_newer(of_user.into(), user, true, passed)
                        .join(self.with_newer(of_guest.into(), guest, true, passed)),
                }
            }
        };
        draft.finish()
    }

    /// The customer's document, which holds the guest's part.
    fn with_guest(&self, read: Read, user: &SubjectId, guest: &SubjectId, passed: &Arc<AsOf>) -> Draft {
        let draft = self.with_newer(read.into(), user, true, passed);
        self.with_newer(draft, guest, false, passed)
    }

    /// Folds the events of `subject` that this node knows of and the draft does not hold yet. `own` says that the
    /// document is the subject's own, so events that it covers are done with.
    fn with_newer(&self, mut draft: Draft, subject: &SubjectId, own: bool, passed: &Arc<AsOf>) -> Draft {
        self.overlay.fold(subject, &mut draft, own, passed);
        draft
    }

    /// One subject's document as stored.
    async fn read_stored(&self, subject: &SubjectId, deadline: Deadline, passed: &Arc<AsOf>) -> Read {
        let started = Instant::now();
        let read = match self.fetcher.find_near(subject) {
            Some(read) => read,
            // Apart: a request that finds its profile near does not carry it along.
            None => Box::pin(self.fetcher.fetch(subject, passed, deadline)).await,
        };
        self.metrics.profile_read(read.source, started.elapsed());
        read
    }
}
