//! The warehouse: the star schema, the profiles and the rulesets, as one view of the log.
//!
//! - [`Warehouse::apply`] is one transaction: new event ids, facts, parts locked and folded, documents written
//!   with the next version, and the position moved by a compare-and-set on its old value. So the view is never
//!   ahead of or behind the position it stores (invariant 2), and applying a batch twice changes nothing
//!   (invariant 3).
//! - Backends hold SQL and nothing else: who wins, what folds and who belongs to whom is decided in `domain`.

mod batch;
mod fold;
mod postgres;
mod sqlite;
mod turns;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::config::masked;
use crate::domain::experiment::Outcomes;
use crate::domain::ids::{Shop, SubjectId, Timestamp};
use crate::domain::product::CatalogueItem;
use crate::domain::profile::Version;
use crate::domain::recommend::Purchases;
use crate::domain::recommend::sessions::Interaction;
use crate::domain::ruleset::{Goal, Ruleset};
use crate::domain::transform::{Effect, PlacementServed};

/// The view's place in the log: the next offset to read from one partition of one log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredPosition {
    /// The log's id; the warehouse compares it and never interprets it.
    pub log_id: uuid::Uuid,
    pub partition: u16,
    pub offset: u64,
}

/// How far a partition of the log is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub position: StoredPosition,
    /// The greatest change number that the partition has given, see [`Warehouse::changes`]; everything below the position is numbered.
    pub change_seq: u64,
}

/// A stretch of the log, transformed, to be applied in one transaction.
#[derive(Debug)]
pub struct Batch<'a> {
    /// What the position must be for the batch to count; `None` where none is stored yet.
    pub expected: Option<StoredPosition>,
    /// What the position becomes.
    pub next: StoredPosition,
    /// In log order, each with its offset.
    pub effects: &'a [(u64, Effect)],
    /// Records that could not be decoded: offset, bytes, reason.
    pub unreadable: &'a [(u64, Bytes, String)],
    pub now: Timestamp,
    /// Evaluates the segments of the documents written; `None` leaves `customer_segment` alone.
    pub ruleset: Option<&'a Ruleset>,
    /// Events older than this were pruned from `event_seen` and are refused into quarantine; `None` in a rebuild.
    pub dedupe_floor: Option<Timestamp>,
}

/// What one [`Warehouse::apply`] did.
#[derive(Debug, Default)]
pub struct Applied {
    /// The documents that it changed, encoded, for the hot store.
    pub documents: Vec<(SubjectId, Version, Bytes)>,
    /// Events that were new.
    pub new_events: u64,
    /// Events whose id had been seen.
    pub duplicate_events: u64,
    pub quarantined: u64,
    /// The greatest change number that the partition has given.
    pub change_seq: u64,
}

/// A document as a partition's batch wrote it, see [`Warehouse::changes`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub change_seq: u64,
    pub subject: SubjectId,
    pub version: Version,
    pub bytes: Bytes,
}

/// What a partition changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// In the order of their numbers.
    pub documents: Vec<Change>,
    /// The greatest number that the partition has given; 0 before the first.
    pub newest: u64,
}

/// Why the warehouse did not do as asked. `drain::retry` decides what a lane makes of each.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WarehouseError {
    /// Another worker moved the position: discard the batch and read the position again.
    #[error("the position moved: expected {expected:?}, found {found:?}")]
    PositionMoved {
        expected: Option<StoredPosition>,
        found: Option<StoredPosition>,
    },
    /// The commit may or may not have happened: read the position again.
    #[error("the outcome of the commit is unknown: {0}")]
    Unknown(Arc<str>),
    /// Busy, locked, out of connections, disk full: nothing happened; try again.
    #[error("the warehouse is unavailable: {0}")]
    Unavailable(Arc<str>),
    /// One effect cannot be stored, whatever is tried; the lane bisects the batch and quarantines it.
    #[error("the batch cannot be stored: {0}")]
    Rejected(Arc<str>),
    /// Stored data contradict each other or this build.
    #[error("the warehouse is inconsistent: {0}")]
    Inconsistent(Arc<str>),
}

/// A ruleset as stored: its source text under a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRuleset {
    pub version: u64,
    pub source: Arc<str>,
    pub created_at: Timestamp,
}

/// A decision as recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredDecision {
    pub decided_at: Timestamp,
    pub ruleset_version: u64,
    /// By name.
    pub placements: Vec<PlacementServed>,
    /// As [`crate::domain::decision::PastInput`] reads them.
    pub facts: String,
}

/// Which outcomes count.
#[derive(Debug, Clone, Copy)]
pub struct OutcomeQuery<'a> {
    pub shop: &'a Shop,
    pub experiment: &'a str,
    pub goal: &'a Goal,
    /// The currency that revenue counts in.
    pub currency: &'a str,
}

/// The warehouse, as the lanes, the read path and the ruleset refresher see it.
#[async_trait]
pub trait Warehouse: Send + Sync + std::fmt::Debug {
    /// How far each partition is applied, in no order; none before its first batch.
    async fn progress(&self) -> Result<Vec<Progress>, WarehouseError>;

    /// Where the view stands in `partition`; `None` before the first batch.
    async fn position(&self, partition: u16) -> Result<Option<StoredPosition>, WarehouseError> {
        let progress = self.progress().await?;
        let mut positions = progress.into_iter().map(|progress| progress.position);
        Ok(positions.find(|position| position.partition == partition))
    }

    /// Applies a batch, all or nothing.
    async fn apply(&self, batch: &Batch<'_>) -> Result<Applied, WarehouseError> {
        let applied = self.apply_together(std::slice::from_ref(batch)).await?;
        Ok(applied.into_iter().next().unwrap_or_default())
    }

    /// Applies batches of different partitions of one log in one transaction, all or nothing: much of what a transaction costs is the
    /// same whatever it does. Says of each batch what it did, in their order; a document that several changed is among what each did.
    async fn apply_together(&self, batches: &[Batch<'_>]) -> Result<Vec<Applied>, WarehouseError>;

    /// The encoded documents of those of `subjects` that have one, in no order.
    async fn documents(
        &self,
        subjects: &[SubjectId],
    ) -> Result<Vec<(SubjectId, Version, Bytes)>, WarehouseError>;

    /// The encoded document of a subject.
    async fn document(&self, subject: &SubjectId) -> Result<Option<(Version, Bytes)>, WarehouseError> {
        let found = self.documents(std::slice::from_ref(subject)).await?;
        Ok(found
            .into_iter()
            .next()
            .map(|(_, version, bytes)| (version, bytes)))
    }

    /// The epoch of this life of the warehouse, which the versions of its documents carry; `None` where it has not begun.
    async fn epoch(&self) -> Result<Option<u64>, WarehouseError>;

    /// The documents that `partition` was the last to write and numbered beyond `after`, the first `limit` of them. What
    /// another partition has written since is among that one's changes.
    async fn changes(&self, partition: u16, after: u64, limit: u32) -> Result<Changes, WarehouseError>;

    /// Lets go of the events received before an instant, in whole pieces as they are kept, and names these. A warehouse that keeps
    /// them in one piece lets go of none.
    async fn forget_facts(&self, _before: Timestamp) -> Result<Vec<String>, WarehouseError> {
        Ok(Vec::new())
    }

    /// The newest ruleset, unless its version is `known`.
    async fn newest_ruleset(&self, known: Option<u64>) -> Result<Option<StoredRuleset>, WarehouseError>;

    /// Stores a ruleset under the next version; the same source as the newest keeps its version.
    async fn store_ruleset(&self, source: &str, now: Timestamp) -> Result<StoredRuleset, WarehouseError>;

    /// The ruleset of one version; `None` where there never was one.
    async fn ruleset(&self, version: u64) -> Result<Option<StoredRuleset>, WarehouseError>;

    /// The newest rulesets, the newest first.
    async fn rulesets(&self, limit: u32) -> Result<Vec<StoredRuleset>, WarehouseError>;

    /// The ids of the experiences that are paused, in alphabetical order.
    async fn paused(&self) -> Result<Vec<String>, WarehouseError>;

    /// Pauses an experience, or ends its pause; nothing changes where that is so already.
    async fn set_paused(&self, experience: &str, paused: bool, now: Timestamp) -> Result<(), WarehouseError>;

    /// The newest `limit` recorded decisions since an instant: when, and their facts (see [`StoredDecision::facts`]).
    async fn decided_since(
        &self,
        shop: &Shop,
        since: Timestamp,
        limit: u32,
    ) -> Result<Vec<(Timestamp, String)>, WarehouseError>;

    /// A recorded decision.
    async fn decision(
        &self,
        shop: &Shop,
        decision_id: &str,
    ) -> Result<Option<StoredDecision>, WarehouseError>;

    /// What was bought, newest orders first and at most `max_lines` lines: the recommender's and the ranking's
    /// population.
    async fn purchases(&self, shop: &Shop, max_lines: usize) -> Result<Purchases, WarehouseError>;

    /// What sessions touched, from the newest `max_events` events that touch items: the session index's past.
    async fn interactions(&self, shop: &Shop, max_events: usize) -> Result<Vec<Interaction>, WarehouseError>;

    /// What is known of the shop's products, at most `max_items` of them.
    async fn catalogue(&self, shop: &Shop, max_items: usize) -> Result<Vec<CatalogueItem>, WarehouseError>;

    /// What an experiment's variants have achieved.
    async fn outcomes(&self, query: &OutcomeQuery<'_>) -> Result<Outcomes, WarehouseError>;

    /// Remembers the pseudonym key's check value, or compares with the one remembered.
    ///
    /// Returns the value in force; a node whose own differs must not start.
    async fn key_check_value(&self, own: &str) -> Result<String, WarehouseError>;

    /// Finishes what is under way and closes all connections.
    async fn close(&self);
}

/// Settings of the warehouse.
#[derive(Debug, Clone)]
pub struct WarehouseConfig {
    /// `sqlite:PATH` or `postgres://USER@HOST/DATABASE`.
    pub url: String,
    /// Run pending migrations when opening; otherwise an outdated schema is an error.
    pub migrate: bool,
}

/// Why a warehouse could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("warehouse url {url:?}: {reason}")]
    Url { url: String, reason: &'static str },
    #[error("the warehouse at {path:?} has pending migrations; run `cartwright migrate`")]
    Outdated { path: PathBuf },
    #[error(
        "{path:?} is not a warehouse but something else, or damaged; put a backup in its place, or name another file in \
         warehouse.url"
    )]
    Foreign { path: PathBuf },
    #[error("the warehouse could not be opened: {0}")]
    Database(#[source] sqlx::Error),
    #[error("the warehouse's migrations failed: {0}")]
    Migrate(#[source] sqlx::migrate::MigrateError),
}

/// Opens the warehouse that `config.url` names, creating it if it is absent.
///
/// # Errors
/// See [`OpenError`].
pub async fn open(config: &WarehouseConfig) -> Result<Arc<dyn Warehouse>, OpenError> {
    match config.url.split_once(':') {
        Some(("sqlite", path)) if !path.is_empty() => sqlite::open(path, config).await,
        Some(("postgres" | "postgresql", _)) => postgres::open(config).await,
        _ => Err(OpenError::Url {
            url: masked(&config.url),
            reason: "expected sqlite:PATH or postgres://USER@HOST/DATABASE",
        }),
    }
}
