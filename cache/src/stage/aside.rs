//! Bytes that may not go where they were to go, kept beside the stage: `aside/<inode>`, or with a number behind it. Nothing reads
//! them but a person, and nobody else has them: they survive a power loss before what they were copied from may go.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use granary_core::{Error, Ino, Kind, Result};

use super::disk::{Disk, make_dirs, read_up_to, write_all};
use super::files::{data_ranges, stat};

/// Bytes copied at once.
const PIECE_BYTES: u64 = 1 << 20;

/// One that is being filled; dropped before it is kept or left, it goes again.
#[derive(Debug)]
pub(crate) struct Aside {
    path: PathBuf,
    dir: File,
    file: File,
    disk: Arc<dyn Disk>,
    kept: bool,
}

impl Aside {
    /// An empty one in the stage's directory.
    ///
    /// Errors: those of the disk; `NoSpace` when all names are taken.
    pub fn begin(stage_dir: &Path, disk: Arc<dyn Disk>, ino: Ino) -> Result<Aside> {
        let dir = stage_dir.join("aside");
        let failed = |path: &Path, e| Error::io(format!("cannot make {}", path.display()), e);
        make_dirs(&dir).map_err(|e| failed(&dir, e))?;
        let opened = File::open(&dir).map_err(|e| failed(&dir, e))?;
        for n in 0_u32.. {
            let path = if n == 0 { dir.join(format!("{ino}")) } else { dir.join(format!("{ino}.{n}")) };
            match disk.create(&path, true) {
                Ok(file) => return Ok(Aside { path, dir: opened, file, disk, kept: false }),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(failed(&path, e)),
            }
        }
        Err(Error::new(
            Kind::NoSpace,
            format!("{} is full of files; look at them, and remove them", dir.display()),
        ))
    }

    pub fn write(&self, bytes: &[u8], offset: u64) -> Result<()> {
        write_all(&*self.disk, &self.file, &[], bytes, offset).map_err(|e| self.failed("write", e))
    }

    /// All of `from`, at the same offsets; what is a hole there is one here.
    pub fn copy(&self, from: &File) -> Result<()> {
        let failed = |e| self.failed("fill", e);
        let size = stat(from).map_err(failed)?.size;
        for range in data_ranges(from, size).map_err(failed)? {
            self.copy_range(from, range.start, range.end)?;
        }
        self.disk.set_len(&self.file, size).map_err(failed)
    }

    /// These bytes of `from`, as far as it has them, at the same offsets.
    pub fn copy_range(&self, from: &File, start: u64, end: u64) -> Result<()> {
        let mut at = start;
        while at < end {
            let len = PIECE_BYTES.min(end - at);
            let bytes = read_up_to(from, at, len as usize).map_err(|e| self.failed("fill", e))?;
            self.write(&bytes, at)?;
            at += len;
        }
        Ok(())
    }

    /// It survives a power loss from now on; where it is.
    pub fn keep(mut self) -> Result<PathBuf> {
        let synced = self.disk.sync_data(&self.file).and_then(|()| self.disk.sync_dir(&self.dir));
        synced.map_err(|e| self.failed("keep", e))?;
        self.kept = true;
        Ok(self.path.clone())
    }

    /// It stays as it is.
    pub fn leave(mut self) -> PathBuf {
        self.kept = true;
        self.path.clone()
    }

    fn failed(&self, doing: &str, e: io::Error) -> Error {
        Error::io(
            format!(
                "cannot {doing} {}, where changes that were refused are kept; free some space there, or repair the disk",
                self.path.display()
            ),
            e,
        )
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if !self.kept
            && let Err(e) = self.disk.remove(&self.path)
        {
            tracing::warn!(path = %self.path.display(), error = %e, "what could not be kept aside whole stays there in part");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::SeqCst;

    use super::*;
    use crate::stage::disk::power::{FailingDisk, Loss};

    #[test]
    fn what_is_kept_survives_a_power_loss_with_its_holes_and_beside_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(FailingDisk::default());
        let from = tempfile::tempfile().unwrap();
        write_all(&*disk, &from, &[], &[7; 5000], 8 << 20).unwrap();
        from.set_len(20 << 20).unwrap();
        for name in ["0000000000000007", "0000000000000007.1"] {
            let aside = Aside::begin(dir.path(), disk.clone(), Ino(7)).unwrap();
            aside.copy(&from).unwrap();
            assert_eq!(aside.keep().unwrap(), dir.path().join("aside").join(name));
        }
        disk.cut(Loss::Tails(0.0));
        disk.cut(Loss::Random(1));
        let kept = File::open(dir.path().join("aside/0000000000000007.1")).unwrap();
        let stat = stat(&kept).unwrap();
        assert!(stat.size == 20 << 20 && stat.stored < 1 << 20, "{stat:?}");
        assert_eq!(read_up_to(&kept, (8 << 20) - 1, 5002).unwrap()[1..5001], [7; 5000]);
    }

    #[test]
    fn what_cannot_be_kept_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(FailingDisk::default());
        disk.room.store(100, SeqCst);
        disk.limited.store(true, SeqCst);
        let aside = Aside::begin(dir.path(), disk.clone(), Ino(7)).unwrap();
        let e = aside.write(&[1; 200], 0).unwrap_err();
        assert!(e.kind() == Kind::NoSpace && e.to_string().contains("free some space"), "{e}");
        assert!(aside.leave().exists(), "but to whom a part is better than nothing");
        drop(Aside::begin(dir.path(), disk.clone(), Ino(7)).unwrap());
        std::fs::remove_file(dir.path().join("aside/0000000000000007")).unwrap();
        disk.sync_fails.store(true, SeqCst);
        Aside::begin(dir.path(), disk, Ino(8)).unwrap().keep().unwrap_err();
        assert_eq!(std::fs::read_dir(dir.path().join("aside")).unwrap().count(), 0);
    }
}
