//! Small files: made, and read while everything is warm.

use anyhow::Result;

use super::{Round, Scale, Who, label, row, who};
use crate::report::Aim;
use crate::system::Mode;
use crate::work::create::Then;
use crate::work::{Outcome, Set, create, read};

pub const SMALL: Set = Set { name: "small", size: 4 << 10, id: 1 };
const MEDIUM: Set = Set { name: "medium", size: 100 << 10, id: 2 };
const MANY: Set = Set { name: "many", size: 4 << 10, id: 4 };
/// What a system without metadata of its own makes of each set, one part of so many: each file is requests to the store.
const OBJECTS_PART: usize = 10;

fn plural(threads: usize) -> &'static str {
    if threads == 1 { "" } else { "s" }
}

impl Round<'_> {
    pub(super) fn create(&mut self) -> Result<()> {
        let Scale { small, medium, limits, .. } = self.plan.scale;
        for (set, count, threads, title, aim) in [
            (SMALL, small, 1, "create + write 4 KiB + close, 1 thread", Aim::RatioMin(0.45)),
            (MANY, small, 8, "create + write 4 KiB + close, 8 threads", Aim::RatioMin(0.3)),
            (MEDIUM, medium, 8, "create + write 100 KiB + close, 8 threads", Aim::RatioMin(0.3)),
        ] {
            let row = row(title, "files/s", aim);
            let outcomes = self.each(&row, Who::All, Outcome::rate, |system, content| {
                let count = if system.is_posix() { count } else { count / OBJECTS_PART };
                create::warm_up(system.root(), set, content)?;
                create::files(system.root(), set, count, threads, content, limits, Then::Close)
            })?;
            self.note_made(set, &outcomes);
        }
        Ok(())
    }

    pub(super) fn read(&mut self, mode: Mode) -> Result<()> {
        let (limits, seed) = (self.plan.scale.limits, self.plan.seed);
        let label = label(mode);
        let made = self.made.clone();
        let count = |system: &'static str, set: Set| made.get(&(system, set.name)).copied().unwrap_or(0);
        for (set, size, work_aim) in [(SMALL, "4 KiB", 0.25), (MEDIUM, "100 KiB", 0.35)] {
            let aim = Aim::RatioMin(if mode == Mode::Data { 0.8 } else { work_aim });
            for threads in [1, 8] {
                let plural = plural(threads);
                let title = format!("open + read + close {size}, warm, {threads} thread{plural}, {label}");
                self.each(
                    &row(title, "files/s", aim),
                    who(mode, Who::All),
                    Outcome::rate,
                    |system, content| {
                        let count = count(system.name(), set);
                        read::warm(system.root(), set, count, threads, content, seed, limits)
                    },
                )?;
            }
        }
        let row = row(format!("stat, warm, 1 thread, {label}"), "files/s", Aim::RatioMin(0.9));
        self.each(&row, who(mode, Who::All), Outcome::rate, |system, _| {
            read::stat(system.root(), SMALL, count(system.name(), SMALL), seed, limits)
        })?;
        Ok(())
    }
}
