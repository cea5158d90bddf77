//! Micro-batches: what one transaction takes on.

use std::time::Duration;

use bytes::Bytes;

use crate::domain::transform::{Effect, transform};
use crate::queue::{Entry, EventQueue, Position, ReadError, ReadLimits};

/// The bounds of a micro-batch: it closes at the first one reached.
#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    pub max_records: usize,
    pub max_bytes: usize,
    /// How long the first record of a transaction may wait for company. Higher: fewer of them, each with its
    /// own fsync. Lower: fresher profiles.
    pub max_age: Duration,
}

impl Default for BatchLimits {
    /// 8,192 records, which only a lane finds that is behind, keep a transaction under a second where a server serves nobody else; half as many
    /// are applied at a sixth fewer a second. Lanes that share a transaction make it half as large again at most. 5 ms of age is a quarter of the freshness goal.
    fn default() -> Self {
        BatchLimits {
            max_records: 8_192,
            max_bytes: 8 << 20,
            max_age: Duration::from_millis(5),
        }
    }
}

/// How long batches that share no transactions wait for company: at least as told, and longer where storing one takes long.
///
/// Much of a batch's cost is the same whatever its size. Lanes that share a machine and begin a batch as soon as the last one is stored
/// leave no time for anything else, themselves included; so a lane rests about as long as it works, which at most doubles how
/// late it is.
#[derive(Debug)]
pub(super) struct Pace {
    least: Duration,
    /// Of the last batches, each counting half of the one after it.
    took: Duration,
}

impl Pace {
    /// The longest wait, in multiples of the least: a batch that took so long is large, and gains nothing from being larger.
    const MOST: u32 = 4;

    pub(super) fn new(least: Duration) -> Self {
        Pace {
            least,
            took: Duration::ZERO,
        }
    }

    pub(super) fn note(&mut self, took: Duration) {
        self.took = (self.took + took) / 2;
    }

    pub(super) fn age(&self) -> Duration {
        self.took.clamp(self.least, self.least * Self::MOST)
    }
}

/// A read that returns fewer records has reached the end of the log, or nearly; one that returns as many is followed by another.
const PAGE: usize = 64;

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
    let mut size_bytes = size_of_entries(&entries);
    let mut is_end = entries.len() < PAGE;
    if is_end && !limits.max_age.is_zero() {
        // Records come one by one; looking for each would cost more than the records.
        tokio::time::sleep(limits.max_age).await;
        is_end = false;
    }
    while !is_end && entries.len() < limits.max_records && size_bytes < limits.max_bytes {
        let next = next_position(from, &entries);
        let more = queue.read(next, remaining(limits, &entries, size_bytes)).await?;
        is_end = more.len() < PAGE;
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

fn remaining(limits: BatchLimits, entries: &[Entry], size_bytes: usize) -> ReadLimits {
    ReadLimits {
        max_records: limits.max_records - entries.len(),
        max_bytes: limits.max_bytes - size_bytes,
        wait: Duration::ZERO,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_rests_about_as_long_as_it_works_within_bounds() {
        let least = Duration::from_millis(5);
        let mut pace = Pace::new(least);
        assert_eq!(pace.age(), least);
        for _ in 0..10 {
            pace.note(Duration::from_millis(12));
        }
        assert!(pace.age() > least && pace.age() <= Duration::from_millis(12));
        for _ in 0..10 {
            pace.note(Duration::from_secs(1));
        }
        assert_eq!(pace.age(), least * Pace::MOST);
    }
}
