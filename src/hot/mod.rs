//! Hot profiles: the latest document of each recently active shopper, a blink away from the handlers.
//!
//! A cache and nothing more: every value can be read again from the warehouse, so losing all of them costs
//! latency, never data. A value carries its version, and [`HotStore::put_newer`] never lets an older version of
//! one warehouse epoch overwrite a newer one, however late the writer.

mod memory;
mod redis;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::config::masked;
use crate::domain::ids::SubjectId;
use crate::domain::profile::Version;

/// An encoded [`Document`](crate::domain::profile::Document) with its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HotProfile {
    pub version: Version,
    pub bytes: Bytes,
}

/// Why a hot store did not answer. Always transient for the caller: the warehouse has the value.
#[derive(Debug, Clone, thiserror::Error)]
pub enum HotError {
    #[error("the hot store is unavailable: {0}")]
    Unavailable(Arc<str>),
}

/// Told of changes to the store, whoever makes them, so that a cache in front of it never stays stale.
///
/// Called inline by whatever reads the store's messages: an implementation returns at once and never blocks.
pub trait HotObserver: Send + Sync + std::fmt::Debug {
    /// From now on every change is reported, until [`HotObserver::lost`].
    fn following(&self);

    /// The value of `subject` was written, evicted or expired: what was read of it before may be stale.
    fn changed(&self, subject: &SubjectId);

    /// Changes may go unreported: everything that was read before, and all that is read until
    /// [`HotObserver::following`], may be stale.
    fn lost(&self);
}

/// The hot store, as the read path and the fast lane see it.
#[async_trait]
pub trait HotStore: Send + Sync + std::fmt::Debug {
    /// The stored profile, or `None` when the store does not hold one.
    async fn get(&self, subject: &SubjectId) -> Result<Option<HotProfile>, HotError>;

    /// Stores each profile unless a version of the same epoch at least as new is there. A value of another
    /// epoch is always replaced.
    async fn put_newer(&self, profiles: &[(SubjectId, HotProfile)]) -> Result<(), HotError>;

    /// The greatest `change_seq` of `partition` up to which every change was put here; `None` where none is known,
    /// as in a store that is new or lost its data.
    async fn published(&self, partition: u16) -> Result<Option<u64>, HotError>;

    /// Puts profiles like [`HotStore::put_newer`], then notes that the changes of `partition` up to `change_seq` were put here, and
    /// returns what was noted before. Where a profile cannot be put nothing is noted.
    ///
    /// The caller compares that with what it noted last: an older note, or none, means that the store lost writes.
    async fn publish(
        &self,
        partition: u16,
        profiles: &[(SubjectId, HotProfile)],
        change_seq: u64,
    ) -> Result<Option<u64>, HotError>;

    /// Reports changes to `observer` for the life of the store; those made through it, before the put returns, so
    /// that this process reads what it wrote. Returns whether this store reports any: where it does
    /// not, nothing read from it may be kept.
    fn observe(&self, observer: Arc<dyn HotObserver>) -> bool;
}

/// Settings of the hot store.
#[derive(Debug, Clone)]
pub struct HotConfig {
    /// `memory:`, `redis://…`, `rediss://…` or `redis-cluster://…`.
    pub url: String,
    /// The most bytes (keys and values) that `memory:` keeps; the least recently used go first.
    pub memory_bytes: u64,
    /// How long a Redis keeps a profile that nobody writes.
    pub ttl: Duration,
    /// Whether a Redis is asked to report what changes, which costs it a note of each profile read: for a cache in front of it.
    pub reports: bool,
}

/// Why a hot store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("hot url {url:?}: {reason}")]
    Url { url: String, reason: &'static str },
}

/// Opens the hot store that `config.url` names.
///
/// # Errors
/// [`OpenError::Url`] when the URL cannot be read. A server that is away is none: it is looked for from here on.
pub async fn open(config: &HotConfig) -> Result<Arc<dyn HotStore>, OpenError> {
    match config.url.split_once(':') {
        Some(("memory", "")) => Ok(Arc::new(memory::MemoryStore::new(config.memory_bytes))),
        Some(("redis" | "rediss" | "redis-cluster" | "rediss-cluster", _)) => redis::open(config).await,
        _ => Err(OpenError::Url {
            url: masked(&config.url),
            reason: "expected memory: or redis://HOST:PORT",
        }),
    }
}
