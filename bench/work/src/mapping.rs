//! A file's bytes in memory.

use std::os::fd::AsFd;

use anyhow::{Context, Result, bail};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A file's first bytes, mapped to be read. The file is the benchmark's own: nobody writes it or cuts it shorter meanwhile.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: *mut std::ffi::c_void,
    len: usize,
}

impl Mapping {
    /// The first `len` bytes, which the file must have: a page behind its end is SIGBUS.
    pub fn of(fd: impl AsFd, len: usize) -> Result<Self> {
        // SAFETY: a new mapping at a place that the kernel chooses touches no memory of ours.
        let start = unsafe { mmap(std::ptr::null_mut(), len, ProtFlags::READ, MapFlags::SHARED, fd, 0) };
        Ok(Mapping { start: start.context("mmap")?, len })
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `start` is mapped for `len` bytes until drop, and nobody changes the file.
        unsafe { std::slice::from_raw_parts(self.start.cast(), self.len) }
    }

    /// How many of its pages are in the page cache, and how many it has.
    pub fn resident(&self) -> Result<(usize, usize)> {
        let mut pages = vec![0u8; self.len.div_ceil(rustix::param::page_size())];
        // SAFETY: `start` is a mapping of `len` bytes, and `pages` has a byte for each page of it.
        let result = unsafe { libc::mincore(self.start, self.len, pages.as_mut_ptr()) };
        if result != 0 {
            bail!("mincore: {}", std::io::Error::last_os_error());
        }
        // The lowest bit is the page's; others may mean something one day.
        Ok((pages.iter().filter(|&page| page & 1 == 1).count(), pages.len()))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: what `of` mapped, and no reference into it outlives `self`.
        let _ = unsafe { munmap(self.start, self.len) };
    }
}
