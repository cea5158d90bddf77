//! Round trips to the warehouse, shared by requests that miss different profiles.
//!
//! Why: while Redis is away every request asks the warehouse, and most of what a statement costs, on both sides, is paid per
//! statement and not per row.
//!
//! - A question that finds a free lane is asked at once. What comes while all are busy is gathered and goes with
//!   the next round, so the busier the shop the larger the rounds: nobody ever waits for company.
//! - A lane lets what is ready to run come first, before it takes what waits.
//! - A round has its own budget and its own task, so it outlives impatient waiters.
//! - It writes back what was truly missed only. Where the hot store failed, whatever it holds may be newer, and a write
//!   would be one more load on a sick store.
//! - A round that takes longer than [`SLOW`] counts as failures to the warehouse's breaker although it goes on, as many as have
//!   waited in vain by then. Where that opens the breaker, those who wait for a lane are told at once.
//! - Bounded: what waits, what is asked at once, and what is written back. Beyond it a request counts the warehouse as
//!   failed, or one more miss is paid for.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::breaker::{Breaker, Permit};
use super::fetch::Fetcher;
use super::flight::{FlightId, Grounded, HotSaid, Landing};
use super::near::Ticket;
use crate::domain::ids::SubjectId;
use crate::domain::profile::{Snapshot, Version};
use crate::hot::HotProfile;
use crate::telemetry::ReadSource;

/// Higher: a stuck warehouse holds a lane for longer. Lower: a slow query that would have filled the hot store is lost.
const BUDGET: Duration = Duration::from_secs(2);

/// Higher: a stuck warehouse costs more requests their deadline before it is left alone. Lower: a warehouse that is busy, yet
/// answers, is left alone as well.
const SLOW: Duration = Duration::from_millis(500);

/// Rounds under way at once. More: smaller rounds, which cost more. Fewer: one that reads from the disk holds up more of the
/// others.
const LANES: usize = 4;

/// Questions in a round. More: a round of cold pages keeps its askers waiting for longer. Fewer: hardly anything is
/// saved beyond.
const ROUND: usize = 32;

/// Questions that wait for a lane. Many times what the warehouse answers within a deadline.
const MAX_WAITING: usize = 1_024;

/// Write-backs under way at once.
const MAX_WRITE_BACKS: usize = 8;

/// A profile that one flight wants from the warehouse.
#[derive(Debug)]
pub(super) struct Question {
    pub subject: SubjectId,
    pub flight: FlightId,
    /// Leave to keep near that there is none.
    pub ticket: Option<Ticket>,
    /// Only what was truly missed is written back.
    pub hot: HotSaid,
}

impl Question {
    fn ground(&self, fetcher: &Fetcher) {
        self.land(fetcher, Err(Grounded));
    }

    fn land(&self, fetcher: &Fetcher, found: Result<Option<Arc<Snapshot>>, Grounded>) {
        fetcher.flights.land(&self.subject, self.flight, || Landing {
            found: found.clone(),
            source: ReadSource::Warehouse,
            hot_failed: self.hot == HotSaid::Nothing,
        });
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Rounds {
    breaker: Breaker,
    desk: Mutex<Desk>,
    write_backs: AtomicUsize,
}

#[derive(Debug, Default)]
struct Desk {
    waiting: VecDeque<Question>,
    lanes: usize,
}

impl Rounds {
    pub(super) fn new(breaker: Breaker) -> Self {
        Rounds {
            breaker,
            desk: Mutex::default(),
            write_backs: AtomicUsize::new(0),
        }
    }

    /// Takes a question; its flight lands with the answer.
    pub(super) fn ask(fetcher: &Arc<Fetcher>, question: Question) {
        let rounds = &fetcher.rounds;
        if !rounds.breaker.may_admit() {
            return question.ground(fetcher);
        }
        let mut desk = rounds.desk();
        if desk.waiting.len() >= MAX_WAITING {
            drop(desk);
            return question.ground(fetcher);
        }
        desk.waiting.push_back(question);
        if desk.lanes < LANES {
            desk.lanes += 1;
            let lane = Lane {
                fetcher: Arc::clone(fetcher),
                is_open: true,
            };
            drop(desk);
            tokio::spawn(lane.run());
        }
    }

    /// The next round. Where nothing waits the lane is closed at the same stroke, so that whoever comes now opens one.
    fn take(&self) -> Option<Vec<Question>> {
        let mut desk = self.desk();
        if desk.waiting.is_empty() {
            desk.lanes -= 1;
            return None;
        }
        let count = desk.waiting.len().min(ROUND);
        Some(desk.waiting.drain(..count).collect())
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        // Whole between any two statements.
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks one round after the other until nothing waits.
struct Lane {
    fetcher: Arc<Fetcher>,
    is_open: bool,
}

impl Drop for Lane {
    fn drop(&mut self) {
        if self.is_open {
            self.fetcher.rounds.desk().lanes -= 1;
        }
    }
}

impl Lane {
    async fn run(mut self) {
        loop {
            tokio::task::yield_now().await;
            let Some(questions) = self.fetcher.rounds.take() else {
                self.is_open = false;
                return;
            };
            let round = Round {
                fetcher: &self.fetcher,
                questions,
            };
            round.fly().await;
        }
    }
}

/// Questions that are being asked; those that are left when it is dropped, however that comes, are grounded.
struct Round<'a> {
    fetcher: &'a Arc<Fetcher>,
    questions: Vec<Question>,
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        for question in &self.questions {
            question.ground(self.fetcher);
        }
    }
}

impl Round<'_> {
    async fn fly(mut self) {
        let fetcher = self.fetcher;
        self.questions.sort_by(|a, b| a.subject.cmp(&b.subject));
        let mut subjects: Vec<SubjectId> = self.questions.iter().map(|q| q.subject.clone()).collect();
        subjects.dedup();
        // Where there is no leave, it was said when the breaker opened.
        let Some(permit) = fetcher.rounds.breaker.admit() else {
            return;
        };
        let Ok(found) = self.ask(&subjects, permit).await else {
            return;
        };
        let mut found: Vec<(SubjectId, HotProfile)> = found
            .into_iter()
            .map(|(subject, version, bytes)| (subject, HotProfile { version, bytes }))
            .collect();
        found.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let mut write_back = Vec::new();
        for question in self.questions.drain(..) {
            let at = found.binary_search_by(|(subject, _)| subject.cmp(&question.subject));
            let profile = at.ok().and_then(|at| found.get(at)).map(|(_, profile)| profile);
            let is_miss = question.hot == HotSaid::Missed;
            if is_miss && profile.is_none() {
                fetcher.keep(question.ticket, &question.subject, None);
            }
            question.land(fetcher, profile.map(read).transpose());
            if let Some(profile) = profile.filter(|_| is_miss) {
                write_back.push((question.subject, profile.clone()));
            }
        }
        if !write_back.is_empty() {
            WriteBack::start(fetcher, write_back);
        }
    }

    async fn ask(
        &self,
        subjects: &[SubjectId],
        permit: Permit<'_>,
    ) -> Result<Vec<(SubjectId, Version, Bytes)>, Grounded> {
        let mut asked = std::pin::pin!(self.fetcher.warehouse.documents(subjects));
        let answer = match timeout(SLOW, &mut asked).await {
            Ok(answer) => {
                match &answer {
                    Ok(_) => permit.succeeded(),
                    Err(_) => permit.failed_for(self.questions.len()),
                }
                answer
            }
            Err(_) => {
                self.is_slow(permit);
                let Ok(answer) = timeout(BUDGET.saturating_sub(SLOW), asked).await else {
                    tracing::warn!("profiles could not be read from the warehouse in time");
                    return Err(Grounded);
                };
                answer
            }
        };
        answer.map_err(|error| {
            tracing::warn!(error = %error, "profiles could not be read from the warehouse");
            Grounded
        })
    }

    /// Everybody in this round has waited in vain, and so have those who wait for a lane.
    fn is_slow(&self, permit: Permit<'_>) {
        let rounds = &self.fetcher.rounds;
        let waiting = rounds.desk().waiting.len();
        permit.failed_for(self.questions.len().saturating_add(waiting));
        if rounds.breaker.may_admit() {
            return;
        }
        let waiting = std::mem::take(&mut rounds.desk().waiting);
        for question in waiting {
            question.ground(self.fetcher);
        }
    }
}

fn read(found: &HotProfile) -> Result<Arc<Snapshot>, Grounded> {
    let read = Snapshot::read(found.bytes.clone()).map(Arc::new);
    read.map_err(|error| {
        tracing::warn!(error = %error, "a profile in the warehouse cannot be read");
        Grounded
    })
}

/// Profiles on their way back to the hot store. One that is lost costs one more miss.
struct WriteBack(Arc<Fetcher>);

impl Drop for WriteBack {
    fn drop(&mut self) {
        self.0.rounds.write_backs.fetch_sub(1, Ordering::Relaxed);
    }
}

impl WriteBack {
    fn start(fetcher: &Arc<Fetcher>, profiles: Vec<(SubjectId, HotProfile)>) {
        let this = WriteBack(Arc::clone(fetcher));
        if this.0.rounds.write_backs.fetch_add(1, Ordering::Relaxed) >= MAX_WRITE_BACKS {
            return;
        }
        tokio::spawn(async move {
            let _ = timeout(BUDGET, this.0.hot.put_newer(&profiles)).await;
        });
    }
}
