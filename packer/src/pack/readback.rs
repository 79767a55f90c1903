//! Reading back what was packed: every byte of every shard, as its place gives it now.

use std::collections::HashSet;

use granary_core::{Error, Kind, Result};
use tokio::runtime::Handle;

use super::entry::Entry;
use super::progress::Progress;
use crate::dataset::{self, DataSet};
use crate::from::{Source, Want};
use crate::manifest::Manifest;
use crate::place::Place;
use crate::verify;

/// Bytes of a source's file read at once.
const STEP_BYTES: u64 = 8 << 20;

/// Reads all shards of a version back, several at once. `unnamed`: it is not written yet, so a shard that is damaged loses its index,
/// and the next pack makes it again.
///
/// Errors: `Corrupt` names shard and file; what the place says.
pub fn check(
    place: &Place,
    version: &Manifest,
    unnamed: bool,
    threads: usize,
    runtime: &Handle,
    progress: &Progress,
) -> Result<()> {
    let data = DataSet::of_manifest(place.clone(), version.clone(), dataset::Options::default());
    let report = verify::verify(&data, threads, runtime, &progress.counts)?;
    let Some(first) = report.messages.first() else { return Ok(()) };
    if unnamed {
        let damaged =
            version.shards().iter().filter(|of| report.messages.iter().any(|m| m.contains(&of.path)));
        let indexes = damaged.map(|shard| shard.index_path()).collect();
        // What stays is found damaged again.
        let _ = runtime.block_on(place.store().delete(indexes));
    }
    Err(Error::new(
        Kind::Corrupt,
        format!(
            "what was packed did not come back as it was: {first} ({} faults); check the disks, and pack again",
            report.faults
        ),
    ))
}

/// The names below a prefix.
///
/// Errors: what the place says.
pub fn names(place: &Place, prefix: &str, runtime: &Handle) -> Result<HashSet<String>> {
    let mut names = HashSet::new();
    let mut after: Option<String> = None;
    loop {
        let page = runtime.block_on(place.list(prefix, after.as_deref(), 1_000))?;
        let ended = page.len() < 1_000;
        after = page.last().map(|object| object.key.clone());
        names.extend(page.into_iter().map(|object| object.key));
        if ended {
            return Ok(names);
        }
    }
}

/// Reads an entry's bytes from its source and gives their checksum.
///
/// Errors: as the source says.
pub fn source_crc(source: &dyn Source, entry: &Entry) -> Result<u32> {
    let mut buffer = vec![0; entry.length.min(STEP_BYTES) as usize];
    let (mut crc, mut from) = (0, 0);
    loop {
        let len = (entry.length - from).min(STEP_BYTES);
        let mut wants = [Want { entry, from, into: &mut buffer[..len as usize], failed: None }];
        source.read(&mut wants);
        if let Some(e) = wants[0].failed.take() {
            return Err(e);
        }
        crc = granary_core::crc32c_append(crc, &buffer[..len as usize]);
        from += len;
        if from == entry.length {
            return Ok(crc);
        }
    }
}
