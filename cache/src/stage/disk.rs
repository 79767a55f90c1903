//! What the stage does to the node's disk, handed in so that a test can let it fail, and cut its power.
//!
//! Reading is not asked of it.

use std::fmt::Debug;
use std::fs::{self, File};
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::files;

#[cfg(test)]
pub(crate) mod power;

pub(crate) trait Disk: Send + Sync + Debug + 'static {
    /// Writes some of `parts` at `offset`; how many bytes.
    fn write_at(&self, file: &File, parts: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        Ok(rustix::io::retry_on_intr(|| rustix::io::pwritev(file, parts, offset))?)
    }

    /// Returns when the file's bytes survive a power loss.
    fn sync_data(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    /// Makes an empty file, or empties one that is there unless it is to be `new`.
    fn create(&self, path: &Path, new: bool) -> io::Result<File> {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).create(true).create_new(new).truncate(true).mode(0o600).open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn set_len(&self, file: &File, len: u64) -> io::Result<()> {
        file.set_len(len)
    }

    /// Makes a range read as zeros, without changing the size.
    fn punch(&self, file: &File, range: Range<u64>) -> io::Result<()> {
        files::punch(file, range)
    }

    /// A number of the start of the machine: another one after a power loss, the same after a process was killed.
    fn boot(&self) -> io::Result<u64> {
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let digits: String = id.chars().filter(char::is_ascii_hexdigit).take(16).collect();
        u64::from_str_radix(&digits, 16).map_err(io::Error::other)
    }

    /// Returns when what was created, renamed and removed in the directory survives a power loss.
    fn sync_dir(&self, dir: &File) -> io::Result<()> {
        dir.sync_all()
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SystemDisk;

impl Disk for SystemDisk {}

/// Makes a directory and those above it that are missing, so that they survive a power loss.
pub(crate) fn make_dirs(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let Some(parent) = path.parent() else { return Err(e) };
            make_dirs(parent)?;
            fs::create_dir(path)?;
        }
        made => made?,
    }
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// An error when the directory that was opened as `opened` is no longer at `path`: what is made by its name then is made
/// elsewhere, or not at all, and nobody finds what is in it.
pub(crate) fn in_place(path: &Path, opened: &File) -> io::Result<()> {
    let (there, ours) = (rustix::fs::stat(path)?, rustix::fs::fstat(opened)?);
    if (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino) {
        Ok(())
    } else {
        Err(io::ErrorKind::NotFound.into())
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
