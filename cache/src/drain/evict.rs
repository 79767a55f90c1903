//! Clean copies go, oldest first, when they take more than their share of the disk, or the disk becomes full.

use crate::tree::Shared;

/// Clean copies may take one part in this many of `cache_bytes_max`; the rest is the object cache's.
const SHARE: u64 = 2;

pub(super) fn evict(shared: &Shared) {
    let too_much = || {
        let bytes = shared.clean.bytes();
        bytes > shared.limits.cache_bytes_max / SHARE
            || bytes > 0 && shared.files.free_bytes() < shared.limits.cache_free_bytes_min
    };
    let mut left = shared.clean.len();
    while left > 0 && too_much() {
        left -= 1;
        let Some(ino) = shared.clean.oldest() else { return };
        let unused = shared.table.find(ino).is_none_or(|file| file.drop_clean());
        if unused {
            shared.clean.drop_copy(&shared.files, ino);
        } else {
            shared.clean.spare(ino);
        }
    }
}
