//! The trash of a namespace in this process: who still has a file open that goes there, and purging.

use std::sync::atomic::Ordering;

use granary_core::{Ino, Result};

use super::lock;
use super::namespace::{LocalNamespace, State, unexpected};
use crate::machine::trash::{self, expiry};
use crate::machine::{Operation, Records, Reply};
use crate::types::RenameMode;

/// Entries purged in one operation, so that nobody waits for long.
pub(crate) const PURGED_AT_ONCE: usize = 256;

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

    /// Purges some of what is due, of the files that `may` allows. `false`: nothing is due. What somebody has open goes with its
    /// last close.
    pub(crate) fn purge_some(&self, may: &mut dyn FnMut(Ino) -> bool) -> Result<bool> {
        if !self.has_trash() {
            return Ok(false);
        }
        let now = self.shared.clock.now();
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        state.purging = false;
        let hint = state.purged;
        let due = expiry::due(&mut self.layers(state), now, PURGED_AT_ONCE, hint)?;
        if due.is_empty() || state.refused.is_some() {
            return Ok(false);
        }
        let allowed = due.iter().filter(|v| v.directory || may(v.ino));
        let victims: Vec<_> = allowed.map(|v| (v.dir, v.name.clone())).collect();
        let gone = match self.apply(state, Operation::Purge { victims })? {
            Reply::Purged(gone) => gone,
            other => return Err(unexpected(&other)),
        };
        for ino in gone {
            if !state.opens.contains_key(&ino) {
                self.free(state, ino);
            }
        }
        state.purged = expiry::Hint::after(&due);
        state.purging = true;
        Ok(true)
    }
}
