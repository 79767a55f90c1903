//! `granary unpack`: files again.

use granary_packer::counts::Counts;
use granary_packer::dataset::{DataSet, Options as DataOptions};
use granary_packer::unpack::{Options, unpack};

use super::args::UnpackArgs;
use super::bar::{Bar, Done};
use crate::commands::{print, print_json};
use crate::exit::{Failure, Outcome};
use crate::units::show_bytes;

pub fn run(args: &UnpackArgs) -> Outcome<()> {
    let runtime = super::runtime()?;
    let _inside = runtime.enter();
    let place = super::open_place(&args.data_set, false)?;
    // Indexes of a bucket may be larger than memory, and all are wanted at once to see whether a path is twice there.
    let indexes = tempfile::tempdir().map_err(|e| Failure::io("cannot make a folder for indexes", &e))?;
    let options = DataOptions { index_folder: Some(indexes.path().to_owned()), ..DataOptions::default() };
    let data = runtime.block_on(DataSet::open_with(place, args.version, options))?;
    let options = Options {
        by_shard: args.by_shard,
        owners: args.owners,
        skip_errors: args.skip_errors,
        threads: super::threads(args.threads.map(usize::from)),
    };
    let counts = Counts::default();
    let work = || unpack(&data, &args.dir, &options, runtime.handle(), &counts);
    let report = Bar::during("unpacking", args.json, || Done::from(&counts), work)?;
    if args.json {
        return print_json(&report);
    }
    super::tell_retries(report.retries);
    super::tell_left_out(report.left_out, &report.messages);
    let kept = match report.kept {
        0 => String::new(),
        n => format!(", {n} of them were there"),
    };
    print(&format!("{} files, {}{kept}\n", report.files, show_bytes(report.bytes)))
}
