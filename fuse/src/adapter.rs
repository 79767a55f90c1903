//! The kernel's words: each callback of fuser is one call of the [`Vfs`] and one reply. A call that need not wait is
//! answered on the thread that read the request; only one that waits becomes a task.

mod config;
mod convert;
pub mod metrics;
mod reply;
mod report;
mod serve;

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::SystemTime;

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, INodeNo, IoctlFlags, KernelConfig,
    LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen,
    ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use granary_core::{Error, Ino, Kind};

pub use config::WRITE_BYTES_MAX;
use metrics::{Metrics, Op};
use reply::{
    add_plus, list, reply_absent, reply_attr, reply_created, reply_done, reply_entry, reply_opened,
    reply_xattr,
};
use report::Reporter;
use serve::{Shared, poll_once};

use crate::vfs::{Access, Changes, Cx, Mode, Vfs};

/// A mount's file system, as fuser calls it.
#[derive(Debug)]
pub struct Adapter {
    shared: Arc<Shared>,
    runtime: tokio::runtime::Handle,
}

fn cx(req: &Request) -> Cx {
    Cx { uid: req.uid(), gid: req.gid(), pid: req.pid() }
}

fn bytes(name: &OsStr) -> Vec<u8> {
    name.as_bytes().to_vec()
}

impl Adapter {
    pub fn new(vfs: Arc<Vfs>, metrics: Arc<Metrics>, runtime: tokio::runtime::Handle) -> Adapter {
        let reporter = Reporter::new(vfs.options().name.clone(), vfs.clock().clone());
        Adapter { shared: Arc::new(Shared { vfs, metrics, reporter }), runtime }
    }

    fn vfs(&self) -> Arc<Vfs> {
        self.shared.vfs.clone()
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _req: &Request, kernel: &mut KernelConfig) -> io::Result<()> {
        let abilities = config::negotiate(kernel, self.shared.vfs.mode());
        self.shared.vfs.set_abilities(abilities);
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (vfs, name) = (self.vfs(), bytes(name));
        let work = async move { vfs.lookup(Ino(parent.0), &name).await };
        self.answer(Op::Lookup, parent, reply, work, |reply, found| match found {
            Some(attr) => reply_entry(reply, attr),
            None => reply_absent(reply),
        });
    }

    fn forget(&self, _req: &Request, ino: INodeNo, lookups: u64) {
        self.shared.metrics.begin(Op::Forget);
        let vfs = &self.shared.vfs;
        if vfs.hears_forgets() {
            let vfs = vfs.clone();
            let mut work = Box::pin(async move { vfs.forget(Ino(ino.0), lookups).await });
            let _runtime = self.runtime.enter();
            if poll_once(work.as_mut()).is_pending() {
                self.runtime.spawn(work);
            }
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let vfs = self.vfs();
        self.answer(Op::Getattr, ino, reply, async move { vfs.getattr(Ino(ino.0)).await }, reply_attr);
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let vfs = self.vfs();
        let changes = Changes {
            mode: mode.map(|mode| mode & 0o7777),
            uid,
            gid,
            size,
            atime: atime.map(convert::set_time),
            mtime: mtime.map(convert::set_time),
        };
        self.answer(
            Op::Setattr,
            ino,
            reply,
            async move { vfs.setattr(Ino(ino.0), changes).await },
            reply_attr,
        );
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        let vfs = self.vfs();
        let work = async move { vfs.readlink(Ino(ino.0)).await };
        self.answer(Op::Readlink, ino, reply, work, |reply, target| reply.data(&target));
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let (vfs, cx, name) = (self.vfs(), cx(req), bytes(name));
        let work = async move {
            vfs.mknod(&cx, Ino(parent.0), &name, convert::type_of_mode(mode)?, mode, rdev).await
        };
        self.answer(Op::Mknod, parent, reply, work, reply_entry);
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, reply: ReplyEntry) {
        let (vfs, cx, name) = (self.vfs(), cx(req), bytes(name));
        let work = async move { vfs.mkdir(&cx, Ino(parent.0), &name, mode).await };
        self.answer(Op::Mkdir, parent, reply, work, reply_entry);
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (vfs, name) = (self.vfs(), bytes(name));
        let work = async move { vfs.unlink(Ino(parent.0), &name).await };
        self.answer(Op::Unlink, parent, reply, work, reply_done);
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (vfs, name) = (self.vfs(), bytes(name));
        let work = async move { vfs.rmdir(Ino(parent.0), &name).await };
        self.answer(Op::Rmdir, parent, reply, work, reply_done);
    }

    fn symlink(&self, req: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let (vfs, cx, name, target) = (self.vfs(), cx(req), bytes(name), target.to_path_buf());
        let work = async move { vfs.symlink(&cx, Ino(parent.0), &name, &target).await };
        self.answer(Op::Symlink, parent, reply, work, reply_entry);
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (vfs, name, to_name) = (self.vfs(), bytes(name), bytes(newname));
        let work = async move {
            let mode = convert::rename_mode(flags)?;
            vfs.rename(Ino(parent.0), &name, Ino(newparent.0), &to_name, mode).await
        };
        self.answer(Op::Rename, parent, reply, work, reply_done);
    }

    fn link(&self, _req: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let (vfs, name) = (self.vfs(), bytes(newname));
        let work = async move { vfs.link(Ino(ino.0), Ino(newparent.0), &name).await };
        self.answer(Op::Link, ino, reply, work, reply_entry);
    }

    fn open(&self, _req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let (vfs, shared) = (self.vfs(), self.shared.clone());
        let work = async move { vfs.open(Ino(ino.0), Access::from_flags(flags.0)).await };
        self.answer(Op::Open, ino, reply, work, move |reply, opened| {
            reply_opened(&shared, reply, ino, opened)
        });
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        if let Some(ready) = self.shared.vfs.read_ready(Ino(ino.0), fh.0, offset, size) {
            return self.answer_now(Op::Read, ino, reply, || ready, |reply, data| reply.data(&data));
        }
        let vfs = self.vfs();
        let work = async move { vfs.read(Ino(ino.0), fh.0, offset, size).await };
        self.answer(Op::Read, ino, reply, work, |reply, data| reply.data(&data));
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let serving = self.shared.begin(Op::Write, ino);
        let polled = {
            let _runtime = self.runtime.enter();
            poll_once(pin!(self.shared.vfs.write(Ino(ino.0), fh.0, offset, data)))
        };
        match polled {
            Poll::Ready(result) => self.shared.finish(&serving, result, reply, ReplyWrite::written),
            // It has to wait, and the buffer is the next request's: the same write again, from a copy.
            Poll::Pending => {
                let (shared, data) = (self.shared.clone(), data.to_vec());
                self.runtime.spawn(async move {
                    let result = shared.vfs.write(Ino(ino.0), fh.0, offset, &data).await;
                    shared.finish(&serving, result, reply, ReplyWrite::written);
                });
            }
        }
    }

    fn flush(&self, _req: &Request, ino: INodeNo, fh: FileHandle, _lock_owner: LockOwner, reply: ReplyEmpty) {
        if self.shared.vfs.mode() == Mode::Data {
            self.shared.metrics.begin(Op::Flush);
            return reply.error(Errno::ENOSYS); // once; then it is never sent again
        }
        self.answer_now(Op::Flush, ino, reply, || self.shared.vfs.flush(fh.0), reply_done);
    }

    fn release(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let vfs = self.vfs();
        let work = async move {
            vfs.release(fh.0).await;
            Ok(())
        };
        self.answer(Op::Release, ino, reply, work, reply_done);
    }

    fn fsync(&self, _req: &Request, ino: INodeNo, fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let vfs = self.vfs();
        self.answer(Op::Fsync, ino, reply, async move { vfs.fsync(Ino(ino.0), fh.0).await }, reply_done);
    }

    /// Listings need no handle: offsets are the metadata's cookies. The kernel then also caches them.
    fn opendir(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        self.shared.metrics.begin(Op::Opendir);
        reply.error(Errno::ENOSYS);
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, reply: ReplyDirectory) {
        let vfs = self.vfs();
        // The buffer is in the reply, so the reply goes through the work and comes back with its result.
        let work = async move {
            let mut reply = reply;
            let listed = list(&vfs, Ino(ino.0), offset, false, |entry| {
                let kind = convert::file_type(entry.kind);
                reply.add(INodeNo(entry.ino.0), entry.next, kind, OsStr::from_bytes(&entry.name))
            })
            .await;
            Ok((reply, listed))
        };
        self.answer_listing(Op::Readdir, ino, work, |reply: ReplyDirectory| reply.ok());
    }

    fn readdirplus(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let vfs = self.vfs();
        let work = async move {
            let mut reply = reply;
            let listed =
                list(&vfs, Ino(ino.0), offset, true, |entry| add_plus(&vfs, &mut reply, entry)).await;
            Ok((reply, listed))
        };
        self.answer_listing(Op::Readdirplus, ino, work, |reply: ReplyDirectoryPlus| reply.ok());
    }

    fn releasedir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.answer_now(Op::Releasedir, ino, reply, || Ok(()), reply_done);
    }

    fn fsyncdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let vfs = self.vfs();
        self.answer(Op::Fsyncdir, ino, reply, async move { vfs.fsyncdir().await }, reply_done);
    }

    fn statfs(&self, _req: &Request, ino: INodeNo, reply: ReplyStatfs) {
        const UNIT: u32 = 4096;
        let serving = self.shared.begin(Op::Statfs, ino);
        let space = self.shared.vfs.statfs();
        let blocks = |bytes: u64| bytes / u64::from(UNIT);
        let free = blocks(space.bytes_free);
        reply.statfs(blocks(space.bytes), free, free, space.inodes, space.inodes_free, UNIT, 255, UNIT);
        self.shared.end(&serving, false);
    }

    fn setxattr(
        &self,
        req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let (vfs, cx, name, value) = (self.vfs(), cx(req), bytes(name), value.to_vec());
        let (create, replace) = (flags & libc::XATTR_CREATE != 0, flags & libc::XATTR_REPLACE != 0);
        let work = async move { vfs.setxattr(&cx, Ino(ino.0), &name, &value, create, replace).await };
        self.answer(Op::Setxattr, ino, reply, work, reply_done);
    }

    fn getxattr(&self, req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let ok = move |reply, value: Vec<u8>| reply_xattr(reply, size, &value);
        if let Some(ready) = self.shared.vfs.getxattr_ready(&cx(req), name.as_bytes()) {
            return self.answer_now(Op::Getxattr, ino, reply, || ready, ok);
        }
        let (vfs, cx, name) = (self.vfs(), cx(req), bytes(name));
        let work = async move { vfs.getxattr(&cx, Ino(ino.0), &name).await };
        self.answer(Op::Getxattr, ino, reply, work, ok);
    }

    fn listxattr(&self, req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let (vfs, cx) = (self.vfs(), cx(req));
        let work = async move { vfs.listxattr(&cx, Ino(ino.0)).await };
        self.answer(Op::Listxattr, ino, reply, work, move |reply, names| reply_xattr(reply, size, &names));
    }

    fn removexattr(&self, req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (vfs, cx, name) = (self.vfs(), cx(req), bytes(name));
        let work = async move { vfs.removexattr(&cx, Ino(ino.0), &name).await };
        self.answer(Op::Removexattr, ino, reply, work, reply_done);
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (vfs, cx, name, shared) = (self.vfs(), cx(req), bytes(name), self.shared.clone());
        let work =
            async move { vfs.create(&cx, Ino(parent.0), &name, mode, Access::from_flags(flags)).await };
        self.answer(Op::Create, parent, reply, work, move |reply, created| {
            reply_created(&shared, reply, created)
        });
    }

    fn fallocate(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let vfs = self.vfs();
        let work = async move { vfs.fallocate(Ino(ino.0), offset, length, mode).await };
        self.answer(Op::Fallocate, ino, reply, work, reply_done);
    }

    fn lseek(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let vfs = self.vfs();
        let work = async move {
            let data = match whence {
                libc::SEEK_DATA => true,
                libc::SEEK_HOLE => false,
                _ => return Err(Error::new(Kind::Invalid, "only data and holes are sought here")),
            };
            // A negative offset is before every file, which is as if it were behind: ENXIO.
            let Ok(offset) = u64::try_from(offset) else { return Ok(None) };
            vfs.lseek(Ino(ino.0), offset, data).await
        };
        self.answer(Op::Lseek, ino, reply, work, |reply, found| match found {
            Some(at) => reply.offset(at as i64),
            None => reply.error(Errno::ENXIO),
        });
    }

    /// The kernel copies by itself when told that we do not.
    fn copy_file_range(
        &self,
        _req: &Request,
        _ino_in: INodeNo,
        _fh_in: FileHandle,
        _offset_in: u64,
        _ino_out: INodeNo,
        _fh_out: FileHandle,
        _offset_out: u64,
        _len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        self.shared.metrics.begin(Op::CopyFileRange);
        reply.error(Errno::ENOSYS);
    }

    fn ioctl(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        self.shared.metrics.begin(Op::Ioctl);
        reply.error(Errno::ENOTTY);
    }

    fn poll(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _ph: PollNotifier,
        _events: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        self.shared.metrics.begin(Op::Other);
        reply.error(Errno::ENOSYS); // regular files are always ready; it is not asked again
    }
}
