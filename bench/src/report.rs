//! Samples of all rounds, as a table for people and as JSON for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::clock::unix_seconds;
use crate::stats::{Summary, summary};
use crate::system::{EXT4, GRANARY, JUICEFS};

/// The base of the rows about uploading.
pub const RAW_PUTS: &str = "raw PUTs";

/// What we want of a row. Shown, never asserted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Aim {
    /// Granary's rate over the base's in the same round.
    RatioMin(f64),
    /// Granary's value.
    ValueMax(f64),
    /// For information.
    None,
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
    fn summary(&self, system: &str) -> Option<Summary> {
        summary(self.samples.get(system)?)
    }

    /// Of `system` to the base, each in its round.
    fn ratio(&self, system: &str) -> Option<Summary> {
        let (values, base) = (self.samples.get(system)?, self.samples.get(self.base)?);
        summary(&values.iter().zip(base).map(|(v, b)| v / b).collect::<Vec<_>>())
    }

    fn aim_text(&self) -> String {
        let (wanted, met) = match self.aim {
            Aim::None => return "-".into(),
            Aim::RatioMin(r) => (format!("{r} or more"), self.ratio(GRANARY).map(|s| s.median >= r)),
            Aim::ValueMax(v) => (format!("{v} or less"), self.summary(GRANARY).map(|s| s.median <= v)),
        };
        match met {
            Some(true) => format!("{wanted}: met"),
            Some(false) => format!("{wanted}: **missed**"),
            None => wanted,
        }
    }
}

#[derive(Debug, Serialize)]
pub struct Report {
    taken_unix_s: u64,
    machine: String,
    store: String,
    /// What the work was done on.
    subject: String,
    rounds: u32,
    quick: bool,
    seed: u64,
    rows: Vec<Row>,
}

impl Report {
    /// `store` and `subject` for the head of the table.
    pub fn new(store: String, subject: String, rounds: u32, quick: bool, seed: u64) -> Self {
        Report {
            taken_unix_s: unix_seconds(),
            machine: machine(),
            store,
            subject,
            rounds,
            quick,
            seed,
            rows: Vec::new(),
        }
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

    pub fn markdown(&self) -> String {
        let peer = self.rows.iter().any(|r| r.samples.contains_key(JUICEFS));
        let mut out = String::new();
        let w = &mut out;
        let _ = writeln!(w, "# Granary beside a fresh ext4{}\n", if peer { " and JuiceFS" } else { "" });
        let _ = writeln!(w, "{}; store: {}; {}; seed {}.", self.machine, self.store, self.subject, self.seed);
        let plural = if self.rounds == 1 { "" } else { "s" };
        let _ = writeln!(
            w,
            "{} interleaved round{plural}: median (smallest-largest). A ratio is to ext4 in the same round,",
            self.rounds
        );
        let _ = writeln!(
            w,
            "or to a raw loop of PUTs where the row says so. Higher is better where the unit is a rate.\n"
        );
        if self.quick {
            let _ = writeln!(
                w,
                "**A quick run: a tenth of the work. It says that the benchmark runs, not how fast anything is.**\n"
            );
        }
        let _ = write!(w, "| work | unit | ext4 | Granary | ratio | aim |");
        let _ = writeln!(w, "{}", if peer { " JuiceFS | ratio |" } else { "" });
        let _ = writeln!(w, "|---|---|---|---|---|---|{}", if peer { "---|---|" } else { "" });
        for row in &self.rows {
            let cell = |s: Option<Summary>| s.map_or("-".into(), spread);
            let base = match row.base {
                EXT4 => cell(row.summary(EXT4)),
                other => row.summary(other).map_or("-".into(), |s| format!("{other}: {}", spread(s))),
            };
            let [work, unit] = [row.work.as_str(), row.unit];
            let (granary, ratio) = (cell(row.summary(GRANARY)), cell(row.ratio(GRANARY)));
            let _ = write!(w, "| {work} | {unit} | {base} | {granary} | {ratio} | {} |", row.aim_text());
            if peer {
                let _ = write!(w, " {} | {} |", cell(row.summary(JUICEFS)), cell(row.ratio(JUICEFS)));
            }
            let _ = writeln!(w);
        }
        out
    }
}

/// Three digits that mean something.
fn number(value: f64) -> String {
    match value {
        v if v >= 1000.0 => {
            let digits = format!("{v:.0}");
            let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
            groups.join(",")
        }
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

fn spread(s: Summary) -> String {
    let [median, min, max] = [s.median, s.min, s.max].map(number);
    if min == max { median } else { format!("{median} ({min}-{max})") }
}

fn machine() -> String {
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = info
        .lines()
        .find_map(|l| l.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    format!("{cpus} CPUs, {} GiB memory, Linux {kernel}", kib.unwrap_or(0) >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(samples: &[(&'static str, &[f64])], aim: Aim) -> Report {
        let row = Row { work: "create".into(), unit: "files/s", base: EXT4, aim, samples: BTreeMap::new() };
        let mut report = Report {
            taken_unix_s: 0,
            machine: "m".into(),
            store: "s".into(),
            subject: "t".into(),
            rounds: 3,
            quick: false,
            seed: 1,
            rows: vec![],
        };
        for (system, values) in samples {
            values.iter().for_each(|&v| report.add(&row, system, v));
        }
        report
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let samples: [(&str, &[f64]); 2] =
            [(EXT4, &[10_000.0, 40_000.0, 20_000.0]), (GRANARY, &[3000.0, 4000.0, 5000.0])];
        let text = report(&samples, Aim::RatioMin(0.2)).markdown();
        let line = "| create | files/s | 20,000 (10,000-40,000) | 4,000 (3,000-5,000) | 0.25 (0.10-0.30) | 0.2 or more: met |";
        assert!(text.contains(line), "{text}");
        let text = report(&samples, Aim::RatioMin(0.3)).markdown();
        assert!(text.contains("0.3 or more: **missed**") && !text.contains("JuiceFS"), "{text}");
    }

    #[test]
    fn peers_get_columns_and_values_have_aims() {
        let text = report(&[(GRANARY, &[15.0]), (JUICEFS, &[10_401.0])], Aim::ValueMax(30.0)).markdown();
        assert!(text.contains("| - | 15.0 | - | 30 or less: met | 10,401 | - |"), "{text}");
    }

    #[test]
    fn numbers() {
        assert_eq!(
            [0.123, 9.9, 99.94, 100.4, 999.0, 1234567.0].map(number),
            ["0.12", "9.90", "99.9", "100", "999", "1,234,567"]
        );
    }
}
