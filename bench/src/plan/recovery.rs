//! A node with very much that was just written: its memory, and how long it takes to come back after kill -9.

use anyhow::{Context, Result, ensure};

use super::{Round, Scale, data_below, row};
use crate::report::Aim;
use crate::system::{GRANARY, System};
use crate::work::create::Then;
use crate::work::{Set, create, large, read};

const MILLION: Set = Set { name: "million", size: 1 << 10, id: 6 };
const JOURNAL: Set = Set { name: "journal", size: 1 << 10, id: 7 };
const STAGED: Set = Set { name: "staged", size: 100 << 10, id: 8 };
const LARGE_BYTES: u64 = 100 << 20;

impl Round<'_> {
    /// What the node takes in memory, at its worst, while very many files are made; and the objects they become.
    pub(super) fn million(&mut self) -> Result<()> {
        let Scale { million, .. } = self.plan.scale;
        let limits = self.limits(1800.0);
        let (target, round) = (self.plan.target, self.number + 1);
        let list = || target.list(&data_below(round));
        let before = list()?;
        let made = create::files(
            self.systems.granary.root(),
            MILLION,
            million,
            8,
            &self.content,
            limits,
            Then::Close,
        )?;
        ensure!(made.done == million as u64, "only {} of {million} files were made", made.done);
        self.systems.granary.sync()?;
        let memory = self.systems.granary.memory()?.context("Granary has a node")?;
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
    pub(super) fn recovery(&mut self) -> Result<()> {
        let Scale { million, stage_bytes, .. } = self.plan.scale;
        let limits = self.limits(3600.0);
        self.systems.granary.hold_all()?;
        let mib = stage_bytes >> 20;
        self.came_back("back after kill -9, nothing staged")?;

        let names: Vec<String> = (0..stage_bytes / LARGE_BYTES).map(|i| format!("staged-{i}.ckpt")).collect();
        for name in &names {
            large::write(self.systems.granary.root(), name, LARGE_BYTES, &self.content)?;
        }
        self.came_back(&format!("back after kill -9, {mib} MiB staged in {} large files", names.len()))?;
        for name in &names {
            large::verify(self.systems.granary.root(), name, LARGE_BYTES, &self.content)?;
            std::fs::remove_file(self.systems.granary.root().join(name))?;
        }

        let mut staged = 0;
        for (set, count) in [
            (JOURNAL, million),
            (STAGED, (stage_bytes as usize).saturating_sub(million * JOURNAL.size) / STAGED.size),
        ] {
            let made = create::files(
                self.systems.granary.root(),
                set,
                count,
                8,
                &self.content,
                limits,
                Then::Close,
            )?;
            ensure!(made.done == count as u64, "only {} of {count} files were made", made.done);
            staged += count * set.size;
            let mib = staged >> 20;
            self.came_back(&format!(
                "back after kill -9, {mib} MiB staged in small files, {count} of them {} KiB",
                set.size >> 10
            ))?;
            read::warm(
                self.systems.granary.root(),
                set,
                count.min(1000),
                1,
                &self.content,
                self.plan.seed,
                limits,
            )?;
        }
        Ok(())
    }

    fn came_back(&mut self, work: &str) -> Result<()> {
        let (seconds, cpu) = self.systems.granary.crash()?;
        self.report.add(&row(work, "s", Aim::ValueMax(30.0)), GRANARY, seconds);
        self.report.add(&row(format!("{work}: processor time"), "s", Aim::None), GRANARY, cpu);
        Ok(())
    }
}
