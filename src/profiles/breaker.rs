//! A circuit breaker: a store that keeps failing is left alone for a while.
//!
//! ```text
//! closed ──FAILURES in a row──▶ open ──after a pause──▶ half open ──probe succeeds──▶ closed
//!                                 ▲                         │
//!                                 └──────probe fails────────┘   (the pause doubles, up to LONGEST)
//! ```
//!
//! Why: a request must not spend its slice on a store that is known not to answer, and a store that comes back must
//! not be met by everybody at once. While the breaker is half open one caller asks, and the others do without.
//!
//! On tokio's clock, so that tests with a paused clock see it open and close.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::telemetry::{Metrics, Store};

/// Higher: more requests lose their slice before the store is left alone. Lower: a hiccup counts as an outage.
const FAILURES: u32 = 5;

/// The first pause. Higher: a store that is back is used later. Lower: a sick one is asked more often.
const FIRST: Duration = Duration::from_millis(200);

/// The longest pause, and so how long after its recovery a store may still be left alone.
const LONGEST: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Breaker {
    store: Store,
    metrics: Metrics,
    /// Failures since the last success; [`FAILURES`] or more while it is not closed.
    failures: AtomicU32,
    pause: Mutex<Pause>,
}

#[derive(Debug)]
struct Pause {
    length: Duration,
    until: Instant,
    is_probed: bool,
}

impl Breaker {
    pub(super) fn new(store: Store, metrics: Metrics) -> Self {
        metrics.breaker_open(store, false);
        Breaker {
            store,
            metrics,
            failures: AtomicU32::new(0),
            pause: Mutex::new(Pause {
                length: FIRST,
                until: Instant::now(),
                is_probed: false,
            }),
        }
    }

    /// Leave to ask the store once; `None` while it is to be left alone.
    pub(super) fn admit(&self) -> Option<Permit<'_>> {
        let mut permit = Permit {
            breaker: self,
            is_probe: false,
            is_settled: false,
        };
        if self.failures.load(Ordering::Relaxed) < FAILURES {
            return Some(permit);
        }
        let mut pause = self.pause();
        if pause.is_probed || Instant::now() < pause.until {
            return None;
        }
        pause.is_probed = true;
        permit.is_probe = true;
        Some(permit)
    }

    /// Whether [`Breaker::admit`] would give leave now.
    pub(super) fn may_admit(&self) -> bool {
        if self.failures.load(Ordering::Relaxed) < FAILURES {
            return true;
        }
        let pause = self.pause();
        !pause.is_probed && Instant::now() >= pause.until
    }

    fn pause(&self) -> MutexGuard<'_, Pause> {
        // Whole between any two statements.
        self.pause.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn succeeded(&self) {
        if self.failures.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut pause = self.pause();
        pause.length = FIRST;
        pause.is_probed = false;
        if self.failures.swap(0, Ordering::Relaxed) >= FAILURES {
            self.metrics.breaker_open(self.store, false);
            tracing::info!(store = self.store.as_str(), "the store answers again");
        }
    }

    fn failed(&self, is_probe: bool, count: u32) {
        let more = |failures: u32| Some(failures.saturating_add(count));
        let before = self
            .failures
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        let before = before.unwrap_or_else(|unchanged| unchanged);
        if is_probe {
            let mut pause = self.pause();
            pause.length = (pause.length * 2).min(LONGEST);
            pause.until = Instant::now() + pause.length;
            pause.is_probed = false;
        } else if before < FAILURES && before.saturating_add(count) >= FAILURES {
            let mut pause = self.pause();
            pause.until = Instant::now() + pause.length;
            self.metrics.breaker_open(self.store, true);
            tracing::warn!(
                store = self.store.as_str(),
                "the store does not answer; it is left alone for a while"
            );
        }
    }
}

/// One attempt. Dropped without an outcome (the shopper went away), it says nothing of the store.
#[derive(Debug)]
pub(super) struct Permit<'a> {
    breaker: &'a Breaker,
    is_probe: bool,
    is_settled: bool,
}

impl Permit<'_> {
    pub(super) fn succeeded(mut self) {
        self.is_settled = true;
        self.breaker.succeeded();
    }

    pub(super) fn failed(self) {
        self.failed_for(1);
    }

    /// So many who shared the attempt were failed at once.
    pub(super) fn failed_for(mut self, count: usize) {
        self.is_settled = true;
        let count = u32::try_from(count).unwrap_or(FAILURES);
        self.breaker.failed(self.is_probe, count);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.is_probe && !self.is_settled {
            self.breaker.pause().is_probed = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> Breaker {
        Breaker::new(Store::Hot, Metrics::new().unwrap())
    }

    fn open(breaker: &Breaker) {
        for _ in 0..FAILURES {
            breaker.admit().unwrap().failed();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_open_it_and_one_probe_closes_it() {
        let breaker = breaker();
        for _ in 1..FAILURES {
            breaker.admit().unwrap().failed();
        }
        breaker.admit().unwrap().succeeded();
        for _ in 1..FAILURES {
            breaker.admit().unwrap().failed();
        }
        assert!(breaker.admit().is_some(), "failures apart from each other");
        breaker.admit().unwrap().failed();
        assert!(breaker.admit().is_none());
        tokio::time::advance(FIRST - Duration::from_millis(1)).await;
        assert!(breaker.admit().is_none());
        tokio::time::advance(Duration::from_millis(1)).await;
        let probe = breaker.admit().unwrap();
        assert!(breaker.admit().is_none(), "two probes at once");
        probe.succeeded();
        assert!(breaker.admit().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_fails_doubles_the_pause_up_to_its_bound() {
        let breaker = breaker();
        open(&breaker);
        let mut pauses = Vec::new();
        for _ in 0..5 {
            let mut paused = Duration::ZERO;
            let probe = loop {
                if let Some(probe) = breaker.admit() {
                    break probe;
                }
                tokio::time::advance(Duration::from_millis(100)).await;
                paused += Duration::from_millis(100);
            };
            pauses.push(paused.as_millis());
            probe.failed();
        }
        assert_eq!(pauses, [200, 400, 800, 1_000, 1_000]);
        // Closed and opened again, it begins with the first pause.
        tokio::time::advance(LONGEST).await;
        breaker.admit().unwrap().succeeded();
        open(&breaker);
        tokio::time::advance(FIRST).await;
        assert!(breaker.admit().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_given_up_lets_the_next_one_ask() {
        let breaker = breaker();
        open(&breaker);
        tokio::time::advance(FIRST).await;
        drop(breaker.admit().unwrap());
        assert!(breaker.admit().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn late_failures_of_before_do_not_hold_it_open() {
        let breaker = breaker();
        let late: Vec<_> = (0..3).map(|_| breaker.admit().unwrap()).collect();
        open(&breaker);
        tokio::time::advance(FIRST).await;
        let probe = breaker.admit().unwrap();
        late.into_iter().for_each(Permit::failed);
        probe.succeeded();
        assert!(breaker.admit().is_some());
    }
}
