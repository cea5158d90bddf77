//! The log's sizes, derived from its configuration.

use std::time::Duration;

use super::segment::{GROUP_HEADER_BYTES, SEGMENT_HEADER_BYTES};
use crate::queue::QueueConfig;

/// The first segment's size; each one after it has twice its predecessor's, up to the configured size.
const FIRST_SEGMENT_BYTES: u64 = 4 * 1024 * 1024;

/// The least size of a segment: its header and some small records.
const LEAST_SEGMENT_BYTES: u64 = 8 * 1024;

#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) limit_bytes: u64,
    pub(super) retain: Duration,
    pub(super) retain_bytes: u64,
    pub(super) segment_bytes: u64,
}

impl Settings {
    /// Segments are at most a quarter of the limit, since the last one is never trimmed; and what retention holds back is at
    /// most half of it, or a log whose views have caught up would stay full.
    pub(super) fn new(config: &QueueConfig) -> Self {
        let segment_bytes = config
            .segment_bytes
            .min(config.limit_bytes / 4)
            .max(LEAST_SEGMENT_BYTES);
        let segment_bytes = segment_bytes - segment_bytes % SEGMENT_HEADER_BYTES;
        Settings {
            limit_bytes: config.limit_bytes,
            retain: config.retain,
            retain_bytes: config.retain_bytes.min(config.limit_bytes / 2),
            segment_bytes,
        }
    }

    /// The size of segment `number`.
    pub(super) fn size_of(&self, number: u64) -> u64 {
        (FIRST_SEGMENT_BYTES << number.min(20)).min(self.segment_bytes)
    }

    /// The largest append: what fits into the smallest segment.
    pub(super) fn append_bytes(&self) -> usize {
        (self.size_of(0) - SEGMENT_HEADER_BYTES) as usize - GROUP_HEADER_BYTES
    }
}
