//! A disk that becomes full, whose fdatasync fails, or that loses power, when a test says so.
//!
//! It works on real files and keeps beside them what a power loss leaves for certain: of each file the bytes of its last sync,
//! of each directory the entries of its last sync; and, in order, what was done since, of which a power loss may leave any part.
//! Writes are lost by pages, whatever their order; of a file that was only added to more often its end. Entries are lost one by
//! one, but those of one name in order; a rename is lost as a whole.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, PoisonError};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::{Disk, SystemDisk};
use crate::util::lock;

/// What is written back, or lost, as a whole.
const PAGE: usize = 4096;

/// What a power loss leaves of what was not synced.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Loss {
    /// Of each file's changes this part, counted from the first on, and all entries.
    Tails(f64),
    /// Pages and entries at random.
    Random(u64),
}

#[derive(Clone, Debug)]
enum Change {
    Write(u64, Vec<u8>),
    SetLen(u64),
    Punch(Range<u64>),
}

#[derive(Debug, Default)]
struct Kept {
    /// As it is without a power loss.
    now: Vec<u8>,
    durable: Vec<u8>,
    since: Vec<Change>,
}

impl Kept {
    /// A sync failed: pages that were to be written count as clean, and only what is written again is written.
    fn lose_writes(&mut self) {
        self.since.retain(|made| !matches!(made, Change::Write(..)));
        self.now = self.durable.clone();
        self.since.iter().for_each(|made| change(&mut self.now, made));
    }

    /// Such a file is mostly written back in order: of the log a tail is lost.
    fn only_grows(&self) -> bool {
        let mut end = self.durable.len() as u64;
        self.since.iter().all(|made| match made {
            Change::Write(offset, bytes) => {
                let grows = *offset == end;
                end += bytes.len() as u64;
                grows
            }
            Change::SetLen(_) | Change::Punch(_) => false,
        })
    }
}

#[derive(Clone, Debug)]
enum NameChange {
    Link(PathBuf, u64),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf),
}

impl NameChange {
    fn paths(&self) -> Vec<&PathBuf> {
        match self {
            NameChange::Link(path, _) | NameChange::Unlink(path) => vec![path],
            NameChange::Rename(from, to) => vec![from, to],
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            NameChange::Link(path, ino) => drop(names.insert(path.clone(), *ino)),
            NameChange::Unlink(path) => drop(names.remove(path)),
            NameChange::Rename(from, to) => {
                if let Some(ino) = names.remove(from) {
                    names.insert(to.clone(), ino);
                }
            }
        }
    }
}

#[derive(Debug, Default)]
struct Shadow {
    /// Which file a local inode number is now; the numbers are used again, ours are not.
    now: HashMap<u64, u64>,
    files: HashMap<u64, Kept>,
    /// Durable entries.
    names: BTreeMap<PathBuf, u64>,
    since: Vec<NameChange>,
}

impl Shadow {
    fn kept(&mut self, ino: u64) -> Option<&mut Kept> {
        self.files.get_mut(self.now.get(&ino)?)
    }

    /// A new file, with this number for now.
    fn begin(&mut self, ino: u64) -> u64 {
        let id = self.files.len() as u64;
        self.now.insert(ino, id);
        self.files.insert(id, Kept::default());
        id
    }
}

#[derive(Debug)]
pub(crate) struct FailingDisk {
    /// Bytes that may still be written; counts only while `limited`.
    pub room: AtomicI64,
    pub limited: AtomicBool,
    pub sync_fails: AtomicBool,
    pub syncs: AtomicU64,
    /// What may still be done until the power fails; `i64::MAX`: it does not.
    left: AtomicI64,
    boots: AtomicU64,
    /// Guards what survives, and its agreement with the real files: held over each change.
    shadow: Mutex<Shadow>,
    /// Guards whether syncs are held back, and how many wait.
    gate: Mutex<Gate>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct Gate {
    shut: bool,
    waiting: u64,
}

impl Default for FailingDisk {
    fn default() -> FailingDisk {
        FailingDisk {
            room: AtomicI64::new(0),
            limited: AtomicBool::new(false),
            sync_fails: AtomicBool::new(false),
            syncs: AtomicU64::new(0),
            left: AtomicI64::new(i64::MAX),
            boots: AtomicU64::new(1),
            shadow: Mutex::default(),
            gate: Mutex::default(),
            moved: Condvar::new(),
        }
    }
}

fn change(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write(offset, written) => {
            let (start, end) = (*offset as usize, *offset as usize + written.len());
            bytes.resize(bytes.len().max(end), 0);
            bytes[start..end].copy_from_slice(written);
        }
        Change::SetLen(len) => bytes.resize(*len as usize, 0),
        Change::Punch(range) => {
            let (start, end) = (bytes.len().min(range.start as usize), bytes.len().min(range.end as usize));
            bytes[start..end].fill(0);
        }
    }
}

impl FailingDisk {
    /// The power fails after so many more operations: they, and all after them, fail.
    pub fn fail_after(&self, operations: i64) {
        self.left.store(operations, SeqCst);
    }

    /// One operation more, of this disk or of what shares its power.
    pub fn use_power(&self) -> io::Result<()> {
        if self.left.load(SeqCst) != i64::MAX && self.left.fetch_sub(1, SeqCst) <= 0 {
            return Err(io::Error::other("the power is out, as the test wants it"));
        }
        Ok(())
    }

    /// While shut, whoever syncs waits.
    pub fn shut_gate(&self, shut: bool) {
        lock(&self.gate).shut = shut;
        self.moved.notify_all();
    }

    /// Returns when a sync waits at the shut gate.
    pub fn wait_until_held(&self) {
        drop(
            self.moved
                .wait_while(lock(&self.gate), |g| g.waiting == 0)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    fn pass_gate(&self) {
        let mut gate = lock(&self.gate);
        gate.waiting += 1;
        self.moved.notify_all();
        gate = self.moved.wait_while(gate, |g| g.shut).unwrap_or_else(PoisonError::into_inner);
        gate.waiting -= 1;
    }

    /// Whether every entry that was made, moved or removed is durable.
    pub fn has_durable_names(&self) -> bool {
        lock(&self.shadow).since.is_empty()
    }

    /// The directories were removed behind our back.
    pub fn forget(&self) {
        *lock(&self.shadow) = Shadow::default();
    }

    fn record(&self, file: &File, made: Change) -> io::Result<()> {
        let ino = file.metadata()?.ino();
        if let Some(kept) = lock(&self.shadow).kept(ino) {
            change(&mut kept.now, &made);
            kept.since.push(made);
        }
        Ok(())
    }

    /// The power was cut, and comes back: the real files become what is left. Nobody else uses them.
    pub fn cut(&self, loss: Loss) {
        self.left.store(i64::MAX, SeqCst);
        self.boots.fetch_add(1, SeqCst);
        let mut shadow = lock(&self.shadow);
        let mut rng = SmallRng::seed_from_u64(if let Loss::Random(seed) = loss { seed } else { 0 });
        let names = surviving_names(&shadow, loss, &mut rng);
        let all: HashSet<PathBuf> = shadow
            .since
            .iter()
            .flat_map(|c| c.paths().into_iter().cloned())
            .chain(shadow.names.keys().cloned())
            .collect();
        let _gone: Vec<_> = all.iter().map(fs::remove_file).collect(); // most of them are not there
        let old = std::mem::take(&mut *shadow);
        for (path, id) in names {
            let bytes =
                old.files.get(&id).map_or_else(Vec::new, |kept| surviving_bytes(kept, loss, &mut rng));
            let id = shadow.begin(rewrite(&path, &bytes));
            shadow.files.insert(id, Kept { now: bytes.clone(), durable: bytes, since: Vec::new() });
            shadow.names.insert(path, id);
        }
    }
}

/// Holes stay holes, as on the disk.
fn rewrite(path: &Path, bytes: &[u8]) -> u64 {
    use std::os::unix::fs::FileExt;
    let file = SystemDisk.create(path, true).unwrap();
    for (i, block) in bytes.chunks(PAGE).enumerate() {
        if block.iter().any(|&b| b != 0) {
            file.write_all_at(block, (i * PAGE) as u64).unwrap();
        }
    }
    file.set_len(bytes.len() as u64).unwrap();
    file.metadata().unwrap().ino()
}

fn surviving_names(shadow: &Shadow, loss: Loss, rng: &mut SmallRng) -> BTreeMap<PathBuf, u64> {
    let mut names = shadow.names.clone();
    let keep_one = match loss {
        Loss::Tails(_) => 1.0,
        Loss::Random(_) => [0.0, 0.5, 0.9, 1.0][rng.random_range(0..4)],
    };
    let mut lost: HashSet<&PathBuf> = HashSet::new();
    for made in &shadow.since {
        if made.paths().into_iter().any(|path| lost.contains(path)) || !rng.random_bool(keep_one) {
            lost.extend(made.paths());
        } else {
            made.apply(&mut names);
        }
    }
    names
}

fn surviving_bytes(kept: &Kept, loss: Loss, rng: &mut SmallRng) -> Vec<u8> {
    match loss {
        Loss::Tails(part) => first_part(kept, part),
        Loss::Random(_) if kept.only_grows() && rng.random_bool(0.6) => {
            first_part(kept, [0.0, 1.0, rng.random()][rng.random_range(0..3)])
        }
        Loss::Random(_) => random_pages(kept, rng),
    }
}

fn first_part(kept: &Kept, part: f64) -> Vec<u8> {
    let mut bytes = kept.durable.clone();
    let written = |c: &Change| if let Change::Write(_, b) = c { b.len() } else { 0 };
    let mut left = (kept.since.iter().map(written).sum::<usize>() as f64 * part) as usize;
    for made in &kept.since {
        match made {
            Change::Write(offset, written) => {
                let n = written.len().min(left);
                if n > 0 {
                    change(&mut bytes, &Change::Write(*offset, written[..n].to_vec()));
                }
                left -= n;
                if n < written.len() {
                    break;
                }
            }
            other => change(&mut bytes, other),
        }
    }
    bytes
}

/// Each page as it was written back last, at a moment of its own; and the size of some moment.
fn random_pages(kept: &Kept, rng: &mut SmallRng) -> Vec<u8> {
    let stay = [0.0, 0.5, 0.9, 1.0][rng.random_range(0..4)];
    let mut now = kept.durable.clone();
    let (mut pages, mut size) = (BTreeMap::new(), now.len());
    for made in &kept.since {
        let before = now.len();
        change(&mut now, made);
        let touched = match made {
            Change::Write(offset, bytes) => *offset as usize..*offset as usize + bytes.len(),
            Change::SetLen(len) => before.min(*len as usize)..before.max(*len as usize),
            Change::Punch(range) => range.start as usize..range.end as usize,
        };
        for page in touched.start / PAGE..touched.end.div_ceil(PAGE) {
            if rng.random_bool(stay) {
                let bytes = now.get(page * PAGE..now.len().min((page + 1) * PAGE)).unwrap_or_default();
                pages.insert(page, bytes.to_vec());
            }
        }
        if rng.random_bool(stay) {
            size = now.len();
        }
    }
    let mut bytes = kept.durable.clone();
    for (page, content) in pages {
        let start = page * PAGE;
        bytes.resize(bytes.len().max(start + PAGE), 0);
        bytes[start..start + PAGE].fill(0);
        bytes[start..start + content.len()].copy_from_slice(&content);
    }
    bytes.resize(size, 0);
    bytes
}

impl Disk for FailingDisk {
    fn write_at(&self, file: &File, parts: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        self.use_power()?;
        let mut all: Vec<u8> = parts.iter().flat_map(|p| p.iter().copied()).collect();
        if self.limited.load(SeqCst) {
            all.truncate(self.room.load(SeqCst).max(0) as usize);
            if all.is_empty() {
                return Err(io::Error::from_raw_os_error(28));
            }
            self.room.fetch_sub(all.len() as i64, SeqCst);
        }
        let n = SystemDisk.write_at(file, &[IoSlice::new(&all)], offset)?;
        all.truncate(n);
        self.record(file, Change::Write(offset, all))?;
        Ok(n)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        self.pass_gate();
        self.use_power()?;
        self.syncs.fetch_add(1, SeqCst);
        let ino = file.metadata()?.ino();
        if self.sync_fails.load(SeqCst) {
            lock(&self.shadow).kept(ino).map(Kept::lose_writes);
            return Err(io::Error::from_raw_os_error(5));
        }
        if let Some(kept) = lock(&self.shadow).kept(ino) {
            kept.durable = kept.now.clone();
            kept.since.clear();
        }
        Ok(())
    }

    fn create(&self, path: &Path, new: bool) -> io::Result<File> {
        self.use_power()?;
        let file = SystemDisk.create(path, new)?;
        let ino = file.metadata()?.ino();
        let mut shadow = lock(&self.shadow);
        let mut names = shadow.names.clone();
        shadow.since.iter().for_each(|made| made.apply(&mut names));
        if let Some(kept) = names.get(path).and_then(|id| shadow.files.get_mut(id)) {
            kept.now.clear();
            kept.since.push(Change::SetLen(0));
        } else {
            let id = shadow.begin(ino);
            shadow.since.push(NameChange::Link(path.to_owned(), id));
        }
        Ok(file)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.use_power()?;
        SystemDisk.rename(from, to)?;
        lock(&self.shadow).since.push(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.use_power()?;
        SystemDisk.remove(path)?;
        lock(&self.shadow).since.push(NameChange::Unlink(path.to_owned()));
        Ok(())
    }

    fn set_len(&self, file: &File, len: u64) -> io::Result<()> {
        self.use_power()?;
        file.set_len(len)?;
        self.record(file, Change::SetLen(len))
    }

    fn punch(&self, file: &File, range: Range<u64>) -> io::Result<()> {
        self.use_power()?;
        SystemDisk.punch(file, range.clone())?;
        self.record(file, Change::Punch(range))
    }

    fn boot(&self) -> io::Result<u64> {
        Ok(self.boots.load(SeqCst))
    }

    fn sync_dir(&self, dir: &File) -> io::Result<()> {
        self.pass_gate();
        self.use_power()?;
        if self.sync_fails.load(SeqCst) {
            return Err(io::Error::from_raw_os_error(5));
        }
        let path = fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(dir)))?;
        let mut shadow = lock(&self.shadow);
        // What this directory has to do with, and what was done to those names before.
        let mut concerned: HashSet<PathBuf> = HashSet::new();
        for made in shadow.since.iter().rev() {
            let paths = made.paths();
            if paths.iter().any(|p| p.parent() == Some(&path) || concerned.contains(*p)) {
                concerned.extend(paths.into_iter().cloned());
            }
        }
        let Shadow { names, since, .. } = &mut *shadow;
        since.retain(|made| {
            let durable = made.paths().into_iter().any(|p| concerned.contains(p));
            if durable {
                made.apply(names);
            }
            !durable
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::disk::write_all;

    fn content(path: &Path) -> Option<Vec<u8>> {
        fs::read(path).ok()
    }

    #[test]
    fn what_was_synced_stays_and_the_rest_may_go() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        let folder = File::open(dir.path()).unwrap();
        let disk = FailingDisk::default();
        let file = disk.create(&a, true).unwrap();
        write_all(&disk, &file, &[], &[1; 1000], 0).unwrap();
        disk.sync_data(&file).unwrap();
        disk.sync_dir(&folder).unwrap();
        write_all(&disk, &file, &[], &[2; 1000], 500).unwrap();
        disk.rename(&a, &b).unwrap();
        disk.cut(Loss::Tails(0.5));
        assert_eq!((content(&a), content(&b)), (None, Some([[1; 500], [2; 500]].concat())));
        // Now it is durable: nothing random is left of it.
        for seed in 0..20 {
            disk.cut(Loss::Random(seed));
            assert_eq!(content(&b), Some([[1; 500], [2; 500]].concat()));
        }
        disk.remove(&b).unwrap();
        let outcomes: HashSet<bool> = (0..20)
            .map(|seed| {
                disk.cut(Loss::Random(seed));
                let there = b.exists();
                if there {
                    disk.remove(&b).unwrap();
                }
                there
            })
            .collect();
        assert!(outcomes.contains(&false));
    }

    #[test]
    fn a_page_is_as_it_was_at_one_moment() {
        let dir = tempfile::tempdir().unwrap();
        let mut seen = HashSet::new();
        for seed in 0..60 {
            let path = dir.path().join(seed.to_string());
            let disk = FailingDisk::default();
            let file = disk.create(&path, true).unwrap();
            disk.sync_dir(&File::open(dir.path()).unwrap()).unwrap();
            for value in 1..=3 {
                write_all(&disk, &file, &[], &[value; 2 * PAGE], 0).unwrap();
            }
            disk.cut(Loss::Random(seed));
            let found = content(&path).unwrap();
            for page in found.chunks(PAGE) {
                assert!(page.iter().all(|&b| b == page[0]));
            }
            seen.insert((found.len(), found.first().copied(), found.get(PAGE).copied()));
        }
        assert!(seen.len() > 5, "{seen:?}");
    }

    #[test]
    fn nothing_happens_after_the_power_failed() {
        let dir = tempfile::tempdir().unwrap();
        let disk = FailingDisk::default();
        let file = disk.create(&dir.path().join("a"), true).unwrap();
        disk.fail_after(1);
        assert_eq!(disk.write_at(&file, &[IoSlice::new(b"x")], 0).unwrap(), 1);
        assert!(disk.write_at(&file, &[IoSlice::new(b"y")], 1).is_err());
        assert!(disk.sync_data(&file).is_err() && disk.remove(&dir.path().join("a")).is_err());
        assert_eq!(content(&dir.path().join("a")).unwrap(), b"x");
    }
}
