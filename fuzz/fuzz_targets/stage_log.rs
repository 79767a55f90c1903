//! Segments of the stage log: whatever lies on the disk, a scan ends, and what it calls good is within the bytes.
#![no_main]

use granary_cache::fuzzing::{scan_segment, sign_header};
use granary_core::NamespaceId;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
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
});
