//! Documents on their way into the hot store.
//!
//! A worker can die between the commit in the warehouse and the put into the hot store, and a hot store can be away, be
//! restarted or fail over and lose what it took. So a partition's changes are numbered in the warehouse
//! (`change_seq`), and the hot store holds a mark: the number up to which everything was put.
//!
//! - After a commit the documents are put, then the mark is set, by one call. It answers with the mark before; one that is
//!   older than what this lane had set means that the store lost writes, and the changes since are put again.
//! - A lane that starts, or whose commit nobody knows the outcome of, puts the changes beyond the mark first.
//! - No mark means that the store is new or lost everything. Then it holds nothing stale, misses are read from the
//!   warehouse, and only what this lane knows to have been missed is put.
//! - A mark beyond the warehouse's numbers is from before the warehouse was restored; what it stood for is of another
//!   epoch, which every reader takes for a miss.
//! - **A hot store that fails does not stop the lane.** The warehouse goes on, the lane is *behind*, and from time to time
//!   tries to put what was missed. Until then readers that find the store again may find old documents in it.

use std::time::Duration;

use tokio::time::Instant;

use super::fast::FastLane;
use super::retry::Backoff;
use crate::domain::ids::SubjectId;
use crate::hot::{HotError, HotProfile};
use crate::warehouse::{Applied, Change, WarehouseError};

/// Documents put at once when catching up.
const PAGE: u32 = 500;

/// Why what was missed could not be put.
#[derive(Debug, thiserror::Error)]
enum PublishError {
    #[error(transparent)]
    Hot(#[from] HotError),
    #[error(transparent)]
    Warehouse(#[from] WarehouseError),
}

/// Publishes what one lane writes.
pub(super) struct Publisher<'a> {
    lane: &'a FastLane,
    /// The mark that this lane set last.
    marked: Option<u64>,
    /// What is missing may be put again from here on; `None` where nothing is missing.
    behind_until: Option<Instant>,
    backoff: Backoff,
    /// Whether it was said that this lane is behind.
    is_told: bool,
}

impl<'a> Publisher<'a> {
    /// Nothing is known of what was published before.
    pub(super) fn new(lane: &'a FastLane) -> Self {
        Publisher {
            lane,
            marked: None,
            behind_until: Some(Instant::now()),
            backoff: Backoff::new(),
            is_told: false,
        }
    }

    /// Something may have been written of which this lane was not told.
    pub(super) fn doubt(&mut self) {
        self.behind_until.get_or_insert_with(Instant::now);
    }

    /// How long the lane may wait for records, at most `longest`, before [`Publisher::catch_up`] is due.
    pub(super) fn wait(&self, longest: Duration) -> Duration {
        self.behind_until.map_or(longest, |due| {
            longest.min(due.saturating_duration_since(Instant::now()))
        })
    }

    /// Publishes what a batch wrote. Returns whether the hot store holds everything up to it.
    pub(super) async fn publish(&mut self, applied: Applied) -> bool {
        if self.behind_until.is_some() {
            // What was just written is among what is missing.
            return self.catch_up().await;
        }
        if applied.documents.is_empty() {
            return true;
        }
        let documents = applied.documents.into_iter();
        let profiles: Vec<_> = documents
            .map(|(subject, version, bytes)| (subject, HotProfile { version, bytes }))
            .collect();
        if let Err(error) = self.put_and_mark(&profiles, applied.change_seq).await {
            self.fell_behind(&error);
        }
        self.catch_up().await
    }

    async fn put_and_mark(
        &mut self,
        profiles: &[(SubjectId, HotProfile)],
        change_seq: u64,
    ) -> Result<(), PublishError> {
        let partition = self.lane.partition;
        let before = self.lane.hot.publish(partition, profiles, change_seq).await?;
        match (before, self.marked) {
            (Some(before), Some(marked)) if before < marked => {
                tracing::warn!(
                    partition,
                    "the hot store lost writes; publishing what it lost again"
                );
                self.marked = Some(before);
                self.doubt();
            }
            _ => self.marked = Some(change_seq),
        }
        Ok(())
    }

    /// Puts what is missing, once it is time to try. Returns whether nothing is missing any more.
    pub(super) async fn catch_up(&mut self) -> bool {
        match self.behind_until {
            None => return true,
            Some(due) if due > Instant::now() => return false,
            Some(_) => {}
        }
        match self.put_missing().await {
            Ok(put) => {
                self.behind_until = None;
                self.backoff.reset();
                if std::mem::take(&mut self.is_told) || put > 0 {
                    tracing::info!(
                        partition = self.lane.partition,
                        profiles = put,
                        "what the hot store had missed is published"
                    );
                }
                true
            }
            Err(error) => {
                self.fell_behind(&error);
                false
            }
        }
    }

    /// Puts the changes beyond the mark, and returns how many that were.
    async fn put_missing(&mut self) -> Result<usize, PublishError> {
        let FastLane {
            hot,
            warehouse,
            partition,
            ..
        } = self.lane;
        let stored = hot.published(*partition).await?;
        // The store's is older where it lost writes, and none where it lost everything.
        let from = [stored, self.marked].into_iter().flatten().min();
        let mut put = 0;
        let newest = match from {
            None => warehouse.changes(*partition, 0, 0).await?.newest,
            Some(mut after) => loop {
                let changes = warehouse.changes(*partition, after, PAGE).await?;
                let Some(last) = changes.documents.last() else {
                    break changes.newest;
                };
                after = last.change_seq;
                let profiles: Vec<_> = changes.documents.into_iter().map(published).collect();
                hot.put_newer(&profiles).await?;
                put += profiles.len();
            },
        };
        hot.publish(*partition, &[], newest).await?;
        self.marked = Some(newest);
        Ok(put)
    }

    /// Looks, while there is nothing else to do, whether the store still holds what it held.
    pub(super) async fn verify(&mut self) {
        if self.behind_until.is_some() {
            return;
        }
        // A store that does not answer now is asked again.
        if let Ok(mark) = self.lane.hot.published(self.lane.partition).await
            && mark != self.marked
        {
            self.doubt();
        }
    }

    fn fell_behind(&mut self, error: &PublishError) {
        self.behind_until = Some(Instant::now() + self.backoff.wait());
        if !std::mem::replace(&mut self.is_told, true) {
            tracing::warn!(
                error = %error,
                partition = self.lane.partition,
                "the hot store could not be written; the lane goes on, and publishes what is missing later"
            );
        }
    }
}

fn published(change: Change) -> (SubjectId, HotProfile) {
    let profile = HotProfile {
        version: change.version,
        bytes: change.bytes,
    };
    (change.subject, profile)
}
