//! The one compact value that the hot store, the near cache and the warehouse keep of a profile.
//!
//! Version and `as_of` are outside the algebra: they say *which* events a part was folded from, not what those add up
//! to, and are set by whoever stores the document. How it is encoded is told in [`super::format`].

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::ProfilePart;
use super::cursor::{Cursor, InPlace};
use super::format::{self, DocumentHead, Format};
use crate::domain::ids::{SubjectId, Timestamp};

/// Orders the documents of one subject. Another epoch means another warehouse life: not comparable in meaning,
/// so a reader treats it as a miss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Version {
    pub epoch: u64,
    pub n: u64,
}

/// Per partition, the offset of the next event that is *not* yet folded. Sorted by partition.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AsOf(SmallVec<[(u16, u64); 2]>);

impl AsOf {
    /// Whether the record at `offset` of `partition` is folded already.
    pub fn covers(&self, partition: u16, offset: u64) -> bool {
        self.0
            .iter()
            .any(|(have, next)| *have == partition && offset < *next)
    }

    /// Moves a partition on to `next`, never back.
    pub fn advance(&mut self, partition: u16, next: u64) {
        match self.0.binary_search_by_key(&partition, |(have, _)| *have) {
            Ok(at) => self.0[at].1 = self.0[at].1.max(next),
            Err(at) => self.0.insert(at, (partition, next)),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        self.0.iter().copied()
    }
}

impl<'a> InPlace<'a> for AsOf {
    fn read(cursor: &mut Cursor<'a>) -> Option<Self> {
        let mut partitions = SmallVec::new();
        for _ in 0..cursor.unsigned()? {
            partitions.push((cursor.narrow()?, cursor.unsigned()?));
        }
        Some(AsOf(partitions))
    }
}

/// A stored profile: the linked parts of a customer joined ([`ProfilePart::join`]), or one guest's part. It is what
/// is folded and written; a decision reads a [`Snapshot`](super::Snapshot).
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
pub struct Document {
    pub version: Version,
    pub as_of: AsOf,
    /// For a guest, the user whose document its part belongs to.
    pub linked_user: Option<SubjectId>,
    /// When the document was written, by the clock of whoever stored it; zero where it never was.
    pub stored_at: Timestamp,
    pub part: ProfilePart,
}

/// Why bytes are not a stored profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("profile format {0} is not known to this build")]
    Format(u8),
    #[error("profile ends early or has a field out of range")]
    Malformed,
}

impl Document {
    pub fn encode(&self) -> Vec<u8> {
        format::write(self).bytes
    }

    /// # Errors
    /// [`DecodeError`] where the bytes are not one whole document of a known format.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let body = match format::split(bytes)? {
            (Format::Current, body) => body,
            (Format::Former, body) => return format::whole(body),
        };
        let (head, body) = format::take::<DocumentHead>(body)?;
        Ok(Document {
            version: head.version,
            as_of: head.as_of,
            linked_user: head.linked_user,
            stored_at: head.stored_at,
            part: format::read_part(body)?,
        })
    }
}

impl ProfilePart {
    pub fn encode(&self) -> Vec<u8> {
        format::write_part(self)
    }

    /// # Errors
    /// [`DecodeError`] where the bytes are not one whole part of a known format.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        match format::split(bytes)? {
            (Format::Current, body) => format::read_part(body),
            (Format::Former, body) => format::whole(body),
        }
    }
}
