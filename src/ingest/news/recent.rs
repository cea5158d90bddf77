//! Ids of recently appended events, as hashes in two generations.
//!
//! When the young generation is full it becomes the old one and the old one is forgotten, so the memory holds
//! between one and two times [`GENERATION`] ids, and never more. Two ids of equal hash give a wrong hint, about
//! once in 10^13 events.

use std::collections::HashSet;
use std::hash::BuildHasher as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::domain::ids::Shop;

/// Ids of one generation: a client's retries come within minutes, other nodes' events count as well, and a full one takes about 4 MiB.
const GENERATION: usize = 1 << 18;

type Ids = HashSet<u64, foldhash::fast::FixedState>;

#[derive(Debug)]
pub(in crate::ingest) struct Recent {
    /// Seeded at random, so that nobody can choose ids that collide.
    hasher: foldhash::quality::RandomState,
    generations: Mutex<[Ids; 2]>,
}

impl Recent {
    pub(super) fn new() -> Self {
        Recent {
            hasher: foldhash::quality::RandomState::default(),
            generations: Mutex::default(),
        }
    }

    /// Starts to look through one body.
    pub(in crate::ingest) fn check<'a>(&'a self, shop: &'a Shop) -> Check<'a> {
        Check {
            recent: self,
            shop,
            generations: self.lock(),
            here: Ids::default(),
        }
    }

    /// Notes ids that are durable now.
    pub(in crate::ingest) fn insert<'a>(&self, shop: &Shop, ids: impl Iterator<Item = &'a str>) {
        let mut generations = self.lock();
        for id in ids {
            note(&mut generations, self.hash(shop, id));
        }
    }

    /// Notes an id that is durable now. Returns whether it was not noted before.
    pub(super) fn is_new(&self, shop: &Shop, id: &str) -> bool {
        let hash = self.hash(shop, id);
        let mut generations = self.lock();
        let is_new = generations.iter().all(|ids| !ids.contains(&hash));
        if is_new {
            note(&mut generations, hash);
        }
        is_new
    }

    fn hash(&self, shop: &Shop, id: &str) -> u64 {
        self.hasher.hash_one((shop.as_str(), id))
    }

    fn lock(&self) -> MutexGuard<'_, [Ids; 2]> {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn note([young, old]: &mut [Ids; 2], hash: u64) {
    young.insert(hash);
    if young.len() >= GENERATION {
        std::mem::swap(young, old);
        young.clear();
    }
}

/// A look at the memory on behalf of one body, which counts as one more generation.
pub(in crate::ingest) struct Check<'a> {
    recent: &'a Recent,
    shop: &'a Shop,
    generations: MutexGuard<'a, [Ids; 2]>,
    here: Ids,
}

impl Check<'_> {
    /// Whether `id` was durable before or was asked for before.
    pub(in crate::ingest) fn is_repeated(&mut self, id: &str) -> bool {
        let hash = self.recent.hash(self.shop, id);
        self.generations.iter().any(|ids| ids.contains(&hash)) || !self.here.insert(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::Environment;

    #[test]
    fn ids_repeat_within_a_shop_only() {
        let (one, two) = (
            Shop::new("one", Environment::Live).unwrap(),
            Shop::new("two", Environment::Live).unwrap(),
        );
        let recent = Recent::new();
        assert!(!recent.check(&one).is_repeated("a"));
        recent.insert(&one, ["a"].into_iter());
        assert!(recent.check(&one).is_repeated("a"));
        assert!(!recent.check(&two).is_repeated("a"));
        assert!(!recent.is_new(&one, "a") && recent.is_new(&two, "a") && !recent.is_new(&two, "a"));
        let mut check = recent.check(&one);
        assert!(!check.is_repeated("b"));
        assert!(check.is_repeated("b"));
    }

    #[test]
    fn the_memory_is_bounded_and_keeps_the_newest() {
        let shop = Shop::new("one", Environment::Live).unwrap();
        let recent = Recent::new();
        let ids: Vec<String> = (0..3 * GENERATION).map(|n| n.to_string()).collect();
        recent.insert(&shop, ids.iter().map(String::as_str));
        assert!(recent.lock().iter().map(HashSet::len).sum::<usize>() <= 2 * GENERATION);
        assert!(recent.check(&shop).is_repeated(&ids[ids.len() - 1]));
        assert!(recent.check(&shop).is_repeated(&ids[ids.len() - GENERATION]));
        assert!(!recent.check(&shop).is_repeated("0"));
    }
}
