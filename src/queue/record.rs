//! One versioned encoding of a log record: a plaintext routing header and a payload with a codec byte.
//!
//! Every backend stores these bytes. The header stays readable without a key, so that a payload can be
//! encrypted per subject later (another codec, a key id) without a new format, and so that a record can be
//! routed, filtered by consent or quarantined without its payload being parsed.
//!
//! ```text
//! u8      version (1)
//! u8      bits 0-1 source, 2-3 consent to analytics, 4-5 consent to personalization (0 unstated, 1 granted, 2 denied)
//! u8      which optional fields follow: anonymous, user, claimed user, session, quarantine, schema id, key id
//! u8      payload codec (0: canonical JSON as it is, 1: a record of our own, see `domain::transform::DecisionRecord`)
//! i64     event time, i64 time of receipt (ms, little-endian)
//! text    shop, event id, name, then the optional fields in the order above; each a LEB128 length and UTF-8
//! rest    payload
//! ```
//!
//! - Integrity is the backend's business: there is no checksum in here.
//! - Decoding never panics and never copies the payload. Bits and optional fields that this build does not
//!   know are refused, except the reserved schema id and key id, which are skipped.

use std::sync::Arc;

use bytes::Bytes;

use crate::domain::consent::{Choice, ConsentStatement};
use crate::domain::event::{Event, EventHead, Source};
use crate::domain::ids::{Shop, SubjectId, Timestamp};

const VERSION: u8 = 1;
const CODEC_PLAIN: u8 = 0;
const CODEC_INTERNAL: u8 = 1;

const HAS_ANONYMOUS: u8 = 1;
const HAS_USER: u8 = 1 << 1;
const HAS_CLAIMED_USER: u8 = 1 << 2;
const HAS_SESSION: u8 = 1 << 3;
const HAS_QUARANTINE: u8 = 1 << 4;
const HAS_SCHEMA_ID: u8 = 1 << 5;
const HAS_KEY_ID: u8 = 1 << 6;
const HAS_UNKNOWN: u8 = 1 << 7;

/// The fixed part, and the length prefixes of eight texts of up to 16 KiB.
const OVERHEAD_BYTES: usize = 20 + 8 * 2;

/// Event names differ little: so many recent ones are shared between the events of a batch.
const NAMES_KEPT: usize = 16;

/// Why bytes are not a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("record version {0} is not known to this build")]
    Version(u8),
    #[error("record payload codec {0} is not known to this build")]
    Codec(u8),
    #[error("record ends early or has a field out of range")]
    Malformed,
}

/// Appends the encoding of an event of this head to `out`, up to its payload, which goes behind it and is of about `body_bytes`.
pub(super) fn encode_head(head: &EventHead<'_>, body_bytes: usize, out: &mut Vec<u8>) {
    let optional = [
        (HAS_ANONYMOUS, head.anonymous.map(SubjectId::as_str)),
        (HAS_USER, head.user.map(SubjectId::as_str)),
        (HAS_CLAIMED_USER, head.claimed_user.map(SubjectId::as_str)),
        (HAS_SESSION, head.session),
        (HAS_QUARANTINE, head.quarantine),
    ];
    let mut present = 0;
    let mut size =
        OVERHEAD_BYTES + head.shop.as_str().len() + head.event_id.len() + head.name.len() + body_bytes;
    for (flag, text) in optional {
        if let Some(text) = text {
            present |= flag;
            size += text.len();
        }
    }
    out.reserve(size);

    let mut fixed = [0; 20];
    let (tags, times) = fixed.split_at_mut(4);
    tags.copy_from_slice(&[VERSION, traits_of(head), present, codec_of(head.source)]);
    let (event_time, received_at) = times.split_at_mut(8);
    event_time.copy_from_slice(&head.event_time.0.to_le_bytes());
    received_at.copy_from_slice(&head.received_at.0.to_le_bytes());
    out.extend_from_slice(&fixed);

    put_text(out, head.shop.as_str());
    put_text(out, head.event_id);
    put_text(out, head.name);
    for (_, text) in optional {
        if let Some(text) = text {
            put_text(out, text);
        }
    }
}

fn codec_of(source: Source) -> u8 {
    match source {
        Source::Public | Source::Server | Source::Import => CODEC_PLAIN,
        Source::Internal => CODEC_INTERNAL,
    }
}

fn traits_of(head: &EventHead<'_>) -> u8 {
    let source = match head.source {
        Source::Public => 0,
        Source::Server => 1,
        Source::Import => 2,
        Source::Internal => 3,
    };
    source | choice_bits(head.consent.analytics) << 2 | choice_bits(head.consent.personalization) << 4
}

fn choice_bits(choice: Option<Choice>) -> u8 {
    match choice {
        None => 0,
        Some(Choice::Granted) => 1,
        Some(Choice::Denied) => 2,
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    let mut rest = text.len();
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
    out.extend_from_slice(text.as_bytes());
}

/// Decodes records, sharing the texts that repeat from one to the next (the shop, the event's name).
#[derive(Debug, Default)]
pub(super) struct Decoder {
    shop: Option<Shop>,
    names: Vec<Arc<str>>,
    oldest_name: usize,
}

impl Decoder {
    /// The event that `record` encodes; its `body` is a slice of `record`, so it keeps the bytes around it alive.
    pub(super) fn decode(&mut self, record: &Bytes) -> Result<Event, RecordError> {
        let mut cursor = Cursor { rest: record };
        let version = cursor.byte()?;
        if version != VERSION {
            return Err(RecordError::Version(version));
        }
        let traits = cursor.byte()?;
        let present = cursor.byte()?;
        let codec = cursor.byte()?;
        if traits & 0b1100_0000 != 0 || present & HAS_UNKNOWN != 0 {
            return Err(RecordError::Malformed);
        }
        let source = match traits & 0b11 {
            0 => Source::Public,
            1 => Source::Server,
            2 => Source::Import,
            _ => Source::Internal,
        };
        if codec != codec_of(source) {
            return Err(RecordError::Codec(codec));
        }
        let consent = ConsentStatement {
            analytics: choice(traits >> 2)?,
            personalization: choice(traits >> 4)?,
        };
        let event_time = cursor.time()?;
        let received_at = cursor.time()?;
        let shop = self.shop(cursor.text()?)?;
        let event_id = cursor.text()?.into();
        let name = self.name(cursor.text()?);
        let mut optional = |flag| {
            if present & flag == 0 {
                Ok(None)
            } else {
                cursor.text().map(Some)
            }
        };
        let anonymous = optional(HAS_ANONYMOUS)?.map(SubjectId::from_stored);
        let user = optional(HAS_USER)?.map(SubjectId::from_stored);
        let claimed_user = optional(HAS_CLAIMED_USER)?.map(SubjectId::from_stored);
        let session = optional(HAS_SESSION)?.map(Arc::from);
        let quarantine = optional(HAS_QUARANTINE)?.map(Arc::from);
        optional(HAS_SCHEMA_ID)?;
        optional(HAS_KEY_ID)?;
        let body = record.slice_ref(cursor.rest);
        Ok(Event {
            shop,
            source,
            event_id,
            name,
            anonymous,
            user,
            claimed_user,
            session,
            event_time,
            received_at,
            consent,
            quarantine,
            body,
        })
    }

    fn shop(&mut self, text: &str) -> Result<Shop, RecordError> {
        if let Some(shop) = self.shop.as_ref().filter(|shop| shop.as_str() == text) {
            return Ok(shop.clone());
        }
        let shop = Shop::try_from(text.to_owned()).map_err(|_| RecordError::Malformed)?;
        self.shop = Some(shop.clone());
        Ok(shop)
    }

    fn name(&mut self, text: &str) -> Arc<str> {
        if let Some(name) = self.names.iter().find(|name| ***name == *text) {
            return Arc::clone(name);
        }
        let name: Arc<str> = text.into();
        if self.names.len() < NAMES_KEPT {
            self.names.push(Arc::clone(&name));
        } else if let Some(slot) = self.names.get_mut(self.oldest_name) {
            *slot = Arc::clone(&name);
            self.oldest_name = (self.oldest_name + 1) % NAMES_KEPT;
        }
        name
    }
}

fn choice(bits: u8) -> Result<Option<Choice>, RecordError> {
    match bits & 0b11 {
        0 => Ok(None),
        1 => Ok(Some(Choice::Granted)),
        2 => Ok(Some(Choice::Denied)),
        _ => Err(RecordError::Malformed),
    }
}

struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn byte(&mut self) -> Result<u8, RecordError> {
        let (first, rest) = self.rest.split_first().ok_or(RecordError::Malformed)?;
        self.rest = rest;
        Ok(*first)
    }

    fn time(&mut self) -> Result<Timestamp, RecordError> {
        let (bytes, rest) = self.rest.split_first_chunk::<8>().ok_or(RecordError::Malformed)?;
        self.rest = rest;
        Ok(Timestamp(i64::from_le_bytes(*bytes)))
    }

    fn text(&mut self) -> Result<&'a str, RecordError> {
        let mut size = 0usize;
        // Four bytes of seven bits reach 256 MiB, far beyond any record.
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            size |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let (text, rest) = self.rest.split_at_checked(size).ok_or(RecordError::Malformed)?;
                self.rest = rest;
                return std::str::from_utf8(text).map_err(|_| RecordError::Malformed);
            }
        }
        Err(RecordError::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::ids::Environment;

    fn decode(record: &Bytes) -> Result<Event, RecordError> {
        Decoder::default().decode(record)
    }

    fn encoded(event: &Event) -> Bytes {
        let mut out = Vec::new();
        encode_head(&event.head(), event.body.len(), &mut out);
        out.extend_from_slice(&event.body);
        out.into()
    }

    fn text() -> impl Strategy<Value = Arc<str>> {
        prop_oneof![".{0,12}", "[a-z]{120,300}"].prop_map(|text: String| text.into())
    }

    fn consent() -> impl Strategy<Value = Option<Choice>> {
        prop_oneof![
            Just(None),
            Just(Some(Choice::Granted)),
            Just(Some(Choice::Denied))
        ]
    }

    prop_compose! {
        fn event()(
            shop in "[a-z0-9_-]{1,64}", live in any::<bool>(),
            source in prop_oneof![Just(Source::Public), Just(Source::Server), Just(Source::Import), Just(Source::Internal)],
            event_id in text(), name in text(),
            anonymous in proptest::option::of(text()), user in proptest::option::of(text()),
            claimed_user in proptest::option::of(text()), session in proptest::option::of(text()),
            quarantine in proptest::option::of(text()),
            times in any::<(i64, i64)>(), analytics in consent(), personalization in consent(),
            body in proptest::collection::vec(any::<u8>(), 0..600),
        ) -> Event {
            let environment = if live { Environment::Live } else { Environment::Test };
            let subject = |text: Option<Arc<str>>| text.map(|text| SubjectId::from_stored(&text));
            Event {
                shop: Shop::new(&shop, environment).unwrap(),
                source, event_id, name,
                anonymous: subject(anonymous), user: subject(user), claimed_user: subject(claimed_user),
                session, quarantine,
                event_time: Timestamp(times.0), received_at: Timestamp(times.1),
                consent: ConsentStatement { analytics, personalization },
                body: body.into(),
            }
        }
    }

    proptest! {
        #[test]
        fn an_event_survives_its_encoding(event in event()) {
            let record = encoded(&event);
            let decoded = decode(&record).unwrap();
            prop_assert_eq!(&decoded, &event);
            let payload_at = record.len() - event.body.len();
            prop_assert!(event.body.is_empty() || decoded.body.as_ptr() == record[payload_at..].as_ptr());
        }

        #[test]
        fn decoding_any_bytes_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes.into());
        }

        #[test]
        fn decoding_a_damaged_record_never_panics(event in event(), at in any::<prop::sample::Index>(), bit in 0..8u8, cut in any::<prop::sample::Index>()) {
            let mut bytes = encoded(&event).to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            bytes.truncate(cut.index(bytes.len() + 1));
            let _ = decode(&bytes.into());
        }

        #[test]
        fn one_decoder_reads_many_events_alike(events in proptest::collection::vec(event(), 1..40)) {
            let mut decoder = Decoder::default();
            for event in &events {
                prop_assert_eq!(&decoder.decode(&encoded(event)).unwrap(), event);
            }
        }
    }

    fn plain() -> Event {
        Event {
            shop: Shop::new("acme", Environment::Live).unwrap(),
            source: Source::Server,
            event_id: "e1".into(),
            name: "Product Viewed".into(),
            anonymous: None,
            user: Some(SubjectId::from_stored("u:k.x")),
            claimed_user: None,
            session: None,
            event_time: Timestamp(1),
            received_at: Timestamp(2),
            consent: ConsentStatement {
                analytics: Some(Choice::Granted),
                personalization: Some(Choice::Denied),
            },
            quarantine: None,
            body: Bytes::from_static(b"{}"),
        }
    }

    #[test]
    fn the_first_version_stays_readable() {
        let bytes = b"\x01\x25\x02\x00\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x09acme/live\x02e1\x0eProduct Viewed\x05u:k.x{}";
        assert_eq!(encoded(&plain()), &bytes[..]);
        assert_eq!(decode(&Bytes::from_static(bytes)).unwrap(), plain());
    }

    #[test]
    fn unknown_versions_and_codecs_are_named() {
        let mut bytes = encoded(&plain()).to_vec();
        bytes[3] = 7;
        assert_eq!(decode(&bytes.clone().into()), Err(RecordError::Codec(7)));
        bytes[0] = 2;
        assert_eq!(decode(&bytes.into()), Err(RecordError::Version(2)));
    }

    #[test]
    fn reserved_fields_are_skipped() {
        let mut bytes = encoded(&plain()).to_vec();
        bytes[2] |= HAS_SCHEMA_ID | HAS_KEY_ID;
        let payload_at = bytes.len() - 2;
        bytes.splice(payload_at..payload_at, *b"\x02s1\x02k1");
        assert_eq!(decode(&bytes.into()).unwrap(), plain());
    }
}
