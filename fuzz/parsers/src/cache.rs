//! What a node keeps on its disk.

use granary_cache::fuzzing::{SumsFile, scan_segment, sign_header};
use granary_core::NamespaceId;

/// Checksums of clean copies and of objects' frames, as they lie on the node's disk: whatever is accepted says the same when it
/// is written again, and is no longer than what was read.
pub fn cache_sums(data: &[u8]) {
    for kind in [SumsFile::Copy, SumsFile::Object] {
        rewritten(kind, data);
        // The same where magic, version and checksum are right.
        rewritten(kind, &kind.seal(data));
    }
}

fn rewritten(kind: SumsFile, bytes: &[u8]) {
    if let Some(written) = kind.rewrite(bytes) {
        assert_eq!(written.len(), bytes.len());
        assert_eq!(kind.rewrite(&written), Some(written));
    }
}

/// Segments of the stage log: whatever lies on the disk, a scan ends, and what it calls good is within the bytes.
pub fn stage_log(data: &[u8]) {
    let check = |bytes: &[u8]| {
        let (good, records) = scan_segment(bytes, NamespaceId(1), 7);
        assert!(good <= bytes.len());
        assert_eq!(good == 0, records == 0);
        // A good prefix is good by itself.
        assert_eq!(scan_segment(&bytes[..good], NamespaceId(1), 7), (good, records));
    };
    check(data);
    if let Some(signed) = sign_header(data, 7) {
        check(&signed);
    }
}
