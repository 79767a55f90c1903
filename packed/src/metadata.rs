//! A packed data set as a namespace's metadata: reads are answered from the tree, every change is refused with EROFS. Each
//! future is ready at its first poll; what may take long is a page of an index that the kernel has to read.

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use granary_core::{EntryName, Error, Ino, Kind, NamespaceId, ObjectId, Result};
use granary_meta::types::*;
use granary_meta::{Metadata, types};

use crate::shards::{Shards, Which};
use crate::tree::{DIRECTORY_BYTES, Owner, Tree, What, blank, not_found, stale};

/// The name below which the root has tars and indexes. It is in no listing, and hides nothing: a tree that has the name itself
/// shows its own.
pub const SHARDS_NAME: &[u8] = b".shards";

/// See the module.
pub struct PackedMetadata {
    ns: NamespaceId,
    tree: Tree,
    shards: Arc<Shards>,
    /// Names in `.shards`, in order.
    files: Vec<(String, u32, Which)>,
    owner: Owner,
    usage: Usage,
}

impl fmt::Debug for PackedMetadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackedMetadata")
            .field("ns", &self.ns)
            .field("usage", &self.usage)
            .finish_non_exhaustive()
    }
}

fn read_only<T>() -> Result<T> {
    Err(Error::new(
        Kind::ReadOnly,
        "a packed data set is read-only; make a new version of it with `granary pack`, and mount it again",
    ))
}

impl PackedMetadata {
    /// `bytes`: of all living files.
    pub fn new(
        ns: NamespaceId,
        tree: Tree,
        shards: Arc<Shards>,
        files: Vec<(String, u32, Which)>,
        owner: Owner,
        bytes: u64,
    ) -> PackedMetadata {
        let inodes = tree.len() + 1;
        // The limits are what there is: nothing is free.
        let usage = Usage { bytes, inodes, bytes_max: bytes.max(1), inodes_max: inodes, ..Usage::default() };
        PackedMetadata { ns, tree, shards, files, owner, usage }
    }

    fn shards_attr(&self) -> Attr {
        let Owner { uid, gid, time, .. } = self.owner;
        let attr = Attr {
            mode: 0o555,
            uid,
            gid,
            size: DIRECTORY_BYTES,
            ..blank(What::Shards.ino(), FileType::Directory)
        };
        Attr { atime: time, mtime: time, ctime: time, btime: time, ..attr }
    }

    fn shard_file(&self, shard: u32, which: Which) -> Result<Attr> {
        let (size, _) = self.shards.length(shard, which)?;
        let what = match which {
            Which::Tar => What::Tar(shard),
            Which::Index => What::Index(shard),
        };
        let Owner { uid, gid, time, .. } = self.owner;
        // As a regular file's: another shard under the same number is another content.
        let version = 1 + u64::from(self.shards.all[shard as usize].index.crc32c());
        let attr =
            Attr { mode: 0o444, uid, gid, size, stored: size, version, ..blank(what.ino(), FileType::File) };
        Ok(Attr { atime: time, mtime: time, ctime: time, btime: time, ..attr })
    }

    fn attr(&self, ino: Ino) -> Result<Attr> {
        match What::of(ino) {
            Some(What::Shards) => Ok(self.shards_attr()),
            Some(What::Tar(shard)) if shard < self.shards.len() => self.shard_file(shard, Which::Tar),
            Some(What::Index(shard)) if shard < self.shards.len() => self.shard_file(shard, Which::Index),
            Some(What::Tar(_) | What::Index(_)) => Err(stale(ino)),
            _ => self.tree.getattr(ino),
        }
    }

    fn list_shards(&self, cookie: u64, max: usize, with_attr: bool) -> Result<Vec<DirEntry>> {
        let from = usize::try_from(cookie).unwrap_or(usize::MAX).min(self.files.len());
        let entries = self.files[from..].iter().zip(cookie + 1..).take(max);
        entries
            .map(|((name, shard, which), cookie)| {
                let attr = self.shard_file(*shard, *which)?;
                let (name, ino, kind) = (name.as_bytes().to_vec(), attr.ino, attr.kind);
                Ok(DirEntry { name, ino, kind, cookie, attr: with_attr.then_some(attr) })
            })
            .collect()
    }
}

#[async_trait]
impl Metadata for PackedMetadata {
    fn namespace(&self) -> NamespaceId {
        self.ns
    }

    async fn lookup(&self, dir: Ino, name: EntryName<'_>) -> Result<Attr> {
        let name = name.as_bytes();
        if What::of(dir) == Some(What::Shards) {
            let at = self
                .files
                .binary_search_by(|(file, ..)| file.as_bytes().cmp(name))
                .map_err(|_| not_found())?;
            let (_, shard, which) = self.files[at];
            return self.shard_file(shard, which);
        }
        match self.tree.lookup(dir, name) {
            Err(e) if e.kind() == Kind::NotFound && dir == Ino::ROOT && name == SHARDS_NAME => {
                Ok(self.shards_attr())
            }
            found => found,
        }
    }

    async fn getattr(&self, ino: Ino) -> Result<Attr> {
        self.attr(ino)
    }

    async fn readdir(&self, dir: Ino, cookie: u64, max: usize, with_attr: bool) -> Result<Vec<DirEntry>> {
        match What::of(dir) {
            Some(What::Shards) => self.list_shards(cookie, max, with_attr),
            _ => self.tree.readdir(dir, cookie, max, with_attr),
        }
    }

    async fn parent(&self, dir: Ino) -> Result<Ino> {
        match What::of(dir) {
            Some(What::Shards) => Ok(Ino::ROOT),
            _ => self.tree.parent(dir),
        }
    }

    async fn readlink(&self, ino: Ino) -> Result<Vec<u8>> {
        self.tree.readlink(ino)
    }

    async fn getxattr(&self, _ino: Ino, _name: &[u8]) -> Result<Vec<u8>> {
        Err(Error::new(Kind::NoAttribute, "a packed data set has no extended attributes"))
    }

    async fn listxattr(&self, _ino: Ino) -> Result<Vec<Vec<u8>>> {
        Ok(Vec::new())
    }

    async fn setxattr(&self, _: Ino, _: &[u8], _: &[u8], _: bool, _: bool) -> Result<()> {
        read_only()
    }

    async fn removexattr(&self, _: Ino, _: &[u8]) -> Result<()> {
        read_only()
    }

    async fn create(&self, _: Ino, _: EntryName<'_>, _: NewInode, _: bool) -> Result<Attr> {
        read_only()
    }

    async fn link(&self, _: Ino, _: Ino, _: EntryName<'_>) -> Result<Attr> {
        read_only()
    }

    async fn unlink(&self, _: Ino, _: EntryName<'_>) -> Result<Attr> {
        read_only()
    }

    async fn rmdir(&self, _: Ino, _: EntryName<'_>) -> Result<()> {
        read_only()
    }

    async fn rename(
        &self,
        _: Ino,
        _: EntryName<'_>,
        _: Ino,
        _: EntryName<'_>,
        _: RenameMode,
    ) -> Result<Option<Attr>> {
        read_only()
    }

    async fn setattr(&self, _: Ino, _: SetAttr) -> Result<Attr> {
        read_only()
    }

    async fn open(&self, ino: Ino) -> Result<Attr> {
        self.attr(ino)
    }

    fn close(&self, _ino: Ino) {}

    async fn extents(&self, ino: Ino) -> Result<(Attr, Vec<Extent>)> {
        let attr = self.attr(ino)?;
        let extents = match What::of(ino) {
            Some(What::Tar(shard)) => self.shards.extents(shard, Which::Tar, 0, attr.size, 0)?,
            Some(What::Index(shard)) => self.shards.extents(shard, Which::Index, 0, attr.size, 0)?,
            _ => match self.tree.payload(ino)? {
                Some(at) => self.shards.extents(at.shard, Which::Tar, at.offset, at.length, at.crc32c)?,
                None => Vec::new(),
            },
        };
        Ok((attr, extents))
    }

    async fn commit(&self, _: Commit) -> Result<Attr> {
        read_only()
    }

    async fn relocate(&self, _: ObjectInfo, _: Vec<Move>) -> Result<Vec<Vec<(u64, u64)>>> {
        read_only()
    }

    /// Nothing is staged.
    async fn live(&self, staged: &[(Ino, Extent)]) -> Result<Vec<Vec<(u64, u64)>>> {
        Ok(vec![Vec::new(); staged.len()])
    }

    async fn object(&self, id: ObjectId) -> Result<ObjectInfo> {
        self.shards.info(id)
    }

    async fn dead_objects(&self, _max: usize) -> Result<Vec<DeadObject>> {
        Ok(Vec::new())
    }

    /// In the order in which the shards have their bytes, not in that of ids: what comes after an object is what is read next.
    async fn live_objects(&self, after: ObjectId, max: usize) -> Result<Vec<LiveObject>> {
        Ok(self.shards.following(after, max))
    }

    async fn forget_objects(&self, _: Vec<ObjectId>) -> Result<()> {
        read_only()
    }

    async fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn usage(&self) -> Usage {
        self.usage
    }

    fn headroom(&self) -> u64 {
        0
    }

    fn write_settings(&self) -> types::WriteSettings {
        types::WriteSettings::default()
    }

    async fn tmpfile(&self, _: Ino, _: NewInode) -> Result<Attr> {
        read_only()
    }

    async fn copy_range(&self, _: CopyRange) -> Result<Copied> {
        read_only()
    }

    fn has_capabilities(&self) -> bool {
        false
    }
}
