//! One large file, on the node's disk and in its page cache.

use anyhow::Result;

use super::{Round, Who, label, row, who};
use crate::process::drop_caches;
use crate::report::Aim;
use crate::system::Mode;
use crate::work::{Outcome, large, pages};

const NAME: &str = "1.ckpt";
/// From the page cache in mode `data`: each MiB is a request.
const DATA_MB_S_MIN: f64 = 4000.0;

impl Round<'_> {
    pub(super) fn large(&mut self) -> Result<()> {
        let (bytes, seed) = (self.plan.scale.large_bytes, self.plan.seed);
        let size = format!("{} MiB", bytes >> 20);
        let write = row(format!("write {size} + fsync"), "MB/s", Aim::RatioMin(0.95));
        self.each(&write, Who::All, Outcome::mb_rate, |system, content| {
            large::write(system.root(), "0.ckpt", 64 << 20, content)?; // the first of its directory warms up
            system.settle()?;
            large::write(system.root(), NAME, bytes, content)
        })?;
        self.both_modes(Round::read_large)?;
        let title = format!("overwrite one page in eight of {size}, 4 KiB at random + fsync");
        let overwrite = row(title, "pages/s", Aim::RatioMin(0.7));
        // JuiceFS makes an object of each page: 128 MiB of them had filled 47 GB of the store's disk when it was stopped.
        self.each(&overwrite, Who::Own, Outcome::rate, |system, content| {
            let outcome = large::overwrite(system.root(), NAME, bytes, content, seed)?;
            large::verify_overwritten(system.root(), NAME, bytes, content, seed)?;
            Ok(outcome)
        })?;
        Ok(())
    }

    fn read_large(&mut self, mode: Mode) -> Result<()> {
        let (bytes, seed, limits) = (self.plan.scale.large_bytes, self.plan.seed, self.plan.scale.limits);
        let size = format!("{} MiB", bytes >> 20);
        let (label, who) = (label(mode), who(mode, Who::All));
        let (disk_aim, cache_aim, aim) = match mode {
            Mode::Work => (Aim::RatioMin(0.95), Aim::RatioMin(0.95), Aim::RatioMin(0.95)),
            Mode::Data => (Aim::RatioMin(0.9), Aim::ValueMin(DATA_MB_S_MIN), Aim::None),
        };
        let disk = row(format!("read {size} from the node's disk, {label}"), "MB/s", disk_aim);
        self.each(&disk, who, Outcome::mb_rate, |system, content| {
            drop_caches()?;
            let outcome = large::read(system.root(), NAME, bytes)?;
            large::verify(system.root(), NAME, bytes, content)?;
            Ok(outcome)
        })?;
        let cache = row(format!("read {size} from the page cache, {label}"), "MB/s", cache_aim);
        self.each(&cache, who, Outcome::mb_rate, |system, _| {
            large::read(system.root(), NAME, bytes)?;
            large::read(system.root(), NAME, bytes)
        })?;
        let mapped = row(format!("mmap, {size} read once from the page cache, {label}"), "MB/s", aim);
        self.each(&mapped, who, Outcome::mb_rate, |system, _| {
            pages::mapped(system.root(), NAME, bytes)?;
            pages::mapped(system.root(), NAME, bytes)
        })?;
        let random = row(format!("random reads of 4 KiB from the page cache, {label}"), "pages/s", aim);
        self.each(&random, who, Outcome::rate, |system, _| {
            large::read(system.root(), NAME, bytes)?;
            pages::random(system.root(), NAME, bytes, seed, limits)
        })?;
        let random = row(format!("random reads of 4 KiB from the node's disk, {label}"), "pages/s", aim);
        self.each(&random, who, Outcome::rate, |system, _| {
            drop_caches()?;
            pages::random(system.root(), NAME, bytes, seed, limits)
        })?;
        Ok(())
    }
}
