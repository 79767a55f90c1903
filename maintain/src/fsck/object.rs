//! One object against what the metadata says of it: its footer, a pack's directory, and with its payload every checksum.

use bytes::Bytes;
use granary_core::id::object_key;
use granary_core::{Kind, NamespaceId, Result};
use granary_meta::ObjectInfo;
use granary_store::Store;
use granary_store::format::{Content, Footer, PackEntry, decode_object};

use super::known::Use;
use crate::finding::What;
use crate::progress::Progress;

/// What is wrong with an object, and which of its uses that concerns.
#[derive(Debug)]
pub(super) struct Wrong {
    pub what: What,
    pub message: String,
    pub uses: Vec<Use>,
}

/// What a look at one object gave.
#[derive(Debug)]
pub(super) enum Seen {
    Gone,
    Wrong(Vec<Wrong>),
}

/// Reads the object's footer, or with `data` all of it.
pub(super) async fn look(
    store: &dyn Store,
    (ns, info): (NamespaceId, ObjectInfo),
    uses: &[Use],
    data: bool,
    progress: &Progress,
) -> Result<Seen> {
    let key = object_key(ns, info.kind, info.id);
    let from = if data { 0 } else { info.payload_len };
    let bytes = match store.get(&key, from..info.total_len).await {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == Kind::NotFound => return Ok(Seen::Gone),
        Err(e) if e.kind() == Kind::Corrupt => {
            return Ok(Seen::Wrong(vec![whole(What::Damaged, e.to_string(), uses)]));
        }
        Err(e) => return Err(e),
    };
    progress.read(bytes.len() as u64);
    let wrong =
        if data { verify_all(ns, &info, &bytes, uses) } else { verify_footer(ns, &info, &bytes, uses) };
    progress.advance(1)?;
    Ok(Seen::Wrong(wrong))
}

fn whole(what: What, message: String, uses: &[Use]) -> Wrong {
    Wrong { what, message, uses: uses.to_vec() }
}

fn verify_footer(ns: NamespaceId, info: &ObjectInfo, bytes: &Bytes, uses: &[Use]) -> Vec<Wrong> {
    match Footer::parse(bytes, info.payload_len) {
        Ok(footer) => verify_directory(ns, info, &footer, uses),
        Err(e) => vec![whole(What::Damaged, e.to_string(), uses)],
    }
}

fn verify_all(ns: NamespaceId, info: &ObjectInfo, bytes: &Bytes, uses: &[Use]) -> Vec<Wrong> {
    let object = match decode_object(bytes) {
        Ok(object) => object,
        Err(e) => return vec![whole(What::Damaged, e.to_string(), uses)],
    };
    let mut wrong = verify_directory(ns, info, &object.footer, uses);
    for u in uses.iter().filter(|u| u.crc != 0) {
        let range = u.object_offset as usize..(u.object_offset.saturating_add(u.len)) as usize;
        if object.payload.get(range).is_some_and(|bytes| granary_core::crc32c(bytes) != u.crc) {
            let message = format!(
                "{} bytes at file offset {} do not match the checksum they were written with, though the object is whole",
                u.len, u.at
            );
            wrong.push(whole(What::Damaged, message, &[*u]));
        }
    }
    wrong
}

/// The object is the one that is meant, and a pack's directory has all bytes that are used of it. Whose they were when the
/// pack was made does not matter: copies by reference share them.
fn verify_directory(ns: NamespaceId, info: &ObjectInfo, footer: &Footer, uses: &[Use]) -> Vec<Wrong> {
    if let Err(e) = footer.check_identity(ns, info.kind, info.id) {
        return vec![whole(What::Directory, e.to_string(), uses)];
    }
    let Content::Pack(entries) = &footer.content else { return Vec::new() };
    let mut wrong = Vec::new();
    for u in uses {
        if !covers(entries, u) {
            let message = format!(
                "the pack's directory has no entry for all of the payload bytes {}..{}, which the metadata says are of this file",
                u.object_offset,
                u.object_offset.saturating_add(u.len)
            );
            wrong.push(whole(What::Directory, message, &[*u]));
        }
    }
    wrong
}

/// Whether entries without a gap have the bytes; one that has exactly them must have their checksum too.
fn covers(entries: &[PackEntry], u: &Use) -> bool {
    let (mut at, end) = (u.object_offset, u.object_offset.saturating_add(u.len));
    let first = entries.partition_point(|e| e.payload_end() <= at);
    for entry in &entries[first..] {
        let start = u64::from(entry.payload_offset);
        if start > at {
            return false;
        }
        if (start, entry.payload_end()) == (u.object_offset, end) && u.crc != 0 && u.crc != entry.crc {
            return false;
        }
        at = entry.payload_end();
        if at >= end {
            return true;
        }
    }
    false
}
