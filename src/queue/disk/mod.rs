//! `disk:PATH`: the log on one local disk, in one process, with one partition.
//!
//! Why our own: `docs/adr/0002-own-disk-log.md`.
//!
//! **Durable means**: written to the segment file and synced (`fdatasync`) before `append` returns. A killed process loses
//! nothing that was acknowledged; nor does a power cut, as far as the disk keeps its promise about syncs.
//!
//! Constraints and invariants
//! - One writer thread ([`writer`]); a group is one write and one sync. Readers see a group only after its sync.
//! - Segments are zero-filled, synced and named before they are needed, by another thread ([`preparer`]).
//! - Checksums cover log id, segment number and byte position ([`segment`]), so bytes of another log, of a recycled
//!   block or of another place are never taken for records.
//! - Each group says what was durable before it. That tells a torn end (erased) from corruption (refused):
//!   [`recovery`]. Opening and closing leave such a mark at the end, so that damage to the last group is noticed too.
//! - After a failed write or sync the log is closed for writing until it is opened again; what the failed group held is
//!   [`AppendError::Unknown`]. It stays readable up to what was durable.
//! - Refused before anything is written: appends beyond the size limit, and those that need a segment for which the disk has no
//!   room. Both pass when a view catches up and the log is trimmed, or space is made.
//! - Appends wait in memory up to [`WAITING_BYTES`]; beyond, callers wait.
//! - Size: the limit counts what records take. One segment prepared ahead comes on top, and the unused end of the
//!   last one. Segments grow from 4 MiB to the configured size, so a small log takes little room.
//!
//! Files: `lock`, `log.meta` (the log's id), `000000000000.segment` and so on, `preparing`.
//!
//! What it does not do: replicate, compress, encrypt, share a folder between processes or work on a network file system
//! (locks and syncs promise too little there). An append is one group, hence at most [`QueueConfig::segment_bytes`], 4 MiB or
//! a quarter of the limit, whichever is least, less a header.

mod io;
mod ledger;
mod meta;
mod pages;
mod preparer;
mod reader;
mod recovery;
mod scan;
mod segment;
mod settings;
mod shared;
pub mod sim;
#[cfg(test)]
mod tests;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::SystemTime;

use async_trait::async_trait;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::Instant;

use self::io::{Folder, LocalFolder, Lock};
use self::ledger::Plan;
use self::preparer::Preparer;
use self::recovery::{Recovered, RecoveryError};
use self::settings::Settings;
use self::shared::{Core, Progress};
use self::writer::{Inbox, Pending, Writer};
use super::lease::Whole;
use super::{
    AppendError, Entry, EventQueue, Extent, Leases, OpenError, Position, QueueConfig, ReadError, ReadLimits,
    Records,
};
use crate::domain::event::Event;

/// What to do about a corrupt log; part of each message about one.
const WAY_OUT: &str = "put the log's folder back from a backup; or move it away to start an empty log, \
                       which loses the records that no view has applied yet, and rebuild the views";

/// Bytes of appends that may wait for the writer: a tenth of a second of what a disk takes. Higher takes
/// memory and answers later; lower makes groups too small for a thousand producers.
const WAITING_BYTES: usize = 16 * 1024 * 1024;

/// Waiting bytes are counted in units of this.
const WAITING_UNIT_BYTES: usize = 64;

/// Decoding more records than this (some 0.1 ms) leaves the runtime's threads alone.
const INLINE_RECORDS: usize = 512;

/// Opens the log in the folder `path`.
pub(super) async fn open(path: &str, config: &QueueConfig) -> Result<Arc<dyn EventQueue>, OpenError> {
    let settings = Settings::new(config);
    let owned = path.to_owned();
    let open = move || {
        let folder = LocalFolder::open(Path::new(&owned)).map_err(|source| OpenError::Io {
            path: owned.clone(),
            source,
        })?;
        open_folder(Arc::new(folder), settings)
    };
    open_blocking(path, open).await
}

async fn open_blocking(
    path: &str,
    open: impl FnOnce() -> Result<DiskLog, OpenError> + Send + 'static,
) -> Result<Arc<dyn EventQueue>, OpenError> {
    match tokio::task::spawn_blocking(open).await {
        Ok(log) => Ok(Arc::new(log?)),
        Err(error) => Err(OpenError::Io {
            path: path.to_owned(),
            source: std::io::Error::other(error),
        }),
    }
}

/// Blocking.
fn open_folder(folder: Arc<dyn Folder>, settings: Settings) -> Result<DiskLog, OpenError> {
    let path = folder.path();
    let failed = |source| OpenError::Io {
        path: path.clone(),
        source,
    };
    let Some(lock) = folder.lock().map_err(failed)? else {
        return Err(OpenError::Locked { path });
    };
    let recovered = recovery::recover(&*folder, &settings).map_err(|error| match error {
        RecoveryError::Io(source) => failed(source),
        corrupt @ RecoveryError::Corrupt(_) => OpenError::Corrupt {
            path: path.clone(),
            reason: corrupt.to_string(),
        },
    })?;
    DiskLog::start(folder, settings, lock, recovered).map_err(failed)
}

/// The handle. Dropping it without [`EventQueue::close`] stops its threads, too, without waiting for them.
#[derive(Debug)]
struct DiskLog {
    core: Arc<Core>,
    waiting: Arc<Semaphore>,
    threads: tokio::sync::Mutex<Option<Threads>>,
}

#[derive(Debug)]
struct Threads {
    writer: JoinHandle<()>,
    preparer: JoinHandle<()>,
}

impl DiskLog {
    fn start(
        folder: Arc<dyn Folder>,
        settings: Settings,
        lock: Lock,
        recovered: Recovered,
    ) -> std::io::Result<Self> {
        let Recovered {
            log_id,
            ledger,
            prepared,
            is_marked,
        } = recovered;
        let following = ledger.last().map_or(0, |segment| segment.number + 1);
        let progress = Progress {
            next: ledger.next(),
            closed: false,
        };
        let core = Arc::new(Core {
            folder,
            log_id,
            settings,
            ledger: Mutex::new(ledger),
            progress: watch::Sender::new(progress),
            inbox: Inbox::default(),
            preparer: Preparer::new(following, prepared),
            trimming: Mutex::new(()),
            lock: Mutex::new(Some(lock)),
        });
        let preparing = Arc::clone(&core);
        let preparer = std::thread::Builder::new()
            .name("log-preparer".to_owned())
            .spawn(move || {
                preparing
                    .preparer
                    .run(&*preparing.folder, preparing.log_id, &preparing.settings);
            })?;
        let writer = Writer::new(&core, is_marked)
            .and_then(|writer| {
                std::thread::Builder::new()
                    .name("log-writer".to_owned())
                    .spawn(move || writer.run())
            })
            .inspect_err(|_| core.preparer.stop())?;
        let waiting = Arc::new(Semaphore::new(WAITING_BYTES / WAITING_UNIT_BYTES));
        let threads = tokio::sync::Mutex::new(Some(Threads { writer, preparer }));
        Ok(DiskLog {
            core,
            waiting,
            threads,
        })
    }

    fn refuse_closed(&self) -> Result<(), ReadError> {
        if self.core.progress.borrow().closed {
            Err(ReadError::Closed)
        } else {
            Ok(())
        }
    }
}

#[async_trait]
impl EventQueue for DiskLog {
    fn partitions(&self) -> u16 {
        1
    }

    fn leases(self: Arc<Self>) -> Arc<dyn Leases> {
        Arc::new(Whole)
    }

    fn append_bytes(&self) -> usize {
        self.core.settings.append_bytes()
    }

    async fn append(&self, partition: u16, events: &[Event]) -> Result<u64, AppendError> {
        let mut records = self.core.inbox.spare();
        events.iter().for_each(|event| records.push(event));
        let records = Arc::new(records);
        let appended = self.append_records(partition, &records).await;
        if let Ok(records) = Arc::try_unwrap(records) {
            self.core.inbox.give_back(records);
        }
        appended
    }

    async fn append_records(&self, partition: u16, records: &Arc<Records>) -> Result<u64, AppendError> {
        if partition != 0 {
            return Err(AppendError::Closed {
                reason: "a disk log has partition 0 only".into(),
            });
        }
        if let Some(reason) = self.core.inbox.closed() {
            return Err(AppendError::Closed { reason });
        }
        if records.is_empty() {
            return Ok(lock_of(&self.core.ledger).next());
        }
        let size_bytes = records.bytes().len();
        let limit_bytes = self.append_bytes();
        if size_bytes > limit_bytes {
            return Err(AppendError::TooLarge {
                size_bytes,
                limit_bytes,
            });
        }
        let units = size_bytes.min(WAITING_BYTES).div_ceil(WAITING_UNIT_BYTES) as u32;
        let closed = || AppendError::Closed {
            reason: "the log is closing".into(),
        };
        let room = Arc::clone(&self.waiting)
            .acquire_many_owned(units)
            .await
            .map_err(|_| closed())?;
        let (done, outcome) = oneshot::channel();
        self.core.inbox.push(Pending {
            records: Arc::clone(records),
            done,
            room,
        })?;
        outcome.await.unwrap_or_else(|_| {
            Err(AppendError::Unknown {
                reason: "the writer ended".into(),
            })
        })
    }

    async fn read(&self, from: Position, limits: ReadLimits) -> Result<Vec<Entry>, ReadError> {
        let deadline = Instant::now().checked_add(limits.wait);
        let mut progress = self.core.progress.subscribe();
        loop {
            self.refuse_closed()?;
            let plan = lock_of(&self.core.ledger).plan(from, limits)?;
            match plan {
                Plan::Memory(chunks) => {
                    let records: u64 = chunks.iter().map(|chunk| u64::from(chunk.records)).sum();
                    if records.min(limits.max_records as u64) <= INLINE_RECORDS as u64 {
                        return reader::entries(chunks, from.offset, limits);
                    }
                    let decode = move || reader::entries(chunks, from.offset, limits);
                    return tokio::task::spawn_blocking(decode)
                        .await
                        .map_err(|e| reader::join_failed(&e))?;
                }
                Plan::File(span) => {
                    let log_id = self.core.log_id;
                    let read = move || reader::read_entries(&span, log_id, from.offset, limits);
                    return tokio::task::spawn_blocking(read)
                        .await
                        .map_err(|e| reader::join_failed(&e))?;
                }
                Plan::Wait if limits.wait.is_zero() => return Ok(Vec::new()),
                Plan::Wait => {
                    let changed = progress.changed();
                    let outcome = match deadline {
                        Some(deadline) => tokio::time::timeout_at(deadline, changed).await,
                        None => Ok(changed.await),
                    };
                    if outcome.is_err() {
                        return Ok(Vec::new());
                    }
                }
            }
        }
    }

    async fn trim(&self, below: Position) -> Result<(), ReadError> {
        self.refuse_closed()?;
        let core = Arc::clone(&self.core);
        tokio::task::spawn_blocking(move || core.trim(below))
            .await
            .map_err(|e| reader::join_failed(&e))?
    }

    async fn extent(&self, partition: u16) -> Result<Extent, ReadError> {
        self.refuse_closed()?;
        let ledger = lock_of(&self.core.ledger);
        let extent = ledger.extent();
        ledger.check(Position {
            log_id: self.core.log_id,
            partition,
            offset: extent.first,
        })?;
        Ok(extent)
    }

    async fn close(&self) {
        self.core.inbox.close("the log is closing");
        let mut threads = self.threads.lock().await;
        let Some(Threads { writer, preparer }) = threads.take() else {
            return;
        };
        let core = Arc::clone(&self.core);
        let finish = move || {
            // The writer first: what it still has to write may need a segment.
            let writer = writer.join();
            core.preparer.stop();
            if writer.is_err() | preparer.join().is_err() {
                tracing::error!("a thread of the log panicked");
            }
            core.progress.send_modify(|progress| progress.closed = true);
            lock_of(&core.lock).take();
        };
        if let Err(error) = tokio::task::spawn_blocking(finish).await {
            tracing::error!(error = %error, "the log was not closed cleanly");
        }
    }
}

impl Drop for DiskLog {
    fn drop(&mut self) {
        self.core.inbox.close("the log is closing");
        self.core.preparer.stop();
    }
}

/// What the mutexes guard is whole between any two statements, so a panic elsewhere does not spoil it.
fn lock_of<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
