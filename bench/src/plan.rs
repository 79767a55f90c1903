//! The order of a round: every piece of work on every system, one right after another, each at rest before the next begins.

mod cold;
mod drain;
mod fsync;
mod group;
mod large;
mod list;
mod memory;
mod recovery;
mod scale;
mod sharing;
mod slow;
mod small;
mod systems;
mod tree;

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result};

use crate::content::Content;
use crate::report::{Aim, Report, Row};
use crate::stop;
use crate::system::{EXT4, Mode, Programs, System};
use crate::target::Target;
use crate::tree::Tree;
use crate::work::{Limits, Outcome, Set};

pub use group::Group;
pub use scale::Scale;
pub use sharing::{ReaderArgs, read as read_epoch};
pub use small::SMALL;
use systems::{Systems, Who};

pub struct Plan<'a> {
    pub programs: Programs,
    pub target: &'a Target,
    pub tree: &'a Tree,
    pub dir: &'a Path,
    pub scale: Scale,
    pub seed: u64,
    pub groups: Vec<Group>,
}

/// One round under way.
struct Round<'a> {
    plan: &'a Plan<'a>,
    number: u32,
    report: &'a mut Report,
    content: Content,
    systems: Systems,
    /// Files that there are: a slow system makes fewer.
    made: HashMap<(&'static str, &'static str), usize>,
}

/// Where Granary's volume of a round has its files' objects: backups of the metadata are elsewhere.
fn data_below(round: u32) -> String {
    format!("round-{round}/ns")
}

pub fn row(work: impl Into<String>, unit: &'static str, aim: Aim) -> Row {
    Row::new(work, unit, EXT4, aim)
}

fn label(mode: Mode) -> &'static str {
    match mode {
        Mode::Work => "`work`",
        Mode::Data => "`data`",
    }
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
        let systems = Systems::make(&self.programs, &dir, self.target, number)?;
        let (content, made) = (Content::new(self.seed), HashMap::new());
        let mut round = Round { plan: self, number, report, content, systems, made };
        self.groups_in_order(&mut round)?;
        drop(round);
        self.target.clear()
    }

    fn groups_in_order(&self, round: &mut Round<'_>) -> Result<()> {
        let has = |group| self.groups.contains(&group);
        if has(Group::Small) || has(Group::Read) {
            round.create()?;
        }
        if has(Group::Read) {
            round.both_modes(Round::read)?;
        }
        if has(Group::Fsync) {
            round.fsync()?;
        }
        if has(Group::Large) {
            round.large()?;
        }
        if has(Group::Tree) {
            round.unpack()?;
            round.both_modes(Round::find)?;
            round.cold_tree()?;
        }
        if has(Group::List) {
            round.make_listed()?;
            round.both_modes(Round::list)?;
        }
        if has(Group::Cold) || has(Group::Cpu) || has(Group::Slow) || has(Group::Sharing) {
            round.make_epoch()?;
        }
        if has(Group::Cold) || has(Group::Cpu) {
            round.cold(has(Group::Cold), has(Group::Cpu))?;
        }
        if has(Group::Slow) {
            round.slow()?;
        }
        if has(Group::Sharing) {
            round.sharing()?;
        }
        if has(Group::Memory) {
            round.memory()?;
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
        Ok(())
    }
}

impl Round<'_> {
    /// Runs `work` on the systems asked for, and puts what `value` makes of it into the row.
    fn each(
        &mut self,
        row: &Row,
        who: Who,
        value: fn(&Outcome) -> f64,
        mut work: impl FnMut(&mut dyn System, &Content) -> Result<Outcome>,
    ) -> Result<Vec<(&'static str, Outcome)>> {
        let mut outcomes = Vec::new();
        for system in self.systems.of(who, self.number) {
            stop::check()?;
            let name = system.name();
            let outcome = work(system, &self.content).with_context(|| format!("{}: on {name}", row.work))?;
            system.settle().with_context(|| format!("{name} does not come to rest"))?;
            self.report.add(row, name, value(&outcome));
            outcomes.push((name, outcome));
        }
        Ok(outcomes)
    }

    /// Work that leaves everything as it is, with Granary mounted in each mode; peers have but one.
    fn both_modes(&mut self, work: fn(&mut Self, Mode) -> Result<()>) -> Result<()> {
        work(self, Mode::Work)?;
        self.systems.granary.remount(Mode::Data)?;
        work(self, Mode::Data)?;
        self.systems.granary.remount(Mode::Work)
    }

    fn note_made(&mut self, set: Set, outcomes: &[(&'static str, Outcome)]) {
        self.made.extend(outcomes.iter().map(|(system, o)| ((*system, set.name), o.done as usize)));
    }

    fn made(&self, system: &'static str, set: Set) -> usize {
        self.made.get(&(system, set.name)).copied().unwrap_or(0)
    }

    fn limits(&self, seconds_max: f64) -> Limits {
        Limits { seconds_max, ..self.plan.scale.limits }
    }
}

/// Those that are measured with Granary in this mode.
fn who(mode: Mode, who: Who) -> Who {
    if mode == Mode::Data { Who::Own } else { who }
}
