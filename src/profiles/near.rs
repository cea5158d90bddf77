//! The near cache: profiles that this node read from a shared hot store, kept in its own memory.
//!
//! **Nothing stale stays.** The hot store reports what changes ([`HotObserver`]), and a value can be on its way from the
//! store while the report of its change overtakes it. So:
//!
//! 1. Before it asks the store, a reader takes a [`Ticket`]: the generation of the subject's shard.
//! 2. A report first advances the generation, then removes the entry.
//! 3. The reader puts what it got only under the generation of its ticket, and looks at the generation again afterwards:
//!    where it has moved on, the reader removes what it put.
//!
//! Say a value that has changed was put. Its report came after the ticket, for the ticket was taken before the store was
//! asked. If the report's removal came after the put, it removed the value. If it came before, so had the advance, and the reader's
//! second look saw it and removed the value. There is no third case.
//!
//! - While the store cannot report, nothing is put and nothing found: `life` is odd while it can and even while it
//!   cannot, and an entry counts in the life that it was put in only. So a lost connection empties the cache at once.
//! - That the store knows nothing of a subject is kept as well, for [`ABSENT`] at most.
//! - A profile is kept as it was stored, and read in place: nothing of it is decoded beforehand, see [`Snapshot`].
//! - Bounded by bytes: keys, values, and what an entry costs besides.

use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use foldhash::fast::RandomState;
use quick_cache::Weighter;
use quick_cache::sync::{Cache, DefaultLifecycle};
use tokio::time::Instant;

use crate::domain::ids::SubjectId;
use crate::domain::profile::Snapshot;
use crate::hot::HotObserver;

/// A generation is shared by a shard's subjects: more shards, fewer fills given up for a neighbour's change.
const SHARDS: usize = 1_024;

/// What an entry takes besides its key and value, nearly.
const ENTRY_OVERHEAD_BYTES: usize = 240;

/// What most entries take, as a guess from which the cache plans ahead.
const USUAL_BYTES: u64 = 2_048;

/// How long a subject without a profile is not looked for again. The store reports its first profile anyway.
const ABSENT: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(super) struct Near {
    cache: Cache<SubjectId, Entry, Weight, RandomState>,
    hasher: RandomState,
    generations: Box<[AtomicU64; SHARDS]>,
    life: AtomicU64,
}

#[derive(Debug, Clone)]
struct Entry {
    life: u64,
    found: Found,
}

/// What is known of a subject.
#[derive(Debug, Clone)]
pub(super) enum Found {
    Profile(Arc<Snapshot>),
    /// Neither store had one.
    Absent(Instant),
}

/// What an entry takes, nearly, in bytes.
#[derive(Debug, Clone, Copy)]
struct Weight;

impl Weighter<SubjectId, Entry> for Weight {
    fn weight(&self, subject: &SubjectId, entry: &Entry) -> u64 {
        let value = match &entry.found {
            Found::Profile(profile) => size_of::<Snapshot>() + profile.bytes().len(),
            Found::Absent(_) => 0,
        };
        (ENTRY_OVERHEAD_BYTES + subject.as_str().len() + value) as u64
    }
}

/// Leave to put what is read from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    life: u64,
    generation: u64,
}

impl Near {
    /// Keeps at most `bytes`.
    pub(super) fn new(bytes: u64) -> Self {
        Near {
            cache: Cache::with(
                usize::try_from(bytes / USUAL_BYTES).unwrap_or(usize::MAX),
                bytes,
                Weight,
                RandomState::default(),
                DefaultLifecycle::default(),
            ),
            hasher: RandomState::default(),
            generations: Box::new([const { AtomicU64::new(0) }; SHARDS]),
            life: AtomicU64::new(0),
        }
    }

    pub(super) fn get(&self, subject: &SubjectId) -> Option<Found> {
        let entry = self.cache.get(subject)?;
        if entry.life != self.life.load(Ordering::SeqCst) {
            return None;
        }
        match entry.found {
            Found::Absent(until) if until <= Instant::now() => None,
            found => Some(found),
        }
    }

    /// To be taken before the store is asked; `None` while nothing may be put.
    pub(super) fn ticket(&self, subject: &SubjectId) -> Option<Ticket> {
        let life = self.life.load(Ordering::SeqCst);
        (life % 2 == 1).then(|| Ticket {
            life,
            generation: self.generation(subject).load(Ordering::SeqCst),
        })
    }

    /// Puts what the store answered, unless it may have changed since the ticket was taken.
    pub(super) fn put(&self, ticket: Ticket, subject: &SubjectId, profile: Option<Arc<Snapshot>>) {
        let is_current = || self.generation(subject).load(Ordering::SeqCst) == ticket.generation;
        if !is_current() {
            return;
        }
        let found = match profile {
            Some(profile) => Found::Profile(profile),
            None => Found::Absent(Instant::now() + ABSENT),
        };
        let entry = Entry {
            life: ticket.life,
            found,
        };
        self.cache.insert(subject.clone(), entry);
        if !is_current() {
            self.cache.remove(subject);
        }
    }

    /// What it holds, nearly, in bytes.
    pub(super) fn size_bytes(&self) -> u64 {
        self.cache.weight()
    }

    fn generation(&self, subject: &SubjectId) -> &AtomicU64 {
        &self.generations[self.hasher.hash_one(subject) as usize % SHARDS]
    }
}

impl HotObserver for Near {
    fn following(&self) {
        self.life.fetch_or(1, Ordering::SeqCst);
    }

    fn changed(&self, subject: &SubjectId) {
        self.generation(subject).fetch_add(1, Ordering::SeqCst);
        self.cache.remove(subject);
    }

    fn lost(&self) {
        let next_even = |life: u64| (life % 2 == 1).then_some(life + 1);
        let _ = self
            .life
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, next_even);
        // Their life is over already; this gives the memory back.
        self.cache.clear();
    }
}

/// The cache in front of `hot`; `None` where the store cannot report what changes, or nothing is to be kept.
pub(super) fn in_front_of(hot: &dyn crate::hot::HotStore, bytes: u64) -> Option<Arc<Near>> {
    if bytes == 0 {
        return None;
    }
    let near = Arc::new(Near::new(bytes));
    let observer = Arc::clone(&near) as Arc<dyn HotObserver>;
    hot.observe(observer).then_some(near)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::domain::profile::{Document, Version};

    fn subject(n: usize) -> SubjectId {
        SubjectId::from_stored(&format!("a:k.{n}"))
    }

    fn profile(n: u64) -> Arc<Snapshot> {
        let document = Document {
            version: Version { epoch: 1, n },
            ..Document::default()
        };
        Arc::new(Snapshot::of(&document))
    }

    fn following(bytes: u64) -> Near {
        let near = Near::new(bytes);
        near.following();
        near
    }

    fn version(near: &Near, subject: &SubjectId) -> Option<u64> {
        match near.get(subject)? {
            Found::Profile(profile) => Some(profile.version().n),
            Found::Absent(_) => None,
        }
    }

    #[test]
    fn what_changed_between_the_ticket_and_the_put_is_not_kept() {
        let near = following(1 << 20);
        let ann = subject(1);
        let ticket = near.ticket(&ann).unwrap();
        near.put(ticket, &ann, Some(profile(1)));
        assert_eq!(version(&near, &ann), Some(1));
        let ticket = near.ticket(&ann).unwrap();
        near.changed(&ann);
        assert_eq!(version(&near, &ann), None);
        near.put(ticket, &ann, Some(profile(1)));
        assert_eq!(version(&near, &ann), None);
    }

    #[test]
    fn without_reports_nothing_is_put_and_nothing_found() {
        let near = Near::new(1 << 20);
        let ann = subject(1);
        assert!(near.ticket(&ann).is_none());
        near.following();
        let ticket = near.ticket(&ann).unwrap();
        near.put(ticket, &ann, Some(profile(1)));
        near.lost();
        assert_eq!(version(&near, &ann), None);
        assert!(near.ticket(&ann).is_none());
        // Neither what was kept before nor what was on its way counts afterwards.
        near.following();
        assert_eq!(version(&near, &ann), None);
        near.put(ticket, &ann, Some(profile(1)));
        assert_eq!(version(&near, &ann), None);
        // Said twice, it is still the same life.
        let ticket = near.ticket(&ann).unwrap();
        near.following();
        near.put(ticket, &ann, Some(profile(2)));
        assert_eq!(version(&near, &ann), Some(2));
    }

    #[tokio::test(start_paused = true)]
    async fn absence_is_kept_for_a_while_and_ends_with_the_first_profile() {
        let near = following(1 << 20);
        let ann = subject(1);
        near.put(near.ticket(&ann).unwrap(), &ann, None);
        assert!(matches!(near.get(&ann), Some(Found::Absent(_))));
        tokio::time::advance(ABSENT).await;
        assert!(near.get(&ann).is_none());
        near.put(near.ticket(&ann).unwrap(), &ann, None);
        near.changed(&ann);
        assert!(near.get(&ann).is_none());
    }

    #[test]
    fn it_stays_within_its_bytes() {
        let near = following(100_000);
        for n in 0..10_000 {
            let ticket = near.ticket(&subject(n)).unwrap();
            let large = Document {
                linked_user: Some(SubjectId::from_stored(&"x".repeat(1_000))),
                ..Document::default()
            };
            near.put(ticket, &subject(n), Some(Arc::new(Snapshot::of(&large))));
        }
        assert!(near.size_bytes() <= 100_000, "{}", near.size_bytes());
        assert!(near.size_bytes() > 50_000, "{}", near.size_bytes());
    }

    /// Readers that fill from a store, a writer whose reports come right after its writes, and a connection that is lost
    /// now and then: whatever is found in the end is what the store holds.
    #[test]
    fn readers_and_a_writer_never_leave_a_stale_value() {
        for _ in 0..20 {
            let near = following(1 << 20);
            let ann = subject(1);
            let store = AtomicU64::new(0);
            let is_over = AtomicBool::new(false);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        while !is_over.load(Ordering::SeqCst) {
                            let Some(ticket) = near.ticket(&ann) else { continue };
                            let read = store.load(Ordering::SeqCst);
                            std::thread::yield_now();
                            near.put(ticket, &ann, Some(profile(read)));
                        }
                    });
                }
                scope.spawn(|| {
                    for n in 1..2_000 {
                        store.store(n, Ordering::SeqCst);
                        if n % 100 == 0 {
                            near.lost();
                            near.following();
                        } else {
                            near.changed(&ann);
                        }
                        // What is found now was put after the report, so it is at least as new.
                        if let Some(found) = version(&near, &ann) {
                            assert!(found <= n);
                        }
                    }
                    is_over.store(true, Ordering::SeqCst);
                });
            });
            let found = version(&near, &ann);
            assert!(found.is_none_or(|found| found == 1_999), "{found:?}");
        }
    }
}
