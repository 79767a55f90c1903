//! The order of a round: every piece of work on every system, one right after another, each at rest before the next begins.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::clock::Stopwatch;
use crate::content::Content;
use crate::process::drop_caches;
use crate::report::{Aim, RAW_PUTS, Report, Row};
use crate::stop;
use crate::system::{EXT4, Ext4, GRANARY, Granary, Juicefs, Mode, Programs, System};
use crate::target::Target;
use crate::tree::Tree;
use crate::work::create::Then;
use crate::work::{Limits, Outcome, Set, create, large, read, tree as tree_work};

/// Parts that can be run alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Group {
    /// Small files: create, read, stat
    Small,
    /// 4 KiB and fsync
    Fsync,
    /// One large file
    Large,
    /// A real tree: untar, find, objects, cold read, memory
    Tree,
    /// Mount mode `data`
    Data,
    /// The drain's rate beside raw PUTs; over a folder only when asked for
    Drain,
    /// The node's memory while very many files are made; runs only when asked for
    Million,
    /// How long a node takes to come back after kill -9 with much that is not stored; runs only when asked for
    Recovery,
}

impl Group {
    pub fn value_variants() -> &'static [Group] {
        <Group as ValueEnum>::value_variants()
    }

    /// What runs when nothing is asked for.
    pub fn usual(over_s3: bool) -> Vec<Group> {
        let asked_for = |group| match group {
            Group::Million | Group::Recovery => true,
            Group::Drain => !over_s3,
            _ => false,
        };
        Group::value_variants().iter().copied().filter(|&group| !asked_for(group)).collect()
    }
}

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    pub quick: bool,
    pub small: usize,
    pub medium: usize,
    pub large_bytes: u64,
    pub tree_files: usize,
    pub drain_bytes: u64,
    pub drain_files: usize,
    pub million: usize,
    /// Not stored when a node is killed, as one large file after the other, and as small ones.
    pub stage_bytes: u64,
    pub limits: Limits,
}

impl Scale {
    pub fn full() -> Self {
        let limits = Limits { seconds_min: 2.0, seconds_max: 15.0 };
        Scale {
            quick: false,
            small: 10_000,
            medium: 3_000,
            large_bytes: 1 << 30,
            tree_files: 10_401,
            drain_bytes: 1 << 30,
            drain_files: 100_000,
            million: 1_000_000,
            stage_bytes: 10 << 30,
            limits,
        }
    }

    pub fn quick() -> Self {
        let limits = Limits { seconds_min: 0.2, seconds_max: 2.0 };
        Scale {
            quick: true,
            small: 1_000,
            medium: 300,
            large_bytes: 100 << 20,
            tree_files: 1_000,
            drain_bytes: 60 << 20,
            drain_files: 5_000,
            million: 20_000,
            stage_bytes: 200 << 20,
            limits,
        }
    }
}

pub const SMALL: Set = Set { name: "small", size: 4 << 10, id: 1 };
const MEDIUM: Set = Set { name: "medium", size: 100 << 10, id: 2 };
const MANY: Set = Set { name: "many", size: 4 << 10, id: 4 };
const SYNCED: Set = Set { name: "synced", size: 4 << 10, id: 5 };
const MILLION: Set = Set { name: "million", size: 1 << 10, id: 6 };
const DRAINED: Set = Set { name: "drained", size: 10 << 10, id: 3 };
const JOURNAL: Set = Set { name: "journal", size: 1 << 10, id: 7 };
const STAGED: Set = Set { name: "staged", size: 100 << 10, id: 8 };
const LARGE_BYTES: u64 = 100 << 20;
/// Granary's default concurrency of uploads, and a block's payload.
const UPLOADS_MAX: usize = 4;
const OBJECT_BYTES: usize = 15 << 20;

pub struct Plan<'a> {
    pub programs: Programs,
    pub target: &'a Target,
    pub tree: &'a Tree,
    pub dir: &'a Path,
    pub scale: Scale,
    pub seed: u64,
    pub groups: Vec<Group>,
}

/// The systems of one round.
struct Round<'a> {
    plan: &'a Plan<'a>,
    number: u32,
    report: &'a mut Report,
    content: Content,
    ext4: Ext4,
    granary: Granary,
    juicefs: Option<Juicefs>,
    /// Files that there are: a slow system makes fewer.
    made: HashMap<(&'static str, &'static str), usize>,
}

/// Where Granary's volume of a round has its files' objects: backups of the metadata are elsewhere.
fn data_below(round: u32) -> String {
    format!("round-{round}/ns")
}

pub fn row(work: impl Into<String>, unit: &'static str, aim: Aim) -> Row {
    Row { work: work.into(), unit, base: EXT4, aim, samples: BTreeMap::new() }
}

impl Plan<'_> {
    /// What the table's head says of the work.
    pub fn subject(&self) -> String {
        let (files, mb) = (self.tree.files.len(), self.tree.bytes as f64 / 1e6);
        format!("tree: {}: {files} files, {mb:.0} MB", self.tree.what)
    }

    pub fn round(&self, number: u32, report: &mut Report) -> Result<()> {
        let name = format!("round-{}", number + 1);
        eprintln!("{name}: making fresh file systems");
        let dir = self.dir.join(&name);
        std::fs::create_dir(&dir)?;
        let juicefs = self.programs.juicefs.as_deref();
        let mut round = Round {
            plan: self,
            number,
            report,
            content: Content::new(self.seed),
            ext4: Ext4::make(&dir)?,
            granary: Granary::make(&self.programs.granary, &dir, self.target, &name).context("Granary")?,
            juicefs: juicefs
                .map(|binary| Juicefs::make(binary, &dir, self.target, &format!("juicefs-{}", number + 1)))
                .transpose()
                .context("JuiceFS")?,
            made: HashMap::new(),
        };
        let has = |group| self.groups.contains(&group);
        if has(Group::Small) || has(Group::Data) {
            round.create()?;
        }
        if has(Group::Small) {
            round.small(Mode::Work)?;
        }
        if has(Group::Fsync) {
            round.fsync()?;
        }
        if has(Group::Large) {
            round.large()?;
        }
        if has(Group::Tree) || has(Group::Data) {
            round.unpack()?;
        }
        if has(Group::Tree) {
            round.find(Mode::Work)?;
            round.cold()?;
        }
        if has(Group::Data) {
            round.granary.remount(Mode::Data)?;
            round.small(Mode::Data)?;
            round.find(Mode::Data)?;
            round.granary.remount(Mode::Work)?;
        }
        if has(Group::Drain) {
            round.drain()?;
        }
        if has(Group::Million) {
            round.million()?;
        }
        if has(Group::Recovery) {
            round.recovery()?;
        }
        drop(round);
        self.target.clear()
    }
}

impl Round<'_> {
    /// Runs `work` on every system, and puts what `value` makes of it into the row.
    fn each(
        &mut self,
        row: &Row,
        peers: bool,
        value: fn(&Outcome) -> f64,
        mut work: impl FnMut(&mut dyn System, &Content) -> Result<Outcome>,
    ) -> Result<Vec<(&'static str, Outcome)>> {
        let mut systems: Vec<&mut dyn System> = vec![&mut self.ext4, &mut self.granary];
        if let Some(juicefs) = self.juicefs.as_mut().filter(|_| peers) {
            systems.push(juicefs);
        }
        let turn = self.number as usize % systems.len();
        systems.rotate_left(turn);
        let mut outcomes = Vec::new();
        for system in systems {
            stop::check()?;
            let name = system.name();
            let outcome = work(system, &self.content).with_context(|| format!("{}: on {name}", row.work))?;
            system.settle().with_context(|| format!("{name} does not come to rest"))?;
            self.report.add(row, name, value(&outcome));
            outcomes.push((name, outcome));
        }
        Ok(outcomes)
    }

    fn create(&mut self) -> Result<()> {
        let Scale { small, medium, limits, .. } = self.plan.scale;
        for (set, count, threads, title, aim) in [
            (SMALL, small, 1, "create + write 4 KiB + close, 1 thread", Aim::RatioMin(0.3)),
            (MANY, small, 8, "create + write 4 KiB + close, 8 threads", Aim::RatioMin(0.3)),
            (MEDIUM, medium, 8, "create + write 100 KiB + close, 8 threads", Aim::RatioMin(0.3)),
        ] {
            let outcomes =
                self.each(&row(title, "files/s", aim), true, Outcome::rate, |system, content| {
                    create::warm_up(system.root(), set, content)?;
                    create::files(system.root(), set, count, threads, content, limits, Then::Close)
                })?;
            self.made.extend(outcomes.iter().map(|(system, o)| ((*system, set.name), o.done as usize)));
        }
        Ok(())
    }

    fn small(&mut self, mode: Mode) -> Result<()> {
        let (limits, seed) = (self.plan.scale.limits, self.plan.seed);
        let (label, read_aim, peers) = match mode {
            Mode::Work => ("`work`", 0.12, true),
            Mode::Data => ("`data`", 0.7, false),
        };
        let made = self.made.clone();
        let count =
            |system: &dyn System, set: Set| made.get(&(system.name(), set.name)).copied().unwrap_or(0);
        for (set, size) in [(SMALL, "4 KiB"), (MEDIUM, "100 KiB")] {
            for threads in [1, 8] {
                let plural = if threads == 1 { "" } else { "s" };
                let title = format!("open + read + close {size}, warm, {threads} thread{plural}, {label}");
                let row = row(title, "files/s", Aim::RatioMin(read_aim));
                self.each(&row, peers, Outcome::rate, |system, content| {
                    read::warm(system.root(), set, count(system, set), threads, content, seed, limits)
                })?;
            }
        }
        let row = row(format!("stat, warm, 1 thread, {label}"), "files/s", Aim::RatioMin(0.9));
        self.each(&row, peers, Outcome::rate, |system, _| {
            read::stat(system.root(), SMALL, count(system, SMALL), seed, limits)
        })?;
        Ok(())
    }

    fn fsync(&mut self) -> Result<()> {
        let limits = self.plan.scale.limits;
        self.each(
            &row("append 4 KiB + fsync", "calls/s", Aim::None),
            true,
            Outcome::rate,
            |system, content| large::write_fsync(system.root(), "appended.log", content, limits),
        )?;
        let count = self.plan.scale.small / 5;
        for threads in [1, 8] {
            let plural = if threads == 1 { "" } else { "s" };
            let title = format!("create + write 4 KiB + fsync + close, {threads} thread{plural}");
            self.each(&row(title, "files/s", Aim::RatioMin(0.8)), true, Outcome::rate, |system, content| {
                let outcome =
                    create::files(system.root(), SYNCED, count, threads, content, limits, Then::Fsync)?;
                std::fs::remove_dir_all(system.root().join(SYNCED.name))?;
                Ok(outcome)
            })?;
        }
        Ok(())
    }

    fn large(&mut self) -> Result<()> {
        let bytes = self.plan.scale.large_bytes;
        let size = format!("{} MiB", bytes >> 20);
        let write = row(format!("write {size} + fsync"), "MB/s", Aim::RatioMin(0.95));
        self.each(&write, true, Outcome::mb_rate, |system, content| {
            large::write(system.root(), "0.ckpt", 64 << 20, content)?; // the first of its directory warms up
            system.settle()?;
            large::write(system.root(), "1.ckpt", bytes, content)
        })?;
        let read = row(format!("read {size} back from the node's disk, `work`"), "MB/s", Aim::RatioMin(0.9));
        self.each(&read, true, Outcome::mb_rate, |system, content| {
            drop_caches()?;
            let outcome = large::read(system.root(), "1.ckpt", bytes)?;
            large::verify(system.root(), "1.ckpt", bytes, content)?;
            Ok(outcome)
        })?;
        let seed = self.plan.seed;
        let title = format!("overwrite one page in eight of {size}, 4 KiB at random + fsync");
        self.each(&row(title, "pages/s", Aim::RatioMin(0.7)), true, Outcome::rate, |system, content| {
            let outcome = large::overwrite(system.root(), "1.ckpt", bytes, content, seed)?;
            large::verify_overwritten(system.root(), "1.ckpt", bytes, content, seed)?;
            Ok(outcome)
        })?;
        Ok(())
    }

    fn unpack(&mut self) -> Result<()> {
        let (tree, target) = (self.plan.tree, self.plan.target);
        let round = self.number + 1;
        let list = || target.list(&data_below(round));
        let before = list()?;
        self.each(
            &row("untar a tree of small files", "files/s", Aim::None),
            true,
            Outcome::rate,
            |system, _| tree_work::unpack(system.root(), tree),
        )?;
        let objects = list()?.since(&before).objects;
        ensure!(objects > 0, "granary sync returned, and nothing of the tree is in the store");
        let title = format!("objects made from its {} files", tree.files.len());
        self.report.add(&row(title, "objects", Aim::ValueMax(30.0)), GRANARY, objects as f64);
        Ok(())
    }

    fn find(&mut self, mode: Mode) -> Result<()> {
        let (tree, limits) = (self.plan.tree, self.plan.scale.limits);
        let (label, peers) = if mode == Mode::Work { ("`work`", true) } else { ("`data`", false) };
        let row = row(format!("find -printf %s, warm, {label}"), "entries/s", Aim::RatioMin(0.9));
        self.each(&row, peers, Outcome::rate, |system, _| tree_work::find(system.root(), tree, limits))?;
        Ok(())
    }

    /// Reads the tree with nothing cached, then once more, and looks at what that takes in memory.
    fn cold(&mut self) -> Result<()> {
        let (tree, seed) = (self.plan.tree, self.plan.seed);
        let limits = Limits { seconds_max: 120.0, ..self.plan.scale.limits };
        let title = "read the tree once, cold (nothing on the node), 8 threads";
        let mut memory = Vec::new();
        self.each(&row(title, "files/s", Aim::None), true, Outcome::rate, |system, _| {
            system.forget()?;
            drop_caches()?;
            let outcome = tree_work::read_once(system.root(), tree, 8, seed, limits)?;
            tree_work::read_once(system.root(), tree, 8, seed + 1, limits)?;
            memory.extend(system.memory()?.map(|m| (system.name(), m)));
            Ok(outcome)
        })?;
        for (system, m) in memory {
            let title =
                |what| format!("memory of the node process with {} files cached, {what}", tree.files.len());
            self.report.add(
                &row(title("resident"), "MiB", Aim::ValueMax(256.0)),
                system,
                m.rss_kib as f64 / 1024.0,
            );
            self.report.add(
                &row(title("peak"), "MiB", Aim::ValueMax(256.0)),
                system,
                m.peak_kib as f64 / 1024.0,
            );
        }
        Ok(())
    }

    /// How fast what is staged leaves, beside PUTs of the same size and concurrency by a program that does nothing else.
    fn drain(&mut self) -> Result<()> {
        let Scale { drain_bytes, drain_files, .. } = self.plan.scale;
        let limits = Limits { seconds_max: 600.0, ..self.plan.scale.limits };
        self.granary.hold_back(true)?;
        let large = format!("drain of a file of {} MiB (blocks): `granary sync`", drain_bytes >> 20);
        self.drain_of(&large, drain_bytes, |root, content| {
            large::write(root, "2.ckpt", drain_bytes, content).map(|_| ())
        })?;
        let small =
            format!("drain of {drain_files} files of {} KiB (packs): `granary sync`", DRAINED.size >> 10);
        let objects = self.drain_of(&small, (drain_files * DRAINED.size) as u64, |root, content| {
            let made = create::files(root, DRAINED, drain_files, 8, content, limits, Then::Close)?.done;
            ensure!(made == drain_files as u64, "only {made} of {drain_files} files were made");
            Ok(())
        })?;
        self.granary.hold_back(false)?;
        let title = format!("objects made from {drain_files} files of {} KiB", DRAINED.size >> 10);
        self.report.add(&row(title, "objects", Aim::ValueMax(80.0)), GRANARY, objects as f64);
        Ok(())
    }

    /// Times the way to the store of what `stage` writes; how many objects it became.
    fn drain_of(
        &mut self,
        title: &str,
        bytes: u64,
        stage: impl FnOnce(&Path, &Content) -> Result<()>,
    ) -> Result<u64> {
        let (target, round) = (self.plan.target, self.number + 1);
        let row = Row { base: RAW_PUTS, ..row(title, "MB/s", Aim::RatioMin(0.9)) };
        let count = (bytes as usize).div_ceil(OBJECT_BYTES);
        let raw = target.raw_puts(&format!("raw-{round}"), OBJECT_BYTES, count, UPLOADS_MAX)?;
        self.report.add(&row, RAW_PUTS, raw.mb_rate());
        let list = || target.list(&data_below(round));
        let before = list()?;
        stage(self.granary.root(), &self.content)?;
        rustix::fs::sync();
        let early = list()?.since(&before).objects;
        ensure!(early == 0, "{early} objects were stored before they were to be");
        let watch = Stopwatch::start();
        self.granary.sync()?;
        let outcome = Outcome { done: bytes, seconds: watch.seconds() };
        let stored = list()?.since(&before);
        ensure!(
            stored.bytes >= bytes,
            "granary sync returned with {} of {bytes} bytes in the store",
            stored.bytes
        );
        self.granary.settle()?;
        self.report.add(&row, GRANARY, outcome.mb_rate());
        Ok(stored.objects)
    }

    /// What the node takes in memory, at its worst, while very many files are made; and the objects they become.
    fn million(&mut self) -> Result<()> {
        let Scale { million, .. } = self.plan.scale;
        let limits = Limits { seconds_max: 1800.0, ..self.plan.scale.limits };
        let (target, round) = (self.plan.target, self.number + 1);
        let list = || target.list(&data_below(round));
        let before = list()?;
        let made =
            create::files(self.granary.root(), MILLION, million, 8, &self.content, limits, Then::Close)?;
        ensure!(made.done == million as u64, "only {} of {million} files were made", made.done);
        self.granary.sync()?;
        let memory = self.granary.memory()?.context("Granary has a node")?;
        let objects = list()?.since(&before).objects;
        let of = format!("{million} files of 1 KiB made by 8 threads");
        for (work, unit, aim, value) in [
            (
                format!("{of}: peak memory of the node"),
                "MiB",
                Aim::ValueMax(512.0),
                memory.peak_kib as f64 / 1024.0,
            ),
            (format!("{of}: rate"), "files/s", Aim::None, made.rate()),
            (format!("{of}: objects"), "objects", Aim::None, objects as f64),
        ] {
            self.report.add(&row(work, unit, aim), GRANARY, value);
        }
        Ok(())
    }

    /// From kill -9 of a node with much that is not stored to its mount that serves again; nothing is in the page cache.
    fn recovery(&mut self) -> Result<()> {
        let Scale { million, stage_bytes, .. } = self.plan.scale;
        let limits = Limits { seconds_max: 3600.0, ..self.plan.scale.limits };
        self.granary.hold_all()?;
        let mib = stage_bytes >> 20;
        self.came_back("back after kill -9, nothing staged")?;

        let names: Vec<String> = (0..stage_bytes / LARGE_BYTES).map(|i| format!("staged-{i}.ckpt")).collect();
        for name in &names {
            large::write(self.granary.root(), name, LARGE_BYTES, &self.content)?;
        }
        self.came_back(&format!("back after kill -9, {mib} MiB staged in {} large files", names.len()))?;
        for name in &names {
            large::verify(self.granary.root(), name, LARGE_BYTES, &self.content)?;
            std::fs::remove_file(self.granary.root().join(name))?;
        }

        let mut staged = 0;
        for (set, count) in [
            (JOURNAL, million),
            (STAGED, (stage_bytes as usize).saturating_sub(million * JOURNAL.size) / STAGED.size),
        ] {
            let made = create::files(self.granary.root(), set, count, 8, &self.content, limits, Then::Close)?;
            ensure!(made.done == count as u64, "only {} of {count} files were made", made.done);
            staged += count * set.size;
            let mib = staged >> 20;
            self.came_back(&format!(
                "back after kill -9, {mib} MiB staged in small files, {count} of them {} KiB",
                set.size >> 10
            ))?;
            read::warm(self.granary.root(), set, count.min(1000), 1, &self.content, self.plan.seed, limits)?;
        }
        Ok(())
    }

    fn came_back(&mut self, work: &str) -> Result<()> {
        let (seconds, cpu) = self.granary.crash()?;
        self.report.add(&row(work, "s", Aim::ValueMax(30.0)), GRANARY, seconds);
        self.report.add(&row(format!("{work}: processor time"), "s", Aim::None), GRANARY, cpu);
        Ok(())
    }
}
