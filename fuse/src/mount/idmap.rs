//! A mount point that shows other ids: the kernel's idmapped mounts (`MOUNT_ATTR_IDMAP` of mount_setattr(2); for FUSE since Linux 6.12,
//! where the file system has agreed to it and leaves permissions to the kernel).
//!
//! Such a mount has a table of ids: on the file system, and as they are shown. It goes both ways, so no two ids are shown as one. What is
//! in no row is shown as nobody's, may be changed by nobody, and who has such an id can make no files. Here, with X the owner (or
//! group) of the namespace's top directory, and N the id that is wanted:
//!
//! | asked for | rows | why |
//! |---|---|---|
//! | `map_uid=N`, `map_gid=N` | X as N; all others but X and N as they are | who is X without this mount does not become N by it: N's files would be theirs |
//! | `map_group=N` | X as N, N as X; all others as they are | X is often 0, the group of many programs, who could make no files then. Where N is a group that the program has anyway (Kubernetes' `fsGroup`) they can do nothing that it could not |
//!
//! The table is a user namespace's, made for this alone by a process that ends at once.

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use granary_core::{Error, Kind, Result};
use rustix::fs::{Mode, OFlags};

use super::check;
use super::detached::Detached;
use super::options::MountOptions;

/// Ids are 0 up to this; the one after it means "none".
const ID_MAX: u32 = u32::MAX - 1;

/// Which ids a mount point shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IdMap {
    /// The top directory's owner is shown as this.
    pub uid: Option<u32>,
    /// Its group is.
    pub gid: Option<u32>,
    /// Its group is, and this as that group. Counts where `gid` is not given.
    pub group: Option<u32>,
}

impl IdMap {
    pub fn is_empty(&self) -> bool {
        *self == IdMap::default()
    }

    /// The tables of users and of groups, as the kernel reads them.
    fn tables(&self, owner: u32, group: u32) -> (String, String) {
        let users = self.uid.map_or_else(all, |shown| moved(owner, shown, false));
        let groups = match (self.gid, self.group) {
            (Some(shown), _) => moved(group, shown, false),
            (None, Some(shown)) => moved(group, shown, true),
            (None, None) => all(),
        };
        (users, groups)
    }
}

fn all() -> String {
    format!("0 0 {}\n", u32::MAX)
}

/// `from` is shown as `to`; with `back` the other way round as well, else neither is anything else.
fn moved(from: u32, to: u32, back: bool) -> String {
    if from == to {
        return all();
    }
    let (low, high) = (from.min(to), from.max(to));
    let between = [(0, low), (low + 1, high), (high + 1, u32::MAX)];
    let same = between.into_iter().filter(|(start, end)| start < end);
    let mut rows: Vec<String> =
        same.map(|(start, end)| format!("{start} {start} {}\n", end - start)).collect();
    rows.push(format!("{from} {to} 1\n"));
    if back {
        rows.push(format!("{to} {from} 1\n"));
    }
    rows.concat()
}

/// Shows `from`, an opened directory of the namespace whose top directory is `top`, at `to`, with other ids.
pub(super) fn bind(top: &Path, from: &Path, source: &str, to: &Path, options: &MountOptions) -> Result<()> {
    let owner = rustix::fs::stat(top).map_err(|e| cannot(to, e.into()))?;
    let (users, groups) = options.ids.tables(owner.st_uid, owner.st_gid);
    let namespace = user_namespace(&users, &groups).map_err(|e| {
        Error::io(format!("cannot mount on {}: the table of its ids cannot be made", to.display()), e)
    })?;
    let tree = Detached::of(from).map_err(|e| cannot(to, e))?;
    tree.set(options, Some(namespace.as_fd())).map_err(|e| match e.raw_os_error() {
        Some(libc::EINVAL) => Error::new(
            Kind::Unsupported,
            format!(
                "cannot mount {source} on {} with other ids: it needs Linux 6.12, and a first mount of the namespace with the option \
                 idmap; unmount it everywhere on this machine, and mount it with that",
                to.display()
            ),
        ),
        _ => cannot(to, e),
    })?;
    tree.attach(to).map_err(|e| cannot(to, e))
}

fn cannot(to: &Path, e: io::Error) -> Error {
    check::mount_failed(to, e)
}

/// A user namespace with these tables.
fn user_namespace(users: &str, groups: &str) -> io::Result<OwnedFd> {
    let (hold, go) = io::pipe()?;
    // SAFETY: as fork(2), into a process with one thread, which does nothing but system calls that are safe there (close, read, exit).
    let child = unsafe { libc::syscall(libc::SYS_clone, libc::CLONE_NEWUSER | libc::SIGCHLD, 0, 0, 0, 0) };
    if child == 0 {
        // SAFETY: as above; the descriptors are this process' copies. The read returns when the other end is gone, also by our end.
        unsafe {
            libc::close(go.as_raw_fd());
            libc::read(hold.as_raw_fd(), [0_u8; 1].as_mut_ptr().cast(), 1);
            libc::_exit(0);
        }
    }
    if child < 0 {
        return Err(io::Error::last_os_error());
    }
    let opened = fill(child, users, groups);
    drop(go);
    let child = i32::try_from(child).ok().and_then(rustix::process::Pid::from_raw);
    // Whoever reaps all children may have been faster.
    while let Err(rustix::io::Errno::INTR) =
        rustix::process::waitpid(child, rustix::process::WaitOptions::empty())
    {}
    opened
}

fn fill(child: libc::c_long, users: &str, groups: &str) -> io::Result<OwnedFd> {
    for (table, text) in [("uid_map", users), ("gid_map", groups)] {
        // The kernel takes a table in one write.
        fs::OpenOptions::new()
            .write(true)
            .open(format!("/proc/{child}/{table}"))?
            .write_all(text.as_bytes())?;
    }
    let path = format!("/proc/{child}/ns/user");
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// A number of a user or group.
pub(super) fn parse_id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id <= ID_MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As the kernel would show it.
    fn shown(table: &str, id: u32) -> Option<u32> {
        table.lines().find_map(|row| {
            let numbers: Vec<u64> = row.split(' ').map(|n| n.parse().unwrap()).collect();
            let offset = u64::from(id).checked_sub(numbers[0]).filter(|offset| *offset < numbers[2])?;
            Some((numbers[1] + offset) as u32)
        })
    }

    #[test]
    fn tables() {
        let map = IdMap { uid: Some(1000), gid: None, group: Some(2000) };
        let (users, groups) = map.tables(5000, 0);
        assert_eq!(users, "0 0 1000\n1001 1001 3999\n5001 5001 4294962294\n5000 1000 1\n");
        assert_eq!(groups, "1 1 1999\n2001 2001 4294965294\n0 2000 1\n2000 0 1\n");
        assert_eq!(IdMap::default().tables(1, 2), (all(), all()));
        assert_eq!(IdMap { uid: Some(7), ..map }.tables(7, 0).0, all());
        let both = IdMap { gid: Some(3), group: Some(4), uid: None };
        assert_eq!(shown(&both.tables(0, 9).1, 9), Some(3));
    }

    proptest! {
        #[test]
        fn nobody_becomes_whom_they_did_not_ask_for(from in 0..=ID_MAX, to in 0..=ID_MAX, other in 0..=ID_MAX, back: bool) {
            let table = moved(from, to, back);
            prop_assert_eq!(shown(&table, from), Some(to));
            if from != to {
                prop_assert_eq!(shown(&table, to), back.then_some(from));
            }
            if other != from && other != to {
                prop_assert_eq!(shown(&table, other), Some(other));
            }
            prop_assert!(table.lines().count() <= 5);
        }
    }

    #[test]
    fn a_table_is_the_kernels() {
        if !rustix::process::geteuid().is_root() {
            return; // only root may write such a table; tools/test runs this as root
        }
        let (users, groups) = IdMap { uid: Some(1000), gid: None, group: Some(2000) }.tables(5000, 0);
        assert!(user_namespace(&users, &groups).is_ok());
        assert!(user_namespace("0 0 1\n0 0 1\n", &groups).is_err(), "the kernel refuses what overlaps");
    }
}
