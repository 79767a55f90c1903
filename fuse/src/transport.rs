//! How requests come and answers go. What is above knows a [`Service`] that is given requests, a [`Reply`] for each, and a
//! [`crate::notify::Notifier`]; that they go through `/dev/fuse` is known to [`dev`] alone.

pub mod backing;
pub mod dev;
pub mod interrupts;
pub mod reply;

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;

use crate::proto::Request;
use interrupts::Interrupts;

pub use backing::BackingId;
pub use reply::Reply;

/// Who serves requests. Called on the thread that read the request; what the request borrows is gone at the return.
pub trait Service: Send + Sync + 'static {
    /// INIT, DESTROY, INTERRUPT and what needs no answer do not come here. A reply that is kept past the return must have
    /// been told that it [waits](Reply::waits): an INTERRUPT of a request that is not known is asked for again and again.
    fn serve(&self, request: &Request<'_>, reply: Reply);
    /// The kernel forgot `lookups` of its references to an inode.
    fn forget(&self, ino: u64, lookups: u64);
}

/// Where answers and notifications go.
pub(crate) trait Channel: fmt::Debug + Send + Sync {
    /// Answers the request `unique`: with an errno (positive) or, when it is 0, with `parts` one after the other.
    fn answer(&self, unique: u64, errno: i32, parts: &[&[u8]]);
    fn notify(&self, code: i32, body: &[u8]) -> io::Result<()>;
    /// Registers a local file that the kernel may read and write by itself.
    fn open_backing(&self, file: BorrowedFd<'_>) -> io::Result<i32>;
    fn close_backing(&self, id: i32);
    fn interrupts(&self) -> &Interrupts;
}
