//! What a path leads to, where it is not the kernel that follows it.
//!
//! As in path_resolution(7), within the namespace: every directory on the way must let the caller through, symbolic links are
//! followed, and what they name by an absolute path is not in the namespace, as far as can be told here.

use std::collections::VecDeque;

use granary_core::{EntryName, Ino, Kind, Result};
use granary_meta::{Attr, FileType, Metadata};

use super::rights::{Rights, SEARCH};

/// Symbolic links on the way, as Linux has it.
const LINKS_MAX: usize = 40;

/// Of a look-up that may have lost a race: nothing is there.
pub(super) fn unless_gone<T>(found: Result<T>) -> Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(e) if matches!(e.kind(), Kind::NotFound | Kind::Stale) => Ok(None),
        Err(e) => Err(e),
    }
}

/// What `path` leads to from a directory; `None`: nothing, or the caller may not know.
///
/// Errors: those of the metadata.
pub(super) async fn resolve(
    meta: &dyn Metadata,
    rights: &Rights,
    from: Ino,
    path: &[u8],
) -> Result<Option<Attr>> {
    let mut left: VecDeque<Vec<u8>> = path.split(|&b| b == b'/').map(<[u8]>::to_vec).collect();
    let Some(mut at) = unless_gone(meta.getattr(from).await)? else { return Ok(None) };
    let mut links = 0;
    while let Some(name) = left.pop_front() {
        if name.is_empty() || name == b"." {
            continue;
        }
        if at.kind != FileType::Directory || !rights.may(meta, &at, SEARCH).await? {
            return Ok(None);
        }
        let next = match &name[..] {
            b".." if at.ino == Ino::ROOT => continue,
            b".." => meta.getattr(meta.parent(at.ino).await?).await,
            name => match EntryName::new(name) {
                Ok(name) => meta.lookup(at.ino, name).await,
                Err(_) => return Ok(None), // no name has it
            },
        };
        let Some(next) = unless_gone(next)? else { return Ok(None) };
        if next.kind != FileType::Symlink {
            at = next;
            continue;
        }
        links += 1;
        let Some(target) = unless_gone(meta.readlink(next.ino).await)? else { return Ok(None) };
        if links > LINKS_MAX || target.starts_with(b"/") {
            return Ok(None);
        }
        for part in target.rsplit(|&b| b == b'/') {
            left.push_front(part.to_vec());
        }
    }
    Ok(Some(at))
}
