//! The log on Redis Streams: one stream for each partition, shared by all nodes.
//!
//! ```text
//! cartwright:log            hash: the log's id and its number of partitions, made once
//! cartwright:{q<N>}:log     stream: one entry per record, id <offset + 1>-0, fields r (the record), t (when, in ms)
//! cartwright:{q<N>}:head    hash: log, next (offset), first (offset kept), bytes
//! ```
//!
//! - **Durable means what Redis makes of it.** With `appendonly yes` and `appendfsync always` a record is synced before the append
//!   returns, and `kill -9` or a power cut loses none. With `everysec` a crash of the machine loses up to two seconds, without
//!   `appendonly` everything since the last snapshot. **A failover loses what the replica had not received**: replication is
//!   asynchronous. `cartwright check` says how the server is set.
//! - An append is one script, so all of its records are there or none. Offsets are dense, and an entry's id follows from its
//!   offset: a position is a stream id in other words, and Redis itself refuses an id that is not beyond the last.
//! - **A stream that came back empty or older is never taken for a new one.** The script compares the head with the stream, and with
//!   what the writer has seen; a reader compares its position with the head. Each refuses, and names the remedy: `XSETID`, before
//!   the first append.
//! - Whoever waits for records is woken by client tracking: the range that found nothing is reported when it changes. On a
//!   cluster, which reports nothing, it looks every [`POLL`].
//! - An append whose answer is lost may have happened ([`AppendError::Unknown`]); event ids make sending it again harmless.
//! - The partitions are shared out by leases, which are kept beside the streams ([`leases`]).

mod leases;
mod reply;
mod wakers;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use redis::streams::StreamRangeReply;
use redis::{ErrorKind, Pipeline, RedisError, Script};
use tokio::sync::OnceCell;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::leases::RedisLeases;
use self::reply::{Head, REMEDY, check, decode, entry_id, extent, gap, head_key, stream_key};
use self::wakers::Wakers;
use super::{
    AppendError, Entry, EventQueue, Extent, Leases, LogId, OpenError, Position, QueueConfig, ReadError,
    ReadLimits, Records,
};
use crate::config::masked;
use crate::redis_link::{Away, Connection, Link, LinkObserver, Place};

const META: &str = "cartwright:log";

/// How long an open waits for the server. Higher: a node starts later while the server is away. Lower: a log of another
/// number of partitions is found out after the start instead of at it.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// Records in one reply. More: a reader of large records takes more memory. Fewer: more round trips when catching up.
const READ_RECORDS: usize = 256;

/// Records looked at by one call of the trimming script, which keeps everybody waiting meanwhile.
const TRIM_RECORDS: usize = 500;

/// Calls of one trim: enough to keep up with any writer between two trims.
const TRIM_CALLS: usize = 200;

/// The largest record. A request's body is smaller.
const MAX_RECORD_BYTES: usize = 4 << 20;

/// How often a waiting reader looks by itself, where the server reports what changes, and where it does not.
const LOOK: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(20);

#[derive(Debug)]
struct RedisStreams {
    reads: Link,
    writes: Link,
    wakers: Arc<Wakers>,
    look_every: Duration,
    log_id: OnceCell<LogId>,
    append: Script,
    trim: Script,
    partitions: u16,
    limit_bytes: u64,
    retain: Duration,
    retain_bytes: u64,
    /// One past the last offset of each partition that this node saw taken.
    floors: Box<[AtomicU64]>,
    closed: CancellationToken,
}

/// Why Redis did not do as asked.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Away(#[from] Away),
    #[error("{}", .0.category())]
    Redis(#[from] RedisError),
    #[error("{0}")]
    Refused(Arc<str>),
}

impl Trouble {
    /// Whether what was asked for may have been done all the same.
    fn is_unknown(&self) -> bool {
        match self {
            Trouble::Redis(error) => !matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension),
            Trouble::Away(_) | Trouble::Refused(_) => false,
        }
    }
}

impl From<Trouble> for AppendError {
    fn from(trouble: Trouble) -> AppendError {
        let reason = trouble.to_string().into();
        match trouble.is_unknown() {
            true => AppendError::Unknown { reason },
            false => AppendError::Unavailable { reason },
        }
    }
}

impl From<Trouble> for ReadError {
    fn from(trouble: Trouble) -> ReadError {
        ReadError::Io(trouble.to_string().into())
    }
}

/// # Errors
/// [`OpenError::Url`] when the URL cannot be read, [`OpenError::Refused`] when the log there is of another number of
/// partitions. A server that is away is none.
pub(super) async fn open(config: &QueueConfig) -> Result<Arc<dyn EventQueue>, OpenError> {
    let place = Place::parse(&config.url).map_err(|_| OpenError::Url {
        url: masked(&config.url),
        reason: "expected redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE], rediss:// for TLS, or \
                 redis-cluster://HOST:PORT,HOST:PORT",
    })?;
    let partitions = config.partitions.max(1);
    let wakers = Arc::new(Wakers::new(partitions));
    let reports = place.reports_changes();
    let observer = reports.then(|| Arc::clone(&wakers) as Arc<dyn LinkObserver>);
    let streams = RedisStreams {
        reads: Link::keep(place.clone(), observer, "reading the log"),
        writes: Link::keep(place, None, "appending to the log"),
        wakers,
        look_every: if reports { LOOK } else { POLL },
        log_id: OnceCell::new(),
        append: Script::new(include_str!("append.lua")),
        trim: Script::new(include_str!("trim.lua")),
        partitions,
        limit_bytes: config.limit_bytes / u64::from(partitions),
        retain: config.retain,
        retain_bytes: config.retain_bytes / u64::from(partitions),
        floors: (0..partitions).map(|_| AtomicU64::new(0)).collect(),
        closed: CancellationToken::new(),
    };
    let ready = async {
        tokio::join!(streams.reads.wait(), streams.writes.wait());
        streams.log_id().await
    };
    match tokio::time::timeout(FIRST_WAIT, ready).await {
        Ok(Ok(_)) => {}
        Ok(Err(Trouble::Refused(reason))) => {
            return Err(OpenError::Refused {
                url: masked(&config.url),
                reason: reason.to_string(),
            });
        }
        Ok(Err(_)) | Err(_) => {
            tracing::warn!(url = %masked(&config.url), "the log does not answer yet; starting without it");
        }
    }
    Ok(Arc::new(streams))
}

impl RedisStreams {
    /// The log's id, made with its number of partitions by whoever comes first.
    async fn log_id(&self) -> Result<LogId, Trouble> {
        let read = async || {
            let mut connection = self.writes.connection()?;
            let mut pipeline = Pipeline::with_capacity(3);
            pipeline
                .atomic()
                .hset_nx(META, "id", uuid::Uuid::now_v7().to_string())
                .ignore()
                .hset_nx(META, "partitions", self.partitions)
                .ignore();
            pipeline.cmd("HMGET").arg(META).arg("id").arg("partitions");
            let ((id, partitions),): ((String, u16),) = connection.pipeline(&pipeline).await?;
            if partitions != self.partitions {
                return Err(Trouble::Refused(
                    format!(
                        "the log has {partitions} partitions, which can't be changed; set queue.partitions to {partitions}"
                    )
                    .into(),
                ));
            }
            let id = id
                .parse()
                .map_err(|_| Trouble::Refused(format!("{META} holds no log's id").into()))?;
            Ok(LogId(id))
        };
        self.log_id.get_or_try_init(read).await.copied()
    }

    fn floor(&self, partition: u16) -> Option<&AtomicU64> {
        self.floors.get(usize::from(partition))
    }

    async fn run_append(
        &self,
        partition: u16,
        floor: &AtomicU64,
        records: &Records,
    ) -> Result<u64, AppendError> {
        let LogId(log_id) = self.log_id().await?;
        let mut call = self.append.prepare_invoke();
        call.key(stream_key(partition)).key(head_key(partition));
        call.arg(log_id.to_string())
            .arg(self.limit_bytes)
            .arg(floor.load(Ordering::Relaxed));
        for record in records.iter() {
            call.arg(record);
        }
        let mut connection = self.writes.connection().map_err(Trouble::from)?;
        let (outcome, number): (String, u64) = connection.invoke(&call).await.map_err(Trouble::from)?;
        match &*outcome {
            "OK" => {
                floor.fetch_max(number + records.len() as u64, Ordering::Relaxed);
                Ok(number)
            }
            "FULL" => Err(AppendError::Full {
                size_bytes: number,
                limit_bytes: self.limit_bytes,
            }),
            outcome => {
                tracing::error!(
                    partition,
                    next_offset = number,
                    outcome,
                    "the log takes nothing: {REMEDY}"
                );
                Err(AppendError::Unavailable {
                    reason: REMEDY.into(),
                })
            }
        }
    }

    /// The extent, and the records from `from` on, as of one moment.
    async fn fetch(&self, from: Position, count: usize) -> Result<(Extent, StreamRangeReply), ReadError> {
        let log_id = self.log_id().await?;
        let mut connection = self.reads.connection().map_err(Trouble::from)?;
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.atomic();
        pipeline
            .cmd("HMGET")
            .arg(head_key(from.partition))
            .arg(&["log", "first", "next", "bytes"]);
        pipeline
            .cmd("XRANGE")
            .arg(stream_key(from.partition))
            .arg(entry_id(from.offset))
            .arg("+")
            .arg("COUNT")
            .arg(count);
        let (head, entries): (Head, StreamRangeReply) =
            connection.pipeline(&pipeline).await.map_err(Trouble::from)?;
        Ok((extent(log_id, head), entries))
    }
}

#[async_trait]
impl EventQueue for RedisStreams {
    fn partitions(&self) -> u16 {
        self.partitions
    }

    fn leases(self: Arc<Self>) -> Arc<dyn Leases> {
        Arc::new(RedisLeases::new(self))
    }

    async fn append_records(&self, partition: u16, records: &Arc<Records>) -> Result<u64, AppendError> {
        let closed = |reason: &str| AppendError::Closed {
            reason: reason.into(),
        };
        if self.closed.is_cancelled() {
            return Err(closed("it was closed"));
        }
        let floor = self
            .floor(partition)
            .ok_or_else(|| closed("it has no such partition"))?;
        if let Some(large) = records.iter().find(|record| record.len() > MAX_RECORD_BYTES) {
            return Err(AppendError::TooLarge {
                size_bytes: large.len(),
                limit_bytes: MAX_RECORD_BYTES,
            });
        }
        self.run_append(partition, floor, records).await
    }

    async fn read(&self, from: Position, limits: ReadLimits) -> Result<Vec<Entry>, ReadError> {
        let until = Instant::now() + limits.wait;
        let count = limits.max_records.clamp(1, READ_RECORDS);
        loop {
            if self.closed.is_cancelled() {
                return Err(ReadError::Closed);
            }
            // Before the look: what is appended after it wakes.
            let woken = self.wakers.notified(from.partition);
            let (extent, entries) = self.fetch(from, count).await?;
            check(from, extent, true)?;
            if let Some(floor) = self.floor(from.partition) {
                floor.fetch_max(from.offset, Ordering::Relaxed);
            }
            if !entries.ids.is_empty() {
                return decode(from, entries, limits);
            }
            if from.offset < extent.next {
                return Err(gap(from.partition, from.offset));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Vec::new());
            }
            tokio::select! {
                () = woken => {}
                () = tokio::time::sleep(left.min(self.look_every)) => {}
                () = self.closed.cancelled() => {}
            }
        }
    }

    async fn trim(&self, below: Position) -> Result<(), ReadError> {
        check(below, self.extent(below.partition).await?, false)?;
        for _ in 0..TRIM_CALLS {
            let mut call = self.trim.prepare_invoke();
            call.key(stream_key(below.partition))
                .key(head_key(below.partition));
            call.arg(below.offset)
                .arg(u64::try_from(self.retain.as_millis()).unwrap_or(u64::MAX))
                .arg(self.retain_bytes)
                .arg(TRIM_RECORDS);
            let mut connection = self.writes.connection().map_err(Trouble::from)?;
            let gone: usize = connection.invoke(&call).await.map_err(Trouble::from)?;
            if gone < TRIM_RECORDS {
                break;
            }
        }
        Ok(())
    }

    async fn extent(&self, partition: u16) -> Result<Extent, ReadError> {
        if self.closed.is_cancelled() {
            return Err(ReadError::Closed);
        }
        let log_id = self.log_id().await?;
        let mut command = redis::cmd("HMGET");
        command
            .arg(head_key(partition))
            .arg(&["log", "first", "next", "bytes"]);
        let mut connection: Connection = self.writes.connection().map_err(Trouble::from)?;
        let head: Head = connection.query(&command).await.map_err(Trouble::from)?;
        Ok(extent(log_id, head))
    }

    async fn close(&self) {
        self.closed.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_happened_is_unknown_and_what_was_refused_is_not() {
        let refused = RedisError::from((ErrorKind::Server(redis::ServerErrorKind::ReadOnly), "read only"));
        assert!(matches!(
            AppendError::from(Trouble::from(refused)),
            AppendError::Unavailable { .. }
        ));
        assert!(matches!(
            AppendError::from(Trouble::from(Away)),
            AppendError::Unavailable { .. }
        ));
        let cut = RedisError::from(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
        assert!(matches!(
            AppendError::from(Trouble::from(cut)),
            AppendError::Unknown { .. }
        ));
    }
}
