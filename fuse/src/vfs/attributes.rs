//! Attributes: lookup, stat, chmod and the like, and the size of it all.

use granary_core::{EntryName, Ino, Kind, Result};
use granary_meta::{Attr, FileType, SetAttr};

use super::{Changes, SetTime, Space, Vfs};

/// What `statfs` shows as total where no quota says: an object store has no size.
const BYTES_WITHOUT_QUOTA: u64 = 1 << 50;
const INODES_WITHOUT_QUOTA: u64 = 1 << 40;

impl Vfs {
    /// `None`: there is no such entry (and the kernel may remember that).
    pub async fn lookup(&self, dir: Ino, name: &[u8]) -> Result<Option<Attr>> {
        match self.meta.lookup(dir, EntryName::new(name)?).await {
            Ok(attr) => {
                self.looked_up(attr.ino);
                Ok(Some(self.current(attr)))
            }
            Err(e) if e.kind() == Kind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    pub async fn getattr(&self, ino: Ino) -> Result<Attr> {
        Ok(self.current(self.meta.getattr(ino).await?))
    }

    /// Changes attributes. Held state is committed first, so that what is changed here is not overwritten by it later.
    pub async fn setattr(&self, ino: Ino, changes: Changes) -> Result<Attr> {
        self.writable()?;
        let mut attr = None;
        if let Some(size) = changes.size {
            if let Some(fh) = changes.fh {
                self.handles.to_change(fh)?;
            }
            attr = Some(self.truncate(ino, size).await?);
        }
        let now = self.clock.now();
        let at = |time: SetTime| match time {
            SetTime::Now => now,
            SetTime::At(time) => time,
        };
        let set = SetAttr {
            mode: changes.mode,
            uid: changes.uid,
            gid: changes.gid,
            size: None,
            atime: changes.atime.map(at),
            mtime: changes.mtime.map(at),
            ..SetAttr::default()
        };
        if set != SetAttr::default() || attr.is_none() {
            self.tree.commit(ino).await?;
            if let Some(mtime) = set.mtime {
                let now = self.clock.monotonic();
                let open = self.nodes.file(ino);
                let loaded = || self.recent.get(ino, now).map(|loaded| loaded.0.clone());
                if let Some(file) = open.or_else(loaded) {
                    file.set_mtime(mtime);
                }
            }
            attr = Some(self.meta.setattr(ino, set).await?);
        }
        match attr {
            Some(attr) => Ok(self.current(attr)),
            None => self.getattr(ino).await,
        }
    }

    async fn truncate(&self, ino: Ino, size: u64) -> Result<Attr> {
        self.with_file(ino, async |file| {
            let attr = file.truncate(size).await?;
            self.pages.changed_by_kernel(ino, file.version());
            Ok(attr)
        })
        .await
    }

    /// The quota's totals, or very large ones without quota.
    pub fn statfs(&self) -> Space {
        let usage = self.meta.usage();
        let total = |max: u64, without: u64, used: u64| if max == 0 { without.max(used) } else { max };
        let bytes = total(usage.bytes_max, BYTES_WITHOUT_QUOTA, usage.bytes);
        let inodes = total(usage.inodes_max, INODES_WITHOUT_QUOTA, usage.inodes);
        Space {
            bytes,
            bytes_free: bytes.saturating_sub(usage.bytes),
            inodes,
            inodes_free: inodes.saturating_sub(usage.inodes),
        }
    }

    /// Runs `work` on the file of `ino`, open or not.
    pub(super) async fn with_file<T>(
        &self,
        ino: Ino,
        work: impl AsyncFnOnce(&granary_cache::File) -> Result<T>,
    ) -> Result<T> {
        if self.mode() == super::Mode::Data {
            let loaded = self.loaded(ino).await?;
            return work(&loaded.0).await;
        }
        let attr = self.meta.getattr(ino).await?;
        if attr.kind != FileType::File {
            let kind = if attr.kind == FileType::Directory { Kind::IsDirectory } else { Kind::Invalid };
            return granary_core::error::fail(kind, "only a regular file has content");
        }
        let file = self.tree.file(&attr, None).await?;
        let result = work(&file).await;
        self.close_file(file).await;
        result
    }
}
