//! A new metadata folder: filled beside its place, and moved there when it is whole.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use granary_core::{Error, Kind, Result};
use granary_meta::engine::{Engine, RocksEngine};

/// Dropped before it is settled, it leaves nothing.
#[derive(Debug)]
pub(crate) struct FreshFolder {
    folder: PathBuf,
    partial: PathBuf,
    engine: Arc<dyn Engine>,
    settled: bool,
}

impl FreshFolder {
    /// `Exists` when the folder is there and not empty.
    pub fn begin(folder: &Path) -> Result<FreshFolder> {
        let cannot = |what: &str, path: &Path, e| Error::io(format!("cannot {what} {}", path.display()), e);
        match fs::read_dir(folder) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return Err(Error::new(
                        Kind::Exists,
                        format!(
                            "{} is not empty: metadata is made in a new folder only; name another, and keep this one",
                            folder.display()
                        ),
                    ));
                }
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(cannot("look into", folder, e)),
        }
        let mut partial = folder.as_os_str().to_owned();
        partial.push(".restoring");
        let partial = PathBuf::from(partial);
        match fs::remove_dir_all(&partial) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(cannot("remove", &partial, e)),
            _ => {}
        }
        let engine = RocksEngine::open(&partial)?;
        Ok(FreshFolder { folder: folder.to_owned(), partial, engine, settled: false })
    }

    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }

    /// It is whole: closes the engine, and moves the folder to its place.
    pub fn settle(mut self) -> Result<()> {
        self.engine.close()?;
        let cannot =
            |e| Error::io(format!("cannot move {} to {}", self.partial.display(), self.folder.display()), e);
        // An empty folder there is replaced.
        fs::rename(&self.partial, &self.folder).map_err(cannot)?;
        if let Some(parent) = self.folder.parent().filter(|p| !p.as_os_str().is_empty()) {
            fs::File::open(parent).and_then(|dir| dir.sync_all()).map_err(cannot)?;
        }
        self.settled = true;
        Ok(())
    }
}

impl Drop for FreshFolder {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        let removed = self
            .engine
            .close()
            .and_then(|()| fs::remove_dir_all(&self.partial).map_err(|e| Error::io("cannot remove it", e)));
        if let Err(e) = removed {
            tracing::warn!("{} is left of metadata that was not finished: {e}", self.partial.display());
        }
    }
}
