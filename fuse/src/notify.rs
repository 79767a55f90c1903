//! Telling the kernel that what it keeps is not true any more.
//!
//! | call | locks that the kernel takes for it |
//! |---|---|
//! | attributes of an inode | none |
//! | pages of an inode | the pages' locks: waits for reads and writes of them that are under way |
//! | all entries of the mount | none |
//!
//! Dropping one entry (INVAL_ENTRY) is left out on purpose: it takes the directory's lock, which a create that waits for
//! an answer from here may hold.

use std::io;
use std::sync::Weak;

use granary_core::{Error, Ino, Kind, Result};

use crate::proto::notification;
use crate::transport::Channel;

/// One mount's way to its kernel's caches. After the end of the mount there is nothing to be told, and all succeeds.
#[derive(Clone, Debug)]
pub struct Notifier {
    channel: Weak<dyn Channel>,
    epochs: bool,
}

impl Notifier {
    /// `epochs`: the kernel knows [`notification::INC_EPOCH`].
    pub(crate) fn new(channel: Weak<dyn Channel>, epochs: bool) -> Notifier {
        Notifier { channel, epochs }
    }

    /// Whether [`Notifier::invalidate_entries`] can be done (Linux 6.16).
    pub fn supported(&self) -> bool {
        self.epochs
    }

    /// The inode's attributes and access lists are asked for again. Never waits.
    pub fn invalidate_attributes(&self, ino: Ino) -> Result<()> {
        self.notify(notification::INVAL_INODE, notification::inval_inode(ino.0, -1, 0).as_slice())
    }

    /// The same, and its pages from `offset` on, `len` bytes (0: to the end), are read again. Waits for requests that
    /// are under way with those pages: never to be called where these wait for the caller.
    pub fn invalidate_pages(&self, ino: Ino, offset: u64, len: u64) -> Result<()> {
        let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let body = notification::inval_inode(ino.0, signed(offset), signed(len));
        self.notify(notification::INVAL_INODE, body.as_slice())
    }

    /// All names of the mount, absent ones too, are looked up again before their next use. Never waits. `Unsupported` by
    /// kernels before Linux 6.16.
    pub fn invalidate_entries(&self) -> Result<()> {
        if !self.epochs {
            return Err(Error::new(
                Kind::Unsupported,
                "this kernel cannot drop cached names without a lock; it needs Linux 6.16",
            ));
        }
        self.notify(notification::INC_EPOCH, &[])
    }

    /// Whether answers may reach the kernel later than they are given.
    pub(crate) fn lags(&self) -> bool {
        self.channel.upgrade().is_some_and(|channel| channel.is_ring())
    }

    /// Returns when the kernel has all answers that were given before. Waits for the threads that serve, so none of them may.
    pub(crate) fn settle(&self) {
        if let Some(channel) = self.channel.upgrade() {
            channel.settle();
        }
    }

    fn notify(&self, code: i32, body: &[u8]) -> Result<()> {
        let Some(channel) = self.channel.upgrade() else { return Ok(()) };
        match channel.notify(code, body) {
            Ok(()) => Ok(()),
            // ENOENT: the kernel does not have the inode. ENOTCONN, ENODEV: the mount is gone.
            Err(e) if is_nothing(&e) => Ok(()),
            Err(e) => Err(Error::new(Kind::Io, "the kernel does not take a notification").with_source(e)),
        }
    }
}

fn is_nothing(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTCONN | libc::ENODEV))
}
