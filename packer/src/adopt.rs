//! Tars that are there become a data set, without a byte of them being rewritten: their indexes are put beside them, and a version
//! names them.
//!
//! Each tar is read once, for the checksums. An index that is newer than its tar and of its length is kept, so that what was stopped
//! goes on where it was. The version holds what is there: tars that are new come behind those of the version before, in the order of
//! their names, those that are gone are left out. When nothing changed no version is made.

mod one;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use granary_core::{Error, Kind, Result};
use serde::Serialize;
use tokio::runtime::Handle;

use crate::counts::{Counts, Told};
use crate::key::Grouping;
use crate::limits::SHARDS_MAX;
use crate::manifest::{self, Manifest, Runs, Shard, index_path};
use crate::place::Place;

/// How tars are adopted.
#[derive(Clone, Debug)]
pub struct Options {
    /// What makes files a sample; of a data set that is there already, its own counts.
    pub grouping: Grouping,
    /// What is damaged is left out and told, instead of ending the work.
    pub skip_errors: bool,
    /// Also tars whose index is there are read again.
    pub anew: bool,
    pub threads: usize,
    /// Where unnamed files of large indexes go.
    pub work_dir: PathBuf,
}

/// What was adopted.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The version that holds it; the one that was there when nothing changed.
    pub version: u64,
    pub changed: bool,
    pub shards: u64,
    pub files: u64,
    pub samples: u64,
    pub bytes: u64,
    /// Tars whose index was there and was kept.
    pub kept: u64,
    /// How much was left out, and the first thousand messages.
    pub skipped: u64,
    /// Requests that were sent again, because an attempt had failed.
    pub retries: u64,
    pub messages: Vec<String>,
}

/// Adopts the tars named, relative to the place, besides those that its latest version has; or, without names, all that are there.
/// Waits: not for a thread of the runtime.
///
/// Errors: `Corrupt`, `Exists` (something is twice in a tar), `Unsupported` (compressed, sparse), each naming tar and offset;
/// `NotFound` when there is no tar; what the store says.
pub fn adopt(
    place: &Place,
    names: Option<Vec<String>>,
    options: &Options,
    runtime: &Handle,
    counts: &Counts,
) -> Result<Report> {
    let (told, retries) = (Told::default(), place.retries());
    let before = runtime.block_on(manifest::latest(place))?;
    let grouping = before.as_ref().map_or(options.grouping, Manifest::grouping);
    let listed = names.is_none();
    let tars = match names {
        Some(names) => names,
        None => list(place, runtime, options.skip_errors, &told)?,
    };
    let known: Vec<Shard> = before.as_ref().map(|m| m.shards().to_vec()).unwrap_or_default();
    let mut shards = BTreeMap::new();
    let mut kept = 0;
    for (tar, result) in each(place, &tars, grouping, options, runtime, counts) {
        match result? {
            one::Adopted { shard: None, messages, .. } => messages.into_iter().for_each(|m| told.tell(m)),
            one::Adopted { shard: Some(shard), messages, kept: was_kept } => {
                messages.into_iter().for_each(|m| told.tell(m));
                kept += u64::from(was_kept);
                shards.insert(tar, shard);
            }
        }
    }
    let shards = merge(known, shards, listed);
    let (count, messages) = told.into_parts();
    let same = before.as_ref().filter(|before| before.shards() == shards);
    let manifest = match (same, &before) {
        (Some(same), _) => same.clone(),
        (None, Some(before)) => before.next("index", shards)?,
        (None, None) => Manifest::new(1, manifest::id_of(&shards), grouping, "index", shards)?,
    };
    let changed = same.is_none();
    if changed {
        runtime.block_on(manifest::write(place, &manifest))?;
    }
    Ok(Report {
        version: manifest.version(),
        changed,
        shards: manifest.shards().len() as u64,
        files: manifest.file_count(),
        samples: manifest.sample_count(),
        bytes: manifest.bytes(),
        kept,
        skipped: count,
        retries: place.retries() - retries,
        messages,
    })
}

/// Shards as they were first, then what is new by name. What changed has nothing dead any more.
fn merge(known: Vec<Shard>, mut found: BTreeMap<String, Shard>, only_found: bool) -> Vec<Shard> {
    let mut shards = Vec::new();
    for old in known {
        match found.remove(&old.path) {
            Some(new) if new.index_crc32c == old.index_crc32c && new.bytes == old.bytes => shards.push(old),
            Some(new) => shards.push(new),
            None if only_found => {}
            None => shards.push(old),
        }
    }
    shards.extend(found.into_values());
    shards
}

/// The tars of a place, in the order of their names.
fn list(place: &Place, runtime: &Handle, skip_errors: bool, told: &Told) -> Result<Vec<String>> {
    let mut tars = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = runtime.block_on(place.list("", after.as_deref(), 1000))?;
        for object in &page {
            let name = &object.key;
            if name.ends_with(".tar") {
                tars.push(name.clone());
            } else if let Some(what) = compressed_name(name) {
                match skip_errors {
                    true => told.tell(format!("{place}/{name} is left out: it is compressed with {what}")),
                    false => return Err(compressed(&format!("{place}/{name}"), what)),
                }
            }
        }
        if tars.len() > SHARDS_MAX {
            return Err(Error::new(
                Kind::Invalid,
                format!("{place} has too many tars for one data set: at most {SHARDS_MAX}"),
            ));
        }
        match page.last() {
            Some(last) if page.len() == 1000 => after = Some(last.key.clone()),
            _ => break,
        }
    }
    if tars.is_empty() {
        return Err(Error::new(
            Kind::NotFound,
            format!(
                "{place} has no tar (a name that ends with .tar); of other files `granary pack` makes some"
            ),
        ));
    }
    Ok(tars)
}

fn compressed_name(name: &str) -> Option<&'static str> {
    let names = [
        (".tar.gz", "gzip"),
        (".tgz", "gzip"),
        (".tar.zst", "zstd"),
        (".tar.bz2", "bzip2"),
        (".tar.xz", "xz"),
    ];
    names.iter().find(|(suffix, _)| name.ends_with(suffix)).map(|&(_, what)| what)
}

/// What a tar is compressed with, by how it begins. Sources: RFC 1952, RFC 8878, the formats' own magic numbers.
fn compressed_bytes(head: &[u8]) -> Option<&'static str> {
    let magics: [(&[u8], &str); 5] = [
        (b"\x1f\x8b", "gzip"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"BZh", "bzip2"),
        (b"\xfd7zXZ\0", "xz"),
        (b"\x04\x22\x4d\x18", "lz4"),
    ];
    magics.iter().find(|(magic, _)| head.starts_with(magic)).map(|&(_, what)| what)
}

fn compressed(name: &str, what: &str) -> Error {
    Error::new(
        Kind::Unsupported,
        format!(
            "{name} is compressed with {what}, so that no file in it can be read alone; unpack it and make shards with \
             `granary pack`"
        ),
    )
}

/// Adopts each, by several threads; results are in the order of the names, up to the first error.
fn each(
    place: &Place,
    tars: &[String],
    grouping: Grouping,
    options: &Options,
    runtime: &Handle,
    counts: &Counts,
) -> Vec<(String, Result<one::Adopted>)> {
    let mut seen = BTreeSet::new();
    let tars: Vec<&String> = tars.iter().filter(|tar| seen.insert(index_path(tar))).collect();
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    // Guards what is done so far; held to add one.
    let done = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..options.threads.clamp(1, tars.len().max(1)) {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    // One that began before the error may have an earlier one.
                    let Some(tar) = tars.get(n).filter(|_| !stop.load(Ordering::Relaxed)) else { return };
                    let result = one::adopt(place, tar, grouping, options, runtime, counts);
                    if result.is_err() {
                        stop.store(true, Ordering::Relaxed);
                    }
                    done.lock().unwrap_or_else(PoisonError::into_inner).insert(n, result);
                }
            });
        }
    });
    let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.into_iter().map(|(n, result)| (tars[n].clone(), result)).collect()
}

/// A shard's line of a manifest, of its index.
fn shard_of(path: &str, index: &crate::index::Header, index_bytes: u64) -> Shard {
    Shard {
        path: path.to_owned(),
        bytes: index.shard_bytes,
        files: index.files,
        samples: index.samples,
        index_bytes,
        index_crc32c: index.crc,
        dead_samples: Runs::default(),
        dead_files: Runs::default(),
    }
}
