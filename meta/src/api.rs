//! What a session may ask of one namespace's metadata. In process this is [`crate::local`]; over the network it will be
//! a client of the same methods, which is why all but the cheapest are async. In process every future is ready at its
//! first poll, but for `sync`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use granary_core::error::fail;
use granary_core::{EntryName, Ino, Kind, NamespaceId, NodeId, ObjectId, Result};

use crate::lease::{Holder, LeaseKind, Lock, LockOwner, LockRequest, PeerInfo, Scope};
use crate::types::*;

/// Bytes of copies in one call of [`Metadata::keep_inline`]: a millisecond of the namespace's time, a frame of the wire.
pub const INLINE_CALL_BYTES_MAX: usize = 256 << 10;

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
    /// its last close. Returns the inode's attributes after it: with `nlink` 0 it lost its last name, and with 1 it may have gone to
    /// the trash, so that what is staged of it is still wanted. An inode that is open may go there with its last close: whether it
    /// is gone then, `getattr` says.
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
    /// The same, asked anew where answers are kept: for who did not find the bytes where it was told that they are. Another
    /// node may have moved them to another object, which recalls no lease.
    async fn extents_anew(&self, ino: Ino) -> Result<(Attr, Vec<Extent>)> {
        self.extents(ino).await
    }
    /// `Stale` when the inode is gone (unlinked and closed): its bytes may be dropped. Never refused for quota (writes
    /// are checked against [`Metadata::headroom`] before they are acknowledged).
    async fn commit(&self, commit: Commit) -> Result<Attr>;
    /// An object was stored: makes it known and moves extents into it, compare-and-set one by one. Returns, for each
    /// move, the parts `(file offset, len)` that took effect. An object none of whose moves took effect is dead at once.
    async fn relocate(&self, object: ObjectInfo, moves: Vec<Move>) -> Result<Vec<Vec<(u64, u64)>>>;
    /// The copy of a tiny file's whole present content, if the metadata keeps one beside the inode: of the version that it
    /// says, verified, and never anything but what the file's extents say. No promise: with none, the object has the bytes.
    async fn inline(&self, _ino: Ino) -> Result<Option<Inline>> {
        Ok(None)
    }
    /// Offers copies of the bytes of files that were moved into this object, at most [`INLINE_CALL_BYTES_MAX`] in a call.
    /// Kept are those that are the whole content of their file at this moment and not longer than the namespace's policy says;
    /// until the content changes. `Invalid` for one that is damaged or longer than a copy may be.
    async fn keep_inline(&self, _object: ObjectInfo, _copies: Vec<NewInline>) -> Result<()> {
        Ok(())
    }
    /// Of the given staged extents, the parts that the file still has at that place: what is worth uploading.
    async fn live(&self, staged: &[(Ino, Extent)]) -> Result<Vec<Vec<(u64, u64)>>>;
    async fn object(&self, id: ObjectId) -> Result<ObjectInfo>;
    /// Objects without a live byte, oldest first, at most `max`.
    async fn dead_objects(&self, max: usize) -> Result<Vec<DeadObject>>;
    /// Objects with bytes of files in them, after `after` in the order of their ids (`ObjectId(0)`: from the start), at most
    /// `max`. Empty at the end.
    async fn live_objects(&self, after: ObjectId, max: usize) -> Result<Vec<LiveObject>>;
    /// The store confirmed that these are deleted.
    async fn forget_objects(&self, ids: Vec<ObjectId>) -> Result<()>;

    /// Returns when every operation acknowledged before the call survives a power loss.
    async fn sync(&self) -> Result<()>;
    /// The same, when it survives the end of the process that has the metadata. By default that is so at once.
    async fn written(&self) -> Result<()> {
        Ok(())
    }
    /// Inodes without a name that are not freed yet: who goes on with files that another process had open asks, before he opens
    /// anything.
    async fn unnamed(&self) -> Result<Vec<Ino>> {
        Ok(Vec::new())
    }
    /// From the next [`Metadata::sync`] on these bytes of the node's stage log survive a power loss, until they are dropped
    /// by segment and offset. `false`: nothing was kept, because the metadata is not in this process.
    async fn keep_redo(&self, _node: NodeId, _keep: Vec<Redo>, _drop: &[(u64, u64)]) -> Result<bool> {
        Ok(false)
    }
    /// What is kept for the node, in order.
    async fn redo(&self, _node: NodeId) -> Result<Vec<Redo>> {
        Ok(Vec::new())
    }
    /// Usage and limits of the namespace.
    fn usage(&self) -> Usage;
    /// Bytes that may still be written before the quota is full; `u64::MAX` without quota.
    fn headroom(&self) -> u64;
    fn durability(&self) -> Durability {
        self.write_settings().durability
    }
    /// As they are now, on this node or, of a shared namespace, as the service told last. Cheap, and never waits.
    fn write_settings(&self) -> WriteSettings;

    /// Makes a regular file without a name, and counts one open of it (`O_TMPFILE`). `link` may give it a name.
    async fn tmpfile(&self, dir: Ino, new: NewInode) -> Result<Attr>;
    /// Makes `len` bytes of `to` at `to_offset` share the objects of `from` at `from_offset`: nothing is copied. Only what
    /// is in objects is shared: the answer is the length of the beginning of the range for which that was so (0: nothing
    /// was done), and less than that where there are too many extents for one operation: ask again for the rest. `from` and
    /// `to` may be one file when the ranges do not overlap.
    async fn copy_range(&self, copy: CopyRange) -> Result<Copied>;
    /// Whether any file may have capabilities (`security.capability`). `false` answers the kernel, which asks before many
    /// writes, without a look at the file.
    fn has_capabilities(&self) -> bool {
        true
    }

    // What follows concerns namespaces that other sessions may change at the same time. In process there is one session,
    // which holds every lease for ever: the defaults.

    /// Whether other sessions may change this namespace at any moment, so that answers are to be kept only under a lease.
    fn is_shared(&self) -> bool {
        false
    }
    /// Whether the session has the lease now. Never waits. Of the trash's directories nobody ever has one.
    fn holds(&self, _scope: Scope, _kind: LeaseKind) -> bool {
        true
    }
    /// How long what is leased now stays valid without another word of the service.
    fn lease_left(&self) -> Duration {
        Duration::MAX
    }
    /// Gets the write lease of a file's content, waiting until the others have given theirs up. Returns its attributes.
    async fn lease(&self, ino: Ino) -> Result<Attr> {
        self.getattr(ino).await
    }
    /// Inodes that are leased now: of a session that another process began, all that the kernel may have something of.
    fn leased(&self) -> Vec<Ino> {
        Vec::new()
    }
    /// The locks that the session has, also those that another process asked for.
    fn locks(&self) -> Vec<(Ino, LockOwner, Lock)> {
        Vec::new()
    }
    /// Whether what is there now may have been made or changed by the process that had the session before, with a call whose
    /// answer nobody may have heard. Where nobody else changes anything: always.
    fn was_changed_before(&self, _ino: Ino) -> bool {
        true
    }
    /// Whom to tell of recalls; replaces an earlier one.
    fn set_holder(&self, _holder: Arc<dyn Holder>) {}
    /// The first lock of somebody else that is in the way of `lock`, if any.
    async fn test_lock(&self, _ino: Ino, _owner: LockOwner, _lock: Lock) -> Result<Option<Lock>> {
        fail(Kind::Unsupported, "the kernel keeps the locks of a namespace that one node uses")
    }
    /// Locks or unlocks. `WouldBlock` when it is taken and `wait` is not given, `Deadlock` when waiting would never end.
    /// Dropping the future ends the wait, with the lock not taken.
    async fn lock(&self, _ino: Ino, _request: LockRequest) -> Result<()> {
        fail(Kind::Unsupported, "the kernel keeps the locks of a namespace that one node uses")
    }
    /// Where the bytes are that are staged at `node`. `NotFound` when no such node is known to the service.
    async fn peer(&self, _node: NodeId) -> Result<PeerInfo> {
        fail(Kind::NotFound, "there is no other node on this volume")
    }
}
