//! How a document and a part are stored.
//!
//! ```text
//! document = 3 | version, as_of, linked user, stored at | body
//! part     = 3 | body
//! body     = generation, consent, events, first seen, last seen, last order, checkout step | section × 10
//! section  = length in bytes | count | entries
//! ```
//!
//! All of it is postcard, which writes it and decodes what is decoded whole; what is read in place is read by a [`Cursor`]. The sections are the collections of a part's [`State`], in its order: totals, five affinities, recent items, cart
//! (the greatest clear before the count), caps, assignments. So whoever wants one of them steps over the others by their lengths.
//!
//! - The sections fill what follows the head exactly. Whether their entries can be read is found out by whoever reads them.
//! - No allocation is made for a count that the bytes cannot hold.
//! - The former format, 2, had the same fields in the same order without the lengths. It is read, and no longer written.

use std::marker::PhantomData;

use serde::{Deserialize, Serialize};

use super::cursor::{Cursor, InPlace};
use super::document::{AsOf, DecodeError, Document, Version};
use super::mark::Mark;
use super::{Affinity, ProfilePart, State};
use crate::domain::compact;
use crate::domain::consent::{Choice, Consent, Stated};
use crate::domain::ids::{SubjectId, Timestamp};

/// The format written by this build. A build that changes a stored type takes the next number and keeps reading
/// the former one: warehouses and decision records hold it for as long as nobody writes them anew.
const CURRENT: u8 = 3;

/// Only read.
const FORMER: u8 = 2;

/// Enough for a profile of a shopper who came a few times; more grows it.
const USUAL_BYTES: usize = 512;

pub(super) const TOTALS: usize = 0;
pub(super) const RECENT: usize = 6;
pub(super) const CART: usize = 7;
pub(super) const CAPS: usize = 8;
pub(super) const ASSIGNMENTS: usize = 9;
const SECTIONS: usize = 10;

pub(super) const fn weights(affinity: Affinity) -> usize {
    TOTALS + 1 + affinity.index()
}

/// In which of the known formats bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Current,
    Former,
}

/// What a document says besides its part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct DocumentHead {
    pub(super) version: Version,
    pub(super) as_of: AsOf,
    pub(super) linked_user: Option<SubjectId>,
    pub(super) stored_at: Timestamp,
}

/// What a part says besides its collections.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct PartHead {
    pub(super) generation: u32,
    pub(super) consent: Consent,
    pub(super) events: i64,
    pub(super) first_seen: Option<Timestamp>,
    pub(super) last_seen: Option<Timestamp>,
    pub(super) last_order: Option<Timestamp>,
    pub(super) checkout_step: Option<(Mark, u16)>,
}

impl PartHead {
    fn of(part: &ProfilePart) -> Self {
        let state = &part.state;
        PartHead {
            generation: part.generation,
            consent: part.consent,
            events: state.events,
            first_seen: state.first_seen,
            last_seen: state.last_seen,
            last_order: state.last_order,
            checkout_step: state.checkout_step,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Section {
    start: u32,
    len: u32,
}

/// Where the sections are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Sections([Section; SECTIONS]);

impl Sections {
    /// Those that `rest`, the end of `bytes`, consists of.
    fn find(bytes: &[u8], mut rest: Cursor<'_>) -> Option<Self> {
        let mut sections = Sections::default();
        for section in &mut sections.0 {
            let len = rest.narrow()?;
            let start = u32::try_from(bytes.len().checked_sub(rest.rest().len())?).ok()?;
            rest.bytes(u64::from(len))?;
            *section = Section { start, len };
        }
        rest.rest().is_empty().then_some(sections)
    }

    /// One section of the bytes in which they were found.
    pub(super) fn get<'a>(&self, bytes: &'a [u8], section: usize) -> &'a [u8] {
        let Some(Section { start, len }) = self.0.get(section) else {
            return &[];
        };
        let from = bytes.get(*start as usize..).unwrap_or_default();
        from.get(..*len as usize).unwrap_or_default()
    }
}

/// Entries of a section, decoded one after the other out of its bytes. They end at the first that cannot be read.
#[derive(Debug, Clone)]
pub(super) struct Entries<'a, T> {
    rest: Cursor<'a>,
    left: u64,
    entry: PhantomData<T>,
}

impl<'a, T: InPlace<'a>> Entries<'a, T> {
    pub(super) fn of(section: &'a [u8]) -> Self {
        Entries::behind(Cursor::new(section))
    }

    /// Those that follow in a section, behind their count. Where that cannot be read, there are none.
    pub(super) fn behind(mut rest: Cursor<'a>) -> Self {
        Entries {
            left: rest.unsigned().unwrap_or(0),
            rest,
            entry: PhantomData,
        }
    }
}

impl<'a, T: InPlace<'a>> Iterator for Entries<'a, T> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        self.left = self.left.checked_sub(1)?;
        let entry = T::read(&mut self.rest);
        if entry.is_none() {
            self.left = 0;
        }
        entry
    }
}

/// An encoded document, and where what it says is.
pub(super) struct Encoded {
    pub(super) bytes: Vec<u8>,
    pub(super) document: DocumentHead,
    pub(super) part: PartHead,
    pub(super) sections: Sections,
}

pub(super) fn write(document: &Document) -> Encoded {
    let head = DocumentHead {
        version: document.version,
        as_of: document.as_of.clone(),
        linked_user: document.linked_user.clone(),
        stored_at: document.stored_at,
    };
    let mut writer = Writer::new();
    writer.append(&head);
    let part = writer.part(&document.part);
    Encoded {
        bytes: writer.bytes,
        document: head,
        part,
        sections: writer.sections,
    }
}

pub(super) fn write_part(part: &ProfilePart) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.part(part);
    writer.bytes
}

/// Writes everything into one vector.
struct Writer {
    bytes: Vec<u8>,
    sections: Sections,
}

impl Writer {
    fn new() -> Self {
        let mut bytes = Vec::with_capacity(USUAL_BYTES);
        bytes.push(CURRENT);
        Writer {
            bytes,
            sections: Sections::default(),
        }
    }

    fn part(&mut self, part: &ProfilePart) -> PartHead {
        let head = PartHead::of(part);
        let state = &part.state;
        self.append(&head);
        self.section(TOTALS, &state.totals);
        for affinity in Affinity::ALL {
            self.section(weights(affinity), &state.affinities[affinity.index()]);
        }
        self.section(RECENT, &state.recent);
        self.section(CART, &state.cart);
        self.section(CAPS, &state.caps);
        self.section(ASSIGNMENTS, &state.assignments);
        head
    }

    fn append<T: Serialize>(&mut self, value: &T) {
        compact::append(value, &mut self.bytes);
    }

    /// The length is known afterwards. Room is left for one byte of it, which does for most sections; a longer one is moved.
    fn section<T: Serialize>(&mut self, section: usize, entries: &T) {
        let at = self.bytes.len();
        self.bytes.push(0);
        self.append(entries);
        let len = u32::try_from(self.bytes.len().saturating_sub(at + 1)).unwrap_or(u32::MAX);
        let mut room = [0; 5];
        let prefix: &[u8] = postcard::to_slice(&len, &mut room).map_or(&[], |prefix| prefix);
        self.bytes.splice(at..=at, prefix.iter().copied());
        let start = u32::try_from(at + prefix.len()).unwrap_or(u32::MAX);
        if let Some(place) = self.sections.0.get_mut(section) {
            *place = Section { start, len };
        }
    }
}

/// The format of encoded bytes, and what follows it.
pub(super) fn split(bytes: &[u8]) -> Result<(Format, &[u8]), DecodeError> {
    match bytes.split_first() {
        Some((&CURRENT, body)) => Ok((Format::Current, body)),
        Some((&FORMER, body)) => Ok((Format::Former, body)),
        Some((format, _)) => Err(DecodeError::Format(*format)),
        None => Err(DecodeError::Malformed),
    }
}

/// What a document says, but for its entries; `body` is what follows the format in `bytes`.
pub(super) fn read_heads(
    bytes: &[u8],
    body: &[u8],
) -> Result<(DocumentHead, PartHead, Sections), DecodeError> {
    let mut cursor = Cursor::new(body);
    let mut read = || {
        let document = DocumentHead::read(&mut cursor)?;
        let part = PartHead::read(&mut cursor)?;
        Some((document, part, Sections::find(bytes, cursor)?))
    };
    read().ok_or(DecodeError::Malformed)
}

impl<'a> InPlace<'a> for DocumentHead {
    fn read(cursor: &mut Cursor<'a>) -> Option<Self> {
        let version = Version {
            epoch: cursor.unsigned()?,
            n: cursor.unsigned()?,
        };
        Some(DocumentHead {
            version,
            as_of: AsOf::read(cursor)?,
            linked_user: cursor.option(<&str>::read)?.map(SubjectId::from_stored),
            stored_at: time(cursor)?,
        })
    }
}

impl<'a> InPlace<'a> for PartHead {
    fn read(cursor: &mut Cursor<'a>) -> Option<Self> {
        let generation = cursor.narrow()?;
        let consent = Consent {
            analytics: cursor.option(stated)?,
            personalization: cursor.option(stated)?,
        };
        Some(PartHead {
            generation,
            consent,
            events: cursor.signed()?,
            first_seen: cursor.option(time)?,
            last_seen: cursor.option(time)?,
            last_order: cursor.option(time)?,
            checkout_step: cursor.option(|cursor| Some((Mark::read(cursor)?, cursor.narrow()?)))?,
        })
    }
}

fn time(cursor: &mut Cursor<'_>) -> Option<Timestamp> {
    cursor.signed().map(Timestamp)
}

fn stated(cursor: &mut Cursor<'_>) -> Option<Stated> {
    Some(Stated {
        received_at: time(cursor)?,
        choice: match cursor.unsigned()? {
            0 => Choice::Granted,
            1 => Choice::Denied,
            _ => return None,
        },
    })
}

/// A whole part.
pub(super) fn read_part(body: &[u8]) -> Result<ProfilePart, DecodeError> {
    let (head, rest) = take::<PartHead>(body)?;
    let sections = Sections::find(body, Cursor::new(rest)).ok_or(DecodeError::Malformed)?;
    let section = |at| sections.get(body, at);
    let mut affinities: [_; Affinity::ALL.len()] = Default::default();
    for affinity in Affinity::ALL {
        affinities[affinity.index()] = whole(section(weights(affinity)))?;
    }
    Ok(ProfilePart {
        generation: head.generation,
        consent: head.consent,
        state: State {
            events: head.events,
            first_seen: head.first_seen,
            last_seen: head.last_seen,
            last_order: head.last_order,
            checkout_step: head.checkout_step,
            totals: whole(section(TOTALS))?,
            affinities,
            recent: whole(section(RECENT))?,
            cart: whole(section(CART))?,
            caps: whole(section(CAPS))?,
            assignments: whole(section(ASSIGNMENTS))?,
        },
    })
}

/// A value in front of others, and what follows it.
#[inline]
pub(super) fn take<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<(T, &'a [u8]), DecodeError> {
    postcard::take_from_bytes(bytes).map_err(|_| DecodeError::Malformed)
}

/// The value that the bytes are.
pub(super) fn whole<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, DecodeError> {
    match take(bytes)? {
        (value, []) => Ok(value),
        _ => Err(DecodeError::Malformed),
    }
}
