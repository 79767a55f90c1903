//! What the node takes in memory, at its worst, while very many files are walked and very much is read through it.

use anyhow::{Context, Result, ensure};

use super::{Round, Scale, row};
use crate::process::drop_caches;
use crate::report::Aim;
use crate::stop;
use crate::system::{GRANARY, System};
use crate::work::create::Then;
use crate::work::{Limits, Set, create, large, list};

const MIB_MAX: f64 = 512.0;
const WALKED: Set = Set { name: "files", size: 64, id: 11 };
/// In each directory.
const FILES: usize = 10_000;
const LARGE_BYTES: u64 = 1 << 30;

impl Round<'_> {
    pub(super) fn memory(&mut self) -> Result<()> {
        let Scale { memory_files, memory_bytes, .. } = self.plan.scale;
        let limits = Limits { seconds_min: 0.0, seconds_max: 24.0 * 3600.0 };
        let root = self.systems.granary.root().join("walked");
        std::fs::create_dir(&root)?;
        eprintln!("  making {memory_files} files and {} MiB to walk and read", memory_bytes >> 20);
        let mut dirs = Vec::new();
        for first in (0..memory_files).step_by(FILES) {
            let (dir, count) = (root.join(format!("{}", first / FILES)), FILES.min(memory_files - first));
            std::fs::create_dir(&dir)?;
            create::files(&dir, WALKED, count, 8, &self.content, limits, Then::Close)?;
            dirs.push((dir, count));
        }
        let mut sizes = Vec::new();
        while sizes.iter().sum::<u64>() < memory_bytes {
            let bytes = LARGE_BYTES.min(memory_bytes - sizes.iter().sum::<u64>());
            large::write(&root, &format!("{}.ckpt", sizes.len()), bytes, &self.content)?;
            sizes.push(bytes);
        }
        self.systems.granary.forget(None)?; // a new process: its peak is of what comes now
        drop_caches()?;
        for (dir, count) in &dirs {
            stop::check()?;
            list::long(dir, WALKED, *count, limits)?;
        }
        let walked = self.peak()?;
        for (i, &bytes) in sizes.iter().enumerate() {
            large::read(&root, &format!("{i}.ckpt"), bytes)?;
        }
        let read = self.peak()?;
        ensure!(read >= walked, "a peak became smaller: the node was started again meanwhile");
        let of = format!("peak memory of the node, {memory_files} files walked");
        let aim = Aim::ValueMax(MIB_MAX);
        self.report.add(&row(&of, "MiB", aim), GRANARY, walked);
        let of = format!("{of} and {} MiB read through, cold", memory_bytes >> 20);
        self.report.add(&row(of, "MiB", aim), GRANARY, read);
        std::fs::remove_dir_all(root)?;
        Ok(())
    }

    fn peak(&self) -> Result<f64> {
        let memory = self.systems.granary.memory()?.context("Granary has a node")?;
        Ok(memory.peak_kib as f64 / 1024.0)
    }
}
