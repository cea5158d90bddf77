//! Single flight: of many requests that miss the same profile, one asks the warehouse.
//!
//! - A flight has its own budget and its own task, so it outlives an impatient waiter and the next request finds
//!   the profile in the hot store.
//! - It writes back on a true miss only. Where the hot store failed, whatever it holds may be newer, and a write
//!   would be one more load on a sick store.
//! - A flight that takes longer than [`SLOW`] counts as a failure to the warehouse's breaker although it goes on: so many
//!   requests have waited in vain by then.
//! - The number of flights is bounded; beyond it a request counts the warehouse as failed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::breaker::{Breaker, Permit};
use crate::domain::ids::SubjectId;
use crate::hot::{HotProfile, HotStore};
use crate::warehouse::Warehouse;

/// Higher: a stuck warehouse holds more tasks. Lower: a slow query that would have filled the hot store is lost.
const BUDGET: Duration = Duration::from_secs(2);

/// Higher: a stuck warehouse costs more requests their deadline before it is left alone. Lower: a warehouse that is busy, yet
/// answers, is left alone as well.
const SLOW: Duration = Duration::from_millis(500);

/// Different profiles asked for at once. Many times what the warehouse's connections serve within a deadline.
const MAX_FLIGHTS: usize = 1_024;

/// Why a flight brought nothing. The cause is logged where it happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the warehouse did not answer")]
pub(super) struct Grounded;

type Landing = Result<Option<HotProfile>, Grounded>;

#[derive(Debug)]
pub(super) struct Flight {
    warehouse: Arc<dyn Warehouse>,
    hot: Arc<dyn HotStore>,
    breaker: Breaker,
    aloft: Mutex<HashMap<SubjectId, watch::Receiver<Option<Landing>>>>,
}

impl Flight {
    pub(super) fn new(warehouse: Arc<dyn Warehouse>, hot: Arc<dyn HotStore>, breaker: Breaker) -> Self {
        Flight {
            warehouse,
            hot,
            breaker,
            aloft: Mutex::default(),
        }
    }

    /// The warehouse's document of `subject`; `None` where it has none.
    pub(super) async fn fetch(self: &Arc<Self>, subject: &SubjectId, write_back: bool) -> Landing {
        let mut landing = self.board(subject, write_back)?;
        let landed = landing.wait_for(Option::is_some).await.map_err(|_| Grounded)?;
        landed.clone().unwrap_or(Err(Grounded))
    }

    /// Joins the flight under way, or starts one.
    fn board(
        self: &Arc<Self>,
        subject: &SubjectId,
        write_back: bool,
    ) -> Result<watch::Receiver<Option<Landing>>, Grounded> {
        let mut aloft = self.aloft.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(landing) = aloft.get(subject) {
            return Ok(landing.clone());
        }
        if aloft.len() >= MAX_FLIGHTS {
            return Err(Grounded);
        }
        let (announce, landing) = watch::channel(None);
        aloft.insert(subject.clone(), landing.clone());
        let seat = Seat {
            flight: Arc::clone(self),
            subject: subject.clone(),
        };
        tokio::spawn(seat.fly(announce, write_back));
        Ok(landing)
    }
}

/// The entry of one flight; gone when the flight ends, however it ends.
struct Seat {
    flight: Arc<Flight>,
    subject: SubjectId,
}

impl Seat {
    async fn fly(self, announce: watch::Sender<Option<Landing>>, write_back: bool) {
        let landing = match self.flight.breaker.admit() {
            Some(permit) => self.ask(permit).await,
            // It was said when the breaker opened.
            None => Err(Grounded),
        };
        announce.send_replace(Some(landing.clone()));
        if let (true, Ok(Some(profile))) = (write_back, landing) {
            let profiles = [(self.subject.clone(), profile)];
            // A lost write-back costs one more miss.
            let _ = timeout(BUDGET, self.flight.hot.put_newer(&profiles)).await;
        }
    }

    async fn ask(&self, permit: Permit<'_>) -> Landing {
        let mut asked = std::pin::pin!(self.flight.warehouse.document(&self.subject));
        let answer = match timeout(SLOW, &mut asked).await {
            Ok(answer) => {
                match &answer {
                    Ok(_) => permit.succeeded(),
                    Err(_) => permit.failed(),
                }
                answer
            }
            Err(_) => {
                permit.failed();
                let Ok(answer) = timeout(BUDGET.saturating_sub(SLOW), asked).await else {
                    tracing::warn!("a profile could not be read from the warehouse in time");
                    return Err(Grounded);
                };
                answer
            }
        };
        match answer {
            Ok(found) => Ok(found.map(|(version, bytes)| HotProfile { version, bytes })),
            Err(error) => {
                tracing::warn!(error = %error, "a profile could not be read from the warehouse");
                Err(Grounded)
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.flight
            .aloft
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.subject);
    }
}
