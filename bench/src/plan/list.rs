//! A large directory, listed.

use anyhow::Result;

use super::{Round, Who, label, row, who};
use crate::report::Aim;
use crate::system::Mode;
use crate::work::create::Then;
use crate::work::{Outcome, Set, create, list};

const LISTED: Set = Set { name: "listed", size: 64, id: 10 };

impl Round<'_> {
    pub(super) fn make_listed(&mut self) -> Result<()> {
        // So long for one that is slow: what it has made by then is what is listed of it.
        let (count, limits) = (self.plan.scale.listed, self.limits(60.0));
        let mut outcomes = Vec::new();
        for system in self.systems.of(Who::Posix, self.number) {
            let limits =
                if system.name() == crate::system::JUICEFS { self.plan.scale.limits } else { limits };
            let made = create::files(system.root(), LISTED, count, 8, &self.content, limits, Then::Close)?;
            system.settle()?;
            outcomes.push((system.name(), made));
        }
        for (name, made) in outcomes.iter().filter(|(_, made)| (made.done as usize) < count) {
            self.report.note(format!(
                "ls -l: {name} made {} of {count} files in its time, and listed those.",
                made.done
            ));
        }
        self.note_made(LISTED, &outcomes);
        Ok(())
    }

    pub(super) fn list(&mut self, mode: Mode) -> Result<()> {
        let limits = self.plan.scale.limits;
        let made = self.made.clone();
        let title = format!("ls -l of {} entries, warm, {}", self.plan.scale.listed, label(mode));
        let row = row(title, "entries/s", Aim::RatioMin(0.8));
        self.each(&row, who(mode, Who::Posix), Outcome::rate, |system, _| {
            let count = made.get(&(system.name(), LISTED.name)).copied().unwrap_or(0);
            list::long(system.root(), LISTED, count, limits)
        })?;
        Ok(())
    }
}
