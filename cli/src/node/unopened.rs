//! What is staged of namespaces that this node could not open, for `granary status`: their tokens have ended, for example.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use granary_core::NamespaceId;

use crate::exit::Failure;
use crate::removal::stage_dir;
use crate::wire::UnopenedStatus;

/// Looks into the stage directory; `None` when nothing in it waits for the store.
pub fn look(cache: &Path, id: NamespaceId, why: &Failure) -> Option<UnopenedStatus> {
    let dir = stage_dir(cache, id);
    let bytes: u64 =
        ["log", "files", "sparse"].iter().map(|part| bytes_in(&dir.join(part), *part == "log")).sum();
    (bytes > 0).then(|| UnopenedStatus { dir: dir.display().to_string(), bytes, why: why.to_string() })
}

/// Of a directory's own files; `segments`: of those that are numbered. What cannot be read counts as nothing: it is only told.
fn bytes_in(dir: &Path, segments: bool) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let is_segment = |name: &str| name.len() >= 16 && name.bytes().take(16).all(|b| b.is_ascii_hexdigit());
    entries
        .flatten()
        .filter(|entry| !segments || entry.file_name().to_str().is_some_and(is_segment))
        .filter_map(|entry| entry.metadata().ok())
        .filter(fs::Metadata::is_file)
        // A hole has no bytes.
        .map(|meta| meta.len().min(meta.blocks() * 512))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use granary_core::Kind;

    #[test]
    fn only_what_waits_for_the_store_counts() {
        let cache = tempfile::tempdir().unwrap();
        let (id, why) = (NamespaceId(7), Failure::of_kind(Kind::Denied, "its token has ended"));
        assert_eq!(look(cache.path(), id, &why), None);
        let dir = stage_dir(cache.path(), id);
        for part in ["log", "files", "sparse", "clean"] {
            fs::create_dir_all(dir.join(part)).unwrap();
        }
        fs::write(dir.join("clean/1.0000000000000001"), [1; 5000]).unwrap();
        fs::write(dir.join("log/sequence"), [1; 5000]).unwrap();
        assert_eq!(look(cache.path(), id, &why), None);
        fs::write(dir.join("log/0000000000000001"), [1; 4096]).unwrap();
        fs::write(dir.join("files/9"), [1; 4096]).unwrap();
        let sparse = fs::File::create(dir.join("sparse/10")).unwrap();
        sparse.set_len(1 << 30).unwrap();
        let found = look(cache.path(), id, &why).unwrap();
        assert_eq!((found.bytes, found.why.as_str()), (8192, "its token has ended"));
        assert_eq!(found.dir, dir.display().to_string());
    }
}
