//! Clean copies that an earlier run left are verified, one after another, before anybody reads from them: the kernel, which reads
//! them by itself from then on, verifies nothing. Until its copy's turn a file is read from the store, and one that is
//! opened has the next turn.
//!
//! A copy that this run made itself is believed: it is what was just uploaded, in the page cache of a machine that goes on.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use granary_core::{Error, Ino, Result};

use super::Shared;
use crate::stage::Shape;
use crate::stage::sums::{BLOCK_BYTES, Blocks, Sums};
use crate::util::blocking;

/// Blocks that are read before demand reads may have the disk.
const BLOCKS_AT_ONCE: u64 = 16;
/// Bytes a second at most, so that the disk is not kept from others.
const BYTES_PER_S: u64 = 512 << 20;

/// Runs until all are verified.
pub(crate) async fn run(shared: Arc<Shared>) {
    loop {
        // Held over each copy: whoever waits for all of them waits for the one that is under way.
        let _turn = shared.clean.turn.lock().await;
        let Some((ino, version)) = shared.clean.next_unverified() else { return };
        let path = shared.files.path(ino, Shape::Clean(version)).display().to_string();
        let verified = verify(&shared, ino, version).await;
        shared.clean.take_unverified(ino);
        match verified {
            Ok(Some(stored)) => {
                shared.clean.insert(ino, version, stored);
                continue;
            }
            Ok(None) => {}
            Err(e) => tracing::error!(
                ns = %shared.ns, %ino, path, error = %e,
                "a copy of an uploaded file on this node's disk is not what it was; it is removed, and the file is read from the \
                 store. Check the disk"
            ),
        }
        if let Err(e) = shared.files.remove(ino, Shape::Clean(version)) {
            tracing::warn!(error = %e, "a clean stage file stays until the next start");
        }
    }
}

/// Its bytes on disk; `None` when it is of no use any more.
///
/// Errors: `Corrupt` and others when it is not what it was.
async fn verify(shared: &Arc<Shared>, ino: Ino, version: u64) -> Result<Option<u64>> {
    let attr = match shared.meta.getattr(ino).await {
        Ok(attr) if attr.version == version => attr,
        _ => return Ok(None),
    };
    let task = shared.clone();
    let (file, sums) = blocking(&shared.runtime, move || {
        Ok((task.files.open_existing(ino, Shape::Clean(version))?, task.files.read_sums(ino, version)?))
    })
    .await?;
    if (sums.ino, sums.version, sums.size) != (ino.0, version, attr.size) {
        return Err(Error::new(granary_core::Kind::Corrupt, "its checksums are of another file"));
    }
    let (file, sums) = (Arc::new(file), Arc::new(sums));
    for first in (0..sums.crcs.len() as u64).step_by(BLOCKS_AT_ONCE as usize) {
        let (file, sums) = (file.clone(), sums.clone());
        blocking(&shared.runtime, move || compare(&file, &sums, first)).await?;
        tokio::time::sleep(Duration::from_secs_f64(
            (BLOCKS_AT_ONCE * BLOCK_BYTES).min(attr.size) as f64 / BYTES_PER_S as f64,
        ))
        .await;
    }
    Ok(Some(attr.stored))
}

fn compare(file: &File, sums: &Sums, first: u64) -> Result<()> {
    let failed = |e| Error::io("it cannot be read", e);
    if file.metadata().map_err(failed)?.len() != sums.size {
        return Err(Error::new(granary_core::Kind::Corrupt, "it has another length"));
    }
    let blocks = Blocks::of(file, sums.size).map_err(failed)?;
    for n in first..blocks.count().min(first + BLOCKS_AT_ONCE) {
        if blocks.crc(n).map_err(failed)? != sums.crcs[n as usize] {
            let why = format!("bytes from {} on do not match their checksum", n * BLOCK_BYTES);
            return Err(Error::new(granary_core::Kind::Corrupt, why));
        }
    }
    Ok(())
}
