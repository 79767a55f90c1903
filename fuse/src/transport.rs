//! How requests come and answers go. What is above knows a [`Service`] that is given requests, a [`Reply`] for each, and a
//! [`crate::notify::Notifier`]; whether they go through `/dev/fuse` or over io_uring is known to [`dev`] and [`uring`] alone.

pub mod backing;
pub mod dev;
pub mod interrupts;
pub mod reply;
pub mod session;
pub mod uring;

mod caller;
mod dispatch;

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::str::FromStr;
use std::sync::Arc;

use granary_core::{Error, Kind};

use crate::proto::Request;
use interrupts::Interrupts;

pub use backing::BackingId;
pub use reply::Reply;
pub use session::{Session, Ways};

/// Which way requests are to come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// Over io_uring where the kernel offers it, else through `/dev/fuse`.
    Auto,
    /// Through `/dev/fuse`.
    #[default]
    Dev,
    Uring,
}

impl Transport {
    /// Whether requests that come this way are what was wanted.
    pub fn takes(self, carrier: Carrier) -> bool {
        match self {
            Transport::Auto => true,
            Transport::Dev => carrier == Carrier::Dev,
            Transport::Uring => carrier == Carrier::Uring,
        }
    }
}

impl FromStr for Transport {
    type Err = Error;

    /// As the option and the setting say it. `Invalid` names what would do.
    fn from_str(text: &str) -> Result<Transport, Error> {
        match text {
            "auto" => Ok(Transport::Auto),
            "dev" => Ok(Transport::Dev),
            "uring" => Ok(Transport::Uring),
            _ => {
                let known = "transport is auto, dev (/dev/fuse) or uring (FUSE over io_uring, Linux 6.14)";
                Err(Error::new(Kind::Invalid, known))
            }
        }
    }
}

/// Which way they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    Dev,
    Uring,
}

impl Carrier {
    /// As the option says it.
    pub fn name(self) -> &'static str {
        match self {
            Carrier::Dev => "dev",
            Carrier::Uring => "uring",
        }
    }
}

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
    /// Answers the request `unique`: with an errno (positive) or, when it is 0, with `parts` one after the other. A file
    /// that the answer names stays registered until the kernel has the answer.
    fn answer(&self, unique: u64, errno: i32, parts: &[&[u8]], names: Option<Arc<BackingId>>);
    fn notify(&self, code: i32, body: &[u8]) -> io::Result<()>;
    /// Registers a local file that the kernel may read and write by itself.
    fn open_backing(&self, file: BorrowedFd<'_>) -> io::Result<BackingId>;
    /// Whether requests come over rings: answers may reach the kernel later than they are given, and the kernel may not say
    /// that a program was interrupted.
    fn is_ring(&self) -> bool;
    /// Returns when the kernel has all answers that were given before. Never to be called by who serves.
    fn settle(&self);
    fn interrupts(&self) -> &Interrupts;
}
