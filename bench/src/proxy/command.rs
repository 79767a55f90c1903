//! `granary-bench proxy`.

use std::net::SocketAddr;

use anyhow::Result;
use clap::Args;
use granary_bench_work::stop;

use super::{Delays, Proxy};

/// Pass requests on to a store, later than they would be answered, until a signal ends it; then print what went through
#[derive(Debug, Args)]
pub struct ProxyArgs {
    /// Where to listen; port 0: any free one
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The store: http://host:port
    #[arg(long, value_name = "URL")]
    to: String,
    /// Milliseconds added before the first byte of each answer
    #[arg(long, value_name = "MS", default_value_t = 30)]
    first_byte_ms: u64,
    /// How many requests of a hundred stall
    #[arg(long, value_name = "PERCENT", default_value_t = 1.0)]
    stall_percent: f64,
    /// Milliseconds added to those
    #[arg(long, value_name = "MS", default_value_t = 2000)]
    stall_ms: u64,
    /// Which ones these are
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub fn run(args: &ProxyArgs) -> Result<()> {
    let stopped = stop::catch_signals()?;
    let delays = Delays::new(args.first_byte_ms, args.stall_percent, args.stall_ms)?;
    let proxy = Proxy::start(args.listen, &args.to, delays, args.seed)?;
    println!("{}", proxy.url());
    stopped.wait();
    println!("{}", serde_json::to_string_pretty(&proxy.by_method())?);
    Ok(())
}
