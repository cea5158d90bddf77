//! One profile as a value in Redis.
//!
//! ```text
//! format u8 = 1 | epoch u64 | n u64 | the encoded document
//! ```
//!
//! Big-endian numbers at fixed places, so that the script on the server compares versions without decoding anything,
//! and a reader takes the document out without a copy. The document has a format byte of its own.

use bytes::{Buf as _, Bytes};

use super::super::HotProfile;
use crate::domain::profile::Version;

/// `put_newer.lua` knows it as well.
const FORMAT: u8 = 1;
const HEAD_BYTES: usize = 17;

pub(super) fn encode(profile: &HotProfile) -> Vec<u8> {
    let Version { epoch, n } = profile.version;
    let mut value = Vec::with_capacity(HEAD_BYTES + profile.bytes.len());
    value.push(FORMAT);
    value.extend_from_slice(&epoch.to_be_bytes());
    value.extend_from_slice(&n.to_be_bytes());
    value.extend_from_slice(&profile.bytes);
    value
}

/// `None` for what this build has not written: the warehouse has the profile.
pub(super) fn decode(mut value: Bytes) -> Option<HotProfile> {
    if value.len() < HEAD_BYTES || value.get_u8() != FORMAT {
        return None;
    }
    let version = Version {
        epoch: value.get_u64(),
        n: value.get_u64(),
    };
    Some(HotProfile {
        version,
        bytes: value,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_comes_back_and_garbage_is_a_miss() {
        let profile = HotProfile {
            version: Version {
                epoch: u64::MAX,
                n: 1 << 60,
            },
            bytes: Bytes::from_static(b"document"),
        };
        let value = encode(&profile);
        assert_eq!(decode(value.clone().into()), Some(profile));
        for short in 0..HEAD_BYTES {
            assert_eq!(decode(Bytes::copy_from_slice(&value[..short])), None);
        }
        let mut other = value;
        other[0] = 2;
        assert_eq!(decode(other.into()), None);
    }
}
