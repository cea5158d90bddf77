//! Going over stretches of a segment file that should be blank: searching, erasing, rewriting.

use std::io;

use super::io::BlockFile;
use super::reader::Window;
use super::segment::{GROUP_ALIGNMENT, GROUP_HEADER_BYTES, GROUP_MAGIC, GroupHeader, Place};
use crate::queue::LogId;

/// The step in which files are searched and erased; blocks that are all zero are skipped at once.
const BLOCK_BYTES: usize = 64 * 1024;
const ZEROS: &[u8; BLOCK_BYTES] = &[0; BLOCK_BYTES];

/// The highest mark of any group header between `from` and `to`.
pub(super) fn search(
    file: &dyn BlockFile,
    log_id: LogId,
    number: u64,
    from: u64,
    to: u64,
) -> io::Result<u64> {
    let mut mark = 0;
    let mut window = Window::new(file, to);
    let mut at = from;
    while at < to {
        let size = (to - at).min(BLOCK_BYTES as u64) as usize;
        let Some(block) = window.slice(at, size)? else {
            break;
        };
        if ZEROS.get(..size) != Some(&block[..]) {
            for (step, start) in block.chunks(GROUP_ALIGNMENT).enumerate() {
                if start.starts_with(GROUP_MAGIC) {
                    let place = Place {
                        log_id,
                        segment: number,
                        at: at + (step * GROUP_ALIGNMENT) as u64,
                    };
                    // A file of its own window: a header may reach into the next block.
                    let mut header = [0; GROUP_HEADER_BYTES];
                    file.read_at(&mut header, place.at)?;
                    let header = GroupHeader::decode(&header, place);
                    mark = header.map_or(mark, |header| mark.max(header.durable));
                }
            }
        }
        at += size as u64;
    }
    Ok(mark)
}

/// Overwrites what is not zero between `from` and `to` with zeros; whether there was anything.
pub(super) fn erase(file: &dyn BlockFile, from: u64, to: u64) -> io::Result<bool> {
    let mut window = Window::new(file, to);
    let mut at = from;
    let mut erased = false;
    while at < to {
        let size = (to - at).min(BLOCK_BYTES as u64) as usize;
        let zeros = ZEROS.get(..size).unwrap_or_default();
        let Some(block) = window.slice(at, size)? else {
            break;
        };
        if block != zeros {
            file.write_at(zeros, at)?;
            erased = true;
        }
        at += size as u64;
    }
    Ok(erased)
}

pub(super) fn is_blank(file: &dyn BlockFile, from: u64, to: u64) -> io::Result<bool> {
    let mut window = Window::new(file, to);
    let mut at = from;
    while at < to {
        let size = (to - at).min(BLOCK_BYTES as u64) as usize;
        let Some(block) = window.slice(at, size)? else {
            break;
        };
        if ZEROS.get(..size) != Some(&block[..]) {
            return Ok(false);
        }
        at += size as u64;
    }
    Ok(true)
}

pub(super) fn rewrite(file: &dyn BlockFile, from: u64, to: u64) -> io::Result<()> {
    if let Some(bytes) = Window::new(file, to).slice(from, (to - from) as usize)? {
        file.write_at(&bytes, from)?;
    }
    Ok(())
}
