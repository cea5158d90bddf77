//! The one compact value that the hot store, the near cache and the warehouse keep of a profile.
//!
//! Format: one version byte, then postcard. Version and `as_of` are outside the algebra: they say *which* events
//! a part was folded from, not what those add up to, and are set by whoever stores the document.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::ProfilePart;
use crate::domain::ids::{SubjectId, Timestamp};

/// The format written by this build. A build that changes a stored type takes the next number and keeps reading
/// the former one, or the document counts as absent and is read from the warehouse's parts.
const FORMAT: u8 = 2;

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

/// A stored profile: the linked parts of a customer joined ([`ProfilePart::join`]), or one guest's part.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
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
        encode(self)
    }

    /// # Errors
    /// [`DecodeError`] where the bytes are not one whole document of a known format.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode(bytes)
    }
}

impl ProfilePart {
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// # Errors
    /// [`DecodeError`] where the bytes are not one whole part of a known format.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode(bytes)
    }
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(512);
    bytes.push(FORMAT);
    // Writing to a vector fails only where a length is unknown, which none of our types has.
    postcard::to_extend(value, bytes).unwrap_or_default()
}

fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, DecodeError> {
    match bytes.split_first() {
        Some((&FORMAT, body)) => match postcard::take_from_bytes(body) {
            Ok((value, [])) => Ok(value),
            _ => Err(DecodeError::Malformed),
        },
        Some((format, _)) => Err(DecodeError::Format(*format)),
        None => Err(DecodeError::Malformed),
    }
}
