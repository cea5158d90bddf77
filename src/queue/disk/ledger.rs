//! What the log holds, in memory: its segments with a sparse index each, and its most recent groups.
//!
//! Memory does not grow with the number of records: one index entry per [`INDEX_STEP_BYTES`] of file, and at
//! most [`TAIL_BYTES`] of recent groups. Only durable groups are entered, so nothing in here can be unsaid.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::io::BlockFile;
use super::segment::SEGMENT_HEADER_BYTES;
use crate::queue::{Extent, LogId, Position, ReadError, ReadLimits};

/// A seek reads at most this much in vain (and one group). 16 Ki entries for a log of 1 GiB.
const INDEX_STEP_BYTES: u64 = 64 * 1024;

/// Recent groups kept for readers that keep up, so that they touch no disk: some 14,000 events of 600 bytes,
/// more than the fast lane lags behind in good health.
const TAIL_BYTES: usize = 8 * 1024 * 1024;

/// The records of one group, verified.
#[derive(Debug, Clone)]
pub(super) struct Chunk {
    pub(super) first: u64,
    pub(super) records: u32,
    pub(super) body: Bytes,
}

impl Chunk {
    pub(super) fn end(&self) -> u64 {
        self.first.saturating_add(u64::from(self.records))
    }
}

#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) file: Arc<dyn BlockFile>,
    pub(super) capacity_bytes: u64,
    /// The offset of the first record, and one past the last.
    pub(super) first: u64,
    pub(super) end: u64,
    /// Bytes from the file's start to the end of its last durable group.
    pub(super) used_bytes: u64,
    /// When its last group was written.
    pub(super) newest_ms: i64,
    index: Vec<(u64, u64)>,
}

impl Segment {
    pub(super) fn new(number: u64, file: Arc<dyn BlockFile>, capacity_bytes: u64, first: u64) -> Self {
        Segment {
            number,
            file,
            capacity_bytes,
            first,
            end: first,
            used_bytes: SEGMENT_HEADER_BYTES,
            newest_ms: i64::MIN,
            index: Vec::new(),
        }
    }

    /// Enters the group that lies at `used_bytes`.
    pub(super) fn enter(&mut self, first: u64, end: u64, span_bytes: u64, written_at_ms: i64) {
        let due = self
            .index
            .last()
            .is_none_or(|(_, at)| self.used_bytes - at >= INDEX_STEP_BYTES);
        if due && end > first {
            self.index.push((first, self.used_bytes));
        }
        self.end = end;
        self.used_bytes += span_bytes;
        self.newest_ms = self.newest_ms.max(written_at_ms);
    }

    /// The byte position of a group that starts at or before `offset`, and near it.
    fn seek(&self, offset: u64) -> u64 {
        let after = self.index.partition_point(|(first, _)| *first <= offset);
        let entry = after.checked_sub(1).and_then(|at| self.index.get(at));
        entry.map_or(SEGMENT_HEADER_BYTES, |(_, at)| *at)
    }
}

/// Where a read finds its records.
#[derive(Debug)]
pub(super) enum Plan {
    /// Nothing there yet.
    Wait,
    Memory(Vec<Chunk>),
    File(Span),
}

/// A stretch of durable groups in one file.
#[derive(Debug)]
pub(super) struct Span {
    pub(super) segment: u64,
    pub(super) file: Arc<dyn BlockFile>,
    pub(super) start: u64,
    pub(super) end: u64,
}

#[derive(Debug)]
pub(super) struct Ledger {
    log_id: LogId,
    /// Never empty; the last one is being written.
    segments: VecDeque<Segment>,
    size_bytes: u64,
    tail: VecDeque<Chunk>,
    tail_bytes: usize,
}

impl Ledger {
    pub(super) fn new(log_id: LogId, segments: VecDeque<Segment>) -> Self {
        let size_bytes = segments.iter().map(|segment| segment.used_bytes).sum();
        Ledger {
            log_id,
            segments,
            size_bytes,
            tail: VecDeque::new(),
            tail_bytes: 0,
        }
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    pub(super) fn next(&self) -> u64 {
        self.segments.back().map_or(0, |segment| segment.end)
    }

    pub(super) fn last(&self) -> Option<&Segment> {
        self.segments.back()
    }

    pub(super) fn extent(&self) -> Extent {
        Extent {
            log_id: self.log_id,
            first: self.segments.front().map_or(0, |segment| segment.first),
            next: self.next(),
            size_bytes: self.size_bytes,
        }
    }

    /// Starts a segment; its first group follows before anyone else looks.
    pub(super) fn roll(&mut self, segment: Segment) {
        self.size_bytes += segment.used_bytes;
        self.segments.push_back(segment);
    }

    /// Enters a durable group at the end of the last segment.
    pub(super) fn publish(&mut self, chunk: Chunk, span_bytes: u64, written_at_ms: i64) {
        if let Some(segment) = self.segments.back_mut() {
            segment.enter(chunk.first, chunk.end(), span_bytes, written_at_ms);
            self.size_bytes += span_bytes;
        }
        if chunk.records == 0 {
            return;
        }
        self.tail_bytes += chunk.body.len();
        self.tail.push_back(chunk);
        while self.tail_bytes > TAIL_BYTES {
            let Some(oldest) = self.tail.pop_front() else {
                break;
            };
            self.tail_bytes -= oldest.body.len();
        }
    }

    /// Refuses a position that is not one of this log.
    pub(super) fn check(&self, position: Position) -> Result<(), ReadError> {
        let extent = self.extent();
        let remedy = if position.log_id != self.log_id {
            "it belongs to another log: point queue.url at the log it was made with, or rebuild the view"
        } else if position.partition != 0 {
            "a disk log has partition 0 only"
        } else if position.offset < extent.first {
            "the records after it were trimmed: restore a newer backup of the view, or rebuild the view"
        } else if position.offset > extent.next {
            "the view is ahead of the log: put back the log's newest folder, or rebuild the view"
        } else {
            return Ok(());
        };
        Err(ReadError::OutOfRange {
            position,
            extent,
            remedy,
        })
    }

    pub(super) fn plan(&self, from: Position, limits: ReadLimits) -> Result<Plan, ReadError> {
        self.check(from)?;
        let offset = from.offset;
        if offset == self.next() {
            return Ok(Plan::Wait);
        }
        if self.tail.front().is_some_and(|oldest| oldest.first <= offset) {
            return Ok(Plan::Memory(self.recent(offset, limits)));
        }
        let after = self.segments.partition_point(|segment| segment.end <= offset);
        let Some(segment) = self.segments.get(after) else {
            return Ok(Plan::Wait);
        };
        Ok(Plan::File(Span {
            segment: segment.number,
            file: Arc::clone(&segment.file),
            start: segment.seek(offset),
            end: segment.used_bytes,
        }))
    }

    fn recent(&self, offset: u64, limits: ReadLimits) -> Vec<Chunk> {
        let start = self.tail.partition_point(|chunk| chunk.end() <= offset);
        let last = offset.saturating_add(limits.max_records as u64);
        let mut bytes = 0;
        let mut chunks = Vec::new();
        for chunk in self.tail.range(start..) {
            chunks.push(chunk.clone());
            // The first chunk may hold little behind `offset`: it does not count.
            if chunks.len() > 1 {
                bytes += chunk.body.len();
            }
            if chunk.end() >= last || bytes >= limits.max_bytes {
                break;
            }
        }
        chunks
    }

    /// Takes the oldest segment out if everything in it is below `below` and `is_kept` does not hold it back.
    pub(super) fn take_oldest(
        &mut self,
        below: u64,
        is_kept: impl Fn(&Segment, u64) -> bool,
    ) -> Option<Segment> {
        let oldest = self.segments.front()?;
        if self.segments.len() < 2 || oldest.end > below || is_kept(oldest, self.size_bytes) {
            return None;
        }
        let oldest = self.segments.pop_front()?;
        self.size_bytes -= oldest.used_bytes;
        let first = self.segments.front().map_or(0, |segment| segment.first);
        while self.tail.front().is_some_and(|chunk| chunk.end() <= first) {
            if let Some(chunk) = self.tail.pop_front() {
                self.tail_bytes -= chunk.body.len();
            }
        }
        Some(oldest)
    }

    /// Puts a segment back whose file could not be removed.
    pub(super) fn put_back(&mut self, segment: Segment) {
        self.size_bytes += segment.used_bytes;
        self.segments.push_front(segment);
    }
}
