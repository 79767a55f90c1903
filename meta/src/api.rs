//! What a session may ask of one namespace's metadata. In process this is [`crate::local`]; over the network it will be
//! a client of the same methods, which is why all but the cheapest are async. In process every future is ready at its
//! first poll, but for `sync`.

use async_trait::async_trait;
use granary_core::{EntryName, Ino, NamespaceId, ObjectId, Result};

use crate::types::*;

/// One session's view of one namespace. Errors carry the errno Linux programs expect of the same call.
#[async_trait]
pub trait Metadata: Send + Sync + 'static {
    fn namespace(&self) -> NamespaceId;

    /// `NotFound` when the directory has no such entry.
    async fn lookup(&self, dir: Ino, name: EntryName<'_>) -> Result<Attr>;
    /// `Stale` when the inode does not exist any more.
    async fn getattr(&self, ino: Ino) -> Result<Attr>;
    /// Entries after `cookie` (0: from the start), at most `max` of them, in a stable order; without `.` and `..`.
    /// Empty at the end.
    async fn readdir(&self, dir: Ino, cookie: u64, max: usize, with_attr: bool) -> Result<Vec<DirEntry>>;
    /// The directory's parent; the root is its own.
    async fn parent(&self, dir: Ino) -> Result<Ino>;
    async fn readlink(&self, ino: Ino) -> Result<Vec<u8>>;
    async fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>>;
    async fn listxattr(&self, ino: Ino) -> Result<Vec<Vec<u8>>>;
    /// `Exists` with `create_only`, `NoAttribute` with `replace_only`.
    async fn setxattr(
        &self,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        create_only: bool,
        replace_only: bool,
    ) -> Result<()>;
    async fn removexattr(&self, ino: Ino, name: &[u8]) -> Result<()>;

    /// Makes an inode and its entry. `open` also counts one open, as [`Metadata::open`] does. `Exists` when the name is taken.
    async fn create(&self, dir: Ino, name: EntryName<'_>, new: NewInode, open: bool) -> Result<Attr>;
    async fn link(&self, ino: Ino, dir: Ino, name: EntryName<'_>) -> Result<Attr>;
    /// Removes an entry that is no directory. With the last link of an open inode the inode stays, without a name, until
    /// its last close. Returns the inode's attributes after it (`nlink` 0: it lost its last name).
    async fn unlink(&self, dir: Ino, name: EntryName<'_>) -> Result<Attr>;
    async fn rmdir(&self, dir: Ino, name: EntryName<'_>) -> Result<()>;
    /// Returns the attributes of the inode that lost this name by being replaced, if any.
    async fn rename(
        &self,
        dir: Ino,
        name: EntryName<'_>,
        to_dir: Ino,
        to_name: EntryName<'_>,
        mode: RenameMode,
    ) -> Result<Option<Attr>>;
    /// A smaller `size` cuts extents off; both directions change mtime and `version`.
    async fn setattr(&self, ino: Ino, set: SetAttr) -> Result<Attr>;

    /// Counts an open of this session: an inode that is open survives its last unlink. Returns current attributes.
    async fn open(&self, ino: Ino) -> Result<Attr>;
    /// Takes one open back; the last close of an inode without names frees it. Never fails, never waits.
    fn close(&self, ino: Ino);

    /// All extents in order of offset, and the attributes they belong to.
    async fn extents(&self, ino: Ino) -> Result<(Attr, Vec<Extent>)>;
    /// `Stale` when the inode is gone (unlinked and closed): its bytes may be dropped. Never refused for quota (writes
    /// are checked against [`Metadata::headroom`] before they are acknowledged).
    async fn commit(&self, commit: Commit) -> Result<Attr>;
    /// An object was stored: makes it known and moves extents into it, compare-and-set one by one. Returns, for each
    /// move, the parts `(file offset, len)` that took effect. An object none of whose moves took effect is dead at once.
    async fn relocate(&self, object: ObjectInfo, moves: Vec<Move>) -> Result<Vec<Vec<(u64, u64)>>>;
    /// Of the given staged extents, the parts that the file still has at that place: what is worth uploading.
    async fn live(&self, staged: &[(Ino, Extent)]) -> Result<Vec<Vec<(u64, u64)>>>;
    async fn object(&self, id: ObjectId) -> Result<ObjectInfo>;
    /// Objects without a live byte, oldest first, at most `max`.
    async fn dead_objects(&self, max: usize) -> Result<Vec<DeadObject>>;
    /// The store confirmed that these are deleted.
    async fn forget_objects(&self, ids: Vec<ObjectId>) -> Result<()>;

    /// Returns when every operation acknowledged before the call survives a power loss.
    async fn sync(&self) -> Result<()>;
    /// Usage and limits of the namespace.
    fn usage(&self) -> Usage;
    /// Bytes that may still be written before the quota is full; `u64::MAX` without quota.
    fn headroom(&self) -> u64;
    fn durability(&self) -> Durability;
}
