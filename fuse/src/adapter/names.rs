//! Making, removing, moving and listing names.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use granary_core::{Ino, Kind, Result};
use granary_meta::{FileType, RenameMode};

use super::metrics::Op;
use super::reply::{list, reply_done, reply_entry, reply_listing};
use super::{Adapter, convert};
use crate::proto::request::Read;
use crate::transport::Reply;
use crate::vfs::inherit::Made;
use crate::vfs::{At, Cx, Vfs};

/// What was changed, when the next process will know it too.
async fn settled<T>(vfs: &Vfs, changed: Result<T>) -> Result<T> {
    let changed = changed?;
    vfs.settle_changes().await?;
    Ok(changed)
}

/// A name that is absent when its removal is asked for again was removed.
fn gone(again: bool, removed: Result<()>) -> Result<()> {
    match removed {
        Err(e) if again && e.kind() == Kind::NotFound => Ok(()),
        other => other,
    }
}

impl Adapter {
    pub(super) fn readlink(&self, ino: Ino, reply: Reply) {
        let vfs = self.vfs();
        let work = async move { vfs.readlink(ino).await };
        self.answer(Op::Readlink, ino, reply, work, |_, reply, target| reply.data(&target));
    }

    pub(super) fn symlink(&self, cx: Cx, dir: Ino, name: &[u8], target: &[u8], reply: Reply) {
        let (vfs, name, target) = (self.vfs(), name.to_vec(), target.to_vec());
        let kept = self.kept_name(&name);
        let again = reply.is_again();
        let work = async move {
            let target = Path::new(OsStr::from_bytes(&target));
            let made = match vfs.symlink(&cx, dir, &name, target).await {
                Err(e) if again && e.kind() == Kind::Exists => {
                    vfs.made_before(&cx, dir, &name, Made::Symlink(target)).await
                }
                first => first,
            };
            settled(&vfs, made).await
        };
        self.answer(Op::Symlink, dir, reply, work, move |shared, reply, attr| {
            reply_entry(shared, reply, At { dir, name: kept.as_deref() }, &attr);
        });
    }

    pub(super) fn mknod(&self, cx: Cx, dir: Ino, name: &[u8], mode: u32, device: u32, reply: Reply) {
        let (vfs, name) = (self.vfs(), name.to_vec());
        let kept = self.kept_name(&name);
        let again = reply.is_again();
        let work = async move {
            let made = match vfs.mknod(&cx, dir, &name, convert::type_of_mode(mode)?, mode, device).await {
                Err(e) if again && e.kind() == Kind::Exists => {
                    vfs.made_before(&cx, dir, &name, Made::Inode(convert::type_of_mode(mode)?, mode)).await
                }
                first => first,
            };
            settled(&vfs, made).await
        };
        self.answer(Op::Mknod, dir, reply, work, move |shared, reply, attr| {
            reply_entry(shared, reply, At { dir, name: kept.as_deref() }, &attr);
        });
    }

    pub(super) fn mkdir(&self, cx: Cx, dir: Ino, name: &[u8], mode: u32, reply: Reply) {
        let (vfs, name) = (self.vfs(), name.to_vec());
        let kept = self.kept_name(&name);
        let again = reply.is_again();
        let work = async move {
            let made = match vfs.mkdir(&cx, dir, &name, mode).await {
                Err(e) if again && e.kind() == Kind::Exists => {
                    vfs.made_before(&cx, dir, &name, Made::Inode(FileType::Directory, mode)).await
                }
                first => first,
            };
            settled(&vfs, made).await
        };
        self.answer(Op::Mkdir, dir, reply, work, move |shared, reply, attr| {
            reply_entry(shared, reply, At { dir, name: kept.as_deref() }, &attr);
        });
    }

    pub(super) fn link(&self, ino: Ino, dir: Ino, name: &[u8], reply: Reply) {
        let (vfs, name) = (self.vfs(), name.to_vec());
        let kept = self.kept_name(&name);
        let again = reply.is_again();
        let work = async move {
            let made = match vfs.link(ino, dir, &name).await {
                Err(e) if again && e.kind() == Kind::Exists => {
                    vfs.made_before(&Cx::default(), dir, &name, Made::Link(ino)).await
                }
                first => first,
            };
            settled(&vfs, made).await
        };
        self.answer(Op::Link, ino, reply, work, move |shared, reply, attr| {
            reply_entry(shared, reply, At { dir, name: kept.as_deref() }, &attr);
        });
    }

    pub(super) fn unlink(&self, dir: Ino, name: &[u8], reply: Reply) {
        let (vfs, name) = (self.vfs(), name.to_vec());
        let again = reply.is_again();
        let work = async move { settled(&vfs, gone(again, vfs.unlink(dir, &name).await)).await };
        self.answer(Op::Unlink, dir, reply, work, reply_done);
    }

    pub(super) fn rmdir(&self, dir: Ino, name: &[u8], reply: Reply) {
        let (vfs, name) = (self.vfs(), name.to_vec());
        let again = reply.is_again();
        let work = async move { settled(&vfs, gone(again, vfs.rmdir(dir, &name).await)).await };
        self.answer(Op::Rmdir, dir, reply, work, reply_done);
    }

    pub(super) fn rename(
        &self,
        dir: Ino,
        name: &[u8],
        to_dir: Ino,
        to_name: &[u8],
        flags: u32,
        reply: Reply,
    ) {
        let (vfs, name, to_name) = (self.vfs(), name.to_vec(), to_name.to_vec());
        let (again, request) = (reply.is_again(), reply.request());
        let work = async move {
            let mode = convert::rename_mode(flags)?;
            let (from, to) = ((dir, &name[..]), (to_dir, &to_name[..]));
            if again && vfs.renamed_before(request, from, to, mode).await? {
                return settled(&vfs, Ok(())).await;
            }
            if mode == RenameMode::Exchange {
                vfs.intend_exchange(request, from, to).await?;
            }
            settled(&vfs, vfs.rename(dir, &name, to_dir, &to_name, mode).await).await
        };
        self.answer(Op::Rename, dir, reply, work, reply_done);
    }

    pub(super) fn readdir(&self, dir: Ino, read: &Read, plus: bool, reply: Reply) {
        let (vfs, offset, size) = (self.vfs(), read.offset, read.size);
        let work = async move { list(&vfs, dir, offset, size, plus).await };
        let op = if plus { Op::Readdirplus } else { Op::Readdir };
        self.answer(op, dir, reply, work, move |shared, reply, entries| {
            reply_listing(shared, reply, dir, plus, &entries);
        });
    }

    pub(super) fn fsyncdir(&self, ino: Ino, reply: Reply) {
        let vfs = self.vfs();
        self.answer(Op::Fsyncdir, ino, reply, async move { vfs.fsyncdir().await }, reply_done);
    }
}
