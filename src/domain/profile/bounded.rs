//! A small map with a bound: sorted by key, and over the bound the least entry by a stated rank is let go.
//!
//! Why not a hash map: a map is stored as its entries in the order of their keys, so a flat vector is decoded and
//! encoded in one sweep. Eviction is deterministic (rank, then key), so that two nodes that hold
//! the same entries evict the same one.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// A sorted vector of `(key, value)`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct BoundedMap<V>(Vec<(SmolStr, V)>);

impl<V> Default for BoundedMap<V> {
    fn default() -> Self {
        BoundedMap(Vec::new())
    }
}

impl<V: Clone> BoundedMap<V> {
    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &V)> {
        self.0.iter().map(|(key, value)| (&**key, value))
    }

    fn find(&self, key: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(have, _)| (**have).cmp(key))
    }

    /// Joins `value` into the entry of `key`, or inserts it; then lets go of what is over `bound`.
    pub(super) fn join<R: PartialOrd>(
        &mut self,
        key: &str,
        value: V,
        bound: usize,
        join: impl Fn(&mut V, &V),
        rank: impl Fn(&V) -> R,
    ) {
        self.join_unbounded(key, value, join);
        self.evict(bound, rank);
    }

    /// Joins every entry of `other`, then evicts once.
    pub(super) fn merge<R: PartialOrd>(
        &mut self,
        other: &Self,
        bound: usize,
        join: impl Fn(&mut V, &V),
        rank: impl Fn(&V) -> R,
    ) {
        if self.0.is_empty() {
            self.0.clone_from(&other.0);
        } else {
            for (key, value) in &other.0 {
                self.join_unbounded(key, value.clone(), &join);
            }
        }
        self.evict(bound, rank);
    }

    fn join_unbounded(&mut self, key: &str, value: V, join: impl Fn(&mut V, &V)) {
        match self.find(key) {
            Ok(at) => {
                if let Some((_, have)) = self.0.get_mut(at) {
                    join(have, &value);
                }
            }
            Err(at) => self.0.insert(at, (key.into(), value)),
        }
    }

    fn evict<R: PartialOrd>(&mut self, bound: usize, rank: impl Fn(&V) -> R) {
        while self.0.len() > bound {
            // On equal rank the first key stays: the strict comparison moves to the later one.
            let mut least = 0;
            for at in 1..self.0.len() {
                if rank(&self.0[at].1) <= rank(&self.0[least].1) {
                    least = at;
                }
            }
            self.0.remove(least);
        }
    }
}
