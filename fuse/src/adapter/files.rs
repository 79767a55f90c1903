//! Open files and their bytes.

use std::pin::pin;
use std::task::Poll;

use granary_core::{Error, Ino, Kind, Result};
use granary_meta::Attr;
use granary_meta::lease::LockOwner;

use super::Adapter;
use super::metrics::Op;
use super::reply::{reply_created, reply_data, reply_done, reply_opened};
use super::serve::{Shared, poll_once};
use crate::proto::answer;
use crate::proto::request::{
    CopyFileRange, Create, RELEASE_FLOCK_UNLOCK, Read, Release, WRITE_CACHE, WRITE_KILL_SUIDGID, Write,
};
use crate::transport::Reply;
use crate::vfs::{Access, At, CopyRange, Cx, Mode, Opened, Vfs, WriteFlags};

fn reply_written(shared: &Shared, reply: Reply, written: u32) {
    shared.metrics.wrote(written);
    reply.body(&answer::count(written));
}

/// Another node made the file since the kernel looked: the name is to be opened, then. Told that what it knows is stale the kernel looks once
/// more (`do_filp_open` in its `fs/namei.c`), and checks the caller's rights to what it finds, as it does not for what it made.
fn looked_up_again(e: Error) -> Error {
    match e.kind() {
        Kind::Exists => Error::new(Kind::Stale, "the name is there by now").with_source(e),
        _ => e,
    }
}

/// A file that was made, when the next process will know it too.
async fn settle_opened(vfs: &Vfs, made: (Attr, Opened)) -> Result<(Attr, Opened)> {
    if let Err(e) = vfs.settle_changes().await {
        vfs.release(made.1.fh, None).await;
        return Err(e);
    }
    Ok(made)
}

impl Adapter {
    pub(super) fn open(&self, cx: Cx, ino: Ino, flags: u32, reply: Reply) {
        let vfs = self.vfs();
        // The kernel leaves the set-id bits to us when it leaves the truncation to us, and does not say who may keep them.
        let access = Access { kill_suid: cx.uid != 0, ..Access::from_flags(flags as i32) };
        let (again, request) = (reply.is_again(), reply.request());
        let work = async move {
            if again {
                vfs.take_back(request).await;
            }
            let opened = vfs.open(ino, access).await?;
            if access.truncate {
                vfs.settle_changes().await?;
            }
            Ok(opened)
        };
        self.answer(Op::Open, ino, reply, work, move |shared, reply, opened| {
            reply_opened(shared, reply, ino, opened);
        });
    }

    pub(super) fn create(&self, cx: Cx, dir: Ino, create: &Create<'_>, reply: Reply) {
        let (vfs, name, mode) = (self.vfs(), create.name.to_vec(), create.mode);
        let kept = self.kept_name(&name);
        let access = Access::from_flags(create.open_flags as i32);
        let exclusive = create.open_flags & libc::O_EXCL as u32 != 0;
        let (again, request) = (reply.is_again(), reply.request());
        let work = async move {
            if again {
                vfs.take_back(request).await;
            }
            let created = match vfs.create(&cx, dir, &name, mode, access).await {
                Err(e) if again && e.kind() == Kind::Exists => {
                    vfs.created_before(&cx, dir, &name, mode, access).await
                }
                first => first,
            };
            settle_opened(&vfs, created.map_err(|e| if exclusive { e } else { looked_up_again(e) })?).await
        };
        self.answer(Op::Create, dir, reply, work, move |shared, reply, created| {
            reply_created(shared, reply, At { dir, name: kept.as_deref() }, Op::Create, created);
        });
    }

    /// The kernel gives it a name of its own, which nobody sees.
    pub(super) fn tmpfile(&self, cx: Cx, dir: Ino, create: &Create<'_>, reply: Reply) {
        let (vfs, mode) = (self.vfs(), create.mode);
        let access = Access::from_flags(create.open_flags as i32);
        let (again, request) = (reply.is_again(), reply.request());
        let work = async move {
            if again {
                vfs.take_back(request).await;
            }
            settle_opened(&vfs, vfs.tmpfile(&cx, dir, mode, access).await?).await
        };
        self.answer(Op::Tmpfile, dir, reply, work, move |shared, reply, created| {
            reply_created(shared, reply, At { dir, name: None }, Op::Tmpfile, created);
        });
    }

    pub(super) fn read(&self, ino: Ino, read: &Read, reply: Reply) {
        let Read { fh, offset, size, .. } = *read;
        if let Some(ready) = self.shared.vfs.read_ready(ino, fh, offset, size) {
            return self.answer_now(
                Op::Read,
                ino,
                reply,
                || ready,
                |shared, reply, data| {
                    reply_data(shared, reply, &data);
                },
            );
        }
        let vfs = self.vfs();
        let work = async move { vfs.read(ino, fh, offset, size).await };
        self.answer(Op::Read, ino, reply, work, move |shared, reply, data| {
            reply_data(shared, reply, &data);
        });
    }

    pub(super) fn write(&self, ino: Ino, write: &Write<'_>, reply: Reply) {
        let Write { fh, offset, data, write_flags, open_flags, .. } = *write;
        let flags = WriteFlags {
            append: open_flags & libc::O_APPEND as u32 != 0,
            cache: write_flags & WRITE_CACHE != 0,
            kill_suid: write_flags & WRITE_KILL_SUIDGID != 0,
            request: reply.request(),
            again: reply.is_again(),
        };
        if self.shared.vfs.is_shared() {
            // It may wait when it has been done already: it is not made again.
            let (vfs, data) = (self.vfs(), data.to_vec());
            let (room, len) = (vfs.clone(), data.len() as u64);
            let room = async move { room.wait_for_room(len).await };
            let work = async move { vfs.write(ino, fh, offset, &data, flags).await };
            return self.answer_after(Op::Write, ino, reply, room, work, reply_written);
        }
        let serving = self.shared.begin(Op::Write, ino);
        let polled = {
            let _runtime = self.runtime.enter();
            poll_once(pin!(self.shared.vfs.write(ino, fh, offset, data, flags)))
        };
        match polled {
            Poll::Ready(result) => self.shared.finish(&serving, result, reply, reply_written),
            // It has to wait, and the buffer is the next request's: the same write again, from a copy.
            Poll::Pending => {
                let (vfs, data) = (self.vfs(), data.to_vec());
                let (room, len) = (vfs.clone(), data.len() as u64);
                let room = async move { room.wait_for_room(len).await };
                let work = async move { vfs.write(ino, fh, offset, &data, flags).await };
                self.spawn_after(serving, reply, room, work, reply_written);
            }
        }
    }

    pub(super) fn flush(&self, ino: Ino, fh: u64, owner: u64, reply: Reply) {
        if self.shared.vfs.mode() == Mode::Data {
            return self.refuse(Op::Flush, reply, libc::ENOSYS); // once; then it is never sent again
        }
        let vfs = self.vfs();
        let work = async move { vfs.flush(fh, LockOwner(owner)).await };
        self.answer(Op::Flush, ino, reply, work, reply_done);
    }

    pub(super) fn release(&self, ino: Ino, release: &Release, reply: Reply) {
        let (vfs, fh) = (self.vfs(), release.fh);
        let flock = release.release_flags & RELEASE_FLOCK_UNLOCK != 0;
        let flock_owner = flock.then_some(LockOwner(release.lock_owner));
        let work = async move {
            vfs.release(fh, flock_owner).await;
            Ok(())
        };
        self.answer(Op::Release, ino, reply, work, reply_done);
    }

    pub(super) fn fsync(&self, ino: Ino, fh: u64, reply: Reply) {
        let vfs = self.vfs();
        self.answer(Op::Fsync, ino, reply, async move { vfs.fsync(ino, fh).await }, reply_done);
    }

    pub(super) fn syncfs(&self, ino: Ino, reply: Reply) {
        let vfs = self.vfs();
        self.answer(Op::Syncfs, ino, reply, async move { vfs.syncfs().await }, reply_done);
    }

    pub(super) fn fallocate(&self, ino: Ino, fh: u64, offset: u64, len: u64, mode: u32, reply: Reply) {
        let vfs = self.vfs();
        let work = async move { vfs.fallocate(ino, fh, offset, len, mode as i32).await };
        self.answer(Op::Fallocate, ino, reply, work, reply_done);
    }

    pub(super) fn lseek(&self, ino: Ino, offset: i64, whence: u32, reply: Reply) {
        let vfs = self.vfs();
        let work = async move {
            let data = match whence as i32 {
                libc::SEEK_DATA => true,
                libc::SEEK_HOLE => false,
                _ => return Err(Error::new(Kind::Invalid, "only data and holes are sought here")),
            };
            // A negative offset is before every file, which is as if it were behind: ENXIO.
            let Ok(offset) = u64::try_from(offset) else { return Ok(None) };
            vfs.lseek(ino, offset, data).await
        };
        self.answer(Op::Lseek, ino, reply, work, |_, reply, found| match found {
            Some(at) => reply.body(&answer::count_64(at)),
            None => reply.error(libc::ENXIO),
        });
    }

    /// Where nothing can be shared the answer is EOPNOTSUPP, and the kernel copies by itself.
    pub(super) fn copy_file_range(&self, ino: Ino, copy: &CopyFileRange, reply: Reply) {
        let (vfs, room) = (self.vfs(), self.vfs());
        let (flags, wide) = (copy.flags, copy.wide);
        let copy = CopyRange {
            from: ino,
            from_fh: copy.fh,
            from_offset: copy.offset,
            to: Ino(copy.to),
            to_fh: copy.to_fh,
            to_offset: copy.to_offset,
            // The answer's width bounds what one call does; the kernel goes on from there.
            len: if wide { copy.len } else { copy.len.min(u64::from(u32::MAX) & !0xfff) },
        };
        let room = async move { room.wait_to_copy(copy).await };
        let work = async move {
            if flags != 0 {
                return Err(Error::new(Kind::Invalid, "copy_file_range has no flags"));
            }
            vfs.copy_file_range(copy).await
        };
        self.answer_after(Op::CopyFileRange, ino, reply, room, work, move |_, reply, copied| {
            let body = if wide { answer::count_64(copied) } else { answer::count(copied as u32) };
            reply.body(&body);
        });
    }
}
