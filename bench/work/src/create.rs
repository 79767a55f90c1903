//! Making small files: create, one write, close.

use std::ffi::CString;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, ensure};
use rustix::fs::{Mode, OFlags, fsync, open};

use super::{Limits, Outcome, Set, at, threads};
use crate::clock::Stopwatch;
use crate::content::Content;
use crate::stop;

/// What happens to a file between its write and its close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    Close,
    Fsync,
}

fn create_one(path: &CString, bytes: &[u8], then: Then) -> Result<()> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
    let fd = at(open(path, flags, Mode::from_raw_mode(0o644)), "create", path)?;
    let n = at(rustix::io::write(&fd, bytes), "write", path)?;
    ensure!(n == bytes.len(), "write {}: {n} of {} bytes", path.to_string_lossy(), bytes.len());
    if then == Then::Fsync {
        at(fsync(&fd), "fsync", path)?;
    }
    Ok(()) // closed here
}

/// Makes up to `count` files of `set` in one new directory; `done` is how many there are, from 0 on.
pub fn files(
    root: &Path,
    set: Set,
    count: usize,
    thread_count: usize,
    content: &Content,
    limits: Limits,
    then: Then,
) -> Result<Outcome> {
    std::fs::create_dir(root.join(set.name))?;
    let paths = set.paths(root, count)?;
    let next = AtomicUsize::new(0);
    threads(thread_count, |_| {
        let watch = Stopwatch::start();
        let mut buf = vec![0; set.size];
        let mut done = 0;
        // One taken is one made: files are there without gaps.
        while watch.seconds() < limits.seconds_max {
            let i = next.fetch_add(1, Ordering::Relaxed);
            if i >= count {
                break;
            }
            stop::check()?;
            content.fill(&mut buf, set.file_id(i), 0);
            create_one(&paths[i], &buf, then)?;
            done += 1;
        }
        Ok(done)
    })
}

/// Makes and removes a directory of a few files, so that the first measured file is not the first of all.
pub fn warm_up(root: &Path, set: Set, content: &Content) -> Result<()> {
    let limits = Limits { seconds_min: 0.0, seconds_max: 2.0 };
    let warm = Set { name: "warm-up", ..set };
    files(root, warm, 200, 1, content, limits, Then::Close)?;
    Ok(std::fs::remove_dir_all(root.join(warm.name))?)
}
