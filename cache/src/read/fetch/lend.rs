//! Whole chunks for another process: the cache's own files, open, so that no byte is copied to it.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use granary_core::limits::FRAME_BYTES;
use granary_core::{Error, Kind, NamespaceId, Result};
use granary_meta::ObjectInfo;

use super::Fetcher;
use crate::read::disk::ChunkKey;
use crate::read::sums::chunk_range;

/// One chunk of an object's payload.
#[derive(Debug)]
pub enum LentChunk {
    /// Its file on the cache's disk, from whose beginning the chunk's bytes are. Never changed, and readable as long as it is open, also
    /// when the chunk left the cache.
    File(File),
    /// The cache does not keep it.
    Bytes(Bytes),
}

impl Fetcher {
    /// These chunks, in order; those that are not here are fetched as for a reader who waits. Opens files.
    ///
    /// `check`: what is here is verified first, and fetched again where it is damaged. Else it is not: who reads it verifies it.
    ///
    /// Errors: those of a read.
    pub async fn lend(
        self: &Arc<Self>,
        ns: NamespaceId,
        object: &ObjectInfo,
        chunks: Range<u32>,
        check: bool,
    ) -> Result<Vec<LentChunk>> {
        let key = |index| ChunkKey { object: object.id, index };
        let frames = |index: u32| {
            let chunk = chunk_range(index, object.payload_len);
            0..(chunk.end - chunk.start).div_ceil(FRAME_BYTES) as u32
        };
        let here = |index: u32| {
            if check {
                self.disk.read_frames(ns, key(index), frames(index))?;
            }
            self.disk.lend(ns, key(index)).map(LentChunk::File)
        };
        let mut lent: Vec<Option<LentChunk>> = chunks.clone().map(here).collect();
        let missing: Vec<u32> =
            (chunks.clone()).zip(&lent).filter(|(_, l)| l.is_none()).map(|(i, _)| i).collect();
        let (flights, _) = self.demand(ns, object, &missing, false);
        for (index, flight) in missing.into_iter().zip(flights) {
            let flight = match flight {
                Some(flight) => flight,
                // It came to disk between the two looks.
                None => match here(index) {
                    Some(chunk) => {
                        lent[(index - chunks.start) as usize] = Some(chunk);
                        continue;
                    }
                    None => {
                        let (forced, _) = self.demand(ns, object, &[index], true);
                        forced.into_iter().flatten().next().ok_or_else(|| {
                            Error::new(Kind::Bug, "a fetch that was asked for did not start")
                        })?
                    }
                },
            };
            flight.landed().await?;
            lent[(index - chunks.start) as usize] = Some(match self.disk.lend(ns, key(index)) {
                Some(file) => LentChunk::File(file),
                None => LentChunk::Bytes(flight.bytes().await?),
            });
        }
        Ok(lent.into_iter().flatten().collect())
    }
}
