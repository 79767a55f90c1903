//! The kernel's words: each request is one call of the [`Vfs`] and one reply. A call that need not wait is answered on the
//! thread that read the request; only one that waits becomes a task.

mod attributes;
pub mod config;
mod convert;
mod files;
mod groups;
pub mod histogram;
mod ioctl;
mod locks;
pub mod metrics;
mod names;
mod reply;
mod report;
mod serve;
pub mod trace;
mod xattrs;

use std::sync::Arc;

use granary_core::Ino;

pub use config::WRITE_BYTES_MAX;
use metrics::{Metrics, Op};
use reply::reply_done;
use report::Reporter;
use serve::{Shared, poll_once};

use crate::proto::{Operation, Request, answer};
use crate::transport::{Reply, Service};
use crate::vfs::{Cx, Vfs};

/// A mount's file system, as the transport calls it.
#[derive(Debug)]
pub struct Adapter {
    shared: Arc<Shared>,
    runtime: tokio::runtime::Handle,
}

impl Adapter {
    pub fn new(vfs: Arc<Vfs>, metrics: Arc<Metrics>, runtime: tokio::runtime::Handle) -> Adapter {
        let reporter = Reporter::new(vfs.options().name.clone(), vfs.clock().clone());
        Adapter { shared: Arc::new(Shared { vfs, metrics, reporter }), runtime }
    }

    fn vfs(&self) -> Arc<Vfs> {
        self.shared.vfs.clone()
    }

    /// Who asks. `umask` as it came with the request: where the kernel applied it already, nothing is left of it.
    fn cx(&self, request: &Request<'_>, umask: u32) -> Cx {
        let umask = if self.shared.vfs.applies_umask() { umask & 0o777 } else { 0 };
        let header = &request.header;
        Cx { uid: header.uid, gid: header.gid, pid: header.pid, umask }
    }

    /// A name for the answer about it: needed where its validity depends on leases.
    fn kept_name(&self, name: &[u8]) -> Option<Vec<u8>> {
        self.shared.vfs.is_shared().then(|| name.to_vec())
    }

    /// What is not served. ENOSYS is for the whole mount: the kernel does not ask again.
    fn refuse(&self, op: Op, reply: Reply, errno: i32) {
        self.shared.metrics.came(op);
        reply.error(errno);
    }
}

impl Service for Adapter {
    fn serve(&self, request: &Request<'_>, reply: Reply) {
        let ino = Ino(request.header.ino);
        self.shared.metrics.trace().announce(request);
        match &request.operation {
            Operation::Lookup { name } => self.lookup(ino, name, reply),
            Operation::Getattr { .. } => self.getattr(ino, reply),
            Operation::Statx { .. } => self.statx(ino, reply),
            Operation::Setattr(set) => self.setattr(ino, set, reply),
            Operation::Statfs => self.statfs(ino, reply),

            Operation::Readlink => self.readlink(ino, reply),
            Operation::Symlink { name, target } => {
                self.symlink(self.cx(request, 0), ino, name, target, reply)
            }
            Operation::Mknod { name, mode, device, umask } => {
                self.mknod(self.cx(request, *umask), ino, name, *mode, *device, reply);
            }
            Operation::Mkdir { name, mode, umask } => {
                self.mkdir(self.cx(request, *umask), ino, name, *mode, reply);
            }
            Operation::Unlink { name } => self.unlink(ino, name, reply),
            Operation::Rmdir { name } => self.rmdir(ino, name, reply),
            Operation::Rename { name, to_dir, to_name, flags } => {
                self.rename(ino, name, Ino(*to_dir), to_name, *flags, reply);
            }
            Operation::Link { ino: of, name } => self.link(Ino(*of), ino, name, reply),
            Operation::Readdir(read) => self.readdir(ino, read, false, reply),
            Operation::Readdirplus(read) => self.readdir(ino, read, true, reply),

            Operation::Open { open_flags } => self.open(self.cx(request, 0), ino, *open_flags, reply),
            Operation::Create(create) => self.create(self.cx(request, create.umask), ino, create, reply),
            Operation::Tmpfile(create) => self.tmpfile(self.cx(request, create.umask), ino, create, reply),
            Operation::Read(read) => self.read(ino, read, reply),
            Operation::Write(write) => self.write(ino, write, reply),
            Operation::Flush { fh, lock_owner } => self.flush(ino, *fh, *lock_owner, reply),
            Operation::Release(release) => self.release(ino, release, reply),
            Operation::Fsync { fh, .. } => self.fsync(ino, *fh, reply),
            Operation::Fallocate { fh, offset, len, mode } => {
                self.fallocate(ino, *fh, *offset, *len, *mode, reply);
            }
            Operation::Lseek { fh: _, offset, whence } => self.lseek(ino, *offset, *whence, reply),
            Operation::CopyFileRange(copy) => self.copy_file_range(ino, copy, reply),
            Operation::Getlk(call) => self.getlk(ino, call, reply),
            Operation::Setlk { call, wait } => self.setlk(ino, call, *wait, reply),

            Operation::Setxattr(set) => self.setxattr(self.cx(request, 0), ino, set, reply),
            Operation::Getxattr { name, size } => self.getxattr(self.cx(request, 0), ino, name, *size, reply),
            Operation::Listxattr { size } => self.listxattr(self.cx(request, 0), ino, *size, reply),
            Operation::Removexattr { name } => self.removexattr(self.cx(request, 0), ino, name, reply),

            // Listings need no handle: offsets are the metadata's cookies. The kernel then also caches them, which it must not
            // where others make and remove names.
            Operation::Opendir { .. } if self.shared.vfs.is_shared() => {
                self.answer_now(
                    Op::Opendir,
                    ino,
                    reply,
                    || Ok(()),
                    |_, reply, ()| {
                        reply.body(&answer::open(&answer::Open { fh: 0, flags: 0, backing_id: 0 }));
                    },
                );
            }
            Operation::Opendir { .. } => self.refuse(Op::Opendir, reply, libc::ENOSYS),
            Operation::Releasedir(_) => self.answer_now(Op::Releasedir, ino, reply, || Ok(()), reply_done),
            Operation::Fsyncdir { .. } => self.fsyncdir(ino, reply),
            Operation::Syncfs => self.syncfs(ino, reply),
            Operation::Ioctl(call) => self.ioctl(self.cx(request, 0), ino, call, reply),
            // The kernel checks permissions itself; regular files are always ready.
            Operation::Access { .. } | Operation::Poll | Operation::Other => {
                self.refuse(Op::Other, reply, libc::ENOSYS);
            }
            // The transport's own.
            Operation::Init(_)
            | Operation::Destroy
            | Operation::Interrupt { .. }
            | Operation::Forget { .. }
            | Operation::BatchForget(_) => self.refuse(Op::Other, reply, libc::EIO),
        }
    }

    fn forget(&self, ino: u64, lookups: u64) {
        self.shared.metrics.came(Op::Forget);
        let vfs = &self.shared.vfs;
        if vfs.hears_forgets() {
            let vfs = vfs.clone();
            let mut work = Box::pin(async move { vfs.forget(Ino(ino), lookups).await });
            let _runtime = self.runtime.enter();
            if poll_once(work.as_mut()).is_pending() {
                self.runtime.spawn(work);
            }
        }
    }
}
