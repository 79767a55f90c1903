//! A file in a folder that gets its name when it is whole: written beside, synced, renamed, its directory synced.

use std::fs::{self, File};
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};

use granary_core::{Error, Kind, Result};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use tempfile::NamedTempFile;

/// Where the store keeps what is being written: it drops what a crash leaves there, and lists nothing of it.
const TEMPORARY: &str = ".granary-tmp";

/// Being written. Dropped, it leaves nothing.
#[derive(Debug)]
pub struct NewFile {
    file: NamedTempFile,
    path: PathBuf,
}

impl NewFile {
    pub(super) fn create(folder: &Path, name: &str) -> Result<NewFile> {
        let path = folder.join(name);
        let cannot = |e| cannot(&path, e);
        let temporary = folder.join(TEMPORARY);
        fs::create_dir_all(&temporary).map_err(cannot)?;
        let file = tempfile::Builder::new().prefix("new-").tempfile_in(&temporary).map_err(cannot)?;
        Ok(NewFile { file, path })
    }

    pub fn file(&self) -> &File {
        self.file.as_file()
    }

    /// Where its bytes are until it has its name.
    pub fn temporary_path(&self) -> &Path {
        self.file.path()
    }

    /// Gives it its name, durably, in the place of what has it now.
    ///
    /// Errors: what the disk says; then nothing changed.
    pub fn keep(self) -> Result<()> {
        self.rename(RenameFlags::empty())
    }

    /// The same, only when nothing has the name.
    ///
    /// Errors: `Exists`; as [`NewFile::keep`].
    pub fn keep_new(self) -> Result<()> {
        self.rename(RenameFlags::NOREPLACE)
    }

    fn rename(self, flags: RenameFlags) -> Result<()> {
        let NewFile { file, path } = self;
        let cannot = |e| cannot(&path, e);
        use std::os::unix::fs::PermissionsExt;
        // Temporary files are their owner's alone; data sets are read by others, as the umask lets them.
        let mode = 0o666 & !umask();
        file.as_file().set_permissions(fs::Permissions::from_mode(mode)).map_err(cannot)?;
        file.as_file().sync_all().map_err(cannot)?;
        let parent = path.parent().ok_or_else(|| cannot(io::Error::from(io::ErrorKind::InvalidInput)))?;
        make_dirs(parent).map_err(cannot)?;
        renameat_with(CWD, file.path(), CWD, &path, flags).map_err(|e| match e {
            rustix::io::Errno::EXIST => {
                Error::new(Kind::Exists, format!("{} is there already", path.display()))
            }
            e => cannot(e.into()),
        })?;
        // The name it had is no longer there to be deleted.
        let _ = file.into_temp_path().keep();
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(cannot)
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.as_file_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for NewFile {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.file.as_file_mut().seek(to)
    }
}

/// The process's file mode mask, without changing it.
fn umask() -> u32 {
    let of = |text: String| {
        let line = text.lines().find_map(|line| line.strip_prefix("Umask:"))?;
        u32::from_str_radix(line.trim(), 8).ok()
    };
    fs::read_to_string("/proc/self/status").ok().and_then(of).unwrap_or(0o022)
}

/// Makes a directory and those above it, each synced into its parent.
fn make_dirs(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_dirs(parent)?;
    }
    match fs::create_dir(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}

fn cannot(path: &Path, e: io::Error) -> Error {
    let kind = e.kind();
    let doing = format!("cannot write {}", path.display());
    match kind {
        io::ErrorKind::PermissionDenied => {
            Error::new(Kind::Denied, format!("{doing}: permission denied; write where you have the right to"))
        }
        _ => Error::io(doing, e),
    }
}
