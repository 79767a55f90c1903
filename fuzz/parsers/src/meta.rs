//! Metadata: in the engine, in backups, on the wire.

use granary_core::NamespaceId;
use granary_maintain::backup::Decoder;
use granary_meta::record::{Key, Value};
use granary_meta::wire::fuzzing;

/// Backups of metadata: what is accepted is whole, and has the records that its end says.
pub fn meta_backup(data: &[u8]) {
    decoded(data);

    // The same behind a header that is good, as blocks with matching checksums: each begins with its length.
    let mut backup = header();
    let mut rest = data;
    while let [len, tail @ ..] = rest {
        let (body, after) = tail.split_at(usize::from(*len).min(tail.len()));
        let start = backup.len();
        if body.len() > 4 {
            backup.extend_from_slice(&(body.len() as u32 - 4).to_le_bytes());
            backup.extend_from_slice(body);
            backup.extend_from_slice(&granary_core::crc32c(&backup[start..]).to_le_bytes());
        }
        rest = after;
    }
    decoded(&backup);
}

/// Magic, version, zeros, length of the fields; the fields; the checksum.
fn header() -> Vec<u8> {
    let mut out = [&b"granaryM"[..], &[1, 0, 0, 0, 12, 0, 0, 0], &[0; 12]].concat();
    out.extend_from_slice(&granary_core::crc32c(&out).to_le_bytes());
    out
}

fn decoded(backup: &[u8]) {
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

/// Keys and values of the metadata engine: what is accepted is written back as the same bytes.
pub fn meta_record(data: &[u8]) {
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
}

/// Frames of the metadata service's wire, as a client or a service would hear them: refused or understood, and what is
/// understood can be said again.
pub fn meta_wire(data: &[u8]) {
    fuzzing::hear(data);
}
