//! What the server answers, read; and the names that say which record is meant.

use bytes::Bytes;
use redis::Value;
use redis::streams::StreamRangeReply;

use super::super::{Entry, Extent, LogId, Position, ReadError, ReadLimits, record};

pub(super) const REMEDY: &str = "Redis holds another log, or came back older or empty: see \"A log in Redis that came back older\" in \
                      docs/operations.md, before anything is appended";

pub(super) fn stream_key(partition: u16) -> String {
    format!("cartwright:{{q{partition}}}:log")
}

pub(super) fn head_key(partition: u16) -> String {
    format!("cartwright:{{q{partition}}}:head")
}

/// The partition of a stream's or a head's key.
pub(super) fn partition_of(key: &[u8]) -> Option<u16> {
    let (number, _) = std::str::from_utf8(key)
        .ok()?
        .strip_prefix("cartwright:{q")?
        .split_once('}')?;
    number.parse().ok()
}

/// The id of the record at `offset`.
pub(super) fn entry_id(offset: u64) -> String {
    format!("{}-0", offset.saturating_add(1))
}

fn offset_of(id: &str) -> Option<u64> {
    id.strip_suffix("-0")?.parse::<u64>().ok()?.checked_sub(1)
}

pub(super) type Head = (Option<String>, Option<u64>, Option<u64>, Option<u64>);

/// What a partition's head says; one that nothing was appended to yet has none.
pub(super) fn extent(log_id: LogId, (log, first, next, bytes): Head) -> Extent {
    let log_id = match log {
        // Another log's stream under this log's name.
        Some(log) => log.parse().map_or(LogId(uuid::Uuid::nil()), LogId),
        None => log_id,
    };
    Extent {
        log_id,
        first: first.unwrap_or(0),
        next: next.unwrap_or(0),
        size_bytes: bytes.unwrap_or(0),
    }
}

pub(super) fn check(position: Position, extent: Extent, from_first: bool) -> Result<(), ReadError> {
    let is_low = from_first && position.offset < extent.first;
    if position.log_id != extent.log_id || position.offset > extent.next || is_low {
        return Err(ReadError::OutOfRange {
            position,
            extent,
            remedy: REMEDY,
        });
    }
    Ok(())
}

/// The records of a reply, which must follow each other without a gap from `from` on.
pub(super) fn decode(
    from: Position,
    entries: StreamRangeReply,
    limits: ReadLimits,
) -> Result<Vec<Entry>, ReadError> {
    let mut decoder = record::Decoder::default();
    let mut decoded = Vec::with_capacity(entries.ids.len());
    let mut size_bytes = 0;
    for (mut entry, offset) in entries.ids.into_iter().zip(from.offset..) {
        let record = match entry.map.remove("r") {
            Some(Value::BulkString(record)) if offset_of(&entry.id) == Some(offset) => Bytes::from(record),
            _ => return Err(gap(from.partition, offset)),
        };
        size_bytes += record.len();
        if !decoded.is_empty() && size_bytes > limits.max_bytes {
            break;
        }
        let event = decoder.decode(&record).map_err(|error| (record, error));
        decoded.push(Entry { offset, event });
    }
    Ok(decoded)
}

pub(super) fn gap(partition: u16, offset: u64) -> ReadError {
    let stream = stream_key(partition);
    ReadError::Corrupt(format!("{stream} lacks the record at offset {offset}; {REMEDY}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_keys_say_which_record_is_meant() {
        for offset in [0, 1, 41, 1 << 52] {
            assert_eq!(offset_of(&entry_id(offset)), Some(offset));
        }
        for bad in ["0-0", "5-1", "x-0", "5", ""] {
            assert_eq!(offset_of(bad), None, "{bad}");
        }
        assert_eq!(partition_of(stream_key(63).as_bytes()), Some(63));
        assert_eq!(partition_of(head_key(0).as_bytes()), Some(0));
        assert_eq!(partition_of(b"cartwright:log"), None);
    }
}
