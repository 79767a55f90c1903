//! Reading with nothing on the node: an epoch over small files, and one large file, beside raw GETs of the same bytes; and what
//! that takes of the processors.
//!
//! Cold is: the system was unmounted and its processes ended, its cache directory was removed, it was mounted again, and the
//! kernel's page, name and inode caches were dropped, the store's own among them when it is on this machine. What a system has
//! of metadata stays.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use super::{Round, Scale, Who, row};
use crate::content::Content;
use crate::process::drop_caches;
use crate::report::{Aim, RAW_GETS, Row};
use crate::stop;
use crate::system::{GRANARY, JUICEFS, Mode, System};
use crate::target::{DATA, RawGets};
use crate::work::create::Then;
use crate::work::{Limits, Outcome, Set, create, large, once};

pub(super) const EPOCH: Set = Set { name: "epoch", size: 100 << 10, id: 9 };
const LARGE: &str = "epoch.ckpt";
const RAW: &str = "raw";
pub(super) const THREADS: usize = 8;
/// Objects as large as Granary's blocks and packs, and as many GETs at once as Granary makes by default (`fetches_max`).
const OBJECT_BYTES: usize = 15 << 20;
const FETCHES: usize = 32;
/// For making the data set on a slow system, and for reading it.
const MAKE_S: f64 = 40.0;
pub(super) const READ_S: f64 = 20.0;
const GIB: f64 = (1u64 << 30) as f64;

const SHUFFLED: Aim = Aim::All(&[Aim::RatioMin(0.8), Aim::TimesMin(JUICEFS, 18.0)]);
const SEQUENTIAL: Aim = Aim::All(&[Aim::RatioMin(0.95), Aim::TimesMin(JUICEFS, 1.5)]);

/// Where a system has the data set.
pub(super) fn place_of(system: &dyn System) -> PathBuf {
    system.stored().unwrap_or_else(|| system.root().to_owned())
}

impl Round<'_> {
    /// The data set: in the store as objects, once a run, and on each system that has a form of its own for it.
    pub(super) fn make_epoch(&mut self) -> Result<()> {
        let Scale { epoch_files, large_bytes, limits, .. } = self.plan.scale;
        let target = self.plan.target;
        eprintln!("  making the data set of {epoch_files} files");
        target.put_files(EPOCH, epoch_files, &self.content)?;
        target.put_raw(RAW, OBJECT_BYTES, self.raw_objects(), &self.content)?;
        target.verify_object(&format!("{RAW}/000000.bin"), OBJECT_BYTES, 0, &self.content)?;
        target.put_large(LARGE, large_bytes, &self.content)?;
        let limits = Limits { seconds_max: MAKE_S, ..limits };
        let mut outcomes = Vec::new();
        for system in self.systems.of(Who::Stored, self.number) {
            stop::check()?;
            let made = if system.stored().is_some() {
                Outcome { done: epoch_files as u64, seconds: 0.0 }
            } else {
                let (root, content) = (system.root(), &self.content);
                let made = create::files(root, EPOCH, epoch_files, THREADS, content, limits, Then::Close)?;
                large::write(root, LARGE, large_bytes, content)?;
                system.settle()?;
                made
            };
            outcomes.push((system.name(), made));
        }
        for (name, made) in outcomes.iter().filter(|(_, made)| (made.done as usize) < epoch_files) {
            self.report.note(format!(
                "cold: {name} made {} of {epoch_files} files in {MAKE_S} s, and read those.",
                made.done
            ));
        }
        self.note_made(EPOCH, &outcomes);
        let made = self.made(GRANARY, EPOCH);
        ensure!(made == epoch_files, "only {made} of {epoch_files} files were made on Granary");
        Ok(())
    }

    /// As many as have the epoch's bytes.
    fn raw_objects(&self) -> usize {
        (self.plan.scale.epoch_files * EPOCH.size).div_ceil(OBJECT_BYTES)
    }

    /// GETs of as many bytes as the epoch has, in objects of 15 MiB, from the store or through `endpoint`.
    pub(super) fn raw_gets(&self, endpoint: Option<&str>) -> Result<Outcome> {
        drop_caches()?;
        self.plan.target.raw_gets(RawGets {
            below: RAW,
            object_bytes: OBJECT_BYTES,
            count: self.raw_objects(),
            concurrency: FETCHES,
            seed: self.plan.seed + u64::from(self.number),
            endpoint,
        })
    }

    pub(super) fn epoch_title(&self) -> String {
        let (files, kib) = (self.plan.scale.epoch_files, EPOCH.size >> 10);
        format!("shuffled read of {files} files of {kib} KiB, {THREADS} threads")
    }

    pub(super) fn cold(&mut self, rates: bool, cpu: bool) -> Result<()> {
        if rates {
            self.raw_small()?;
        }
        self.cold_epoch(rates, cpu)?;
        if rates {
            self.cold_data()?;
            self.cold_large()?;
        }
        Ok(())
    }

    /// What the store gives when each file is an object: what a client without packs can reach at best.
    fn raw_small(&mut self) -> Result<()> {
        let count = self.plan.scale.epoch_files;
        for concurrency in [THREADS, FETCHES] {
            drop_caches()?;
            let outcome = self.plan.target.raw_gets(RawGets {
                below: &format!("{DATA}/{}", EPOCH.name),
                object_bytes: EPOCH.size,
                count,
                concurrency,
                seed: self.plan.seed + u64::from(self.number),
                endpoint: None,
            })?;
            let title = format!("GETs of {count} objects of 100 KiB, shuffled, {concurrency} at once");
            self.report.add(&Row::new(title, "MB/s", RAW_GETS, Aim::None), RAW_GETS, outcome.mb_rate());
        }
        Ok(())
    }

    /// The epoch, cold; then warm from the node's disk, where each byte is checked.
    fn cold_epoch(&mut self, rates: bool, cpu: bool) -> Result<()> {
        let title = format!("cold: {}", self.epoch_title());
        let rate = Row::new(&title, "MB/s", RAW_GETS, SHUFFLED);
        let cpu_row = |how: &str| {
            let title = format!("processor time of the node's processes, epoch read {how}");
            row(title, "s/GiB", Aim::Below(JUICEFS))
        };
        if rates {
            let raw = self.raw_gets(None)?;
            self.report.add(&rate, RAW_GETS, raw.mb_rate());
        }
        let (seed, limits, made) = (self.plan.seed, self.limits(READ_S), self.made.clone());
        for system in self.systems.of(Who::Stored, self.number) {
            stop::check()?;
            let name = system.name();
            let count = made.get(&(name, EPOCH.name)).copied().unwrap_or(0);
            let pass = |system: &dyn System, seed: u64, content: Option<&Content>| {
                drop_caches()?;
                let before = system.cpu_seconds();
                let pass =
                    once::shuffled_pass(&place_of(system), EPOCH, count, THREADS, seed, limits, content)?;
                let used = before.zip(system.cpu_seconds()).map(|(before, after)| after - before);
                let gib = pass.outcome.done as f64 / GIB;
                anyhow::Ok((pass.outcome, used.context("it has no processes")? / gib.max(1e-9)))
            };
            system.forget(None).with_context(|| format!("cold: {name}"))?;
            let (cold, cold_cpu) = pass(system, seed, None).with_context(|| format!("cold: {name}"))?;
            if rates {
                self.report.add(&rate, name, cold.mb_rate());
            }
            if cpu {
                self.report.add(&cpu_row("cold"), name, cold_cpu);
                let warm =
                    pass(system, seed, Some(&self.content)).with_context(|| format!("warm: {name}"))?;
                self.report.add(&cpu_row("warm, from the node's disk"), name, warm.1);
            }
            system.settle()?;
        }
        Ok(())
    }

    /// Granary's epoch again, as training mounts it.
    fn cold_data(&mut self) -> Result<()> {
        let rate =
            Row::new(format!("cold: {}, `data`", self.epoch_title()), "MB/s", RAW_GETS, Aim::RatioMin(0.8));
        let raw = self.raw_gets(None)?;
        self.report.add(&rate, RAW_GETS, raw.mb_rate());
        let (seed, limits, count) = (self.plan.seed, self.limits(READ_S), self.made(GRANARY, EPOCH));
        let granary = &mut self.systems.granary;
        granary.forget(None)?;
        granary.remount(Mode::Data)?;
        drop_caches()?;
        let pass = once::shuffled_pass(granary.root(), EPOCH, count, THREADS, seed, limits, None)?;
        granary.remount(Mode::Work)?;
        self.report.add(&rate, GRANARY, pass.outcome.mb_rate());
        Ok(())
    }

    fn cold_large(&mut self) -> Result<()> {
        let bytes = self.plan.scale.large_bytes;
        let title = format!("cold: sequential read of {} MiB", bytes >> 20);
        let row = Row::new(title, "MB/s", RAW_GETS, SEQUENTIAL);
        let raw = self.raw_gets(None)?;
        self.report.add(&row, RAW_GETS, raw.mb_rate());
        self.each(&row, Who::Stored, Outcome::mb_rate, |system, content| {
            system.forget(None)?;
            drop_caches()?;
            let outcome = large::read(&place_of(system), LARGE, bytes)?;
            large::verify(&place_of(system), LARGE, bytes, content)?;
            Ok(outcome)
        })?;
        Ok(())
    }
}
