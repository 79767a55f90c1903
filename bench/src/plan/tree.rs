//! A real tree of small files.

use anyhow::{Result, ensure};

use super::{Round, Who, data_below, label, row, who};
use crate::process::drop_caches;
use crate::report::Aim;
use crate::system::{GRANARY, Mode};
use crate::work::{Outcome, tree as tree_work};

const MEMORY_MIB_MAX: f64 = 256.0;

impl Round<'_> {
    pub(super) fn unpack(&mut self) -> Result<()> {
        let (tree, target) = (self.plan.tree, self.plan.target);
        let round = self.number + 1;
        let list = || target.list(&data_below(round));
        let before = list()?;
        let untar = row("untar a tree of small files", "files/s", Aim::None);
        self.each(&untar, Who::Posix, Outcome::rate, |system, _| tree_work::unpack(system.root(), tree))?;
        let objects = list()?.since(&before).objects;
        ensure!(objects > 0, "granary sync returned, and nothing of the tree is in the store");
        let title = format!("objects made from its {} files", tree.files.len());
        self.report.add(&row(title, "objects", Aim::ValueMax(30.0)), GRANARY, objects as f64);
        Ok(())
    }

    pub(super) fn find(&mut self, mode: Mode) -> Result<()> {
        let (tree, limits) = (self.plan.tree, self.plan.scale.limits);
        let title = format!("find -printf %s, warm, {}", label(mode));
        let row = row(title, "entries/s", Aim::RatioMin(0.8));
        self.each(&row, who(mode, Who::Posix), Outcome::rate, |system, _| {
            tree_work::find(system.root(), tree, limits)
        })?;
        Ok(())
    }

    /// Reads the tree with nothing cached, then once more, and looks at what that takes in memory.
    pub(super) fn cold_tree(&mut self) -> Result<()> {
        let (tree, seed, limits) = (self.plan.tree, self.plan.seed, self.limits(120.0));
        let title = "read the tree once, cold (nothing on the node), 8 threads";
        let mut memory = Vec::new();
        self.each(&row(title, "files/s", Aim::None), Who::Posix, Outcome::rate, |system, _| {
            system.forget(None)?;
            drop_caches()?;
            let outcome = tree_work::read_once(system.root(), tree, 8, seed, limits)?;
            tree_work::read_once(system.root(), tree, 8, seed + 1, limits)?;
            memory.extend(system.memory()?.map(|m| (system.name(), m)));
            Ok(outcome)
        })?;
        for (system, m) in memory {
            for (what, kib) in [("resident", m.rss_kib), ("peak", m.peak_kib)] {
                let files = tree.files.len();
                let title = format!("memory of the node process with {files} files cached, {what}");
                let row = row(title, "MiB", Aim::ValueMax(MEMORY_MIB_MAX));
                self.report.add(&row, system, kib as f64 / 1024.0);
            }
        }
        Ok(())
    }
}
