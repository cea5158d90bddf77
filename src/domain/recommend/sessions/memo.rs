//! Suggestions asked for lately: a checkout asks for the same cart at every step, and many carts begin alike.
//!
//! - Kept are the best [`KEPT`] before any filter, so an answer from here is the one that would be computed: filtering the best
//!   leaves the best of what passes. Where too little passes of a list that was cut, it is computed after all.
//! - Part of its index, so a new index begins with an empty one; bounded by its [`SLOTS`], of which a session has one.

use std::hash::BuildHasher as _;
use std::sync::{Arc, Mutex, PoisonError};

use foldhash::fast::FixedState;
use smallvec::SmallVec;

use super::{MAX_RECENT, Scratch, SessionIndex, Suggestion};

/// About as many as a filter may leave four of, and more than is usually asked for.
const KEPT: usize = 32;

/// Sessions remembered at once: some 450 KB where all are full.
const SLOTS: usize = 1_024;

#[derive(Debug)]
pub(super) struct Memo(Box<[Mutex<Slot>]>);

#[derive(Debug, Clone, Default)]
struct Slot {
    recent: SmallVec<[u32; MAX_RECENT]>,
    best: Arc<[Suggestion]>,
}

impl Default for Memo {
    fn default() -> Self {
        Memo((0..SLOTS).map(|_| Mutex::default()).collect())
    }
}

/// What was asked of one index is asked of its copy anew.
impl Clone for Memo {
    fn clone(&self) -> Self {
        Memo::default()
    }
}

impl Memo {
    fn slot(&self, recent: &[u32]) -> Option<&Mutex<Slot>> {
        let hash = FixedState::default().hash_one(recent) as usize;
        self.0.get(hash % self.0.len().max(1))
    }

    fn get(&self, recent: &[u32]) -> Option<Arc<[Suggestion]>> {
        let slot = self.slot(recent)?.lock().unwrap_or_else(PoisonError::into_inner);
        (*slot.recent == *recent).then(|| Arc::clone(&slot.best))
    }

    fn put(&self, recent: &[u32], best: &[Suggestion]) {
        let Some(slot) = self.slot(recent) else { return };
        let slot = &mut *slot.lock().unwrap_or_else(PoisonError::into_inner);
        *slot = Slot {
            recent: recent.into(),
            best: best.into(),
        };
    }
}

impl SessionIndex {
    /// The same as [`SessionIndex::suggest`], from memory where it can be.
    pub fn recall(
        &self,
        recent: &[u32],
        count: usize,
        scratch: &mut Scratch,
        keep: impl Fn(u32) -> bool,
    ) -> SmallVec<[Suggestion; 8]> {
        let recent = recent.get(..MAX_RECENT).unwrap_or(recent);
        if recent.is_empty() {
            return SmallVec::new();
        }
        let known = self.memo.get(recent);
        let best = match &known {
            Some(best) => &**best,
            None => {
                let best = self.suggest(recent, KEPT, scratch, |_| true);
                self.memo.put(recent, best);
                best
            }
        };
        let passed = best.iter().filter(|one| keep(one.item)).take(count).copied();
        let passed: SmallVec<[Suggestion; 8]> = passed.collect();
        if passed.len() == count || best.len() < KEPT {
            return passed;
        }
        self.suggest(recent, count, scratch, keep).into()
    }
}
