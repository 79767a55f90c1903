//! The regular files below a directory, or on a list, as somebody with certain rights may see them.
//!
//! What they may is decided as the kernel decides it, access control lists included: [`Rights`].

use std::collections::VecDeque;
use std::path::{Component, Path};
use std::sync::Arc;

use granary_core::{EntryName, Error, Ino, Kind, Result};
use granary_fuse::vfs::rights::{READ, Rights, SEARCH};
use granary_meta::{Attr, DirEntry, FileType, Metadata};

/// Entries of a directory asked for at once.
const PAGE: usize = 256;
/// Directories within each other, at most.
const DEPTH_MAX: usize = 4096;

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
        if attr.kind != FileType::Directory || !rights.may(meta, &attr, SEARCH).await? {
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
                if let Some(file) = self.enter(attr).await? {
                    return Ok(Some(file));
                }
                continue;
            };
            if let Some(entry) = level.page.pop_front() {
                let Some(attr) = entry.attr else { continue };
                if let Some(file) = self.enter(attr).await? {
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
    async fn enter(&mut self, attr: Attr) -> Result<Option<Attr>> {
        let want = match attr.kind {
            FileType::File => READ,
            FileType::Directory => READ | SEARCH,
            _ => return Ok(None),
        };
        let may = match self.rights.may(&*self.meta, &attr, want).await {
            Err(e) if matches!(e.kind(), Kind::Stale | Kind::NotFound) => return Ok(None),
            may => may?,
        };
        if !may || self.levels.len() >= DEPTH_MAX {
            self.denied += 1;
            return Ok(None);
        }
        if attr.kind == FileType::File {
            return Ok(Some(attr));
        }
        self.levels.push(Level { dir: attr.ino, cookie: 0, page: VecDeque::new(), last: false });
        Ok(None)
    }
}
