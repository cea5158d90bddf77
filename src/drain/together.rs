//! Batches of several lanes in one transaction.
//!
//! ```text
//! lane ─┐              ┌─ transaction ─┐
//! lane ─┼─▶ waiting ──▶┤               ├─▶ each lane what became of its batch
//! lane ─┘              └─ transaction ─┘
//! ```
//!
//! Much of what a transaction costs is the same whatever its size: a dozen statements, and a sync of the server's disk. A process with
//! many partitions would pay that for each of them, all the time, for a handful of records. So a transaction takes all that waits,
//! as the log's group commit does, and what comes while it is under way waits for the next: the busier the process, the more share. Only
//! where much waits does a second one begin beside it. So no lane waits for company itself.
//!
//! Where the others must not suffer for one, each is applied alone, and says itself what is wrong with it.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::sync::{Mutex, Notify, mpsc, oneshot};

use super::batch::BatchLimits;
use super::fast::{FastLane, outcome_of};
use crate::clock;
use crate::domain::ids::Timestamp;
use crate::domain::transform::Effect;
use crate::telemetry::{self, Lane};
use crate::warehouse::{Applied, Batch, StoredPosition, WarehouseError};

/// Transactions under way at once. More: smaller ones, and more of them that wait for each other. Fewer: the server idles while the lanes
/// compute.
const AT_ONCE: usize = 4;

/// Of the most records of a transaction, the part for which one begins beside another. Smaller: more of what they cost whatever their size.
/// Larger: the server idles.
const ENOUGH: usize = 128;

/// For so long the end of a transaction is waited for; then it is taken for one that waits for somebody's lock. Longer: everybody waits with it.
/// Shorter: on a busy server one begins beside another, and both take longer.
const PATIENCE: Duration = Duration::from_millis(250);

/// A lane's batch, on its way to the warehouse and back.
#[derive(Debug)]
pub(super) struct Stretch {
    pub(super) expected: Option<StoredPosition>,
    pub(super) next: StoredPosition,
    pub(super) effects: Vec<(u64, Effect)>,
    pub(super) unreadable: Vec<(u64, Bytes, String)>,
}

impl Stretch {
    fn records(&self) -> usize {
        self.effects.len() + self.unreadable.len()
    }
}

type Outcome = Result<Applied, WarehouseError>;

#[derive(Debug)]
struct Request {
    stretch: Stretch,
    reply: oneshot::Sender<(Stretch, Outcome)>,
}

/// Where the lanes of a process hand in their batches. A clone shares it; it ends with the last one.
#[derive(Debug, Clone)]
pub struct Together(mpsc::Sender<Request>);

impl Together {
    /// For lanes like `template`.
    pub(super) fn start(template: &FastLane) -> Together {
        let (requests, waiting) = mpsc::channel(usize::from(template.queue.partitions()).max(1));
        let counter = Arc::new(Counter {
            waiting: Mutex::new(waiting),
            under_way: std::sync::Mutex::default(),
            ended: Notify::new(),
        });
        for _ in 0..AT_ONCE {
            let (template, counter) = (template.clone(), Arc::clone(&counter));
            tokio::spawn(async move {
                while let Some((requests, _under_way)) = counter.take(template.limits).await {
                    apply(&template, requests).await;
                }
            });
        }
        Together(requests)
    }

    /// Applies a batch, with others or alone, and gives it back.
    pub(super) async fn apply(&self, stretch: Stretch) -> (Option<Stretch>, Outcome) {
        let (reply, outcome) = oneshot::channel();
        if let Err(mpsc::error::SendError(request)) = self.0.send(Request { stretch, reply }).await {
            let gone = WarehouseError::Unavailable("nothing applies batches any more".into());
            return (Some(request.stretch), Err(gone));
        }
        match outcome.await {
            Ok((stretch, outcome)) => (Some(stretch), outcome),
            Err(_) => {
                let cut = WarehouseError::Unknown("a transaction ended without a word".into());
                (None, Err(cut))
            }
        }
    }
}

/// Where batches wait.
#[derive(Debug)]
struct Counter {
    waiting: Mutex<mpsc::Receiver<Request>>,
    /// When each of the transactions under way began.
    under_way: std::sync::Mutex<Vec<tokio::time::Instant>>,
    ended: Notify,
}

/// A transaction under way, and when it began.
#[derive(Debug)]
struct UnderWay<'c>(&'c Counter, tokio::time::Instant);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut under_way = self.0.under_way();
        if let Some(at) = under_way.iter().position(|began| *began == self.1) {
            under_way.swap_remove(at);
        }
        self.0.ended.notify_one();
    }
}

impl Counter {
    /// What waits, once a transaction is due; `None` when nothing will come any more.
    async fn take(&self, limits: BatchLimits) -> Option<(Vec<Request>, UnderWay<'_>)> {
        let mut waiting = self.waiting.lock().await;
        let first = waiting.recv().await?;
        let came_at = tokio::time::Instant::now();
        let mut records = first.stretch.records();
        let mut taken = vec![first];
        while records < limits.max_records / ENOUGH {
            let youngest = self.under_way().iter().max().copied();
            let due = youngest.map_or(came_at + limits.max_age, |began| began + PATIENCE);
            let next = tokio::select! {
                biased;
                next = waiting.recv() => next,
                () = self.ended.notified() => continue,
                () = tokio::time::sleep_until(due) => break,
            };
            let Some(next) = next else { break };
            records += next.stretch.records();
            taken.push(next);
        }
        // A large one gains nothing from company.
        while records < limits.max_records / 2
            && let Ok(next) = waiting.try_recv()
        {
            records += next.stretch.records();
            taken.push(next);
        }
        let began = tokio::time::Instant::now();
        self.under_way().push(began);
        Some((taken, UnderWay(self, began)))
    }

    fn under_way(&self) -> MutexGuard<'_, Vec<tokio::time::Instant>> {
        // Whole between any two statements.
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn apply(template: &FastLane, requests: Vec<Request>) {
    let (stretches, replies): (Vec<_>, Vec<_>) = requests
        .into_iter()
        .map(|request| (request.stretch, request.reply))
        .unzip();
    let outcomes = transact_each(template, &stretches).await;
    for ((stretch, outcome), reply) in stretches.into_iter().zip(outcomes).zip(replies) {
        // A lane that was dropped reads its position again when it starts anew.
        let _ = reply.send((stretch, outcome));
    }
}

/// Applies batches, in one transaction if nothing is wrong with any; what became of each.
async fn transact_each(lane: &FastLane, stretches: &[Stretch]) -> Vec<Outcome> {
    // A lane that was ended and the one that follows it may both wait: only apart does one see that the other moved the position.
    if stretches.len() > 1 && are_of_different_partitions(stretches) {
        match transact(lane, stretches).await {
            Ok(applied) => return applied.into_iter().map(Ok).collect(),
            // Not for anything in one of them.
            Err(error @ (WarehouseError::Unknown(_) | WarehouseError::Unavailable(_))) => {
                return stretches.iter().map(|_| Err(error.clone())).collect();
            }
            Err(_) => {}
        }
    }
    let mut outcomes = Vec::with_capacity(stretches.len());
    for stretch in stretches {
        outcomes.push(transact_one(lane, stretch).await);
    }
    outcomes
}

fn are_of_different_partitions(stretches: &[Stretch]) -> bool {
    let mut partitions = BTreeSet::new();
    stretches
        .iter()
        .all(|stretch| partitions.insert(stretch.next.partition))
}

/// Applies a batch alone.
pub(super) async fn transact_one(lane: &FastLane, stretch: &Stretch) -> Outcome {
    let applied = transact(lane, std::slice::from_ref(stretch)).await?;
    Ok(applied.into_iter().next().unwrap_or_default())
}

async fn transact(lane: &FastLane, stretches: &[Stretch]) -> Result<Vec<Applied>, WarehouseError> {
    let (ruleset, now) = ((lane.ruleset)(), clock::now());
    let window_ms = i64::try_from(lane.dedupe_window.as_millis()).unwrap_or(i64::MAX);
    let batches: Vec<Batch<'_>> = stretches
        .iter()
        .map(|stretch| Batch {
            expected: stretch.expected,
            next: stretch.next,
            effects: &stretch.effects,
            unreadable: &stretch.unreadable,
            now,
            ruleset: ruleset.as_deref(),
            dedupe_floor: Some(Timestamp(now.0.saturating_sub(window_ms))),
        })
        .collect();
    let records = stretches.iter().map(|stretch| stretch.effects.len()).sum();
    let started = Instant::now();
    // A panic ends the lane whose batch it is, and neither those that share its transaction nor what applies the next ones.
    let applying = AssertUnwindSafe(lane.warehouse.apply_together(&batches)).catch_unwind();
    let applied = applying.await.unwrap_or_else(|_| {
        Err(WarehouseError::Inconsistent(
            "applying a batch panicked; see the message before this one".into(),
        ))
    });
    let outcome = applied
        .as_ref()
        .map_or_else(outcome_of, |_| telemetry::Outcome::Ok);
    lane.metrics
        .lane_batch(Lane::Fast, outcome, records, started.elapsed());
    applied
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use super::super::{BatchLimits, Lag};
    use super::*;
    use crate::hot::{self, HotConfig};
    use crate::queue::{self, QueueConfig};
    use crate::telemetry::Metrics;
    use crate::warehouse::{self, WarehouseConfig};

    async fn lane(folder: &std::path::Path) -> FastLane {
        let url = |scheme: &str, name: &str| format!("{scheme}:{}", folder.join(name).display());
        let queue = QueueConfig {
            url: url("disk", "queue"),
            partitions: 1,
            limit_bytes: 64 << 20,
            retain: Duration::ZERO,
            retain_bytes: 0,
            segment_bytes: 1 << 20,
        };
        let hot = HotConfig {
            url: "memory:".to_owned(),
            memory_bytes: 1 << 20,
            ttl: Duration::from_secs(60),
            reports: false,
        };
        let warehouse = WarehouseConfig {
            url: url("sqlite", "warehouse.db"),
            migrate: true,
        };
        FastLane {
            queue: queue::open(&queue).await.unwrap(),
            warehouse: warehouse::open(&warehouse).await.unwrap(),
            hot: hot::open(&hot).await.unwrap(),
            ruleset: Arc::new(|| None),
            passed: Arc::new(|_, _| {}),
            metrics: Metrics::new().unwrap(),
            lag: Lag::default(),
            partition: 0,
            together: None,
            limits: BatchLimits::default(),
            dedupe_window: Duration::from_secs(86_400),
        }
    }

    fn stretch(partition: u16, offset: u64) -> Stretch {
        Stretch {
            expected: None,
            next: StoredPosition {
                log_id: Uuid::from_u128(1),
                partition,
                offset,
            },
            effects: Vec::new(),
            unreadable: vec![(offset - 1, Bytes::from_static(b"x"), "torn".to_owned())],
        }
    }

    fn counter() -> (mpsc::Sender<Request>, Counter) {
        let (requests, waiting) = mpsc::channel(64);
        let counter = Counter {
            waiting: Mutex::new(waiting),
            under_way: std::sync::Mutex::default(),
            ended: Notify::new(),
        };
        (requests, counter)
    }

    /// A request with so many records.
    fn request(partition: u16, records: usize) -> Request {
        let mut stretch = stretch(partition, 1);
        stretch.unreadable = vec![stretch.unreadable.remove(0); records];
        let (reply, _) = oneshot::channel();
        Request { stretch, reply }
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_while_a_transaction_is_under_way_waits_for_its_end_but_not_for_ever() {
        let (requests, counter) = counter();
        let limits = BatchLimits::default();
        let started = tokio::time::Instant::now();
        for partition in 0..3 {
            requests.send(request(partition, 1)).await.unwrap();
        }
        let (taken, first) = counter.take(limits).await.unwrap();
        assert_eq!((taken.len(), started.elapsed()), (3, limits.max_age));

        // The end of the transaction is what it waits for.
        requests.send(request(0, 1)).await.unwrap();
        let ends = async {
            tokio::time::sleep(limits.max_age * 3).await;
            requests.send(request(1, 1)).await.unwrap();
            drop(first);
        };
        let started = tokio::time::Instant::now();
        let (taken, ()) = tokio::join!(counter.take(limits), ends);
        let (taken, _second) = taken.unwrap();
        assert_eq!((taken.len(), started.elapsed()), (2, limits.max_age * 3));

        // Nor is one that hangs waited for for ever, nor by many records at all.
        requests.send(request(0, 1)).await.unwrap();
        let started = tokio::time::Instant::now();
        let (_, _third) = counter.take(limits).await.unwrap();
        assert_eq!(started.elapsed(), PATIENCE);
        let started = tokio::time::Instant::now();
        requests
            .send(request(1, limits.max_records / ENOUGH))
            .await
            .unwrap();
        let (taken, fourth) = counter.take(limits).await.unwrap();
        assert_eq!((taken.len(), started.elapsed()), (1, Duration::ZERO));

        // And it was waited for enough.
        drop(fourth);
        tokio::time::sleep(PATIENCE).await;
        let started = tokio::time::Instant::now();
        requests.send(request(0, 1)).await.unwrap();
        let (_, _fifth) = counter.take(limits).await.unwrap();
        assert_eq!(started.elapsed(), Duration::ZERO);
        assert_eq!(counter.under_way().len(), 3);
    }

    #[tokio::test]
    async fn of_two_batches_of_one_partition_one_finds_the_position_moved() {
        let folder = tempfile::tempdir().unwrap();
        let lane = lane(folder.path()).await;
        let outcomes = transact_each(&lane, &[stretch(3, 1), stretch(4, 1), stretch(3, 2)]).await;
        let [first, other, second] = <[Outcome; 3]>::try_from(outcomes).unwrap();
        assert_eq!((first.unwrap().quarantined, other.unwrap().quarantined), (1, 1));
        assert!(
            matches!(second, Err(WarehouseError::PositionMoved { .. })),
            "{second:?}"
        );
        let position = lane.warehouse.position(3).await.unwrap();
        assert_eq!(position.map(|position| position.offset), Some(1));
        lane.queue.close().await;
    }
}
