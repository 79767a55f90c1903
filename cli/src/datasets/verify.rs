//! `granary verify`: every byte against its checksum.

use granary_packer::counts::Counts;
use granary_packer::dataset::DataSet;
use granary_packer::verify::verify;

use super::args::VerifyArgs;
use super::bar::{Bar, Done};
use crate::commands::{print, print_json};
use crate::exit::{Failure, Outcome};
use crate::units::show_bytes;

pub fn run(args: &VerifyArgs) -> Outcome<()> {
    let runtime = super::runtime()?;
    let _inside = runtime.enter();
    let place = super::open_place(&args.data_set, false)?;
    let data = runtime.block_on(DataSet::open(place, args.version))?;
    let counts = Counts::default();
    let threads = super::threads(args.threads.map(usize::from));
    let work = || verify(&data, threads, runtime.handle(), &counts);
    let report = Bar::during("verifying", args.json, || Done::from(&counts), work)?;
    if args.json {
        print_json(&report)?;
    } else {
        super::tell_retries(report.retries);
        super::tell_left_out(report.faults, &report.messages);
        let left_out = match report.left_out {
            0 => String::new(),
            n => format!("; {n} entries of the tars are in no index"),
        };
        let without_frames = match report.without_frames {
            0 => String::new(),
            n => format!(
                "; {n} indexes have no checksums of frames, which mounts need: `granary index --anew` makes them"
            ),
        };
        print(&format!(
            "version {}: {} files in {} shards, {} read, {} faults{left_out}{without_frames}\n",
            report.version,
            report.files,
            report.shards,
            show_bytes(report.bytes),
            report.faults
        ))?;
    }
    match report.faults {
        0 => Ok(()),
        1 => Err(Failure::failed(format!("{} is damaged in 1 place", data.place()))),
        n => Err(Failure::failed(format!("{} is damaged in {n} places", data.place()))),
    }
}
