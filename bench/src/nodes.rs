//! `--nodes`: one namespace on several nodes through a metadata service, beside a fresh ext4 and, when asked, JuiceFS mounted as often.

use std::path::Path;

use anyhow::{Context, Result};

use crate::content::Content;
use crate::plan::{SMALL, Scale, row};
use crate::report::{Aim, Report};
use crate::stats::percentile;
use crate::stop;
use crate::system::nodes::{GranaryNodes, JuicefsNodes, Nodes};
use crate::system::{EXT4, Ext4, GRANARY, Programs, System};
use crate::target::Target;
use crate::work::service::Clients;
use crate::work::visible::Visible;
use crate::work::{Limits, Outcome, Set, create, read, visible};

/// The rounds that stale reads are counted in.
const ROUNDS: u64 = 10_000;
/// Clients of the service that work at once, and sessions that do nothing.
const CLIENTS: usize = 32;
const SESSIONS: usize = 256;
const SHARED: Set = Set { name: "small-8", size: 4 << 10, id: 4 };

pub struct NodesPlan<'a> {
    pub programs: Programs,
    pub target: &'a Target,
    pub dir: &'a Path,
    pub scale: Scale,
    pub seed: u64,
    pub nodes: usize,
}

/// The systems of one round.
struct Round<'a> {
    plan: &'a NodesPlan<'a>,
    report: &'a mut Report,
    content: Content,
    ext4: Ext4,
    granary: GranaryNodes,
    juicefs: Option<JuicefsNodes>,
    /// Files that there are: a slow system makes fewer.
    made: Vec<(&'static str, usize)>,
}

impl NodesPlan<'_> {
    pub fn subject(&self) -> String {
        format!("{} nodes of one machine through a metadata service on loopback", self.nodes)
    }

    pub fn round(&self, number: u32, report: &mut Report) -> Result<()> {
        let name = format!("round-{}", number + 1);
        eprintln!("{name}: making fresh file systems");
        let dir = self.dir.join(&name);
        std::fs::create_dir(&dir)?;
        let programs = &self.programs;
        let juicefs = programs.juicefs.as_deref().map(|binary| {
            JuicefsNodes::make(binary, &dir, self.target, &format!("juicefs-{}", number + 1), self.nodes)
        });
        let mut round = Round {
            plan: self,
            report,
            content: Content::new(self.seed),
            ext4: Ext4::make(&dir)?,
            granary: GranaryNodes::make(&programs.granary, &dir, self.target, &name, self.nodes)
                .context("Granary")?,
            juicefs: juicefs.transpose().context("JuiceFS")?,
            made: Vec::new(),
        };
        round.create()?;
        round.unchanged()?;
        round.visible()?;
        round.service()?;
        drop(round);
        self.target.clear()
    }
}

impl Round<'_> {
    /// Each system's name and the places where its nodes see it; ext4 has one node.
    fn places(&self) -> Vec<(&'static str, Vec<std::path::PathBuf>)> {
        let mut places = vec![
            (EXT4, vec![self.ext4.root().to_owned()]),
            (self.granary.name(), self.granary.roots().to_vec()),
        ];
        places.extend(self.juicefs.as_ref().map(|j| (j.name(), j.roots().to_vec())));
        places
    }

    fn settle(&self) -> Result<()> {
        self.granary.settle()?;
        self.juicefs.as_ref().map_or(Ok(()), |j| j.settle())?;
        self.ext4.settle()
    }

    fn create(&mut self) -> Result<()> {
        let Scale { small, limits, .. } = self.plan.scale;
        for (set, threads, plural, aim) in [(SMALL, 1, "", 0.1), (SHARED, 8, "s", 0.2)] {
            let title = format!("create + write 4 KiB + close through the service, {threads} thread{plural}");
            let row = row(title, "files/s", Aim::RatioMin(aim));
            for (name, roots) in self.places() {
                stop::check()?;
                create::warm_up(&roots[0], set, &self.content)?;
                let outcome =
                    create::files(&roots[0], set, small, threads, &self.content, limits, create::Then::Close)
                        .with_context(|| format!("{}: on {name}", row.work))?;
                self.settle()?;
                self.report.add(&row, name, outcome.rate());
                if set.name == SMALL.name {
                    self.made.push((name, outcome.done as usize));
                }
            }
        }
        Ok(())
    }

    /// Warm work on the last node with files that the first one made, and what the service heard of it.
    fn unchanged(&mut self) -> Result<()> {
        let (limits, seed) = (self.plan.scale.limits, self.plan.seed);
        type Work = fn(&Path, usize, &Content, u64, Limits) -> Result<Outcome>;
        let works: [(&str, f64, Work); 2] = [
            ("stat of another node's file", 0.9, |root, count, _, seed, limits| {
                read::stat(root, SMALL, count, seed, limits)
            }),
            (
                "open + read + close of another node's 4 KiB file",
                0.12,
                |root, count, content, seed, limits| read::warm(root, SMALL, count, 1, content, seed, limits),
            ),
        ];
        for (what, aim, work) in works {
            let row_rate = row(format!("{what}, warm, 1 thread"), "files/s", Aim::RatioMin(aim));
            let heard = row(
                format!("requests to the service in a second of it: {what}"),
                "calls/s",
                Aim::ValueMax(0.0),
            );
            for (name, roots) in self.places() {
                stop::check()?;
                let root = roots.last().expect("at least one node");
                let made = self.made.iter().find(|(system, _)| *system == name);
                let count = made.map_or(0, |(_, count)| *count);
                // Once through, so that what is counted below is warm.
                let once = Limits { seconds_min: 0.0, ..limits };
                work(root, count, &self.content, seed, once).with_context(|| format!("{what}: on {name}"))?;
                let before = self.granary.service_calls()?;
                let outcome = work(root, count, &self.content, seed, limits)?;
                let calls = self.granary.service_calls()? - before;
                self.report.add(&row_rate, name, outcome.rate());
                if name == GRANARY {
                    self.report.add(&heard, name, calls as f64 / outcome.seconds);
                }
            }
        }
        Ok(())
    }

    fn visible(&mut self) -> Result<()> {
        if self.plan.nodes < 2 {
            return Ok(());
        }
        let count = if self.plan.scale.quick { ROUNDS / 10 } else { ROUNDS };
        let median = row("close on one node to visible on another, median", "ms", Aim::ValueMax(2.0));
        let p99 = row("close on one node to visible on another, p99", "ms", Aim::None);
        let stale =
            row("rounds in which another node saw old bytes after close", "of 10,000", Aim::ValueMax(0.0));
        for (name, roots) in self.places().into_iter().filter(|(_, roots)| roots.len() > 1) {
            // All the rounds on Granary, whatever time they take; a peer may be too slow for so many.
            let seconds_max = if name == GRANARY { 600.0 } else { 60.0 };
            let limits = Limits { seconds_max, ..self.plan.scale.limits };
            let last = roots.last().expect("two nodes or more");
            let seen: Visible = visible::rounds(&roots[0], last, count, &self.content, limits)
                .with_context(|| format!("{}: on {name}", stale.work))?;
            eprintln!("  {name}: {} rounds", seen.latencies_s.len());
            for (row, share) in [(&median, 0.5), (&p99, 0.99)] {
                let seconds = percentile(&seen.latencies_s, share).context("no round was done")?;
                self.report.add(row, name, seconds * 1e3);
            }
            self.report.add(&stale, name, seen.stale_of(ROUNDS));
        }
        Ok(())
    }

    /// The service alone.
    fn service(&mut self) -> Result<()> {
        let endpoint = self.granary.endpoint()?;
        let (files, renamed) = if self.plan.scale.quick { (500, 100) } else { (10_000, 1_000) };
        let mut clients = Clients::gather(&endpoint, CLIENTS, 1_000)?;
        let before = self.granary.service_memory()?;
        let rates = [
            ("create", "calls/s", clients.create(files)?),
            ("stat of another client's files", "calls/s", clients.stat()?),
            ("rename", "calls/s", clients.rename(renamed)?),
            ("readdir of another client's directory", "names/s", clients.readdir()?),
        ];
        for (what, unit, rate) in rates {
            let title = format!("the service with {CLIENTS} clients on the same cores, no mounts: {what}");
            self.report.add(&row(title, unit, Aim::None), GRANARY, rate);
        }
        let after = self.granary.service_memory()?;
        let title = format!(
            "growth of the service's memory while they made {} files and looked at each twice",
            CLIENTS * files
        );
        let grown = after.rss_kib.saturating_sub(before.rss_kib);
        self.report.add(&row(title, "MiB", Aim::None), GRANARY, grown as f64 / 1024.0);
        drop(clients);

        let before = self.granary.service_memory()?;
        let _idle = Clients::gather(&endpoint, SESSIONS, 2_000)?;
        let after = self.granary.service_memory()?;
        let grown = after.rss_kib.saturating_sub(before.rss_kib) as f64 / SESSIONS as f64;
        let title = format!("memory of the service for a session, of {SESSIONS} that are idle");
        self.report.add(&row(title, "KiB", Aim::None), GRANARY, grown);
        let title = row("memory of the service after all of this, resident", "MiB", Aim::None);
        self.report.add(&title, GRANARY, after.rss_kib as f64 / 1024.0);
        Ok(())
    }
}
