//! Group commit: one thread takes all appends that wait, writes them as one group, syncs, and answers them.
//!
//! While a sync runs, the next group gathers by itself, so there is no timer: a lone producer waits for nobody,
//! and a thousand share one sync. Producers encode in their own tasks; this thread only copies and checksums.
//!
//! A group goes to the disk past the file system's cache where it can, for readers find it in memory: see `docs/adr/0019`.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use bytes::{BufMut as _, BytesMut};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::io::{BlockFile, PAGE_BYTES};
use super::ledger::{Chunk, Segment};
use super::pages::Pages;
use super::preparer::{NotPrepared, Prepared};
use super::segment::{self, GROUP_HEADER_BYTES, GroupHeader, Place, SEGMENT_HEADER_BYTES};
use super::shared::Core;
use super::{lock_of, now_ms};
use crate::queue::{AppendError, Records};

/// A group takes waiting appends up to this size, and at least one. Groups of this size form only where that much
/// waits: lower costs throughput with a thousand producers of batches; higher lets single syncs take tens of milliseconds.
const GROUP_BYTES: usize = 4 * 1024 * 1024;

/// Groups share allocations of this size, which the tail cache keeps alive.
const BUFFER_BYTES: usize = 256 * 1024;

/// Buffers of written appends are used again, so many and up to this size: the memory of one that is given back is returned to
/// the system, and costs a page fault for every 4 KiB when it is asked for anew.
const SPARES: usize = 8;
const SPARE_BYTES: usize = 2 * 1024 * 1024;

/// One append, encoded.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) records: Arc<Records>,
    pub(super) done: oneshot::Sender<Result<u64, AppendError>>,
    /// Its share of the bytes that may wait; given back when it is answered.
    pub(super) room: OwnedSemaphorePermit,
}

/// Where appends wait for the writer.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    state: Mutex<InboxState>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct InboxState {
    pending: VecDeque<Pending>,
    writer_waits: bool,
    closed: Option<Arc<str>>,
    /// Empty, with the memory of appends that were written.
    spares: Vec<Records>,
}

impl Pending {
    fn count(&self) -> u32 {
        self.records.len() as u32
    }
}

impl Inbox {
    /// A buffer to encode an append into.
    pub(super) fn spare(&self) -> Records {
        lock_of(&self.state).spares.pop().unwrap_or_default()
    }

    /// Takes a buffer back, once it is written.
    pub(super) fn give_back(&self, mut records: Records) {
        let mut state = lock_of(&self.state);
        if state.spares.len() < SPARES && records.capacity_bytes() <= SPARE_BYTES {
            records.clear();
            state.spares.push(records);
        }
    }

    pub(super) fn push(&self, pending: Pending) -> Result<(), AppendError> {
        let mut state = lock_of(&self.state);
        if let Some(reason) = &state.closed {
            return Err(AppendError::Closed {
                reason: Arc::clone(reason),
            });
        }
        state.pending.push_back(pending);
        let wake = std::mem::take(&mut state.writer_waits);
        drop(state);
        if wake {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Why appends are refused, if they are.
    pub(super) fn closed(&self) -> Option<Arc<str>> {
        lock_of(&self.state).closed.clone()
    }

    /// Refuses further appends; those that wait are still written. The first reason stays.
    pub(super) fn close(&self, reason: &str) {
        lock_of(&self.state).closed.get_or_insert_with(|| reason.into());
        self.arrived.notify_one();
    }

    /// Refuses further appends and those that wait.
    fn fail(&self, reason: &Arc<str>) {
        let mut state = lock_of(&self.state);
        state.closed = Some(Arc::clone(reason));
        let refused = std::mem::take(&mut state.pending);
        drop(state);
        for pending in refused {
            let _ = pending.done.send(Err(AppendError::Closed {
                reason: Arc::clone(reason),
            }));
        }
    }

    /// Moves waiting appends of up to `limit_bytes`, and at least one, into `group`, waiting for the first; false when
    /// the inbox is closed and empty.
    fn take(&self, group: &mut Vec<Pending>, limit_bytes: usize) -> bool {
        let mut state = lock_of(&self.state);
        while state.pending.is_empty() {
            if state.closed.is_some() {
                return false;
            }
            state.writer_waits = true;
            state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.writer_waits = false;
        }
        let mut bytes = 0;
        while let Some(next) = state.pending.front() {
            bytes += next.records.bytes().len();
            if bytes > limit_bytes && !group.is_empty() {
                break;
            }
            group.extend(state.pending.pop_front());
        }
        true
    }
}

/// The writer's place in the log.
#[derive(Debug)]
pub(super) struct Writer {
    core: Arc<Core>,
    segment: u64,
    file: Arc<dyn BlockFile>,
    capacity_bytes: u64,
    at: u64,
    next: u64,
    /// Whether the last group is a mark, or there is none: then all that is written is known to be durable.
    is_marked: bool,
    /// Of the page that the next group begins in, what is before it.
    pages: Pages,
    buffer: BytesMut,
}

/// Says on the way out, even by a panic, that nobody takes appends any more.
struct Farewell(Arc<Core>);

impl Drop for Farewell {
    fn drop(&mut self) {
        self.0
            .inbox
            .fail(&self.0.inbox.closed().unwrap_or_else(|| "the writer ended".into()));
    }
}

impl Writer {
    /// Goes on where the log ends.
    pub(super) fn new(core: &Arc<Core>, is_marked: bool) -> io::Result<Self> {
        let ledger = lock_of(&core.ledger);
        let last = ledger
            .last()
            .ok_or_else(|| io::Error::other("the log has no segment"))?;
        let in_page = last.used_bytes % PAGE_BYTES as u64;
        let mut pages = Pages::zeros(in_page as usize);
        let read = last.file.read_at(pages.bytes_mut(), last.used_bytes - in_page)?;
        if read < pages.bytes().len() {
            // It would be written again as zeros.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Writer {
            core: Arc::clone(core),
            segment: last.number,
            file: Arc::clone(&last.file),
            capacity_bytes: last.capacity_bytes,
            at: last.used_bytes,
            next: last.end,
            is_marked,
            pages,
            buffer: BytesMut::new(),
        })
    }

    /// The thread's work, until the inbox is closed and empty, or a write or sync fails.
    pub(super) fn run(mut self) {
        let _farewell = Farewell(Arc::clone(&self.core));
        if self.mark().is_err() {
            return;
        }
        let limit_bytes = GROUP_BYTES.min(self.core.settings.append_bytes());
        let mut group = Vec::new();
        while self.core.inbox.take(&mut group, limit_bytes) {
            if self.commit(&mut group).is_err() {
                return;
            }
        }
        let _ = self.mark();
    }

    /// Writes one group and answers its appends. An error means that the log is closed for writing.
    fn commit(&mut self, group: &mut Vec<Pending>) -> Result<(), ()> {
        let body_bytes = group.iter().map(|pending| pending.records.bytes().len()).sum();
        let span = segment::span_of(body_bytes);
        let prepared = match self.make_room(span) {
            Ok(prepared) => prepared,
            Err(refusal) => {
                for pending in group.drain(..) {
                    let _ = pending.done.send(Err(refusal.clone()));
                }
                return Ok(());
            }
        };
        if let Err(reason) = self.write(prepared, group, body_bytes) {
            for pending in group.drain(..) {
                let _ = pending.done.send(Err(AppendError::Unknown {
                    reason: Arc::clone(&reason),
                }));
            }
            return Err(());
        }
        let mut first = self.next
            - group
                .iter()
                .map(|pending| u64::from(pending.count()))
                .sum::<u64>();
        for pending in group.drain(..) {
            let records = u64::from(pending.count());
            drop((pending.room, pending.records));
            // Nobody listens if the append's future was dropped; the records stand all the same.
            let _ = pending.done.send(Ok(first));
            first += records;
        }
        Ok(())
    }

    /// Finds room for `span` bytes; the segment to roll to, if it must. Nothing is written before this succeeds.
    fn make_room(&self, span: u64) -> Result<Option<Prepared>, AppendError> {
        let limit_bytes = self.core.settings.limit_bytes;
        let size_bytes = lock_of(&self.core.ledger).size_bytes();
        let rolls = self.at + span > self.capacity_bytes;
        let grown = size_bytes + span + if rolls { SEGMENT_HEADER_BYTES } else { 0 };
        if grown > limit_bytes {
            return Err(AppendError::Full {
                size_bytes,
                limit_bytes,
            });
        }
        if !rolls {
            return Ok(None);
        }
        match self.core.preparer.take() {
            Ok(prepared) => Ok(Some(prepared)),
            Err(NotPrepared::NoSpace) => Err(AppendError::Full {
                size_bytes,
                limit_bytes,
            }),
            Err(NotPrepared::Failed(reason)) => Err(AppendError::Closed { reason }),
        }
    }

    /// Says on disk that all before is durable, so that damage to the last group is not mistaken for a torn end.
    fn mark(&mut self) -> Result<(), ()> {
        let has_room = self.at + segment::span_of(0) <= self.capacity_bytes;
        if self.is_marked || !has_room {
            return Ok(());
        }
        self.write(None, &[], 0).map_err(drop)
    }

    fn write(
        &mut self,
        roll: Option<Prepared>,
        group: &[Pending],
        body_bytes: usize,
    ) -> Result<(), Arc<str>> {
        let is_new = roll.is_some();
        if let Some(prepared) = roll {
            self.file.written();
            self.segment = prepared.number;
            self.file = prepared.file;
            self.capacity_bytes = prepared.size_bytes;
            self.at = SEGMENT_HEADER_BYTES;
            self.pages.clear();
        }
        let span = segment::span_of(body_bytes);
        let mut body_crc = 0;
        let mut records = 0;
        for pending in group {
            body_crc = crc32c::crc32c_append(body_crc, pending.records.bytes());
            records += pending.count();
        }
        let header = GroupHeader {
            body_bytes: body_bytes as u32,
            records,
            body_crc,
            first: self.next,
            durable: self.next,
            written_at_ms: now_ms(),
        };
        let place = Place {
            log_id: self.core.log_id,
            segment: self.segment,
            at: self.at,
        };
        // From the start of the page, which is written again as it was, to the end of one, where the file holds zeros already.
        let before = self.pages.bytes().len();
        let page_start = self.at - before as u64;
        let page_end = (self.at + span).next_multiple_of(PAGE_BYTES as u64);
        let padded = (page_end.min(self.capacity_bytes) - page_start) as usize;
        self.pages.reserve(padded - before);
        self.pages.put(&header.encode(place));
        for pending in group {
            self.pages.put(pending.records.bytes());
        }
        self.pages.pad_to(padded);

        if let Err(error) = self
            .file
            .write_through(self.pages.bytes(), page_start)
            .and_then(|()| self.file.sync())
        {
            // The kernel may have dropped the pages of a failed sync: trying again would prove nothing.
            let name = segment::name_of(self.segment);
            tracing::error!(file = name, at = self.at, error = %error, "the log is closed for writing: a write or sync failed");
            let reason = format!("a write or sync of {name} failed: {error}; restart to recover").into();
            self.core.inbox.fail(&reason);
            return Err(reason);
        }

        let body = before + GROUP_HEADER_BYTES..before + GROUP_HEADER_BYTES + body_bytes;
        if self.buffer.capacity() < body_bytes {
            self.buffer = BytesMut::with_capacity(BUFFER_BYTES.max(body_bytes));
        }
        self.buffer
            .put_slice(self.pages.bytes().get(body).unwrap_or_default());
        let chunk = Chunk {
            first: header.first,
            records,
            body: self.buffer.split().freeze(),
        };
        self.pages.keep_before(before + span as usize);
        let mut ledger = lock_of(&self.core.ledger);
        if is_new {
            let file = Arc::clone(&self.file);
            ledger.roll(Segment::new(self.segment, file, self.capacity_bytes, self.next));
        }
        ledger.publish(chunk, span, header.written_at_ms);
        drop(ledger);
        self.at += span;
        self.next = header.end();
        self.is_marked = records == 0;
        self.core.announce(self.next);
        Ok(())
    }
}
