//! The ruleset in force, refreshed in the background.
//!
//! - [`Rulesets::current`] never waits: the hot path reads a pointer.
//! - A node polls the warehouse every [`REFRESH_EVERY`], so a new version is in force everywhere within two
//!   seconds and without a restart; [`Rulesets::refresh`] makes it immediate on the node that stored it.
//! - The last good ruleset is kept in a file, so a node also starts, ready and answering, while the warehouse
//!   is away.
//! - So does an experience that is paused: a second and a cheap question for it. It stays paused under later rulesets, and
//!   in the file.
//! - A stored ruleset that this build cannot parse is logged once and skipped; the one in force stays.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
    /// Where the last good ruleset is kept: its version on the first line, what is paused on the second, then its source.
    file: PathBuf,
    current: ArcSwapOption<Ruleset>,
    /// The paused experiences as they were last seen.
    paused: Mutex<Vec<String>>,
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
            paused: Mutex::default(),
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

    /// Fetches the newest ruleset and what is paused, and puts them in force, if anything is new. Returns whether it was.
    ///
    /// # Errors
    /// [`RefreshError`]; the ruleset in force stays.
    pub async fn refresh(&self) -> Result<bool, RefreshError> {
        let seen = self.seen.load(Ordering::Acquire);
        let known = (seen > 0).then_some(seen);
        let newest = self.warehouse.newest_ruleset(known).await?;
        let paused = self.warehouse.paused().await?;
        match newest {
            Some(StoredRuleset { version, source, .. }) => {
                self.seen.store(version, Ordering::Release);
                let ruleset = Ruleset::parse(&source, version)
                    .map_err(|errors| RefreshError::Parse { version, errors })?;
                self.put_in_force(ruleset, &source, paused);
                tracing::info!(version, "ruleset {version} is in force");
                Ok(true)
            }
            None if *self.last_paused() == paused => Ok(false),
            None => {
                tracing::info!(paused = paused.join(","), "what is paused has changed");
                self.pause(paused).await?;
                Ok(true)
            }
        }
    }

    /// Puts the ruleset in force again with other experiences paused.
    async fn pause(&self, paused: Vec<String>) -> Result<(), RefreshError> {
        let Some(current) = self.current() else {
            return Ok(());
        };
        let version = current.version();
        // What is kept on disk has to say the same, and its source is not kept in memory.
        if let Some(StoredRuleset { source, .. }) = self.warehouse.ruleset(version).await? {
            self.put_in_force(Ruleset::clone(&current), &source, paused);
        }
        Ok(())
    }

    fn put_in_force(&self, ruleset: Ruleset, source: &str, paused: Vec<String>) {
        let version = ruleset.version();
        self.current.store(Some(Arc::new(ruleset.with_paused(&paused))));
        if let Err(error) = keep(&self.file, version, &paused, source) {
            tracing::warn!(error = %error, "the last good ruleset could not be kept on disk");
        }
        *self.last_paused() = paused;
    }

    fn last_paused(&self) -> MutexGuard<'_, Vec<String>> {
        self.paused.lock().unwrap_or_else(PoisonError::into_inner)
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
    let (version, rest) = text.split_once('\n')?;
    let (paused, source) = rest.split_once('\n')?;
    let version = version.strip_prefix("# version ")?.parse().ok()?;
    let paused = paused.strip_prefix("# paused ")?.split(' ').map(str::to_owned);
    let paused: Vec<String> = paused.collect();
    Some(Ruleset::parse(source, version).ok()?.with_paused(&paused))
}

/// Replaces the kept ruleset in one step, so that a crash leaves the old one or the new one.
fn keep(file: &PathBuf, version: u64, paused: &[String], source: &str) -> std::io::Result<()> {
    let staged = file.with_extension("new");
    let paused = paused.join(" ");
    std::fs::write(
        &staged,
        format!("# version {version}\n# paused {paused}\n{source}"),
    )?;
    std::fs::rename(&staged, file)
}
