//! Which life of the warehouse counts.
//!
//! A warehouse that was restored or built anew starts a new epoch, and what caches hold of another one is a miss. A node
//! that only reads would not notice by itself, so it looks now and then; requests never wait for that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::domain::profile::Version;
use crate::warehouse::Warehouse;

/// No warehouse has it: documents that were never stored do.
const UNKNOWN: u64 = 0;

#[derive(Debug, Default)]
pub(super) struct Epoch(AtomicU64);

impl Epoch {
    /// Whether a value of this version may be believed. Before the warehouse was reached, any may.
    pub(super) fn has(&self, version: Version) -> bool {
        let current = self.0.load(Ordering::Relaxed);
        current == UNKNOWN || version.epoch == current
    }

    /// Looks once.
    pub(super) async fn refresh(&self, warehouse: &Arc<dyn Warehouse>) {
        // While the warehouse is away, so is whoever could start a new epoch.
        let Ok(Some(epoch)) = warehouse.epoch().await else {
            return;
        };
        let before = self.0.swap(epoch, Ordering::Relaxed);
        if ![UNKNOWN, epoch].contains(&before) {
            tracing::info!("the warehouse starts a new epoch; cached profiles are read again");
        }
    }
}
