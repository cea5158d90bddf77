//! Opening a log that was closed, killed, or cut off from power.
//!
//! Every group is read and checked. Where a group does not check out, the highest *mark* found anywhere behind
//! it decides: each group says which offset was durable before it was written.
//!
//! - A mark beyond the bad place: what lies there was durable once. **Corruption**: refuse, name file and byte.
//! - No such mark: it is the **torn end** of a group that was never acknowledged. Inside one group any sector may
//!   have reached the disk without the ones before it, so the rest of the file is erased, and synced, before
//!   anything is written there again.
//!
//! What is kept is made durable before it is readable: a process that died between write and sync leaves
//! a whole group in the page cache only, and after a failed sync the kernel may even call such pages clean.
//! So the last group is written once more, and synced.

use std::collections::VecDeque;
use std::io;

use super::io::Folder;
use super::ledger::{Ledger, Segment};
use super::preparer::{self, Pace, Prepared};
use super::reader::Window;
use super::scan::{erase, is_blank, rewrite, search};
use super::segment::{self, BadSegment, Place, SEGMENT_HEADER_BYTES};
use super::settings::Settings;
use super::{WAY_OUT, meta};
use crate::queue::LogId;

#[derive(Debug, thiserror::Error)]
pub(super) enum RecoveryError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("{0}; {WAY_OUT}")]
    Corrupt(String),
}

/// A log ready to be written.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) log_id: LogId,
    pub(super) ledger: Ledger,
    /// An empty segment behind the last one, ready for use.
    pub(super) prepared: Option<Prepared>,
    /// Whether the last group is a mark, or there is no group at all.
    pub(super) is_marked: bool,
}

/// Opens the log in `folder`, whose lock is held, creating it if the folder holds none.
pub(super) fn recover(folder: &dyn Folder, settings: &Settings) -> Result<Recovered, RecoveryError> {
    let names = folder.list()?;
    preparer::remove_leftover(folder, &names)?;
    meta::remove_leftover(folder, &names)?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment::number_of(name)).collect();
    numbers.sort_unstable();
    let log_id = match meta::read(folder)? {
        meta::Meta::Log(log_id) => log_id,
        meta::Meta::Damaged(what) => {
            return Err(RecoveryError::Corrupt(format!("log.meta is damaged: {what}")));
        }
        meta::Meta::Absent => {
            let log_id = create(folder, &numbers, settings)?;
            numbers = vec![0];
            log_id
        }
    };
    check_numbers(&numbers)?;
    let files = numbers
        .iter()
        .map(|number| open_segment(folder, log_id, *number))
        .collect::<Result<Vec<_>, RecoveryError>>()?;
    recover_files(folder, log_id, files, settings)
}

/// Makes a new log. The first segment comes first: a folder with a name but no segments has lost them.
fn create(folder: &dyn Folder, numbers: &[u64], settings: &Settings) -> Result<LogId, RecoveryError> {
    for number in numbers {
        let file = folder.open(&segment::name_of(*number))?;
        let size = file.size_bytes()?;
        if *number != 0 || !is_blank(&*file, SEGMENT_HEADER_BYTES.min(size), size)? {
            return Err(RecoveryError::Corrupt(
                "log.meta is missing, but there are records".to_owned(),
            ));
        }
    }
    let log_id = LogId(uuid::Uuid::now_v7());
    preparer::prepare(folder, log_id, 0, settings.size_of(0), &Pace::default())?;
    meta::write(folder, log_id)?;
    Ok(log_id)
}

fn check_numbers(numbers: &[u64]) -> Result<(), RecoveryError> {
    if numbers.is_empty() {
        return Err(RecoveryError::Corrupt("every segment file is missing".to_owned()));
    }
    for (number, following) in numbers.iter().zip(numbers.iter().skip(1)) {
        if number + 1 != *following {
            let name = segment::name_of(number + 1);
            return Err(RecoveryError::Corrupt(format!("segment file {name} is missing")));
        }
    }
    Ok(())
}

fn open_segment(folder: &dyn Folder, log_id: LogId, number: u64) -> Result<Prepared, RecoveryError> {
    let name = segment::name_of(number);
    let file = folder.open(&name)?;
    let mut header = [0; 64];
    let count = file.read_at(&mut header, 0)?;
    let size_bytes = segment::decode_segment_header(header.get(..count).unwrap_or_default(), log_id, number)
        .map_err(|bad| {
            RecoveryError::Corrupt(match bad {
                BadSegment::Damaged => format!("{name} at byte 0: the segment's header is damaged"),
                BadSegment::OtherLog => format!("{name} at byte 0: the segment is of another log or place"),
                BadSegment::Version(version) => {
                    format!("{name}: format version {version} is not known to this build")
                }
            })
        })?;
    let found = file.size_bytes()?;
    if found != size_bytes {
        let text = format!("{name} has {found} bytes, but should have {size_bytes}");
        return Err(RecoveryError::Corrupt(text));
    }
    Ok(Prepared {
        number,
        file,
        size_bytes,
    })
}

fn recover_files(
    folder: &dyn Folder,
    log_id: LogId,
    files: Vec<Prepared>,
    settings: &Settings,
) -> Result<Recovered, RecoveryError> {
    let mut segments = VecDeque::new();
    let mut walk = Walk {
        log_id,
        expected: None,
        mark: 0,
        last_group_at: None,
        last_is_mark: true,
    };
    let mut rest = VecDeque::from(files);
    while let Some(file) = rest.pop_front() {
        if segments.is_empty() && file.number == 0 {
            walk.expected = Some(0);
        }
        let segment = walk.segment(&file)?;
        let ends_here = match rest.front() {
            Some(following) => !walk.continues_in(following)?,
            None => true,
        };
        segments.push_back(segment);
        if ends_here {
            break;
        }
    }
    let Some(last) = segments.back_mut() else {
        return Err(RecoveryError::Corrupt("every segment file is missing".to_owned()));
    };
    let end = walk.expected;
    refuse_corruption(log_id, last, &rest, end, walk.mark)?;

    if erase(&*last.file, last.used_bytes, last.capacity_bytes)? {
        let name = segment::name_of(last.number);
        tracing::warn!(
            file = name,
            at = last.used_bytes,
            "erased the torn end of a group that was not acknowledged"
        );
    }
    if let Some(at) = walk.last_group_at {
        rewrite(&*last.file, at, last.used_bytes)?;
    }
    last.file.sync()?;
    let following = last.number + 1;
    let prepared = keep_prepared(folder, rest, following, settings)?;
    folder.sync()?;
    let is_marked = walk.last_is_mark;
    Ok(Recovered {
        log_id,
        ledger: Ledger::new(log_id, segments),
        prepared,
        is_marked,
    })
}

/// Goes through the groups in order.
struct Walk {
    log_id: LogId,
    /// The offset that the next group must start with; unknown before the first one of a trimmed log.
    expected: Option<u64>,
    mark: u64,
    /// The last intact group of the segment last walked.
    last_group_at: Option<u64>,
    last_is_mark: bool,
}

impl Walk {
    /// The segment's intact groups, up to the first place that does not hold one.
    fn segment(&mut self, file: &Prepared) -> Result<Segment, RecoveryError> {
        let mut window = Window::new(&*file.file, file.size_bytes);
        let mut segment: Option<Segment> = None;
        let new = |first| {
            Segment::new(
                file.number,
                std::sync::Arc::clone(&file.file),
                file.size_bytes,
                first,
            )
        };
        let mut at = SEGMENT_HEADER_BYTES;
        self.last_group_at = None;
        while let Some(header) = window.header(Place {
            log_id: self.log_id,
            segment: file.number,
            at,
        })? {
            let follows = self.expected.is_none_or(|expected| expected == header.first);
            if !follows || window.body(at, &header)?.is_none() {
                break;
            }
            self.mark = self.mark.max(header.durable);
            self.expected = Some(header.end());
            self.last_group_at = Some(at);
            self.last_is_mark = header.records == 0;
            let segment = segment.get_or_insert_with(|| new(header.first));
            segment.enter(header.first, header.end(), header.span(), header.written_at_ms);
            at += header.span();
        }
        match (segment, self.expected) {
            (Some(segment), _) => Ok(segment),
            (None, Some(expected)) => Ok(new(expected)),
            (None, None) => {
                let name = segment::name_of(file.number);
                let text = format!(
                    "{name} at byte {SEGMENT_HEADER_BYTES}: the oldest segment's first group is damaged"
                );
                Err(RecoveryError::Corrupt(text))
            }
        }
    }

    /// Whether `file` starts with the group that is due.
    fn continues_in(&self, file: &Prepared) -> Result<bool, RecoveryError> {
        let mut window = Window::new(&*file.file, file.size_bytes);
        let at = SEGMENT_HEADER_BYTES;
        let Some(header) = window.header(Place {
            log_id: self.log_id,
            segment: file.number,
            at,
        })?
        else {
            return Ok(false);
        };
        Ok(self.expected == Some(header.first) && window.body(at, &header)?.is_some())
    }
}

/// Looks for groups behind the end that say that more was durable.
fn refuse_corruption(
    log_id: LogId,
    last: &Segment,
    rest: &VecDeque<Prepared>,
    end: Option<u64>,
    mark: u64,
) -> Result<(), RecoveryError> {
    let end = end.unwrap_or(0);
    let within = search(
        &*last.file,
        log_id,
        last.number,
        last.used_bytes,
        last.capacity_bytes,
    )?;
    let mut beyond = mark;
    for file in rest {
        let found = search(
            &*file.file,
            log_id,
            file.number,
            SEGMENT_HEADER_BYTES,
            file.size_bytes,
        )?;
        beyond = beyond.max(found);
    }
    if within.max(beyond) <= end {
        return Ok(());
    }
    // The segment may be whole and the damage be at the start of the following one.
    let is_blank_here = is_blank(&*last.file, last.used_bytes, last.capacity_bytes)?;
    let (number, at) = match rest.front() {
        Some(following) if is_blank_here => (following.number, SEGMENT_HEADER_BYTES),
        _ => (last.number, last.used_bytes),
    };
    let name = segment::name_of(number);
    let durable = within.max(beyond);
    let text = format!(
        "{name} at byte {at}: no intact group for offset {end}, but offsets up to {durable} were durable"
    );
    Err(RecoveryError::Corrupt(text))
}

/// Keeps the segment that was prepared and not used, if it is as this build would prepare it; removes the others.
fn keep_prepared(
    folder: &dyn Folder,
    rest: VecDeque<Prepared>,
    following: u64,
    settings: &Settings,
) -> Result<Option<Prepared>, RecoveryError> {
    let mut kept = None;
    // Newest first, so that a power cut in between leaves no gap.
    for file in rest.into_iter().rev() {
        let fits = file.number == following && file.size_bytes == settings.size_of(following);
        if fits && is_blank(&*file.file, SEGMENT_HEADER_BYTES, file.size_bytes)? {
            kept = Some(file);
        } else {
            folder.remove(&segment::name_of(file.number))?;
            folder.sync()?;
        }
    }
    Ok(kept)
}
