//! System calls as they are: a number, or an errno.

use std::ffi::CString;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

pub type Answer<T = i64> = Result<T, i32>;

pub fn c(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

fn answer(n: i64) -> Answer {
    if n < 0 { Err(std::io::Error::last_os_error().raw_os_error().unwrap()) } else { Ok(n) }
}

/// `call!(name(args))`: the libc function, its errors as errno.
macro_rules! call {
    ($f:ident($($arg:expr),* $(,)?)) => {
        // SAFETY: paths are NUL-terminated, buffers live and are as long as said; descriptors may be anything.
        answer(i64::from(unsafe { libc::$f($($arg),*) }))
    };
}

pub fn open(path: &Path, flags: i32, mode: u32) -> Answer {
    call!(open(c(path).as_ptr(), flags | libc::O_CLOEXEC, mode))
}
pub fn close(fd: RawFd) -> Answer {
    call!(close(fd))
}
pub fn mkdir(path: &Path, mode: u32) -> Answer {
    call!(mkdir(c(path).as_ptr(), mode))
}
pub fn rmdir(path: &Path) -> Answer {
    call!(rmdir(c(path).as_ptr()))
}
pub fn unlink(path: &Path) -> Answer {
    call!(unlink(c(path).as_ptr()))
}
pub fn link(from: &Path, to: &Path) -> Answer {
    call!(link(c(from).as_ptr(), c(to).as_ptr()))
}
pub fn link_fd(fd: RawFd, to: &Path) -> Answer {
    let from = CString::new(format!("/proc/self/fd/{fd}")).unwrap();
    call!(linkat(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, c(to).as_ptr(), libc::AT_SYMLINK_FOLLOW))
}
pub fn symlink(target: &str, path: &Path) -> Answer {
    call!(symlink(CString::new(target).unwrap().as_ptr(), c(path).as_ptr()))
}
pub fn rename(from: &Path, to: &Path, flags: u32) -> Answer {
    call!(renameat2(libc::AT_FDCWD, c(from).as_ptr(), libc::AT_FDCWD, c(to).as_ptr(), flags))
}
pub fn mknod(path: &Path, mode: u32, dev: u64) -> Answer {
    call!(mknod(c(path).as_ptr(), mode, dev))
}
pub fn chmod(path: &Path, mode: u32) -> Answer {
    call!(chmod(c(path).as_ptr(), mode))
}
pub fn fchmod(fd: RawFd, mode: u32) -> Answer {
    call!(fchmod(fd, mode))
}
pub fn lchown(path: &Path, uid: u32, gid: u32) -> Answer {
    call!(lchown(c(path).as_ptr(), uid, gid))
}
pub fn fchown(fd: RawFd, uid: u32, gid: u32) -> Answer {
    call!(fchown(fd, uid, gid))
}
pub fn truncate(path: &Path, size: i64) -> Answer {
    call!(truncate(c(path).as_ptr(), size))
}
pub fn ftruncate(fd: RawFd, size: i64) -> Answer {
    call!(ftruncate(fd, size))
}
pub fn fallocate(fd: RawFd, mode: i32, offset: i64, len: i64) -> Answer {
    call!(fallocate(fd, mode, offset, len))
}
pub fn fsync(fd: RawFd) -> Answer {
    call!(fsync(fd))
}
pub fn lseek(fd: RawFd, offset: i64, whence: i32) -> Answer {
    call!(lseek(fd, offset, whence))
}
pub fn access(path: &Path, mode: i32) -> Answer {
    call!(faccessat(libc::AT_FDCWD, c(path).as_ptr(), mode, libc::AT_EACCESS))
}
pub fn utimens(path: &Path, times: [libc::timespec; 2], follow: bool) -> Answer {
    let flags = if follow { 0 } else { libc::AT_SYMLINK_NOFOLLOW };
    call!(utimensat(libc::AT_FDCWD, c(path).as_ptr(), times.as_ptr(), flags))
}

pub fn write(fd: RawFd, bytes: &[u8]) -> Answer {
    // SAFETY: the buffer is as long as said.
    answer(unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) } as i64)
}
pub fn pwrite(fd: RawFd, bytes: &[u8], offset: i64) -> Answer {
    // SAFETY: the buffer is as long as said.
    answer(unsafe { libc::pwrite(fd, bytes.as_ptr().cast(), bytes.len(), offset) } as i64)
}
pub fn pread(fd: RawFd, len: usize, offset: i64) -> Answer<Vec<u8>> {
    let mut bytes = vec![0; len];
    // SAFETY: the buffer is as long as said.
    let n = answer(unsafe { libc::pread(fd, bytes.as_mut_ptr().cast(), len, offset) } as i64)?;
    bytes.truncate(n as usize);
    Ok(bytes)
}
pub fn copy_file_range(from: RawFd, from_offset: i64, to: RawFd, to_offset: i64, len: usize) -> Answer {
    let (mut a, mut b) = (from_offset, to_offset);
    // SAFETY: both offsets live.
    answer(unsafe { libc::copy_file_range(from, &mut a, to, &mut b, len, 0) } as i64)
}
pub fn readlink(path: &Path) -> Answer<Vec<u8>> {
    let mut bytes = vec![0_u8; 5000];
    // SAFETY: the buffer is as long as said.
    let n =
        answer(unsafe { libc::readlink(c(path).as_ptr(), bytes.as_mut_ptr().cast(), bytes.len()) } as i64)?;
    bytes.truncate(n as usize);
    Ok(bytes)
}
pub fn setxattr(path: &Path, name: &str, value: &[u8], flags: i32) -> Answer {
    let name = CString::new(name).unwrap();
    call!(lsetxattr(c(path).as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), flags))
}
pub fn removexattr(path: &Path, name: &str) -> Answer {
    call!(lremovexattr(c(path).as_ptr(), CString::new(name).unwrap().as_ptr()))
}
pub fn getxattr(path: &Path, name: &str, len: usize) -> Answer<Vec<u8>> {
    let (name, mut bytes) = (CString::new(name).unwrap(), vec![0_u8; len]);
    // SAFETY: the buffer is as long as said.
    let n = unsafe { libc::lgetxattr(c(path).as_ptr(), name.as_ptr(), bytes.as_mut_ptr().cast(), len) };
    let n = answer(n as i64)?;
    if len == 0 {
        return Ok(vec![n as u8]);
    }
    bytes.truncate(n as usize);
    Ok(bytes)
}
pub fn listxattr(path: &Path) -> Answer<Vec<Vec<u8>>> {
    let mut bytes = vec![0_u8; 4096];
    // SAFETY: the buffer is as long as said.
    let n = unsafe { libc::llistxattr(c(path).as_ptr(), bytes.as_mut_ptr().cast(), bytes.len()) };
    let n = answer(n as i64)?;
    let mut names: Vec<_> = bytes[..n as usize].split_inclusive(|&b| b == 0).map(<[u8]>::to_vec).collect();
    names.sort();
    Ok(names)
}

pub fn lstat(path: &Path) -> Answer<libc::stat> {
    // SAFETY: a stat of zeros is one.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    call!(lstat(c(path).as_ptr(), &mut stat)).map(|_| stat)
}

pub fn fstat(fd: RawFd) -> Answer<libc::stat> {
    // SAFETY: a stat of zeros is one.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    call!(fstat(fd, &mut stat)).map(|_| stat)
}

/// Who this thread is to file systems from now on.
pub fn become_user(uid: u32, gid: u32, groups: &[u32]) {
    // SAFETY: raw calls, which change this thread only; the list is as long as said.
    unsafe {
        libc::setfsuid(0);
        assert_eq!(libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()), 0);
        libc::setfsgid(gid);
        libc::setfsuid(uid);
    }
}

/// The umask is the process's; each thread that changes it has one of its own.
pub fn own_umask() {
    // SAFETY: no memory is concerned.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_FS) }, 0);
}

pub fn umask(mask: u32) {
    // SAFETY: no memory is concerned.
    unsafe { libc::umask(mask) };
}
