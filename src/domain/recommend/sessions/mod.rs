//! Session-based recommendations: what shoppers who looked at the same things looked at besides.
//!
//! The method is VMIS-kNN (Kersbergen, Sprangers, Schelter: *Serenade – Low-Latency Session-Based Recommendation in
//! e-Commerce at Scale*, SIGMOD 2022): of the sessions that share an item with the current one take the
//! [`Tuning::sample`] most recent, of these the [`Tuning::neighbours`] most similar, and score the items in them.
//!
//! - **Similarity** of a session is the sum of [`Tuning::decay`]`^p` over the items it shares with the last
//!   [`MAX_RECENT`] ones, `p` counted from the latest, which is 0.
//! - **Score** of an item is the sum, over the neighbours that hold it, of `similarity · (1 − p₀ / 10) / √items`, where
//!   `p₀` is the latest shared item's place, times the item's inverse document frequency to the power of
//!   [`Tuning::rarity`]. The paper divides by nothing and has a power of one; both changes were chosen on the last
//!   sessions of the training set, and `cartwright evaluate` shows what they are worth.
//! - A shared set is one of 15 bit masks, so similarity is looked up rather than summed, and the nearest neighbours are
//!   found by counting masks. Postings lie in order of recency, so the sample is a merge that stops early: no
//!   hash map, no heap, and no allocation once a [`Scratch`] has grown.
//! - **Bounded**: postings hold [`Tuning::sample`] sessions an item at the most and a session [`MAX_SESSION_ITEMS`] items
//!   (a robot's session says little and costs much). Four bytes for each of both, so about 8 MB a million interactions.
//! - **Deterministic**: sums run in order of recency, equal scores go to the item of more sessions, then by name.
//!
//! It knows nothing of carts, stock or placements: the caller filters.

mod build;
mod evaluate;
mod memo;
mod predict;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::FixedState;

pub use evaluate::{Quality, evaluate};
pub use predict::{Scratch, Suggestion};

/// How many of a session's latest distinct items count. More changed the quality by less than a thousandth and
/// doubles the masks each.
pub const MAX_RECENT: usize = 4;

/// Of a longer session the latest distinct items are kept.
pub const MAX_SESSION_ITEMS: usize = 100;

/// One item that a session touched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interaction {
    pub session: u64,
    pub item: Arc<str>,
    /// In any unit: only the order counts. Of equal times the later in the input counts as later.
    pub at: i64,
}

/// What the method leaves open.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tuning {
    /// The most recent sessions that are looked at: `m` of the paper.
    pub sample: usize,
    /// The most similar ones among them that count: `k` of the paper.
    pub neighbours: usize,
    /// What an item weighs against the one that came after it.
    pub decay: f32,
    /// The power of the inverse document frequency.
    pub rarity: f32,
}

impl Default for Tuning {
    /// Chosen on the last 1,500 sessions of the training set of the session data that Serenade publishes.
    fn default() -> Self {
        Tuning {
            sample: 500,
            neighbours: 100,
            decay: 0.8,
            rarity: 3.0,
        }
    }
}

/// The sessions of the past, ready to be asked.
#[derive(Debug, Clone, Default)]
pub struct SessionIndex {
    /// By number of sessions, the most first, then by name.
    items: Vec<Arc<str>>,
    numbers: HashMap<Arc<str>, u32, FixedState>,
    /// The weight of each item's rarity.
    rarity: Vec<f32>,
    /// The sessions of each item, the most recent (the greatest number) first.
    postings: Lists,
    /// The distinct items of each session; sessions are numbered from the oldest on.
    sessions: Lists,
    tuning: Tuning,
    memo: memo::Memo,
}

impl SessionIndex {
    pub fn item_count(&self) -> usize {
        self.items.len()
    }

    pub fn session_count(&self) -> usize {
        self.sessions.count()
    }

    /// The number of an item, for [`SessionIndex::suggest`].
    pub fn find(&self, item: &str) -> Option<u32> {
        self.numbers.get(item).copied()
    }

    pub fn name(&self, item: u32) -> Option<&str> {
        self.items.get(item as usize).map(|name| &**name)
    }

    /// The bytes that lists and weights take; names and their index come on top, once an item.
    pub fn size_bytes(&self) -> usize {
        self.postings.size_bytes() + self.sessions.size_bytes() + size_of_val(self.rarity.as_slice())
    }
}

/// Lists of numbers in one allocation.
#[derive(Debug, Clone, Default)]
struct Lists {
    /// Where each list ends; the first one begins at 0.
    ends: Vec<u32>,
    values: Vec<u32>,
}

impl Lists {
    fn count(&self) -> usize {
        self.ends.len()
    }

    #[inline]
    fn get(&self, at: u32) -> &[u32] {
        let at = at as usize;
        let from = at
            .checked_sub(1)
            .and_then(|before| self.ends.get(before))
            .copied();
        let end = self.ends.get(at).copied().unwrap_or(0);
        self.values
            .get(from.unwrap_or(0) as usize..end as usize)
            .unwrap_or(&[])
    }

    fn push(&mut self, list: impl IntoIterator<Item = u32>) {
        self.values.extend(list);
        self.ends.push(self.values.len() as u32);
    }

    fn size_bytes(&self) -> usize {
        size_of_val(self.ends.as_slice()) + size_of_val(self.values.as_slice())
    }
}
