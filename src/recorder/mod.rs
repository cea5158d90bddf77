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
//! - A record that touches the profile (a first assignment, a capped serving) is [`News`] once it is durable, so that the next decision
//!   counts it.
//!
//! A crash loses the records of the last twenty milliseconds or so; their answers were never acknowledged to anybody.

mod batch;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use smallvec::SmallVec;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;

use self::batch::{Batch, Entry, Share, Waiting};
use crate::domain::consent::ConsentStatement;
use crate::domain::event::EventHead;
use crate::domain::ids::{Shop, Timestamp};
use crate::domain::transform::{DecisionRecord, DecisionSubject};
use crate::ingest::News;
use crate::ingest::spread::Landed;
use crate::queue::{AppendError, EventQueue};
use crate::telemetry::{Metrics, Outcome, Record};

/// Records waiting at once: a second of a busy node's experiments, some tens of megabytes at the very most.
const PLACES: usize = 4_096;

/// How long a record waits that touches the profile. Higher: the shopper's next decision may not count it yet. Lower: more
/// appends, each of which costs a flush of the disk.
const LINGER: Duration = Duration::from_millis(5);

/// How often a batch lingers where no record in it touches a profile. More: a crash loses more records. Fewer: as above.
const LINGERS: usize = 4;

/// The pause before a refused append is tried again, and before a stopping worker looks again for permits that are out.
const RETRY_AFTER: Duration = Duration::from_millis(100);
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(1);

/// Higher: a hanging log holds up the stop for as long. Lower: a slow disk gets the same records twice.
const APPEND_BUDGET: Duration = Duration::from_secs(5);

/// How long a stopping worker keeps trying. Higher: a full log holds up the stop. Lower: more records are lost.
const STOP_BUDGET: Duration = Duration::from_secs(2);

/// Gives permits.
#[derive(Debug)]
pub struct Recorder {
    shared: Arc<Shared>,
    losses: Arc<Losses>,
    metrics: Metrics,
}

/// Between those who decide and the worker.
#[derive(Debug)]
struct Shared {
    /// Of the log.
    partitions: u16,
    /// One is taken with a permit, and given back with it or when the worker takes its record.
    places: Semaphore,
    waiting: Mutex<Waiting>,
    /// The first record waits.
    arrived: Notify,
    /// The batch that is next takes no more.
    filled: Notify,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Whole between any two statements but in the middle of a record, and what was torn there was never counted.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
    fn take(&self, now: Timestamp) -> Vec<(Shop, DecisionRecord)> {
        let losses = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let mut by_shop: BTreeMap<Shop, Vec<(Arc<str>, u64)>> = BTreeMap::new();
        for ((shop, experiment), count) in losses {
            by_shop.entry(shop).or_default().push((experiment, count));
        }
        let record = |withheld| DecisionRecord {
            decided_at: now,
            ruleset_version: 0,
            placements: SmallVec::new(),
            assigned: SmallVec::new(),
            exposures: SmallVec::new(),
            capped: SmallVec::new(),
            withheld,
        };
        let records = by_shop.into_iter();
        records.map(|(shop, withheld)| (shop, record(withheld))).collect()
    }
}

/// A place for one record; given back when dropped.
#[derive(Debug)]
pub struct Permit<'a> {
    place: SemaphorePermit<'a>,
    recorder: &'a Recorder,
}

impl Recorder {
    /// A permit, if there is a place free. Never waits.
    pub fn permit(&self) -> Option<Permit<'_>> {
        let place = self.shared.places.try_acquire().ok()?;
        Some(Permit {
            place,
            recorder: self,
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
    /// Hands a record over, as the event to append: its head, and `body`, which appends about `body_bytes`. `touches_profile` says
    /// whether the profile changes with it.
    pub fn record(
        self,
        head: &EventHead<'_>,
        touches_profile: bool,
        body_bytes: usize,
        body: impl FnOnce(&mut Vec<u8>),
    ) {
        let shared = &self.recorder.shared;
        let entry = Entry {
            head,
            touches_profile,
            body_bytes,
            body,
        };
        let mut waiting = shared.waiting();
        let is_first = waiting.first().is_none();
        waiting.push(head.partition(shared.partitions), entry);
        let is_full = waiting.is_full();
        drop(waiting);
        // The worker gives it back.
        self.place.forget();
        if is_first {
            shared.arrived.notify_one();
        }
        if is_full {
            shared.filled.notify_one();
        }
    }

    /// Gives the place back, since this decision is not recorded.
    pub fn skip(self) {
        self.recorder.metrics.decision_record(Record::Unsampled);
    }
}

/// Appends the records.
#[derive(Debug)]
pub struct RecorderWorker {
    shared: Arc<Shared>,
    queue: Arc<dyn EventQueue>,
    news: Arc<News>,
    losses: Arc<Losses>,
    metrics: Metrics,
}

/// A recorder, and its worker to be run.
pub fn recorder(queue: Arc<dyn EventQueue>, news: Arc<News>, metrics: Metrics) -> (Recorder, RecorderWorker) {
    let shared = Arc::new(Shared {
        partitions: queue.partitions(),
        places: Semaphore::new(PLACES),
        waiting: Mutex::new(Waiting::new(queue.append_bytes())),
        arrived: Notify::new(),
        filled: Notify::new(),
    });
    let losses = Arc::new(Losses::default());
    let worker = RecorderWorker {
        shared: Arc::clone(&shared),
        queue,
        news,
        losses: Arc::clone(&losses),
        metrics: metrics.clone(),
    };
    let recorder = Recorder {
        shared,
        losses,
        metrics,
    };
    (recorder, worker)
}

impl RecorderWorker {
    /// Appends records until `stop` is cancelled and those permitted by then are durable or given up.
    pub async fn run(self, stop: CancellationToken) {
        let places = &self.shared.places;
        loop {
            if self.shared.waiting().first().is_some() {
                if !places.is_closed() {
                    self.gather().await;
                }
                if let Some(batch) = self.take() {
                    self.store(batch, &stop).await;
                }
            } else if places.is_closed() {
                if places.available_permits() == PLACES && self.shared.waiting().first().is_none() {
                    return;
                }
                // Somebody is deciding.
                tokio::time::sleep(LOOK_AGAIN_AFTER).await;
            } else {
                tokio::select! {
                    () = self.shared.arrived.notified() => {}
                    () = stop.cancelled() => places.close(),
                }
            }
            if stop.is_cancelled() {
                places.close();
            }
        }
    }

    /// Waits for company.
    async fn gather(&self) {
        for _ in 0..LINGERS {
            if self.shared.waiting().is_full() {
                return;
            }
            let more = tokio::time::sleep(LINGER);
            tokio::pin!(more);
            loop {
                tokio::select! {
                    () = &mut more => break,
                    // It may have been another batch, a while ago.
                    () = self.shared.filled.notified() => if self.shared.waiting().is_full() { return },
                }
            }
            if self.shared.waiting().first().is_none_or(Batch::touches_profile) {
                return;
            }
        }
    }

    /// The next batch, with what is to be told of losses; its places are free again.
    fn take(&self) -> Option<Batch> {
        let mut batch = self.shared.waiting().take()?;
        self.shared.places.add_permits(batch.count());
        let now = crate::clock::now();
        for (shop, record) in self.losses.take(now) {
            let id = uuid::Uuid::now_v7().to_string();
            let (nobody, unstated) = (DecisionSubject::default(), ConsentStatement::default());
            let head = record.head(&id, &shop, nobody, unstated, now);
            let entry = Entry {
                head: &head,
                touches_profile: false,
                body_bytes: 0,
                body: |out: &mut Vec<u8>| record.write_body(None::<&()>, out),
            };
            batch.push(head.partition(self.shared.partitions), entry);
        }
        Some(batch)
    }

    /// Appends until it succeeds, or until it cannot any more.
    async fn store(&self, batch: Batch, stop: &CancellationToken) {
        let mut left = batch.spread;
        let mut given_up_at = None;
        loop {
            let (started, count) = (Instant::now(), left.len());
            let append = tokio::time::timeout(APPEND_BUDGET, left.append(&*self.queue));
            let (landed, error) = append.await.unwrap_or_else(|_| {
                let reason = "no answer in time".into();
                (Vec::new(), Some(AppendError::Unknown { reason }))
            });
            self.metrics
                .append(ended(error.as_ref()), count, started.elapsed());
            landed.into_iter().for_each(|landed| self.stored(landed));
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

    fn stored(&self, landed: Landed<Share>) {
        let Share { records, touching } = landed.share;
        for _ in 0..records.len() {
            self.metrics.decision_record(Record::Recorded);
        }
        for at in touching {
            // It was encoded here: it can be read.
            if let Ok(event) = records.event(at) {
                self.news.add(landed.partition, landed.first + at as u64, event);
            }
        }
        self.shared.waiting().give_back(records);
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
    use crate::profiles::{Overlay, OverlayLimits};
    use crate::queue::{self, QueueConfig};

    /// Some thirty kilobytes of records.
    const MANY: u64 = 300;

    fn record(recorder: &Recorder, touches_profile: bool) {
        let shop = Shop::new("acme", Environment::Live).unwrap();
        let record = DecisionRecord::<Arc<str>> {
            decided_at: Timestamp(0),
            ruleset_version: 1,
            placements: SmallVec::new(),
            assigned: SmallVec::new(),
            exposures: SmallVec::new(),
            capped: SmallVec::new(),
            withheld: Vec::new(),
        };
        let id = uuid::Uuid::now_v7().to_string();
        let (nobody, unstated) = (DecisionSubject::default(), ConsentStatement::default());
        let head = record.head(&id, &shop, nobody, unstated, Timestamp(0));
        let permit = recorder.permit().unwrap();
        permit.record(&head, touches_profile, 0, |out| {
            record.write_body(None::<&()>, out);
        });
    }

    async fn rig(segment_bytes: u64) -> (tempfile::TempDir, Arc<dyn EventQueue>, Recorder, RecorderWorker) {
        let folder = tempfile::tempdir().unwrap();
        let config = QueueConfig {
            url: format!("disk:{}", folder.path().display()),
            partitions: 1,
            limit_bytes: 64 << 20,
            retain: Duration::ZERO,
            retain_bytes: 0,
            segment_bytes,
        };
        let queue = queue::open(&config).await.unwrap();
        let overlay = Arc::new(Overlay::new(OverlayLimits::default()));
        let metrics = Metrics::new().unwrap();
        let news = News::alone(overlay, metrics.clone());
        let (recorder, worker) = recorder(Arc::clone(&queue), news, metrics);
        (folder, queue, recorder, worker)
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_waits_longer_where_no_profile_does() {
        let (_folder, queue, recorder, worker) = rig(1 << 20).await;
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
                    record(&recorder, touches_profile);
                }
            };
            record(&recorder, first);
            let started = tokio::time::Instant::now();
            let gathered = async {
                worker.gather().await;
                started.elapsed()
            };
            let (took, ()) = tokio::join!(gathered, comes);
            let batch = worker.take().unwrap();
            assert_eq!(
                (took, batch.count()),
                (LINGER * u32::try_from(lingers).unwrap(), records)
            );
        }
        // A full one does not wait, and one that fills up waits no longer.
        while !recorder.shared.waiting().is_full() {
            record(&recorder, false);
        }
        let started = tokio::time::Instant::now();
        worker.gather().await;
        assert_eq!(started.elapsed(), Duration::ZERO);
        worker.take().unwrap();
        record(&recorder, false);
        let fills_up = async {
            tokio::time::sleep(LINGER * 2 / 5).await;
            while !recorder.shared.waiting().is_full() {
                record(&recorder, false);
            }
        };
        tokio::join!(worker.gather(), fills_up);
        assert_eq!(started.elapsed(), LINGER * 2 / 5);
        assert_eq!(
            recorder.shared.places.available_permits() + worker.take().unwrap().count(),
            PLACES
        );
        queue.close().await;
    }

    #[tokio::test]
    async fn no_batch_is_larger_than_what_the_log_takes() {
        let (_folder, queue, recorder, worker) = rig(8 * 1024).await;
        for _ in 0..MANY {
            record(&recorder, false);
        }
        let stop = CancellationToken::new();
        stop.cancel();
        worker.run(stop).await;
        assert_eq!(queue.extent(0).await.unwrap().next, MANY);
        queue.close().await;
    }

    #[tokio::test]
    async fn what_was_permitted_before_the_stop_is_appended() {
        let (_folder, queue, recorder, worker) = rig(1 << 20).await;
        let stop = CancellationToken::new();
        record(&recorder, true);
        let (skipped, late) = (recorder.permit().unwrap(), recorder.permit().unwrap());
        let running = tokio::spawn(worker.run(stop.clone()));
        stop.cancel();
        while recorder.permit().is_some() {
            tokio::task::yield_now().await;
        }
        let shop = Shop::new("acme", Environment::Live).unwrap();
        let losses = Losses::default();
        losses.add(&shop, "x");
        let (_, of_losses) = losses.take(Timestamp(0)).remove(0);
        let (nobody, unstated) = (DecisionSubject::default(), ConsentStatement::default());
        let head = of_losses.head("late", &shop, nobody, unstated, Timestamp(0));
        tokio::time::sleep(LINGER).await;
        assert!(!running.is_finished());
        late.record(&head, false, 0, |out| of_losses.write_body(None::<&()>, out));
        skipped.skip();
        running.await.unwrap();
        assert_eq!(queue.extent(0).await.unwrap().next, 2);
        queue.close().await;
    }
}
