//! Keys and values of the metadata engine: what is accepted is written back as the same bytes.
#![no_main]

use granary_core::NamespaceId;
use granary_meta::record::{Key, Value};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // The first byte is the key's length.
    let Some((&len, rest)) = data.split_first() else { return };
    let (key, value) = rest.split_at(usize::from(len).min(rest.len()));
    let ns = NamespaceId(1);
    let bytes = [&ns.0.to_be_bytes(), key].concat();
    let Ok(key) = Key::decode(ns, &bytes) else { return };
    assert_eq!(key.encode(ns), bytes, "{key:?}");
    let Ok(read) = Value::decode(&key, value) else { return };
    let again = Value::decode(&key, &read.encode()).expect("what was written is read");
    assert_eq!(again.encode(), read.encode());
});
