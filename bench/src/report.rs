//! Samples of all rounds: as a table for people, as JSON for programs, as plots.

mod aim;
mod machine;
mod numbers;
mod plot;
mod table;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

pub use aim::Aim;
use numbers::number;

use crate::clock::unix_seconds;
use crate::stats::{Summary, summary};
use crate::system::{GRANARY, JUICEFS, RCLONE, S3FS};

/// Bases that are no file system: loops of requests by a program that does nothing else.
pub const RAW_PUTS: &str = "raw PUTs";
pub const RAW_GETS: &str = "raw GETs";

/// In the order of the table's columns.
const PEERS: [&str; 3] = [JUICEFS, S3FS, RCLONE];

/// As people write them.
fn title(system: &str) -> &str {
    match system {
        GRANARY => "Granary",
        JUICEFS => "JuiceFS",
        other => other,
    }
}

/// One line of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub work: String,
    pub unit: &'static str,
    pub base: &'static str,
    pub aim: Aim,
    /// By system; one value a round, in order. A row's systems all ran in each round that it has.
    pub samples: BTreeMap<&'static str, Vec<f64>>,
}

impl Row {
    pub fn new(work: impl Into<String>, unit: &'static str, base: &'static str, aim: Aim) -> Row {
        Row { work: work.into(), unit, base, aim, samples: BTreeMap::new() }
    }

    fn summary(&self, system: &str) -> Option<Summary> {
        summary(self.samples.get(system)?)
    }

    /// Of `system` to another, each in its round.
    fn ratio_to(&self, system: &str, other: &str) -> Option<Summary> {
        let (values, base) = (self.samples.get(system)?, self.samples.get(other)?);
        summary(&values.iter().zip(base).map(|(v, b)| v / b).collect::<Vec<_>>())
    }

    /// Of `system` to the base.
    fn ratio(&self, system: &str) -> Option<Summary> {
        self.ratio_to(system, self.base)
    }
}

/// What the head of the table says.
#[derive(Debug, Serialize)]
pub struct Head {
    pub store: String,
    /// What the work was done on.
    pub subject: String,
    /// How many were asked for.
    pub rounds: u32,
    pub quick: bool,
    pub seed: u64,
    /// What each program says of itself.
    pub versions: BTreeMap<&'static str, String>,
}

#[derive(Debug, Serialize)]
pub struct Report {
    taken_unix_s: u64,
    machine: String,
    #[serde(flatten)]
    head: Head,
    rounds_done: u32,
    /// What is not as it was asked for, and why.
    notes: Vec<String>,
    rows: Vec<Row>,
}

impl Report {
    pub fn new(head: Head, notes: Vec<String>) -> Self {
        let machine = machine::describe();
        Report { taken_unix_s: unix_seconds(), machine, head, rounds_done: 0, notes, rows: Vec::new() }
    }

    /// Adds one round's value of a row, and says it.
    pub fn add(&mut self, row: &Row, system: &'static str, value: f64) {
        eprintln!("  {:<66} {system:<9} {:>10} {}", row.work, number(value), row.unit);
        let at = self.rows.iter().position(|r| r.work == row.work).unwrap_or_else(|| {
            self.rows.push(row.clone());
            self.rows.len() - 1
        });
        self.rows[at].samples.entry(system).or_default().push(value);
    }

    /// Adds a note, once.
    pub fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            eprintln!("  {note}");
            self.notes.push(note);
        }
    }

    pub fn round_done(&mut self) {
        self.rounds_done += 1;
    }

    /// `report.md`, `samples.json`, and the plots, into `dir`.
    pub fn write(&self, dir: &Path) -> Result<()> {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let write = |name: &str, text: &str| {
            let path = dir.join(name);
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        write("report.md", &self.markdown())?;
        write("samples.json", &(serde_json::to_string_pretty(self)? + "\n"))?;
        for (name, svg) in plot::all(&self.rows)? {
            write(name, &svg)?;
        }
        Ok(())
    }

    /// Peers that have a value, in the order of the columns.
    fn peers(&self) -> Vec<&'static str> {
        let has = |peer: &&str| self.rows.iter().any(|row| row.samples.contains_key(peer));
        PEERS.into_iter().filter(has).collect()
    }
}

#[cfg(test)]
mod tests;
