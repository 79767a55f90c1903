//! The system's users and groups, asked of the C library (files, LDAP, whatever the machine has).

use std::ffi::{CStr, CString};
use std::os::fd::AsRawFd;

/// A user of the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    /// The user's first group.
    pub gid: u32,
    pub login: String,
}

/// Entries longer than this are treated as missing.
const BUFFER_MAX: usize = 1 << 20;

/// Calls a `get..._r` function with growing buffers until the entry fits.
fn with_buffer<T>(mut call: impl FnMut(&mut [libc::c_char]) -> Result<Option<T>, i32>) -> Option<T> {
    let mut buffer = vec![0; 1024];
    loop {
        match call(&mut buffer) {
            Ok(found) => return found,
            Err(libc::ERANGE) if buffer.len() < BUFFER_MAX => buffer.resize(buffer.len() * 4, 0),
            Err(libc::EINTR) => {}
            Err(_) => return None,
        }
    }
}

fn user_of(entry: &libc::passwd) -> User {
    // SAFETY: the C library filled `entry` and its name is a NUL-terminated string in the caller's live buffer.
    let login = unsafe { CStr::from_ptr(entry.pw_name) }.to_string_lossy().into_owned();
    User { uid: entry.pw_uid, gid: entry.pw_gid, login }
}

/// The user with this login.
pub fn by_login(login: &str) -> Option<User> {
    let login = CString::new(login).ok()?;
    with_buffer(|buffer| {
        // SAFETY: plain C struct of integers and pointers, for which zero is a valid value.
        let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
        let mut found = std::ptr::null_mut();
        // SAFETY: all pointers are valid for the call; the buffer's length is given; the result points into `entry`.
        let rc = unsafe {
            libc::getpwnam_r(login.as_ptr(), &mut entry, buffer.as_mut_ptr(), buffer.len(), &mut found)
        };
        if rc == 0 { Ok((!found.is_null()).then(|| user_of(&entry))) } else { Err(rc) }
    })
}

/// The user with this number.
pub fn by_uid(uid: u32) -> Option<User> {
    with_buffer(|buffer| {
        // SAFETY: as in `by_login`.
        let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
        let mut found = std::ptr::null_mut();
        // SAFETY: as in `by_login`.
        let rc = unsafe { libc::getpwuid_r(uid, &mut entry, buffer.as_mut_ptr(), buffer.len(), &mut found) };
        if rc == 0 { Ok((!found.is_null()).then(|| user_of(&entry))) } else { Err(rc) }
    })
}

/// The number of the group with this name.
pub fn group(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    with_buffer(|buffer| {
        // SAFETY: as in `by_login`.
        let mut entry: libc::group = unsafe { std::mem::zeroed() };
        let mut found = std::ptr::null_mut();
        // SAFETY: as in `by_login`.
        let rc = unsafe {
            libc::getgrnam_r(name.as_ptr(), &mut entry, buffer.as_mut_ptr(), buffer.len(), &mut found)
        };
        if rc == 0 { Ok((!found.is_null()).then_some(entry.gr_gid)) } else { Err(rc) }
    })
}

/// The supplementary groups that the process at the other end of a UNIX socket had when it connected: proven by the
/// kernel, where the user database only says what a new login would get.
pub fn peer_groups(socket: &impl AsRawFd) -> std::io::Result<Vec<u32>> {
    let mut groups: Vec<libc::gid_t> = vec![0; 64];
    loop {
        let mut bytes = (groups.len() * size_of::<libc::gid_t>()) as libc::socklen_t;
        // SAFETY: the buffer is valid for `bytes` bytes, and the kernel writes at most that many.
        let rc = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &mut bytes,
            )
        };
        let needed = bytes as usize / size_of::<libc::gid_t>();
        if rc == 0 {
            groups.truncate(needed);
            return Ok(groups);
        }
        let e = std::io::Error::last_os_error();
        if e.raw_os_error() != Some(libc::ERANGE) || needed <= groups.len() {
            return Err(e);
        }
        groups.resize(needed, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_known_by_both_names() {
        let root = by_login("root").unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(by_uid(0), Some(root));
        assert_eq!(group("root"), Some(0));
        assert_eq!(by_login("no-such-user-here"), None);
        assert_eq!(by_login("nul\0inside"), None);
        assert_eq!(group("no-such-group-here"), None);
    }

    #[test]
    fn a_peer_has_our_groups() {
        let (a, _b) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut ours: Vec<u32> =
            rustix::process::getgroups().unwrap().into_iter().map(rustix::process::Gid::as_raw).collect();
        let mut theirs = peer_groups(&a).unwrap();
        ours.sort_unstable();
        theirs.sort_unstable();
        assert_eq!(theirs, ours);
    }
}
