//! Making, removing, moving and listing names.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use granary_core::Ino;

use super::metrics::Op;
use super::reply::{list, reply_done, reply_entry, reply_listing};
use super::{Adapter, convert};
use crate::proto::request::Read;
use crate::transport::Reply;
use crate::vfs::{At, Cx};

impl Adapter {
    pub(super) fn readlink(&self, ino: Ino, reply: Reply) {
        let vfs = self.vfs();
        let work = async move { vfs.readlink(ino).await };
        self.answer(Op::Readlink, ino, reply, work, |_, reply, target| reply.data(&target));
    }

    pub(super) fn symlink(&self, cx: Cx, dir: Ino, name: &[u8], target: &[u8], reply: Reply) {
        let (vfs, name, target) = (self.vfs(), name.to_vec(), target.to_vec());
        let kept = self.kept_name(&name);
        let work = async move { vfs.symlink(&cx, dir, &name, Path::new(OsStr::from_bytes(&target))).await };
        self.answer(Op::Symlink, dir, reply, work, move |shared, reply, attr| {
            reply_entry(shared, reply, At { dir, name: kept.as_deref() }, &attr);
        });
    }

    pub(super) fn mknod(&self, cx: Cx, dir: Ino, name: &[u8], mode: u32, device: u32, reply: Reply) {
        let (vfs, name) = (self.vfs(), name.to_vec());
        let kept = self.kept_name(&name);
        let work =
            async move { vfs.mknod(&cx, dir, &name, convert::type_of_mode(mode)?, mode, device).await };
        self.answer(Op::Mknod, dir, reply, work, move |shared, reply, attr| {
            reply_entry(shared, reply, At { dir, name: kept.as_deref() }, &attr);
        });
    }

    pub(super) fn mkdir(&self, cx: Cx, dir: Ino, name: &[u8], mode: u32, reply: Reply) {
        let (vfs, name) = (self.vfs(), name.to_vec());
        let kept = self.kept_name(&name);
        let work = async move { vfs.mkdir(&cx, dir, &name, mode).await };
        self.answer(Op::Mkdir, dir, reply, work, move |shared, reply, attr| {
            reply_entry(shared, reply, At { dir, name: kept.as_deref() }, &attr);
        });
    }

    pub(super) fn link(&self, ino: Ino, dir: Ino, name: &[u8], reply: Reply) {
        let (vfs, name) = (self.vfs(), name.to_vec());
        let kept = self.kept_name(&name);
        let work = async move { vfs.link(ino, dir, &name).await };
        self.answer(Op::Link, ino, reply, work, move |shared, reply, attr| {
            reply_entry(shared, reply, At { dir, name: kept.as_deref() }, &attr);
        });
    }

    pub(super) fn unlink(&self, dir: Ino, name: &[u8], reply: Reply) {
        let (vfs, name) = (self.vfs(), name.to_vec());
        self.answer(Op::Unlink, dir, reply, async move { vfs.unlink(dir, &name).await }, reply_done);
    }

    pub(super) fn rmdir(&self, dir: Ino, name: &[u8], reply: Reply) {
        let (vfs, name) = (self.vfs(), name.to_vec());
        self.answer(Op::Rmdir, dir, reply, async move { vfs.rmdir(dir, &name).await }, reply_done);
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
        let work = async move {
            let mode = convert::rename_mode(flags)?;
            vfs.rename(dir, &name, to_dir, &to_name, mode).await
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
