//! Whose cache directory this is: `CACHE/node.json`, written once.
//!
//! ```json
//! {"format": 1, "node": "00f3c2a19be04d57", "volume": "5e0c..."}
//! ```
//!
//! | field | meaning |
//! |---|---|
//! | `format` | version of the cache directory's layout: 1 |
//! | `node` | 16 hexadecimal digits, random: extents that are `staged at node N` mean this directory |
//! | `volume` | uuid of the volume whose bytes are staged here |
//!
//! The staged bytes of one volume must never be stored into another, so a directory of another volume is refused.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use granary_core::{Kind, NodeId};
use serde::{Deserialize, Serialize};

use crate::exit::{Failure, Outcome};

const FORMAT: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    format: u32,
    node: String,
    volume: String,
}

/// Only this is read of a format that may be newer.
#[derive(Deserialize)]
struct AnyFormat {
    format: u32,
}

/// The id of the node that `cache` belongs to; made by `random` when the directory is new.
pub fn identify(cache: &Path, volume: &str, random: impl FnOnce() -> u64) -> Outcome<NodeId> {
    let Some((node, known)) = read(cache)? else { return found(cache, volume, random()) };
    if known != volume {
        return Err(Failure::of_kind(
            Kind::Invalid,
            format!(
                "the cache directory {} belongs to another volume ({known}, this one is {volume}); give this volume another \
                 --cache, or the other volume's --meta",
                cache.display(),
            ),
        ));
    }
    Ok(node)
}

/// The node, and the volume whose bytes are staged; `None` for a new directory.
pub fn read(cache: &Path) -> Outcome<Option<(NodeId, String)>> {
    let path = cache.join("node.json");
    let damaged = |why: String| {
        Failure::of_kind(
            Kind::Corrupt,
            format!(
                "{} is damaged ({why}); it says which node's bytes are staged in {}: restore it, or give another --cache",
                path.display(),
                cache.display()
            ),
        )
    };
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Failure::io(format!("cannot read {}", path.display()), &e)),
    };
    let any: AnyFormat = serde_json::from_slice(&text).map_err(|e| damaged(e.to_string()))?;
    if any.format > FORMAT {
        return Err(Failure::of_kind(
            Kind::Unsupported,
            format!(
                "the cache directory {} has format version {}, this program knows up to {FORMAT}; use a newer granary, \
                 or give another --cache",
                cache.display(),
                any.format
            ),
        ));
    }
    let identity: Identity = serde_json::from_slice(&text).map_err(|e| damaged(e.to_string()))?;
    let node = (identity.node.len() == 16).then(|| u64::from_str_radix(&identity.node, 16).ok()).flatten();
    let node = node.ok_or_else(|| damaged(format!("{:?} is no node id", identity.node)))?;
    Ok(Some((NodeId(node), identity.volume)))
}

/// Writes a new directory's identity so that it is there whole or not at all.
fn found(cache: &Path, volume: &str, node: u64) -> Outcome<NodeId> {
    let node = NodeId(node);
    let identity = Identity { format: FORMAT, node: node.to_string(), volume: volume.to_owned() };
    let cannot = |e: &std::io::Error| Failure::io(format!("cannot write {}/node.json", cache.display()), e);
    let text = serde_json::to_vec(&identity).map_err(|e| cannot(&e.into()))?;
    let new = cache.join("node.json.new");
    let mut file = File::create(&new).map_err(|e| cannot(&e))?;
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(|e| cannot(&e))?;
    std::fs::rename(&new, cache.join("node.json")).map_err(|e| cannot(&e))?;
    File::open(cache).and_then(|dir| dir.sync_all()).map_err(|e| cannot(&e))?;
    Ok(node)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn made_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(identify(dir.path(), "v1", || 7).unwrap(), NodeId(7));
        assert_eq!(identify(dir.path(), "v1", || panic!("made twice")).unwrap(), NodeId(7));
        let e = identify(dir.path(), "v2", || 8).unwrap_err();
        assert!(e.message.contains("another volume (v1, this one is v2)"), "{e}");
    }

    #[test]
    fn a_newer_format_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("node.json"), r#"{"format": 2, "nodes": []}"#).unwrap();
        let e = identify(dir.path(), "v", || 1).unwrap_err();
        assert!(e.is(Kind::Unsupported) && e.message.contains("newer granary"), "{e}");
    }

    proptest! {
        #[test]
        fn damage_is_never_taken_for_an_identity(cut in 0usize..64, flip in 0usize..64, bit in 0u8..8) {
            let dir = tempfile::tempdir().unwrap();
            identify(dir.path(), "v1", || 0x1234_5678_9abc_def0).unwrap();
            let path = dir.path().join("node.json");
            let whole = std::fs::read(&path).unwrap();
            std::fs::write(&path, &whole[..cut.min(whole.len() - 1)]).unwrap();
            prop_assert!(identify(dir.path(), "v1", || 1).unwrap_err().is(Kind::Corrupt));
            // JSON has no checksum; a flipped bit may still give another well-formed id, but never a panic or a new file.
            let mut flipped = whole.clone();
            let at = flip % flipped.len();
            flipped[at] ^= 1 << bit;
            std::fs::write(&path, &flipped).unwrap();
            let _ = identify(dir.path(), "v1", || panic!("a damaged file was replaced"));
        }
    }
}
