//! What the log's handle and its threads share, and trimming, which any of them may do.

use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use super::io::{Folder, Lock};
use super::ledger::{Ledger, Segment};
use super::preparer::Preparer;
use super::settings::Settings;
use super::writer::Inbox;
use super::{lock_of, now_ms, segment};
use crate::queue::{LogId, Position, ReadError};

/// What readers wait for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Progress {
    pub(super) next: u64,
    pub(super) closed: bool,
}

/// Shared by the log's handle and its threads.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) folder: Arc<dyn Folder>,
    pub(super) log_id: LogId,
    pub(super) settings: Settings,
    pub(super) ledger: Mutex<Ledger>,
    pub(super) progress: watch::Sender<Progress>,
    pub(super) inbox: Inbox,
    pub(super) preparer: Preparer,
    /// Held by one trim at a time.
    pub(super) trimming: Mutex<()>,
    pub(super) lock: Mutex<Option<Lock>>,
}

impl Core {
    pub(super) fn announce(&self, next: u64) {
        self.progress.send_modify(|progress| progress.next = next);
    }

    /// Blocking.
    pub(super) fn trim(&self, below: Position) -> Result<(), ReadError> {
        let _one_at_a_time = lock_of(&self.trimming);
        // Below the first record there is nothing left to let go of, which is no error.
        let offset = below.offset.max(self.first());
        lock_of(&self.ledger).check(Position { offset, ..below })?;
        let retain_ms = i64::try_from(self.settings.retain.as_millis()).unwrap_or(i64::MAX);
        let young = now_ms().saturating_sub(retain_ms);
        let retain_bytes = self.settings.retain_bytes;
        let is_kept =
            |segment: &Segment, size_bytes: u64| segment.newest_ms > young && size_bytes <= retain_bytes;
        let mut freed = false;
        loop {
            let Some(oldest) = lock_of(&self.ledger).take_oldest(below.offset, is_kept) else {
                break;
            };
            let name = segment::name_of(oldest.number);
            // One by one: removals that reach the disk out of order would leave a gap.
            if let Err(error) = self.folder.remove(&name) {
                lock_of(&self.ledger).put_back(oldest);
                return Err(ReadError::Io(
                    format!("{name} could not be removed: {error}").into(),
                ));
            }
            self.folder
                .sync()
                .map_err(|error| ReadError::Io(error.to_string().into()))?;
            freed = true;
        }
        if freed {
            self.preparer.retry();
        }
        Ok(())
    }

    fn first(&self) -> u64 {
        lock_of(&self.ledger).extent().first
    }
}
