//! The few things the stage asks of the node's disk, handed in so that a test can let them fail.

use std::fmt::Debug;
use std::fs::File;
use std::io::{self, IoSlice};

pub(crate) trait Disk: Send + Sync + Debug + 'static {
    /// Writes some of `parts` at `offset`; how many bytes.
    fn write_at(&self, file: &File, parts: &[IoSlice<'_>], offset: u64) -> io::Result<usize>;
    /// Returns when the file's bytes survive a power loss.
    fn sync_data(&self, file: &File) -> io::Result<()>;
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SystemDisk;

impl Disk for SystemDisk {
    fn write_at(&self, file: &File, parts: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        Ok(rustix::io::retry_on_intr(|| rustix::io::pwritev(file, parts, offset))?)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }
}

/// Writes all of `head`, then all of `body`.
pub(crate) fn write_all(
    disk: &dyn Disk,
    file: &File,
    head: &[u8],
    body: &[u8],
    offset: u64,
) -> io::Result<()> {
    let total = head.len() + body.len();
    let mut done = 0;
    while done < total {
        let parts = [
            IoSlice::new(&head[done.min(head.len())..]),
            IoSlice::new(&body[done.saturating_sub(head.len())..]),
        ];
        let parts = if done >= head.len() { &parts[1..] } else { &parts[..] };
        match disk.write_at(file, parts, offset + done as u64)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            n => done += n,
        }
    }
    Ok(())
}

/// Reads `len` bytes at `offset`, fewer at the end of the file.
pub(crate) fn read_up_to(file: &File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(len);
    while out.len() < len {
        let at = offset + out.len() as u64;
        match rustix::io::retry_on_intr(|| {
            rustix::io::pread(file, rustix::buffer::spare_capacity(&mut out), at)
        })? {
            0 => break,
            _ => continue,
        }
    }
    out.truncate(len);
    Ok(out)
}

/// A disk that becomes full, or whose fdatasync fails, when a test says so.
#[cfg(test)]
#[derive(Debug, Default)]
pub(crate) struct FailingDisk {
    /// Bytes that may still be written; counts only while `limited`.
    pub room: std::sync::atomic::AtomicI64,
    pub limited: std::sync::atomic::AtomicBool,
    pub sync_fails: std::sync::atomic::AtomicBool,
    pub syncs: std::sync::atomic::AtomicU64,
    /// How long each file (by its local inode number) was at its last sync: what a power loss leaves of it.
    pub kept: std::sync::Mutex<std::collections::HashMap<u64, u64>>,
}

#[cfg(test)]
impl Disk for FailingDisk {
    fn write_at(&self, file: &File, parts: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        use std::sync::atomic::Ordering::SeqCst;
        if !self.limited.load(SeqCst) {
            return SystemDisk.write_at(file, parts, offset);
        }
        let room = self.room.load(SeqCst).max(0) as usize;
        let all: Vec<u8> = parts.iter().flat_map(|p| p.iter().copied()).collect();
        let n = all.len().min(room);
        if n == 0 {
            return Err(io::Error::from_raw_os_error(28));
        }
        self.room.fetch_sub(n as i64, SeqCst);
        SystemDisk.write_at(file, &[IoSlice::new(&all[..n])], offset)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        use std::sync::atomic::Ordering::SeqCst;
        self.syncs.fetch_add(1, SeqCst);
        if self.sync_fails.load(SeqCst) {
            return Err(io::Error::from_raw_os_error(5));
        }
        use std::os::unix::fs::MetadataExt;
        let about = file.metadata()?;
        SystemDisk.sync_data(file)?;
        crate::util::lock(&self.kept).insert(about.ino(), about.len());
        Ok(())
    }
}
