//! How fast what is staged leaves for the store, beside raw PUTs.

use std::path::Path;

use anyhow::{Result, ensure};

use super::{Round, Scale, data_below, row};
use crate::clock::Stopwatch;
use crate::content::Content;
use crate::report::{Aim, RAW_PUTS, Row};
use crate::system::{GRANARY, System};
use crate::work::create::Then;
use crate::work::{Outcome, Set, create, large};

const DRAINED: Set = Set { name: "drained", size: 10 << 10, id: 3 };
/// Granary's default concurrency of uploads, and a block's payload.
const UPLOADS_MAX: usize = 4;
const OBJECT_BYTES: usize = 15 << 20;

impl Round<'_> {
    /// How fast what is staged leaves, beside PUTs of the same size and concurrency by a program that does nothing else.
    pub(super) fn drain(&mut self) -> Result<()> {
        let Scale { drain_bytes, drain_files, .. } = self.plan.scale;
        let limits = self.limits(600.0);
        self.systems.granary.hold_back(true)?;
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
        self.systems.granary.hold_back(false)?;
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
        stage(self.systems.granary.root(), &self.content)?;
        rustix::fs::sync();
        let early = list()?.since(&before).objects;
        ensure!(early == 0, "{early} objects were stored before they were to be");
        let watch = Stopwatch::start();
        self.systems.granary.sync()?;
        let outcome = Outcome { done: bytes, seconds: watch.seconds() };
        let stored = list()?.since(&before);
        ensure!(
            stored.bytes >= bytes,
            "granary sync returned with {} of {bytes} bytes in the store",
            stored.bytes
        );
        self.systems.granary.settle()?;
        self.report.add(&row, GRANARY, outcome.mb_rate());
        Ok(stored.objects)
    }
}
