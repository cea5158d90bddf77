//! Hot profiles: the latest document of each recently active shopper, a blink away from the handlers.
//!
//! A cache and nothing more: every value can be read again from the warehouse, so losing all of them costs
//! latency, never data. A value carries its version, and [`HotStore::put_newer`] never lets an older version of
//! one warehouse epoch overwrite a newer one, however late the writer.

mod memory;

use std::sync::Arc;

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

/// The hot store, as the read path and the fast lane see it.
#[async_trait]
pub trait HotStore: Send + Sync + std::fmt::Debug {
    /// The stored profile, or `None` when the store does not hold one.
    async fn get(&self, subject: &SubjectId) -> Result<Option<HotProfile>, HotError>;

    /// Stores each profile unless a version of the same epoch at least as new is there. A value of another
    /// epoch is always replaced.
    async fn put_newer(&self, profiles: &[(SubjectId, HotProfile)]) -> Result<(), HotError>;
}

/// Settings of the hot store.
#[derive(Debug, Clone)]
pub struct HotConfig {
    /// `memory:`.
    pub url: String,
    /// The most bytes (keys and values) that `memory:` keeps; the least recently used go first.
    pub memory_bytes: u64,
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
/// [`OpenError::Url`] when the scheme is not known.
pub async fn open(config: &HotConfig) -> Result<Arc<dyn HotStore>, OpenError> {
    match config.url.as_str() {
        "memory:" => Ok(Arc::new(memory::MemoryStore::new(config.memory_bytes))),
        _ => Err(OpenError::Url {
            url: masked(&config.url),
            reason: "expected memory:",
        }),
    }
}
