//! Pages of LMDB data files as somebody who means harm would write them: with the number that they should have, the rest is anything.
#![no_main]

use granary_packer::from::lmdb::page::{Page, Value, is_overflow, meta, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
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
});
