//! The order of events inside a part, compactly.
//!
//! A part compares events by time, ties by event id ([`Stamp`]). It keeps a 32-bit hash of the id in its place:
//! the order stays total and the same on every node, a part shrinks by more than 30 bytes for each one kept, and decoding
//! allocates nothing for it. Where even the hashes agree, the value breaks the tie, so the laws hold regardless.

use serde::{Deserialize, Serialize};

use super::cursor::{Cursor, InPlace};
use crate::domain::ids::{Stamp, Timestamp};

/// `(time, hash of the event id)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct Mark {
    pub(super) time: Timestamp,
    tie: u32,
}

impl From<&Stamp> for Mark {
    fn from(stamp: &Stamp) -> Mark {
        Mark {
            time: stamp.time,
            tie: (stable_hash(stamp.event_id.as_bytes()) >> 32) as u32,
        }
    }
}

impl Mark {
    /// Steps over a mark: what is stored is in order already.
    #[inline]
    pub(super) fn skip(cursor: &mut Cursor<'_>) -> Option<()> {
        cursor.skip()?;
        cursor.skip()
    }
}

impl<'a> InPlace<'a> for Mark {
    #[inline]
    fn read(cursor: &mut Cursor<'a>) -> Option<Self> {
        Some(Mark {
            time: Timestamp(cursor.signed()?),
            tie: cursor.narrow()?,
        })
    }
}

/// FNV-1a with a final mix: stable for ever, since its values are stored.
pub(super) fn stable_hash(bytes: &[u8]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash ^= hash >> 32;
    hash.wrapping_mul(0xd6e8_feb8_6659_fd93)
}
