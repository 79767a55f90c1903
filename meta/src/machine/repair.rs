//! Mending what can be proven: counts that say something else than what is counted. For `granary fsck --repair`.
//!
//! Nothing is deleted, and nothing is brought about that deletes: no inode loses its last name, no object its last live byte.
//! What makes a count smaller is done only when nothing else is wrong, because what is missing may be what was lost.

use granary_core::{Ino, ObjectId, Result};

use super::check::{Problem, examine};
use super::view::{Records, View};
use crate::changes::Changes;
use crate::record::{Counters, Inode, Key, Value};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// Names of an inode; for a directory with those of its subdirectories.
    Links(Ino),
    /// Entries of a directory, with the size that follows from them; that size alone.
    Entries(Ino),
    Size(Ino),
    /// Bytes of an inode's attributes' names.
    XattrNames(Ino),
    /// Extent records of a file, and bytes that its extents cover.
    Spilled(Ino),
    Stored(Ino),
    /// Bytes of files in an object.
    Live(ObjectId),
    /// Of the namespace.
    Bytes,
    Inodes,
    Capabilities,
    NextIno,
    NextOfTrash,
    /// Below a directory of the trash.
    HeldBytes(Ino),
    HeldInodes(Ino),
}

/// A count that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fix {
    pub count: Count,
    pub has: u64,
    pub should: u64,
}

/// What makes the counts right, and the problems that are gone with it.
pub fn repair(view: &mut dyn View) -> Result<(Changes, Vec<Problem>)> {
    let checked = examine(view)?;
    let mut changes = Changes::default();
    let mut mended = Vec::new();
    for problem in checked.problems {
        let Some(fix) = problem.fix else { continue };
        if checked.broken && fix.should < fix.has {
            continue;
        }
        fix.apply(&mut Mending { view, changes: &mut changes })?;
        mended.push(problem);
    }
    Ok((changes, mended))
}

/// Reads see what was mended before.
struct Mending<'a> {
    view: &'a mut dyn View,
    changes: &'a mut Changes,
}

impl View for Mending<'_> {
    fn get(&mut self, key: &Key) -> Result<Option<Value>> {
        match self.changes.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.view.get(key),
        }
    }

    fn scan(
        &mut self,
        span: crate::record::Span,
        from: Option<&Key>,
        visit: &mut dyn FnMut(Key, Value) -> Result<bool>,
    ) -> Result<()> {
        self.view.scan(span, from, visit)
    }
}

impl Mending<'_> {
    fn inode(&mut self, ino: Ino, change: impl FnOnce(&mut Inode)) -> Result<()> {
        let mut inode = std::sync::Arc::unwrap_or_clone(Records::inode(self, ino)?);
        change(&mut inode);
        self.changes.set(Key::Inode(ino), Some(Value::Inode(inode.into())));
        Ok(())
    }

    fn counters(&mut self, change: impl FnOnce(&mut Counters)) -> Result<()> {
        let mut counters = Records::counters(self)?;
        change(&mut counters);
        self.changes.set(Key::Counters, Some(Value::Counters(counters)));
        Ok(())
    }
}

impl Fix {
    fn apply(self, to: &mut Mending<'_>) -> Result<()> {
        let n = self.should;
        match self.count {
            Count::Links(ino) => to.inode(ino, |i| i.attr.nlink = n as u32),
            Count::Entries(ino) => to.inode(ino, |i| {
                i.entries = n;
                i.attr.size = n.saturating_mul(super::DIRECTORY_ENTRY_BYTES);
            }),
            Count::Size(ino) => to.inode(ino, |i| i.attr.size = n),
            Count::XattrNames(ino) => to.inode(ino, |i| i.xattr_names = n as u32),
            Count::Spilled(ino) => to.inode(ino, |i| i.spilled = n),
            Count::Stored(ino) => to.inode(ino, |i| i.attr.stored = n),
            Count::Live(id) => {
                if let Some(mut record) = to.find_object(id)? {
                    record.live = n;
                    to.changes.set(Key::Object(id), Some(Value::Object(record)));
                }
                Ok(())
            }
            Count::Bytes => to.counters(|c| c.bytes = n),
            Count::Inodes => to.counters(|c| c.inodes = n),
            Count::Capabilities => to.counters(|c| c.capabilities = n),
            Count::NextIno => to.counters(|c| c.next_ino = Ino(n)),
            Count::NextOfTrash => to.counters(|c| c.next_of_trash = Ino(n)),
            Count::HeldBytes(ino) => to.inode(ino, |i| i.held.bytes = n),
            Count::HeldInodes(ino) => to.inode(ino, |i| i.held.inodes = n),
        }
    }
}
