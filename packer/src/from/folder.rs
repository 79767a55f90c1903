//! A folder's files, links and directories. Several threads walk it, a directory each; a directory costs one `fstat` more than its
//! listing, a file one `fstatat` in the scan and `openat`, `read`, `fstat` and `close` when it is packed.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use granary_core::{Error, Kind, Result};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::{Scan, Sink, Source, Want, changed};
use crate::pack::entry::{Content, Entry};

/// Directories nested deeper are taken for a loop.
const DEPTH_MAX: usize = 512;

#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    fd: OwnedFd,
    dereference: bool,
    /// Guards the directories to be removed when they are empty: those that were packed, and that files were removed from; held to
    /// add one.
    emptied: Mutex<std::collections::BTreeSet<PathBuf>>,
}

/// A directory that is to be walked.
#[derive(Debug)]
struct Place {
    /// Below the root; empty for the root itself.
    path: Vec<u8>,
    depth: usize,
    above: Option<Arc<Ancestor>>,
}

/// Where the walk came through, to notice that a followed link leads back: device, inode.
#[derive(Debug)]
struct Ancestor {
    id: (u64, u64),
    above: Option<Arc<Ancestor>>,
}

impl Ancestor {
    fn contains(mut at: Option<&Arc<Ancestor>>, id: (u64, u64)) -> bool {
        while let Some(ancestor) = at {
            if ancestor.id == id {
                return true;
            }
            at = ancestor.above.as_ref();
        }
        false
    }
}

/// Directories to walk, shared by the walking threads.
#[derive(Debug)]
struct Queue {
    /// Guards the list; held to push and pop.
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    places: Vec<Place>,
    /// Threads in the middle of a directory: they may find more.
    walking: usize,
    failed: Option<Error>,
}

impl Queue {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next directory; `None` when there will be no more.
    fn next(&self) -> Option<Place> {
        let mut state = self.state();
        loop {
            if state.failed.is_some() {
                return None;
            }
            if let Some(place) = state.places.pop() {
                state.walking += 1;
                return Some(place);
            }
            if state.walking == 0 {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn ended(&self, found: Result<Vec<Place>>) {
        let mut state = self.state();
        state.walking -= 1;
        match found {
            Ok(mut places) => state.places.append(&mut places),
            Err(e) => {
                state.failed.get_or_insert(e);
            }
        }
        drop(state);
        self.changed.notify_all();
    }
}

impl Folder {
    /// `dereference`: pack what symbolic links lead to, not the links.
    ///
    /// Errors: `NotFound`, `NotDirectory`, `Access`; what the disk says.
    pub fn open(root: &Path, dereference: bool) -> Result<Folder> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, root, flags, Mode::empty())
            .map_err(|e| explain(&format!("cannot open the folder {}", root.display()), e))?;
        Ok(Folder { root: root.to_owned(), fd, dereference, emptied: Mutex::default() })
    }

    fn walk(&self, place: &Place, sink: &mut Sink<'_>) -> Result<Vec<Place>> {
        let name = shown(&place.path);
        if place.depth > DEPTH_MAX {
            let e = Error::new(
                Kind::Invalid,
                "directories are nested more than 512 deep; is it a loop of mounts?",
            );
            return sink.skip(&name, e).map(|()| Vec::new());
        }
        match self.list(place, sink) {
            Ok(places) => Ok(places),
            // The error of one entry, that may not be skipped.
            Err(Listing::Entry(e)) => Err(e),
            Err(Listing::Directory(e)) => {
                sink.skip(&name, explain("the directory cannot be read", e)).map(|()| Vec::new())
            }
        }
    }

    fn list(&self, place: &Place, sink: &mut Sink<'_>) -> Result<Vec<Place>, Listing> {
        let path: &[u8] = if place.path.is_empty() { b"." } else { &place.path };
        let mut flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        if !self.dereference {
            flags |= OFlags::NOFOLLOW;
        }
        let fd = rustix::fs::openat(&self.fd, path, flags, Mode::empty())?;
        let above = match self.dereference {
            true => {
                let stat = rustix::fs::fstat(&fd)?;
                let id = (stat.st_dev, stat.st_ino);
                if Ancestor::contains(place.above.as_ref(), id) {
                    let e = Error::new(
                        Kind::Invalid,
                        "a symbolic link leads to a directory above itself; remove it",
                    );
                    sink.skip(&shown(&place.path), e).map_err(Listing::Entry)?;
                    return Ok(Vec::new());
                }
                Some(Arc::new(Ancestor { id, above: place.above.clone() }))
            }
            false => None,
        };
        // The folder itself has no name in a data set.
        if !place.path.is_empty() {
            let stat = rustix::fs::fstat(&fd)?;
            let entry = entry_of(place.path.clone(), &stat, Content::Directory);
            sink.push(&entry).map_err(Listing::Entry)?;
        }
        let mut places = Vec::new();
        let mut dir = Dir::new(fd)?;
        while let Some(found) = dir.read() {
            let found = found?;
            let name = found.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let mut path = place.path.clone();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name);
            let deeper = |path| Place { path, depth: place.depth + 1, above: above.clone() };
            if found.file_type() == FileType::Directory {
                places.push(deeper(path));
                continue;
            }
            let follow = if self.dereference { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
            let stat = match rustix::fs::statat(dir.fd()?, OsStr::from_bytes(name), follow) {
                Ok(stat) => stat,
                Err(e) => {
                    let why = match e {
                        Errno::NOENT if found.file_type() == FileType::Symlink => {
                            Error::new(Kind::NotFound, "the symbolic link leads nowhere; mend or remove it")
                        }
                        _ => explain("it cannot be looked at", e),
                    };
                    sink.skip(&shown(&path), why).map_err(Listing::Entry)?;
                    continue;
                }
            };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => places.push(deeper(path)),
                FileType::RegularFile => {
                    sink.push(&entry_of(path, &stat, Content::File)).map_err(Listing::Entry)?;
                }
                FileType::Symlink => {
                    let target =
                        rustix::fs::readlinkat(dir.fd()?, OsStr::from_bytes(name), Vec::new())?.into_bytes();
                    sink.push(&entry_of(path, &stat, Content::Link(target))).map_err(Listing::Entry)?;
                }
                other => {
                    let e = Error::new(
                        Kind::Unsupported,
                        format!("it is a {}, which has no bytes to pack; remove it", kind_name(other)),
                    );
                    sink.skip(&shown(&path), e).map_err(Listing::Entry)?;
                }
            }
        }
        Ok(places)
    }

    fn read_one(&self, want: &mut Want<'_>) -> Result<()> {
        let Want { entry, from, into, .. } = want;
        let path = OsStr::from_bytes(&entry.path);
        let mut flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        if !self.dereference {
            flags |= OFlags::NOFOLLOW;
        }
        let fd = match rustix::fs::openat(&self.fd, path, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Err(changed("it is gone")),
            Err(e) => return Err(explain("it cannot be opened", e)),
        };
        let mut filled = 0;
        while filled < into.len() {
            match rustix::io::pread(&fd, &mut into[filled..], *from + filled as u64) {
                Ok(0) => break,
                Ok(got) => filled += got,
                Err(Errno::INTR) => {}
                Err(e) => {
                    return Err(explain(&format!("it cannot be read at byte {}", *from + filled as u64), e));
                }
            }
        }
        // After the bytes: what changed before or while they were read is seen.
        let stat = rustix::fs::fstat(&fd).map_err(|e| explain("it cannot be looked at", e))?;
        if stat.st_size as u64 != entry.length || filled < into.len() {
            return Err(changed(&format!("it had {} bytes, and has {}", entry.length, stat.st_size)));
        }
        if !same_time(entry, &stat) {
            return Err(changed("it was written meanwhile"));
        }
        Ok(())
    }
}

/// What went wrong in a directory.
enum Listing {
    Directory(Errno),
    Entry(Error),
}

impl From<Errno> for Listing {
    fn from(e: Errno) -> Listing {
        Listing::Directory(e)
    }
}

fn entry_of(path: Vec<u8>, stat: &Stat, content: Content) -> Entry {
    let length = if content == Content::File { stat.st_size as u64 } else { 0 };
    Entry {
        path,
        length,
        mtime: stat.st_mtime,
        mtime_nanos: stat.st_mtime_nsec as u32,
        mode: (stat.st_mode & 0o7777) as u16,
        uid: stat.st_uid,
        gid: stat.st_gid,
        content,
    }
}

fn same_time(entry: &Entry, stat: &Stat) -> bool {
    (entry.mtime, u64::from(entry.mtime_nanos)) == (stat.st_mtime, stat.st_mtime_nsec)
}

fn kind_name(kind: FileType) -> &'static str {
    match kind {
        FileType::Fifo => "pipe",
        FileType::Socket => "socket",
        FileType::CharacterDevice | FileType::BlockDevice => "device",
        _ => "thing of an unknown kind",
    }
}

fn shown(path: &[u8]) -> String {
    if path.is_empty() {
        "the source's folder".to_owned()
    } else {
        String::from_utf8_lossy(path).into_owned()
    }
}

/// A system's error about a file, in our kinds.
pub fn explain(doing: &str, e: Errno) -> Error {
    let kind = match e {
        Errno::NOENT => Kind::NotFound,
        Errno::ACCESS | Errno::PERM => Kind::Access,
        Errno::NOTDIR => Kind::NotDirectory,
        Errno::NAMETOOLONG => Kind::NameTooLong,
        Errno::LOOP => Kind::Invalid,
        _ => return Error::io(doing.to_owned(), e.into()),
    };
    let mend = if kind == Kind::Access { "; run as a user who may read it" } else { "" };
    let text = std::io::Error::from(e).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    Error::new(kind, format!("{doing}: {text}{mend}"))
}

impl Source for Folder {
    fn scan(&self, scan: &Scan<'_>) -> Result<()> {
        let first = Place { path: Vec::new(), depth: 0, above: None };
        let state = State { places: vec![first], walking: 0, failed: None };
        let queue = Queue { state: Mutex::new(state), changed: Condvar::new() };
        std::thread::scope(|scope| {
            for _ in 0..scan.threads.max(1) {
                scope.spawn(|| {
                    let mut sink = scan.sink();
                    while let Some(place) = queue.next() {
                        queue.ended(self.walk(&place, &mut sink));
                    }
                });
            }
        });
        let failed = queue.state().failed.take();
        failed.map_or(Ok(()), Err)
    }

    fn read(&self, wants: &mut [Want<'_>]) {
        for want in wants {
            want.failed = self.read_one(want).err();
        }
    }

    fn remove(&self, entry: &Entry) -> Result<bool> {
        let path = OsStr::from_bytes(&entry.path);
        let doing = || format!("cannot delete {}/{}", self.root.display(), shown(&entry.path));
        let stat = match rustix::fs::statat(&self.fd, path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(false),
            Err(e) => return Err(explain(&doing(), e)),
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if entry.is_directory() {
            let directory = PathBuf::from(OsString::from_vec(entry.path.clone()));
            self.emptied.lock().unwrap_or_else(PoisonError::into_inner).insert(directory);
            return Ok(kind == FileType::Directory);
        }
        let same = match entry.is_link() {
            true => kind == FileType::Symlink && same_time(entry, &stat),
            // What was packed through a link stays: the link's own file may be anywhere.
            false => {
                kind == FileType::RegularFile
                    && stat.st_size as u64 == entry.length
                    && same_time(entry, &stat)
            }
        };
        if !same {
            return Ok(false);
        }
        rustix::fs::unlinkat(&self.fd, path, AtFlags::empty()).map_err(|e| explain(&doing(), e))?;
        let mut above = PathBuf::from(OsString::from_vec(entry.path.clone()));
        if above.pop() && !above.as_os_str().is_empty() {
            self.emptied.lock().unwrap_or_else(PoisonError::into_inner).insert(above);
        }
        Ok(true)
    }

    /// Directories that were packed empty or that removing files left empty, and those above them; the source's folder itself stays.
    fn removed_all(&self) {
        let mut dirs = std::mem::take(&mut *self.emptied.lock().unwrap_or_else(PoisonError::into_inner));
        // The deepest first: those above sort before.
        while let Some(dir) = dirs.pop_last() {
            let removed = rustix::fs::unlinkat(self.fd.as_fd(), &dir, AtFlags::REMOVEDIR);
            if removed.is_ok()
                && let Some(above) = dir.parent().filter(|above| !above.as_os_str().is_empty())
            {
                dirs.insert(above.to_owned());
            }
        }
    }

    fn describe(&self) -> String {
        self.root.display().to_string()
    }
}
