//! Reading what is staged here for another node. What it asks for is checked against what is here: a place that was used
//! anew since the metadata named it is not taken for the old one.

use std::sync::Arc;

use bytes::Bytes;
use granary_core::{Ino, Result};
use granary_meta::{Extent, Place};

use super::File;
use super::read::read_record;
use crate::stage::disk::read_up_to;
use crate::tree::Shared;

impl File {
    /// A segment is never used anew, so what it has at a place stays what it was.
    pub(crate) fn read_staged_log(
        shared: &Arc<Shared>,
        ino: Ino,
        part: &Extent,
        whole: &Extent,
    ) -> Result<Option<Bytes>> {
        let Place::Log { segment, offset, .. } = part.place else { return Ok(None) };
        if !shared.log.has(segment, offset..offset.saturating_add(part.len)) {
            return Ok(None);
        }
        read_record(shared, ino, part, whole)
    }

    /// A range of the stage file, if all of it is in it for good.
    pub(crate) fn read_staged_file(&self, part: &Extent) -> Result<Option<Bytes>> {
        let file = {
            let mut s = self.state();
            let own = Place::StageFile { node: self.shared.node };
            let have: u64 =
                s.map.within(part.offset..part.end()).iter().filter(|e| e.place == own).map(|e| e.len).sum();
            if s.dead || s.stage.is_none() || have != part.len {
                return Ok(None);
            }
            self.stage_file(&mut s)?
        };
        let bytes = read_up_to(&file, part.offset, part.len as usize).map_err(|e| {
            granary_core::Error::io(format!("cannot read the stage file of inode {}", self.ino), e)
        })?;
        // Cut meanwhile: the extents tell.
        Ok((bytes.len() as u64 == part.len).then(|| bytes.into()))
    }
}
