//! `granary pack`.

pub mod delete;
mod source;

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use granary_packer::foreign::Written;
use granary_packer::from::Skipped;
use granary_packer::key::Grouping;
use granary_packer::pack::progress::{Phase, Progress};
use granary_packer::pack::{Mode, Options, Report, pack};
use granary_packer::place::Place;
use serde::Serialize;

use super::{Bar, Done};
use crate::commands::{print, print_json};
use crate::exit::{Exit, Failure, Outcome};
use crate::failpoints;
use crate::units::{parse_bytes, show_bytes};

/// Threads without --threads, at most; and at least where each waits for a store.
const THREADS_MAX: usize = 16;
const REMOTE_THREADS_MIN: usize = 8;

/// Pack files into shards: tars that other tools read too, with an index beside each
///
/// SRC is a folder (a mounted namespace is one), s3://bucket/prefix, or with --from a file or folder of containers; DST a folder
/// or s3://bucket/prefix. Files of one WebDataset key stay together. The same files and options give the same bytes, with any
/// number of threads. When it was stopped, run it again: finished shards are kept. S3's endpoint, region and keys are taken as the
/// AWS tools take them (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ...). Symbolic links are packed as links, which readers of samples
/// pass over; --dereference packs what they lead to.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: granary pack /mnt/asr/train s3://training/asr-v1 --shuffle --verify\n         granary pack --from tfrecord /data/imagenet /shards/imagenet\n         granary pack --from parquet --column image /data/food101 /shards/food101\n         granary pack --append /mnt/asr/new s3://training/asr-v1"
)]
pub struct PackArgs {
    /// A folder, s3://bucket/prefix, or with --from a container or a place with containers
    #[arg(value_name = "SRC")]
    pub source: String,
    /// A folder, which is made, or s3://bucket/prefix
    #[arg(value_name = "DST")]
    pub to: String,
    /// What SRC has: containers of records
    #[arg(long, value_name = "KIND")]
    pub from: Option<From>,
    /// With --from parquet: a column of bytes or text, as a.b where it is in a group; of several each is a file of the row's sample. A group {bytes, path}, as Hugging Face has images, is named by itself. Given once for each
    #[arg(long, value_name = "NAME", required_if_eq("from", "parquet"))]
    pub column: Vec<String>,
    /// With --from parquet: the column that names each row [default: the file and the row's number]
    #[arg(long, value_name = "NAME")]
    pub name_column: Option<String>,
    /// Put samples in a random order, files of one sample together
    #[arg(long)]
    pub shuffle: bool,
    /// Decides that order [default: 0]
    #[arg(long, value_name = "N", requires = "shuffle")]
    pub seed: Option<u64>,
    /// A shard ends before it is larger, 64KiB to 1TiB
    #[arg(long, value_name = "SIZE", default_value = "256MiB")]
    pub shard_size: String,
    /// What makes files one sample [default: stem, or as DST has it]
    #[arg(long, value_name = "RULE")]
    pub by: Option<By>,
    /// Add files that DST does not have, as its next version
    #[arg(long, conflicts_with = "replace")]
    pub append: bool,
    /// Add them, and replace those that changed, as its next version
    #[arg(long)]
    pub replace: bool,
    /// Follow symbolic links
    #[arg(long, short = 'L', conflicts_with = "from")]
    pub dereference: bool,
    /// Read back every byte from DST before the version is made
    #[arg(long)]
    pub verify: bool,
    /// When all was read back, delete from SRC what still is as it was packed
    #[arg(long, conflicts_with = "from")]
    pub delete_source: bool,
    /// Put Megatron Energon's index beside each shard too: NAME.tar.idx
    #[arg(long)]
    pub energon: bool,
    /// Put NVIDIA DALI's index beside each shard too: NAME.idx
    #[arg(long)]
    pub dali: bool,
    /// Leave out what cannot be packed, and tell of it at the end
    #[arg(long)]
    pub skip_errors: bool,
    /// [default: processors, at most 16; at least 8 with a bucket]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Memory for sorting and for buffers, 64MiB at least
    #[arg(long, value_name = "SIZE", default_value = "512MiB")]
    pub memory: String,
    /// Where lists of files go that do not fit into memory [default: DST, or TMPDIR for a bucket]
    #[arg(long, value_name = "DIR")]
    pub work: Option<PathBuf>,
    /// For programs
    #[arg(long)]
    pub json: bool,
}

/// Kinds of containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum From {
    /// Files of tars
    Tar,
    /// Features of TFRecord files of tf.train.Example: a file each
    Tfrecord,
    /// Records of TFRecord files as they are: a file each
    TfrecordRaw,
    /// Columns of MosaicML shards: a file each
    Mds,
    /// Keys of LMDB data files: a file each
    Lmdb,
    /// Values of Parquet files' columns (--column): a file each
    Parquet,
}

/// What makes files one sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// One path up to the first dot of the base name, as WebDataset has it
    Stem,
    /// One directory
    Directory,
}

pub fn run(args: &PackArgs) -> Outcome<()> {
    failpoints::arm()?;
    let runtime = super::runtime()?;
    source::check_apart(args)?;
    let source = source::open(args, runtime.handle())?;
    let place = {
        let _within = runtime.enter();
        super::open_place(&args.to, true)?
    };
    let options = options(args, &place)?;
    let skipped = Skipped::new(args.skip_errors);
    let progress = Progress::default();
    let report = Bar::during(
        "packing",
        args.json,
        || how_far(&progress),
        || pack(&*source, &place, &options, runtime.handle(), &skipped, &progress),
    );
    let report = report.map_err(stopped)?;
    let indexes = super::write_foreign(&place, args.energon, args.dali, report.version, runtime.handle())?;
    let told = Told { report: &report, skipped: skipped.first(), indexes };
    if args.json {
        print_json(&told.json(&place))?;
    } else {
        super::tell_retries(report.retries);
        print(&told.text(args, &place))?;
    }
    Ok(())
}

fn how_far(progress: &Progress) -> Done {
    match progress.phase() {
        Phase::Scanning => Done::from(&progress.found),
        _ => Done::from(&progress.counts),
    }
}

fn options(args: &PackArgs, place: &Place) -> Outcome<Options> {
    let size = |name: &str, text: &str| {
        parse_bytes(text).map_err(|why| Failure::usage(format!("--{name} cannot be used: {why}")))
    };
    let remote = place.folder().is_none() || args.source.starts_with("s3://");
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let memory_bytes = size("memory", &args.memory)?;
    // In a bucket each thread has a part of 16 MiB in hand.
    let bearable = (memory_bytes / 4 / (16 << 20)).max(1) as usize;
    let threads = match args.threads {
        Some(threads) => threads,
        None if remote => processors.clamp(REMOTE_THREADS_MIN, THREADS_MAX).min(bearable),
        None => processors.min(THREADS_MAX),
    };
    let work_dir = match (&args.work, place.folder()) {
        (Some(dir), _) => dir.clone(),
        (None, Some(folder)) => folder.to_owned(),
        (None, None) => std::env::temp_dir(),
    };
    let options = Options {
        shard_bytes: size("shard-size", &args.shard_size)?,
        grouping: args.by.map(|by| match by {
            By::Stem => Grouping::Stem,
            By::Directory => Grouping::Directory,
        }),
        seed: args.shuffle.then(|| args.seed.unwrap_or(0)),
        threads,
        memory_bytes,
        work_dir,
        mode: match (args.append, args.replace) {
            (_, true) => Mode::Replace,
            (true, _) => Mode::Append,
            _ => Mode::New,
        },
        verify: args.verify,
        delete_source: args.delete_source,
    };
    options.check()?;
    Ok(options)
}

/// What a pack did, for people and programs.
struct Told<'a> {
    report: &'a Report,
    /// Thing and reason.
    skipped: Vec<(String, String)>,
    /// Those of other programs.
    indexes: Written,
}

#[derive(Serialize)]
struct Json<'a> {
    place: String,
    version: u64,
    data_set: String,
    shards_made: u64,
    shards_found: u64,
    files: u64,
    links: u64,
    directories: u64,
    samples: u64,
    payload_bytes: u64,
    tar_bytes: u64,
    unchanged: u64,
    replaced: u64,
    verified: bool,
    deleted: u64,
    kept: u64,
    skipped: u64,
    /// Requests to stores that were sent again.
    retries: u64,
    /// Indexes of other programs.
    energon: u64,
    dali: u64,
    /// The first thousand.
    skipped_first: Vec<JsonSkipped<'a>>,
}

#[derive(Serialize)]
struct JsonSkipped<'a> {
    name: &'a str,
    why: &'a str,
}

impl Told<'_> {
    fn json(&self, place: &Place) -> Json<'_> {
        let Report { version, shards_made, shards_found, files, links, directories, samples, .. } =
            *self.report;
        let Report {
            payload_bytes,
            tar_bytes,
            unchanged,
            replaced,
            verified,
            deleted,
            kept,
            skipped,
            retries,
            ..
        } = *self.report;
        let first = self.skipped.iter().map(|(name, why)| JsonSkipped { name, why });
        Json {
            place: place.to_string(),
            version,
            data_set: self.report.data_set.iter().map(|byte| format!("{byte:02x}")).collect(),
            shards_made,
            shards_found,
            files,
            links,
            directories,
            samples,
            payload_bytes,
            tar_bytes,
            unchanged,
            replaced,
            verified,
            deleted,
            kept,
            skipped,
            retries,
            energon: self.indexes.energon,
            dali: self.indexes.dali,
            skipped_first: first.collect(),
        }
    }

    fn text(&self, args: &PackArgs, place: &Place) -> String {
        let report = self.report;
        let mut out = String::new();
        for (name, why) in &self.skipped {
            out += &format!("left out: {name}: {why}\n");
        }
        let more = report.skipped - self.skipped.len() as u64;
        if more > 0 {
            out += &format!("left out: {more} more\n");
        }
        let shards = report.shards_made + report.shards_found;
        out += &format!(
            "{place}, version {}: {} files in {} samples, {} in {shards} shards",
            report.version,
            report.files,
            report.samples,
            show_bytes(report.tar_bytes)
        );
        if report.shards_found > 0 {
            out += &format!(" ({} were there)", report.shards_found);
        }
        out += if report.verified { ", every byte read back\n" } else { "\n" };
        out += &super::foreign_text(self.indexes);
        if report.unchanged + report.replaced > 0 {
            out += &format!(
                "{} files were there already, {} were replaced\n",
                report.unchanged, report.replaced
            );
        }
        if report.links > 0 {
            out += &format!(
                "{} symbolic links are packed as links, which readers of samples pass over; --dereference packs what they lead to\n",
                report.links
            );
        }
        if args.delete_source {
            out += &format!("{} files were deleted from {}", report.deleted, args.source);
            out += &match report.kept {
                0 => "\n".to_owned(),
                kept => format!("; {kept} stay, because they are no longer as they were packed\n"),
            };
        }
        out
    }
}

/// The failure of a pack, with what comes of it.
fn stopped(e: granary_core::Error) -> Failure {
    let failure = Failure::from(e);
    match failure.exit == Exit::Usage.code() {
        true => failure,
        false => Failure {
            message: format!(
                "{}\nNothing half-written counts: run it again, and it goes on behind what is finished.",
                failure.message
            ),
            ..failure
        },
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn what_it_did_is_told_in_words() {
        let runtime = crate::datasets::runtime().unwrap();
        let _within = runtime.enter();
        let report = Report {
            version: 2,
            shards_made: 3,
            shards_found: 1,
            files: 10,
            samples: 5,
            tar_bytes: 1 << 20,
            links: 1,
            unchanged: 7,
            skipped: 2,
            verified: true,
            ..Report::default()
        };
        let skipped = vec![("a".into(), "it is a pipe".into())];
        let told = Told { report: &report, skipped, indexes: Written::default() };
        let cli = crate::args::Cli::try_parse_from(["granary", "pack", "src", "/tmp"]).unwrap();
        let crate::args::Command::Pack(args) = cli.command else { panic!("another command") };
        let place = super::super::open_place("/tmp", false).unwrap();
        let text = told.text(&args, &place);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "left out: a: it is a pipe");
        assert_eq!(lines[1], "left out: 1 more");
        assert_eq!(
            lines[2],
            "/tmp, version 2: 10 files in 5 samples, 1.0 MiB in 4 shards (1 were there), every byte read back"
        );
        assert!(
            lines[3].starts_with("7 files were there") && lines[4].starts_with("1 symbolic links"),
            "{text}"
        );
    }
}
