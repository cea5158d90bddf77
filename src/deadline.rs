//! Deadlines: an absolute instant, handed down by argument.
//!
//! A duration handed down restarts at every layer; an instant cannot. Whoever waits asks for a *slice*: what
//! remains, less a reserve for the work that must still follow (deciding and encoding after a profile read,
//! for instance), so that a slow store costs its own slice and never the answer (invariant 5).

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

/// The instant by which an answer must be on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline {
    at: Instant,
}

/// The deadline, or the slice of it given to one step, passed before the step was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the deadline passed")]
pub struct Elapsed;

impl Deadline {
    /// A deadline `budget` from now. Taken where the request enters, before its body is read.
    pub fn after(budget: Duration) -> Self {
        Self::at(Instant::now(), budget)
    }

    /// A deadline `budget` after `start`; far away where the sum cannot be represented.
    pub fn at(start: Instant, budget: Duration) -> Self {
        /// Longer than any request may last, and far below what an instant can hold.
        const FAR: Duration = Duration::from_secs(86_400);
        Deadline {
            at: start.checked_add(budget).unwrap_or(start + FAR),
        }
    }

    /// The instant itself, for timers.
    pub fn instant(self) -> Instant {
        self.at
    }

    /// What is left; zero once passed.
    pub fn remaining(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    pub fn is_past(self) -> bool {
        self.remaining().is_zero()
    }

    /// The earlier of this deadline and `budget` from now: a request may shorten its budget, never lengthen it.
    #[must_use]
    pub fn shortened(self, budget: Duration) -> Self {
        self.min(Self::after(budget))
    }

    /// A part of what remains: at most `max`, and `reserve` before the deadline at the latest. May be past
    /// already, and then the step is not worth starting.
    #[must_use]
    pub fn slice(self, max: Duration, reserve: Duration) -> Self {
        let latest = self.at.checked_sub(reserve).unwrap_or(self.at);
        Deadline { at: latest }.shortened(max)
    }

    /// Runs `step` until this deadline.
    ///
    /// # Errors
    /// [`Elapsed`] when the deadline passes first; `step` is then dropped where it stands.
    pub async fn bound<F: Future>(self, step: F) -> Result<F::Output, Elapsed> {
        tokio::time::timeout_at(self.at, step).await.map_err(|_| Elapsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_remains_is_never_negative() {
        let past = Deadline::at(Instant::now(), Duration::ZERO);
        assert!(past.is_past());
        assert_eq!(past.remaining(), Duration::ZERO);
        let ahead = Deadline::after(60 * SECOND).remaining();
        assert!(ahead > 50 * SECOND && ahead <= 60 * SECOND);
    }

    #[test]
    fn a_request_may_shorten_its_budget_and_never_lengthen_it() {
        let deadline = Deadline::after(60 * SECOND);
        assert!(deadline.shortened(30 * SECOND) < deadline);
        assert_eq!(deadline.shortened(90 * SECOND), deadline);
        assert_eq!(deadline.shortened(Duration::MAX), deadline);
    }

    #[test]
    fn a_slice_keeps_the_reserve() {
        let deadline = Deadline::after(60 * SECOND);
        assert_eq!(
            deadline.slice(90 * SECOND, 20 * SECOND).instant(),
            deadline.instant() - 20 * SECOND
        );
        assert!(deadline.slice(5 * SECOND, 20 * SECOND).remaining() <= 5 * SECOND);
        assert!(deadline.slice(5 * SECOND, 90 * SECOND).is_past());
    }

    #[tokio::test]
    async fn a_bounded_step_ends_with_the_deadline() {
        assert_eq!(Deadline::after(60 * SECOND).bound(async { 7 }).await, Ok(7));
        let soon = Deadline::after(Duration::from_millis(1));
        assert_eq!(soon.bound(std::future::pending::<()>()).await, Err(Elapsed));
    }
}
