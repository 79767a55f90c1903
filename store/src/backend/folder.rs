//! A store in a local folder: each object is a file, its key the path below the folder.
//!
//! A put writes a file of its own below `.granary-tmp`, syncs it, renames it to its key and syncs the directory, so that readers see
//! all or nothing and what was put survives a power cut. Temporary files that a crash left are deleted at open once they
//! are an hour older than the newest moment the folder's own disk tells of.

mod walk;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use async_trait::async_trait;
use bytes::Bytes;
use granary_core::{Error, Kind, Result, Timestamp};

use crate::api::{ObjectMeta, Store};
use crate::key::{check_key, check_range, too_short};

/// Holds files that are being written. No key begins with it.
const TEMPORARY: &str = ".granary-tmp";
const LEFTOVER_AGE_SECS: u64 = 3600;
/// Of directories, less the umask: who may read what is in the store, its topmost folder says.
const DIRECTORY_MODE: u32 = 0o777;

/// `file:///path`.
#[derive(Clone, Debug)]
pub struct FolderStore {
    root: Arc<Path>,
    /// Numbers this process's temporary files.
    next: Arc<AtomicU64>,
}

impl FolderStore {
    /// `create`: the mode of the folder that is made when it is missing.
    ///
    /// Errors: `NotFound` when the folder is missing and is not to be made; what the disk says.
    pub fn open(root: PathBuf, create: Option<u32>) -> Result<FolderStore> {
        let store = FolderStore { root: root.into(), next: Arc::default() };
        match fs::metadata(&store.root) {
            Ok(meta) if !meta.is_dir() => {
                return Err(Error::new(
                    Kind::Invalid,
                    format!("{} cannot be used: it is not a folder; give a folder's path", store.describe()),
                ));
            }
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::NotFound => match create {
                Some(mode) => {
                    make_dirs(&store.root, mode).map_err(|e| store.error("make the folder of", "", e))?;
                }
                None => {
                    return Err(Error::new(
                        Kind::NotFound,
                        format!(
                            "{} is not there; is its disk mounted? `granary init` makes the folder of a new volume",
                            store.describe()
                        ),
                    ));
                }
            },
            Err(e) => return Err(store.error("open", "", e)),
        }
        store.drop_leftovers();
        Ok(store)
    }

    fn path(&self, key: &str) -> Result<PathBuf> {
        check_key(key)?;
        if key.split('/').next() == Some(TEMPORARY) {
            return Err(Error::new(Kind::Invalid, format!("no object's key begins with {TEMPORARY}")));
        }
        Ok(self.root.join(key))
    }

    fn error(&self, doing: &str, key: &str, e: io::Error) -> Error {
        let name = if key.is_empty() { self.describe() } else { format!("{}/{key}", self.describe()) };
        match e.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => {
                Error::new(Kind::NotFound, format!("{name} is not there"))
            }
            ErrorKind::PermissionDenied => Error::new(
                Kind::Denied,
                format!(
                    "cannot {doing} {name}: permission denied; give granary's user the right to, or run it as another"
                ),
            ),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Error::new(
                Kind::NoSpace,
                format!(
                    "cannot {doing} {name}: its disk is full; make room on it (what is in the store stays readable)"
                ),
            ),
            ErrorKind::ReadOnlyFilesystem => Error::new(
                Kind::ReadOnly,
                format!("cannot {doing} {name}: its disk is mounted read-only; remount it read-write"),
            ),
            _ => Error::io(format!("cannot {doing} {name}"), e),
        }
    }

    /// Runs what blocks on a thread where it may.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(FolderStore) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let store = self.clone();
        match tokio::task::spawn_blocking(move || work(store)).await {
            Ok(result) => result,
            Err(e) => {
                Err(Error::new(Kind::Bug, "a request to the folder was ended before it was done")
                    .with_source(e))
            }
        }
    }

    fn write(&self, path: &Path, parts: &[Bytes]) -> io::Result<()> {
        let folder = self.root.join(TEMPORARY);
        if let Err(e) = fs::create_dir(&folder)
            && e.kind() != ErrorKind::AlreadyExists
        {
            return Err(e);
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let temporary = folder.join(format!("{}-{:p}-{number}", std::process::id(), Arc::as_ptr(&self.next)));
        let result = (|| {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&temporary)?;
            for part in parts {
                file.write_all(part)?;
            }
            file.sync_all()?;
            let parent = path.parent().unwrap_or(&self.root);
            make_dirs(parent, DIRECTORY_MODE)?;
            fs::rename(&temporary, path)?;
            File::open(parent)?.sync_all()
        })();
        if result.is_err() {
            // What the caller should hear is why the write failed.
            let _ = fs::remove_file(&temporary);
        }
        result
    }

    /// Deletes temporary files of processes that ended before they were done. What cannot be deleted harms nobody.
    fn drop_leftovers(&self) {
        let Ok(entries) = fs::read_dir(self.root.join(TEMPORARY)) else { return };
        let aged: Vec<_> =
            entries.flatten().filter_map(|e| Some((e.metadata().ok()?.modified().ok()?, e.path()))).collect();
        let Some(newest) = fs::metadata(self.root.join(TEMPORARY)).and_then(|m| m.modified()).ok() else {
            return;
        };
        for (modified, path) in aged {
            if newest.duration_since(modified).is_ok_and(|age| age.as_secs() > LEFTOVER_AGE_SECS) {
                let _ = fs::remove_file(path);
            }
        }
    }
}

/// Makes a directory of this mode, and those above it that are missing, each synced into its parent.
fn make_dirs(path: &Path, mode: u32) -> io::Result<()> {
    let make = || DirBuilder::new().mode(mode).create(path);
    match make() {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => return Ok(()),
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let parent = path.parent().ok_or(e)?;
            make_dirs(parent, DIRECTORY_MODE)?;
            if let Err(e) = make()
                && e.kind() != ErrorKind::AlreadyExists
            {
                return Err(e);
            }
        }
        other => other?,
    }
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}

fn meta_of(key: String, meta: &fs::Metadata) -> ObjectMeta {
    let modified = meta.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    ObjectMeta {
        key,
        size: meta.len(),
        modified: Timestamp { secs: modified.as_secs() as i64, nanos: modified.subsec_nanos() },
    }
}

#[async_trait]
impl Store for FolderStore {
    async fn get(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        let path = self.path(key)?;
        let len = check_range(key, &range)?;
        if len == 0 {
            return Ok(Bytes::new());
        }
        let key = key.to_owned();
        self.blocking(move |store| {
            let failed = |e| store.error("read", &key, e);
            let file = File::open(path).map_err(failed)?;
            let size = file.metadata().map_err(failed)?.len();
            if range.end > size {
                let name = format!("{}/{key}", store.describe());
                return Err(too_short(&name, &range, size.saturating_sub(range.start)));
            }
            let mut bytes = vec![0; len];
            file.read_exact_at(&mut bytes, range.start).map_err(failed)?;
            Ok(bytes.into())
        })
        .await
    }

    async fn put(&self, key: &str, parts: Vec<Bytes>) -> Result<()> {
        let (path, key) = (self.path(key)?, key.to_owned());
        self.blocking(move |store| {
            store.write(&path, &parts).map_err(|e| match e.kind() {
                ErrorKind::NotFound => Error::new(
                    Kind::Unavailable,
                    format!(
                        "cannot write {}/{key}: the folder has gone; is its disk mounted?",
                        store.describe()
                    ),
                ),
                _ => store.error("write", &key, e),
            })
        })
        .await
    }

    async fn head(&self, key: &str) -> Result<ObjectMeta> {
        let (path, key) = (self.path(key)?, key.to_owned());
        self.blocking(move |store| match fs::metadata(path) {
            Ok(meta) if meta.is_file() => Ok(meta_of(key, &meta)),
            Ok(_) => Err(store.error("read", &key, ErrorKind::NotFound.into())),
            Err(e) => Err(store.error("read", &key, e)),
        })
        .await
    }

    async fn delete(&self, keys: Vec<String>) -> Result<()> {
        self.blocking(move |store| {
            for key in &keys {
                match fs::remove_file(store.path(key)?) {
                    Err(e) if !matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                        return Err(store.error("delete", key, e));
                    }
                    _ => {}
                }
            }
            Ok(())
        })
        .await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, max: usize) -> Result<Vec<ObjectMeta>> {
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        self.blocking(move |store| {
            walk::list(&store.root, &prefix, after.as_deref(), max)
                .map_err(|(key, e)| store.error("list", &key, e))
        })
        .await
    }

    fn describe(&self) -> String {
        format!("file://{}", self.root.display())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_missing_folder_is_made_only_when_asked_and_a_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let e = FolderStore::open(path.clone(), None).unwrap_err();
        assert_eq!(e.kind(), Kind::NotFound);
        assert!(e.to_string().contains("is its disk mounted?"), "{e}");
        FolderStore::open(path.clone(), Some(0o700)).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o077;
        assert_eq!(mode(&path), 0, "closed to others");
        assert_ne!(mode(&dir.path().join("a")), 0, "what was missing above it is not");
        FolderStore::open(path, None).unwrap();
        fs::write(dir.path().join("file"), b"").unwrap();
        let e = FolderStore::open(dir.path().join("file"), Some(0o777)).unwrap_err();
        assert!(e.to_string().contains("not a folder"), "{e}");
    }

    #[test]
    fn leftovers_of_a_crash_are_dropped_and_files_being_written_stay() {
        let dir = tempfile::tempdir().unwrap();
        let temporary = dir.path().join(TEMPORARY);
        fs::create_dir(&temporary).unwrap();
        let (old, new) = (temporary.join("old"), temporary.join("new"));
        fs::write(&new, b"").unwrap();
        let file = File::create(&old).unwrap();
        let past = fs::metadata(&temporary).unwrap().modified().unwrap()
            - std::time::Duration::from_secs(LEFTOVER_AGE_SECS + 60);
        file.set_modified(past).unwrap();
        FolderStore::open(dir.path().to_owned(), None).unwrap();
        assert!(!old.exists() && new.exists());
    }

    #[tokio::test]
    async fn a_put_leaves_no_temporary_file_and_no_object_lies_among_them() {
        let dir = tempfile::tempdir().unwrap();
        let store = FolderStore::open(dir.path().to_owned(), None).unwrap();
        store.put("a/b", vec![Bytes::from_static(b"x")]).await.unwrap();
        // `a` is a folder: the put fails, and cleans up.
        assert!(store.put("a", vec![Bytes::from_static(b"x")]).await.is_err());
        assert_eq!(fs::read_dir(dir.path().join(TEMPORARY)).unwrap().count(), 0);
        let key = format!("{TEMPORARY}/x");
        assert_eq!(store.put(&key, vec![]).await.unwrap_err().kind(), Kind::Invalid);
        assert_eq!(store.list("", None, 10).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn an_unmounted_folder_is_unavailable_not_empty() {
        let dir = tempfile::tempdir().unwrap();
        let store = FolderStore::open(dir.path().join("mnt"), Some(0o777)).unwrap();
        fs::remove_dir_all(dir.path().join("mnt")).unwrap();
        let e = store.put("a/b", vec![Bytes::from_static(b"x")]).await.unwrap_err();
        assert_eq!(e.kind(), Kind::Unavailable);
        assert!(!dir.path().join("mnt").exists());
        assert_eq!(store.list("", None, 10).await.unwrap_err().kind(), Kind::NotFound);
    }
}
