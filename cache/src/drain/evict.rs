//! Clean copies go, oldest first, when they take more than their share of the disk, or the disk becomes full.

use crate::room::Level;
use crate::stage::Shape;
use crate::tree::Shared;

/// Clean copies may take one part in this many of `cache_bytes_max`; the rest is the object cache's.
const SHARE: u64 = 2;

/// `more` bytes are to be written to the disk.
pub(crate) fn evict(shared: &Shared, more: u64) {
    let too_much = || {
        let bytes = shared.clean.bytes();
        bytes > shared.limits.cache_bytes_max / SHARE
            || bytes > 0 && shared.reads.room().look(more) > Level::Ample
    };
    // What is not verified yet serves nobody.
    while shared.files.free_bytes() < shared.limits.cache_free_bytes_min
        && let Some((ino, version)) = shared.clean.next_unverified()
    {
        shared.clean.take_unverified(ino);
        if let Err(e) = shared.files.remove(ino, Shape::Clean(version)) {
            tracing::warn!(error = %e, "a clean stage file stays until the next start");
        }
    }
    let mut left = shared.clean.len();
    while left > 0 && too_much() {
        left -= 1;
        let Some(ino) = shared.clean.oldest() else { return };
        // First out of the table, so that nobody who opens the file now takes the copy up.
        let Some((version, bytes)) = shared.clean.take(ino) else { continue };
        if !shared.table.find(ino).is_none_or(|file| file.drop_clean()) {
            shared.clean.insert(ino, version, bytes); // in use: others go before it
        } else if let Err(e) = shared.files.remove(ino, Shape::Clean(version)) {
            tracing::warn!(error = %e, "a clean stage file stays until the next start");
        }
    }
}
