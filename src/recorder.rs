//! Decision records on their way into the log, off the request's path.
//!
//! - A [`Permit`] is a place in a bounded queue, taken *before* the decision. Where none is free no experiment takes
//!   part, so the loss of records cannot correlate with a variant.
//! - One worker gathers records for [`LINGER`], or [`LINGERS`] times as long where no profile waits for one, and appends them
//!   together. While the log is full it tries again and again; meanwhile the places run out, and permits with them.
//! - On stop no more permits are given, and what was permitted is appended before [`RecorderWorker::run`] returns;
//!   so the worker stops after the listeners and before the log.
//! - A decision without a permit says which experiments could not take part. These losses are counted and follow with a later
//!   record, so that an experiment's results show them.
//! - A record that touches the profile (a first assignment, a capped serving) enters the overlay once it is durable,
//!   so that the next decision on this node counts it.
//!
//! A crash loses the records of the last twenty milliseconds or so; their answers were never acknowledged to anybody.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use smallvec::SmallVec;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::domain::consent::ConsentStatement;
use crate::domain::event::Event;
use crate::domain::ids::{Shop, Timestamp};
use crate::domain::transform::{DecisionRecord, DecisionSubject};
use crate::ingest::spread::{Placed, Spread};
use crate::profiles::Overlay;
use crate::queue::{AppendError, EventQueue};
use crate::telemetry::{Metrics, Outcome, Record};

/// Records waiting at once: a second of a busy node's experiments, some tens of megabytes at the very most.
const PLACES: usize = 4_096;

/// Records appended together at most.
const MAX_BATCH: usize = 512;

/// How long a record waits that touches the profile. Higher: the shopper's next decision may not count it yet. Lower: more
/// appends, each of which costs a flush of the disk.
const LINGER: Duration = Duration::from_millis(5);

/// How often a batch lingers where no record in it touches a profile. More: a crash loses more records. Fewer: as above.
const LINGERS: usize = 4;

/// The pause before a refused append is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Higher: a hanging log holds up the stop for as long. Lower: a slow disk gets the same records twice.
const APPEND_BUDGET: Duration = Duration::from_secs(5);

/// How long a stopping worker keeps trying. Higher: a full log holds up the stop. Lower: more records are lost.
const STOP_BUDGET: Duration = Duration::from_secs(2);

/// A record on its way, as the event to append.
#[derive(Debug)]
pub struct Served {
    pub event: Event,
    /// Whether the profile changes with it.
    pub touches_profile: bool,
}

impl Served {
    /// A record that tells of losses alone.
    fn of_losses(shop: &Shop, withheld: Vec<(Arc<str>, u64)>, now: Timestamp) -> Served {
        let record: DecisionRecord = DecisionRecord {
            decided_at: now,
            ruleset_version: 0,
            placements: SmallVec::new(),
            assigned: SmallVec::new(),
            exposures: SmallVec::new(),
            capped: SmallVec::new(),
            withheld,
        };
        let id = uuid::Uuid::now_v7().to_string().into();
        let (subject, consent) = (DecisionSubject::default(), ConsentStatement::default());
        Served {
            event: record.to_event(id, shop, subject, consent, now, (None::<&()>, 0)),
            touches_profile: false,
        }
    }
}

/// Gives permits.
#[derive(Debug)]
pub struct Recorder {
    places: mpsc::Sender<Served>,
    losses: Arc<Losses>,
    metrics: Metrics,
}

/// Experiments that could not take part, by shop, until a record tells of them.
#[derive(Debug, Default)]
struct Losses(Mutex<BTreeMap<(Shop, Arc<str>), u64>>);

impl Losses {
    fn add(&self, shop: &Shop, experiment: &str) {
        let mut losses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *losses.entry((shop.clone(), experiment.into())).or_default() += 1;
    }

    /// One record per shop that lost any.
    fn take(&self, now: Timestamp) -> Vec<Served> {
        let losses = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let mut by_shop: BTreeMap<Shop, Vec<(Arc<str>, u64)>> = BTreeMap::new();
        for ((shop, experiment), count) in losses {
            by_shop.entry(shop).or_default().push((experiment, count));
        }
        let records = by_shop.into_iter();
        records
            .map(|(shop, withheld)| Served::of_losses(&shop, withheld, now))
            .collect()
    }
}

/// A place for one record; given back when dropped.
#[derive(Debug)]
pub struct Permit<'a> {
    place: mpsc::Permit<'a, Served>,
    metrics: &'a Metrics,
}

impl Recorder {
    /// A permit, if there is a place free. Never waits.
    pub fn permit(&self) -> Option<Permit<'_>> {
        let place = self.places.try_reserve().ok()?;
        Some(Permit {
            place,
            metrics: &self.metrics,
        })
    }

    /// Counts a record that had no place.
    pub fn refuse(&self) {
        self.metrics.decision_record(Record::Refused);
    }

    /// Counts experiments that could not take part in a decision, to be told by a later record.
    pub fn withhold(&self, shop: &Shop, experiments: &[&str]) {
        for experiment in experiments {
            self.losses.add(shop, experiment);
        }
    }
}

impl Permit<'_> {
    /// Hands the record over.
    pub fn record(self, served: Served) {
        self.place.send(served);
    }

    /// Gives the place back, since this decision is not recorded.
    pub fn skip(self) {
        self.metrics.decision_record(Record::Unsampled);
    }
}

/// Appends the records.
#[derive(Debug)]
pub struct RecorderWorker {
    records: mpsc::Receiver<Served>,
    queue: Arc<dyn EventQueue>,
    overlay: Arc<Overlay>,
    losses: Arc<Losses>,
    metrics: Metrics,
}

/// A recorder, and its worker to be run.
pub fn recorder(
    queue: Arc<dyn EventQueue>,
    overlay: Arc<Overlay>,
    metrics: Metrics,
) -> (Recorder, RecorderWorker) {
    let (places, records) = mpsc::channel(PLACES);
    let losses = Arc::new(Losses::default());
    let worker = RecorderWorker {
        records,
        queue,
        overlay,
        losses: Arc::clone(&losses),
        metrics: metrics.clone(),
    };
    let recorder = Recorder {
        places,
        losses,
        metrics,
    };
    (recorder, worker)
}

impl RecorderWorker {
    /// Appends records until `stop` is cancelled and those permitted by then are durable or given up.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(MAX_BATCH);
        let mut stopped_at = None;
        loop {
            tokio::select! {
                count = self.records.recv_many(&mut batch, MAX_BATCH) => if count == 0 { return },
                () = stop.cancelled(), if stopped_at.is_none() => {
                    self.records.close();
                    stopped_at = Some(Instant::now());
                    continue;
                }
            }
            if stopped_at.is_none() {
                self.gather(&mut batch).await;
            }
            let now = crate::clock::now();
            batch.extend(self.losses.take(now));
            let served = batch.drain(..);
            let (events, touching): (Vec<_>, Vec<_>) = served
                .map(|served| (served.event, served.touches_profile))
                .unzip();
            self.store(events, &touching, &stop).await;
        }
    }

    /// Waits for company.
    async fn gather(&mut self, batch: &mut Vec<Served>) {
        let mut seen = 0;
        for _ in 0..LINGERS {
            if batch.len() >= MAX_BATCH {
                return;
            }
            tokio::time::sleep(LINGER).await;
            while batch.len() < MAX_BATCH
                && let Ok(served) = self.records.try_recv()
            {
                batch.push(served);
            }
            let new = batch.get(seen..).unwrap_or_default();
            if new.iter().any(|served| served.touches_profile) {
                return;
            }
            seen = batch.len();
        }
    }

    /// Appends until it succeeds, or until it cannot any more.
    async fn store(&self, events: Vec<Event>, touching: &[bool], stop: &CancellationToken) {
        let mut left = Spread::over(self.queue.partitions(), events);
        let mut given_up_at = None;
        loop {
            let (started, count) = (Instant::now(), left.len());
            let append = tokio::time::timeout(APPEND_BUDGET, left.append(&*self.queue));
            let (placed, error) = append.await.unwrap_or_else(|_| {
                let reason = "no answer in time".into();
                (Vec::new(), Some(AppendError::Unknown { reason }))
            });
            self.metrics
                .append(ended(error.as_ref()), count, started.elapsed());
            self.stored(placed, touching);
            match error {
                None => return,
                // The ids are the decisions' own, so a record appended twice counts once.
                Some(
                    AppendError::Full { .. } | AppendError::Unavailable { .. } | AppendError::Unknown { .. },
                ) => {}
                Some(error) => return self.lost(left.len(), &error),
            }
            if stop.is_cancelled() && given_up_at.get_or_insert_with(Instant::now).elapsed() > STOP_BUDGET {
                return self.lost(left.len(), &"the log took nothing until the stop");
            }
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }

    fn stored(&self, placed: Vec<Placed>, touching: &[bool]) {
        for placed in placed {
            self.metrics.decision_record(Record::Recorded);
            if touching.get(placed.place).is_some_and(|touches| *touches) {
                self.overlay.add(placed.partition, placed.offset, placed.event);
            }
        }
    }

    fn lost(&self, records: usize, reason: &dyn std::fmt::Display) {
        tracing::error!(records, error = %reason, "decision records were lost");
        for _ in 0..records {
            self.metrics.decision_record(Record::Refused);
        }
    }
}

fn ended(error: Option<&AppendError>) -> Outcome {
    match error {
        None => Outcome::Ok,
        Some(AppendError::Full { .. }) => Outcome::Full,
        Some(AppendError::TooLarge { .. }) => Outcome::Rejected,
        Some(AppendError::Closed { .. } | AppendError::Unavailable { .. }) => Outcome::Unavailable,
        Some(AppendError::Unknown { .. }) => Outcome::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::Environment;
    use crate::profiles::OverlayLimits;
    use crate::queue::{self, QueueConfig};

    fn record(touches_profile: bool) -> Served {
        let shop = Shop::new("acme", Environment::Live).unwrap();
        Served {
            touches_profile,
            ..Served::of_losses(&shop, Vec::new(), Timestamp(0))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_waits_longer_where_no_profile_does() {
        let folder = tempfile::tempdir().unwrap();
        let config = QueueConfig {
            url: format!("disk:{}", folder.path().display()),
            partitions: 1,
            limit_bytes: 64 << 20,
            retain: Duration::ZERO,
            retain_bytes: 0,
            segment_bytes: 1 << 20,
        };
        let queue = queue::open(&config).await.unwrap();
        let overlay = Arc::new(Overlay::new(OverlayLimits::default()));
        let (recorder, mut worker) = recorder(Arc::clone(&queue), overlay, Metrics::new().unwrap());
        // What was there, what comes after two and a half lingers, how many lingers the batch takes, and its records.
        for (first, later, lingers, records) in [
            (false, None, LINGERS, 1),
            (true, None, 1, 1),
            (false, Some(true), 3, 2),
            (false, Some(false), LINGERS, 2),
        ] {
            let comes = async {
                tokio::time::sleep(LINGER * 5 / 2).await;
                if let Some(touches_profile) = later {
                    recorder.permit().unwrap().record(record(touches_profile));
                }
            };
            let mut batch = vec![record(first)];
            let started = tokio::time::Instant::now();
            let gathered = async {
                worker.gather(&mut batch).await;
                started.elapsed()
            };
            let (took, ()) = tokio::join!(gathered, comes);
            assert_eq!(
                (took, batch.len()),
                (LINGER * u32::try_from(lingers).unwrap(), records)
            );
        }
        // A full one does not wait.
        let started = tokio::time::Instant::now();
        let mut batch: Vec<_> = (0..MAX_BATCH).map(|_| record(false)).collect();
        worker.gather(&mut batch).await;
        assert_eq!((started.elapsed(), batch.len()), (Duration::ZERO, MAX_BATCH));
        queue.close().await;
    }
}
