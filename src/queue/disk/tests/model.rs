//! Random histories against a model: a list of acknowledged records, and the appends whose outcome is open.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::{config, event, limits, position, read_all, rounds};
use crate::domain::event::Event;
use crate::queue::sim::SimDisk;
use crate::queue::{AppendError, EventQueue, LogId, Position, ReadError, ReadLimits};

#[derive(Debug, Clone)]
enum Step {
    Append {
        sizes: Vec<usize>,
    },
    AppendAtOnce {
        producers: Vec<Vec<usize>>,
    },
    AppendAndWalkAway {
        size: usize,
    },
    Read {
        back: u64,
        max_records: usize,
        max_bytes: usize,
    },
    Trim {
        back: u64,
    },
    Reopen,
    PowerCut,
    PowerCutDuring {
        operations: u64,
        appends: Vec<usize>,
    },
    FailSync {
        sizes: Vec<usize>,
    },
    FailWrite {
        sizes: Vec<usize>,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let sizes = || proptest::collection::vec(0..1500usize, 1..5);
    prop_oneof![
        6 => sizes().prop_map(|sizes| Step::Append { sizes }),
        3 => proptest::collection::vec(sizes(), 2..6).prop_map(|producers| Step::AppendAtOnce { producers }),
        1 => (0..1000usize).prop_map(|size| Step::AppendAndWalkAway { size }),
        4 => (0..60u64, 1..40usize, 1..20_000usize)
            .prop_map(|(back, max_records, max_bytes)| Step::Read { back, max_records, max_bytes }),
        2 => (0..60u64).prop_map(|back| Step::Trim { back }),
        1 => Just(Step::Reopen),
        1 => Just(Step::PowerCut),
        2 => (0..12u64, proptest::collection::vec(0..3000usize, 1..6))
            .prop_map(|(operations, appends)| Step::PowerCutDuring { operations, appends }),
        1 => sizes().prop_map(|sizes| Step::FailSync { sizes }),
        1 => sizes().prop_map(|sizes| Step::FailWrite { sizes }),
    ]
}

struct Model {
    disk: SimDisk,
    log: Arc<dyn EventQueue>,
    log_id: LogId,
    /// By offset, also those trimmed since.
    acknowledged: Vec<Event>,
    /// Appends that may or may not be in the log.
    open: Vec<Vec<Event>>,
    first: u64,
    ids: u64,
}

impl Model {
    async fn new(seed: u64) -> Self {
        let disk = SimDisk::with_sector_bytes(seed, if seed.is_multiple_of(2) { 512 } else { 4096 });
        let log = disk.open(&config()).await.unwrap();
        let log_id = log.extent(0).await.unwrap().log_id;
        Model {
            disk,
            log,
            log_id,
            acknowledged: Vec::new(),
            open: Vec::new(),
            first: 0,
            ids: 0,
        }
    }

    fn batch(&mut self, sizes: &[usize]) -> Vec<Event> {
        let batch = sizes.iter().map(|size| {
            self.ids += 1;
            event(self.ids, *size)
        });
        batch.collect()
    }

    /// Whether the log went on.
    fn appended(&mut self, batch: Vec<Event>, outcome: Result<u64, AppendError>) -> bool {
        match outcome {
            Ok(first) => {
                assert_eq!(first, self.acknowledged.len() as u64);
                self.acknowledged.extend(batch);
                true
            }
            Err(AppendError::Full {
                size_bytes,
                limit_bytes,
            }) => {
                assert!(size_bytes > limit_bytes / 2);
                true
            }
            Err(AppendError::Unknown { .. }) => {
                self.open.push(batch);
                false
            }
            Err(AppendError::Closed { .. }) => false,
            Err(error @ (AppendError::TooLarge { .. } | AppendError::Unavailable { .. })) => {
                panic!("{error}")
            }
        }
    }

    async fn reopen(&mut self) {
        self.log = self.disk.open(&config()).await.unwrap();
        let extent = self.log.extent(0).await.unwrap();
        assert_eq!(extent.log_id, self.log_id);
        assert!(extent.first >= self.first);
        assert!(
            extent.next >= self.acknowledged.len() as u64,
            "acknowledged records are missing"
        );
        let kept = read_all(&self.log).await;
        let known = self.acknowledged.len() - extent.first as usize;
        assert_eq!(kept[..known], self.acknowledged[extent.first as usize..]);
        let mut rest = &kept[known..];
        // Appends with an open outcome are in the log whole or not at all, each at most once.
        while let Some(start) = rest.first() {
            let at = self
                .open
                .iter()
                .position(|batch| batch.first() == Some(start))
                .expect("a record of nobody");
            let batch = self.open.swap_remove(at);
            assert_eq!(rest[..batch.len()], batch[..]);
            rest = &rest[batch.len()..];
            self.acknowledged.extend(batch);
        }
        self.open.clear();
        self.first = extent.first;
    }

    async fn read(&self, from: u64, limits: ReadLimits) {
        let at = Position {
            log_id: self.log_id,
            partition: 0,
            offset: from,
        };
        let next = self.acknowledged.len() as u64;
        let outcome = self.log.read(at, limits).await;
        if from < self.log.extent(0).await.unwrap().first {
            assert!(matches!(outcome, Err(ReadError::OutOfRange { .. })));
            return;
        }
        let entries = outcome.unwrap();
        assert_eq!(entries.is_empty(), from == next);
        assert!(entries.len() <= limits.max_records);
        let bytes: usize = entries
            .iter()
            .map(|entry| entry.event.as_ref().unwrap().body.len())
            .sum();
        assert!(entries.len() <= 1 || bytes <= limits.max_bytes);
        for (at, entry) in entries.iter().enumerate() {
            assert_eq!(entry.offset, from + at as u64);
            assert_eq!(
                entry.event.as_ref().unwrap(),
                &self.acknowledged[entry.offset as usize]
            );
        }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Append { sizes } => {
                let batch = self.batch(&sizes);
                let outcome = self.log.append(0, &batch).await;
                assert!(self.appended(batch, outcome));
            }
            Step::AppendAtOnce { producers } => {
                let batches: Vec<_> = producers.iter().map(|sizes| self.batch(sizes)).collect();
                let tasks: Vec<_> = batches
                    .iter()
                    .map(|batch| {
                        let (log, batch) = (Arc::clone(&self.log), batch.clone());
                        tokio::spawn(async move { log.append(0, &batch).await })
                    })
                    .collect();
                let mut outcomes = Vec::new();
                for (task, batch) in tasks.into_iter().zip(batches) {
                    outcomes.push((task.await.unwrap(), batch));
                }
                outcomes.sort_by_key(|(outcome, _)| outcome.as_ref().map_or(u64::MAX, |first| *first));
                for (outcome, batch) in outcomes {
                    assert!(self.appended(batch, outcome));
                }
            }
            Step::AppendAndWalkAway { size } => {
                let batch = self.batch(&[size]);
                let log = Arc::clone(&self.log);
                let task = tokio::spawn({
                    let batch = batch.clone();
                    async move { log.append(0, &batch).await }
                });
                tokio::task::yield_now().await;
                task.abort();
                if let Ok(outcome) = task.await {
                    assert!(self.appended(batch, outcome));
                } else {
                    self.open.push(batch);
                    self.log.close().await;
                    self.reopen().await;
                }
            }
            Step::Read {
                back,
                max_records,
                max_bytes,
            } => {
                let from = (self.acknowledged.len() as u64).saturating_sub(back);
                self.read(
                    from,
                    ReadLimits {
                        max_records,
                        max_bytes,
                        wait: Duration::ZERO,
                    },
                )
                .await;
            }
            Step::Trim { back } => {
                let below = (self.acknowledged.len() as u64).saturating_sub(back);
                self.log.trim(position(&self.log, below).await).await.unwrap();
                let extent = self.log.extent(0).await.unwrap();
                assert!(extent.first <= below.max(self.first) && extent.first >= self.first);
                self.first = extent.first;
            }
            Step::Reopen => {
                self.log.close().await;
                assert!(matches!(self.log.extent(0).await, Err(ReadError::Closed)));
                self.reopen().await;
            }
            Step::PowerCut => {
                self.disk.power_cut();
                self.reopen().await;
            }
            Step::PowerCutDuring { operations, appends } => {
                let lives = self.disk.power_cuts();
                self.disk.power_cut_after(operations);
                for size in appends {
                    let batch = self.batch(&[size]);
                    let outcome = self.log.append(0, &batch).await;
                    if !self.appended(batch, outcome) {
                        break;
                    }
                }
                if self.disk.power_cuts() == lives {
                    self.disk.power_cut();
                }
                self.reopen().await;
            }
            Step::FailSync { sizes } => self.fail(&sizes, SimDisk::fail_syncs).await,
            Step::FailWrite { sizes } => self.fail(&sizes, SimDisk::fail_writes).await,
        }
        self.read(self.first, limits(7)).await;
    }

    /// The fault may hit the writer or the preparer.
    async fn fail(&mut self, sizes: &[usize], inject: fn(&SimDisk, u32)) {
        inject(&self.disk, 1);
        let batch = self.batch(sizes);
        let outcome = self.log.append(0, &batch).await;
        let _ = self.appended(batch, outcome);
        inject(&self.disk, 0);
        self.log.close().await;
        self.reopen().await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: rounds(128), max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_history_agrees_with_the_model(seed in any::<u64>(), steps in proptest::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut model = Model::new(seed).await;
            for step in steps {
                model.step(step).await;
            }
            model.log.close().await;
        });
    }
}
