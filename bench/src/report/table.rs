//! The table: Markdown.

use std::fmt::Write as _;

use super::numbers::spread;
use super::{Report, Row, title};
use crate::stats::Summary;
use crate::system::{EXT4, GRANARY};

fn cell(summary: Option<Summary>) -> String {
    summary.map_or("-".into(), spread)
}

impl Report {
    pub fn markdown(&self) -> String {
        let peers = self.peers();
        let mut out = self.head_text(&peers);
        let w = &mut out;
        let _ = write!(w, "| work | unit | ext4 | Granary | ratio | aim |");
        let columns: String = peers.iter().map(|peer| format!(" {} | ratio |", title(peer))).collect();
        let _ = writeln!(w, "{columns}");
        let _ = writeln!(w, "|---|---|---|---|---|---|{}", "---|---|".repeat(peers.len()));
        for row in &self.rows {
            let _ = writeln!(w, "{}", line(row, &peers));
        }
        if !self.notes.is_empty() {
            let _ = writeln!(w);
        }
        for note in &self.notes {
            let _ = writeln!(w, "* {note}");
        }
        out
    }

    fn head_text(&self, peers: &[&str]) -> String {
        let head = &self.head;
        let mut out = String::new();
        let w = &mut out;
        let names: Vec<&str> = ["a fresh ext4"].into_iter().chain(peers.iter().map(|p| title(p))).collect();
        let beside = match names.split_last() {
            Some((last, [])) => (*last).to_owned(),
            Some((last, others)) => format!("{} and {last}", others.join(", ")),
            None => String::new(),
        };
        let _ = writeln!(w, "# Granary beside {beside}\n");
        let _ = writeln!(w, "{}; store: {}; {}; seed {}.", self.machine, head.store, head.subject, head.seed);
        let versions: Vec<_> =
            head.versions.iter().map(|(name, v)| format!("{}: {v}", title(name))).collect();
        let _ = writeln!(w, "{}.", versions.join("; "));
        let plural = if self.rounds_done == 1 { "" } else { "s" };
        let _ = writeln!(
            w,
            "{} interleaved round{plural}: median (smallest-largest). A ratio is to ext4 in the same round,",
            self.rounds_done
        );
        let _ = writeln!(
            w,
            "or to a raw loop of PUTs or GETs where the row says so. Higher is better where the unit is a rate.\n"
        );
        if head.quick {
            let _ = writeln!(
                w,
                "**A quick run: a tenth of the work. It says that the benchmark runs, not how fast anything is.**\n"
            );
        }
        out
    }
}

fn line(row: &Row, peers: &[&str]) -> String {
    let base = match row.base {
        EXT4 => cell(row.summary(EXT4)),
        other => row.summary(other).map_or("-".into(), |s| format!("{other}: {}", spread(s))),
    };
    let [work, unit] = [row.work.as_str(), row.unit];
    let (granary, ratio) = (cell(row.summary(GRANARY)), cell(row.ratio(GRANARY)));
    let aim = row.aim.text(row);
    let mut out = format!("| {work} | {unit} | {base} | {granary} | {ratio} | {aim} |");
    for peer in peers {
        let _ = write!(out, " {} | {} |", cell(row.summary(peer)), cell(row.ratio(peer)));
    }
    out
}
