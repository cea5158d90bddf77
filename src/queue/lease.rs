//! Who works on which partition of the log.
//!
//! Of all workers on one log, each partition has one at a time. A worker renews what it holds every [`RENEW_EVERY`] and loses what
//! it did not renew for [`LEASE`]; whoever takes a partition gets a greater token. A worker that was paused and wakes up may
//! still believe it holds a partition: the view's compare-and-set on the position is what keeps it from applying anything twice.

use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::ReadError;

/// How long a lease lasts. Higher: the partitions of a worker that died wait for longer. Lower: a hiccup of the network moves
/// partitions about.
pub const LEASE: Duration = Duration::from_secs(5);

/// A few times in the life of a lease, so that one lost answer costs nothing.
pub const RENEW_EVERY: Duration = Duration::from_secs(1);

/// A partition held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    pub partition: u16,
    /// Grows each time that the partition changes hands.
    pub token: u64,
}

/// The leases of one log.
#[async_trait]
pub trait Leases: Send + Sync + std::fmt::Debug {
    /// Renews what `worker` holds, gives back what is beyond its share, takes what is free up to it, and returns what it holds
    /// for [`LEASE`] from now on.
    async fn renew(&self, worker: Uuid) -> Result<Vec<Lease>, ReadError>;

    /// Gives back everything at once, so that nobody has to wait for the leases to end.
    async fn release(&self, worker: Uuid) -> Result<(), ReadError>;
}

/// A log that one process has to itself: it holds all there is.
#[derive(Debug)]
pub(super) struct Whole;

#[async_trait]
impl Leases for Whole {
    async fn renew(&self, _worker: Uuid) -> Result<Vec<Lease>, ReadError> {
        Ok(vec![Lease {
            partition: 0,
            token: 0,
        }])
    }

    async fn release(&self, _worker: Uuid) -> Result<(), ReadError> {
        Ok(())
    }
}
