//! How far behind the lanes of this process are, together.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::telemetry::{Lane, Metrics};

/// Of one partition.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Behind {
    pub(super) records: u64,
    pub(super) age: Duration,
    pub(super) log_bytes: u64,
}

/// What each partition said last. A clone shares it.
#[derive(Debug, Clone, Default)]
pub struct Lag(Arc<Mutex<BTreeMap<u16, Behind>>>);

impl Lag {
    /// Notes where a partition is, or that this process has it no more, and reports the sum of records and bytes and the
    /// greatest age.
    pub(super) fn note(&self, partition: u16, behind: Option<Behind>, metrics: &Metrics) {
        let mut partitions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match behind {
            Some(behind) => partitions.insert(partition, behind),
            None => partitions.remove(&partition),
        };
        let records = partitions.values().map(|behind| behind.records).sum();
        let age = partitions.values().map(|behind| behind.age).max();
        let age_ms = age.unwrap_or_default().as_millis();
        metrics.lane_lag(Lane::Fast, records, u64::try_from(age_ms).unwrap_or(u64::MAX));
        metrics.log_size(partitions.values().map(|behind| behind.log_bytes).sum());
    }
}
