//! What is on the simulated disk, what a process sees of it, and what a power cut leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

#[derive(Default)]
pub(super) struct State {
    pub(super) random: u64,
    pub(super) sector_bytes: usize,
    pub(super) capacity_bytes: Option<u64>,
    /// Counts power cuts; handles of an earlier life are dead.
    pub(super) life: u64,
    pub(super) lock_holder: Option<u64>,
    pub(super) locks: u64,
    pub(super) operations: u64,
    pub(super) cut_at: Option<u64>,
    pub(super) failing_syncs: u32,
    pub(super) failing_writes: u32,
    pub(super) refuses_files: bool,
    pub(super) files: BTreeMap<u64, Content>,
    /// What a process sees, what is durable, and how the first became of the second.
    pub(super) names: BTreeMap<String, u64>,
    pub(super) durable_names: BTreeMap<String, u64>,
    pub(super) renames: Vec<NameChange>,
}

#[derive(Default)]
pub(super) struct Content {
    pub(super) seen: Vec<u8>,
    pub(super) durable: Vec<u8>,
    pub(super) unsynced: BTreeSet<usize>,
}

#[derive(Clone)]
pub(super) enum NameChange {
    Put(String, u64),
    Rename(String, String),
    Remove(String),
}

impl NameChange {
    pub(super) fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            NameChange::Put(name, file) => {
                names.insert(name.clone(), *file);
            }
            NameChange::Rename(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
            NameChange::Remove(name) => {
                names.remove(name);
            }
        }
    }
}

impl State {
    /// SplitMix64.
    pub(super) fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.names
            .values()
            .filter_map(|file| self.files.get(file))
            .map(|file| file.seen.len() as u64)
            .sum()
    }

    pub(super) fn lacks_room(&self, grown: u64) -> bool {
        grown > 0
            && self
                .capacity_bytes
                .is_some_and(|capacity| self.used_bytes() + grown > capacity)
    }

    pub(super) fn is_dead(&self, life: u64) -> io::Result<()> {
        if self.life == life {
            Ok(())
        } else {
            Err(io::Error::other("the power was cut"))
        }
    }

    /// Counts an operation that changes the disk; at the chosen one, `change` happens and then the power is cut.
    pub(super) fn change<T>(
        &mut self,
        life: u64,
        change: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        self.is_dead(life)?;
        self.operations += 1;
        if self.cut_at.is_some_and(|at| self.operations > at) {
            let _ = change(self);
            self.power_cut();
            return Err(io::Error::other("the power was cut"));
        }
        change(self)
    }

    pub(super) fn power_cut(&mut self) {
        self.life += 1;
        self.cut_at = None;
        self.lock_holder = None;
        self.failing_syncs = 0;
        self.failing_writes = 0;
        self.refuses_files = false;
        let changes = std::mem::take(&mut self.renames);
        let kept = self.next_random() % (changes.len() as u64 + 1);
        for change in changes.iter().take(kept as usize) {
            change.apply(&mut self.durable_names);
        }
        self.names.clone_from(&self.durable_names);
        let named: BTreeSet<u64> = self.names.values().copied().collect();
        self.files.retain(|file, _| named.contains(file));
        let sector_bytes = self.sector_bytes;
        // In some cuts almost all is lost, in some almost nothing.
        let odds = self.next_random() % 101;
        for file in named {
            let Some(mut content) = self.files.remove(&file) else {
                continue;
            };
            if content.seen.len() > content.durable.len() && self.next_random().is_multiple_of(2) {
                content.durable.resize(content.seen.len(), 0);
            }
            for sector in std::mem::take(&mut content.unsynced) {
                if self.next_random() % 100 >= odds {
                    continue;
                }
                let from = sector * sector_bytes;
                let to = (from + sector_bytes)
                    .min(content.durable.len())
                    .min(content.seen.len());
                if from < to {
                    content.durable[from..to].copy_from_slice(&content.seen[from..to]);
                }
            }
            content.seen.clone_from(&content.durable);
            self.files.insert(file, content);
        }
    }
}
