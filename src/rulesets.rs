//! The ruleset in force, refreshed in the background.
//!
//! - [`Rulesets::current`] never waits: the hot path reads a pointer.
//! - A node polls the warehouse every [`REFRESH_EVERY`], so a new version is in force everywhere within two
//!   seconds and without a restart; [`Rulesets::refresh`] makes it immediate on the node that stored it.
//! - The last good ruleset is kept in a file, so a node also starts, ready and answering, while the warehouse
//!   is away.
//! - A stored ruleset that this build cannot parse is logged once and skipped; the one in force stays.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio_util::sync::CancellationToken;

use crate::domain::ruleset::{Ruleset, RulesetErrors};
use crate::warehouse::{StoredRuleset, Warehouse, WarehouseError};

/// Higher: rules reach nodes late. Lower: more queries for nothing.
const REFRESH_EVERY: Duration = Duration::from_secs(1);

/// Why the ruleset in force could not be brought up to date. The one in force stays.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    #[error(transparent)]
    Warehouse(#[from] WarehouseError),
    #[error("ruleset version {version} does not parse: {errors}")]
    Parse { version: u64, errors: RulesetErrors },
}

/// The ruleset in force, and how it is kept current.
#[derive(Debug)]
pub struct Rulesets {
    warehouse: Arc<dyn Warehouse>,
    /// Where the last good ruleset is kept: its version on the first line, then its source.
    file: PathBuf,
    current: ArcSwapOption<Ruleset>,
    /// The newest version looked at, good or bad, so that a bad one is reported once. 0 is none.
    seen: AtomicU64,
}

impl Rulesets {
    /// Starts with the last good ruleset of `file`, if there is one.
    pub fn open(warehouse: Arc<dyn Warehouse>, file: PathBuf) -> Self {
        let kept = read_kept(&file);
        Rulesets {
            warehouse,
            file,
            current: ArcSwapOption::from(kept.map(Arc::new)),
            seen: AtomicU64::new(0),
        }
    }

    /// Puts a ruleset in force that is not from the warehouse, as version 0, until one from there is.
    ///
    /// # Errors
    /// When it does not parse; the ruleset in force stays.
    pub fn fall_back_on(&self, source: &str) -> Result<(), RulesetErrors> {
        let ruleset = Ruleset::parse(source, 0)?;
        self.current.store(Some(Arc::new(ruleset)));
        Ok(())
    }

    /// The ruleset in force; `None` only before the first one was loaded.
    pub fn current(&self) -> Option<Arc<Ruleset>> {
        self.current.load_full()
    }

    /// Whether a ruleset is in force: one half of readiness.
    pub fn is_loaded(&self) -> bool {
        self.current.load().is_some()
    }

    /// Fetches the newest ruleset and puts it in force, if it is new. Returns whether it was.
    ///
    /// # Errors
    /// [`RefreshError`]; the ruleset in force stays.
    pub async fn refresh(&self) -> Result<bool, RefreshError> {
        let seen = self.seen.load(Ordering::Acquire);
        let known = (seen > 0).then_some(seen);
        let Some(StoredRuleset { version, source, .. }) = self.warehouse.newest_ruleset(known).await? else {
            return Ok(false);
        };
        self.seen.store(version, Ordering::Release);
        let ruleset =
            Ruleset::parse(&source, version).map_err(|errors| RefreshError::Parse { version, errors })?;
        self.current.store(Some(Arc::new(ruleset)));
        tracing::info!(version, "ruleset {version} is in force");
        if let Err(error) = keep(&self.file, version, &source) {
            tracing::warn!(error = %error, "the last good ruleset could not be kept on disk");
        }
        Ok(true)
    }

    /// Refreshes until `stop` is cancelled.
    pub async fn run(&self, stop: CancellationToken) {
        let mut was_failing = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(REFRESH_EVERY) => {}
            }
            match self.refresh().await {
                Ok(_) => was_failing = false,
                // An outage is reported when it begins, not every second.
                Err(RefreshError::Warehouse(_)) if was_failing => {}
                Err(error) => {
                    was_failing = true;
                    tracing::warn!(error = %error, "the ruleset could not be refreshed");
                }
            }
        }
    }
}

/// Reads the kept ruleset. A file that is absent, or that another build wrote, is no ruleset.
fn read_kept(file: &PathBuf) -> Option<Ruleset> {
    let text = std::fs::read_to_string(file).ok()?;
    let (version, source) = text.split_once('\n')?;
    let version = version.strip_prefix("# version ")?.parse().ok()?;
    Ruleset::parse(source, version).ok()
}

/// Replaces the kept ruleset in one step, so that a crash leaves the old one or the new one.
fn keep(file: &PathBuf, version: u64, source: &str) -> std::io::Result<()> {
    let staged = file.with_extension("new");
    std::fs::write(&staged, format!("# version {version}\n{source}"))?;
    std::fs::rename(&staged, file)
}
