//! The cache directory belongs to one node process: it is made, locked, and has room.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use granary_core::Kind;
use granary_core::limits::FreeMin;
use rustix::fs::FlockOperation;

use crate::exit::{Failure, Outcome};
use crate::units::show_bytes;

/// A node needs at least this much beyond what it leaves to others: a few log segments and the node's own files.
const ROOM_BYTES_MIN: u64 = 64 << 20;

/// Held for the life of the node process; the kernel gives it back however that ends.
#[derive(Debug)]
pub struct CacheLock {
    _file: File,
}

impl CacheLock {
    /// Makes `dir` (mode 0700) if it is missing, and locks `dir/lock`, which says who holds it. `Busy` names the holder.
    pub fn acquire(dir: &Path) -> Outcome<CacheLock> {
        let mut file = open(dir)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => held(dir, file),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder); // only for the message
                Err(Failure::of_kind(
                    Kind::Busy,
                    format!(
                        "the cache directory {} is in use by another granary node ({}); stop that with \
                         `granary node stop`, or give this one another --cache",
                        dir.display(),
                        describe(holder.trim())
                    ),
                ))
            }
            Err(e) => Err(cannot(dir, &e.into())),
        }
    }

    /// The same, as soon as nobody else has it. Blocks.
    pub fn wait(dir: &Path) -> Outcome<CacheLock> {
        let file = open(dir)?;
        loop {
            match rustix::fs::flock(&file, FlockOperation::LockExclusive) {
                Ok(()) => return held(dir, file),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(cannot(dir, &e.into())),
            }
        }
    }
}

fn cannot(dir: &Path, e: &std::io::Error) -> Failure {
    Failure::io(format!("cannot use the cache directory {}", dir.display()), e)
}

fn open(dir: &Path) -> Outcome<File> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| cannot(dir, &e))?;
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(dir.join("lock"))
        .map_err(|e| cannot(dir, &e))
}

/// Writes whose it is now.
fn held(dir: &Path, mut file: File) -> Outcome<CacheLock> {
    let pid = std::process::id();
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{pid}"))
        .map_err(|e| cannot(dir, &e))?;
    Ok(CacheLock { _file: file })
}

fn describe(pid: &str) -> String {
    match pid.parse::<u32>() {
        Ok(pid) => format!("pid {pid}"),
        Err(_) => "its pid is not known yet".to_owned(),
    }
}

/// Free and total bytes of the disk that `dir` is on, as an ordinary user sees them.
pub fn disk_room(dir: &Path) -> Outcome<(u64, u64)> {
    let stat = rustix::fs::statvfs(dir)
        .map_err(|e| Failure::io(format!("cannot ask for the free space of {}", dir.display()), &e.into()))?;
    Ok((stat.f_bavail.saturating_mul(stat.f_frsize), stat.f_blocks.saturating_mul(stat.f_frsize)))
}

/// Refuses a cache disk on which the node could not even begin. One that has bytes which are not in the store begins all the
/// same: nothing but storing them makes room.
pub fn check_room(dir: &Path, min: FreeMin) -> Outcome<()> {
    let (free, total) = disk_room(dir)?;
    let left = min.of(total);
    let needed = left.saturating_add(ROOM_BYTES_MIN);
    if free >= needed {
        return Ok(());
    }
    let failure = Failure::of_kind(
        Kind::NoSpace,
        format!(
            "the disk of the cache directory {} has {} free of {}, and {} are needed ({} left to others by the settings \
             cache_free_percent_min and cache_free_bytes_min, and {} to begin with); free some space, lower the settings, or \
             give another --cache",
            dir.display(),
            show_bytes(free),
            show_bytes(total),
            show_bytes(needed),
            show_bytes(left),
            show_bytes(ROOM_BYTES_MIN),
        ),
    );
    if std::fs::read_dir(dir.join("stage")).is_ok_and(|mut spaces| spaces.next().is_some()) {
        tracing::warn!("starting although {failure}");
        return Ok(());
    }
    Err(failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_who_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("a/cache");
        let held = CacheLock::acquire(&cache).unwrap();
        let e = CacheLock::acquire(&cache).unwrap_err();
        assert!(e.is(Kind::Busy) && e.message.contains(&format!("pid {}", std::process::id())), "{e}");
        drop(held);
        let held = CacheLock::acquire(&cache).unwrap();
        let waits = std::thread::spawn({
            let cache = cache.clone();
            move || CacheLock::wait(&cache).unwrap()
        });
        drop(held);
        let held = waits.join().unwrap();
        assert!(CacheLock::acquire(&cache).unwrap_err().is(Kind::Busy));
        drop(held);
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&cache).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn a_full_disk_is_told_with_numbers() {
        let dir = tempfile::tempdir().unwrap();
        check_room(dir.path(), FreeMin { bytes: 0, percent: 0 }).unwrap();
        let too_much = FreeMin { bytes: 1 << 50, percent: 0 };
        let e = check_room(dir.path(), too_much).unwrap_err();
        assert!(e.is(Kind::NoSpace) && e.message.contains("1.0 PiB"), "{e}");
        // What it has to store is stored, or it would stay full for ever.
        std::fs::create_dir_all(dir.path().join("stage/00000001")).unwrap();
        check_room(dir.path(), too_much).unwrap();
    }

    #[test]
    fn a_file_in_the_way_is_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let e = CacheLock::acquire(&file.path().join("cache")).unwrap_err();
        assert!(e.message.contains("cannot use the cache directory"), "{e}");
    }
}
