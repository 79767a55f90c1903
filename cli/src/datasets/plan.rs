//! `granary plan`: what training over a data set would ask of a store, and how well it would be shuffled.

use std::path::PathBuf;

use clap::Args;
use granary_loader::forecast::{Forecast, forecast};
use granary_loader::order::shuffle::Shuffle;
use granary_loader::{CacheOptions, Method, Options, Source, SourceOptions};
use granary_packer::place;

use crate::commands::{print, print_json};
use crate::exit::{Failure, Outcome};
use crate::settings::Sources;
use crate::units::{parse_bytes, show_bytes};

/// Say what training over a data set would ask of the store, and how well it would be shuffled
///
/// DS is a folder or s3://bucket/prefix. Only its manifest is read.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: granary plan s3://training/asr-v1 --batch-size 32 --ranks 8 --cache /nvme/shards --cache-bytes 500GB"
)]
pub struct PlanArgs {
    /// A folder or s3://bucket/prefix with a data set
    #[arg(value_name = "DS")]
    pub data_set: String,
    /// Samples of one rank's batch
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub batch_size: u64,
    /// Ranks that train together
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub ranks: u32,
    /// How samples are shuffled: none, shards, window or full
    #[arg(long, value_name = "WAY", default_value = "window")]
    pub shuffle: String,
    /// window: bytes of neighbours that stay together in time
    #[arg(long, value_name = "SIZE", default_value = "8MiB")]
    pub run_bytes: String,
    /// window: runs open at once, over all ranks [default: one for each sample of a global batch up to 64, beyond that one for eight]
    #[arg(long, value_name = "N")]
    pub lanes: Option<u32>,
    /// Memory of each rank for what was fetched and not given
    #[arg(long, value_name = "SIZE", default_value = "256MiB")]
    pub memory: String,
    /// The folder of the loaders' disk cache on this machine
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// Its size
    #[arg(long, value_name = "SIZE")]
    pub cache_bytes: Option<String>,
    /// A version of the data set [default: the latest]
    #[arg(long, value_name = "N")]
    pub version: Option<u64>,
    /// Decides the order
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// For programs
    #[arg(long)]
    pub json: bool,
}

pub fn run(args: &PlanArgs) -> Outcome<()> {
    let size = |text: &str| parse_bytes(text).map_err(Failure::usage);
    let method: Method = args.shuffle.parse()?;
    let options = Options {
        batch_samples: args.batch_size.saturating_mul(u64::from(args.ranks)),
        ranks: args.ranks,
        seed: args.seed,
        shuffle: Shuffle {
            run_bytes: size(&args.run_bytes)?,
            lanes: args.lanes.unwrap_or(0),
            ..method.into()
        },
        memory_bytes_max: size(&args.memory)?,
        ..Options::default()
    };
    let cache = match (&args.cache, &args.cache_bytes) {
        (None, None) => None,
        (folder, bytes) => Some(CacheOptions {
            folder: folder.clone().unwrap_or_default(),
            bytes_max: bytes.as_deref().map_or(Ok(u64::MAX), size)?,
        }),
    };
    let limits = Sources::new(None, Vec::new()).resolve()?.limits;
    let place = place::Options { limits, ..place::Options::from_env() };
    let options_of_source = SourceOptions { version: args.version, place, ..SourceOptions::default() };
    let source = Source::open(&args.data_set, options_of_source)?;
    let told = forecast(&source, &options, cache.as_ref())?;
    if args.json { print_json(&told) } else { print(&show(args, &options, cache.as_ref(), &told)) }
}

fn show(args: &PlanArgs, options: &Options, cache: Option<&CacheOptions>, told: &Forecast) -> String {
    let mut text = format!(
        "{}, version {}: {} samples in {} shards, {}\n",
        args.data_set,
        told.version,
        told.samples,
        told.shards,
        show_bytes(told.bytes)
    );
    let mut line = |name: &str, what: String| text += &format!("{name:<10}{what}\n");
    let order = match told.method {
        "window" => format!("window: {} runs in {} lanes", told.runs, told.lanes),
        "full" if args.shuffle == "window" => "full: all of it is not much more than a window".to_owned(),
        other => other.to_owned(),
    };
    line("order", format!("{order}; {} global batches of {}", told.global_batches, options.batch_samples));
    line(
        "shuffle",
        format!(
            "tau {:.2}, pairs of one shard {:.2}, distance of neighbours {:.2} (a full shuffle has 0, 1, 1)",
            told.quality.tau, told.quality.same_shard, told.quality.distance
        ),
    );
    if told.mapped {
        line("requests", "none: it is on this machine".to_owned());
        return text;
    }
    line(
        "requests",
        format!(
            "{} an epoch, {} each, {:.2} times the data",
            told.requests,
            show_bytes(told.request_bytes / told.requests.max(1)),
            told.request_bytes as f64 / told.bytes.max(1) as f64
        ),
    );
    line(
        "memory",
        format!(
            "{} a rank; with {} requests are as long as they should be",
            show_bytes(options.memory_bytes_max),
            show_bytes(told.memory_bytes_for_long_requests)
        ),
    );
    line("indexes", show_bytes(told.index_bytes));
    line(
        "cache",
        match cache {
            Some(cache) if cache.bytes_max < u64::MAX => format!(
                "{} find {:.0} % of each epoch but the first; {} would find all",
                show_bytes(cache.bytes_max),
                told.cache_hits * 100.0,
                show_bytes(told.cache_bytes_for_all)
            ),
            _ => {
                format!("{} would find all of each epoch but the first", show_bytes(told.cache_bytes_for_all))
            }
        },
    );
    if let Some(folder) = &args.cache {
        let percent = told.ready * 100.0;
        line("ready", format!("{} ({percent:.0} %) in {}", show_bytes(told.ready_bytes), folder.display()));
    }
    text
}
