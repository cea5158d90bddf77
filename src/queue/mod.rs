//! The log: every accepted event, in order, durable before it is acknowledged.
//!
//! **The log is the truth; every store is a view of it.** Writers append; each view reads at its own pace from
//! the position it keeps with its own data. Nothing in here knows who reads, so a view can be rebuilt, fall
//! behind or be added without a change to the log.
//!
//! - [`EventQueue::append`] returns only after the records are durable (invariant 1). What durable means is in
//!   each backend's module documentation.
//! - Offsets are dense within a partition: the first record has offset 0, the next one 1, and so on for the
//!   life of the log. Readers see only durable records, in offset order.
//! - Backends are private modules; [`open`] picks one by the URL's scheme.

mod disk;
#[cfg(fuzzing)]
pub mod fuzzing;
mod lease;
mod record;
mod records;
mod redis_streams;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

#[doc(hidden)]
pub use disk::sim;
pub use lease::{LEASE, Lease, Leases, RENEW_EVERY};
pub use record::RecordError;
pub use records::Records;

use crate::config::masked;
use crate::domain::event::Event;

/// Names one log for its whole life. Made at random when the log is created, so that a position of another
/// log (a restored folder, a mistyped path) is recognised instead of being misread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LogId(pub uuid::Uuid);

/// A place in one partition of one log: the offset of the *next* record to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Position {
    pub log_id: LogId,
    pub partition: u16,
    pub offset: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Position {
            log_id: LogId(log),
            partition,
            offset,
        } = self;
        write!(f, "{offset} of partition {partition} of log {log}")
    }
}

/// The readable extent of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    pub log_id: LogId,
    /// The offset of the oldest record kept.
    pub first: u64,
    /// One past the last durable record.
    pub next: u64,
    /// The bytes that the kept records take in the store.
    pub size_bytes: u64,
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LogId(log) = self.log_id;
        write!(f, "{log} holds offsets {} up to {}", self.first, self.next)
    }
}

/// How much one [`EventQueue::read`] may return, and how long it may wait for the first record.
#[derive(Debug, Clone, Copy)]
pub struct ReadLimits {
    pub max_records: usize,
    /// Encoded bytes; at least one record is returned even if it alone is larger.
    pub max_bytes: usize,
    /// How long to wait when there is nothing to read. Zero returns at once.
    pub wait: Duration,
}

/// A record with its place in the log.
#[derive(Debug, Clone)]
pub struct Entry {
    pub offset: u64,
    /// A record that cannot be decoded is handed out as its bytes and the reason, so that the lane can
    /// quarantine it and go on.
    pub event: Result<Event, (bytes::Bytes, RecordError)>,
}

/// Why an append was refused. Nothing of the call was or will become readable, except after
/// [`AppendError::Unknown`].
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// The size limit is reached, because a view lags or stands still. Transient: the caller answers 503.
    #[error("the log is full: {size_bytes} of {limit_bytes} bytes; a view is behind")]
    Full { size_bytes: u64, limit_bytes: u64 },
    /// One record is larger than the log takes. Permanent for that record.
    #[error("a record of {size_bytes} bytes is over the limit of {limit_bytes}")]
    TooLarge { size_bytes: usize, limit_bytes: usize },
    /// The log is closing or closed for writing, for instance after a failed fsync.
    #[error("the log is closed for writing: {reason}")]
    Closed { reason: Arc<str> },
    /// The store cannot be reached or does not take writes now. Nothing happened; trying again may help.
    #[error("the log is unavailable: {reason}")]
    Unavailable { reason: Arc<str> },
    /// The outcome is not known: the records may or may not become readable.
    #[error("the append's outcome is unknown: {reason}")]
    Unknown { reason: Arc<str> },
}

/// Why a read failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// The position is not one of this log. The lane stops; the message names the remedy.
    #[error("position {position} does not fit the log ({extent}): {remedy}")]
    OutOfRange {
        position: Position,
        extent: Extent,
        remedy: &'static str,
    },
    /// Stored bytes fail their checksum below the durable mark. The message names file and offset.
    #[error("the log is corrupt: {0}")]
    Corrupt(Arc<str>),
    /// The store could not be read now; trying again may help.
    #[error("the log could not be read: {0}")]
    Io(Arc<str>),
    #[error("the log is closed")]
    Closed,
}

/// The log, as writers and lanes see it.
///
/// All methods may be called from many tasks at once, and dropping a future midway is safe: an append whose
/// future was dropped may or may not become durable, and never becomes half readable.
#[async_trait]
pub trait EventQueue: Send + Sync + std::fmt::Debug {
    /// How many partitions the log has; it never changes.
    fn partitions(&self) -> u16;

    /// Who works on which of them.
    fn leases(self: Arc<Self>) -> Arc<dyn Leases>;

    /// Appends `events` to `partition`, all or none, and returns the offset of the first one once all are durable.
    async fn append(&self, partition: u16, events: &[Event]) -> Result<u64, AppendError> {
        let records = Arc::new(events.iter().collect());
        self.append_records(partition, &records).await
    }

    /// The same of records that are encoded already. Nobody else holds on to them once they are durable.
    async fn append_records(&self, partition: u16, records: &Arc<Records>) -> Result<u64, AppendError>;

    /// The most bytes that one append may have.
    fn append_bytes(&self) -> usize {
        usize::MAX
    }

    /// Reads from `from` on; empty when nothing arrived within `limits.wait`.
    async fn read(&self, from: Position, limits: ReadLimits) -> Result<Vec<Entry>, ReadError>;

    /// Lets go of records below `below`, the position of the slowest view, except for what the retention keeps.
    async fn trim(&self, below: Position) -> Result<(), ReadError>;

    /// What is readable now.
    async fn extent(&self, partition: u16) -> Result<Extent, ReadError>;

    /// Refuses new appends, makes the accepted ones durable, and releases the store.
    async fn close(&self);
}

/// Settings of the log.
#[derive(Debug, Clone)]
pub struct QueueConfig {
    /// `disk:PATH`, `redis://…`, `rediss://…` or `redis-cluster://…`.
    pub url: String,
    /// The partitions of a shared log. A `disk:` log has one.
    pub partitions: u16,
    /// Appends beyond this size are refused as [`AppendError::Full`].
    pub limit_bytes: u64,
    /// Trimming keeps records younger than this, up to `retain_bytes`.
    pub retain: Duration,
    pub retain_bytes: u64,
    /// The size of one segment file.
    pub segment_bytes: u64,
}

/// Why a log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("queue url {url:?}: {reason}")]
    Url { url: String, reason: &'static str },
    #[error("the log at {url} does not fit: {reason}")]
    Refused { url: String, reason: String },
    #[error("the log at {path} is in use by another process; stop it, or choose another folder")]
    Locked { path: String },
    #[error("the log at {path} is corrupt: {reason}")]
    Corrupt { path: String, reason: String },
    #[error(
        "the log at {path} could not be opened: {source}; make the folder writable, or choose another one"
    )]
    Io { path: String, source: std::io::Error },
}

/// Opens the log that `config.url` names, creating it if it is absent.
///
/// # Errors
/// See [`OpenError`].
pub async fn open(config: &QueueConfig) -> Result<Arc<dyn EventQueue>, OpenError> {
    match config.url.split_once(':') {
        Some(("disk", path)) if !path.is_empty() => disk::open(path, config).await,
        Some(("redis" | "rediss" | "redis-cluster" | "rediss-cluster", _)) => {
            redis_streams::open(config).await
        }
        _ => Err(OpenError::Url {
            url: masked(&config.url),
            reason: "expected disk:PATH or redis://HOST:PORT",
        }),
    }
}
