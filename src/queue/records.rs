//! Encoded records on their way into one partition.
//!
//! A record is encoded once, by whoever makes it, into the buffer that a backend appends. What makes thousands of them a second
//! needs no [`Event`] for that: its head is borrowed, and its body writes itself.

use bytes::Bytes;

use super::record::{self, Decoder, RecordError};
use crate::domain::event::{Event, EventHead};

/// In front of each record: its length as a little-endian `u32`.
pub(super) const PREFIX_BYTES: usize = 4;

/// Records in the order in which they are to be appended.
#[derive(Debug, Clone, Default)]
pub struct Records {
    /// Each behind its length.
    bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
}

impl Records {
    pub fn push(&mut self, event: &Event) {
        self.push_with(&event.head(), event.body.len(), |out| {
            out.extend_from_slice(&event.body)
        });
    }

    /// Takes an event of this head; `body` appends its body, of about `body_bytes`. Should it panic, nothing was taken.
    pub fn push_with(&mut self, head: &EventHead<'_>, body_bytes: usize, body: impl FnOnce(&mut Vec<u8>)) {
        let start = self.size_bytes();
        self.bytes.truncate(start);
        self.bytes.extend_from_slice(&[0; PREFIX_BYTES]);
        record::encode_head(head, body_bytes, &mut self.bytes);
        body(&mut self.bytes);
        let size = (self.bytes.len() - start - PREFIX_BYTES) as u32;
        if let Some(prefix) = self.bytes.get_mut(start..start + PREFIX_BYTES) {
            prefix.copy_from_slice(&size.to_le_bytes());
        }
        self.ends.push(self.bytes.len());
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Forgets all records and keeps their memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    pub fn size_bytes(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    /// What the memory that it keeps takes.
    pub fn capacity_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// The event of the record at `index`.
    ///
    /// # Errors
    /// [`RecordError`] where there is none.
    pub fn event(&self, index: usize) -> Result<Event, RecordError> {
        let record = self.iter().nth(index).ok_or(RecordError::Malformed)?;
        Decoder::default().decode(&Bytes::copy_from_slice(record))
    }

    /// The events of what [`Records::bytes`] gave, none of which keeps `bytes` alive.
    pub fn read(mut bytes: &[u8]) -> impl Iterator<Item = Result<Event, RecordError>> {
        let mut decoder = Decoder::default();
        std::iter::from_fn(move || {
            if bytes.is_empty() {
                return None;
            }
            let next = bytes
                .split_first_chunk::<PREFIX_BYTES>()
                .and_then(|(size, rest)| rest.split_at_checked(u32::from_le_bytes(*size) as usize));
            let Some((record, rest)) = next else {
                bytes = &[];
                return Some(Err(RecordError::Malformed));
            };
            bytes = rest;
            Some(decoder.decode(&Bytes::copy_from_slice(record)))
        })
    }

    /// All of them, each behind its length.
    pub fn bytes(&self) -> &[u8] {
        // Behind the last there may be one whose body was never finished.
        self.bytes.get(..self.size_bytes()).unwrap_or_default()
    }

    /// Each without its length.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().filter_map(move |end| {
            let record = self.bytes.get(start + PREFIX_BYTES..*end);
            start = *end;
            record
        })
    }
}

impl PartialEq for Records {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl<'e> FromIterator<&'e Event> for Records {
    fn from_iter<I: IntoIterator<Item = &'e Event>>(events: I) -> Self {
        let mut records = Records::default();
        for event in events {
            records.push(event);
        }
        records
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::domain::consent::ConsentStatement;
    use crate::domain::event::Source;
    use crate::domain::ids::{Environment, Shop, Timestamp};

    fn event(id: &str, body: &'static [u8]) -> Event {
        Event {
            shop: Shop::new("acme", Environment::Live).unwrap(),
            source: Source::Server,
            event_id: id.into(),
            name: "Item Viewed".into(),
            anonymous: None,
            user: None,
            claimed_user: None,
            session: Some("s".into()),
            event_time: Timestamp(1),
            received_at: Timestamp(2),
            consent: ConsentStatement::default(),
            quarantine: None,
            body: Bytes::from_static(body),
        }
    }

    #[test]
    fn events_come_back_by_their_places() {
        let events = [event("1", b"{}"), event("2", b""), event("3", b"[1]")];
        let mut records: Records = events.iter().collect();
        assert_eq!((records.len(), records.size_bytes()), (3, records.bytes().len()));
        for (index, event) in events.iter().enumerate() {
            assert_eq!(records.event(index).as_ref(), Ok(event));
        }
        assert_eq!(records.event(3), Err(RecordError::Malformed));
        records.clear();
        assert!(records.is_empty() && records.bytes().is_empty());
    }

    #[test]
    fn bytes_are_read_to_their_end_or_to_where_they_are_torn() {
        let events = [event("1", b"{}"), event("2", b""), event("3", b"[1]")];
        let records: Records = events.iter().collect();
        let read: Result<Vec<_>, _> = Records::read(records.bytes()).collect();
        assert_eq!(read, Ok(events.to_vec()));
        assert_eq!(Records::read(&[]).count(), 0);
        for end in 1..records.size_bytes() {
            let whole = records.ends.iter().filter(|at| **at <= end).count();
            let read: Vec<_> = Records::read(&records.bytes()[..end]).collect();
            assert_eq!(read.iter().filter(|event| event.is_ok()).count(), whole, "{end}");
            assert_eq!(
                read.len(),
                whole + usize::from(!records.ends.contains(&end)),
                "{end}"
            );
        }
    }

    #[test]
    fn a_body_that_panics_leaves_nothing_behind() {
        let (first, second) = (event("1", b"{}"), event("2", b"[]"));
        let mut records: Records = [&first].into_iter().collect();
        let torn = catch_unwind(AssertUnwindSafe(|| {
            records.push_with(&second.head(), 0, |out| {
                out.push(b'[');
                panic!("half-way");
            });
        }));
        assert!(torn.is_err());
        assert_eq!(records, [&first].into_iter().collect());
        records.push(&second);
        assert_eq!(records, [&first, &second].into_iter().collect());
    }
}
