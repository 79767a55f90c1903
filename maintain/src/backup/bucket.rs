//! Backups in the store, beside the objects.
//!
//! | key | what |
//! |---|---|
//! | `meta-backup/<15 digits>/<6 digits>` | a part of the stream, in order; the digits are when it was made (milliseconds since 1970) and the part's number |
//! | `meta-backup/<15 digits>/complete` | JSON, written last: [`Manifest`]. Without it the parts are none |
//!
//! One process has a volume's metadata, so one writes. Deleting takes `complete` first.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use granary_core::{Clock, Error, Kind, Result};
use granary_meta::Volume;
use granary_store::Store;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::dump::{dump, totals};
use crate::blocking;
use crate::progress::Progress;

const PREFIX: &str = "meta-backup/";
const COMPLETE: &str = "complete";
/// One part; two are in memory.
const PART_BYTES: usize = 8 << 20;
const MANIFEST_BYTES_MAX: u64 = 64 << 10;
const KEYS_AT_ONCE: usize = 1000;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub version: u32,
    pub uuid: String,
    pub created_unix_ms: u64,
    pub parts: u64,
    pub records: u64,
    pub bytes: u64,
    /// Of the records; see the format's trailer. 16 hexadecimal digits.
    pub digest: String,
}

/// A backup that the store lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    pub unix_ms: u64,
    /// Keys of its parts, in order.
    pub parts: Vec<String>,
    pub bytes: u64,
    pub complete: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    New(Manifest),
    /// Nothing was changed since the newest one, which is this old.
    Unchanged(Manifest),
}

/// All backups, oldest first, also those without an end.
pub async fn list(store: &dyn Store) -> Result<Vec<Stored>> {
    let mut found: BTreeMap<u64, Stored> = BTreeMap::new();
    let mut after: Option<String> = None;
    loop {
        let page = store.list(PREFIX, after.as_deref(), KEYS_AT_ONCE).await?;
        let Some(last) = page.last() else { return Ok(found.into_values().collect()) };
        after = Some(last.key.clone());
        for object in page {
            let Some((time, part)) = object.key[PREFIX.len()..].split_once('/') else { continue };
            let Some(unix_ms) = time.parse().ok().filter(|_| time.len() == 15) else { continue };
            let stored = found.entry(unix_ms).or_default();
            stored.unix_ms = unix_ms;
            if part == COMPLETE {
                stored.complete = true;
            } else {
                stored.bytes += object.size;
                stored.parts.push(object.key);
            }
        }
    }
}

fn key(unix_ms: u64, part: &str) -> String {
    format!("{PREFIX}{unix_ms:015}/{part}")
}

/// What a complete backup says of itself.
pub async fn manifest(store: &dyn Store, unix_ms: u64) -> Result<Manifest> {
    let key = key(unix_ms, COMPLETE);
    let size = store.head(&key).await?.size;
    let bad =
        |why: &str| Error::new(Kind::Corrupt, format!("{key} in {} is damaged: {why}", store.describe()));
    if size == 0 || size > MANIFEST_BYTES_MAX {
        return Err(bad("its length is impossible"));
    }
    let manifest: Manifest =
        serde_json::from_slice(&store.get(&key, 0..size).await?).map_err(|e| bad(&e.to_string()))?;
    if manifest.version != 1 {
        return Err(Error::new(
            Kind::Unsupported,
            format!("{key} has version {}; use the newer granary that wrote it", manifest.version),
        ));
    }
    Ok(manifest)
}

/// Saves the volume as it is now, unless the newest backup has the same records; keeps the newest `keep`.
pub async fn write(
    volume: &Arc<Volume>,
    store: &Arc<dyn Store>,
    clock: &dyn Clock,
    keep: usize,
    progress: &Arc<Progress>,
) -> Result<Written> {
    let now = clock.now();
    let before = list(&**store).await?;
    let newest = match before.iter().rev().find(|b| b.complete) {
        Some(newest) => match manifest(&**store, newest.unix_ms).await {
            Ok(manifest) => Some(manifest),
            // It is as good as none; the next one is written.
            Err(e) if matches!(e.kind(), Kind::Corrupt | Kind::Unsupported | Kind::NotFound) => None,
            Err(e) => return Err(e),
        },
        None => None,
    };
    if let Some(newest) = newest {
        let (volume, progress) = (volume.clone(), progress.clone());
        let ours = blocking(move || totals(&volume, now, &progress)).await?;
        if (newest.records, newest.bytes, &newest.digest)
            == (ours.records, ours.bytes, &format!("{:016x}", ours.digest))
        {
            return Ok(Written::Unchanged(newest));
        }
    }
    // Never twice, also when the clock went back.
    let unix_ms = now.unix_ms().max(before.last().map_or(0, |last| last.unix_ms + 1));
    let (pieces, mut parts) = mpsc::channel::<Bytes>(1);
    let (dumped, watched) = (volume.clone(), progress.clone());
    let work = blocking(move || {
        dump(&dumped, now, PART_BYTES, &watched, &mut |piece| {
            let gone = |_| Error::new(Kind::Interrupted, "the backup's parts are not taken any more");
            pieces.blocking_send(piece.into()).map_err(gone)
        })
    });
    let put = async {
        let mut count = 0u64;
        while let Some(part) = parts.recv().await {
            store.put(&key(unix_ms, &format!("{count:06}")), vec![part]).await?;
            count += 1;
        }
        // Else the dump would wait for ever for who takes its next piece.
        Ok::<u64, Error>(count)
    };
    let (totals, count) = futures::try_join!(work, put)?;
    let manifest = Manifest {
        version: 1,
        uuid: volume.info().uuid.clone(),
        created_unix_ms: now.unix_ms(),
        parts: count,
        records: totals.records,
        bytes: totals.bytes,
        digest: format!("{:016x}", totals.digest),
    };
    let json = serde_json::to_vec_pretty(&manifest)
        .map_err(|e| Error::new(Kind::Bug, "a backup's manifest cannot be written").with_source(e))?;
    store.put(&key(unix_ms, COMPLETE), vec![json.into()]).await?;
    prune(&**store, keep).await?;
    Ok(Written::New(manifest))
}

/// Deletes all but the newest `keep` (at least one), and what was begun before the newest and never ended.
async fn prune(store: &dyn Store, keep: usize) -> Result<()> {
    let all = list(store).await?;
    let complete: Vec<u64> = all.iter().filter(|b| b.complete).map(|b| b.unix_ms).collect();
    let Some(newest) = complete.last() else { return Ok(()) };
    let oldest_kept = complete[complete.len().saturating_sub(keep.max(1))];
    for old in &all {
        if old.unix_ms < oldest_kept || (!old.complete && old.unix_ms < *newest) {
            store.delete(vec![key(old.unix_ms, COMPLETE)]).await?;
            for keys in old.parts.chunks(KEYS_AT_ONCE) {
                store.delete(keys.to_vec()).await?;
            }
        }
    }
    Ok(())
}

/// Gives `take` the stream of a complete backup, part by part.
///
/// Errors: `Corrupt` when a part is missing; otherwise what the store says, and `take`.
pub async fn read(
    store: &dyn Store,
    backup: &Stored,
    mut take: impl AsyncFnMut(Bytes) -> Result<()>,
) -> Result<Manifest> {
    let manifest = manifest(store, backup.unix_ms).await?;
    for part in 0..manifest.parts {
        let key = key(backup.unix_ms, &format!("{part:06}"));
        if backup.parts.get(part as usize) != Some(&key) {
            let message = format!("the backup is damaged: {key} is not in {}; use another", store.describe());
            return Err(Error::new(Kind::Corrupt, message));
        }
        let size = store.head(&key).await?.size;
        take(store.get(&key, 0..size).await?).await?;
    }
    Ok(manifest)
}

/// The newest complete backup made no later than `at_unix_ms`.
///
/// Errors: `NotFound` names those that there are.
pub async fn find(store: &dyn Store, at_unix_ms: u64, show: impl Fn(u64) -> String) -> Result<Stored> {
    let all: Vec<Stored> = list(store).await?.into_iter().filter(|b| b.complete).collect();
    if let Some(found) = all.iter().rev().find(|b| b.unix_ms <= at_unix_ms) {
        return Ok(found.clone());
    }
    let there = match (all.first(), all.last()) {
        (Some(first), Some(last)) => {
            format!(
                "the oldest of {} is of {}, the newest of {}",
                all.len(),
                show(first.unix_ms),
                show(last.unix_ms)
            )
        }
        _ => "there is none: setting meta_backup_interval_ms writes them".to_owned(),
    };
    Err(Error::new(Kind::NotFound, format!("{} has no such backup of metadata; {there}", store.describe())))
}

#[cfg(test)]
mod tests;
