//! The commands that look at a node at work.

use std::path::PathBuf;

use clap::Args;

use super::PlaceFlags;

/// Watch the mounts of the node: rates, latencies, hit rates, waits
///
/// On a terminal a screen that is drawn anew each interval; h shows its keys. Otherwise, and with --once, one report of the
/// averages since the node started, as iostat's first. IO WAIT is the time that programs waited for data, as a share of
/// the time that went by; several may wait at once, so that it may be more than 100 %. What the kernel has in its page
/// cache, or reads from the node's disk itself, asks nobody and is not counted.
#[derive(Debug, Args)]
#[command(after_help = "Example: granary top\n         granary top --once --json")]
pub struct TopArgs {
    /// One report, and end
    #[arg(long)]
    pub once: bool,
    /// For programs: a line of JSON each interval, or one with --once
    #[arg(long)]
    pub json: bool,
    /// How often to look
    #[arg(long, value_name = "PERIOD", default_value = "1s", value_parser = crate::units::parse_period_ms)]
    pub interval: u64,
    #[command(flatten)]
    pub flags: PlaceFlags,
}

/// Show slow operations of a mount as they happen: which, of whom, and what they waited for
///
/// Ends with Ctrl-C. Users see their own operations, and all of those in their own namespace.
#[derive(Debug, Args)]
#[command(after_help = "Example: granary trace /mnt/alice --min-ms 50 --op read,open")]
pub struct TraceArgs {
    /// A mounted directory
    pub dir: PathBuf,
    /// Only what took at least so many milliseconds
    #[arg(long, value_name = "MS", default_value_t = 10)]
    pub min_ms: u64,
    /// Only these operations, as `granary top` names them
    #[arg(long = "op", value_name = "OP,...", value_delimiter = ',')]
    pub ops: Vec<String>,
    /// For programs: a line of JSON each
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub flags: PlaceFlags,
}

/// Show where each byte of a file is, why, and what a read of it would cost now; of a directory the sums
#[derive(Debug, Args)]
#[command(
    after_help = "Example: granary explain /mnt/alice/ckpt/7.pt\n         granary explain --json /mnt/alice/images"
)]
pub struct ExplainArgs {
    /// A file or directory of a mount
    pub path: PathBuf,
    /// For programs
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub flags: PlaceFlags,
}
