//! The ordered key-value store below metadata, as narrow as metadata needs it: point reads, forward scans, atomic
//! batches, fsync. Everything else (what a key means, when to write) is decided above.
//!
//! What an engine promises:
//! * A batch is there wholly or not at all, also after a power loss.
//! * After a power loss the engine has a prefix of the batches in the order of their `write` calls, and at least all
//!   that were written before the last `sync` (or `write` with `sync`) that returned.
//! * A scan sees one moment: no batch half.

use std::fmt::Debug;

use granary_core::Result;

pub mod faulty;
pub mod memory;
pub mod rocks;

pub use faulty::FaultyEngine;
pub use memory::MemoryEngine;
pub use rocks::RocksEngine;

/// One change of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    /// Deletes every key with this prefix (not empty) that is there before the batch.
    DeletePrefix(Vec<u8>),
}

/// Called with key and value; `false` ends the scan.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<bool> + 'a;

/// What an engine held at one moment.
pub trait Snapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>>;

    /// As [`Engine::scan`].
    fn scan(&self, prefix: &[u8], from: &[u8], visit: &mut Visit<'_>) -> Result<()>;
}

/// Called with what is there at one moment.
pub type Look<'a> = dyn FnMut(&dyn Snapshot) -> Result<()> + 'a;

/// An ordered key-value store. Errors: `Io` and `NoSpace` (the disk), `Corrupt`, `Unavailable` (closed).
pub trait Engine: Send + Sync + Debug {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>>;

    /// Visits all keys not below `from` that begin with `prefix`, in byte order, as they were at one moment.
    fn scan(&self, prefix: &[u8], from: &[u8], visit: &mut Visit<'_>) -> Result<()>;

    /// Shows one moment to `look`, while others write. `close` waits for it.
    fn snapshot(&self, look: &mut Look<'_>) -> Result<()>;

    /// Applies all of the batch, in order, atomically; durable at return with `sync`, else at the next sync.
    fn write(&self, batch: Vec<Write>, sync: bool) -> Result<()>;

    /// What was written before the call is durable at return.
    fn sync(&self) -> Result<()>;

    /// After a write or a sync that failed: makes the engine work again, if its disk does. At return all that earlier writes
    /// were told to have written is there and durable; of those that failed some may be. Reads go on, unless it fails.
    ///
    /// Errors: why it does not work yet; `Corrupt` for ever when something that was written is gone.
    fn revive(&self) -> Result<()>;

    /// Syncs and lets go of files and locks. Later calls fail with `Unavailable`; a second close does nothing.
    fn close(&self) -> Result<()>;
}

/// The smallest key above all keys with this prefix; `None` when there is none (all bytes 255).
pub(crate) fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&b| b != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

pub(crate) fn closed() -> granary_core::Error {
    granary_core::Error::new(
        granary_core::Kind::Unavailable,
        "the metadata engine is closed; open the volume again",
    )
}

#[cfg(test)]
mod tests;
