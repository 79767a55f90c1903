//! Checksums of clean copies and of objects' frames, as they lie on the node's disk: whatever is accepted says the same when it
//! is written again, and is no longer than what was read.
#![no_main]

use granary_cache::fuzzing::SumsFile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    for kind in [SumsFile::Copy, SumsFile::Object] {
        check(kind, data);
        // The same where magic, version and checksum are right.
        check(kind, &kind.seal(data));
    }
});

fn check(kind: SumsFile, bytes: &[u8]) {
    if let Some(written) = kind.rewrite(bytes) {
        assert_eq!(written.len(), bytes.len());
        assert_eq!(kind.rewrite(&written), Some(written));
    }
}
