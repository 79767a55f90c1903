//! Small synchronous writes.

use anyhow::Result;

use super::{Round, Who, row};
use crate::report::Aim;
use crate::work::create::Then;
use crate::work::{Outcome, Set, create, large};

const SYNCED: Set = Set { name: "synced", size: 4 << 10, id: 5 };

impl Round<'_> {
    pub(super) fn fsync(&mut self) -> Result<()> {
        let limits = self.plan.scale.limits;
        let append = row("append 4 KiB + fsync", "calls/s", Aim::None);
        self.each(&append, Who::Posix, Outcome::rate, |system, content| {
            large::write_fsync(system.root(), "appended.log", content, limits)
        })?;
        let count = self.plan.scale.small / 5;
        for threads in [1, 8] {
            let plural = if threads == 1 { "" } else { "s" };
            let title = format!("create + write 4 KiB + fsync + close, {threads} thread{plural}");
            let row = row(title, "files/s", Aim::RatioMin(0.8));
            self.each(&row, Who::Posix, Outcome::rate, |system, content| {
                let outcome =
                    create::files(system.root(), SYNCED, count, threads, content, limits, Then::Fsync)?;
                std::fs::remove_dir_all(system.root().join(SYNCED.name))?;
                Ok(outcome)
            })?;
        }
        Ok(())
    }
}
