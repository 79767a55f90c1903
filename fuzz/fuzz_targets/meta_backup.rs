//! Backups of metadata: what is accepted is whole, and has the records that its end says.
#![no_main]

use granary_maintain::backup::Decoder;
use libfuzzer_sys::fuzz_target;

/// Magic, version, zeros, length of the fields.
const FIXED: usize = 16;

fuzz_target!(|data: &[u8]| {
    check(data);

    // The same behind a header that is good, as blocks with matching checksums: each begins with its length.
    let mut backup = header();
    let mut rest = data;
    while let [len, tail @ ..] = rest {
        let (body, after) = tail.split_at(usize::from(*len).min(tail.len()));
        let start = backup.len();
        if body.len() > 4 {
            backup.extend_from_slice(&(body.len() as u32 - 4).to_le_bytes());
            backup.extend_from_slice(body);
            backup.extend_from_slice(&crc32c::crc32c(&backup[start..]).to_le_bytes());
        }
        rest = after;
    }
    check(&backup);
});

fn header() -> Vec<u8> {
    let mut out = [&b"granaryM"[..], &[1, 0, 0, 0, 12, 0, 0, 0], &[0; 12]].concat();
    assert_eq!(out.len(), FIXED + 12);
    out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
    out
}

fn check(backup: &[u8]) {
    let (mut decoder, mut records) = (Decoder::default(), 0);
    for piece in backup.chunks(61) {
        let taken = decoder.push(piece, &mut |_, _| {
            records += 1;
            Ok(())
        });
        if taken.is_err() {
            return;
        }
    }
    if let Ok((_, totals)) = decoder.finish() {
        assert_eq!(totals.records, records);
    }
}
