//! Ids of decisions: UUIDs of version 7, from random bytes fetched in blocks.
//!
//! One system call for each decision would cost more than the whole id; a block serves [`IDS`] of them.

use std::cell::RefCell;

use uuid::Uuid;

use crate::domain::ids::Timestamp;

const ID_BYTES: usize = 10;
/// Ids from one block.
const IDS: usize = 128;

struct Block {
    bytes: [u8; ID_BYTES * IDS],
    used: usize,
}

thread_local! {
    static BLOCK: RefCell<Block> = const { RefCell::new(Block { bytes: [0; ID_BYTES * IDS], used: ID_BYTES * IDS }) };
}

/// A new id, ordered by `now` to the millisecond.
pub(super) fn decision_id(now: Timestamp) -> Uuid {
    let millis = u64::try_from(now.0).unwrap_or(0);
    let random = BLOCK.with_borrow_mut(|block| {
        if block.used + ID_BYTES > block.bytes.len() {
            getrandom::fill(&mut block.bytes).ok()?;
            block.used = 0;
        }
        let random = block
            .bytes
            .get(block.used..block.used + ID_BYTES)?
            .try_into()
            .ok();
        block.used += ID_BYTES;
        random
    });
    match random {
        Some(random) => uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid(),
        // The system has no random bytes to give; the crate's own way says so.
        None => Uuid::now_v7(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_distinct_and_of_version_7() {
        let ids: std::collections::HashSet<_> = (0..1_000)
            .map(|_| decision_id(Timestamp(1_700_000_000_000)))
            .collect();
        assert_eq!(ids.len(), 1_000);
        assert!(ids.iter().all(|id| id.get_version_num() == 7));
    }
}
