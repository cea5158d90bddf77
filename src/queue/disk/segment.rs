//! The layout of a segment file: a header, then groups of records.
//!
//! All integers are little-endian. A group is what one write and one sync made durable.
//!
//! ```text
//! segment   0   8  magic "CWSEGMNT"       group   0  4  magic "CWG1"
//!           8   4  format version (1)             4  4  checksum of log id, segment number, byte position,
//!          12   4  checksum of the rest                 and the header from byte 8 on
//!          16  16  log id                         8  4  bytes of body      12  4  records
//!          32   8  segment number                16  4  checksum of the body
//!          40   8  size of the file              20  4  zero
//!        4096      first group                   24  8  offset of the first record
//!                                                32  8  the offset that was durable before this group
//!                                                40  8  time of writing, ms
//!                                                48     records, each a u32 length and its bytes;
//!                                                       then zeros up to a multiple of 8
//! ```
//!
//! A group without records is a mark: it says only that everything before it is durable.

use bytes::Bytes;

use crate::queue::LogId;

pub(super) const FORMAT_VERSION: u32 = 1;
/// Where the first group starts: a sector of its own, so that no group's write touches the header.
pub(super) const SEGMENT_HEADER_BYTES: u64 = 4096;
pub(super) const GROUP_HEADER_BYTES: usize = 48;
/// Groups start at multiples of this, so that a search for one can step.
pub(super) const GROUP_ALIGNMENT: usize = 8;
pub(super) use crate::queue::records::PREFIX_BYTES as RECORD_PREFIX_BYTES;

const SEGMENT_MAGIC: &[u8; 8] = b"CWSEGMNT";
pub(super) const GROUP_MAGIC: &[u8; 4] = b"CWG1";
const SUFFIX: &str = ".segment";

pub(super) fn name_of(number: u64) -> String {
    format!("{number:012}{SUFFIX}")
}

pub(super) fn number_of(name: &str) -> Option<u64> {
    let number = name.strip_suffix(SUFFIX)?.parse().ok()?;
    (name_of(number) == name).then_some(number)
}

/// The header of segment `number`, as its first bytes.
pub(super) fn encode_segment_header(log_id: LogId, number: u64, size_bytes: u64) -> Vec<u8> {
    let mut rest = Vec::with_capacity(32);
    rest.extend_from_slice(log_id.0.as_bytes());
    rest.extend_from_slice(&number.to_le_bytes());
    rest.extend_from_slice(&size_bytes.to_le_bytes());
    let mut header = Vec::with_capacity(48);
    header.extend_from_slice(SEGMENT_MAGIC);
    header.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    header.extend_from_slice(&crc32c::crc32c(&rest).to_le_bytes());
    header.extend_from_slice(&rest);
    header
}

/// Why a file is not the segment it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadSegment {
    Damaged,
    Version(u32),
    OtherLog,
}

/// Checks a segment's first bytes and returns the size the file should have.
pub(super) fn decode_segment_header(bytes: &[u8], log_id: LogId, number: u64) -> Result<u64, BadSegment> {
    let mut fields = Fields(bytes);
    let magic = fields.take::<8>().ok_or(BadSegment::Damaged)?;
    let version = fields.u32().ok_or(BadSegment::Damaged)?;
    if &magic != SEGMENT_MAGIC {
        return Err(BadSegment::Damaged);
    }
    if version != FORMAT_VERSION {
        return Err(BadSegment::Version(version));
    }
    let crc = fields.u32().ok_or(BadSegment::Damaged)?;
    let rest = fields.0.get(..32).ok_or(BadSegment::Damaged)?;
    if crc32c::crc32c(rest) != crc {
        return Err(BadSegment::Damaged);
    }
    let id = fields.take::<16>().ok_or(BadSegment::Damaged)?;
    let stored_number = fields.u64().ok_or(BadSegment::Damaged)?;
    let size_bytes = fields.u64().ok_or(BadSegment::Damaged)?;
    if &id != log_id.0.as_bytes() || stored_number != number {
        return Err(BadSegment::OtherLog);
    }
    Ok(size_bytes)
}

/// Where a group lies. Part of its checksum, so that bytes are valid in no other place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) log_id: LogId,
    pub(super) segment: u64,
    pub(super) at: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GroupHeader {
    pub(super) body_bytes: u32,
    pub(super) records: u32,
    pub(super) body_crc: u32,
    /// The offset of the first record.
    pub(super) first: u64,
    /// Every record below this offset was durable before the group was written.
    pub(super) durable: u64,
    pub(super) written_at_ms: i64,
}

impl GroupHeader {
    pub(super) fn encode(&self, place: Place) -> [u8; GROUP_HEADER_BYTES] {
        let mut rest = [0; GROUP_HEADER_BYTES - 8];
        let fields: [&[u8]; 7] = [
            &self.body_bytes.to_le_bytes(),
            &self.records.to_le_bytes(),
            &self.body_crc.to_le_bytes(),
            &[0; 4],
            &self.first.to_le_bytes(),
            &self.durable.to_le_bytes(),
            &self.written_at_ms.to_le_bytes(),
        ];
        let mut to = &mut rest[..];
        for field in fields {
            let (here, after) = to.split_at_mut(field.len());
            here.copy_from_slice(field);
            to = after;
        }
        let mut header = [0; GROUP_HEADER_BYTES];
        let (magic, after) = header.split_at_mut(4);
        let (crc, body) = after.split_at_mut(4);
        magic.copy_from_slice(GROUP_MAGIC);
        crc.copy_from_slice(&checksum(place, &rest).to_le_bytes());
        body.copy_from_slice(&rest);
        header
    }

    /// `None` unless `bytes` start with an intact header that was written for this very place.
    pub(super) fn decode(bytes: &[u8], place: Place) -> Option<GroupHeader> {
        let rest = bytes.get(8..GROUP_HEADER_BYTES)?;
        let mut fields = Fields(bytes);
        if &fields.take::<4>()? != GROUP_MAGIC || fields.u32()? != checksum(place, rest) {
            return None;
        }
        let (body_bytes, records, body_crc, _) = (fields.u32()?, fields.u32()?, fields.u32()?, fields.u32()?);
        let (first, durable) = (fields.u64()?, fields.u64()?);
        let written_at_ms = i64::from_le_bytes(fields.take()?);
        Some(GroupHeader {
            body_bytes,
            records,
            body_crc,
            first,
            durable,
            written_at_ms,
        })
    }

    /// The bytes from this group's start to the next one's.
    pub(super) fn span(&self) -> u64 {
        span_of(self.body_bytes as usize)
    }

    /// One past the last record.
    pub(super) fn end(&self) -> u64 {
        self.first.saturating_add(u64::from(self.records))
    }
}

/// The bytes that a group with a body of `body_bytes` takes.
pub(super) fn span_of(body_bytes: usize) -> u64 {
    (GROUP_HEADER_BYTES + body_bytes).next_multiple_of(GROUP_ALIGNMENT) as u64
}

fn checksum(place: Place, rest: &[u8]) -> u32 {
    let crc = crc32c::crc32c(place.log_id.0.as_bytes());
    let crc = crc32c::crc32c_append(crc, &place.segment.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &place.at.to_le_bytes());
    crc32c::crc32c_append(crc, rest)
}

/// Splits the first record off `body`.
pub(super) fn take_record(body: &mut Bytes) -> Option<Bytes> {
    let prefix = body.first_chunk::<RECORD_PREFIX_BYTES>()?;
    let size = u32::from_le_bytes(*prefix) as usize;
    let end = RECORD_PREFIX_BYTES.checked_add(size)?;
    if end > body.len() {
        return None;
    }
    let mut record = body.split_to(end);
    Some(record.split_off(RECORD_PREFIX_BYTES))
}

/// Reads fixed-size fields one after the other.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl Fields<'_> {
    pub(super) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}
