//! Names: making, removing, moving and listing entries.

use std::path::Path;

use granary_core::error::fail;
use granary_core::limits::SYMLINK_BYTES_MAX;
use granary_core::{EntryName, Ino, Kind, Result};
use granary_meta::{Attr, FileType, NewInode, RenameMode};

use super::{Cx, Entry, Mode, Vfs};

/// Offsets of a listing: after `.`, after `..`, then the metadata's cookies moved up by two.
const AFTER_DOT: u64 = 1;
const AFTER_DOTS: u64 = 2;

/// `mode`: what is left of the umask goes along, for the metadata to apply it where the directory has no default list.
pub(super) fn new_inode(cx: &Cx, kind: FileType, mode: u32) -> NewInode {
    let Cx { uid, gid, umask, .. } = *cx;
    NewInode { kind, mode: mode & 0o7777, umask, uid, gid, rdev: 0, target: Vec::new() }
}

impl Vfs {
    async fn make(&self, dir: Ino, name: &[u8], new: NewInode) -> Result<Attr> {
        self.writable()?;
        let attr = self.meta.create(dir, EntryName::new(name)?, new, false).await?;
        self.looked_up(attr.ino);
        Ok(attr)
    }

    /// `mode` without the type.
    pub async fn mknod(
        &self,
        cx: &Cx,
        dir: Ino,
        name: &[u8],
        kind: FileType,
        mode: u32,
        rdev: u32,
    ) -> Result<Attr> {
        if matches!(kind, FileType::Directory | FileType::Symlink) {
            return fail(Kind::Invalid, "mknod makes files, pipes, sockets and devices");
        }
        self.make(dir, name, NewInode { rdev, ..new_inode(cx, kind, mode) }).await
    }

    pub async fn mkdir(&self, cx: &Cx, dir: Ino, name: &[u8], mode: u32) -> Result<Attr> {
        self.make(dir, name, new_inode(cx, FileType::Directory, mode)).await
    }

    pub async fn symlink(&self, cx: &Cx, dir: Ino, name: &[u8], target: &Path) -> Result<Attr> {
        let target = std::os::unix::ffi::OsStrExt::as_bytes(target.as_os_str());
        if target.len() > SYMLINK_BYTES_MAX {
            return fail(Kind::NameTooLong, "a symlink's target has at most 4,095 bytes");
        }
        let new = NewInode { target: target.to_vec(), ..new_inode(cx, FileType::Symlink, 0o777) };
        self.make(dir, name, new).await
    }

    pub async fn readlink(&self, ino: Ino) -> Result<Vec<u8>> {
        self.meta.readlink(ino).await
    }

    pub async fn link(&self, ino: Ino, dir: Ino, name: &[u8]) -> Result<Attr> {
        self.writable()?;
        let name = EntryName::new(name)?;
        // Before it has the name, so that a last close meanwhile does not drop its bytes.
        let was_unnamed = self.nodes.named(ino);
        let attr = match self.meta.link(ino, dir, name).await {
            Ok(attr) => attr,
            Err(e) => {
                if was_unnamed && !self.nodes.unlinked(ino) {
                    self.tree.forget(ino);
                }
                return Err(e);
            }
        };
        self.looked_up(ino);
        self.keep_named(ino);
        Ok(self.current(attr))
    }

    pub async fn unlink(&self, dir: Ino, name: &[u8]) -> Result<()> {
        self.writable()?;
        let name = EntryName::new(name)?;
        let pinned = match self.mode() {
            Mode::Work => None,
            Mode::Data => self.pin(dir, name).await?,
        };
        match self.meta.unlink(dir, name).await {
            Ok(attr) => {
                self.lost_name(pinned, Some(&attr)).await;
                Ok(())
            }
            Err(e) => {
                self.lost_name(pinned, None).await;
                Err(e)
            }
        }
    }

    pub async fn rmdir(&self, dir: Ino, name: &[u8]) -> Result<()> {
        self.writable()?;
        self.meta.rmdir(dir, EntryName::new(name)?).await
    }

    pub async fn rename(
        &self,
        dir: Ino,
        name: &[u8],
        to_dir: Ino,
        to_name: &[u8],
        mode: RenameMode,
    ) -> Result<()> {
        self.writable()?;
        let (name, to_name) = (EntryName::new(name)?, EntryName::new(to_name)?);
        let pinned = match (self.mode(), mode) {
            (Mode::Data, RenameMode::Replace) => self.pin(to_dir, to_name).await?,
            _ => None,
        };
        match self.meta.rename(dir, name, to_dir, to_name, mode).await {
            Ok(replaced) => {
                self.lost_name(pinned, replaced.as_ref()).await;
                Ok(())
            }
            Err(e) => {
                self.lost_name(pinned, None).await;
                Err(e)
            }
        }
    }

    /// An inode lost a name (`after`: what it is now), and was pinned for that in a `data` mount.
    async fn lost_name(&self, pinned: Option<Ino>, after: Option<&Attr>) {
        let gone = after.filter(|attr| attr.nlink == 0 && attr.kind == FileType::File).map(|attr| attr.ino);
        match (pinned, gone) {
            (Some(ino), Some(lost)) if ino == lost => self.keep_pinned(ino).await,
            (Some(ino), _) => self.meta.close(ino),
            // Nobody has it open: its staged bytes need not go anywhere.
            (None, Some(ino)) if !self.nodes.unlinked(ino) => self.forget_gone(ino).await,
            (None, _) => {}
        }
    }

    /// At most `max` entries after `offset` (0: from the start); none at the end.
    pub async fn readdir(&self, dir: Ino, offset: u64, max: usize, with_attr: bool) -> Result<Vec<Entry>> {
        let mut out = Vec::with_capacity(max.min(super::ENTRIES_AT_ONCE) + 2);
        if offset < AFTER_DOT {
            out.push(self.dots(b".", dir, AFTER_DOT, with_attr).await?);
        }
        if offset < AFTER_DOTS {
            let parent = self.meta.parent(dir).await?;
            out.push(self.dots(b"..", parent, AFTER_DOTS, with_attr).await?);
        }
        let cookie = offset.saturating_sub(AFTER_DOTS);
        let entries = self.meta.readdir(dir, cookie, max, with_attr).await?;
        out.extend(entries.into_iter().map(|entry| Entry {
            name: entry.name,
            ino: entry.ino,
            kind: entry.kind,
            next: entry.cookie + AFTER_DOTS,
            attr: entry.attr.map(|attr| self.current(attr)),
        }));
        Ok(out)
    }

    async fn dots(&self, name: &[u8], ino: Ino, next: u64, with_attr: bool) -> Result<Entry> {
        let attr = if with_attr { Some(self.meta.getattr(ino).await?) } else { None };
        Ok(Entry { name: name.to_vec(), ino, kind: FileType::Directory, next, attr })
    }

    /// What was done in the namespace before is durable.
    pub async fn fsyncdir(&self) -> Result<()> {
        self.meta.sync().await
    }
}
