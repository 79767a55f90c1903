//! Which of the directories that tars tell of are shown, without I/O: those in which something lives, and those that were empty when
//! they were packed. One whose files were all deleted is gone with them, as if it had never been told of.

use granary_core::Result;

use super::Entry;

/// Directories on the way to where the merge is, that are not known to be shown yet.
#[derive(Debug, Default)]
pub struct Directories {
    pending: Vec<Pending>,
}

#[derive(Debug)]
struct Pending {
    /// With a slash at its end.
    path: Vec<u8>,
    entry: Entry,
    /// A file that was deleted lies below it.
    dead_below: bool,
}

impl Directories {
    /// The merge comes to `path`, which ends directories that it is not below; at the merge's end it is empty. `show` is told of
    /// those that are shown, in their order.
    pub fn come_to(&mut self, path: &[u8], show: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        while self.pending.last().is_some_and(|last| !path.starts_with(&last.path)) {
            let Some(last) = self.pending.pop() else { break };
            match (last.dead_below, self.pending.last_mut()) {
                (true, Some(above)) => above.dead_below = true,
                (true, None) => {}
                (false, _) => {
                    self.lives(show)?;
                    show(last.entry)?;
                }
            }
        }
        Ok(())
    }

    /// A directory begins, with its path as it is in the order.
    pub fn begin(&mut self, path: &[u8], entry: Entry) {
        self.pending.push(Pending { path: path.to_vec(), entry, dead_below: false });
    }

    /// Here is a file that was deleted.
    pub fn is_dead(&mut self) {
        if let Some(last) = self.pending.last_mut() {
            last.dead_below = true;
        }
    }

    /// Here is something that lives: all directories on the way are shown.
    pub fn lives(&mut self, show: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        self.pending.drain(..).try_for_each(|pending| show(pending.entry))
    }
}
