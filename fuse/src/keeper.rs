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
//! | WRITE | done again | the offset is the kernel's, with O_APPEND too (but see below) |
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
//! Kept are mounts whose requests come through `/dev/fuse`: rings belong to a process.
//!
//! # Namespaces that other nodes change too
//!
//! What the kernel keeps is true while the session with the metadata service has the leases, and locks and files without a name
//! are the session's. So the next process goes on with the same session ([`granary_meta::remote`], `takeover`), which lasts for
//! the lease time, or longer while nobody needs what it has, and the kernel need not forget anything. A recall that came
//! meanwhile is answered when all of the namespace is as it was: stage, handles, locks. Until then whoever needs the lease waits,
//! as for a node that is slow.
//!
//! | what | with another node in between |
//! |---|---|
//! | CREATE, MKNOD, MKDIR, SYMLINK, LINK, RENAME | what is there counts as made before if the service says that the session changed it in calls that were not confirmed; else it is somebody else's, and the answer is what they made of it (EEXIST, ENOENT). Two nodes that make one name are never both told that they did |
//! | UNLINK, RMDIR | success when the name is absent, also when another node took it away meanwhile |
//! | WRITE with O_APPEND | goes to where it was begun, as an intent in the table tells, if what is there is its beginning; else to the end of the file |
//! | SETLK, FLOCK | done again: an owner's own lock is not in his way |
//! | FLUSH, RELEASE | locks end, and then the handle leaves the table: so an end that was not answered comes again, and finds both or the lock alone gone |
//!
//! When the session is over (the lease time passed and somebody needed something, or the service was started anew too) it is as
//! after any session that was lost: locks are gone, handles from before refuse to change anything (`Fenced`), files without a
//! name are gone, what was written is brought back from the stage if no other node has changed the file since, and else kept
//! aside. The kernel's pages of open files are dropped. A `data` mount is ended then: its kernel does not tell which files are
//! open, and reads their pages without asking.
//!
//! While no process is there the kernel goes on reading pages that it has, and attributes for what was left of the lease when
//! it was told. Should the lease time pass, what others write then is seen once the next process is there.
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
    /// The session with the metadata service did not outlive the process: others may have changed everything since.
    pub lost: bool,
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
        Ok(Inheritance { greeting, device, descriptors, table: HandleTable::open(table)?, lost: false })
    }
}
