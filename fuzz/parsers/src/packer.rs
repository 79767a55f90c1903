//! Packed data sets, and what they are made of.

use bytes::Bytes;
use granary_packer::from::lmdb::page::{Page, Value, is_overflow, meta, parse};
use granary_packer::index::{Header, Index};
use granary_packer::manifest::Manifest;
use granary_packer::tar::{Entry, Members, encode};
use granary_packer::trailer::Trailer;

/// Bytes of an index under one sum.
const BLOCK_BYTES: usize = 64 << 10;

/// Indexes as somebody who means harm would make them: checksums match, the rest is anything.
pub fn packer_index(data: &[u8]) {
    // As it is: nearly always stopped by the header's checksum.
    let _ = Index::from_bytes(Bytes::copy_from_slice(data)).map(|index| touch(&index));

    // The first 56 bytes are the header's, the rest is the sections; sums and checksums are made to match.
    let Some((head, body)) = data.split_at_checked(56) else { return };
    let sums: Vec<u8> =
        body.chunks(BLOCK_BYTES).flat_map(|part| granary_core::crc32c(part).to_le_bytes()).collect();
    let mut index = head.to_vec();
    index[..8].copy_from_slice(b"granaryX");
    index.extend_from_slice(&granary_core::crc32c(&sums).to_le_bytes());
    index.extend_from_slice(&granary_core::crc32c(&index).to_le_bytes());
    index.extend_from_slice(body);
    index.extend_from_slice(&sums);
    if let Ok(header) = Header::decode(&index) {
        let mut again = header.clone();
        assert_eq!(again.encode()[..], index[..64]);
        assert_eq!(again, header);
    }
    let _ = Index::from_bytes(index.into()).map(|index| touch(&index));
}

fn touch(index: &Index) {
    let whole = index.verify().is_ok();
    for n in 0..index.file_count().min(64) {
        if let Ok(file) = index.file(n) {
            assert!(file.offset + file.length <= index.shard_bytes() && file.sample < index.sample_count());
            if whole {
                assert_eq!(index.find(file.path).ok(), Some(Some(n)));
            }
        } else {
            assert!(!whole);
        }
        let _ = index.sorted(n);
    }
    for n in 0..index.sample_count().min(64) {
        if let (Ok(files), Ok(span)) = (index.sample(n), index.sample_span(n)) {
            assert!(!files.is_empty() && files.end <= index.file_count() && span.end <= index.shard_bytes());
        }
        let _ = index.sample_key(n);
    }
    for n in 0..index.other_count().min(64) {
        let _ = index.other(n);
    }
    let _ = index.find(b"a/b.c");
}

/// Tars of anybody, with headers' checksums as they are and made to match, and trailers.
pub fn packer_tar(data: &[u8]) {
    members(data);
    let _ = Trailer::parse_end(data, data.len() as u64);

    let mut sealed = data.to_vec();
    for block in sealed.chunks_exact_mut(512) {
        let summed = |at: usize, byte: u8| if (148..156).contains(&at) { 32 } else { u32::from(byte) };
        let sum: u32 = block.iter().enumerate().map(|(at, &byte)| summed(at, byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    members(&sealed);

    let Some(tail) = data.last_chunk::<508>() else { return };
    let mut trailer = tail.to_vec();
    trailer[..8].copy_from_slice(b"granaryS");
    trailer.extend_from_slice(&granary_core::crc32c(&trailer).to_le_bytes());
    let said = trailer[48..56].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let bytes = said.wrapping_add(512);
    if let Ok(Some(parsed)) = Trailer::parse_end(&trailer, bytes) {
        let again = parsed.encode().expect("what was read is written");
        assert_eq!(Trailer::parse_end(&again, bytes).ok(), Some(Some(parsed)));
    }
}

/// What is read and can be written is read as the same again.
fn members(tar: &[u8]) {
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
            again.extend_from_slice(&[0; 1024]);
            let mut twice = Members::new(&again[..], "y");
            // A target that is only kept in a pax header may be empty, or a path end with what is cut off.
            if let Ok(Some(twice)) = twice.next_member() {
                assert_eq!((twice.kind, twice.mode, twice.mtime), (member.kind, member.mode, member.mtime));
            }
        }
    }
}

/// Manifests as somebody who means harm would write them: the checksum matches, the rest is anything.
pub fn packer_manifest(data: &[u8]) {
    let _ = Manifest::decode(data);
    let mut lines = data.to_vec();
    lines.push(b'\n');
    let tail = format!("{{\"crc32c\":\"{:08x}\"}}\n", granary_core::crc32c(&lines));
    lines.extend_from_slice(tail.as_bytes());
    let Ok(manifest) = Manifest::decode(&lines) else { return };
    let again = manifest.encode().expect("what was read is written");
    assert_eq!(Manifest::decode(&again).ok().as_ref(), Some(&manifest));
    let samples = manifest.sample_count();
    for n in [0, 1, samples / 2, samples.saturating_sub(1)].into_iter().filter(|&n| n < samples) {
        let (shard, sample) = manifest.locate_sample(n).expect("a sample of those it counts");
        assert_eq!(manifest.sample_number(shard, sample), Some(n));
    }
    assert_eq!(manifest.locate_sample(samples), None);
    let _ = (manifest.digest(), manifest.file_count());
}

/// Pages of LMDB data files as somebody who means harm would write them: with the number that they should have, the rest is anything.
pub fn packer_lmdb(data: &[u8]) {
    let mut page = data.to_vec();
    if page.len() >= 152 {
        // So that more than the magic is tried.
        page[16..24].copy_from_slice(&[0xde, 0xc0, 0xef, 0xbe, 1, 0, 0, 0]);
        if let Ok(meta) = meta(&page) {
            assert!(meta.page_bytes.is_power_of_two() && meta.depth <= 32);
            assert!(meta.root.is_none_or(|root| root <= meta.last_page));
        }
    }
    let _ = (meta(data), parse(data, 0), is_overflow(data, 0, 1, 4096));
    let mut page = data.to_vec();
    if page.len() >= 8 {
        page[..8].copy_from_slice(&7u64.to_le_bytes());
    }
    match parse(&page, 7) {
        Ok(Page::Leaf(nodes)) => {
            assert!(nodes.len() <= page.len() / 2);
            for node in nodes {
                assert!(!page[node.key].is_empty());
                if let Value::Here(at) = node.value {
                    let _ = &page[at..at + node.length as usize];
                }
            }
        }
        Ok(Page::Branch(below)) => assert!(below.len() <= page.len() / 2),
        Err(_) => {}
    }
}
