//! The descriptors of a connection: answers, notifications, ioctls.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use rustix::io::Errno;

use super::super::interrupts::{Interrupts, Outcome};
use super::super::{BackingId, Channel, uring};
use crate::proto::wire::Body;
use crate::proto::{ANSWER_HEADER_BYTES, INTERRUPT_BIT};

/// ioctl(2) numbers of the device: `_IOR(229, 0, u32)`, `_IOW(229, 1, fuse_backing_map)`, `_IOW(229, 2, u32)`.
const CLONE: libc::c_ulong = 0x8004_e500;
const BACKING_OPEN: libc::c_ulong = 0x4010_e501;
const BACKING_CLOSE: libc::c_ulong = 0x4004_e502;

/// The kernel's `fuse_backing_map`.
#[repr(C)]
struct BackingMap {
    fd: i32,
    flags: u32,
    padding: u64,
}

/// A mount's connection to the kernel: what all its descriptors share.
#[derive(Debug)]
pub(in super::super) struct Connection {
    /// The first is the one that was mounted.
    descriptors: Vec<OwnedFd>,
    interrupts: Interrupts,
    /// Who commits answers, where requests come over rings.
    workers: OnceLock<Arc<uring::Stop>>,
}

impl Connection {
    /// Of a mounted descriptor and `count - 1` clones, each read by a thread, with `rings` threads more that get requests
    /// elsewhere.
    pub(in super::super) fn new(first: OwnedFd, count: usize, rings: usize) -> io::Result<Arc<Connection>> {
        let mut descriptors = vec![first];
        for _ in 1..count {
            descriptors.push(clone_of(&descriptors[0])?);
        }
        let interrupts = match rings {
            0 => Interrupts::new(descriptors.len()),
            rings => Interrupts::of_rings(descriptors.len() + rings),
        };
        Ok(Arc::new(Connection { descriptors, interrupts, workers: OnceLock::new() }))
    }

    /// Of all descriptors of a connection that another process had.
    pub(in super::super) fn inherited(descriptors: Vec<OwnedFd>) -> Arc<Connection> {
        let interrupts = Interrupts::new(descriptors.len());
        Arc::new(Connection { descriptors, interrupts, workers: OnceLock::new() })
    }

    /// Duplicates of all of them.
    pub(in super::super) fn duplicates(&self) -> io::Result<Vec<OwnedFd>> {
        self.descriptors.iter().map(OwnedFd::try_clone).collect()
    }

    pub(in super::super) fn first(&self) -> BorrowedFd<'_> {
        self.descriptors[0].as_fd()
    }

    /// Requests come over rings, and these commit their answers.
    pub(in super::super) fn served_by(&self, workers: Arc<uring::Stop>) {
        let _once = self.workers.set(workers);
    }

    /// Registers a local file that the kernel may read and write by itself.
    pub(in super::super) fn open_backing(&self, file: BorrowedFd<'_>) -> io::Result<i32> {
        let map = BackingMap { fd: file.as_raw_fd(), flags: 0, padding: 0 };
        // SAFETY: the descriptor is open, and the kernel reads a `fuse_backing_map`, which `map` is laid out as.
        let id = unsafe { libc::ioctl(self.first().as_raw_fd(), BACKING_OPEN, &raw const map) };
        if id < 0 { Err(io::Error::last_os_error()) } else { Ok(id) }
    }

    pub(in super::super) fn close_backing(&self, id: i32) {
        let id = id as u32;
        // SAFETY: the descriptor is open, and the kernel reads a `u32`. A failure means that the connection is gone.
        let _gone = unsafe { libc::ioctl(self.first().as_raw_fd(), BACKING_CLOSE, &raw const id) };
    }

    /// The program that made a request wants its answer no longer. Which descriptor read the request is not known, so where
    /// the kernel is to ask again all are tried; it takes the one that fits.
    pub(in super::super) fn interrupt(&self, unique: u64) {
        if self.interrupts.interrupt(unique) == Outcome::Unknown {
            for descriptor in &self.descriptors {
                if write(descriptor.as_fd(), unique | INTERRUPT_BIT, -libc::EAGAIN, &[]).is_ok() {
                    return;
                }
            }
        }
    }
}

/// One descriptor of it.
#[derive(Debug)]
pub(in super::super) struct Device {
    connection: Arc<Connection>,
    at: usize,
}

impl Device {
    /// All of a connection.
    pub(in super::super) fn all(connection: &Arc<Connection>) -> Vec<Arc<Device>> {
        (0..connection.descriptors.len())
            .map(|at| Arc::new(Device { connection: connection.clone(), at }))
            .collect()
    }

    /// Which one of the connection's it is.
    pub(in super::super) fn at(&self) -> usize {
        self.at
    }

    pub(in super::super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.connection.descriptors[self.at].as_fd()
    }
}

/// Most parts of an answer behind its header.
const PARTS_MAX: usize = 2;

/// Writes an answer or a notification at once.
pub(in super::super) fn write(
    descriptor: BorrowedFd<'_>,
    unique: u64,
    code: i32,
    parts: &[&[u8]],
) -> Result<(), Errno> {
    let len = ANSWER_HEADER_BYTES + parts.iter().map(|part| part.len()).sum::<usize>();
    let header = Body::default().u32(len as u32).u32(code as u32).u64(unique);
    let mut slices = [IoSlice::new(&[]); 1 + PARTS_MAX];
    slices[0] = IoSlice::new(header.as_slice());
    for (slice, part) in slices[1..].iter_mut().zip(parts) {
        *slice = IoSlice::new(part);
    }
    rustix::io::retry_on_intr(|| rustix::io::writev(descriptor, &slices[..=parts.len()])).map(|_| ())
}

impl Channel for Device {
    fn answer(&self, unique: u64, errno: i32, parts: &[&[u8]], _until_written: Option<Arc<BackingId>>) {
        match write(self.descriptor(), unique, -errno, parts) {
            // ENOENT: it was aborted, ENODEV: the file system is gone. Nobody waits for the answer.
            Ok(()) | Err(Errno::NOENT | Errno::NODEV) => {}
            Err(e) => tracing::error!(unique, errno, error = %e, "the kernel does not take an answer"),
        }
    }

    fn notify(&self, code: i32, body: &[u8]) -> io::Result<()> {
        let parts = [body];
        let parts = if body.is_empty() { &parts[..0] } else { &parts[..] };
        Ok(write(self.descriptor(), 0, code, parts)?)
    }

    fn open_backing(&self, file: BorrowedFd<'_>) -> io::Result<BackingId> {
        BackingId::register(&self.connection, file)
    }

    fn is_ring(&self) -> bool {
        self.connection.workers.get().is_some()
    }

    fn settle(&self) {
        // What is written is the kernel's at once.
        if let Some(workers) = self.connection.workers.get() {
            workers.settle();
        }
    }

    fn interrupts(&self) -> &Interrupts {
        &self.connection.interrupts
    }
}

/// A descriptor of the same connection, with a list of requests of its own.
fn clone_of(first: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
    let new = rustix::fs::open("/dev/fuse", flags, rustix::fs::Mode::empty())?;
    let source = first.as_raw_fd() as u32;
    // SAFETY: both descriptors are open, and the kernel reads a `u32`.
    let failed = unsafe { libc::ioctl(new.as_raw_fd(), CLONE, &raw const source) };
    if failed < 0 { Err(io::Error::last_os_error()) } else { Ok(new) }
}
