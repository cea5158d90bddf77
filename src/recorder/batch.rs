//! Records that wait for the worker, encoded already: who decides writes a record once, into the buffer that is appended.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::domain::event::EventHead;
use crate::ingest::spread::{self, Spread};
use crate::queue::{AppendError, EventQueue, Records};

/// A batch takes so many records, or bytes; fewer where the log takes little at once. More: an append and its sync take longer. Fewer:
/// more of them.
const MAX_RECORDS: usize = 512;
const MAX_BYTES: usize = 512 * 1024;

/// Buffers of appended records are used again, so many.
const SPARES: usize = 4;

/// The records of one partition.
#[derive(Debug, Default)]
pub(super) struct Share {
    pub(super) records: Arc<Records>,
    /// Which of them touch a profile.
    pub(super) touching: Vec<usize>,
}

impl spread::Share for Share {
    fn len(&self) -> usize {
        self.records.len()
    }

    async fn append(&self, queue: &dyn EventQueue, partition: u16) -> Result<u64, AppendError> {
        queue.append_records(partition, &self.records).await
    }
}

/// Records that are appended together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) spread: Spread<Share>,
    count: usize,
    bytes: usize,
    touches_profile: bool,
}

impl Batch {
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Whether a record in it touches a profile.
    pub(super) fn touches_profile(&self) -> bool {
        self.touches_profile
    }

    fn is_full(&self, max_bytes: usize) -> bool {
        self.count >= MAX_RECORDS || self.bytes >= max_bytes
    }

    pub(super) fn push(&mut self, partition: u16, entry: Entry<'_, impl FnOnce(&mut Vec<u8>)>) {
        let share = self.spread.share(partition);
        // Nobody else has it before it is appended.
        let records = Arc::make_mut(&mut share.records);
        let before = records.size_bytes();
        records.push_with(entry.head, entry.body_bytes, entry.body);
        self.bytes += records.size_bytes() - before;
        if entry.touches_profile {
            share.touching.push(records.len() - 1);
        }
        self.count += 1;
        self.touches_profile |= entry.touches_profile;
    }
}

/// A record to be encoded.
pub(super) struct Entry<'a, W> {
    pub(super) head: &'a EventHead<'a>,
    pub(super) touches_profile: bool,
    /// About how long its body is.
    pub(super) body_bytes: usize,
    /// Appends the body.
    pub(super) body: W,
}

/// All that wait, and the buffers of those that did.
#[derive(Debug)]
pub(super) struct Waiting {
    max_bytes: usize,
    batches: VecDeque<Batch>,
    spares: Vec<Arc<Records>>,
}

impl Waiting {
    /// For a log that takes so many bytes in one append.
    pub(super) fn new(append_bytes: usize) -> Self {
        Waiting {
            // The last record goes over it, and is smaller than the other half.
            max_bytes: MAX_BYTES.min(append_bytes / 2),
            batches: VecDeque::new(),
            spares: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, partition: u16, entry: Entry<'_, impl FnOnce(&mut Vec<u8>)>) {
        if self
            .batches
            .back()
            .is_none_or(|batch| batch.is_full(self.max_bytes))
        {
            let mut batch = Batch::default();
            if let Some(spare) = self.spares.pop() {
                batch.spread.share(partition).records = spare;
            }
            self.batches.push_back(batch);
        }
        if let Some(batch) = self.batches.back_mut() {
            batch.push(partition, entry);
        }
    }

    /// The batch that is appended next.
    pub(super) fn first(&self) -> Option<&Batch> {
        self.batches.front()
    }

    pub(super) fn take(&mut self) -> Option<Batch> {
        self.batches.pop_front()
    }

    pub(super) fn is_full(&self) -> bool {
        self.first().is_some_and(|batch| batch.is_full(self.max_bytes))
    }

    pub(super) fn give_back(&mut self, mut records: Arc<Records>) {
        if self.spares.len() < SPARES
            && let Some(unshared) = Arc::get_mut(&mut records)
            && unshared.capacity_bytes() <= 2 * MAX_BYTES
        {
            unshared.clear();
            self.spares.push(records);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::consent::ConsentStatement;
    use crate::domain::event::Source;
    use crate::domain::ids::{Environment, Shop, Timestamp};

    fn push(waiting: &mut Waiting, bytes: usize, touches_profile: bool) {
        let shop = Shop::new("acme", Environment::Live).unwrap();
        let head = EventHead {
            shop: &shop,
            source: Source::Internal,
            event_id: "1",
            name: "n",
            anonymous: None,
            user: None,
            claimed_user: None,
            session: None,
            event_time: Timestamp(1),
            received_at: Timestamp(2),
            consent: ConsentStatement::default(),
            quarantine: None,
        };
        let body = |out: &mut Vec<u8>| out.resize(out.len() + bytes, 7);
        waiting.push(
            0,
            Entry {
                head: &head,
                touches_profile,
                body_bytes: bytes,
                body,
            },
        );
    }

    #[test]
    fn a_batch_ends_with_its_records_or_bytes_and_its_buffer_is_used_again() {
        let mut waiting = Waiting::new(usize::MAX);
        for record in 0..MAX_RECORDS + 1 {
            assert_eq!(waiting.is_full(), record == MAX_RECORDS);
            push(&mut waiting, 1, false);
        }
        let mut first = waiting.take().unwrap();
        assert_eq!((first.count(), waiting.take().unwrap().count()), (MAX_RECORDS, 1));
        assert!(waiting.take().is_none());

        push(&mut waiting, MAX_BYTES, false);
        assert!(waiting.is_full());
        push(&mut waiting, 1, true);
        let touching = [waiting.take(), waiting.take()].map(|batch| batch.unwrap().touches_profile());
        assert_eq!(touching, [false, true]);

        let records = std::mem::take(&mut first.spread.share(0).records);
        let room = records.capacity_bytes();
        waiting.give_back(records);
        push(&mut waiting, 1, true);
        let mut again = waiting.take().unwrap();
        let share = again.spread.share(0);
        assert_eq!((share.records.len(), &*share.touching), (1, &[0][..]));
        assert_eq!(share.records.capacity_bytes(), room);
        assert_eq!(&*share.records.event(0).unwrap().body, [7]);
    }
}
