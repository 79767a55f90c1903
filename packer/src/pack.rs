//! Packing: a source's files become the shards of a data set.
//!
//! ```text
//! scan -> sort -> plan -> segments -> shards -> indexes -> (read back) -> manifest -> (delete the source)
//! ```
//!
//! | part | what it does |
//! |---|---|
//! | [`from`](crate::from) | tells of files, then gives their bytes |
//! | [`sort`] | puts any number of entries in order within a bound of memory |
//! | [`plan`] | decides which shard each goes into |
//! | [`segment`] | cuts shards into ranges of a few MiB and renders them |
//! | [`work`] | threads, each taking whatever is to be done next |
//! | [`making`], [`output`] | one shard: its bytes, its index, its name |
//! | [`finished`] | finds what a pack that was stopped had finished |
//! | [`steady`] | finds objects that were put anew while they were packed |
//! | [`readback`], [`known`] | every byte once more; what a data set has already |
//!
//! # The same bytes
//!
//! The plan depends on names, sizes, times, options and seed, never on threads or on the order in which a directory lists its files.
//! A shard's bytes depend on its plan and on its files' bytes. So packing the same files again gives the same bytes: with more
//! threads, on another machine, and after a kill, when shards that are finished are found and kept.
//!
//! # Stopping anywhere
//!
//! | stopped | what is there | the next pack |
//! |---|---|---|
//! | before a shard is whole | a temporary file, or parts that nobody sees | makes it again |
//! | after the tar has its name | a tar without index | makes it again |
//! | after its index | a finished shard | compares the index with the plan, and keeps it |
//! | before the manifest | shards that no version names | as above |
//! | after the manifest | the version | says so |
//! | while the source is deleted | all of it in the data set, some of it in the source | `--append` deletes the rest |
//!
//! # What it costs
//!
//! Reading many small files is system calls: one to look at each, four to read it. Checksums and headers cost a tenth of that.
//! Memory: a share for sorting, then a buffer for each thread.

pub mod entry;
pub mod finished;
pub mod known;
pub mod making;
pub mod output;
pub mod plan;
pub mod progress;
pub mod readback;
pub mod segment;
pub mod sip;
pub mod sort;
pub mod steady;
pub mod work;

use std::path::PathBuf;

use granary_core::{Error, Failpoint, Kind, Result};
use tokio::runtime::Handle;

use crate::dataset::{self, DataSet};
use crate::from::{Scan, Skipped, Source};
use crate::key::Grouping;
use crate::manifest::{self, Manifest, Shard};
use crate::place::Place;
use entry::{Content, Order};
use making::Common;
use plan::{Known, Plan, PlanOptions};
use progress::{Phase, Progress};
use work::{Made, Work};

/// Bounds of a shard's size, in bytes.
pub const SHARD_BYTES_MIN: u64 = 64 << 10;
pub const SHARD_BYTES_MAX: u64 = 1 << 40;
/// Least memory a pack works with, in bytes.
pub const MEMORY_BYTES_MIN: u64 = 64 << 20;
/// A segment's bytes in a folder: large enough for a write, small enough for a processor's cache.
const SEGMENT_BYTES: u64 = 2 << 20;

/// What is done with a data set that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// There must be none, but the very same.
    New,
    /// Files that it does not have are added; those it has must be the same.
    Append,
    /// The same, and files that it has with other content are replaced.
    Replace,
}

/// How to pack. Plain values.
#[derive(Clone, Debug)]
pub struct Options {
    /// A shard ends before it has more bytes.
    pub shard_bytes: u64,
    /// What makes files a sample; `None`: as the data set has it, else by stem.
    pub grouping: Option<Grouping>,
    /// Shuffles samples.
    pub seed: Option<u64>,
    pub threads: usize,
    pub memory_bytes: u64,
    /// Where lists of files go that memory does not hold.
    pub work_dir: PathBuf,
    pub mode: Mode,
    /// Read back every byte before the version is made.
    pub verify: bool,
    /// Delete what was packed from the source, after reading it back.
    pub delete_source: bool,
}

impl Options {
    /// Errors: `Invalid` names what cannot be.
    pub fn check(&self) -> Result<()> {
        let invalid = |why: String| Err(Error::new(Kind::Invalid, why));
        if !(SHARD_BYTES_MIN..=SHARD_BYTES_MAX).contains(&self.shard_bytes) {
            return invalid(format!(
                "shards of {} bytes cannot be: choose 64 KiB to 1 TiB",
                self.shard_bytes
            ));
        }
        if !(1..=1024).contains(&self.threads) {
            return invalid(format!("{} threads cannot be: choose 1 to 1,024", self.threads));
        }
        if self.memory_bytes < MEMORY_BYTES_MIN {
            return invalid("a pack needs 64 MiB of memory at least".to_owned());
        }
        Ok(())
    }
}

/// What a pack did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The version that has it all.
    pub version: u64,
    pub data_set: [u8; 16],
    /// Shards made now, and found made by a pack that was stopped.
    pub shards_made: u64,
    pub shards_found: u64,
    /// Of the new shards.
    pub files: u64,
    pub links: u64,
    pub directories: u64,
    pub samples: u64,
    pub payload_bytes: u64,
    pub tar_bytes: u64,
    /// Files that the data set had already, as they are.
    pub unchanged: u64,
    pub replaced: u64,
    pub skipped: u64,
    /// Whether every byte was read back.
    pub verified: bool,
    pub deleted: u64,
    /// Files that were to be deleted and stay, because they are no longer what was packed.
    pub kept: u64,
    /// Sorted runs that went to the work directory.
    pub spills: u64,
    /// Requests to the stores of source and place that were sent again, because an attempt had failed.
    pub retries: u64,
}

/// Packs `source` into `place`. Blocks; `runtime` serves requests meanwhile, and must not be the caller's own thread.
///
/// Errors: `Invalid` for options that cannot be; `Exists` for paths that come twice and for a data set that is there; `Busy` while
/// another pack writes there; errors of single files unless `skipped` allows them; what source, place and work directory say.
/// Whatever it ends with, the data set is as it was or has the new version, and running it again goes on.
pub fn pack(
    source: &dyn Source,
    place: &Place,
    options: &Options,
    runtime: &Handle,
    skipped: &Skipped,
    progress: &Progress,
) -> Result<Report> {
    options.check()?;
    let retries = source.retries() + place.retries();
    let latest = runtime.block_on(manifest::latest(place))?;
    let grouping = grouping(latest.as_ref(), options)?;
    let order = Order { grouping, seed: options.seed };
    let memory = (options.memory_bytes / 2) as usize;

    let scan = Scan::new(options.threads, options.work_dir.clone(), memory, order, skipped, progress);
    source.scan(&scan)?;
    let sorted = sort::merge(scan.into_sorters())?;
    let mut report = Report { spills: sorted.spills() as u64, ..Report::default() };
    let data = latest.clone().filter(|_| options.mode != Mode::New);
    let data = data.map(|of| DataSet::of_manifest(place.clone(), of, dataset::Options::default()));
    let known = data
        .as_ref()
        .map(|data| known::sorted(data, order, &options.work_dir, memory, runtime))
        .transpose()?;
    let known_mode = if options.mode == Mode::Replace { Known::Replace } else { Known::Refuse };
    let plan_options = PlanOptions { shard_bytes: options.shard_bytes, known: known_mode };
    let plan = Plan::make(&options.work_dir, sorted, known, plan_options)?;
    Failpoint::PackAfterPlan.reach();
    report.unchanged = plan.unchanged;
    report.replaced = plan.replaced.len() as u64;

    let packer = Packer { source, place, options, runtime, skipped, progress, order, plan: &plan };
    let (version, new, made) = match (latest, options.mode) {
        (Some(latest), Mode::New) if latest.data_set() == plan.fingerprint && latest.version() == 1 => {
            let new = latest.shards().to_vec();
            let made = packer.made_before(&latest)?;
            report.shards_found = new.len() as u64;
            packer.read_back(&mut report, &latest, false)?;
            (latest, new, made)
        }
        (Some(latest), Mode::New) => {
            return Err(Error::new(
                Kind::Exists,
                format!(
                    "{place} holds a data set already (version {}), not of these files with these options; --append adds to it, \
                     --replace replaces what changed, or choose another place",
                    latest.version()
                ),
            ));
        }
        (latest, _) => packer.make(latest, &mut report)?,
    };
    report.version = version.version();
    report.data_set = version.data_set();
    for shard in &new {
        report.files += u64::from(shard.files);
        report.samples += u64::from(shard.samples);
        report.tar_bytes += shard.bytes;
    }
    report.links = plan.links;
    report.directories = plan.directories;
    report.payload_bytes = plan.payload_bytes;
    if options.delete_source {
        packer.delete(&version, &made, &mut report)?;
    }
    report.skipped = skipped.count();
    report.retries = source.retries() + place.retries() - retries;
    Ok(report)
}

fn grouping(latest: Option<&Manifest>, options: &Options) -> Result<Grouping> {
    match (latest.map(Manifest::grouping), options.grouping) {
        (Some(has), Some(wanted)) if has != wanted && options.mode != Mode::New => Err(Error::new(
            Kind::Invalid,
            "the data set groups files into samples in another way; leave --by out to keep to it",
        )),
        (Some(has), None) if options.mode != Mode::New => Ok(has),
        (_, wanted) => Ok(wanted.unwrap_or_default()),
    }
}

struct Packer<'a> {
    source: &'a dyn Source,
    place: &'a Place,
    options: &'a Options,
    runtime: &'a Handle,
    skipped: &'a Skipped,
    progress: &'a Progress,
    order: Order,
    plan: &'a Plan,
}

impl Packer<'_> {
    /// Makes the shards, then the version that names them: that version, its new shards, and what became of each planned one.
    fn make(
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
        let mut dead: std::collections::BTreeMap<u32, Vec<u32>> = std::collections::BTreeMap::new();
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

    fn read_back(&self, report: &mut Report, version: &Manifest, unnamed: bool) -> Result<()> {
        if self.options.verify || self.options.delete_source {
            self.check(version, unnamed)?;
            report.verified = true;
        }
        Ok(())
    }

    fn check(&self, version: &Manifest, unnamed: bool) -> Result<()> {
        self.progress.begin(Phase::Verifying, version.file_count(), version.bytes());
        readback::check(self.place, version, unnamed, self.options.threads, self.runtime, self.progress)
    }

    /// What became of each planned shard, when an earlier run made the version: by their names, with what it left out.
    fn made_before(&self, latest: &Manifest) -> Result<Vec<Made>> {
        let data = DataSet::of_manifest(self.place.clone(), latest.clone(), dataset::Options::default());
        let mut made = Vec::new();
        for (n, planned) in self.plan.shards.iter().enumerate() {
            let name = format!("shards/v1-{n:06}.tar");
            let found = latest.shards().iter().position(|shard| shard.path == name);
            let mut excluded = std::collections::HashSet::new();
            let index = match found {
                Some(number) => Some(self.runtime.block_on(data.index(number as u32))?),
                None => None,
            };
            let mut entries = self.plan.entries_of(planned);
            let mut ordinal = 0;
            while let Some(entry) = entries.next_entry()? {
                let has = match &index {
                    Some(index) => !entry.is_file() || index.find(&entry.path)?.is_some(),
                    None => false,
                };
                if !has {
                    excluded.insert(ordinal);
                }
                ordinal += 1;
            }
            let shard = found.map(|number| latest.shards()[number].clone());
            made.push(Made { shard, excluded: excluded.into(), found: true });
        }
        Ok(made)
    }

    /// Deletes what was packed and what the data set had already, each only if it still is that.
    fn delete(&self, version: &Manifest, made: &[Made], report: &mut Report) -> Result<()> {
        let Packer { place, runtime, plan, progress, .. } = *self;
        let data = DataSet::of_manifest(place.clone(), version.clone(), dataset::Options::default());
        // It is there, and says what was said.
        let written = runtime.block_on(manifest::read(place, version.version()))?;
        if written != *version {
            return Err(Error::new(
                Kind::Corrupt,
                format!(
                    "version {} of {place} is not as it was written; nothing was deleted",
                    version.version()
                ),
            ));
        }
        if plan.unchanged > 0 {
            self.check(version, false)?;
        }
        progress.begin(Phase::Deleting, plan.entries + plan.unchanged, plan.payload_bytes);
        for (planned, made) in plan.shards.iter().zip(made) {
            let mut entries = plan.entries_of(planned);
            let mut ordinal = 0;
            while let Some(entry) = entries.next_entry()? {
                if !made.excluded.contains(&ordinal) {
                    self.delete_one(&entry, report)?;
                }
                ordinal += 1;
            }
        }
        let mut unchanged = plan.unchanged_entries();
        while let (Some(has), Some(entry)) = (unchanged.next_entry()?, unchanged.next_entry()?) {
            let same = match &has.content {
                Content::Range { container, offset } => {
                    let index = runtime.block_on(data.index(*container))?;
                    let crc = index.file(*offset as u32)?.crc32c;
                    readback::source_crc(self.source, &entry).is_ok_and(|now| now == crc)
                }
                content => *content == entry.content,
            };
            if same {
                self.delete_one(&entry, report)?;
            } else {
                report.kept += 1;
            }
        }
        self.source.removed_all();
        Ok(())
    }

    fn delete_one(&self, entry: &entry::Entry, report: &mut Report) -> Result<()> {
        match self.source.remove(entry)? {
            // It goes when all that is in it has gone.
            _ if entry.is_directory() => {}
            true => report.deleted += 1,
            false => report.kept += 1,
        }
        Failpoint::PackAfterDelete.reach();
        self.progress.add(1, entry.length);
        Ok(())
    }
}

/// Counts files of a shard among its dead, and samples of which no file lives.
///
/// Errors: `Corrupt` from the index.
pub fn bury(shard: &mut Shard, index: &crate::index::Index, files: Vec<u32>) -> Result<()> {
    let mut samples = Vec::new();
    for &file in &files {
        samples.push(index.file(file)?.sample);
    }
    let dead_files = shard.dead_files.with(files);
    let mut gone = Vec::new();
    samples.sort_unstable();
    samples.dedup();
    for sample in samples {
        if index.sample(sample)?.all(|file| dead_files.contains(file)) {
            gone.push(sample);
        }
    }
    shard.dead_files = dead_files;
    shard.dead_samples = shard.dead_samples.with(gone);
    Ok(())
}
