//! The trash of a namespace in this process: who still has a file open that goes there, and purging.

use std::sync::atomic::Ordering;

use granary_core::{Ino, Result};

use super::lock;
use super::namespace::{LocalNamespace, State, unexpected};
use crate::machine::trash::{self, expiry};
use crate::machine::{Operation, Records, Reply};
use crate::types::RenameMode;

/// Entries purged in one operation, so that nobody waits for long.
const PURGED_AT_ONCE: usize = 256;
/// Batches that one removed file may need for its room.
const BATCHES_FOR_ONE: usize = 64;

impl LocalNamespace {
    /// Puts into an operation whether the inode is open that may lose its last name by it.
    pub(super) fn tell_open(&self, state: &mut State, operation: &mut Operation) -> Result<()> {
        let (dir, name, open) = match operation {
            Operation::Unlink { dir, name, open } => (*dir, name, open),
            Operation::Rename { to_dir, to_name, mode: RenameMode::Replace, open, .. } => {
                (*to_dir, to_name, open)
            }
            _ => return Ok(()),
        };
        if !state.opens.is_empty()
            && let Some(entry) = self.layers(state).entry(dir, name)?
        {
            *open = state.opens.contains_key(&entry.ino);
        }
        Ok(())
    }

    /// Whether a directory is in the trash; one that cannot be read may be.
    pub(crate) fn is_in_trash(&self, dir: Ino) -> bool {
        dir.is_of_trash() && self.read(|view| trash::holds(view, dir)).unwrap_or(true)
    }

    pub(crate) fn has_trash(&self) -> bool {
        self.usage.trash_inodes.load(Ordering::Relaxed) > 0
    }

    /// Purges the oldest hours until a file fits into the trash that is about to lose its name by this operation; of the files
    /// that `may` allows.
    pub(crate) fn make_room(&self, operation: &Operation, may: &mut dyn FnMut(Ino) -> bool) -> Result<()> {
        let max = self.usage.bytes_max.load(Ordering::Relaxed);
        let (dir, name) = match operation {
            Operation::Unlink { dir, name, .. } => (*dir, name),
            // What is being moved out must not be what is purged for it.
            Operation::Rename { dir, to_dir, to_name, mode: RenameMode::Replace, .. }
                if !self.is_in_trash(*dir) =>
            {
                (*to_dir, to_name)
            }
            _ => return Ok(()),
        };
        if max == 0 || !self.has_trash() || self.is_in_trash(dir) {
            return Ok(());
        }
        let stored = self.read(|view| {
            let Some(entry) = view.entry(dir, name)? else { return Ok(0) };
            let inode = view.find_inode(entry.ino)?;
            Ok(inode.filter(|i| !i.is_directory() && i.attr.nlink == 1).map_or(0, |i| i.attr.stored))
        })?;
        for _ in 0..BATCHES_FOR_ONE {
            let has = self.usage.trash_bytes.load(Ordering::Relaxed);
            if stored == 0 || stored > max || has + stored <= max || !self.purge(stored, true, may)? {
                break;
            }
        }
        Ok(())
    }

    /// Purges some of what is due, of the files that `may` allows. `false`: nothing is due. What somebody has open goes with its
    /// last close.
    pub(crate) fn purge_due(&self, may: &mut dyn FnMut(Ino) -> bool) -> Result<bool> {
        self.purge(0, false, may)
    }

    /// `wait`: for the committer, while too much is pending.
    fn purge(&self, wanted: u64, wait: bool, may: &mut dyn FnMut(Ino) -> bool) -> Result<bool> {
        if !self.has_trash() {
            return Ok(false);
        }
        let now = self.shared.clock.now();
        let mut guard = if wait { self.lock_with_room()? } else { lock(&self.state) };
        let state = &mut *guard;
        state.purging = false;
        let hint = state.purged;
        let due = expiry::due(&mut self.layers(state), now, wanted, PURGED_AT_ONCE, hint)?;
        if due.is_empty() || state.refused.is_some() {
            return Ok(false);
        }
        let allowed = due.iter().filter(|v| v.directory || may(v.ino));
        let victims: Vec<_> = allowed.map(|v| (v.dir, v.name.clone())).collect();
        let gone = match self.apply(state, Operation::Purge { victims })? {
            Reply::Purged(gone) => gone,
            other => return Err(unexpected(&other)),
        };
        for ino in gone.iter().filter(|ino| !state.opens.contains_key(ino)).copied().collect::<Vec<_>>() {
            self.free(state, ino);
        }
        state.purged = expiry::Hint::after(&due);
        state.purging = true;
        Ok(wanted == 0 || !gone.is_empty())
    }
}
