//! The regular files below a directory, or on a list, as somebody with certain rights may see them.
//!
//! Rights are permission bits, as POSIX applies them: of the owner, else of the groups, else of others. An access control list
//! shows in the group's bits as what it grants at most; a right that only the list gives is not seen, and the file left out.

use std::collections::VecDeque;
use std::path::{Component, Path};
use std::sync::Arc;

use granary_core::{EntryName, Error, Ino, Kind, Result};
use granary_meta::{Attr, DirEntry, FileType, Metadata};

use crate::node::peer::Peer;

/// Entries of a directory asked for at once.
const PAGE: usize = 256;
/// Directories within each other, at most.
const DEPTH_MAX: usize = 4096;

const READ: u32 = 4;
const SEARCH: u32 = 1;

/// On whose behalf.
#[derive(Clone, Debug)]
pub struct Rights {
    uid: u32,
    gids: Vec<u32>,
    all: bool,
}

impl Rights {
    pub fn of(peer: &Peer) -> Rights {
        Rights { uid: peer.uid, gids: peer.gids.clone(), all: peer.administrator }
    }

    /// Of the node itself.
    pub fn all() -> Rights {
        Rights { uid: 0, gids: Vec::new(), all: true }
    }

    fn may(&self, attr: &Attr, want: u32) -> bool {
        let bits = if attr.uid == self.uid {
            attr.mode >> 6
        } else if self.gids.contains(&attr.gid) {
            attr.mode >> 3
        } else {
            attr.mode
        };
        self.all || bits & want == want
    }
}

/// What a path of a namespace leads to. Every directory on the way must let the caller through.
///
/// Errors: `NotFound` also where the caller may not know.
pub async fn resolve(meta: &dyn Metadata, rights: &Rights, path: &Path) -> Result<Attr> {
    let missing = || Error::new(Kind::NotFound, format!("there is no {} there", path.display()));
    let mut attr = meta.getattr(Ino::ROOT).await?;
    for component in path.components() {
        let name = match component {
            Component::Normal(name) => std::os::unix::ffi::OsStrExt::as_bytes(name),
            Component::CurDir => continue,
            _ => {
                return Err(Error::new(
                    Kind::Invalid,
                    format!("{}: give a path without `..`", path.display()),
                ));
            }
        };
        if attr.kind != FileType::Directory || !rights.may(&attr, SEARCH) {
            return Err(missing());
        }
        attr = match meta.lookup(attr.ino, EntryName::new(name)?).await {
            Err(e) if e.kind() == Kind::NotFound => return Err(missing()),
            found => found?,
        };
    }
    Ok(attr)
}

#[derive(Debug)]
struct Level {
    dir: Ino,
    cookie: u64,
    page: VecDeque<DirEntry>,
    last: bool,
}

/// Goes through regular files in the order of the list, and within a directory in the metadata's.
pub struct Walk {
    meta: Arc<dyn Metadata>,
    rights: Rights,
    /// What is still to be entered, and the directories it is in.
    list: VecDeque<Target>,
    levels: Vec<Level>,
    /// Files and directories that the caller may not read, or that are not there.
    pub denied: u64,
    pub missing: u64,
}

/// Where a walk begins.
#[derive(Clone, Debug)]
pub enum Target {
    Known(Attr),
    /// A path within the namespace.
    Path(std::path::PathBuf),
}

impl Walk {
    pub fn new(meta: Arc<dyn Metadata>, rights: Rights, targets: impl IntoIterator<Item = Target>) -> Walk {
        Walk { meta, rights, list: targets.into_iter().collect(), levels: Vec::new(), denied: 0, missing: 0 }
    }

    /// The next regular file; `None` at the end. What is deleted meanwhile is left out.
    pub async fn next(&mut self) -> Result<Option<Attr>> {
        loop {
            let Some(level) = self.levels.last_mut() else {
                let attr = match self.list.pop_front() {
                    None => return Ok(None),
                    Some(Target::Known(attr)) => attr,
                    Some(Target::Path(path)) => match resolve(&*self.meta, &self.rights, &path).await {
                        Ok(attr) => attr,
                        Err(e) if e.kind() == Kind::NotFound => {
                            self.missing += 1;
                            continue;
                        }
                        Err(e) => return Err(e),
                    },
                };
                if let Some(file) = self.enter(attr) {
                    return Ok(Some(file));
                }
                continue;
            };
            if let Some(entry) = level.page.pop_front() {
                let Some(attr) = entry.attr else { continue };
                if let Some(file) = self.enter(attr) {
                    return Ok(Some(file));
                }
                continue;
            }
            if level.last {
                self.levels.pop();
                continue;
            }
            let (dir, cookie) = (level.dir, level.cookie);
            let page = match self.meta.readdir(dir, cookie, PAGE, true).await {
                Err(e) if matches!(e.kind(), Kind::Stale | Kind::NotFound) => Vec::new(),
                found => found?,
            };
            if let Some(level) = self.levels.last_mut() {
                level.last = page.is_empty();
                level.cookie = page.last().map_or(level.cookie, |entry| entry.cookie);
                level.page = page.into();
            }
        }
    }

    /// A regular file is given back; a directory is what the walk goes on in.
    fn enter(&mut self, attr: Attr) -> Option<Attr> {
        let want = match attr.kind {
            FileType::File => READ,
            FileType::Directory => READ | SEARCH,
            _ => return None,
        };
        if !self.rights.may(&attr, want) || self.levels.len() >= DEPTH_MAX {
            self.denied += 1;
            return None;
        }
        if attr.kind == FileType::File {
            return Some(attr);
        }
        self.levels.push(Level { dir: attr.ino, cookie: 0, page: VecDeque::new(), last: false });
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attr(mode: u32) -> Attr {
        let time = granary_core::Timestamp::default();
        Attr {
            ino: Ino(5),
            kind: FileType::File,
            mode,
            uid: 10,
            gid: 20,
            nlink: 1,
            rdev: 0,
            size: 0,
            stored: 0,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
            version: 1,
            staged_seq: 0,
        }
    }

    #[test]
    fn the_first_class_that_fits_decides() {
        let rights = |uid, gids: &[u32]| Rights { uid, gids: gids.to_vec(), all: false };
        assert!(rights(10, &[]).may(&attr(0o400), READ));
        assert!(!rights(10, &[20]).may(&attr(0o077), READ), "the owner is not of the group or of the others");
        assert!(rights(11, &[7, 20]).may(&attr(0o040), READ) && !rights(11, &[20]).may(&attr(0o704), READ));
        assert!(
            rights(11, &[7]).may(&attr(0o005), READ | SEARCH) && !rights(11, &[7]).may(&attr(0o004), SEARCH)
        );
        assert!(Rights::all().may(&attr(0), READ));
    }
}
