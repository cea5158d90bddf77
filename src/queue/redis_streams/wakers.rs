//! Wakes those who wait for a partition's next record.

use redis::Value;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::reply::partition_of;
use crate::redis_link::LinkObserver;

#[derive(Debug)]
pub(super) struct Wakers {
    partitions: Box<[Notify]>,
    /// For a partition that the log has not.
    never: Notify,
}

impl Wakers {
    pub(super) fn new(partitions: u16) -> Self {
        Wakers {
            partitions: (0..partitions).map(|_| Notify::new()).collect(),
            never: Notify::new(),
        }
    }

    /// Completes with the first report after this call.
    pub(super) fn notified(&self, partition: u16) -> Notified<'_> {
        self.partitions
            .get(usize::from(partition))
            .unwrap_or(&self.never)
            .notified()
    }

    fn wake_all(&self) {
        for partition in &self.partitions {
            partition.notify_waiters();
        }
    }
}

impl LinkObserver for Wakers {
    fn up(&self) {}

    fn down(&self) {
        self.wake_all();
    }

    fn changed(&self, keys: Option<&[Value]>) {
        let Some(keys) = keys else {
            return self.wake_all();
        };
        for key in keys {
            if let Value::BulkString(key) = key
                && let Some(partition) = partition_of(key)
                && let Some(waiting) = self.partitions.get(usize::from(partition))
            {
                waiting.notify_waiters();
            }
        }
    }
}
