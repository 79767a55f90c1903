//! Random histories of a directory whose node loses power at any moment: between two operations of its disk or of the
//! metadata's engine, again and again.
//!
//! Afterwards the names are those of one moment since they were last promised; a small file is as it was at one moment since its
//! own last promise; each byte of a large one, whose stage file is overwritten in place, is of such a moment. The seed is
//! printed; `GRANARY_TEST_SEED` sets it [1], `GRANARY_POWER_LOSSES` how many there are [120].

use std::collections::BTreeMap;
use std::sync::Arc;

use granary_core::{EntryName, Ino, Result};
use granary_meta::types::RenameMode;
use granary_meta::{FileType, Metadata, NewInode};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::super::committer::tick;
use super::world::{World, limits, pattern};
use crate::stage::disk::power::Loss;
use crate::stage::disk::write_all;
use crate::{File, PathHint};

/// Losses of one volume.
const OF_ONE: u64 = 10;
const STEPS: usize = 40;
const NAMES: usize = 6;

#[derive(Default)]
struct Plain {
    now: Vec<u8>,
    since: Vec<Vec<u8>>,
    /// It may have, or have had, a stage file.
    large: bool,
    open: Option<Arc<File>>,
}

impl Plain {
    fn may_be(&self, found: &[u8]) -> bool {
        if !self.large {
            return self.since.iter().any(|v| v == found);
        }
        let lens = || self.since.iter().map(Vec::len);
        let byte = |i: usize, b: u8| self.since.iter().any(|v| v.get(i).copied().unwrap_or(0) == b);
        (lens().min()..=lens().max()).contains(&Some(found.len()))
            && found.iter().enumerate().all(|(i, &b)| byte(i, b))
    }
}

type Names = BTreeMap<String, usize>;

#[derive(Clone, Debug)]
enum Change {
    Create(String, usize),
    Remove(String),
    Rename(String, String),
}

fn apply(names: &mut Names, change: &Change) {
    match change {
        Change::Create(name, id) => drop(names.insert(name.clone(), *id)),
        Change::Remove(name) => drop(names.remove(name)),
        Change::Rename(from, to) => {
            if let Some(id) = names.remove(from) {
                names.insert(to.clone(), id);
            }
        }
    }
}

struct Run {
    w: World,
    rng: SmallRng,
    files: Vec<Plain>,
    now: Names,
    promised: Names,
    since: Vec<Change>,
    patterns: u64,
    story: Vec<String>,
}

fn entry(name: &str) -> EntryName<'_> {
    EntryName::new(name.as_bytes()).unwrap()
}

impl Run {
    async fn new(seed: u64) -> Run {
        let rng = SmallRng::seed_from_u64(seed);
        let (files, now, promised, since) = Default::default();
        Run { w: World::new().await, rng, files, now, promised, since, patterns: 0, story: Vec::new() }
    }

    fn change(&mut self, change: Change) {
        self.story.push(format!("{change:?}"));
        apply(&mut self.now, &change);
        self.since.push(change);
    }

    fn promise_names(&mut self) {
        self.promised = self.now.clone();
        self.since.clear();
    }

    fn promise_all(&mut self) {
        self.promise_names();
        self.files.iter_mut().for_each(|f| f.since = vec![f.now.clone()]);
    }

    /// A content that the file is about to have.
    fn will_be(&mut self, id: usize, now: Vec<u8>) {
        let file = &mut self.files[id];
        file.large |= now.len() as u64 > limits().small_file_bytes_max;
        file.since.push(now.clone());
        file.now = now;
    }

    fn pick(&mut self) -> Option<(String, usize)> {
        let at = self.rng.random_range(0..self.now.len().max(1));
        self.now.iter().nth(at).map(|(name, id)| (name.clone(), *id))
    }

    async fn open(&mut self, name: &str, id: usize) -> Result<Arc<File>> {
        if let Some(file) = &self.files[id].open {
            return Ok(file.clone());
        }
        let attr = self.w.meta().lookup(Ino::ROOT, entry(name)).await?;
        let file = self.w.tree_ref().file(&attr, None).await?;
        self.files[id].open = Some(file.clone());
        Ok(file)
    }

    async fn close(&mut self, id: usize) -> Result<()> {
        self.story.push(format!("close {id}"));
        match self.files[id].open.take() {
            Some(file) => self.w.tree_ref().close(file).await,
            None => Ok(()),
        }
    }

    async fn create(&mut self) -> Result<()> {
        let name = format!("f{}", self.rng.random_range(0..NAMES));
        if self.now.contains_key(&name) {
            return Ok(());
        }
        let large = self.rng.random_range(0..3) == 0;
        self.files.push(Plain { since: vec![Vec::new()], large, ..Plain::default() });
        let id = self.files.len() - 1;
        self.change(Change::Create(name.clone(), id));
        let (mode, umask, uid, gid, rdev) = (0o644, 0, 1, 1, 0);
        let new = NewInode { kind: FileType::File, mode, umask, uid, gid, rdev, target: Vec::new() };
        let attr = self.w.meta().create(Ino::ROOT, entry(&name), new, false).await?;
        let hint = PathHint { dir: Ino::ROOT, name: name.into_bytes() };
        self.files[id].open = Some(self.w.tree_ref().created(&attr, hint, large)?);
        Ok(())
    }

    async fn write(&mut self, append: bool) -> Result<()> {
        let Some((name, id)) = self.pick() else { return Ok(()) };
        let file = self.open(&name, id).await?;
        let mut now = self.files[id].now.clone();
        let offset = if append { now.len() } else { self.rng.random_range(0..now.len() + 2000) };
        self.patterns += 1;
        let bytes = pattern(self.patterns, self.rng.random_range(1..5000));
        self.story.push(format!("write {id} at {offset}, {} bytes", bytes.len()));
        if offset + bytes.len() > 40_000 {
            return Ok(());
        }
        if offset > now.len() {
            // A file whose last bytes are lost is cut to where they began, behind the hole.
            now.resize(offset, 0);
            self.will_be(id, now.clone());
        }
        now.resize(now.len().max(offset + bytes.len()), 0);
        now[offset..offset + bytes.len()].copy_from_slice(&bytes);
        self.will_be(id, now);
        if self.rng.random_range(0..3) == 0
            && let Some(backing) = file.begin_passthrough(true)?
        {
            self.story.push("by the kernel".into());
            let written = write_all(&*self.w.disk, &backing.file, &[], &bytes, offset as u64);
            file.end_passthrough(true);
            return written.map_err(|e| granary_core::Error::io("the kernel cannot write", e));
        }
        file.write(offset as u64, &bytes, append).await.map(drop)
    }

    async fn truncate(&mut self) -> Result<()> {
        let Some((name, id)) = self.pick() else { return Ok(()) };
        let file = self.open(&name, id).await?;
        let mut now = self.files[id].now.clone();
        let size = self.rng.random_range(0..=now.len() * 5 / 4);
        now.resize(size, 0);
        self.story.push(format!("truncate {id} to {size}"));
        self.will_be(id, now);
        file.truncate(size as u64).await.map(drop)
    }

    async fn fsync(&mut self) -> Result<()> {
        let Some((name, id)) = self.pick() else { return Ok(()) };
        self.open(&name, id).await?.fsync().await?;
        self.story.push(format!("fsync {id}"));
        let file = &mut self.files[id];
        file.since = vec![file.now.clone()];
        self.promise_names();
        Ok(())
    }

    async fn unlink(&mut self) -> Result<()> {
        let Some((name, id)) = self.pick() else { return Ok(()) };
        self.close(id).await?;
        self.change(Change::Remove(name.clone()));
        let attr = self.w.meta().unlink(Ino::ROOT, entry(&name)).await?;
        self.w.tree_ref().forget(attr.ino);
        Ok(())
    }

    async fn rename(&mut self) -> Result<()> {
        let Some((from, _)) = self.pick() else { return Ok(()) };
        let to = format!("f{}", self.rng.random_range(0..NAMES));
        if from == to {
            return Ok(());
        }
        if let Some(&replaced) = self.now.get(&to) {
            self.close(replaced).await?;
        }
        self.change(Change::Rename(from.clone(), to.clone()));
        let meta = self.w.meta();
        let replaced =
            meta.rename(Ino::ROOT, entry(&from), Ino::ROOT, entry(&to), RenameMode::Replace).await?;
        if let Some(attr) = replaced {
            self.w.tree_ref().forget(attr.ino);
        }
        Ok(())
    }

    async fn step(&mut self) -> Result<()> {
        let what = self.rng.random_range(0..100);
        match what {
            0..14 => self.create().await,
            14..36 => self.write(false).await,
            36..52 => self.write(true).await,
            52..58 => self.truncate().await,
            58..70 => self.fsync().await,
            70..75 => self.unlink().await,
            75..82 => self.rename().await,
            82..88 => match self.pick() {
                Some((_, id)) => self.close(id).await,
                None => Ok(()),
            },
            88..93 => {
                self.story.push("tick".into());
                tick(&self.w.tree_ref().shared).await
            }
            93..96 => {
                self.story.push("flush".into());
                self.w.tree_ref().flush().await?;
                self.promise_all();
                Ok(())
            }
            _ => {
                self.story.push("sync".into());
                self.w.tree_ref().sync().await?;
                self.promise_all();
                Ok(())
            }
        }
    }

    /// Works until the power fails, which is in the middle of something, or soon after it.
    async fn outage(&mut self) {
        let quiet = self.rng.random_range(0..STEPS);
        for _ in 0..quiet {
            self.step().await.expect("the power is on");
        }
        let left = self.rng.random_range(0..40);
        if self.rng.random() {
            self.w.disk.fail_after(i64::from(left));
        } else {
            self.w.faulty().fail_writes_after(left / 8);
        }
        for _ in 0..STEPS {
            if self.step().await.is_err() {
                break;
            }
        }
        self.w.disk.fail_after(0);
        self.w.faulty().fail_writes_after(0);
        self.files.iter_mut().for_each(|f| f.open = None);
        let keep = [0, 1, 3, usize::MAX][self.rng.random_range(0..4)];
        let loss = Loss::Random(self.rng.random());
        self.story.push(format!("power fails {left} operations later, {keep} batches stay, {loss:?}"));
        self.w.lose_power(keep, loss).await;
        self.w.start().await;
        self.compare().await;
    }

    async fn compare(&mut self) {
        let mut found: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for n in 0..NAMES {
            let name = format!("f{n}");
            if self.w.attr(&name).await.is_some() {
                let file = self.w.open(&name).await;
                let _told = file.take_error(); // that it was cut, if it was
                self.w.close(file).await;
                found.insert(name.clone(), self.w.content(&name).await);
            }
        }
        let mut names = self.promised.clone();
        let mut why = Vec::new();
        let mut moment = None;
        for k in 0..=self.since.len() {
            if k > 0 {
                apply(&mut names, &self.since[k - 1]);
            }
            let wrong = names.keys().chain(found.keys()).filter(|name| {
                let (id, bytes) = (names.get(*name), found.get(*name));
                !matches!((id, bytes), (Some(id), Some(bytes)) if self.files[*id].may_be(bytes))
            });
            let wrong: Vec<_> = wrong.collect();
            if wrong.is_empty() {
                moment = Some(names.clone());
                break;
            }
            why.push(format!("after {k} changes: {wrong:?} of {names:?}"));
        }
        let Some(moment) = moment else {
            let lens: Vec<_> = found.iter().map(|(name, bytes)| (name, bytes.len())).collect();
            let about = |f: &Plain| (f.large, f.since.iter().map(Vec::len).collect::<Vec<_>>());
            let files: Vec<_> = self.files.iter().map(about).enumerate().collect();
            let story = &self.story;
            panic!("found {lens:?}, as it never was: {why:#?}\nfiles {files:?}\nstory {story:#?}");
        };
        self.w.check().await;
        // What was found is on disk now.
        self.now = moment;
        for (name, &id) in &self.now {
            self.files[id].now.clone_from(&found[name]);
        }
        self.promise_all();
        self.story.clear();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn power_losses_leave_what_was_promised() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seed = number("GRANARY_TEST_SEED").unwrap_or(1);
    let losses = number("GRANARY_POWER_LOSSES").unwrap_or(120);
    for volume in 0..losses.div_ceil(OF_ONE) {
        let seed = seed + volume;
        println!("seed: GRANARY_TEST_SEED={seed}");
        let mut run = Run::new(seed).await;
        for _ in 0..OF_ONE {
            run.outage().await;
        }
        run.w.tree_ref().sync().await.unwrap();
        run.w.restart_from_the_store().await;
        run.compare().await;
    }
}
