//! What an epoch would ask of a store, and how well it would be shuffled: computed from a manifest, nothing is read.
//!
//! Samples are taken as lying evenly in their shards. Requests are counted in some stretches of some ranks, planned as a
//! [`Loader`](crate::Loader) plans them, and scaled to the epoch.

use granary_core::Result;
use serde::Serialize;

use crate::cache::{self, CacheOptions};
use crate::fetch::{Need, Rules, plan};
use crate::loader::ahead::Ahead;
use crate::loader::bounds::Bounds;
use crate::loader::line::Line;
use crate::loader::stream;
use crate::options::Options;
use crate::order::quality::{Quality, quality};
use crate::order::shape::Spot;
use crate::order::stream::Stream;
use crate::source::Source;

/// Stretches looked at of each rank, and ranks. Of lanes that ask for parts of runs, so many parts of each.
const STRETCHES: u64 = 8;
const PARTS: u64 = 4;
const RANKS: u32 = 4;
/// Of a tar.
const HEADER_BYTES: u64 = 512;

/// Of one data set and one epoch.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Forecast {
    pub version: u64,
    pub shards: u32,
    pub samples: u64,
    /// Of the shards, of those samples that take part.
    pub bytes: u64,
    /// How it is shuffled indeed, with runs and lanes over all ranks.
    pub method: &'static str,
    pub runs: u64,
    pub lanes: u64,
    pub global_batches: u64,
    pub quality: Quality,
    /// Whether samples are lent from this machine's disk; then nothing is requested.
    pub mapped: bool,
    /// Of all ranks together, without a disk cache.
    pub requests: u64,
    /// What they bring, also what lies between samples.
    pub request_bytes: u64,
    /// Batches that a request brings samples for, about, and the memory of one rank with which requests are as long as they should be.
    pub stretch_batches: u64,
    pub memory_bytes_for_long_requests: u64,
    /// All indexes: what each rank reads beside the data in its first epoch.
    pub index_bytes: u64,
    /// A disk cache with which only the first epoch asks the store.
    pub cache_bytes_for_all: u64,
    /// With the cache that was asked about: the part of later epochs that it has, 0 to 1.
    pub cache_hits: f64,
    /// What the cache has now, in bytes, and as a part of all.
    pub ready_bytes: u64,
    pub ready: f64,
}

/// `cache`: what is asked about; its folder need not be there.
///
/// Errors: `Invalid` for options that cannot be; what the cache's disk says.
pub fn forecast(source: &Source, options: &Options, cache: Option<&CacheOptions>) -> Result<Forecast> {
    options.check()?;
    let stream = stream(std::slice::from_ref(source), options)?;
    let line = Line::new(stream.clone(), options)?;
    let mapped = source.is_folder();
    let order = stream.order(0);
    let (samples, bytes) = (order.shape().samples(), order.shape().bytes());
    let bounds = Bounds::new(options, &line, &[mapped]);
    let (requests, request_bytes) = if mapped { (0, 0) } else { requests(&stream, options, &bounds)? };
    let ready_bytes = cache.map_or(Ok(0), |cache| cache::held_bytes(cache, source.manifest()))?;
    let part = |some: u64| if bytes == 0 { 1.0 } else { (some as f64 / bytes as f64).min(1.0) };
    Ok(Forecast {
        version: source.version(),
        shards: order.shape().shards(),
        samples,
        bytes,
        method: order.method().name(),
        runs: order.runs(),
        lanes: order.lanes(),
        global_batches: line.global_batches(),
        quality: quality(&stream.epoch(0, 0), samples, options.batch_samples),
        mapped,
        requests,
        request_bytes,
        stretch_batches: bounds.stretch.max(bounds.part_batches),
        memory_bytes_for_long_requests: bounds.long_memory_bytes,
        index_bytes: source.manifest().shards().iter().map(|shard| shard.index_bytes).sum(),
        cache_bytes_for_all: bytes + bytes / 15,
        cache_hits: cache.map_or(0.0, |cache| part(cache.bytes_max - cache.bytes_max / 16)),
        ready_bytes,
        ready: if mapped { 1.0 } else { part(ready_bytes) },
    })
}

/// Requests of an epoch of all ranks, and their bytes.
fn requests(stream: &Stream, options: &Options, bounds: &Bounds) -> Result<(u64, u64)> {
    let rules = Rules { request_bytes_max: options.request_bytes_max, ..Rules::default() };
    let (mut requests, mut request_bytes, mut seen) = (0, 0, 0);
    for nth in 0..options.ranks.min(RANKS) {
        let rank = (u64::from(nth) * u64::from(options.ranks) / u64::from(options.ranks.min(RANKS))) as u32;
        let line = Line::new(stream.clone(), &Options { rank, ..options.clone() })?;
        let end = line.epoch_end();
        // Lanes that ask for parts do so one after the other: each has its turn in a stretch as long as several parts.
        let (length, count) = match bounds.part_batches {
            0 => (bounds.stretch, end.div_ceil(bounds.stretch).min(STRETCHES)),
            batches => ((PARTS * batches).min(end), 1),
        };
        let stretches = end.div_ceil(length);
        for nth in 0..count {
            let first = nth * stretches / count * length;
            let mut ahead = Ahead::new(bounds.part_bytes.clone(), bounds.horizon());
            let mut place = first;
            while place < (first + length).min(end) {
                let batches = bounds.stretch.min(end - place);
                let step = ahead.begin(&line, place..place + batches);
                let wishes = &step.wishes[0];
                let needs = wishes.iter().enumerate().map(|(item, wish)| need(stream, item, wish.spot));
                let plan = plan(wishes.len(), needs.collect(), &rules);
                let sent = plan.is_for(step.own[0]);
                for (request, _) in plan.requests.iter().zip(&sent).filter(|(_, sent)| **sent) {
                    let bytes = request.range.end - request.range.start;
                    requests += bytes.div_ceil(rules.request_bytes_max).max(1);
                    request_bytes += bytes;
                }
                for (item, wish) in wishes.iter().enumerate() {
                    let brought = plan.of_item[item].iter().all(|&request| sent[request]);
                    seen += u64::from(brought);
                    if brought && item >= step.own[0] {
                        ahead.keep(wish, ());
                    }
                }
                place += batches;
            }
        }
    }
    let scaled =
        |n: u64| (u128::from(n) * u128::from(stream.epoch_samples()) / u128::from(seen.max(1))) as u64;
    Ok((scaled(requests), scaled(request_bytes)))
}

fn need(stream: &Stream, item: usize, spot: Spot) -> Need {
    let shape = stream.order(0).shape();
    let each = shape.shard_bytes(spot.shard) / u64::from(shape.shard_samples(spot.shard).max(1));
    let start = u64::from(spot.sample) * each;
    // A sample is asked for from behind its first header on.
    let end = start + each.saturating_sub(HEADER_BYTES).max(1);
    Need { item, shard: spot.shard, range: start..end }
}
