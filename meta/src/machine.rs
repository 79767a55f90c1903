//! The state machine of one namespace: an operation on a state gives changes and a reply, or an error and no change.
//!
//! No clock, no randomness, no I/O but reading through the [`View`]: the same operations with the same times on the same
//! state give the same bytes. The kernel has checked permissions (`default_permissions`); what POSIX asks beyond that is
//! here: link counts, times, setgid inheritance, access control lists and what a mode has to do with them, privileges that a
//! change of content or owner ends, what rename may replace, limits and quota.
//!
//! Times: whatever changes an inode sets its ctime to `now`; whatever changes a directory's entries sets its mtime and
//! ctime; content changes set mtime. `version` changes with content, and for directories with entries, but not when bytes
//! only move (relocation).
//!
//! Quota is enforced where something is made: no inode above `inodes_max`, no regular file while `bytes_max` is reached
//! (directories, links and renames go on, so that a full namespace can be tidied up; only what is moved out of the trash must
//! fit). Commits are never refused.

use std::sync::Arc;

use granary_core::{Error, Ino, Kind, ObjectId, Result, Timestamp};

use crate::changes::Changes;
use crate::record::{Counters, Entry, Inode, Key, NamespaceRecord, Orphan, Span, Value};
use crate::types::*;

mod attributes;
pub mod check;
mod condemn;
mod content;
mod copy;
mod create;
mod extents;
mod inline;
pub mod read;
mod remove;
mod rename;
pub mod repair;
pub mod trash;
pub mod view;
mod xattrs;

pub use content::live;
pub use view::{EngineView, Records, SnapshotView, View};

/// What may be done to a namespace. Plain data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Makes an empty namespace: the first operation.
    Init {
        new: NewNamespace,
    },
    /// Changes settings; owner and mode are the root directory's.
    Configure {
        change: NamespaceChange,
    },
    Create {
        dir: Ino,
        name: Box<[u8]>,
        new: NewInode,
    },
    /// Makes a regular file without a name, which [`Operation::Link`] may give it.
    Tmpfile {
        dir: Ino,
        new: NewInode,
    },
    Link {
        ino: Ino,
        dir: Ino,
        name: Box<[u8]>,
    },
    /// `open`: somebody has the inode open that the name is of.
    Unlink {
        dir: Ino,
        name: Box<[u8]>,
        open: bool,
    },
    Rmdir {
        dir: Ino,
        name: Box<[u8]>,
    },
    Rename {
        dir: Ino,
        name: Box<[u8]>,
        to_dir: Ino,
        to_name: Box<[u8]>,
        mode: RenameMode,
        /// Somebody has the inode open that loses its name by being replaced.
        open: bool,
    },
    SetAttr {
        ino: Ino,
        set: SetAttr,
    },
    SetXattr {
        ino: Ino,
        name: Box<[u8]>,
        value: Box<[u8]>,
        create_only: bool,
        replace_only: bool,
    },
    RemoveXattr {
        ino: Ino,
        name: Box<[u8]>,
    },
    Commit(Commit),
    CopyRange(CopyRange),
    Relocate {
        object: ObjectInfo,
        moves: Vec<Move>,
    },
    /// Keeps copies of the bytes of files whose whole content is in this object; see `machine/inline.rs`.
    KeepInline {
        object: ObjectId,
        copies: Vec<NewInline>,
    },
    ForgetObjects {
        ids: Vec<ObjectId>,
    },
    /// Objects that are in the store: those that are not known here never will be.
    Condemn {
        ids: Vec<ObjectId>,
    },
    /// Removes entries of the trash, in this order: see [`trash::expiry`].
    Purge {
        victims: Vec<(Ino, Box<[u8]>)>,
    },
    /// Frees an inode without name that nobody has open. At most about `extents_max` extents go in one operation; while
    /// some are left the reply is [`Reply::Freed`] with `false`. One that has a place in the trash goes there instead.
    Free {
        ino: Ino,
        extents_max: usize,
    },
}

/// What an operation answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Done,
    Attr(Attr),
    /// The inode that lost its name by being replaced.
    Renamed(Option<Attr>),
    Copied(Copied),
    /// For each move, the parts `(file offset, len)` that took effect.
    Moved(Vec<Vec<(u64, u64)>>),
    /// Whether nothing is left to free.
    Freed(bool),
    /// For each object whether nothing refers to it, or ever will.
    Condemned(Vec<bool>),
    /// The inodes that lost their name.
    Purged(Vec<Ino>),
}

/// Applies one operation: what it changes, and its reply. The state behind `view` is not touched.
pub fn apply(view: &mut dyn View, operation: Operation, now: Timestamp) -> Result<(Changes, Reply)> {
    let mut tx = Tx { view, changes: Changes::default(), now };
    let reply = match operation {
        Operation::Init { new } => create::init(&mut tx, new),
        Operation::Configure { change } => attributes::configure(&mut tx, change),
        Operation::Create { dir, name, new } => create::create(&mut tx, dir, name, new),
        Operation::Tmpfile { dir, new } => create::tmpfile(&mut tx, dir, new),
        Operation::Link { ino, dir, name } => create::link(&mut tx, ino, dir, name),
        Operation::Unlink { dir, name, open } => remove::unlink(&mut tx, dir, name, open),
        Operation::Rmdir { dir, name } => remove::rmdir(&mut tx, dir, name),
        Operation::Rename { dir, name, to_dir, to_name, mode, open } => {
            rename::rename(&mut tx, (dir, name), (to_dir, to_name), mode, open)
        }
        Operation::SetAttr { ino, set } => attributes::set_attr(&mut tx, ino, set),
        Operation::SetXattr { ino, name, value, create_only, replace_only } => {
            xattrs::set(&mut tx, ino, name, value, create_only, replace_only)
        }
        Operation::RemoveXattr { ino, name } => xattrs::remove(&mut tx, ino, name),
        Operation::Commit(commit) => content::commit(&mut tx, commit),
        Operation::CopyRange(copy) => copy::copy_range(&mut tx, copy),
        Operation::Relocate { object, moves } => content::relocate(&mut tx, object, &moves),
        Operation::KeepInline { object, copies } => inline::keep(&mut tx, object, copies),
        Operation::ForgetObjects { ids } => content::forget_objects(&mut tx, &ids),
        Operation::Condemn { ids } => condemn::condemn(&mut tx, &ids),
        Operation::Purge { victims } => trash::expiry::purge(&mut tx, victims),
        Operation::Free { ino, extents_max } => remove::free(&mut tx, ino, extents_max),
    }?;
    Ok((tx.changes, reply))
}

/// An operation under way: reads see its own changes. Scans do not: an operation scans a family before it changes it.
struct Tx<'v> {
    view: &'v mut dyn View,
    changes: Changes,
    now: Timestamp,
}

impl View for Tx<'_> {
    fn get(&mut self, key: &Key) -> Result<Option<Value>> {
        match self.changes.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.view.get(key),
        }
    }

    fn scan(
        &mut self,
        span: Span,
        from: Option<&Key>,
        visit: &mut dyn FnMut(Key, Value) -> Result<bool>,
    ) -> Result<()> {
        debug_assert!(
            !self.changes.ranges.keys().any(|key| span.contains(key)),
            "an operation scans {span:?} after changing it"
        );
        self.view.scan(span, from, visit)
    }
}

impl Tx<'_> {
    fn put(&mut self, key: Key, value: Value) {
        self.changes.set(key, Some(value));
    }

    fn delete(&mut self, key: Key) {
        self.changes.set(key, None);
    }

    fn put_inode(&mut self, inode: Inode) {
        self.put(Key::Inode(inode.attr.ino), Value::Inode(Arc::new(inode)));
    }

    /// A copy to change, of an inode that is there.
    fn inode_mut(&mut self, ino: Ino) -> Result<Inode> {
        self.inode(ino).map(Arc::unwrap_or_clone)
    }

    /// A directory that entries may be added to or taken from: it has a name itself.
    fn live_directory(&mut self, ino: Ino) -> Result<Arc<Inode>> {
        let dir = self.directory(ino)?;
        if dir.attr.nlink == 0 {
            Err(Error::new(Kind::NotFound, "the directory was removed"))
        } else {
            Ok(dir)
        }
    }

    /// Changes a directory whose entries change: `by` entries more, `subdirs` directories among them.
    fn touch_directory(&mut self, ino: Ino, entries: i64, subdirs: i32, cookies: u64) -> Result<()> {
        let mut dir = self.inode_mut(ino)?;
        dir.entries =
            dir.entries.checked_add_signed(entries).ok_or_else(|| bug("a directory's entries", ino))?;
        dir.attr.nlink =
            dir.attr.nlink.checked_add_signed(subdirs).ok_or_else(|| bug("a directory's link count", ino))?;
        dir.next_cookie += cookies;
        dir.attr.size = dir.entries.saturating_mul(DIRECTORY_ENTRY_BYTES);
        dir.attr.mtime = self.now;
        dir.attr.ctime = self.now;
        dir.attr.version += 1;
        self.put_inode(dir);
        Ok(())
    }

    fn put_entry(&mut self, dir: Ino, name: Box<[u8]>, entry: Entry) {
        let listing = crate::record::Listing { ino: entry.ino, kind: entry.kind, name: name.clone() };
        self.put(Key::Listing(dir, entry.cookie), Value::Listing(listing));
        self.put(Key::Entry(dir, name), Value::Entry(entry));
    }

    fn delete_entry(&mut self, dir: Ino, name: Box<[u8]>, entry: Entry) {
        self.delete(Key::Listing(dir, entry.cookie));
        self.delete(Key::Entry(dir, name));
    }

    fn put_counters(&mut self, counters: Counters) {
        self.put(Key::Counters, Value::Counters(counters));
    }

    /// Adds to the namespace's bytes.
    fn count_bytes(&mut self, by: i64) -> Result<()> {
        if by != 0 {
            let mut counters = self.counters()?;
            counters.bytes =
                counters.bytes.checked_add_signed(by).ok_or_else(|| bug("the namespace's bytes", Ino(0)))?;
            self.put_counters(counters);
        }
        Ok(())
    }

    /// Takes one name from an inode. Without any it becomes an orphan, for its last user to free.
    fn drop_link(&mut self, ino: Ino) -> Result<Attr> {
        let mut inode = self.inode_mut(ino)?;
        let left = if inode.is_directory() { Some(0) } else { inode.attr.nlink.checked_sub(1) };
        inode.attr.nlink = left.ok_or_else(|| bug("an inode's link count", ino))?;
        inode.attr.ctime = self.now;
        if inode.attr.nlink == 0 {
            self.put(Key::Orphan(ino), Value::Orphan(Orphan::LostName));
        }
        let attr = inode.attr.clone();
        self.put_inode(inode);
        Ok(attr)
    }

    fn put_namespace(&mut self, record: NamespaceRecord) {
        self.put(Key::Namespace, Value::Namespace(Arc::new(record)));
    }
}

/// What a directory's size shows for each entry.
pub(crate) const DIRECTORY_ENTRY_BYTES: u64 = 32;

fn bug(what: &str, ino: Ino) -> Error {
    Error::new(Kind::Bug, format!("{what} would be negative or too large (inode {ino}); run granary fsck"))
}

#[cfg(test)]
mod tests;
