//! What operators ask of a running node: where its lanes are, a ruleset in force, an experience paused.
//!
//! Why a use case of its own: a `disk:` log and its warehouse belong to one process, so `import` and `apply` work
//! through it while it runs.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::domain::ids::{Shop, Timestamp};
use crate::domain::ruleset::{Ruleset, RulesetErrors};
use crate::domain::time::format_rfc3339;
use crate::queue::{EventQueue, ReadError};
use crate::rulesets::{RefreshError, Rulesets};
use crate::warehouse::{StoredRuleset, Warehouse, WarehouseError};

/// Where the log and its views are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub log: LogStatus,
    pub fast_lane: LaneStatus,
    /// The version in force; null before the first.
    pub ruleset_version: Option<u64>,
}

/// Of a log of several partitions, the sums over all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogStatus {
    pub log_id: uuid::Uuid,
    pub partitions: u16,
    pub first_offset: u64,
    /// One past the last durable record.
    pub next_offset: u64,
    pub size_bytes: u64,
}

/// Of several partitions, the sums over all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneStatus {
    /// The next record to be applied.
    pub offset: u64,
    /// Durable records that are not applied.
    pub lag_records: u64,
}

/// A ruleset that was in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulesetEntry {
    pub version: u64,
    /// RFC 3339.
    pub created_at: String,
    pub source: String,
}

impl From<StoredRuleset> for RulesetEntry {
    fn from(stored: StoredRuleset) -> Self {
        RulesetEntry {
            version: stored.version,
            created_at: format_rfc3339(stored.created_at),
            source: stored.source.to_string(),
        }
    }
}

/// Why a question of an operator has no answer.
#[derive(Debug, thiserror::Error)]
pub enum OperationsError {
    #[error("the log: {0}")]
    Log(#[from] ReadError),
    #[error("the warehouse: {0}")]
    Warehouse(#[from] WarehouseError),
    #[error("{0}")]
    Ruleset(RulesetErrors),
    #[error("{0}")]
    Unknown(String),
    #[error("the ruleset is stored and not in force yet: {0}")]
    Refresh(RefreshError),
}

/// See the module.
#[derive(Debug)]
pub struct Operations {
    queue: Arc<dyn EventQueue>,
    warehouse: Arc<dyn Warehouse>,
    rulesets: Arc<Rulesets>,
    shop: Shop,
}

impl Operations {
    /// `shop` is the one that imports belong to.
    pub fn new(
        queue: Arc<dyn EventQueue>,
        warehouse: Arc<dyn Warehouse>,
        rulesets: Arc<Rulesets>,
        shop: Shop,
    ) -> Self {
        Operations {
            queue,
            warehouse,
            rulesets,
            shop,
        }
    }

    pub fn shop(&self) -> &Shop {
        &self.shop
    }

    /// # Errors
    /// When the log or the warehouse does not answer.
    pub async fn status(&self) -> Result<Status, OperationsError> {
        let partitions = self.queue.partitions();
        let mut log = LogStatus {
            log_id: uuid::Uuid::nil(),
            partitions,
            first_offset: 0,
            next_offset: 0,
            size_bytes: 0,
        };
        let mut offset = 0;
        // The positions first: the lag is then never less than it was.
        let progress = self.warehouse.progress().await?;
        for partition in 0..partitions {
            let extent = self.queue.extent(partition).await?;
            let position = progress
                .iter()
                .map(|progress| progress.position)
                .find(|position| position.partition == partition);
            offset += position
                .map_or(extent.first, |position| position.offset)
                .min(extent.next);
            log.log_id = extent.log_id.0;
            log.first_offset += extent.first;
            log.next_offset += extent.next;
            log.size_bytes += extent.size_bytes;
        }
        let lag_records = log.next_offset.saturating_sub(offset);
        Ok(Status {
            log,
            fast_lane: LaneStatus { offset, lag_records },
            ruleset_version: self.rulesets.current().map(|ruleset| ruleset.version()),
        })
    }

    /// Checks a ruleset, stores it and puts it in force on this node. Returns its version.
    ///
    /// # Errors
    /// [`OperationsError::Ruleset`] with everything that is wrong with it; nothing is stored then.
    pub async fn apply(&self, source: &str, now: Timestamp) -> Result<u64, OperationsError> {
        Ruleset::parse(source, 0).map_err(OperationsError::Ruleset)?;
        let stored = self.warehouse.store_ruleset(source, now).await?;
        self.rulesets.refresh().await.map_err(OperationsError::Refresh)?;
        Ok(stored.version)
    }

    /// The newest rulesets, the newest first.
    ///
    /// # Errors
    /// When the warehouse does not answer.
    pub async fn rulesets(&self, limit: u32) -> Result<Vec<RulesetEntry>, OperationsError> {
        let stored = self.warehouse.rulesets(limit).await?;
        Ok(stored.into_iter().map(RulesetEntry::from).collect())
    }

    /// The ruleset of one version.
    ///
    /// # Errors
    /// [`OperationsError::Unknown`] where there never was one.
    pub async fn ruleset(&self, version: u64) -> Result<RulesetEntry, OperationsError> {
        let stored = self.warehouse.ruleset(version).await?;
        stored
            .map(RulesetEntry::from)
            .ok_or_else(|| OperationsError::Unknown(format!("there is no ruleset version {version}")))
    }

    /// Pauses an experience of the ruleset in force, or ends its pause, here at once and on other nodes within two seconds.
    /// Ending a pause also takes ids that the ruleset does not have any more.
    ///
    /// # Errors
    /// [`OperationsError::Unknown`] where there is none to pause, naming those that are called alike.
    pub async fn set_paused(&self, id: &str, paused: bool, now: Timestamp) -> Result<(), OperationsError> {
        if paused && let Some(ruleset) = self.rulesets.current() {
            check_experience(&ruleset, id)?;
        }
        self.warehouse.set_paused(id, paused, now).await?;
        self.rulesets.refresh().await.map_err(OperationsError::Refresh)?;
        Ok(())
    }
}

/// # Errors
/// [`OperationsError::Unknown`] where `ruleset` has no experience of this id.
pub fn check_experience(ruleset: &Ruleset, id: &str) -> Result<(), OperationsError> {
    let ids = || ruleset.experiences().iter().map(|experience| &*experience.id);
    if ids().any(|known| known == id) {
        return Ok(());
    }
    let alike: Vec<&str> = ids()
        .filter(|known| known.contains(id) || id.contains(known))
        .take(5)
        .collect();
    let hint = match alike.as_slice() {
        [] => String::new(),
        alike => format!("; there is {}", alike.join(", ")),
    };
    Err(OperationsError::Unknown(format!(
        "the ruleset in force has no experience `{id}`{hint}"
    )))
}
