//! What one node wrote, seen on another: how soon after `close` returned, and whether anything old was shown after it.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::fs::lstat;

use super::Limits;
use crate::clock::Stopwatch;
use crate::content::Content;
use crate::stop;

/// A round that takes longer than this is an error: what was written does not come at all.
const SECONDS_MAX: f64 = 30.0;
/// Written by turns, so that the reader has kept what it read of each.
const FILES: u64 = 8;
const SIZE_MIN: u64 = 2000;

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Visible {
    /// From the return of `close` (or `rename`) to the end of the first read elsewhere that gave the new bytes; seconds.
    pub latencies_s: Vec<f64>,
    /// Rounds in which something old was seen after `close` had returned.
    pub stale: u64,
}

impl Visible {
    pub fn stale_of(&self, rounds: u64) -> f64 {
        self.stale as f64 * rounds as f64 / self.latencies_s.len().max(1) as f64
    }
}

/// The bytes of round `n`; in-place rounds keep the size of what was there.
fn bytes(content: &Content, n: u64, len: u64) -> Vec<u8> {
    let mut buf = vec![0; len as usize];
    content.fill(&mut buf, n, 0);
    buf
}

fn write(dir: &Path, name: &str, bytes: &[u8], kind: u64) -> Result<()> {
    let path = dir.join(name);
    match kind {
        0 => fs::write(path, bytes)?,
        1 => OpenOptions::new().write(true).open(path)?.write_all_at(bytes, 0)?,
        2 => {
            let tmp = dir.join(format!("{name}.tmp"));
            File::create(&tmp)?.write_all(bytes)?;
            fs::rename(tmp, path)?;
        }
        _ => {
            fs::remove_file(&path)?;
            File::create_new(path)?.write_all(bytes)?;
        }
    }
    Ok(())
}

/// Up to `count` rounds of write on `writer`, look on `reader`: overwritten whole, in place, replaced by rename, removed and made anew.
pub fn rounds(
    writer: &Path,
    reader: &Path,
    count: u64,
    content: &Content,
    limits: Limits,
) -> Result<Visible> {
    let (writer, reader) = (writer.join("visible"), reader.join("visible"));
    fs::create_dir(&writer)?;
    let mut sizes = [SIZE_MIN; FILES as usize];
    for i in 0..FILES {
        write(&writer, &format!("f{i}"), &bytes(content, i, SIZE_MIN), 0)?;
        fs::read(reader.join(format!("f{i}"))).context("the other node does not see a new file")?;
    }
    let whole = Stopwatch::start();
    let mut seen = Visible::default();
    for n in FILES..FILES + count {
        if whole.seconds() > limits.seconds_max {
            break;
        }
        stop::check()?;
        let (i, kind) = ((n % FILES) as usize, n / FILES % 4);
        if kind != 1 {
            sizes[i] = SIZE_MIN + n % 2000;
        }
        let new = bytes(content, n, sizes[i]);
        let name = format!("f{i}");
        write(&writer, &name, &new, kind).with_context(|| format!("round {n}"))?;
        let watch = Stopwatch::start();
        let stale = look(&reader.join(name), &new, n % 2 == 0, &watch)?;
        seen.latencies_s.push(watch.seconds());
        seen.stale += u64::from(stale);
    }
    Ok(seen)
}

/// Looks until the new bytes are there; whether anything else was seen before.
fn look(path: &Path, new: &[u8], stat_first: bool, watch: &Stopwatch) -> Result<bool> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let mut stale = false;
    loop {
        if stat_first {
            stale |= lstat(&name).map_or(true, |s| s.st_size as usize != new.len());
        }
        if fs::read(path).is_ok_and(|found| found == new) {
            return Ok(stale);
        }
        stale = true;
        ensure!(watch.seconds() < SECONDS_MAX, "{}: not seen after {SECONDS_MAX} s", path.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { seconds_min: 0.0, seconds_max: 60.0 };

    #[test]
    fn one_directory_is_never_stale() {
        let dir = tempfile::tempdir().unwrap();
        let seen = rounds(dir.path(), dir.path(), 200, &Content::new(1), LIMITS).unwrap();
        assert_eq!((seen.latencies_s.len(), seen.stale), (200, 0));
    }

    #[test]
    fn old_bytes_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        // A name of another size, then of the right bytes: the first look is old. A pipe decides when the change comes.
        let path = dir.path().join("f");
        let name = CString::new(path.as_os_str().as_bytes()).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &name, rustix::fs::Mode::RWXU).unwrap();
        let reader = std::thread::spawn({
            let path = path.clone();
            move || look(&path, b"new", false, &Stopwatch::start()).unwrap()
        });
        // Opening it for writing waits until the reader has opened it.
        let mut pipe = OpenOptions::new().write(true).open(&path).unwrap();
        fs::write(dir.path().join("f.new"), b"new").unwrap();
        fs::rename(dir.path().join("f.new"), &path).unwrap();
        pipe.write_all(b"old").unwrap();
        drop(pipe);
        assert!(reader.join().unwrap());
        assert!(!look(&path, b"new", true, &Stopwatch::start()).unwrap());
        let half = Visible { latencies_s: vec![0.1; 50], stale: 25 };
        assert_eq!(half.stale_of(10_000), 5_000.0);
    }
}
