//! A shared mapping of a file whose mount may go away: the kernel copies to and from it, so that a page that cannot be had is
//! EFAULT and not the end of the process by SIGBUS.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};

/// Unmapped when dropped.
#[derive(Debug)]
pub struct Mapping {
    at: *mut libc::c_void,
    len: usize,
    /// What goes to and comes from the mapping passes through here.
    between: File,
}

impl Mapping {
    /// The first `len` bytes of a file that is open for reading and writing.
    pub fn new(file: &File, len: usize) -> io::Result<Mapping> {
        // SAFETY: a new descriptor that nobody else has.
        let between = unsafe {
            match libc::memfd_create(c"between".as_ptr(), libc::MFD_CLOEXEC) {
                -1 => return Err(io::Error::last_os_error()),
                fd => File::from_raw_fd(fd),
            }
        };
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address that the kernel chooses.
        let at =
            unsafe { libc::mmap(std::ptr::null_mut(), len, access, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Mapping { at, len, between })
    }

    pub fn store(&self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        assert!(offset + bytes.len() <= self.len);
        use std::os::unix::fs::FileExt;
        self.between.write_all_at(bytes, 0)?;
        // SAFETY: the range lies within the mapping, which no reference points into.
        let n = unsafe { libc::pread(self.between.as_raw_fd(), self.at.add(offset), bytes.len(), 0) };
        done(n, bytes.len())
    }

    pub fn load(&self, offset: usize, len: usize) -> io::Result<Vec<u8>> {
        assert!(offset + len <= self.len);
        use std::os::unix::fs::FileExt;
        // SAFETY: as above; the kernel reads from the mapping.
        let n = unsafe { libc::pwrite(self.between.as_raw_fd(), self.at.add(offset), len, 0) };
        done(n, len)?;
        let mut bytes = vec![0; len];
        self.between.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// Returns when what was stored has reached the file.
    pub fn sync(&self) -> io::Result<()> {
        // SAFETY: the whole of a mapping that is there.
        match unsafe { libc::msync(self.at, self.len, libc::MS_SYNC) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// A page that is not to be had ends the copy before it, or fails it.
fn done(n: isize, len: usize) -> io::Result<()> {
    match n {
        -1 => Err(io::Error::last_os_error()),
        n if n as usize == len => Ok(()),
        _ => Err(io::Error::from_raw_os_error(libc::EFAULT)),
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and nobody keeps its address.
        unsafe { libc::munmap(self.at, self.len) };
    }
}
