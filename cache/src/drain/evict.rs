//! Clean copies go, oldest first, when they take more than their share of the disk, or the disk becomes full.

use crate::room::Level;
use crate::stage::Shape;
use crate::tree::Shared;

/// `more` bytes are to be written to the disk.
pub(crate) fn evict(shared: &Shared, more: u64) {
    evict_to(shared, shared.clean_bytes_max(), more);
}

/// `bytes` more are to be a clean copy.
pub(crate) fn evict_for_copy(shared: &Shared, bytes: u64) {
    evict_to(shared, shared.clean_bytes_max().saturating_sub(bytes), bytes);
}

/// Until the node's clean copies take at most `keep` and the disk has room for `more`, or this namespace has none.
fn evict_to(shared: &Shared, keep: u64, more: u64) {
    let too_much = || {
        shared.reads.clean_bytes() > keep
            || shared.clean.bytes() > 0 && shared.reads.room().look(more) > Level::Ample
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
