//! A folder's disk: whether it works, whether it is still the one that it was, and how it comes back.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::Folder;
use super::files::create;
use crate::read::lru::Lru;

/// By this file a folder is known again when its disk comes back: where one is to be mounted there is a directory too.
const MARK: &str = "granary-cache";

impl Folder {
    /// Makes the file by which the folder is known, and locks it.
    pub(super) fn put_mark(&self) -> io::Result<()> {
        let path = self.dir.join(MARK);
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        if self.is_locked {
            // Not for writing: that would keep the disk from being made read-only.
            let mark = File::open(path)?;
            rustix::fs::flock(&mark, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
            *self.mark.lock().unwrap_or_else(PoisonError::into_inner) = Some(mark);
        }
        Ok(())
    }

    /// The disk does not work: what is on it is forgotten, until it does.
    pub fn die(&self, why: &str) {
        if !self.health().die(why, self.common.clock.monotonic()) {
            return;
        }
        self.alive.store(false, Ordering::SeqCst);
        let gone = {
            let mut state = self.state();
            let open = std::mem::replace(&mut state.open, Lru::new(self.limits.open_files_max));
            state.unread.clear();
            let emptied = state.policy.emptied();
            (open, std::mem::replace(&mut state.policy, emptied))
        };
        drop(gone); // closes files
        self.mark.lock().unwrap_or_else(PoisonError::into_inner).take();
        tracing::warn!(
            "the read cache at {} does not work: {why}; reads go on without it, more slowly, and it is tried again every minute. \
             Repair or replace that disk (told once)",
            self.dir.display()
        );
    }

    /// What is wrong, for a person.
    pub fn trouble(&self) -> Option<String> {
        let health = self.health();
        let why = health.why_dead()?;
        Some(format!(
            "the read cache at {} does not work: {why}; reads go on without it; repair or replace that disk",
            self.dir.display()
        ))
    }

    /// Something on the disk failed.
    pub(super) fn failed(&self, e: &io::Error) {
        self.stricken.store(true, Ordering::Relaxed);
        let is_end = self.health().failed(e);
        if is_end {
            self.die(&e.to_string());
        }
    }

    pub(super) fn works(&self) {
        if self.stricken.load(Ordering::Relaxed) && self.stricken.swap(false, Ordering::Relaxed) {
            self.health().works();
        }
    }

    /// Whether it is dead, and this caller is to try it again.
    pub fn is_due(&self) -> bool {
        !self.is_alive() && self.health().try_again(self.common.clock.monotonic())
    }

    /// Tries a dead disk.
    pub fn revive(&self) {
        let was_opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        let revived = match was_opened {
            // Made anew it would lie on the disk that the other was mounted on.
            true if !self.dir.join(MARK).exists() => return,
            true => self.probe().and_then(|()| self.put_mark()).and_then(|()| self.learn()).is_ok(),
            false => self.open().is_ok(),
        };
        if revived {
            tracing::info!("the read cache at {} works again", self.dir.display());
        }
    }

    pub(super) fn probe(&self) -> io::Result<()> {
        let path = self.dir.join(format!("{MARK}.probe"));
        let mut file = create(&path)?;
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        fs::remove_file(path)
    }

    /// An error when the folder is not where it was: what is written there now is on another disk.
    pub(super) fn check_place(&self) -> io::Result<()> {
        let opened = *self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        match identity(&self.dir) {
            Ok(now) if Some(now) == opened => Ok(()),
            Ok(_) => Err(io::Error::other("another directory is in its place")),
            Err(e) => Err(e),
        }
    }

    pub(super) fn warn_once(&self, doing: &str, path: &Path, e: &io::Error) {
        if self.is_alive() && !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "cannot {doing} the read cache at {}: {e}; reads go on without it, more slowly. free space on that disk, \
                 repair it, or lower cache_free_percent_min and cache_free_bytes_min (told once)",
                path.display()
            );
        }
    }
}

/// Device and inode of a directory.
pub(super) fn identity(dir: &Path) -> io::Result<(u64, u64)> {
    let stat = fs::metadata(dir)?;
    Ok((stat.dev(), stat.ino()))
}
