//! The simulated disk as one process sees it, until the power is cut.

use std::io;
use std::sync::Arc;

use super::SimDisk;
use super::state::{Content, NameChange};
use crate::queue::disk::io::{BlockFile, Folder, Lock};

/// One process's view of the disk.
#[derive(Debug)]
pub(super) struct SimFolder {
    pub(super) life: u64,
    pub(super) disk: SimDisk,
}

struct SimLock {
    holder: u64,
    disk: SimDisk,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.lock_holder == Some(self.holder) {
            state.lock_holder = None;
        }
    }
}

impl SimFolder {
    fn change_name(&self, change: NameChange) -> io::Result<()> {
        self.disk.state().change(self.life, |state| {
            change.apply(&mut state.names);
            state.renames.push(change);
            Ok(())
        })
    }

    fn file(&self, id: u64) -> Arc<dyn BlockFile> {
        Arc::new(SimFile {
            life: self.life,
            id,
            disk: self.disk.clone(),
        })
    }
}

impl Folder for SimFolder {
    fn path(&self) -> String {
        "sim".to_owned()
    }

    fn lock(&self) -> io::Result<Option<Lock>> {
        let mut state = self.disk.state();
        state.is_dead(self.life)?;
        if state.lock_holder.is_some() {
            return Ok(None);
        }
        state.locks += 1;
        let holder = state.locks;
        state.lock_holder = Some(holder);
        Ok(Some(Box::new(SimLock {
            holder,
            disk: self.disk.clone(),
        })))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let state = self.disk.state();
        state.is_dead(self.life)?;
        Ok(state.names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn BlockFile>> {
        let id = self.disk.state().change(self.life, |state| {
            if state.refuses_files {
                return Err(io::Error::other("no file can be made"));
            }
            let id = state.files.last_key_value().map_or(0, |(last, _)| last + 1);
            state.files.insert(id, Content::default());
            let change = NameChange::Put(name.to_owned(), id);
            change.apply(&mut state.names);
            state.renames.push(change);
            Ok(id)
        })?;
        Ok(self.file(id))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn BlockFile>> {
        let state = self.disk.state();
        state.is_dead(self.life)?;
        let id = state.names.get(name).copied().ok_or(io::ErrorKind::NotFound)?;
        drop(state);
        Ok(self.file(id))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change_name(NameChange::Rename(from.to_owned(), to.to_owned()))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        if !self.disk.state().names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.change_name(NameChange::Remove(name.to_owned()))
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.is_dead(self.life)?;
        state.operations += 1;
        if state.cut_at.is_some_and(|at| state.operations > at) {
            state.power_cut();
            return Err(io::Error::other("the power was cut"));
        }
        for change in std::mem::take(&mut state.renames) {
            change.apply(&mut state.durable_names);
        }
        Ok(())
    }
}

#[derive(Debug)]
struct SimFile {
    life: u64,
    id: u64,
    disk: SimDisk,
}

impl BlockFile for SimFile {
    fn size_bytes(&self) -> io::Result<u64> {
        let state = self.disk.state();
        state.is_dead(self.life)?;
        let content = state.files.get(&self.id).ok_or(io::ErrorKind::NotFound)?;
        Ok(content.seen.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let state = self.disk.state();
        state.is_dead(self.life)?;
        let content = state.files.get(&self.id).ok_or(io::ErrorKind::NotFound)?;
        let rest = content.seen.get(at as usize..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn reserve(&self, size_bytes: u64) -> io::Result<()> {
        self.disk.state().change(self.life, |state| {
            let size = state
                .files
                .get(&self.id)
                .map_or(0, |content| content.seen.len() as u64);
            let grown = size_bytes.saturating_sub(size);
            if state.lacks_room(grown) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let content = state.files.get_mut(&self.id).ok_or(io::ErrorKind::NotFound)?;
            content.seen.resize((size + grown) as usize, 0);
            Ok(())
        })
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.disk.state().change(self.life, |state| {
            let size = state.files.get(&self.id).map_or(0, |content| content.seen.len());
            let at = at as usize;
            let grown = (at + bytes.len()).saturating_sub(size) as u64;
            if state.lacks_room(grown) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let fails = state.failing_writes > 0;
            state.failing_writes = state.failing_writes.saturating_sub(1);
            let sector_bytes = state.sector_bytes;
            let content = state.files.get_mut(&self.id).ok_or(io::ErrorKind::NotFound)?;
            let bytes = if fails { &bytes[..bytes.len() / 2] } else { bytes };
            let end = at + bytes.len();
            if content.seen.len() < end {
                content.seen.resize(end, 0);
            }
            content.seen[at..end].copy_from_slice(bytes);
            content
                .unsynced
                .extend(at / sector_bytes..end.div_ceil(sector_bytes));
            if fails {
                Err(io::Error::other("the write failed"))
            } else {
                Ok(())
            }
        })
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.is_dead(self.life)?;
        state.operations += 1;
        if state.cut_at.is_some_and(|at| state.operations > at) {
            state.power_cut();
            return Err(io::Error::other("the power was cut"));
        }
        let fails = state.failing_syncs > 0;
        state.failing_syncs = state.failing_syncs.saturating_sub(1);
        let sector_bytes = state.sector_bytes;
        let content = state.files.get_mut(&self.id).ok_or(io::ErrorKind::NotFound)?;
        let sectors = std::mem::take(&mut content.unsynced);
        if fails {
            return Err(io::Error::other("the sync failed"));
        }
        content.durable.resize(content.seen.len(), 0);
        for sector in sectors {
            let from = sector * sector_bytes;
            let to = (from + sector_bytes).min(content.seen.len());
            content.durable[from..to].copy_from_slice(&content.seen[from..to]);
        }
        Ok(())
    }
}
