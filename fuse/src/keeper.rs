//! Mounts and open files that go on when the node process ends, by a kill, a crash or an upgrade.
//!
//! The kernel ends a FUSE connection when the last descriptor of `/dev/fuse` that belongs to it is closed. The *keeper*, a
//! small process beside the node, holds duplicates of all of them. While nobody reads them requests queue in the kernel, and
//! programs wait. The next node takes the descriptors over and goes on:
//!
//! 1. It takes for granted what the first one agreed on with the kernel ([`Greeting`]): INIT is not sent again.
//! 2. It opens every file that the kernel holds a handle of, under the same number and with the same way of I/O
//!    ([`table`]), before the tree may upload or drop anything of them.
//! 3. It asks the kernel to send again what the dead process had read and not answered (FUSE_NOTIFY_RESEND, Linux 6.9).
//!    Such requests have the highest bit of their number set ([`crate::proto::RESEND_BIT`]), and so have the answers.
//! 4. It begins a new epoch of entries.
//!
//! Before the change that a request makes is answered it is in the metadata's engine, not only in this process
//! ([`granary_meta::Metadata::written`]), so that the next process knows all that programs were told. What is written to a file is in
//! the stage log, or its stage file, before it is answered anyway.
//!
//! A request that is sent again may have been carried out already. On one node the kernel holds the directory's lock until it
//! is answered, so that nobody else can have come between:
//!
//! | request | sent again, and found done | why |
//! |---|---|---|
//! | LOOKUP, GETATTR, READ, READDIR, STATFS ... | done again | they change nothing |
//! | WRITE | done again | the offset is the kernel's, with O_APPEND too |
//! | SETATTR, FALLOCATE, FSYNC, FLUSH, COPY_FILE_RANGE | done again | twice is once |
//! | OPEN | the handle of the unanswered first is given back, then done again | its number was never told |
//! | CREATE | the same, and the file that is there is opened | the name was absent when the kernel asked |
//! | TMPFILE | the same; the first file is freed with its handle, or at the start | nobody knows it |
//! | MKNOD, MKDIR, SYMLINK, LINK | what is there is the answer, if it is what would have been made | as CREATE |
//! | UNLINK, RMDIR | success when the name is absent | it was there when the kernel asked |
//! | RENAME | success when the source is absent and the target is there | as UNLINK |
//! | RENAME with EXCHANGE | success when the two names are exchanged already, as an intent in the table tells | twice is not once |
//! | SETXATTR with CREATE | success when it has this value | as CREATE |
//! | REMOVEXATTR | success when it is absent | as UNLINK |
//! | RELEASE | nothing when the handle is unknown | a number is never used twice: it has a generation |
//!
//! Kept are mounts whose requests come through `/dev/fuse` (rings belong to a process) of namespaces that no other node changes:
//! with a metadata service, leases and locks belong to the session of the process that died, and a new one cannot know which pages
//! and attributes the kernel still believes. Locks of kept mounts are the kernel's own.
//!
//! | part | what it is |
//! |---|---|
//! | [`table`] | the open handles, in memory that the keeper holds too |
//! | [`wire`] | what node and keeper say to each other |
//! | [`server`] | the keeper |
//! | [`client`] | the node's side |

pub mod client;
pub mod server;
pub mod table;
pub mod wire;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use granary_core::{Error, Kind, Result};

use crate::proto::Flags;
use crate::proto::notification::INC_EPOCH_MINOR;
use crate::vfs::KernelAbilities;
use table::HandleTable;

/// What was agreed on with the kernel when the mount was made, as far as it counts later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// The kernel's minor version of the protocol.
    pub minor: u32,
    /// Longest WRITE, in bytes.
    pub max_write: u32,
    /// [`Flags`] that count.
    pub flags: u64,
}

impl Greeting {
    pub(crate) fn has_epochs(self) -> bool {
        self.minor >= INC_EPOCH_MINOR
    }

    pub(crate) fn abilities(self) -> KernelAbilities {
        let has = |flags| Flags(self.flags).has(flags);
        KernelAbilities {
            passthrough: has(Flags::PASSTHROUGH),
            direct_map: has(Flags::DIRECT_IO_ALLOW_MMAP),
            acl: has(Flags::POSIX_ACL | Flags::DONT_MASK),
        }
    }
}

/// What the keeper holds of one mount, and what the next process needs to go on with it.
#[derive(Debug)]
pub struct Keepsake {
    pub greeting: Greeting,
    /// Device number of the file system.
    pub device: (u32, u32),
    /// Duplicates: every descriptor of the connection, then the table of handles.
    pub descriptors: Vec<OwnedFd>,
}

/// The same, given back.
#[derive(Debug)]
pub struct Inheritance {
    pub greeting: Greeting,
    pub device: (u32, u32),
    pub descriptors: Vec<OwnedFd>,
    pub table: Arc<HandleTable>,
}

impl Inheritance {
    /// Takes [`Keepsake::descriptors`] apart. `Corrupt` when they are not what they should be.
    pub fn new(greeting: Greeting, device: (u32, u32), mut descriptors: Vec<OwnedFd>) -> Result<Inheritance> {
        let table = descriptors.pop().filter(|_| !descriptors.is_empty());
        let table = table.ok_or_else(|| {
            Error::new(
                Kind::Corrupt,
                format!(
                    "what was kept of the mount with device {}:{} has no descriptors; unmount it, and mount again",
                    device.0, device.1
                ),
            )
        })?;
        Ok(Inheritance { greeting, device, descriptors, table: HandleTable::open(table)? })
    }
}
