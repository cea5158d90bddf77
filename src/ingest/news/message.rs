//! Events with their places in the log, as one node sends them to the others.
//!
//! ```text
//! u8       version (1)
//! [u8; 16] the node that sends
//! u32      how many events follow
//! of each  u16 partition, u64 offset
//! of each  u32 size, and the record as it is in the log, see `queue::Records`
//! ```
//!
//! Numbers are little-endian. There is no checksum: the connection has one. A message is used whole or not at all.

use uuid::Uuid;

use crate::domain::event::Event;
use crate::queue::Records;

const VERSION: u8 = 1;
const PLACE_BYTES: usize = 2 + 8;

/// Not a message, or one of another build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message of other nodes cannot be read")]
pub(super) struct Unreadable;

/// A message in the making.
#[derive(Debug, Default)]
pub(super) struct Message {
    places: Vec<u8>,
    records: Records,
}

impl Message {
    pub(super) fn push(&mut self, partition: u16, offset: u64, event: &Event) {
        self.records.push(event);
        self.places.extend_from_slice(&partition.to_le_bytes());
        self.places.extend_from_slice(&offset.to_le_bytes());
    }

    /// How many events it holds.
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(super) fn size_bytes(&self) -> usize {
        self.places.len() + self.records.size_bytes()
    }

    /// Forgets all events and keeps their memory.
    pub(super) fn clear(&mut self) {
        self.places.clear();
        self.records.clear();
    }

    pub(super) fn encode(&self, sender: Uuid) -> Vec<u8> {
        let count = (self.len() as u32).to_le_bytes();
        let parts: [&[u8]; 5] = [
            &[VERSION],
            sender.as_bytes(),
            &count,
            &self.places,
            self.records.bytes(),
        ];
        parts.concat()
    }
}

/// An event that is durable at its place.
#[derive(Debug, PartialEq)]
pub(super) struct Heard {
    pub(super) partition: u16,
    pub(super) offset: u64,
    pub(super) event: Event,
}

/// The events of a message; none of one that `own` sent itself.
///
/// # Errors
/// [`Unreadable`], and then nothing of it is to be used.
pub(super) fn decode(message: &[u8], own: Uuid) -> Result<Vec<Heard>, Unreadable> {
    let (version, rest) = message.split_first().ok_or(Unreadable)?;
    if *version != VERSION {
        return Err(Unreadable);
    }
    let (sender, rest) = rest.split_first_chunk::<16>().ok_or(Unreadable)?;
    if sender == own.as_bytes() {
        return Ok(Vec::new());
    }
    let (count, rest) = rest.split_first_chunk::<4>().ok_or(Unreadable)?;
    let (places, records) = (u32::from_le_bytes(*count) as usize)
        .checked_mul(PLACE_BYTES)
        .and_then(|size| rest.split_at_checked(size))
        .ok_or(Unreadable)?;
    let mut events = Records::read(records);
    let heard = places.chunks_exact(PLACE_BYTES).map(|place| {
        let (partition, offset) = place.split_first_chunk::<2>().ok_or(Unreadable)?;
        let offset = offset.first_chunk::<8>().ok_or(Unreadable)?;
        Ok(Heard {
            partition: u16::from_le_bytes(*partition),
            offset: u64::from_le_bytes(*offset),
            event: events.next().ok_or(Unreadable)?.map_err(|_| Unreadable)?,
        })
    });
    let heard = heard.collect::<Result<Vec<_>, _>>()?;
    match events.next() {
        None => Ok(heard),
        Some(_) => Err(Unreadable),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::domain::consent::ConsentStatement;
    use crate::domain::event::Source;
    use crate::domain::ids::{Environment, Shop, SubjectId, Timestamp};

    const SENDER: Uuid = Uuid::from_u128(1);
    const OTHER: Uuid = Uuid::from_u128(2);

    pub(crate) fn event(id: &str) -> Event {
        Event {
            shop: Shop::new("acme", Environment::Live).unwrap(),
            source: Source::Public,
            event_id: id.into(),
            name: "Product Viewed".into(),
            anonymous: Some(SubjectId::from_stored("a:k1.x")),
            user: None,
            claimed_user: None,
            session: None,
            event_time: Timestamp(1),
            received_at: Timestamp(2),
            consent: ConsentStatement::default(),
            quarantine: None,
            body: Bytes::from_static(b"{}"),
        }
    }

    fn three() -> Message {
        let mut message = Message::default();
        for (n, id) in ["one", "two", "three"].into_iter().enumerate() {
            message.push(n as u16, u64::MAX - n as u64, &event(id));
        }
        message
    }

    #[test]
    fn events_come_with_their_places_to_all_but_the_sender() {
        let mut message = three();
        let bytes = message.encode(SENDER);
        assert_eq!(decode(&bytes, SENDER), Ok(Vec::new()));
        let heard = decode(&bytes, OTHER).unwrap();
        let expected = ["one", "two", "three"].into_iter().enumerate();
        let expected = expected.map(|(n, id)| Heard {
            partition: n as u16,
            offset: u64::MAX - n as u64,
            event: event(id),
        });
        assert_eq!(heard, expected.collect::<Vec<_>>());
        assert_eq!(message.size_bytes() + 1 + 16 + 4, bytes.len());
        message.clear();
        assert!(message.is_empty() && message.size_bytes() == 0);
        assert_eq!(decode(&message.encode(SENDER), OTHER), Ok(Vec::new()));
    }

    #[test]
    fn what_is_torn_longer_or_of_another_build_is_refused_whole() {
        let bytes = three().encode(SENDER);
        for end in 0..bytes.len() {
            assert_eq!(decode(&bytes[..end], OTHER), Err(Unreadable), "{end}");
        }
        let longer = [&bytes[..], &[0; 4]].concat();
        assert_eq!(decode(&longer, OTHER), Err(Unreadable));
        let mut newer = bytes.clone();
        newer[0] += 1;
        assert_eq!(decode(&newer, OTHER), Err(Unreadable));
        let mut boundless = bytes;
        boundless[17..21].fill(0xff);
        assert_eq!(decode(&boundless, OTHER), Err(Unreadable));
    }
}
