//! Reading groups from a segment file, and records out of groups.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::io::BlockFile;
use super::ledger::{Chunk, Span};
use super::segment::{self, GROUP_HEADER_BYTES, GroupHeader, Place};
use crate::queue::record::Decoder;
use crate::queue::{Entry, LogId, ReadError, ReadLimits};

/// Read-ahead: one system call per megabyte, not per group. A group that is larger is read on its own.
const WINDOW_BYTES: usize = 1024 * 1024;

/// A file read through a large buffer, front to back.
#[derive(Debug)]
pub(super) struct Window<'a> {
    file: &'a dyn BlockFile,
    end: u64,
    start: u64,
    buffer: Bytes,
}

impl<'a> Window<'a> {
    /// Nothing at or beyond `end` is looked at.
    pub(super) fn new(file: &'a dyn BlockFile, end: u64) -> Self {
        Window {
            file,
            end,
            start: 0,
            buffer: Bytes::new(),
        }
    }

    /// `size` bytes at `at`; `None` if they reach beyond the end.
    pub(super) fn slice(&mut self, at: u64, size: usize) -> io::Result<Option<Bytes>> {
        if at.checked_add(size as u64).is_none_or(|end| end > self.end) {
            return Ok(None);
        }
        if let Some(slice) = self.held(at, size) {
            return Ok(Some(slice));
        }
        let count = (self.end - at).min(size.max(WINDOW_BYTES) as u64) as usize;
        let mut buffer = vec![0; count];
        let filled = self.file.read_at(&mut buffer, at)?;
        buffer.truncate(filled);
        self.start = at;
        self.buffer = buffer.into();
        Ok(self.held(at, size))
    }

    fn held(&self, at: u64, size: usize) -> Option<Bytes> {
        let from = usize::try_from(at.checked_sub(self.start)?).ok()?;
        let to = from.checked_add(size)?;
        (to <= self.buffer.len()).then(|| self.buffer.slice(from..to))
    }

    /// The header of the group at `place`, if one was written there.
    pub(super) fn header(&mut self, place: Place) -> io::Result<Option<GroupHeader>> {
        let bytes = self.slice(place.at, GROUP_HEADER_BYTES)?;
        Ok(bytes.and_then(|bytes| GroupHeader::decode(&bytes, place)))
    }

    /// The records of the group with `header` at `at`, if they are intact.
    pub(super) fn body(&mut self, at: u64, header: &GroupHeader) -> io::Result<Option<Bytes>> {
        let bytes = self.slice(at + GROUP_HEADER_BYTES as u64, header.body_bytes as usize)?;
        Ok(bytes.filter(|bytes| crc32c::crc32c(bytes) == header.body_crc))
    }
}

/// The groups of `span` from the one that holds `offset` on, as many as `limits` ask for.
pub(super) fn read_chunks(
    span: &Span,
    log_id: LogId,
    offset: u64,
    limits: ReadLimits,
) -> Result<Vec<Chunk>, ReadError> {
    let name = segment::name_of(span.segment);
    let failed = |error: io::Error| ReadError::Io(format!("{name}: {error}").into());
    let corrupt = |at: u64| -> ReadError {
        let text = format!(
            "{name} at byte {at}: a durable group fails its checksum; {}",
            super::WAY_OUT
        );
        ReadError::Corrupt(text.into())
    };
    let mut window = Window::new(&*span.file, span.end);
    let mut chunks = Vec::new();
    let (mut records, mut bytes) = (0u64, 0usize);
    let mut at = span.start;
    while at < span.end && records < limits.max_records.max(1) as u64 && bytes < limits.max_bytes.max(1) {
        let place = Place {
            log_id,
            segment: span.segment,
            at,
        };
        let header = window.header(place).map_err(failed)?.ok_or_else(|| corrupt(at))?;
        if header.end() > offset && header.records > 0 {
            let body = window
                .body(at, &header)
                .map_err(failed)?
                .ok_or_else(|| corrupt(at))?;
            records += header.end() - header.first.max(offset);
            // Of the first group, what lies before `offset` does not count, and is not known here.
            if !chunks.is_empty() {
                bytes += body.len();
            }
            chunks.push(Chunk {
                first: header.first,
                records: header.records,
                body,
            });
        }
        at += header.span();
    }
    Ok(chunks)
}

/// The records of `chunks` from `offset` on, within `limits`.
pub(super) fn entries(chunks: Vec<Chunk>, offset: u64, limits: ReadLimits) -> Result<Vec<Entry>, ReadError> {
    let mut decoder = Decoder::default();
    let mut entries = Vec::new();
    let mut bytes = 0;
    for mut chunk in chunks {
        for at in chunk.first..chunk.end() {
            let Some(record) = segment::take_record(&mut chunk.body) else {
                let text = format!(
                    "the group of offset {} holds fewer records than it says",
                    chunk.first
                );
                return Err(ReadError::Corrupt(text.into()));
            };
            if at < offset {
                continue;
            }
            bytes += record.len();
            if !entries.is_empty() && (bytes > limits.max_bytes || entries.len() >= limits.max_records) {
                return Ok(entries);
            }
            let event = decoder.decode(&record).map_err(|error| (record, error));
            entries.push(Entry { offset: at, event });
        }
    }
    Ok(entries)
}

/// Reads and decodes in one go; blocking.
pub(super) fn read_entries(
    span: &Span,
    log_id: LogId,
    offset: u64,
    limits: ReadLimits,
) -> Result<Vec<Entry>, ReadError> {
    entries(read_chunks(span, log_id, offset, limits)?, offset, limits)
}

/// An error text for a task that was cancelled or panicked.
pub(super) fn join_failed(error: &tokio::task::JoinError) -> ReadError {
    ReadError::Io(Arc::from(format!("the reading task ended: {error}")))
}
