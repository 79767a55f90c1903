//! Containers of a folder, some of them open.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::{Arc, Mutex, PoisonError};

use granary_core::{Error, Kind, Result};

use super::Container;
use crate::from::changed;
use crate::place::Place;

/// Containers that are open at once.
const OPEN_MAX: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Files {
    /// Guards the open files, by container; held to look one up or open it.
    open: Mutex<HashMap<u32, Arc<File>>>,
}

impl Files {
    /// Reads a range of the file that is the container of this number.
    ///
    /// Errors: `Stale` when it changed since it was found; what the disk says.
    pub(super) fn read(
        &self,
        place: &Place,
        container: &Container,
        number: u32,
        from: u64,
        into: &mut [u8],
    ) -> Result<()> {
        let path = place
            .local_path(&container.name)
            .ok_or_else(|| Error::new(Kind::Bug, format!("{} is no file's name", container.name)))?;
        let file = self.open.lock().unwrap_or_else(PoisonError::into_inner).get(&number).cloned();
        let file = match file {
            Some(file) => file,
            None => {
                let file =
                    File::open(&path).map_err(|e| Error::io(format!("cannot open {}", path.display()), e))?;
                let file = Arc::new(file);
                let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
                if open.len() >= OPEN_MAX {
                    open.clear();
                }
                open.insert(number, file.clone());
                file
            }
        };
        let cannot = |e| Error::io(format!("cannot read {} at byte {from}", path.display()), e);
        match file.read_exact_at(into, from) {
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Err(changed("its container is shorter than it was"));
            }
            other => other.map_err(cannot)?,
        }
        let meta = file.metadata().map_err(cannot)?;
        let now = (meta.len(), meta.mtime(), meta.mtime_nsec() as u32);
        if now != (container.bytes, container.mtime, container.mtime_nanos) {
            return Err(changed("its container was written meanwhile"));
        }
        Ok(())
    }
}
