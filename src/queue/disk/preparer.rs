//! Makes the next segment ahead of need, on a thread of its own: written full of zeros, synced, then named.
//!
//! Why zeros: a sync of bytes whose blocks exist already needs no journal of the file system, which is worth a
//! quarter to nearly half of the throughput. Why ahead: zero-filling at the roll stalls every producer.
//! An append into a prepared segment also cannot run out of space. The zeros go past the file system's cache, as groups do.
//!
//! Where the writer is faster than the zeros and comes to wait, the rest of the segment is reserved instead: groups in
//! it cost the file system's journal, but nobody stands still.
//!
//! A failure here harms nothing that is stored: the half-made file is removed and the work is tried again,
//! and until it succeeds an append that needs the segment is refused.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::io::{BlockFile, Folder, is_no_space};
use super::pages::Pages;
use super::settings::Settings;
use super::{lock_of, segment};
use crate::queue::LogId;

const TEMPORARY_NAME: &str = "preparing";

/// Zeros are written and synced in pieces of at most this size, so that the syncs of the writer get in between:
/// higher stalls appends meanwhile, lower costs more syncs per segment.
const PIECE_BYTES: usize = 1024 * 1024;

/// After a failure the work is tried again this often, and at once after a trim. Lower wastes the disk's time
/// while it is full; higher leaves producers refused for longer than there is need.
const RETRY: Duration = Duration::from_millis(250);

#[derive(Debug, Clone)]
pub(super) struct Prepared {
    pub(super) number: u64,
    pub(super) file: Arc<dyn BlockFile>,
    pub(super) size_bytes: u64,
}

/// Why there is no segment to go on with.
#[derive(Debug, Clone)]
pub(super) enum NotPrepared {
    NoSpace,
    Failed(Arc<str>),
}

#[derive(Debug)]
enum Slot {
    Wanted(u64),
    Ready(Prepared),
    Failed(u64, NotPrepared),
}

#[derive(Debug)]
pub(super) struct Preparer {
    slot: Mutex<Slot>,
    changed: Condvar,
    pace: Pace,
}

/// What others ask of the thread while it works.
#[derive(Debug, Default)]
pub(super) struct Pace {
    stopping: AtomicBool,
    /// The writer waits.
    hurried: AtomicBool,
}

impl Preparer {
    /// `ready` is a segment that a former process prepared and did not use; otherwise `number` is made first.
    pub(super) fn new(number: u64, ready: Option<Prepared>) -> Self {
        let slot = ready.map_or(Slot::Wanted(number), Slot::Ready);
        Preparer {
            slot: Mutex::new(slot),
            changed: Condvar::new(),
            pace: Pace::default(),
        }
    }

    /// Hands out the prepared segment, waiting while it is being made.
    pub(super) fn take(&self) -> Result<Prepared, NotPrepared> {
        let mut slot = lock_of(&self.slot);
        loop {
            match &*slot {
                Slot::Ready(prepared) => {
                    let prepared = prepared.clone();
                    self.pace.hurried.store(false, Ordering::Relaxed);
                    *slot = Slot::Wanted(prepared.number + 1);
                    self.changed.notify_all();
                    return Ok(prepared);
                }
                Slot::Failed(_, why) => return Err(why.clone()),
                Slot::Wanted(_) if self.pace.stopping.load(Ordering::Relaxed) => {
                    return Err(NotPrepared::Failed("the log is closing".into()));
                }
                Slot::Wanted(_) => {
                    self.pace.hurried.store(true, Ordering::Relaxed);
                    slot = wait(&self.changed, slot, None);
                }
            }
        }
    }

    /// Space was freed: tries again at once.
    pub(super) fn retry(&self) {
        let mut slot = lock_of(&self.slot);
        if let Slot::Failed(number, _) = *slot {
            *slot = Slot::Wanted(number);
            self.changed.notify_all();
        }
    }

    pub(super) fn stop(&self) {
        let _slot = lock_of(&self.slot);
        self.pace.stopping.store(true, Ordering::Relaxed);
        self.changed.notify_all();
    }

    /// The thread's work, until [`Preparer::stop`].
    pub(super) fn run(&self, folder: &dyn Folder, log_id: LogId, settings: &Settings) {
        let mut slot = lock_of(&self.slot);
        while !self.pace.stopping.load(Ordering::Relaxed) {
            match *slot {
                Slot::Ready(_) => slot = wait(&self.changed, slot, None),
                Slot::Failed(number, _) => {
                    slot = wait(&self.changed, slot, Some(RETRY));
                    if matches!(*slot, Slot::Failed(..)) {
                        // Still refused while it is tried, so the writer never waits for a hopeless attempt.
                        drop(slot);
                        let made = self.attempt(folder, log_id, number, settings);
                        slot = lock_of(&self.slot);
                        *slot = made;
                        self.changed.notify_all();
                    }
                }
                Slot::Wanted(number) => {
                    drop(slot);
                    let made = self.attempt(folder, log_id, number, settings);
                    slot = lock_of(&self.slot);
                    *slot = made;
                    self.changed.notify_all();
                }
            }
        }
    }

    fn attempt(&self, folder: &dyn Folder, log_id: LogId, number: u64, settings: &Settings) -> Slot {
        match prepare(folder, log_id, number, settings.size_of(number), &self.pace) {
            Ok(prepared) => Slot::Ready(prepared),
            Err(error) => {
                let _ = folder.remove(TEMPORARY_NAME);
                let why = if is_no_space(&error) {
                    NotPrepared::NoSpace
                } else {
                    NotPrepared::Failed(format!("the next segment could not be prepared: {error}").into())
                };
                if !self.pace.stopping.load(Ordering::Relaxed) {
                    tracing::warn!(segment = number, error = %error, "the next log segment could not be prepared; trying again");
                }
                Slot::Failed(number, why)
            }
        }
    }
}

fn wait<'a, T>(
    changed: &Condvar,
    guard: std::sync::MutexGuard<'a, T>,
    timeout: Option<Duration>,
) -> std::sync::MutexGuard<'a, T> {
    use std::sync::PoisonError;
    match timeout {
        None => changed.wait(guard).unwrap_or_else(PoisonError::into_inner),
        Some(timeout) => {
            changed
                .wait_timeout(guard, timeout)
                .unwrap_or_else(PoisonError::into_inner)
                .0
        }
    }
}

/// Makes segment `number`. It gets its name only once all of it is durable.
pub(super) fn prepare(
    folder: &dyn Folder,
    log_id: LogId,
    number: u64,
    size_bytes: u64,
    pace: &Pace,
) -> io::Result<Prepared> {
    let file = folder.create(TEMPORARY_NAME)?;
    let piece_bytes = PIECE_BYTES.min(size_bytes as usize / 4) as u64;
    let mut piece = Pages::zeros(piece_bytes as usize);
    let header = segment::encode_segment_header(log_id, number, size_bytes);
    if let Some(start) = piece.bytes_mut().get_mut(..header.len()) {
        start.copy_from_slice(&header);
    }
    let mut at = 0;
    while at < size_bytes {
        if pace.stopping.load(Ordering::Relaxed) {
            return Err(io::Error::other("the log is closing"));
        }
        let count = (size_bytes - at).min(piece_bytes);
        file.write_through(piece.bytes().get(..count as usize).unwrap_or_default(), at)?;
        file.sync()?;
        if at == 0 {
            piece.bytes_mut().fill(0);
        }
        at += count;
        if at < size_bytes && pace.hurried.load(Ordering::Relaxed) && reserve(&*file, size_bytes)? {
            break;
        }
    }
    folder.rename(TEMPORARY_NAME, &segment::name_of(number))?;
    folder.sync()?;
    Ok(Prepared {
        number,
        file,
        size_bytes,
    })
}

/// Whether the file system could.
fn reserve(file: &dyn BlockFile, size_bytes: u64) -> io::Result<bool> {
    match file.reserve(size_bytes) {
        Ok(()) => file.sync().map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(false),
        Err(error) => Err(error),
    }
}

pub(super) fn remove_leftover(folder: &dyn Folder, names: &[String]) -> io::Result<()> {
    if names.iter().any(|name| name == TEMPORARY_NAME) {
        folder.remove(TEMPORARY_NAME)?;
    }
    Ok(())
}
