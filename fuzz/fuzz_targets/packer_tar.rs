//! Tars of anybody, with headers' checksums as they are and made to match, and trailers.
#![no_main]

use granary_packer::tar::{Entry, Members, encode};
use granary_packer::trailer::Trailer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    read(data);
    let _ = Trailer::parse_end(data, data.len() as u64);

    let mut sealed = data.to_vec();
    for block in sealed.chunks_exact_mut(512) {
        let sum: u32 = block.iter().enumerate().map(|(at, &b)| if (148..156).contains(&at) { 32 } else { u32::from(b) }).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    read(&sealed);

    let Some(tail) = data.last_chunk::<508>() else { return };
    let mut trailer = tail.to_vec();
    trailer[..8].copy_from_slice(b"granaryS");
    trailer.extend_from_slice(&crc32c::crc32c(&trailer).to_le_bytes());
    let bytes = u64::from_le_bytes(trailer[48..56].try_into().unwrap()).wrapping_add(512);
    if let Ok(Some(parsed)) = Trailer::parse_end(&trailer, bytes) {
        assert_eq!(Trailer::parse_end(&parsed.encode().unwrap(), bytes).unwrap(), Some(parsed));
    }
});

/// What is read and can be written is read as the same again.
fn read(tar: &[u8]) {
    let mut members = Members::new(tar, "x");
    let mut buffer = [0; 700];
    while let Ok(Some(member)) = members.next_member() {
        assert!(members.at() <= tar.len() as u64 && members.header_at() < members.at());
        while members.read(&mut buffer).is_ok_and(|n| n > 0) {}
        let entry = Entry {
            path: &member.path,
            target: &member.target,
            kind: member.kind,
            size: 0,
            mode: member.mode,
            mtime: member.mtime,
            uid: member.uid,
            gid: member.gid,
        };
        let mut again = Vec::new();
        if encode(&entry, &mut again).is_ok() {
            again.resize(again.len() + 1024, 0);
            let mut twice = Members::new(&again[..], "y");
            // A target that is only kept in a pax header may be empty, or a path end with what is cut off.
            if let Ok(Some(twice)) = twice.next_member() {
                assert_eq!((twice.kind, twice.mode, twice.mtime), (member.kind, member.mode, member.mtime));
            }
        }
    }
}
