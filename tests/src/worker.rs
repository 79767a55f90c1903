//! What one thread does, at random: what programs do with files, until the mount is gone.

mod steps;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::model::{Entry, Model, read};
use crate::weather::Weather;

/// One write is one request of the kernel, and so there wholly or not at all.
const WRITE_MAX: usize = 60_000;
/// Files and directories that a thread keeps.
const ENTRIES_MAX: usize = 24;

/// What ended the work.
#[derive(Debug)]
pub struct Failure {
    pub doing: String,
    pub error: io::Error,
}

impl Failure {
    /// Whether it says no more than that the mount is not there.
    pub fn is_gone(&self) -> bool {
        // The last one: what was with the process that served a ring, when it ended.
        let gone = [libc::ENOTCONN, libc::ECONNABORTED, libc::ENODEV, libc::ECANCELED];
        self.error.raw_os_error().is_some_and(|code| gone.contains(&code))
    }
}

pub struct Worker<'a> {
    model: &'a mut Model,
    dir: PathBuf,
    rng: StdRng,
    weather: Option<&'a Weather>,
    /// The file that is appended to, open all the time.
    log: Option<(File, usize)>,
    counter: u64,
    doing: String,
}

impl<'a> Worker<'a> {
    pub fn new(dir: &Path, model: &'a mut Model, seed: u64) -> Worker<'a> {
        Worker {
            model,
            dir: dir.to_owned(),
            rng: StdRng::seed_from_u64(seed),
            weather: None,
            log: None,
            counter: seed % 1_000_000_000_000, // so that no name is given twice
            doing: String::new(),
        }
    }

    /// Bears what the weather brings: what fails for its sake was done, or not, or in part, and the work goes on.
    pub fn in_weather(mut self, weather: &'a Weather) -> Worker<'a> {
        self.weather = Some(weather);
        self
    }

    /// Works until all have done so many operations, or one fails. Calls `tell` with each number.
    pub fn run(mut self, count: &AtomicU64, enough: u64, tell: impl Fn(u64)) -> Option<Failure> {
        let tell = || tell(count.fetch_add(1, Ordering::Relaxed) + 1);
        while count.load(Ordering::Relaxed) < enough {
            self.model.begin();
            let moment = self.moment();
            if let Err(e) = self.step()
                && let Err(error) = self.bear(e, moment, &tell)
            {
                return Some(Failure { doing: self.doing, error });
            }
            tell();
        }
        None
    }

    fn moment(&self) -> (u64, u64) {
        self.weather.map_or((0, 0), |w| (w.store.moment(), w.disk.moment()))
    }

    /// Whether the weather, since that moment, is a reason for this error.
    fn is_excused(&self, e: &io::Error, (store, disk): (u64, u64)) -> bool {
        let Some(weather) = self.weather else { return false };
        match e.raw_os_error() {
            Some(libc::EIO | libc::EFAULT) => weather.store.was_on_since(store),
            Some(libc::ENOSPC) => weather.disk.was_on_since(disk),
            _ => false,
        }
    }

    /// Looks what became of an operation that failed. Returns the error that nothing excuses.
    fn bear(&mut self, e: io::Error, moment: (u64, u64), tell: &impl Fn()) -> io::Result<()> {
        let mut e = self.seen(e);
        let (mut moment, why) = (moment, format!("{}: {e}", self.doing));
        while self.is_excused(&e, moment) {
            moment = self.moment();
            match read(&self.dir) {
                Ok(found) => {
                    if let Err(moments) = self.model.settle(&found) {
                        panic!("{why}, and then {} is as at no moment of it:\n{moments}", self.dir.display());
                    }
                    return Ok(());
                }
                Err(failed) => e = self.seen(failed.error),
            }
            tell(); // so that whoever counts does not wait for what waits for the weather
        }
        Err(e)
    }

    /// A page that could not be had when the mount went is an EIO or EFAULT: then the mount itself says more.
    fn seen(&self, e: io::Error) -> io::Error {
        let unclear = matches!(e.raw_os_error(), Some(libc::EIO | libc::EFAULT));
        match fs::symlink_metadata(self.dir.join(format!("no such name {}", self.counter))) {
            Err(gone) if unclear && gone.kind() != io::ErrorKind::NotFound => gone,
            _ => e,
        }
    }

    fn bytes(&mut self, max: usize) -> Vec<u8> {
        let mut bytes = vec![0; self.rng.random_range(1..max)];
        self.rng.fill(&mut bytes[..]);
        bytes
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn new_name(&mut self, suffix: &str) -> String {
        self.counter += 1;
        let name = format!("f{}{suffix}", self.counter);
        let dirs = self.pick(|entry| entry == Entry::Dir);
        match dirs {
            Some((dir, _)) if self.rng.random() => format!("{dir}/{name}"),
            _ => name,
        }
    }

    fn pick(&mut self, which: impl Fn(Entry) -> bool) -> Option<(String, Entry)> {
        let all: Vec<_> = self.model.now.iter().filter(|(_, e)| which(**e)).collect();
        let at = self.rng.random_range(0..all.len().max(1));
        all.get(at).map(|(path, entry)| ((*path).clone(), **entry))
    }

    fn pick_file(&mut self) -> Option<(String, usize)> {
        match self.pick(|entry| entry != Entry::Dir)? {
            (path, Entry::File(id)) => Some((path, id)),
            _ => None,
        }
    }

    fn write_at(&mut self, file: &File, id: usize, offset: usize, bytes: &[u8]) -> io::Result<()> {
        let mut at = offset;
        for part in bytes.chunks(WRITE_MAX) {
            // A full disk may take a part of it.
            if self.weather.is_some_and(|w| w.disk.may_fail()) {
                self.model.write_in_pieces(id, at, part);
            } else {
                self.model.write(id, at, part);
            }
            file.write_all_at(part, at as u64)?;
            at += part.len();
        }
        Ok(())
    }

    fn maybe_sync(&mut self, file: &File, id: usize, one_in: u32) -> io::Result<()> {
        if self.rng.random_range(0..one_in) == 0 {
            if self.rng.random() {
                file.sync_all()?
            } else {
                file.sync_data()?
            }
            self.model.promise(id);
        }
        Ok(())
    }
}
