//! A short, bounded measurement of one mounted file system, whatever it is: what `granary bench MOUNTPOINT` runs.
//!
//! Everything happens in one private directory below the mount point, which is removed at the end, whatever the end is.

use std::ffi::CString;
use std::fs::DirBuilder;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::clock::Stopwatch;
use crate::content::Content;
use crate::create::Then;
use crate::{Limits, Outcome, Set, create, large, list, once, pages, read, resident, stop};

/// Bounds of one measurement.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Of the large file, rounded down to MiB. The small files are beside it.
    pub bytes: u64,
    /// Small files, each 4 KiB.
    pub files: usize,
    /// Of the works that are done by several threads.
    pub threads: usize,
    /// Of all works together. One that is late is cut short; those after it are left out.
    pub seconds_max: f64,
    pub seed: u64,
}

/// One work's result.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    pub work: String,
    pub unit: &'static str,
    pub value: f64,
}

/// What was measured, and what was not, and why.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    pub lines: Vec<Line>,
    pub notes: Vec<String>,
}

const SMALL: Set = Set { name: "small", size: 4 << 10, id: 1 };
const LARGE: &str = "large";
/// Each work that repeats goes on for so long, when there is time.
const REPEAT_S: f64 = 1.0;
/// Pages that stay, of a hundred, when all should go: the kernel keeps some for a moment.
const KEPT_PERCENT_MAX: f64 = 5.0;

/// The private directory; removed when dropped.
#[derive(Debug)]
struct Private(PathBuf);

impl Private {
    fn make(mountpoint: &Path, seed: u64) -> Result<Self> {
        let path = mountpoint.join(format!(".granary-bench-{}-{:08x}", std::process::id(), seed as u32));
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.with_context(|| format!("cannot make a directory in {}", mountpoint.display()))?;
        Ok(Private(path))
    }

    fn remove(mut self) -> Result<()> {
        let path = std::mem::take(&mut self.0);
        std::fs::remove_dir_all(&path)
            .with_context(|| format!("cannot remove {}: remove it by hand", path.display()))
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        if !self.0.as_os_str().is_empty() {
            let _ = std::fs::remove_dir_all(&self.0); // an error is on its way already
        }
    }
}

/// Measures what is mounted at `mountpoint` (any directory will do), and tells each result as it comes.
///
/// # Errors
/// Also when a byte is read back that is not what was written, and when a signal came ([`stop`]).
pub fn measure(mountpoint: &Path, bounds: Bounds, tell: &mut dyn FnMut(&Line)) -> Result<Measured> {
    ensure!(bounds.files > 0 && bounds.threads > 0, "at least one file and one thread are needed");
    ensure!(bounds.bytes >= 1 << 20, "the large file has at least 1 MiB");
    let private = Private::make(mountpoint, bounds.seed)?;
    let mut run = Run {
        dir: private.0.clone(),
        bounds: Bounds { bytes: bounds.bytes & !((1 << 20) - 1), ..bounds },
        content: Content::new(bounds.seed),
        watch: Stopwatch::start(),
        measured: Measured::default(),
        tell,
    };
    run.small()?;
    run.large()?;
    let (late, mut measured) = (run.late(), run.measured);
    let watch = Stopwatch::start();
    private.remove()?;
    if late {
        let seconds = bounds.seconds_max;
        measured.notes.push(format!("some works were left out or cut short: all may take {seconds:.0} s"));
    }
    measured.notes.push(format!("removing all of it again took {:.1} s", watch.seconds()));
    Ok(measured)
}

struct Run<'a> {
    dir: PathBuf,
    bounds: Bounds,
    content: Content,
    watch: Stopwatch,
    measured: Measured,
    tell: &'a mut dyn FnMut(&Line),
}

impl Run<'_> {
    fn left(&self) -> f64 {
        (self.bounds.seconds_max - self.watch.seconds()).max(0.0)
    }

    fn late(&self) -> bool {
        self.left() <= 0.0
    }

    fn limits(&self) -> Limits {
        Limits { seconds_min: REPEAT_S.min(self.left()), seconds_max: self.left() }
    }

    fn add(&mut self, work: impl Into<String>, unit: &'static str, value: f64) {
        let line = Line { work: work.into(), unit, value };
        (self.tell)(&line);
        self.measured.lines.push(line);
    }

    /// Does one work when there is time for it. `false`: there was none, and nothing was done.
    fn step(
        &mut self,
        work: impl Into<String>,
        unit: &'static str,
        value: fn(&Outcome) -> f64,
        run: impl FnOnce(&Self) -> Result<Outcome>,
    ) -> Result<Option<Outcome>> {
        stop::check()?;
        if self.late() {
            return Ok(None);
        }
        let outcome = run(self)?;
        self.add(work, unit, value(&outcome));
        Ok(Some(outcome))
    }

    fn small(&mut self) -> Result<()> {
        let Bounds { files, threads, seed, .. } = self.bounds;
        let made = self.step("create + write 4 KiB + close, 1 thread", "files/s", Outcome::rate, |run| {
            create::files(&run.dir, SMALL, files, 1, &run.content, run.limits(), Then::Close)
        })?;
        let count = made.map_or(0, |made| made.done as usize);
        if count == 0 {
            return Ok(());
        }
        self.step("stat, warm", "files/s", Outcome::rate, |run| {
            read::stat(&run.dir, SMALL, count, seed, run.limits())
        })?;
        self.step("ls -l, warm", "entries/s", Outcome::rate, |run| {
            list::long(&run.dir, SMALL, count, run.limits())
        })?;
        let mut counts = vec![1, threads];
        counts.dedup();
        for threads in counts {
            let plural = if threads == 1 { "" } else { "s" };
            let work = format!("open + read + close 4 KiB, warm, {threads} thread{plural}");
            self.step(work, "files/s", Outcome::rate, |run| {
                read::warm(&run.dir, SMALL, count, threads, &run.content, seed, run.limits())
            })?;
        }
        if self.late() || !self.drop_pages(&SMALL.paths(&self.dir, count)?, "small files")? {
            return Ok(());
        }
        let plural = if threads == 1 { "" } else { "s" };
        let work = format!("the same, pages dropped, {threads} thread{plural}");
        self.step(
            work,
            "files/s",
            |o| o.rate() / SMALL.size as f64,
            |run| {
                let pass = once::shuffled_pass(&run.dir, SMALL, count, threads, seed, run.limits(), None)?;
                Ok(pass.outcome)
            },
        )?;
        Ok(())
    }

    fn large(&mut self) -> Result<()> {
        let Bounds { bytes, seed, .. } = self.bounds;
        let size = format!("{} MiB", bytes >> 20);
        // Cut short when there is no more time: what is read is as large as what was written.
        let written = self.step(format!("write {size} + fsync"), "MB/s", Outcome::mb_rate, |run| {
            large::write_within(&run.dir, LARGE, bytes, &run.content, run.left())
        })?;
        let bytes = written.map_or(0, |written| written.done);
        if bytes == 0 {
            return Ok(());
        }
        self.step(format!("read {size}, warm"), "MB/s", Outcome::mb_rate, |run| {
            large::verify(&run.dir, LARGE, bytes, &run.content)?;
            large::read(&run.dir, LARGE, bytes)
        })?;
        self.step("random reads of 4 KiB, warm", "pages/s", Outcome::rate, |run| {
            pages::random(&run.dir, LARGE, bytes, seed, run.limits())
        })?;
        let path = CString::new(self.dir.join(LARGE).as_os_str().as_bytes())?;
        if self.late() || !self.drop_pages(&[path], "the large file")? {
            return Ok(());
        }
        self.step(format!("read {size}, pages dropped"), "MB/s", Outcome::mb_rate, |run| {
            large::read(&run.dir, LARGE, bytes)
        })?;
        Ok(())
    }

    /// Drops the files' own pages from the page cache, and no one else's. Notes it, and gives `false`, when they do not go.
    fn drop_pages(&mut self, paths: &[CString], what: &str) -> Result<bool> {
        resident::drop_pages(paths)?;
        let kept = match resident::share(paths) {
            Ok(share) => share * 100.0,
            Err(error) => {
                self.measured.notes.push(format!("{what}: warm only: {error:#}"));
                return Ok(false);
            }
        };
        if kept > KEPT_PERCENT_MAX {
            let note = format!("{what}: warm only: {kept:.0} % of their pages stay in the page cache");
            self.measured.notes.push(note);
            return Ok(false);
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { bytes: 3 << 20, files: 100, threads: 2, seconds_max: 60.0, seed: 5 };

    #[test]
    fn a_directory_is_measured_and_left_empty() {
        let dir = tempfile::tempdir().unwrap();
        let mut told = Vec::new();
        let measured = measure(dir.path(), BOUNDS, &mut |line| told.push(line.clone())).unwrap();
        assert_eq!(told, measured.lines);
        let has =
            |work: &str| measured.lines.iter().any(|line| line.work.starts_with(work) && line.value > 0.0);
        for work in ["create", "stat", "ls -l", "open + read", "write 3 MiB", "read 3 MiB, warm", "random"] {
            assert!(has(work), "{work}: {measured:?}");
        }
        // Cold figures, or a word on why there are none.
        let noted = measured.notes.iter().filter(|note| note.contains("warm only")).count();
        let dropped = measured.lines.iter().filter(|line| line.work.contains("pages dropped")).count();
        assert_eq!(noted + dropped, 2, "{measured:?}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn it_ends_in_time_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let none = Bounds { seconds_max: 0.0, ..BOUNDS };
        let measured = measure(dir.path(), none, &mut |_| {}).unwrap();
        assert!(measured.lines.is_empty() && measured.notes[0].contains("left out"), "{measured:?}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_error_leaves_nothing_either() {
        let dir = tempfile::tempdir().unwrap();
        let mut spoil = |line: &Line| {
            if line.work.starts_with("create") {
                let private = std::fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
                std::fs::write(private.join("small/000003.bin"), b"not what was written").unwrap();
            }
        };
        assert!(measure(dir.path(), BOUNDS, &mut spoil).is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(measure(&dir.path().join("missing"), BOUNDS, &mut |_| {}).is_err());
        assert!(measure(dir.path(), Bounds { files: 0, ..BOUNDS }, &mut |_| {}).is_err());
    }
}
