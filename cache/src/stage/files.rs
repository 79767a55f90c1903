//! Stage files: one sparse local file for each large file, at the same offsets. Which folder one lies in says what it is
//! (see [`crate::stage`]); moving between folders is a rename, made durable before anybody relies on it.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::aside::Aside;
use super::disk::{Disk, in_place, make_dirs, write_all};
use super::sums::Sums;
use crate::room::moved_away;
use crate::util::lock;
use granary_core::{Error, Ino, Result, Timestamp};
use rustix::fs::{FallocateFlags, SeekFrom, Timespec, Timestamps};

/// What a stage file has of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// All of the content, changed since it was uploaded.
    Whole,
    /// The changed ranges only.
    Sparse,
    /// All of the content of this version, which is in the store.
    Clean(u64),
}

#[derive(Debug)]
pub(crate) struct StageFiles {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    /// The folders, for fsync: files, sparse, clean.
    folders: [File; 3],
    /// Entries came, went or moved since the folders were synced.
    changed: AtomicBool,
    /// Held over each sync: who comes meanwhile relies on it, and waits for its end.
    syncs: Mutex<()>,
}

/// What `fstat` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub size: u64,
    /// Bytes on disk.
    pub stored: u64,
    pub mtime: Timestamp,
    pub ctime: Timestamp,
}

/// `fcntl`'s command that sets the signal of a broken lease, from the kernel's `fcntl.h` (crate libc lacks it).
const F_SETSIG: libc::c_int = 10;

/// The first three have stage files.
const FOLDERS: [&str; 5] = ["files", "sparse", "clean", "tmp", "sums"];

/// What is written to see whether the disk works.
const PROBE_BYTES: usize = 64 << 10;

impl StageFiles {
    /// Opens the folders below `dir`, made if missing; half-filled stage files are removed.
    pub fn open(dir: &Path, disk: Arc<dyn Disk>) -> Result<StageFiles> {
        let fail = |e| Error::io(format!("cannot open the stage in {}", dir.display()), e);
        for folder in FOLDERS {
            make_dirs(&dir.join(folder)).map_err(fail)?;
        }
        for entry in fs::read_dir(dir.join("tmp")).map_err(fail)? {
            disk.remove(&entry.map_err(fail)?.path()).map_err(fail)?;
        }
        let open = |folder: &str| File::open(dir.join(folder)).map_err(fail);
        let folders = [open("files")?, open("sparse")?, open("clean")?];
        Ok(StageFiles {
            dir: dir.to_owned(),
            disk,
            folders,
            changed: AtomicBool::new(true),
            syncs: Mutex::default(),
        })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn path(&self, ino: Ino, shape: Shape) -> PathBuf {
        match shape {
            Shape::Whole => self.dir.join("files").join(format!("{ino}")),
            Shape::Sparse => self.dir.join("sparse").join(format!("{ino}")),
            Shape::Clean(version) => self.dir.join("clean").join(format!("{ino}.{version:016x}")),
        }
    }

    fn sums_path(&self, ino: Ino, version: u64) -> PathBuf {
        self.dir.join("sums").join(format!("{ino}.{version:016x}"))
    }

    /// Keeps the checksums of what is about to be a clean copy.
    pub fn write_sums(&self, ino: Ino, sums: &Sums) -> Result<()> {
        let path = self.sums_path(ino, sums.version);
        let written = self
            .disk
            .create(&path, false)
            .and_then(|file| write_all(&*self.disk, &file, &[], &sums.encode(), 0));
        written.map_err(|e| Error::io(format!("cannot write {}", path.display()), e))
    }

    /// `NotFound`: the copy has none.
    pub fn read_sums(&self, ino: Ino, version: u64) -> Result<Sums> {
        let path = self.sums_path(ino, version);
        let bytes = fs::read(&path).map_err(|e| Error::io(format!("cannot read {}", path.display()), e))?;
        Sums::decode(&bytes).map_err(|e| e.context(path.display()))
    }

    /// The copy is gone, or may be changed.
    fn forget_sums(&self, ino: Ino, shape: Shape) {
        if let Shape::Clean(version) = shape {
            let _ = self.disk.remove(&self.sums_path(ino, version)); // what stays is removed at the next start
        }
    }

    /// Removes checksums whose copy is not there.
    pub fn sweep_sums(&self) -> Result<()> {
        let dir = self.dir.join("sums");
        let fail = |e| Error::io(format!("cannot list {}", dir.display()), e);
        for entry in fs::read_dir(&dir).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            if !self.dir.join("clean").join(entry.file_name()).exists() {
                self.disk.remove(&entry.path()).map_err(fail)?;
            }
        }
        Ok(())
    }

    fn temporary(&self, ino: Ino) -> PathBuf {
        self.dir.join("tmp").join(format!("{ino}"))
    }

    fn make(&self, path: &Path) -> Result<File> {
        let made = self.disk.create(path, false);
        made.map_err(|e| Error::io(format!("cannot make the stage file {}", path.display()), e))
    }

    /// Makes an empty one.
    pub fn create(&self, ino: Ino, shape: Shape) -> Result<File> {
        let file = self.make(&self.path(ino, shape))?;
        self.changed.store(true, Ordering::SeqCst);
        Ok(file)
    }

    /// Begins a file beside the stage for bytes that may not go where they were to go.
    pub fn begin_aside(&self, ino: Ino) -> Result<Aside> {
        Aside::begin(&self.dir, self.disk.clone(), ino)
    }

    /// Makes one that becomes visible as [`Shape::Whole`] by [`StageFiles::publish`].
    pub fn begin(&self, ino: Ino) -> Result<File> {
        self.make(&self.temporary(ino))
    }

    pub fn publish(&self, ino: Ino) -> Result<()> {
        self.rename(&self.temporary(ino), &self.path(ino, Shape::Whole))
    }

    pub fn abandon(&self, ino: Ino) {
        let _ = self.disk.remove(&self.temporary(ino)); // what stays is removed at the next start
    }

    fn temporary_clean(&self, ino: Ino, version: u64) -> PathBuf {
        self.dir.join("tmp").join(format!("{ino}.{version:016x}"))
    }

    /// Makes one that becomes visible as [`Shape::Clean`] by [`StageFiles::publish_clean`].
    pub fn begin_clean(&self, ino: Ino, version: u64) -> Result<File> {
        self.make(&self.temporary_clean(ino, version))
    }

    pub fn publish_clean(&self, ino: Ino, version: u64) -> Result<()> {
        self.rename(&self.temporary_clean(ino, version), &self.path(ino, Shape::Clean(version)))
    }

    /// The same is not to be, nor what checksums it has.
    pub fn abandon_clean(&self, ino: Ino, version: u64) {
        let _ = self.disk.remove(&self.temporary_clean(ino, version)); // what stays is removed at the next start
        self.forget_sums(ino, Shape::Clean(version));
    }

    pub fn open_existing(&self, ino: Ino, shape: Shape) -> Result<File> {
        let path = self.path(ino, shape);
        let file = fs::OpenOptions::new().read(true).write(true).open(&path);
        file.map_err(|e| Error::io(format!("cannot open the stage file {}", path.display()), e))
    }

    pub fn reshape(&self, ino: Ino, from: Shape, to: Shape) -> Result<()> {
        self.rename(&self.path(ino, from), &self.path(ino, to))?;
        self.forget_sums(ino, from);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.disk.rename(from, to).map_err(|e| {
            Error::io(format!("cannot rename the stage file {} to {}", from.display(), to.display()), e)
        })?;
        self.changed.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// Removes one; who has it open or mapped keeps it. One that is not there is no error.
    pub fn remove(&self, ino: Ino, shape: Shape) -> Result<()> {
        let path = self.path(ino, shape);
        self.forget_sums(ino, shape);
        match self.disk.remove(&path) {
            Ok(()) => self.changed.store(true, Ordering::SeqCst),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io(format!("cannot remove the stage file {}", path.display()), e)),
        }
        Ok(())
    }

    /// Whether the disk takes a small file. Blocks.
    pub fn probe(&self) -> Result<()> {
        let path = self.dir.join("tmp").join("probe");
        let work = || {
            let file = self.disk.create(&path, false)?;
            super::disk::write_all(&*self.disk, &file, &[], &[0; PROBE_BYTES], 0)?;
            self.disk.sync_data(&file)
        };
        let worked = work();
        let _ = self.disk.remove(&path); // what stays is removed at the next start
        worked.map_err(|e| Error::io(format!("the disk of the stage in {} fails", self.dir.display()), e))
    }

    /// An error when the folders are not where they were.
    pub fn check_place(&self) -> Result<()> {
        for (name, opened) in FOLDERS.iter().zip(&self.folders) {
            let dir = self.dir.join(name);
            in_place(&dir, opened).map_err(|e| Error::io(moved_away(&dir), e))?;
        }
        Ok(())
    }

    /// Returns when all creations, renames and removals before the call survive a power loss. Blocks.
    pub fn sync_folders(&self) -> Result<()> {
        self.check_place()?;
        let _turn = lock(&self.syncs);
        if self.changed.swap(false, Ordering::SeqCst)
            && let Err(e) = self.folders.iter().try_for_each(|dir| self.disk.sync_dir(dir))
        {
            self.changed.store(true, Ordering::SeqCst);
            return Err(Error::io(
                format!("the disk of the stage in {} failed; check it", self.dir.display()),
                e,
            ));
        }
        Ok(())
    }

    /// Stage files of earlier runs, with what they are.
    pub fn list(&self) -> Result<Vec<(Ino, Shape)>> {
        let mut found = Vec::new();
        for folder in &FOLDERS[..3] {
            let dir = self.dir.join(folder);
            let fail = |e| Error::io(format!("cannot list {}", dir.display()), e);
            for entry in fs::read_dir(&dir).map_err(fail)? {
                let name = entry.map_err(fail)?.file_name();
                let Some(name) = name.to_str() else { continue };
                let hex = |s: &str| (s.len() == 16).then(|| u64::from_str_radix(s, 16).ok()).flatten();
                let (ino, version) = name.split_once('.').map_or((name, None), |(i, v)| (i, Some(v)));
                match (*folder, hex(ino), version.and_then(hex)) {
                    ("files", Some(ino), None) => found.push((Ino(ino), Shape::Whole)),
                    ("sparse", Some(ino), None) => found.push((Ino(ino), Shape::Sparse)),
                    ("clean", Some(ino), Some(version)) => found.push((Ino(ino), Shape::Clean(version))),
                    _ => tracing::warn!(
                        folder,
                        name,
                        "a file that is not ours lies in the stage; it is left alone"
                    ),
                }
            }
        }
        Ok(found)
    }

    /// Bytes that may still be written to the stage's disk.
    pub fn free_bytes(&self) -> u64 {
        rustix::fs::fstatvfs(&self.folders[0]).map_or(0, |s| s.f_bavail.saturating_mul(s.f_frsize))
    }
}

pub(crate) fn stat(file: &File) -> io::Result<Stat> {
    let s = rustix::fs::fstat(file)?;
    Ok(Stat {
        size: s.st_size as u64,
        stored: s.st_blocks as u64 * 512,
        mtime: Timestamp { secs: s.st_mtime, nanos: s.st_mtime_nsec as u32 },
        ctime: Timestamp { secs: s.st_ctime, nanos: s.st_ctime_nsec as u32 },
    })
}

/// Sets the stage file's modification time, so that recovery finds it there.
pub(crate) fn set_mtime(file: &File, mtime: Timestamp) -> io::Result<()> {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime.secs, tv_nsec: i64::from(mtime.nanos) },
    };
    Ok(rustix::fs::futimens(file, &times)?)
}

/// Whether this descriptor is the only one, so that nobody writes the file behind our back: a write lease can be had. A
/// program's shared mapping outlives its last close, and with it the kernel's own descriptor, which forbids the lease. It
/// may fail for a moment after a close, so a `false` is worth another try.
pub(crate) fn nobody_else(file: &File) -> bool {
    let fd = file.as_raw_fd();
    // SAFETY: plain fcntl calls on a descriptor we own. The lease's signal is set to one that is ignored by default, since
    // SIGIO would end the process if somebody opened the file between the two calls.
    unsafe {
        libc::fcntl(fd, F_SETSIG, libc::SIGURG);
        let alone = libc::fcntl(fd, libc::F_SETLEASE, libc::F_WRLCK) == 0;
        if alone {
            libc::fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK);
        }
        alone
    }
}

/// The ranges that are no holes, in order. What the file system cannot tell apart counts as data.
pub(crate) fn data_ranges(file: &File, size: u64) -> io::Result<Vec<Range<u64>>> {
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(rustix::io::Errno::NXIO) => break,
            Err(e) => return Err(e.into()),
        };
        if start >= size {
            break;
        }
        let end = rustix::fs::seek(file, SeekFrom::Hole(start))?.min(size);
        if end <= start {
            break;
        }
        ranges.push(start..end);
        at = end;
    }
    Ok(ranges)
}

/// Makes a range read as zeros, without changing the size.
pub(crate) fn punch(file: &File, range: Range<u64>) -> io::Result<()> {
    if range.start >= range.end {
        return Ok(());
    }
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match rustix::fs::fallocate(file, flags, range.start, range.end - range.start) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP) => write_zeros(file, range),
        Err(e) => Err(e.into()),
    }
}

fn write_zeros(file: &File, range: Range<u64>) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    let zeros = vec![0; 64 << 10];
    let end = range.end.min(stat(file)?.size);
    let mut at = range.start;
    while at < end {
        let n = (end - at).min(zeros.len() as u64);
        file.write_all_at(&zeros[..n as usize], at)?;
        at += n;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::disk::SystemDisk;
    use std::os::unix::fs::FileExt;

    #[test]
    fn data_and_holes_are_told_apart_and_punched() {
        let dir = tempfile::tempdir().unwrap();
        let files = StageFiles::open(dir.path(), Arc::new(SystemDisk)).unwrap();
        let file = files.create(Ino(7), Shape::Whole).unwrap();
        file.write_all_at(&[1; 4096], 0).unwrap();
        file.write_all_at(&[1; 4096], 1 << 20).unwrap();
        file.set_len(2 << 20).unwrap();
        assert_eq!(data_ranges(&file, 2 << 20).unwrap(), [0..4096, 1 << 20..(1 << 20) + 4096]);
        punch(&file, 0..4096).unwrap();
        let one = |size| {
            data_ranges(&file, size).unwrap().into_iter().map(|r| (r.start, r.end)).collect::<Vec<_>>()
        };
        assert_eq!(one(2 << 20), [(1 << 20, (1 << 20) + 4096)]);
        assert_eq!(one((1 << 20) + 5), [(1 << 20, (1 << 20) + 5)]);
        write_zeros(&file, 1 << 20..3 << 20).unwrap();
        assert_eq!(stat(&file).unwrap().size, 2 << 20);
    }

    #[test]
    fn a_second_descriptor_or_a_mapping_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let files = StageFiles::open(dir.path(), Arc::new(SystemDisk)).unwrap();
        let file = files.create(Ino(7), Shape::Whole).unwrap();
        assert!(nobody_else(&file) && nobody_else(&file));
        let other = files.open_existing(Ino(7), Shape::Whole).unwrap();
        assert!(!nobody_else(&file));
        other.set_len(4096).unwrap();
        // SAFETY: a fresh shared mapping of one page of our own file, unmapped below.
        let map = unsafe {
            libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_WRITE, libc::MAP_SHARED, other.as_raw_fd(), 0)
        };
        assert_ne!(map, libc::MAP_FAILED);
        drop(other);
        assert!(!nobody_else(&file), "a mapping outlives its descriptor");
        // SAFETY: as made above.
        unsafe { libc::munmap(map, 4096) };
        while !nobody_else(&file) {
            std::thread::yield_now(); // the kernel gives the mapping's descriptor back a moment later
        }
    }

    #[test]
    fn folders_say_what_a_stage_file_is() {
        let dir = tempfile::tempdir().unwrap();
        let files = StageFiles::open(dir.path(), Arc::new(SystemDisk)).unwrap();
        files.begin(Ino(1)).unwrap();
        files.publish(Ino(1)).unwrap();
        files.create(Ino(2), Shape::Sparse).unwrap();
        files.create(Ino(3), Shape::Whole).unwrap();
        files.reshape(Ino(3), Shape::Whole, Shape::Clean(77)).unwrap();
        files.begin(Ino(4)).unwrap();
        files.sync_folders().unwrap();
        let files = StageFiles::open(dir.path(), Arc::new(SystemDisk)).unwrap();
        let mut list = files.list().unwrap();
        list.sort_by_key(|(ino, _)| *ino);
        assert_eq!(list, [(Ino(1), Shape::Whole), (Ino(2), Shape::Sparse), (Ino(3), Shape::Clean(77))]);
        assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
        files.remove(Ino(3), Shape::Clean(77)).unwrap();
        files.remove(Ino(3), Shape::Clean(77)).unwrap();
        assert_eq!(files.list().unwrap().len(), 2);
        assert!(files.free_bytes() > 0);
    }
}
