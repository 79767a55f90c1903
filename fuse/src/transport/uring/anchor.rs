//! A regular file that the kernel knows in every mount with rings, so that it can be asked for a request of its own at any time.
//!
//! The kernel looks at a queue's waiting requests when an answer of that queue is committed, and at no other time (see
//! [`super`]). The one request that can be asked for without a descriptor in the mount is RETRIEVE's, which is for regular files
//! that the kernel knows: of the root it is refused (EINVAL). So when a connection begins, the thread that mounts looks up a name
//! in the root that only it is told of, and an inotify watch keeps the inode until the unmount. A watch keeps no mount busy.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::fs::inotify;

use super::Stop;
use crate::proto::answer::{self, Attributes};
use crate::proto::request::Header;
use crate::proto::wire::Body;
use crate::proto::{Operation, notification};

/// Its inode number. Those of files are below 2^63.
const INO: u64 = u64::MAX;
const NAME: &str = ".granary-anchor";
const ROOT: u64 = 1;
/// The kernel asks for its attributes never again.
const VALID: Duration = Duration::from_secs(u32::MAX as u64);
/// Requests that are asked for have numbers from here on, which the kernel's own never reach. (The highest bit is its mark of
/// requests that are sent again.)
const UNIQUES: u64 = 1 << 62;

#[derive(Debug)]
pub struct Anchor {
    /// The thread that looks it up, 0 for none: others, should they ask for that name, get what the service says.
    asks: AtomicU32,
    /// An inotify instance; with the watch in it from [`Anchor::cast`] on.
    watch: OwnedFd,
    workers: OnceLock<Arc<Stop>>,
}

impl Anchor {
    /// Fails where this user has no room for an inotify instance (`fs.inotify.max_user_instances`).
    pub(super) fn new() -> io::Result<Anchor> {
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC).map_err(|e| {
            let e = io::Error::from(e);
            io::Error::new(e.kind(), format!("no inotify instance (fs.inotify.max_user_instances): {e}"))
        })?;
        Ok(Anchor { asks: AtomicU32::new(0), watch, workers: OnceLock::new() })
    }

    /// Who is to be told when it is cast.
    pub(super) fn tell(&self, workers: Arc<Stop>) {
        let _once = self.workers.set(workers);
    }

    /// Makes the kernel know it. To be called when the connection is served, on another thread, with the path that is
    /// mounted.
    pub fn cast(&self, mountpoint: &Path) -> io::Result<()> {
        // A thread's number is positive.
        self.asks.store(rustix::thread::gettid().as_raw_nonzero().get() as u32, Ordering::SeqCst);
        let flags = inotify::WatchFlags::DELETE_SELF | inotify::WatchFlags::DONT_FOLLOW;
        let watched = inotify::add_watch(&self.watch, mountpoint.join(NAME), flags);
        self.asks.store(0, Ordering::SeqCst);
        watched?;
        if let Some(workers) = self.workers.get() {
            workers.wake_all();
        }
        Ok(())
    }

    /// The answer to the lookup of [`Anchor::cast`]; `None` for all other requests.
    pub(in super::super) fn answer(&self, header: &Header, operation: &Operation<'_>) -> Option<Body> {
        let Operation::Lookup { name } = operation else { return None };
        let asks = self.asks.load(Ordering::SeqCst);
        if asks == 0 || header.pid != asks || header.ino != ROOT || *name != NAME.as_bytes() {
            return None;
        }
        let file = Attributes { ino: INO, mode: libc::S_IFREG | 0o400, nlink: 1, ..Attributes::default() };
        Some(answer::entry(&file, Duration::ZERO, VALID))
    }

    /// Whether this inode is no file of the service's.
    pub(in super::super) fn is(ino: u64) -> bool {
        ino == INO
    }

    /// The notification that asks for a request, the `n`th of a queue.
    pub(super) fn ask(n: u64) -> (i32, Body) {
        (notification::RETRIEVE, notification::retrieve(UNIQUES + 2 * n, INO, 0, 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_casts_it_is_told_of_it() {
        let anchor = Anchor::new().unwrap();
        let header =
            Header { len: 0, opcode: 1, unique: 2, ino: ROOT, uid: 0, gid: 0, pid: 7, extensions: 0 };
        let lookup = Operation::Lookup { name: NAME.as_bytes() };
        assert!(anchor.answer(&header, &lookup).is_none());
        anchor.asks.store(7, Ordering::SeqCst);
        let body = anchor.answer(&header, &lookup).unwrap();
        assert_eq!(body.as_slice()[..8], INO.to_ne_bytes());
        assert!(anchor.answer(&Header { pid: 8, ..header }, &lookup).is_none());
        assert!(anchor.answer(&Header { ino: 2, ..header }, &lookup).is_none());
        assert!(anchor.answer(&header, &Operation::Lookup { name: b"other" }).is_none());
    }
}
