//! The destination: every name is reached from its root by opening one directory after another, none of them through a link.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use granary_core::{Error, Kind, Result};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;

/// Where files are until they are whole.
pub const TEMPORARY: &[u8] = b".granary-tmp";

/// What a file or directory gets besides its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Attributes {
    pub mode: u32,
    /// Seconds since 1970.
    pub mtime: i64,
    /// Without it also the set-user-id bits are left out.
    pub owner: Option<(u32, u32)>,
}

#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
    temporary: OwnedFd,
    name: PathBuf,
    next: AtomicU64,
}

/// A directory of the tree that is open.
#[derive(Debug)]
pub struct Directory {
    fd: OwnedFd,
    path: Vec<u8>,
}

/// A file that is being written.
#[derive(Debug)]
pub struct Writing {
    pub file: File,
    temporary: String,
}

impl Tree {
    /// Makes the destination when it is missing.
    ///
    /// Errors: what the disk says.
    pub fn create(to: &Path) -> Result<Tree> {
        let cannot = |e: io::Error| Error::io(format!("cannot unpack into {}", to.display()), e);
        std::fs::create_dir_all(to).map_err(cannot)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = fs::open(to, flags, Mode::empty()).map_err(|e| cannot(e.into()))?;
        match fs::mkdirat(&root, TEMPORARY, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(cannot(e.into())),
        }
        let temporary = fs::openat(&root, TEMPORARY, flags | OFlags::NOFOLLOW, Mode::empty())
            .map_err(|e| cannot(e.into()))?;
        Ok(Tree { root, temporary, name: to.to_owned(), next: AtomicU64::new(0) })
    }

    /// The directory that holds a path, made when it is missing; the one that was used last is not looked for again.
    ///
    /// Errors: `NotDirectory` when a link or a file is in the way; what the disk says.
    pub fn parent<'a>(&self, path: &[u8], last: &'a mut Option<Directory>) -> Result<&'a Directory> {
        let (parent, _) = split(path);
        if let Some(directory) = last.take_if(|directory| directory.path == parent) {
            return Ok(last.insert(directory));
        }
        let fd = self.open(parent, true)?;
        Ok(last.insert(Directory { fd, path: parent.to_vec() }))
    }

    fn open(&self, path: &[u8], make: bool) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut at = fs::openat(&self.root, ".", flags, Mode::empty()).map_err(|e| self.cannot(path, e))?;
        for part in path.split(|&b| b == b'/').filter(|part| !part.is_empty()) {
            let mut next = fs::openat(&at, part, flags, Mode::empty());
            if make && matches!(next, Err(Errno::NOENT)) {
                match fs::mkdirat(&at, part, Mode::from_raw_mode(0o777)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(e) => return Err(self.cannot(path, e)),
                }
                next = fs::openat(&at, part, flags, Mode::empty());
            }
            at = next.map_err(|e| match e {
                Errno::LOOP | Errno::NOTDIR => Error::new(
                    Kind::NotDirectory,
                    format!(
                        "{} cannot be a directory: a link or a file is there; remove it, or unpack elsewhere",
                        self.shown(path)
                    ),
                ),
                e => self.cannot(path, e),
            })?;
        }
        Ok(at)
    }

    /// Whether the file is there with this length and time.
    pub fn has(&self, parent: &Directory, path: &[u8], length: u64, mtime: i64) -> bool {
        fs::statat(&parent.fd, split(path).1, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| {
            FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
                && stat.st_size as u64 == length
                && stat.st_mtime == mtime
                && stat.st_mtime_nsec == 0
        })
    }

    /// A file that [`Tree::keep`] gives its name.
    ///
    /// Errors: what the disk says.
    pub fn begin(&self, path: &[u8]) -> Result<Writing> {
        let temporary = self.temporary_name();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::openat(&self.temporary, &temporary, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|e| self.cannot(path, e))?;
        Ok(Writing { file: fd.into(), temporary })
    }

    fn temporary_name(&self) -> String {
        format!("{}-{}", std::process::id(), self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Errors: what the disk says; the file is gone then.
    pub fn keep(
        &self,
        writing: Writing,
        parent: &Directory,
        path: &[u8],
        attributes: &Attributes,
    ) -> Result<()> {
        let named = || -> Result<(), Errno> {
            set(&writing.file, attributes)?;
            fs::renameat(&self.temporary, &writing.temporary, &parent.fd, split(path).1)
        };
        named().map_err(|e| {
            self.drop_temporary(&writing.temporary);
            self.cannot(path, e)
        })
    }

    /// Drops what was written of a file.
    pub fn abandon(&self, writing: Writing) {
        self.drop_temporary(&writing.temporary);
    }

    /// What cannot be dropped is replaced by the next that has its name, or stays in a directory that no path leads to.
    fn drop_temporary(&self, name: &str) {
        let _ = fs::unlinkat(&self.temporary, name, AtFlags::empty());
    }

    /// Errors: as [`Tree::parent`].
    pub fn directory(&self, path: &[u8]) -> Result<()> {
        self.open(path, true).map(drop)
    }

    /// Errors: as [`Tree::parent`].
    pub fn set_directory(&self, path: &[u8], attributes: &Attributes) -> Result<()> {
        let fd = self.open(path, false)?;
        set(&fd, attributes).map_err(|e| self.cannot(path, e))
    }

    /// Errors: as [`Tree::parent`].
    pub fn symlink(&self, path: &[u8], target: &[u8]) -> Result<()> {
        self.link(path, |name| fs::symlinkat(target, &self.temporary, name))
    }

    /// Errors: `NotFound` when the target is not there; as [`Tree::parent`].
    pub fn hard_link(&self, path: &[u8], target: &[u8]) -> Result<()> {
        let from = self.open(split(target).0, false)?;
        self.link(path, |name| fs::linkat(&from, split(target).1, &self.temporary, name, AtFlags::empty()))
    }

    /// Made beside and renamed, so that one that was there is replaced.
    fn link(&self, path: &[u8], make: impl FnOnce(&str) -> Result<(), Errno>) -> Result<()> {
        let parent = self.open(split(path).0, true)?;
        let temporary = self.temporary_name();
        let made =
            make(&temporary).and_then(|()| fs::renameat(&self.temporary, &temporary, &parent, split(path).1));
        // Renaming one name of a file to another name of it does nothing.
        self.drop_temporary(&temporary);
        made.map_err(|e| self.cannot(path, e))
    }

    /// Everything is on the disk when this returns.
    ///
    /// Errors: what the disk says.
    pub fn finish(self) -> Result<()> {
        // Not empty when another unpack is under way.
        let _ = fs::unlinkat(&self.root, TEMPORARY, AtFlags::REMOVEDIR);
        fs::syncfs(&self.root).map_err(|e| self.cannot(b"", e))
    }

    fn shown(&self, path: &[u8]) -> String {
        self.name.join(OsStr::from_bytes(path)).display().to_string()
    }

    pub fn cannot(&self, path: &[u8], e: Errno) -> Error {
        let doing = format!("cannot unpack {}", self.shown(path));
        match e {
            Errno::ISDIR | Errno::EXIST | Errno::NOTEMPTY => Error::new(
                Kind::NotDirectory,
                format!("{doing}: a directory is there; remove it, or unpack elsewhere"),
            ),
            Errno::NOENT => Error::new(Kind::Invalid, format!("{doing}: what it links to is not there")),
            Errno::NOSPC | Errno::DQUOT => Error::new(
                Kind::NoSpace,
                format!("{doing}: the disk is full; make room and unpack again: what is there is kept"),
            ),
            e => Error::io(doing, e.into()),
        }
    }
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&b| b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

fn set(fd: impl std::os::fd::AsFd, attributes: &Attributes) -> Result<(), Errno> {
    let mut mode = attributes.mode & 0o777;
    if let Some((uid, gid)) = attributes.owner {
        mode = attributes.mode & 0o7777;
        fs::fchown(&fd, Some(fs::Uid::from_raw(uid)), Some(fs::Gid::from_raw(gid)))?;
    }
    fs::fchmod(&fd, Mode::from_raw_mode(mode))?;
    let at = Timespec { tv_sec: attributes.mtime, tv_nsec: 0 };
    match fs::futimens(&fd, &Timestamps { last_access: at, last_modification: at }) {
        // A time that the disk's format does not know is no reason to lose the file.
        Err(Errno::INVAL | Errno::OVERFLOW | Errno::RANGE) => Ok(()),
        other => other,
    }
}
