//! What this node has staged, for other nodes to read.

use bytes::Bytes;
use granary_core::{Error, Ino, Kind, Result};
use granary_meta::{Extent, Place};

use super::Tree;
use crate::file::File;

/// One answer is at most this long.
pub const STAGED_BYTES_MAX: u64 = 16 << 20;

impl Tree {
    /// The bytes of `part`, which was cut off `whole`, an extent that the metadata says is staged here. `None`: they are not, any
    /// more; the metadata says by now where they are.
    ///
    /// Errors: `Invalid` when what is asked for makes no sense, `Corrupt` when the disk damaged the bytes, those of the
    /// metadata.
    pub async fn staged(&self, ino: Ino, part: &Extent, whole: &Extent) -> Result<Option<Bytes>> {
        check(part, whole)?;
        match part.place {
            Place::Log { node, .. } if node == self.shared.node => {
                File::read_staged_log(&self.shared, ino, part, whole)
            }
            Place::StageFile { node } if node == self.shared.node => {
                // A file with a stage file that was not uploaded is always in the table.
                let Some(file) = self.shared.table.find(ino) else { return Ok(None) };
                if !file.is_loaded() {
                    file.refresh().await?; // it was found at start, or left by one that was fenced
                }
                file.read_staged_file(part)
            }
            _ => Ok(None),
        }
    }
}

fn check(part: &Extent, whole: &Extent) -> Result<()> {
    let sane = |e: &Extent| e.len > 0 && e.offset.checked_add(e.len).is_some();
    let inside = sane(part) && sane(whole) && part.offset >= whole.offset && part.end() <= whole.end();
    let same = match (part.place, whole.place) {
        (
            Place::Log { node, segment, offset },
            Place::Log { node: of, segment: in_segment, offset: start },
        ) => {
            (node, segment) == (of, in_segment)
                && offset.checked_sub(start).is_some_and(|by| inside && by == part.offset - whole.offset)
        }
        (Place::StageFile { node }, Place::StageFile { node: of }) => node == of,
        _ => false,
    };
    if !inside || !same || part.len > STAGED_BYTES_MAX {
        return Err(Error::new(Kind::Invalid, "a range of a staged extent is asked for that cannot be one"));
    }
    Ok(())
}
