//! The single things that are done.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use rand::RngExt;
use rustix::fs::{AtFlags, CWD};

use super::{ENTRIES_MAX, Worker};
use crate::mapping::Mapping;
use crate::model::Entry;

/// A copy is there from its first byte on to some byte.
const COPY_MAX: usize = 40_000;
/// Stores to a page are there or not, each as a whole.
const STORE_MAX: usize = 64;
const PAGE: usize = 4096;

impl Worker<'_> {
    pub(super) fn step(&mut self) -> io::Result<()> {
        if self.model.now.len() > ENTRIES_MAX {
            return self.remove();
        }
        let what = self.rng.random_range(0..100);
        match what {
            0..11 => self.create_small(),
            11..14 => self.create_nameless(),
            14..28 => self.append(),
            28..34 => self.rewrite(),
            34..44 => self.overwrite(),
            44..49 => self.truncate(),
            49..57 => self.checkpoint("state", 20_000),
            57..64 => self.checkpoint("model.bin", 300_000),
            64..70 => self.create_large(),
            70..77 => self.remove(),
            77..80 => self.make_dir(),
            80..85 => self.rename(),
            85..89 => self.link(),
            89..93 => self.copy(),
            93..97 => self.map(),
            _ => self.look(),
        }
    }

    fn create(&mut self, name: &str) -> io::Result<(File, usize)> {
        self.doing = format!("create {name}");
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

    /// Written before it has a name, and mostly given one then.
    fn create_nameless(&mut self) -> io::Result<()> {
        let name = self.new_name("");
        self.doing = format!("create without a name, for {name}");
        let path = self.path(&name);
        let dir = path.parent().unwrap_or(&self.dir).to_owned();
        let id = self.model.create_nameless();
        let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_TMPFILE).open(dir)?;
        for _ in 0..self.rng.random_range(0..4) {
            let bytes = self.bytes(50_000);
            self.write_at(&file, id, self.model.size(id), &bytes)?;
        }
        self.maybe_sync(&file, id, 3)?;
        if self.rng.random_range(0..4) == 0 {
            return Ok(());
        }
        self.doing = format!("link a file without a name to {name}");
        self.model.link(id, &name);
        let nameless = format!("/proc/self/fd/{}", file.as_raw_fd());
        rustix::fs::linkat(CWD, nameless, CWD, &path, AtFlags::SYMLINK_FOLLOW)?;
        self.maybe_sync(&file, id, 3)
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
        self.doing = "append".to_owned();
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
        self.doing = format!("rewrite {path}");
        self.model.truncate(id, 0);
        let file = OpenOptions::new().write(true).truncate(true).open(self.path(&path))?;
        let bytes = self.bytes(30_000);
        self.write_at(&file, id, 0, &bytes)?;
        self.maybe_sync(&file, id, 3)
    }

    fn overwrite(&mut self) -> io::Result<()> {
        let Some((path, id)) = self.pick_file() else { return Ok(()) };
        self.doing = format!("overwrite {path}");
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
        self.doing = format!("truncate {path} to {size}");
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
        self.doing = format!("checkpoint {name}");
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
        self.doing = format!("remove {path}");
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
        self.doing = format!("make {name}");
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
        self.doing = format!("rename {from} {to}");
        self.model.rename(&from, &to);
        fs::rename(self.path(&from), self.path(&to))
    }

    fn link(&mut self) -> io::Result<()> {
        let Some((from, id)) = self.pick_file() else { return Ok(()) };
        let to = self.new_name(if from.ends_with(".bin") { ".bin" } else { "" });
        self.doing = format!("link {from} {to}");
        self.model.link(id, &to);
        fs::hard_link(self.path(&from), self.path(&to))
    }

    /// In the kernel, from one file to another: shared where the store has the bytes.
    fn copy(&mut self) -> io::Result<()> {
        let (Some((from, source)), Some((to, target))) = (self.pick_file(), self.pick_file()) else {
            return Ok(());
        };
        if source == target || self.model.size(source) == 0 {
            return Ok(());
        }
        let start = self.rng.random_range(0..self.model.size(source));
        let len = self.rng.random_range(1..COPY_MAX).min(self.model.size(source) - start);
        let at = self.rng.random_range(0..=self.model.size(target));
        self.doing = format!("copy {start}..{} of {from} to {at} of {to}", start + len);
        let input = File::open(self.path(&from))?;
        let output = OpenOptions::new().write(true).open(self.path(&to))?;
        let bytes = self.model.content(source)[start..start + len].to_vec();
        self.model.write_in_pieces(target, at, &bytes);
        let (mut start, mut at, end) = (start as i64, at as i64, (start + len) as i64);
        while start < end {
            let left = (end - start) as usize;
            // SAFETY: two open descriptors, and two offsets of ours that the kernel moves on.
            let n = unsafe {
                libc::copy_file_range(input.as_raw_fd(), &mut start, output.as_raw_fd(), &mut at, left, 0)
            };
            match n {
                -1 => return Err(io::Error::last_os_error()),
                0 => return Err(io::Error::other("the file that is copied is shorter than it was")),
                _ => {}
            }
        }
        self.maybe_sync(&output, target, 3)
    }

    fn map(&mut self) -> io::Result<()> {
        let Some((path, id)) = self.pick_file() else { return Ok(()) };
        // A page that the disk had no room for stays in the page cache as if it were written.
        if self.model.size(id) == 0 || self.weather.is_some_and(|w| w.disk.may_fail()) {
            return Ok(());
        }
        self.doing = format!("map {path}");
        let file = OpenOptions::new().read(true).write(true).open(self.path(&path))?;
        let size = self.model.size(id);
        let map = Mapping::new(&file, size)?;
        for _ in 0..self.rng.random_range(1..4) {
            let at = self.rng.random_range(0..size);
            let page = at - at % PAGE..size.min(at - at % PAGE + PAGE);
            let found = map.load(page.start, page.len())?;
            assert!(
                found == self.model.content(id)[page.clone()],
                "{path}: other bytes are mapped at {page:?}"
            );
            let mut bytes = self.bytes(STORE_MAX);
            bytes.truncate(page.end - at);
            self.model.write(id, at, &bytes);
            map.store(at, &bytes)?;
            map.sync()?;
        }
        drop(map);
        self.maybe_sync(&file, id, 3)
    }

    /// Reads a file.
    fn look(&mut self) -> io::Result<()> {
        let Some((path, id)) = self.pick_file() else { return Ok(()) };
        self.doing = format!("read {path}");
        let found = fs::read(self.path(&path))?;
        let content = self.model.content(id);
        let at = found.iter().zip(content).position(|(a, b)| a != b);
        assert!(
            found == content,
            "{}: {} bytes, not {}, and another one at {at:?}",
            self.path(&path).display(),
            found.len(),
            content.len()
        );
        Ok(())
    }
}
