//! A mount point that is whole before anybody sees it: a mount is cloned, given its flags, and only then attached (open_tree(2),
//! mount_setattr(2), move_mount(2); Linux 5.12).
//!
//! Where the directory is shared with other mount namespaces, as kubelet's is with the container of the node process, they get a copy
//! when it is attached, and the copy keeps the flags of that moment. A bind mount that is made read-only afterwards is read-only for us
//! alone.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags};

use super::options::MountOptions;
use crate::vfs::Atime;

/// Of mount_setattr(2), which has no wrapper.
#[repr(C)]
struct Attributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

const ATTR_RDONLY: u64 = 0x1;
const ATTR_NOSUID: u64 = 0x2;
const ATTR_NODEV: u64 = 0x4;
const ATTR_NOEXEC: u64 = 0x8;
const ATTR_NOATIME: u64 = 0x10;
const ATTR_ATIME: u64 = 0x70;
const ATTR_IDMAP: u64 = 0x0010_0000;

/// A clone of a mount that is nowhere yet, and is gone when it is dropped before it is attached.
pub(super) struct Detached(OwnedFd);

impl Detached {
    /// Of the directory `from` and what is below it on its mount.
    pub(super) fn of(from: &Path) -> io::Result<Detached> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        Ok(Detached(rustix::mount::open_tree(CWD, from, flags)?))
    }

    /// Gives it the flags of `options`, all of them, and shows the ids of a user namespace where one is given.
    pub(super) fn set(&self, options: &MountOptions, ids: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let flags = [
            (options.read_only, ATTR_RDONLY),
            (!options.suid, ATTR_NOSUID),
            (!options.dev, ATTR_NODEV),
            (!options.exec, ATTR_NOEXEC),
        ];
        let those = |on: bool| flags.iter().filter(|flag| flag.0 == on).fold(0, |sum, flag| sum | flag.1);
        let (mut set, mut clear) = (those(true), those(false));
        // Times of access are one field, which is cleared before it is set.
        if options.atime == Atime::Never {
            (set, clear) = (set | ATTR_NOATIME, clear | ATTR_ATIME);
        }
        let mut user_namespace = 0;
        if let Some(ids) = ids {
            set |= ATTR_IDMAP;
            user_namespace = ids.as_raw_fd() as u64;
        }
        let attributes = Attributes { set, clear, propagation: 0, user_namespace };
        // SAFETY: the path is a C string, and the kernel reads `size_of` bytes of the attributes, which live as long as the call.
        let done = unsafe {
            libc::syscall(
                libc::SYS_mount_setattr,
                self.0.as_fd().as_raw_fd(),
                c"".as_ptr(),
                libc::AT_EMPTY_PATH,
                &raw const attributes,
                size_of::<Attributes>(),
            )
        };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Attaches it at `to`, above what is there.
    pub(super) fn attach(self, to: &Path) -> io::Result<()> {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        Ok(rustix::mount::move_mount(&self.0, "", CWD, to, flags)?)
    }
}
