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
//! | `packer` | a plan carried out |
//! | [`work`] | threads, each taking whatever is to be done next |
//! | [`making`], [`output`] | one shard: its bytes, its index, its name |
//! | [`finished`] | finds what a pack that was stopped had finished |
//! | [`steady`] | finds objects that were put anew while they were packed |
//! | `delete`, [`dead`] | what goes from the source; what goes from a version |
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

pub mod dead;
mod delete;
pub mod entry;
pub mod finished;
pub mod known;
pub mod making;
mod options;
pub mod output;
mod packer;
pub mod plan;
pub mod progress;
pub mod readback;
mod report;
pub mod segment;
pub mod sip;
pub mod sort;
pub mod steady;
pub mod work;

use granary_core::{Error, Failpoint, Kind, Result};
use tokio::runtime::Handle;

use crate::dataset::{self, DataSet};
use crate::from::{Scan, Skipped, Source};
use crate::key::Grouping;
use crate::manifest::{self, Manifest};
use crate::place::Place;
use entry::Order;
use packer::Packer;
use plan::{Known, Plan, PlanOptions};
use progress::Progress;

pub use options::{MEMORY_BYTES_MIN, Mode, Options, SHARD_BYTES_MAX, SHARD_BYTES_MIN};
pub use report::Report;

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
