//! Micro-batches: what one transaction takes on.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::domain::transform::{Effect, transform};
use crate::queue::{Entry, EventQueue, Position, ReadError, ReadLimits};

/// The bounds of a micro-batch: it closes at the first one reached.
#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    pub max_records: usize,
    pub max_bytes: usize,
    /// How long the first record of a batch may wait for company. Higher: fewer transactions, each with its
    /// own fsync. Lower: fresher profiles.
    pub max_age: Duration,
}

impl Default for BatchLimits {
    /// 4,096 records keep a transaction well under a second; 5 ms of age is a quarter of the freshness goal.
    fn default() -> Self {
        BatchLimits {
            max_records: 4_096,
            max_bytes: 8 << 20,
            max_age: Duration::from_millis(5),
        }
    }
}

/// A stretch of the log, decoded and transformed.
#[derive(Debug)]
pub(super) struct Gathered {
    pub(super) effects: Vec<(u64, Effect)>,
    pub(super) unreadable: Vec<(u64, Bytes, String)>,
    /// One past the last record.
    pub(super) next: u64,
}

/// Reads a batch from `from` on. Waits up to `wait` for the first record; `None` when there was none.
pub(super) async fn gather(
    queue: &dyn EventQueue,
    from: Position,
    limits: BatchLimits,
    wait: Duration,
) -> Result<Option<Gathered>, ReadError> {
    let read_limits = ReadLimits {
        max_records: limits.max_records,
        max_bytes: limits.max_bytes,
        wait,
    };
    let mut entries = queue.read(from, read_limits).await?;
    if entries.is_empty() {
        return Ok(None);
    }
    let closes_at = Instant::now() + limits.max_age;
    let mut size_bytes = size_of_entries(&entries);
    while entries.len() < limits.max_records && size_bytes < limits.max_bytes {
        let wait = closes_at.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            break;
        }
        let more = queue
            .read(
                next_position(from, &entries),
                remaining(limits, &entries, size_bytes, wait),
            )
            .await?;
        if more.is_empty() {
            break;
        }
        size_bytes += size_of_entries(&more);
        entries.extend(more);
    }
    Ok(Some(transform_entries(entries, from.offset)))
}

fn next_position(from: Position, entries: &[Entry]) -> Position {
    Position {
        offset: entries.last().map_or(from.offset, |entry| entry.offset + 1),
        ..from
    }
}

fn remaining(limits: BatchLimits, entries: &[Entry], size_bytes: usize, wait: Duration) -> ReadLimits {
    ReadLimits {
        max_records: limits.max_records - entries.len(),
        max_bytes: limits.max_bytes - size_bytes,
        wait,
    }
}

fn size_of_entries(entries: &[Entry]) -> usize {
    entries
        .iter()
        .map(|entry| {
            entry
                .event
                .as_ref()
                .map_or_else(|(bytes, _)| bytes.len(), |event| event.body.len())
        })
        .sum()
}

fn transform_entries(entries: Vec<Entry>, first: u64) -> Gathered {
    let mut gathered = Gathered {
        effects: Vec::with_capacity(entries.len()),
        unreadable: Vec::new(),
        next: first,
    };
    for Entry { offset, event } in entries {
        gathered.next = offset + 1;
        match event {
            Ok(event) => gathered.effects.push((offset, transform(&event))),
            Err((bytes, error)) => gathered.unreadable.push((offset, bytes, error.to_string())),
        }
    }
    gathered
}
