//! Hot profiles in this process's memory.
//!
//! - Bounded by bytes: keys, values and what one entry costs besides. The space is split evenly over shards, each
//!   behind its own lock, which is held for a look-up or a swap and never across an await.
//! - Eviction is CLOCK: a hand walks the shard's entries and takes the first one that was not read since it last
//!   came by. That is close to least recently used, and a read costs one flag instead of a list operation.
//! - A value larger than a whole shard is not kept; the warehouse has it.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use async_trait::async_trait;
use foldhash::fast::RandomState;

use super::{HotError, HotObserver, HotProfile, HotStore};
use crate::domain::ids::SubjectId;

/// Enough that two cores rarely meet on one lock.
const MAX_SHARDS: u64 = 16;

/// A shard below this would evict by chance rather than by use, so a small store has fewer shards.
const MIN_SHARD_BYTES: u64 = 256 * 1024;

/// What an entry takes besides its key and value: the slot, the index entry, and three allocations' headers.
const ENTRY_OVERHEAD_BYTES: usize = 200;

#[derive(Debug)]
pub(super) struct MemoryStore {
    hasher: RandomState,
    shards: Box<[Mutex<Shard>]>,
    published: Mutex<BTreeMap<u16, u64>>,
    observers: RwLock<Vec<Arc<dyn HotObserver>>>,
}

#[derive(Debug)]
struct Shard {
    index: HashMap<SubjectId, usize, RandomState>,
    slots: Vec<Slot>,
    hand: usize,
    bytes: usize,
    limit_bytes: usize,
}

#[derive(Debug)]
struct Slot {
    subject: SubjectId,
    profile: HotProfile,
    read_since_hand: bool,
}

impl MemoryStore {
    pub(super) fn new(bytes: u64) -> Self {
        let shards = (bytes / MIN_SHARD_BYTES).clamp(1, MAX_SHARDS);
        let limit_bytes = usize::try_from(bytes / shards).unwrap_or(usize::MAX);
        let shards = (0..shards).map(|_| Mutex::new(Shard::new(limit_bytes))).collect();
        MemoryStore {
            hasher: RandomState::default(),
            shards,
            published: Mutex::default(),
            observers: RwLock::default(),
        }
    }

    fn report(&self, subject: &SubjectId) {
        let observers = self.observers.read().unwrap_or_else(PoisonError::into_inner);
        for observer in observers.iter() {
            observer.changed(subject);
        }
    }

    /// `None` never happens: there is at least one shard.
    fn shard(&self, subject: &SubjectId) -> Option<MutexGuard<'_, Shard>> {
        // The low bits pick the bucket inside a shard's index.
        let high = (self.hasher.hash_one(subject) >> 32) as usize;
        let shard = self.shards.get(high % self.shards.len().max(1))?;
        // A shard is whole between any two statements that could panic, so a poisoned one is still good.
        Some(shard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Shard {
    fn new(limit_bytes: usize) -> Self {
        Shard {
            index: HashMap::default(),
            slots: Vec::new(),
            hand: 0,
            bytes: 0,
            limit_bytes,
        }
    }

    fn get(&mut self, subject: &SubjectId) -> Option<HotProfile> {
        let slot = self.slots.get_mut(*self.index.get(subject)?)?;
        slot.read_since_hand = true;
        Some(slot.profile.clone())
    }

    /// Returns whether what the store holds of `subject` changed.
    fn put_newer(&mut self, subject: &SubjectId, profile: &HotProfile) -> bool {
        let at = self.index.get(subject).copied();
        if let Some(at) = at {
            let is_kept = self.slots.get(at).is_some_and(|slot| {
                let have = slot.profile.version;
                have.epoch == profile.version.epoch && have.n >= profile.version.n
            });
            if is_kept {
                return false;
            }
            // Taken out first: should the new value not fit, the old one must not answer in its place.
            self.remove(at);
        }
        let size = size(subject, profile);
        if size > self.limit_bytes {
            return at.is_some();
        }
        while self.bytes + size > self.limit_bytes {
            self.evict_one();
        }
        self.bytes += size;
        self.index.insert(subject.clone(), self.slots.len());
        self.slots.push(Slot {
            subject: subject.clone(),
            profile: profile.clone(),
            read_since_hand: false,
        });
        true
    }

    fn evict_one(&mut self) {
        loop {
            if self.hand >= self.slots.len() {
                self.hand = 0;
            }
            match self.slots.get_mut(self.hand) {
                Some(slot) if slot.read_since_hand => {
                    slot.read_since_hand = false;
                    self.hand += 1;
                }
                Some(_) => return self.remove(self.hand),
                None => {
                    self.bytes = 0;
                    return;
                }
            }
        }
    }

    fn remove(&mut self, at: usize) {
        let slot = self.slots.swap_remove(at);
        self.index.remove(&slot.subject);
        self.bytes = self.bytes.saturating_sub(size(&slot.subject, &slot.profile));
        if let Some(moved) = self.slots.get(at) {
            self.index.insert(moved.subject.clone(), at);
        }
    }
}

fn size(subject: &SubjectId, profile: &HotProfile) -> usize {
    ENTRY_OVERHEAD_BYTES + subject.as_str().len() + profile.bytes.len()
}

#[async_trait]
impl HotStore for MemoryStore {
    async fn get(&self, subject: &SubjectId) -> Result<Option<HotProfile>, HotError> {
        Ok(self.shard(subject).and_then(|mut shard| shard.get(subject)))
    }

    async fn put_newer(&self, profiles: &[(SubjectId, HotProfile)]) -> Result<(), HotError> {
        for (subject, profile) in profiles {
            // The lock is gone before the observers are told.
            let changed = self
                .shard(subject)
                .is_some_and(|mut shard| shard.put_newer(subject, profile));
            if changed {
                self.report(subject);
            }
        }
        Ok(())
    }

    async fn published(&self, partition: u16) -> Result<Option<u64>, HotError> {
        let published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(published.get(&partition).copied())
    }

    async fn publish(
        &self,
        partition: u16,
        profiles: &[(SubjectId, HotProfile)],
        change_seq: u64,
    ) -> Result<Option<u64>, HotError> {
        self.put_newer(profiles).await?;
        let mut published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(published.insert(partition, change_seq))
    }

    /// Evictions are not reported: an evicted value was the newest put.
    fn observe(&self, observer: Arc<dyn HotObserver>) -> bool {
        observer.following();
        let mut observers = self.observers.write().unwrap_or_else(PoisonError::into_inner);
        observers.push(observer);
        true
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::domain::profile::Version;

    fn profile(n: u64, size: usize) -> HotProfile {
        HotProfile {
            version: Version { epoch: 1, n },
            bytes: Bytes::from(vec![0; size]),
        }
    }

    fn subject(n: usize) -> SubjectId {
        SubjectId::from_stored(&format!("a:k.{n}"))
    }

    #[tokio::test]
    async fn the_store_stays_within_its_bytes_and_keeps_what_is_read() {
        let limit = 1_000_000;
        let store = MemoryStore::new(limit);
        let favourite = subject(0);
        for n in 0..5_000 {
            store.put_newer(&[(subject(n), profile(1, 1_000))]).await.unwrap();
            assert!(
                store.get(&favourite).await.unwrap().is_some(),
                "evicted after {n}"
            );
        }
        let bytes: usize = store.shards.iter().map(|shard| shard.lock().unwrap().bytes).sum();
        assert!(bytes as u64 <= limit, "{bytes}");
        assert!(bytes as u64 > limit * 8 / 10, "{bytes}");
        for shard in &store.shards {
            let shard = shard.lock().unwrap();
            assert_eq!(shard.index.len(), shard.slots.len());
            let sum: usize = shard
                .slots
                .iter()
                .map(|slot| size(&slot.subject, &slot.profile))
                .sum();
            assert_eq!(sum, shard.bytes);
            for (at, slot) in shard.slots.iter().enumerate() {
                assert_eq!(shard.index.get(&slot.subject), Some(&at));
            }
        }
    }

    #[tokio::test]
    async fn a_value_too_large_to_keep_does_not_leave_its_predecessor_behind() {
        let store = MemoryStore::new(10_000);
        store.put_newer(&[(subject(1), profile(1, 10))]).await.unwrap();
        store
            .put_newer(&[(subject(1), profile(2, 20_000))])
            .await
            .unwrap();
        assert_eq!(store.get(&subject(1)).await.unwrap(), None);
    }
}
