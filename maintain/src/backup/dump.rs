//! Saving a volume in use: one moment of its engine, as a stream. Copies of bytes are left out: objects and nodes' logs have them.

use granary_core::{Result, Timestamp};
use granary_meta::Volume;
use granary_meta::record::Family;

use super::format::{Encoder, Header, Totals};
use crate::progress::Progress;

/// Gives `write` the stream of the volume as it is now, in pieces of at least `piece_bytes` but for the last.
/// The moment is kept in the engine until the last piece is taken.
pub fn dump(
    volume: &Volume,
    now: Timestamp,
    piece_bytes: usize,
    progress: &Progress,
    write: &mut dyn FnMut(Vec<u8>) -> Result<()>,
) -> Result<Totals> {
    let info = volume.info();
    let header =
        Header { created_unix_ms: now.unix_ms(), uuid: info.uuid.clone(), store_url: info.store_url.clone() };
    let mut encoder = Encoder::new(&header);
    volume.snapshot(&mut |snapshot| {
        snapshot.scan(b"", b"", &mut |key, value| {
            if !is_copy(key) {
                encoder.push(key, value)?;
            }
            if encoder.out.len() >= piece_bytes {
                write(std::mem::take(&mut encoder.out))?;
            }
            progress.advance(1).map(|()| true)
        })
    })?;
    let totals = encoder.finish();
    write(encoder.out)?;
    Ok(totals)
}

/// Whether a record is a copy of bytes: of a tiny file's, or of a node's log. Those of the volume have a tag of another meaning.
pub(super) fn is_copy(key: &[u8]) -> bool {
    let copies = [Family::Inline as u8, Family::Redo as u8];
    key.split_first_chunk::<4>()
        .is_some_and(|(ns, rest)| *ns != [0; 4] && rest.first().is_some_and(|tag| copies.contains(tag)))
}

/// What a backup of now would say at its end.
pub(super) fn totals(volume: &Volume, now: Timestamp, progress: &Progress) -> Result<Totals> {
    dump(volume, now, 1 << 20, progress, &mut |_| Ok(()))
}
