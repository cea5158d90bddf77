//! The fast lane: log → transform → warehouse → hot.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::batch::{BatchLimits, Gathered, Pace, gather};
use super::lag::{Behind, Lag};
use super::piece::{Piece, within};
use super::publish::Publisher;
use super::quarantine::{TOO_OLD, UNREADABLE};
use super::retry::{Backoff, Next, after_read_error, after_warehouse_error};
use super::together::{Stretch, Together, transact_one};
use crate::clock;
use crate::domain::ids::Timestamp;
use crate::domain::ruleset::Ruleset;
use crate::domain::transform::Effect;
use crate::hot::HotStore;
use crate::queue::{EventQueue, LogId, Position, ReadError};
use crate::telemetry::{Lane, Metrics, Outcome};
use crate::warehouse::{Applied, StoredPosition, Warehouse, WarehouseError};

/// Hands out the ruleset in force, whose segments the lane materialises.
pub type RulesetSource = Arc<dyn Fn() -> Option<Arc<Ruleset>> + Send + Sync>;

/// Told how far a partition is, each time that everything below `next` is applied and published: `(partition, next)`.
pub type Passed = Arc<dyn Fn(u16, u64) + Send + Sync>;

/// How long one read waits for records before the loop looks up again.
const READ_WAIT: Duration = Duration::from_secs(1);

/// How often a busy lane asks how far the log goes; an idle one does once more at the end. More often: a question to the log for every
/// batch, however small.
const LAG_EVERY: Duration = Duration::from_millis(200);

/// How often the log is trimmed. Trimming deletes whole segments, so more often gains nothing.
const TRIM_EVERY: Duration = Duration::from_secs(10);

/// Why a lane stopped. The log keeps its events; the message names the remedy.
#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    #[error("the fast lane cannot read the log: {0}")]
    Read(#[from] ReadError),
    #[error("the fast lane cannot write the warehouse: {0}")]
    Warehouse(#[from] WarehouseError),
}

/// Folds one partition of the log into the warehouse and publishes what it wrote to the hot store.
#[derive(Clone)]
pub struct FastLane {
    pub queue: Arc<dyn EventQueue>,
    pub warehouse: Arc<dyn Warehouse>,
    pub hot: Arc<dyn HotStore>,
    pub ruleset: RulesetSource,
    pub passed: Passed,
    pub metrics: Metrics,
    /// Shared by the lanes of one process.
    pub lag: Lag,
    pub partition: u16,
    /// Shared by the lanes of one process, too; without it each batch is a transaction of its own.
    pub together: Option<Together>,
    pub limits: BatchLimits,
    /// How long event ids are remembered; older events are refused into quarantine.
    pub dedupe_window: Duration,
}

impl fmt::Debug for FastLane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FastLane")
            .field("partition", &self.partition)
            .finish_non_exhaustive()
    }
}

impl FastLane {
    /// Runs until `stop` is cancelled; the batch under way is finished first.
    ///
    /// # Errors
    /// [`LaneError`] for what time does not heal. Everything else is retried.
    pub async fn run(&self, stop: CancellationToken) -> Result<(), LaneError> {
        self.metrics.lane_running(Lane::Fast, true);
        let ended = self.drive(&stop).await;
        if ended.is_err() {
            self.metrics.lane_running(Lane::Fast, false);
        }
        self.lag.note(self.partition, None, &self.metrics);
        ended
    }

    async fn drive(&self, stop: &CancellationToken) -> Result<(), LaneError> {
        let mut backoff = Backoff::new();
        let mut publisher = Publisher::new(self);
        while !stop.is_cancelled() {
            let Some(position) = self.position(&mut backoff, stop).await? else {
                break;
            };
            self.follow(position, &mut publisher, &mut backoff, stop).await?;
            publisher.doubt();
        }
        Ok(())
    }

    /// Where the warehouse stands: its stored position, else the start of the log. `None` when told to stop.
    async fn position(
        &self,
        backoff: &mut Backoff,
        stop: &CancellationToken,
    ) -> Result<Option<(Position, Option<StoredPosition>)>, LaneError> {
        loop {
            match self.try_position().await {
                Ok(position) => return Ok(Some(position)),
                Err(error) if next_step(&error) == Next::Stop => return Err(error),
                Err(error) => tracing::warn!(error = %error, "the fast lane waits for its stores"),
            }
            if pause(backoff.wait(), stop).await {
                return Ok(None);
            }
        }
    }

    async fn try_position(&self) -> Result<(Position, Option<StoredPosition>), LaneError> {
        let stored = self.warehouse.position(self.partition).await?;
        let position = match stored {
            Some(stored) => Position {
                log_id: LogId(stored.log_id),
                partition: self.partition,
                offset: stored.offset,
            },
            // A new warehouse reads from the very first record; if that was trimmed, the read says so.
            None => {
                let extent = self.queue.extent(self.partition).await?;
                Position {
                    log_id: extent.log_id,
                    partition: self.partition,
                    offset: 0,
                }
            }
        };
        Ok((position, stored))
    }

    /// Applies batch after batch until told to stop, or until the position has to be read again.
    async fn follow(
        &self,
        (mut position, mut stored): (Position, Option<StoredPosition>),
        publisher: &mut Publisher<'_>,
        backoff: &mut Backoff,
        stop: &CancellationToken,
    ) -> Result<(), LaneError> {
        let mut trimmed_at = Instant::now();
        let mut reported_at = None;
        let mut pace = Pace::new(self.limits.max_age);
        loop {
            if publisher.catch_up().await {
                (self.passed)(self.partition, position.offset);
            }
            let limits = BatchLimits {
                // Batches that share transactions find company there.
                max_age: self
                    .together
                    .as_ref()
                    .map_or_else(|| pace.age(), |_| Duration::ZERO),
                ..self.limits
            };
            // Soon after its last batch a lane says that it is idle.
            let longest = reported_at.map_or(READ_WAIT, |_| LAG_EVERY);
            let read = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                read = gather(&*self.queue, position, limits, publisher.wait(longest)) => read,
            };
            let gathered = match read {
                Ok(Some(gathered)) => gathered,
                Ok(None) => {
                    publisher.verify().await;
                    self.report_lag(position, None).await;
                    reported_at = None;
                    self.trim(position, &mut trimmed_at).await;
                    continue;
                }
                Err(error) if after_read_error(&error) == Next::Stop => return Err(error.into()),
                Err(error) => {
                    tracing::warn!(error = %error, "the fast lane could not read the log");
                    pause(backoff.wait(), stop).await;
                    continue;
                }
            };
            let newest = gathered
                .effects
                .last()
                .map(|(_, effect)| effect.event.received_at);
            let started = Instant::now();
            match self
                .store(gathered, position, stored, publisher, backoff, stop)
                .await?
            {
                Some(next) => {
                    pace.note(started.elapsed());
                    backoff.reset();
                    position.offset = next.offset;
                    stored = Some(next);
                }
                None => return Ok(()),
            }
            if reported_at.is_none_or(|at: Instant| at.elapsed() >= LAG_EVERY) {
                self.report_lag(position, newest).await;
                reported_at = Some(Instant::now());
            }
            self.trim(position, &mut trimmed_at).await;
        }
    }

    /// Applies what was gathered, in pieces if one of its records is poison. Returns the new position, or
    /// `None` when the position has to be read again or the lane was told to stop.
    async fn store(
        &self,
        gathered: Gathered,
        from: Position,
        mut expected: Option<StoredPosition>,
        publisher: &mut Publisher<'_>,
        backoff: &mut Backoff,
        stop: &CancellationToken,
    ) -> Result<Option<StoredPosition>, LaneError> {
        let unreadable = gathered.unreadable;
        let mut pieces = vec![Piece {
            effects: gathered.effects,
            next: gathered.next,
        }];
        while let Some(piece) = pieces.pop() {
            let next = StoredPosition {
                log_id: from.log_id.0,
                partition: self.partition,
                offset: piece.next,
            };
            let first = expected.map_or(from.offset, |position| position.offset);
            let stretch = Stretch {
                expected,
                next,
                effects: piece.effects,
                unreadable: within(&unreadable, first, piece.next).to_vec(),
            };
            let (stretch, applied) = self.apply(stretch).await;
            let error = match applied {
                Ok(applied) => {
                    expected = Some(next);
                    let set_aside = applied.quarantined;
                    if publisher.publish(applied).await {
                        (self.passed)(self.partition, next.offset);
                    }
                    if let Some(stretch) = stretch {
                        self.report(&stretch.effects, stretch.unreadable.len(), set_aside);
                    }
                    continue;
                }
                Err(error) => error,
            };
            let piece = Piece {
                effects: stretch.map_or_else(Vec::new, |stretch| stretch.effects),
                next: piece.next,
            };
            let next_step = after_warehouse_error(&error);
            if next_step != Next::Stop {
                self.metrics.lane_retry(Lane::Fast, outcome_of(&error));
            }
            match next_step {
                Next::Stop => return Err(error.into()),
                Next::Bisect if piece.is_hopeless() => return Err(error.into()),
                Next::Bisect => pieces.extend(piece.split(&error)),
                Next::Reread => {
                    tracing::warn!(error = %error, "the fast lane reads its position again");
                    pause(backoff.wait(), stop).await;
                    return Ok(None);
                }
                Next::Retry => {
                    tracing::warn!(error = %error, "the fast lane waits for the warehouse");
                    pieces.push(piece);
                    if pause(backoff.wait(), stop).await {
                        return Ok(None);
                    }
                }
            }
        }
        Ok(expected)
    }

    async fn apply(&self, stretch: Stretch) -> (Option<Stretch>, Result<Applied, WarehouseError>) {
        match &self.together {
            Some(together) => together.apply(stretch).await,
            None => {
                let applied = transact_one(self, &stretch).await;
                (Some(stretch), applied)
            }
        }
    }

    async fn report_lag(&self, position: Position, newest: Option<Timestamp>) {
        let Ok(extent) = self.queue.extent(self.partition).await else {
            return;
        };
        let records = extent.next.saturating_sub(position.offset);
        let behind = Behind {
            records,
            // What is behind came after `newest`, so its age is a bound.
            age: newest.filter(|_| records > 0).map_or(Duration::ZERO, since),
            log_bytes: extent.size_bytes,
        };
        self.lag.note(self.partition, Some(behind), &self.metrics);
    }

    /// Reports how fresh the oldest event of a stored piece is, and what of it was quarantined: `set_aside` in all.
    fn report(&self, effects: &[(u64, Effect)], unreadable: usize, set_aside: u64) {
        if let Some((_, oldest)) = effects.first() {
            self.metrics
                .freshness(Lane::Fast, since(oldest.event.received_at));
        }
        let mut known = 0;
        let codes = effects
            .iter()
            .filter_map(|(_, effect)| Some(&*effect.quarantine.as_ref()?.0));
        for code in codes.chain(std::iter::repeat_n(UNREADABLE, unreadable)) {
            self.metrics.quarantined(code);
            known += 1;
        }
        // The one reason that the warehouse alone finds.
        for _ in known..set_aside {
            self.metrics.quarantined(TOO_OLD);
        }
    }

    async fn trim(&self, position: Position, trimmed_at: &mut Instant) {
        if trimmed_at.elapsed() < TRIM_EVERY {
            return;
        }
        *trimmed_at = Instant::now();
        if let Err(error) = self.queue.trim(position).await {
            tracing::warn!(error = %error, "the log could not be trimmed");
        }
    }
}

/// The time since `then`; zero where the clock was set back.
fn since(then: Timestamp) -> Duration {
    Duration::from_millis(u64::try_from(clock::now().0.saturating_sub(then.0)).unwrap_or(0))
}

pub(super) fn outcome_of(error: &WarehouseError) -> Outcome {
    match error {
        WarehouseError::PositionMoved { .. } => Outcome::Moved,
        WarehouseError::Unknown(_) => Outcome::Unknown,
        WarehouseError::Unavailable(_) => Outcome::Unavailable,
        WarehouseError::Rejected(_) => Outcome::Rejected,
        WarehouseError::Inconsistent(_) => Outcome::Failed,
    }
}

fn next_step(error: &LaneError) -> Next {
    match error {
        LaneError::Read(error) => after_read_error(error),
        LaneError::Warehouse(error) => after_warehouse_error(error),
    }
}

/// Sleeps; true when told to stop meanwhile.
async fn pause(wait: Duration, stop: &CancellationToken) -> bool {
    tokio::select! {
        () = stop.cancelled() => true,
        () = tokio::time::sleep(wait) => false,
    }
}
