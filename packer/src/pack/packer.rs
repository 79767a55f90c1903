//! A plan carried out: shards, and the version that names them.

use std::collections::BTreeMap;

use granary_core::{Error, Failpoint, Kind, Result};
use tokio::runtime::Handle;

use super::dead::bury;
use super::entry::Order;
use super::making::Common;
use super::plan::Plan;
use super::progress::{Phase, Progress};
use super::work::{Made, Work};
use super::{Mode, Options, Report, output, readback, sort, steady};
use crate::dataset::{self, DataSet};
use crate::from::{Scan, Skipped, Source};
use crate::manifest::{self, Manifest, Shard};
use crate::place::Place;

/// A segment's bytes in a folder: large enough for a write, small enough for a processor's cache.
const SEGMENT_BYTES: u64 = 2 << 20;

/// A pack whose plan is made.
pub(super) struct Packer<'a> {
    pub(super) source: &'a dyn Source,
    pub(super) place: &'a Place,
    pub(super) options: &'a Options,
    pub(super) runtime: &'a Handle,
    pub(super) skipped: &'a Skipped,
    pub(super) progress: &'a Progress,
    pub(super) order: Order,
    pub(super) plan: &'a Plan,
}

impl Packer<'_> {
    /// Makes the shards, then the version that names them: that version, its new shards, and what became of each planned one.
    pub(super) fn make(
        &self,
        latest: Option<Manifest>,
        report: &mut Report,
    ) -> Result<(Manifest, Vec<Shard>, Vec<Made>)> {
        let Packer { place, options, runtime, plan, .. } = *self;
        if plan.entries == 0 {
            return match latest {
                Some(latest) => Ok((latest, Vec::new(), Vec::new())),
                None => Err(Error::new(
                    Kind::NotFound,
                    format!("there is nothing to pack in {}; is it the right place?", self.source.describe()),
                )),
            };
        }
        let _lock = output::prepare(place)?;
        let data_set = latest.as_ref().map_or(plan.fingerprint, Manifest::data_set);
        let version = latest.as_ref().map_or(0, Manifest::version) + 1;
        let prefix = format!("shards/v{version}-");
        let segment_bytes =
            (options.memory_bytes / 4 / options.threads as u64).clamp(256 << 10, SEGMENT_BYTES);
        self.progress.begin(Phase::Packing, plan.entries, plan.payload_bytes);
        let work = Work {
            source: self.source,
            plan,
            common: Common {
                place,
                runtime,
                data_set,
                grouping: self.order.grouping,
                work_dir: &options.work_dir,
            },
            names: (0..plan.shards.len()).map(|n| format!("{prefix}{n:06}.tar")).collect(),
            there: readback::names(place, &prefix, runtime)?,
            segment_bytes,
            threads: options.threads,
            skipped: self.skipped,
            progress: self.progress,
        };
        let made = work.run()?;
        let new: Vec<Shard> = made.iter().filter_map(|made| made.shard.clone()).collect();
        report.shards_found = made.iter().filter(|made| made.found).count() as u64;
        report.shards_made = new.len() as u64 - report.shards_found;
        let alone = Manifest::new(1, data_set, self.order.grouping, "", new.clone())?;
        self.check_steady()?;
        self.read_back(report, &alone, true)?;
        Failpoint::PackBeforeManifest.reach();
        let manifest = match latest {
            None => Manifest::new(1, data_set, self.order.grouping, "pack", new.clone())?,
            Some(latest) => {
                let mut shards = self.without_replaced(&latest)?;
                shards.extend(new.iter().cloned());
                let note = if options.mode == Mode::Replace { "replace" } else { "append" };
                latest.next(note, shards)?
            }
        };
        runtime.block_on(manifest::write(place, &manifest))?;
        Failpoint::PackAfterManifest.reach();
        output::tidy(place);
        Ok((manifest, new, made))
    }

    /// The latest version's shards, with what is replaced among their dead.
    fn without_replaced(&self, latest: &Manifest) -> Result<Vec<Shard>> {
        let mut dead: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for &(shard, file) in &self.plan.replaced {
            dead.entry(shard).or_default().push(file);
        }
        let data = DataSet::of_manifest(self.place.clone(), latest.clone(), dataset::Options::default());
        let mut shards = latest.shards().to_vec();
        for (number, files) in dead {
            let index = self.runtime.block_on(data.index(number))?;
            let shard = &mut shards[number as usize];
            bury(shard, &index, files)?;
        }
        Ok(shards)
    }

    /// What cannot be noticed while it is read is noticed now.
    fn check_steady(&self) -> Result<()> {
        self.source.check_steady()?;
        if self.source.notices_changes() {
            return Ok(());
        }
        let (memory, ignored, found) =
            (self.options.memory_bytes / 2, Skipped::new(true), Progress::default());
        let work_dir = self.options.work_dir.clone();
        let scan = Scan::new(self.options.threads, work_dir, memory as usize, self.order, &ignored, &found);
        self.source.scan(&scan)?;
        steady::check(self.plan, self.order, sort::merge(scan.into_sorters())?)
    }

    pub(super) fn read_back(&self, report: &mut Report, version: &Manifest, unnamed: bool) -> Result<()> {
        if self.options.verify || self.options.delete_source {
            self.check(version, unnamed)?;
            report.verified = true;
        }
        Ok(())
    }

    pub(super) fn check(&self, version: &Manifest, unnamed: bool) -> Result<()> {
        self.progress.begin(Phase::Verifying, version.file_count(), version.bytes());
        readback::check(self.place, version, unnamed, self.options.threads, self.runtime, self.progress)
    }
}
