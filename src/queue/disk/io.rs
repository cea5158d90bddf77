//! The seam between the log and the file system: one folder of files, flat.
//!
//! Everything the log does to a disk goes through these two traits, so that a simulated disk
//! ([`super::sim`]) can lose, tear and reorder what was not synced. Blocking; called from the log's own threads
//! and from `spawn_blocking`.

use std::any::Any;
use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// In this unit file systems cache files, and take writes past their cache. A write of only a part of a page that is not in the cache waits
/// for it to be read.
pub(super) const PAGE_BYTES: usize = 4096;

/// Held as long as the folder is in use; dropping it lets another process in.
pub(super) type Lock = Box<dyn Any + Send>;

/// A folder that holds one log.
pub(super) trait Folder: Send + Sync + fmt::Debug {
    /// The folder's name for messages.
    fn path(&self) -> String;
    /// `None` when another holder, in this process or another one, has the lock.
    fn lock(&self) -> io::Result<Option<Lock>>;
    fn list(&self) -> io::Result<Vec<String>>;
    /// Creates an empty file, or empties an existing one.
    fn create(&self, name: &str) -> io::Result<Arc<dyn BlockFile>>;
    fn open(&self, name: &str) -> io::Result<Arc<dyn BlockFile>>;
    /// Replaces `to` if it exists.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations, renames and removals durable.
    fn sync(&self) -> io::Result<()>;
}

/// An open file, read and written at positions.
pub(super) trait BlockFile: Send + Sync + fmt::Debug {
    fn size_bytes(&self) -> io::Result<u64>;
    /// Fills `buffer` from `at`; fewer bytes are returned only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize>;
    /// Writes all of `bytes`. After an error any part of them may be in the file.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;
    /// The same, past the file system's cache where it can be: for what nobody reads soon. `bytes` and `at` should be multiples of
    /// [`PAGE_BYTES`], and `bytes` lie at one in memory.
    fn write_through(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.write_at(bytes, at)
    }
    /// Nothing will be written for the time being: lets go of what only that needs.
    fn written(&self) {}
    /// Grows the file to `size_bytes` and reserves the room, without writing: what is new reads as zeros. `Unsupported` where the
    /// file system cannot.
    fn reserve(&self, size_bytes: u64) -> io::Result<()>;
    /// Makes what was written durable, with the file's size.
    fn sync(&self) -> io::Result<()>;
}

/// Whether an error says that there is no room, as opposed to a broken disk.
pub(super) fn is_no_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// A folder of the real file system.
#[derive(Debug)]
pub(super) struct LocalFolder {
    path: PathBuf,
}

impl LocalFolder {
    /// Opens the folder, creating it, its parents and their directory entries durably.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let absent: Vec<&Path> = path.ancestors().take_while(|at| !at.exists()).collect();
        std::fs::create_dir_all(path)?;
        for made in absent {
            let parent = match made.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                _ => Path::new("."),
            };
            File::open(parent)?.sync_all()?;
        }
        Ok(LocalFolder {
            path: path.to_owned(),
        })
    }
}

impl Folder for LocalFolder {
    fn path(&self) -> String {
        self.path.display().to_string()
    }

    fn lock(&self) -> io::Result<Option<Lock>> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.path.join("lock"))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            // A name that is not UTF-8 is not one of ours.
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn BlockFile>> {
        let path = self.path.join(name);
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(path)?;
        Ok(Arc::new(LocalFile::new(file)))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn BlockFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.path.join(name))?;
        Ok(Arc::new(LocalFile::new(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

#[derive(Debug)]
struct LocalFile {
    file: File,
    /// The same file, opened to be written past the cache: `None` until that is tried, and where it cannot be.
    direct: Mutex<Option<Option<File>>>,
}

impl LocalFile {
    fn new(file: File) -> Self {
        LocalFile {
            file,
            direct: Mutex::default(),
        }
    }

    fn direct(&self) -> MutexGuard<'_, Option<Option<File>>> {
        // Whole between any two statements.
        self.direct.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// By its descriptor, since a segment is renamed once it is made.
#[cfg(target_os = "linux")]
fn open_direct(file: &File) -> Option<File> {
    use std::os::fd::AsRawFd as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut past_the_cache = OpenOptions::new();
    past_the_cache.write(true).custom_flags(libc::O_DIRECT);
    past_the_cache
        .open(format!("/proc/self/fd/{}", file.as_raw_fd()))
        .ok()
}

#[cfg(not(target_os = "linux"))]
fn open_direct(_file: &File) -> Option<File> {
    None
}

impl BlockFile for LocalFile {
    fn size_bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, at + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, at)
    }

    fn write_through(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let is_aligned = |n: usize| n.is_multiple_of(PAGE_BYTES);
        if !(is_aligned(bytes.as_ptr().addr()) && is_aligned(bytes.len()) && is_aligned(at as usize)) {
            return self.write_at(bytes, at);
        }
        let mut direct = self.direct();
        let Some(past_the_cache) = direct.get_or_insert_with(|| open_direct(&self.file)) else {
            return self.write_at(bytes, at);
        };
        match past_the_cache.write_all_at(bytes, at) {
            // The file system takes the flag and not the write.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                *direct = Some(None);
                self.write_at(bytes, at)
            }
            other => other,
        }
    }

    fn written(&self) {
        self.direct().take();
    }

    #[cfg(target_os = "linux")]
    fn reserve(&self, size_bytes: u64) -> io::Result<()> {
        use std::os::fd::AsRawFd as _;
        let size = libc::off_t::try_from(size_bytes).map_err(|_| io::ErrorKind::FileTooLarge)?;
        // SAFETY: the descriptor is open as long as `self.file` lives, and no memory is passed.
        match unsafe { libc::fallocate(self.file.as_raw_fd(), 0, 0, size) } {
            0 => Ok(()),
            _ => Err(match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::EOPNOTSUPP) => io::ErrorKind::Unsupported.into(),
                error => error,
            }),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn reserve(&self, _size_bytes: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::super::pages::Pages;
    use super::*;

    #[test]
    fn what_is_written_through_is_read_like_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let folder = LocalFolder::open(folder.path()).unwrap();
        let file = folder.create("file").unwrap();
        let mut pages = Pages::zeros(2 * PAGE_BYTES);
        pages.bytes_mut().fill(7);
        let whole = pages.bytes();
        file.write_at(&[1; 100], 50).unwrap();
        file.write_through(whole, PAGE_BYTES as u64).unwrap();
        // Neither of these can bypass the cache.
        file.write_through(&whole[1..], 5 * PAGE_BYTES as u64 + 1)
            .unwrap();
        file.write_at(&[2; 10], 2 * PAGE_BYTES as u64).unwrap();
        file.written();
        file.write_through(whole, 9 * PAGE_BYTES as u64).unwrap();
        file.sync().unwrap();
        let mut read = vec![9; 11 * PAGE_BYTES];
        assert_eq!(file.read_at(&mut read, 0).unwrap(), read.len());
        let mut expected = vec![0; 11 * PAGE_BYTES];
        expected[50..150].fill(1);
        expected[PAGE_BYTES..3 * PAGE_BYTES].fill(7);
        expected[2 * PAGE_BYTES..2 * PAGE_BYTES + 10].fill(2);
        expected[5 * PAGE_BYTES + 1..7 * PAGE_BYTES].fill(7);
        expected[9 * PAGE_BYTES..].fill(7);
        assert_eq!(read, expected);
    }

    #[test]
    fn what_only_writing_needs_is_kept_no_longer() {
        let folder = tempfile::tempdir().unwrap();
        let file = File::create(folder.path().join("file")).unwrap();
        let file = LocalFile::new(file);
        file.write_through(Pages::zeros(PAGE_BYTES).bytes(), 0).unwrap();
        assert!(file.direct().is_some());
        file.written();
        assert!(file.direct().is_none());
    }
}
