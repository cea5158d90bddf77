//! What a lane makes of each failure: one table.
//!
//! The list of what is retried is kept narrow on purpose. Whatever is not known to heal by itself stops the
//! lane with an error that names the remedy; the log keeps every event meanwhile.

use std::time::Duration;

use crate::queue::ReadError;
use crate::warehouse::WarehouseError;

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Wait, then try the same thing again.
    Retry,
    /// Discard the batch, wait, and read the stored position again.
    Reread,
    /// One record of the batch cannot be stored: find it and quarantine it.
    Bisect,
    /// Nothing that time heals: stop the lane.
    Stop,
}

pub(super) fn after_warehouse_error(error: &WarehouseError) -> Next {
    match error {
        WarehouseError::Unavailable(_) => Next::Retry,
        WarehouseError::PositionMoved { .. } | WarehouseError::Unknown(_) => Next::Reread,
        WarehouseError::Rejected(_) => Next::Bisect,
        WarehouseError::Inconsistent(_) => Next::Stop,
    }
}

pub(super) fn after_read_error(error: &ReadError) -> Next {
    match error {
        ReadError::Io(_) => Next::Retry,
        ReadError::OutOfRange { .. } | ReadError::Corrupt(_) | ReadError::Closed => Next::Stop,
    }
}

/// Waits that double from 50 ms to 5 s: quick enough to ride out a lock, slow enough not to hammer a store
/// that is starting.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(50);
    const LAST: Duration = Duration::from_secs(5);

    pub(super) fn new() -> Self {
        Backoff { next: Self::FIRST }
    }

    pub(super) fn reset(&mut self) {
        self.next = Self::FIRST;
    }

    pub(super) fn wait(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(Self::LAST);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_to_its_bound_and_resets() {
        let mut backoff = Backoff::new();
        let waits: Vec<_> = (0..9).map(|_| backoff.wait().as_millis()).collect();
        assert_eq!(waits, [50, 100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
        backoff.reset();
        assert_eq!(backoff.wait(), Backoff::FIRST);
    }

    #[test]
    fn only_what_heals_is_retried() {
        assert_eq!(
            after_warehouse_error(&WarehouseError::Unavailable("busy".into())),
            Next::Retry
        );
        assert_eq!(
            after_warehouse_error(&WarehouseError::Unknown("cut".into())),
            Next::Reread
        );
        assert_eq!(
            after_warehouse_error(&WarehouseError::Rejected("range".into())),
            Next::Bisect
        );
        assert_eq!(
            after_warehouse_error(&WarehouseError::Inconsistent("blob".into())),
            Next::Stop
        );
        assert_eq!(
            after_read_error(&ReadError::Corrupt("segment".into())),
            Next::Stop
        );
    }
}
