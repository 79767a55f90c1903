//! One large file, sequentially, and small synchronous writes.

use std::collections::HashSet;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Result, ensure};
use rustix::fs::{Mode, OFlags, fsync, open};

use super::{Limits, Outcome, at, shuffled, threads};
use crate::clock::Stopwatch;
use crate::content::{Content, PAGE, check_stamps};
use crate::stop;

/// Bytes of one call.
const CALL: usize = 1 << 20;
/// What `content` calls the file, and the one of small writes.
pub const FILE_ID: u64 = u64::MAX;
const LOG_ID: u64 = u64::MAX - 1;
const OVERWRITE_ID: u64 = u64::MAX - 2;

pub(crate) fn path_of(root: &Path, name: &str) -> Result<CString> {
    Ok(CString::new(root.join(name).as_os_str().as_bytes())?)
}

/// Writes `bytes` (a multiple of 1 MiB) in calls of 1 MiB, fsync, close. `done` is bytes.
pub fn write(root: &Path, name: &str, bytes: u64, content: &Content) -> Result<Outcome> {
    write_within(root, name, bytes, content, f64::INFINITY)
}

/// The same, but writes no more when `seconds_max` is over: `done` is how long the file became.
pub fn write_within(
    root: &Path,
    name: &str,
    bytes: u64,
    content: &Content,
    seconds_max: f64,
) -> Result<Outcome> {
    let path = path_of(root, name)?;
    threads(1, |_| {
        let mut buf = vec![0; CALL];
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
        let fd = at(open(&path, flags, Mode::from_raw_mode(0o644)), "create", &path)?;
        let watch = Stopwatch::start();
        let mut done = 0;
        while done < bytes && watch.seconds() < seconds_max {
            stop::check()?;
            content.fill(&mut buf, FILE_ID, done / PAGE as u64);
            let mut left = &buf[..];
            while !left.is_empty() {
                let n = at(rustix::io::write(&fd, left), "write", &path)?;
                left = &left[n..];
            }
            done += CALL as u64;
        }
        at(fsync(&fd), "fsync", &path)?;
        Ok(done)
    })
}

fn each_call(path: &CString, bytes: u64, mut check: impl FnMut(&[u8], u64) -> Result<()>) -> Result<u64> {
    let fd = at(open(path, OFlags::RDONLY, Mode::empty()), "open", path)?;
    let mut buf = vec![0; CALL];
    let mut at_byte = 0;
    while at_byte < bytes {
        stop::check()?;
        let mut n = 0;
        while n < CALL {
            let got = at(rustix::io::read(&fd, &mut buf[n..]), "read", path)?;
            ensure!(got > 0, "read {}: ends at {} of {bytes}", path.to_string_lossy(), at_byte + n as u64);
            n += got;
        }
        check(&buf, at_byte / PAGE as u64)?;
        at_byte += CALL as u64;
    }
    Ok(bytes)
}

/// Reads it in calls of 1 MiB, checking every page's stamp. `done` is bytes.
pub fn read(root: &Path, name: &str, bytes: u64) -> Result<Outcome> {
    let path = path_of(root, name)?;
    threads(1, |_| each_call(&path, bytes, |buf, page| check_stamps(buf, FILE_ID, page)))
}

/// Reads it once more and checks every byte; not timed.
pub fn verify(root: &Path, name: &str, bytes: u64, content: &Content) -> Result<()> {
    each_call(&path_of(root, name)?, bytes, |buf, page| content.check(buf, FILE_ID, page))?;
    Ok(())
}

/// Appends 4 KiB and fsyncs, again and again. `done` is calls of fsync.
pub fn write_fsync(root: &Path, name: &str, content: &Content, limits: Limits) -> Result<Outcome> {
    let path = path_of(root, name)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR;
    let fd = at(open(&path, flags, Mode::from_raw_mode(0o644)), "create", &path)?;
    let outcome = threads(1, |_| {
        let mut page = vec![0; PAGE];
        let watch = Stopwatch::start();
        let mut done = 0;
        while watch.seconds() < limits.seconds_min {
            stop::check()?;
            content.fill(&mut page, LOG_ID, done);
            let n = at(rustix::io::pwrite(&fd, &page, done * PAGE as u64), "write", &path)?;
            ensure!(n == PAGE, "write {}: {n} bytes of {PAGE}", path.to_string_lossy());
            at(fsync(&fd), "fsync", &path)?;
            done += 1;
        }
        Ok(done)
    })?;
    let mut page = vec![0; PAGE];
    for i in 0..outcome.done {
        let n = at(rustix::io::pread(&fd, &mut page[..], i * PAGE as u64), "read", &path)?;
        content.check(&page[..n], LOG_ID, i)?;
    }
    Ok(outcome)
}

/// Writes pages of 4 KiB at random places of a file of `bytes`, then fsync; a power loss then finds all of them. `done` is pages.
/// Which page has what is the seed's: [`verify_overwritten`] knows.
pub fn overwrite(root: &Path, name: &str, bytes: u64, content: &Content, seed: u64) -> Result<Outcome> {
    let path = path_of(root, name)?;
    let fd = at(open(&path, OFlags::RDWR, Mode::empty()), "open", &path)?;
    let order = overwritten(bytes, seed);
    threads(1, |_| {
        let mut page = vec![0; PAGE];
        for (i, &at_page) in order.iter().enumerate() {
            if i % 64 == 0 {
                stop::check()?;
            }
            content.fill(&mut page, OVERWRITE_ID, at_page as u64);
            let n = at(rustix::io::pwrite(&fd, &page, (at_page * PAGE) as u64), "write", &path)?;
            ensure!(n == PAGE, "write {}: {n} bytes of {PAGE}", path.to_string_lossy());
        }
        at(fsync(&fd), "fsync", &path)?;
        Ok(order.len() as u64)
    })
}

/// One page in eight.
fn overwritten(bytes: u64, seed: u64) -> Vec<usize> {
    let mut order = shuffled(bytes as usize / PAGE, seed);
    order.truncate((order.len() / 8).max(1));
    order
}

/// Every page has what the overwriting, or the writing before it, put there.
pub fn verify_overwritten(root: &Path, name: &str, bytes: u64, content: &Content, seed: u64) -> Result<()> {
    let changed: HashSet<usize> = overwritten(bytes, seed).into_iter().collect();
    each_call(&path_of(root, name)?, bytes, |buf, first| {
        for (i, page) in buf.chunks(PAGE).enumerate() {
            let at_page = first + i as u64;
            let id = if changed.contains(&(at_page as usize)) { OVERWRITE_ID } else { FILE_ID };
            content.check(page, id, at_page)?;
        }
        Ok(())
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_files_read_back_and_a_changed_byte_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let content = Content::new(2);
        assert_eq!(write(dir.path(), "a", 3 << 20, &content).unwrap().done, 3 << 20);
        read(dir.path(), "a", 3 << 20).unwrap();
        verify(dir.path(), "a", 3 << 20, &content).unwrap();
        assert!(read(dir.path(), "a", 4 << 20).is_err());

        let mut bytes = std::fs::read(dir.path().join("a")).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(dir.path().join("a"), bytes).unwrap();
        assert!(verify(dir.path(), "a", 3 << 20, &content).is_err());
    }

    #[test]
    fn overwritten_pages_are_told_from_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let content = Content::new(2);
        write(dir.path(), "a", 1 << 20, &content).unwrap();
        assert!(verify_overwritten(dir.path(), "a", 1 << 20, &content, 7).is_err());
        assert_eq!(overwrite(dir.path(), "a", 1 << 20, &content, 7).unwrap().done, 32);
        verify_overwritten(dir.path(), "a", 1 << 20, &content, 7).unwrap();
        assert!(verify(dir.path(), "a", 1 << 20, &content).is_err());
    }

    #[test]
    fn synchronous_writes_count() {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits { seconds_min: 0.01, seconds_max: 1.0 };
        let done = write_fsync(dir.path(), "log", &Content::new(2), limits).unwrap().done;
        assert!(done > 0);
        assert_eq!(std::fs::metadata(dir.path().join("log")).unwrap().len(), done * PAGE as u64);
    }
}
