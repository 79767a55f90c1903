//! copy_file_range(2): what is in the store is shared, the rest is copied in the node process, past the program and the
//! kernel's page cache.

use granary_core::error::fail;
use granary_core::{Ino, Kind, Result};
use granary_meta::FileType;

use super::{Mode, Vfs};

/// One call. The handles are those of a `work` mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyRange {
    pub from: Ino,
    pub from_fh: u64,
    pub from_offset: u64,
    pub to: Ino,
    pub to_fh: u64,
    pub to_offset: u64,
    pub len: u64,
}

impl Vfs {
    /// Returns when the beginning of a copy would not wait for the store, which may be away; at once where it is shared. May be given up
    /// at any time.
    pub async fn wait_to_copy(&self, copy: CopyRange) -> Result<()> {
        let from = match self.mode() {
            Mode::Work => self.handles.file(copy.from_fh),
            Mode::Data => self.recent.get(copy.from, self.clock.monotonic()).map(|loaded| loaded.0.clone()),
        };
        match from {
            Some(from) if from.is_staged_at(copy.from_offset) => {
                self.wait_for_room(copy.len.min(granary_cache::file::COPIED_AT_ONCE)).await
            }
            _ => Ok(()),
        }
    }

    /// How many bytes were copied: 0 at the end of `from`, else perhaps fewer than were asked for. `Invalid` for ranges of
    /// one file that overlap.
    pub async fn copy_file_range(&self, copy: CopyRange) -> Result<u64> {
        self.writable()?;
        for ino in [copy.from, copy.to] {
            if self.meta.getattr(ino).await?.kind != FileType::File {
                return fail(Kind::Invalid, "only a regular file's bytes can be copied");
            }
        }
        self.drop_privileges(copy.to, false).await?;
        let CopyRange { from_offset, to_offset, len, .. } = copy;
        let done = match self.mode() {
            Mode::Data => {
                let (from, to) = (self.loaded(copy.from).await?, self.loaded(copy.to).await?);
                self.tree.copy_range(&from.0, from_offset, &to.0, to_offset, len).await?
            }
            Mode::Work => {
                let no_handle = |fh| granary_core::Error::new(Kind::Bug, format!("handle {fh} is not open"));
                let from = self.handles.file(copy.from_fh).ok_or_else(|| no_handle(copy.from_fh))?;
                let to = self.handles.to_change(copy.to_fh)?.ok_or_else(|| no_handle(copy.to_fh))?.file;
                let done = self.tree.copy_range(&from, from_offset, &to, to_offset, len).await?;
                self.pages.changed_by_kernel(copy.to, to.version());
                done
            }
        };
        Ok(done)
    }
}
