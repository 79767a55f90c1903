//! A new metadata folder from a backup.
//!
//! What was done after the backup was made is not in it, but nodes and the store may still know of it. So that nothing of
//! that time is taken for something of the time after the restore, the restored metadata
//!
//! * gives no inode number and no namespace id that may have been given: the next ones are far beyond;
//! * gives every file a content version that no cached copy on a node has;
//! * knows no session: nodes greet anew, and what they held back is refused.
//!
//! The folder is made beside its place and moved there when all of the backup was read and verified.

use std::path::Path;
use std::sync::Arc;

use granary_core::{Error, Ino, Kind, NamespaceId, Result};
use granary_meta::engine::{Engine, Write};
use granary_meta::record::{Family, Key, Value, session, volume as records};

use super::format::{Decoder, Header, Totals};
use crate::fresh::FreshFolder;

/// Inode numbers and content versions that are left out: more than were ever given between two backups.
pub(crate) const SKIPPED: u64 = 1 << 32;
/// The same of namespaces' ids, which are fewer.
pub(crate) const NAMESPACES_SKIPPED: u32 = 1 << 12;
/// Written to the engine at once.
const BATCH_BYTES: usize = 1 << 20;

/// Puts a backup's records into an empty engine.
#[derive(Debug)]
struct Refill {
    engine: Arc<dyn Engine>,
    batch: Vec<Write>,
    bytes: usize,
}

impl Refill {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let Some(value) = revived(key, value)? else { return Ok(()) };
        self.bytes += key.len() + value.len();
        self.batch.push(Write::Put(key.to_vec(), value));
        if self.bytes >= BATCH_BYTES {
            self.flush(false)?;
        }
        Ok(())
    }

    fn flush(&mut self, sync: bool) -> Result<()> {
        self.bytes = 0;
        self.engine.write(std::mem::take(&mut self.batch), sync)
    }
}

/// The value that a record has in restored metadata; `None`: it is not in it.
fn revived(key: &[u8], value: &[u8]) -> Result<Option<Vec<u8>>> {
    let Some((ns, rest)) = key.split_first_chunk::<4>() else {
        return Err(Error::new(Kind::Corrupt, "the backup has a key that no metadata has; use another"));
    };
    let ns = NamespaceId(u32::from_be_bytes(*ns));
    if ns.0 == 0 {
        if key == records::NEXT_ID_KEY {
            let next = records::decode_id(value)?;
            return Ok(Some(records::encode_id(NamespaceId(next.0.saturating_add(NAMESPACES_SKIPPED)))));
        }
        let of_session =
            key.starts_with(session::SESSION_PREFIX) || key.starts_with(session::ANSWERED_PREFIX);
        return Ok((!of_session).then(|| value.to_vec()));
    }
    match rest.first() {
        // Of sessions, of a node's log as it was, and copies of a version that does not come again.
        Some(&tag) if [Family::Reply, Family::Redo, Family::Inline].map(|f| f as u8).contains(&tag) => {
            return Ok(None);
        }
        Some(&tag) if tag == Family::Counters as u8 || tag == Family::Inode as u8 => {}
        _ => return Ok(Some(value.to_vec())),
    }
    Ok(Some(match Value::decode(&Key::decode(ns, key)?, value)? {
        Value::Counters(mut counters) => {
            for next in [&mut counters.next_ino, &mut counters.next_of_trash] {
                *next = Ino(next.0.saturating_add(SKIPPED));
            }
            Value::Counters(counters).encode()
        }
        Value::Inode(mut inode) => {
            let inode = Arc::make_mut(&mut inode);
            inode.attr.version = inode.attr.version.saturating_add(SKIPPED);
            Value::Inode(Arc::new(inode.clone())).encode()
        }
        other => other.encode(),
    }))
}

/// A restore under way. Dropped before its end, it leaves nothing.
#[derive(Debug)]
pub struct Restore {
    fresh: FreshFolder,
    refill: Refill,
    decoder: Decoder,
}

impl Restore {
    /// `Exists` when the folder is there and not empty.
    pub fn begin(folder: &Path) -> Result<Restore> {
        let fresh = FreshFolder::begin(folder)?;
        let refill = Refill { engine: fresh.engine().clone(), batch: Vec::new(), bytes: 0 };
        Ok(Restore { fresh, refill, decoder: Decoder::default() })
    }

    /// The next bytes of the backup, in pieces of any length.
    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        let refill = &mut self.refill;
        self.decoder.push(bytes, &mut |key, value| refill.put(key, value))
    }

    /// All of it was pushed: verifies that, and moves the folder to its place.
    pub fn finish(self) -> Result<(Header, Totals)> {
        let Restore { fresh, mut refill, decoder } = self;
        let (header, totals) = decoder.finish()?;
        refill.flush(true)?;
        let info = refill
            .engine
            .get(records::VOLUME_KEY)?
            .ok_or_else(|| Error::new(Kind::Corrupt, "the backup has no volume in it; use another"))?;
        if records::decode_volume(&info)?.uuid != header.uuid {
            return Err(Error::new(
                Kind::Corrupt,
                "the backup's header names another volume than it holds; use another",
            ));
        }
        fresh.settle()?;
        Ok((header, totals))
    }
}

#[cfg(test)]
mod tests;
