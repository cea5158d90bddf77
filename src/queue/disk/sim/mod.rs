//! A simulated disk that holds one log, for tests: of the log itself, and of a whole service under power cuts.
//!
//! It behaves as the worst file system that keeps the promises the log relies on:
//! - A write is visible at once and durable after a sync. In a power cut each sector that was not synced is
//!   independently kept or lost, so groups tear and later sectors survive without earlier ones.
//! - Creating, renaming and removing is durable after the folder's sync; in a power cut some first part of what was not synced
//!   survives. A file that grew without a sync may come back shorter.
//! - A failed sync loses what it should have made durable, while the page cache still shows it, and the next sync
//!   succeeds: the kernel's behaviour that makes retrying worthless.
//! - After a power cut, open files and locks of before are dead: their owner can do no more harm.
//!
//! Not part of the product: nothing outside tests opens one.

mod process;
mod state;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use self::process::SimFolder;
use self::state::State;
use super::settings::Settings;
use super::{lock_of, open_blocking, open_folder};
use crate::queue::{EventQueue, OpenError, QueueConfig};

/// A disk; clones share it.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimDisk")
    }
}

impl SimDisk {
    /// An empty disk without limit, with sectors of 512 bytes. `seed` decides what power cuts spare.
    pub fn new(seed: u64) -> Self {
        SimDisk::with_sector_bytes(seed, 512)
    }

    pub fn with_sector_bytes(seed: u64, sector_bytes: usize) -> Self {
        let sector_bytes = sector_bytes.max(1);
        SimDisk(Arc::new(Mutex::new(State {
            random: seed,
            sector_bytes,
            ..State::default()
        })))
    }

    /// Opens the log on this disk; `config.url` is not looked at.
    ///
    /// # Errors
    /// As [`crate::queue::open`].
    pub async fn open(&self, config: &QueueConfig) -> Result<Arc<dyn EventQueue>, OpenError> {
        let settings = Settings::new(config);
        let folder = SimFolder {
            life: self.state().life,
            disk: self.clone(),
        };
        open_blocking("sim", move || open_folder(Arc::new(folder), settings)).await
    }

    /// Cuts the power and turns it on again: unsynced data is lost in part, and a log that was open is dead.
    pub fn power_cut(&self) {
        self.state().power_cut();
    }

    /// Cuts the power in the middle of an operation: after `operations` further ones.
    pub fn power_cut_after(&self, operations: u64) {
        let mut state = self.state();
        state.cut_at = Some(state.operations + operations);
    }

    /// How often the power was cut.
    pub fn power_cuts(&self) -> u64 {
        self.state().life
    }

    /// Operations so far.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Makes the next `count` syncs of files fail.
    pub fn fail_syncs(&self, count: u32) {
        self.state().failing_syncs = count;
    }

    /// Makes the next `count` writes fail, each after half of its bytes.
    pub fn fail_writes(&self, count: u32) {
        self.state().failing_writes = count;
    }

    /// Makes every creation of a file fail until it is allowed again.
    pub fn refuse_files(&self, refuses: bool) {
        self.state().refuses_files = refuses;
    }

    /// Limits the bytes that all files together may have.
    pub fn set_capacity_bytes(&self, capacity_bytes: Option<u64>) {
        self.state().capacity_bytes = capacity_bytes;
    }

    /// The bytes that all files together have.
    pub fn used_bytes(&self) -> u64 {
        self.state().used_bytes()
    }

    /// Whether every change of a name is durable.
    pub fn names_are_durable(&self) -> bool {
        self.state().renames.is_empty()
    }

    /// The names of the files.
    pub fn names(&self) -> Vec<String> {
        self.state().names.keys().cloned().collect()
    }

    /// A file's bytes, as a process sees them.
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        let file = state.names.get(name)?;
        Some(state.files.get(file)?.seen.clone())
    }

    /// Overwrites a file's bytes durably, behind the back of the log.
    pub fn tamper(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let Some(file) = state.names.get(name).copied() else {
            return;
        };
        if let Some(content) = state.files.get_mut(&file) {
            change(&mut content.seen);
            content.durable.clone_from(&content.seen);
            content.unsynced.clear();
        }
    }

    /// Removes a file durably, behind the back of the log.
    pub fn lose(&self, name: &str) {
        let mut state = self.state();
        state.names.remove(name);
        state.durable_names.remove(name);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock_of(&self.0)
    }
}
