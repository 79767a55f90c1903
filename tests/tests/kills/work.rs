//! What one thread does, at random: what programs do with files, until the mount is gone.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::model::{Entry, Model};

/// One write is one request of the kernel, and so there wholly or not at all.
const WRITE_MAX: usize = 60_000;
/// Files and directories that a thread keeps.
const ENTRIES_MAX: usize = 24;

pub struct Worker<'a> {
    pub model: &'a mut Model,
    dir: PathBuf,
    rng: StdRng,
    /// The file that is appended to, open all the time.
    log: Option<(File, usize)>,
    counter: u64,
}

impl<'a> Worker<'a> {
    pub fn new(dir: &Path, model: &'a mut Model, seed: u64) -> Worker<'a> {
        Worker {
            model,
            dir: dir.to_owned(),
            rng: StdRng::seed_from_u64(seed),
            log: None,
            counter: seed % 1_000_000,
        }
    }

    /// Works until all have done so many operations, or one fails: then with the failure. Calls `tell` with each number.
    pub fn run(mut self, count: &AtomicU64, enough: u64, tell: impl Fn(u64)) -> Option<io::Error> {
        while count.load(Ordering::Relaxed) < enough {
            if let Err(e) = self.step() {
                return Some(self.why(e));
            }
            tell(count.fetch_add(1, Ordering::Relaxed) + 1);
        }
        None
    }

    /// A page that could not be read when the mount went is an EIO: then the mount itself says more.
    fn why(&self, e: io::Error) -> io::Error {
        match fs::symlink_metadata(self.dir.join(format!("no such name {}", self.counter))) {
            Err(gone) if e.raw_os_error() == Some(libc::EIO) && gone.kind() != io::ErrorKind::NotFound => {
                gone
            }
            _ => e,
        }
    }

    fn step(&mut self) -> io::Result<()> {
        if self.model.now.len() > ENTRIES_MAX {
            return self.remove();
        }
        match self.rng.random_range(0..100) {
            0..18 => self.create_small(),
            18..36 => self.append(),
            36..42 => self.rewrite(),
            42..54 => self.overwrite(),
            54..59 => self.truncate(),
            59..68 => self.checkpoint("state", 20_000),
            68..76 => self.checkpoint("model.bin", 300_000),
            76..82 => self.create_large(),
            82..90 => self.remove(),
            90..94 => self.make_dir(),
            _ => self.rename(),
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
            self.model.write(id, at, part);
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

    fn create(&mut self, name: &str) -> io::Result<(File, usize)> {
        let id = self.model.create(name);
        let made = OpenOptions::new().read(true).write(true).create_new(true).open(self.path(name))?;
        Ok((made, id))
    }

    fn create_small(&mut self) -> io::Result<()> {
        let name = self.new_name("");
        let (file, id) = self.create(&name)?;
        for _ in 0..self.rng.random_range(0..3) {
            let bytes = self.bytes(20_000);
            self.write_at(&file, id, self.model.size(id), &bytes)?;
        }
        self.maybe_sync(&file, id, 2)
    }

    /// Named so that the kernel may write it itself.
    fn create_large(&mut self) -> io::Result<()> {
        let name = self.new_name(".bin");
        let (file, id) = self.create(&name)?;
        let bytes = self.bytes(500_000);
        self.write_at(&file, id, 0, &bytes)?;
        self.maybe_sync(&file, id, 2)?;
        let bytes = self.bytes(50_000);
        let at = self.rng.random_range(0..self.model.size(id));
        self.write_at(&file, id, at, &bytes)?;
        self.maybe_sync(&file, id, 2)
    }

    /// To a file that outgrows the small limit, and is put aside then.
    fn append(&mut self) -> io::Result<()> {
        let (file, id) = match self.log.take() {
            Some(log) => log,
            None => {
                let name = self.new_name(".log");
                self.create(&name)?
            }
        };
        let bytes = self.bytes(8_000);
        self.write_at(&file, id, self.model.size(id), &bytes)?;
        self.maybe_sync(&file, id, 3)?;
        if self.model.size(id) < 150_000 {
            self.log = Some((file, id));
        }
        Ok(())
    }

    fn rewrite(&mut self) -> io::Result<()> {
        let Some((path, id)) = self.pick_file() else { return Ok(()) };
        self.model.truncate(id, 0);
        let file = OpenOptions::new().write(true).truncate(true).open(self.path(&path))?;
        let bytes = self.bytes(30_000);
        self.write_at(&file, id, 0, &bytes)?;
        self.maybe_sync(&file, id, 3)
    }

    fn overwrite(&mut self) -> io::Result<()> {
        let Some((path, id)) = self.pick_file() else { return Ok(()) };
        let file = OpenOptions::new().write(true).open(self.path(&path))?;
        for _ in 0..self.rng.random_range(1..4) {
            let (bytes, at) = (self.bytes(9_000), self.rng.random_range(0..=self.model.size(id)));
            self.write_at(&file, id, at, &bytes)?;
        }
        self.maybe_sync(&file, id, 2)
    }

    fn truncate(&mut self) -> io::Result<()> {
        let Some((path, id)) = self.pick_file() else { return Ok(()) };
        let size = self.rng.random_range(0..=self.model.size(id) * 5 / 4 + 10);
        let file = OpenOptions::new().write(true).open(self.path(&path))?;
        self.model.truncate(id, size);
        file.set_len(size as u64)?;
        self.maybe_sync(&file, id, 2)
    }

    /// Written beside, fsynced, renamed: the name has the whole of one of them at every moment.
    fn checkpoint(&mut self, name: &str, max: usize) -> io::Result<()> {
        let beside = format!("new.{name}");
        if self.model.now.contains_key(&beside) {
            self.model.remove(&beside); // of a crash
            fs::remove_file(self.path(&beside))?;
        }
        let (file, id) = self.create(&beside)?;
        let bytes = self.bytes(max);
        self.write_at(&file, id, 0, &bytes)?;
        file.sync_all()?;
        self.model.promise(id);
        drop(file);
        self.model.rename(&beside, name);
        fs::rename(self.path(&beside), self.path(name))?;
        if self.rng.random_range(0..3) == 0 {
            File::open(&self.dir)?.sync_all()?;
            self.model.promise_names();
        }
        Ok(())
    }

    fn remove(&mut self) -> io::Result<()> {
        let Some((path, entry)) = self.pick(|_| true) else { return Ok(()) };
        if entry != Entry::Dir {
            self.model.remove(&path);
            return fs::remove_file(self.path(&path));
        }
        let below = format!("{path}/");
        if self.model.now.keys().any(|k| k.starts_with(&below)) {
            return Ok(());
        }
        self.model.remove(&path);
        fs::remove_dir(self.path(&path))
    }

    fn make_dir(&mut self) -> io::Result<()> {
        self.counter += 1;
        let name = format!("d{}", self.counter);
        self.model.mkdir(&name);
        fs::create_dir(self.path(&name))
    }

    fn rename(&mut self) -> io::Result<()> {
        let Some((from, entry)) = self.pick(|_| true) else { return Ok(()) };
        self.counter += 1;
        let to = match entry {
            Entry::Dir => format!("d{}", self.counter),
            Entry::File(_) => self.new_name(if from.ends_with(".bin") { ".bin" } else { "" }),
        };
        self.model.rename(&from, &to);
        fs::rename(self.path(&from), self.path(&to))
    }
}
