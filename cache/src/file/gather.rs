//! A large file that was read from the store gets its own shape: one local file with all of its content, which the kernel reads
//! itself from the next open on. It is a clean copy like that of an uploaded file, and goes the same way when its space is needed.
//!
//! Its chunks are in the object cache already, so no byte comes from the store; each is verified on its way, and what belongs to
//! this file alone leaves the object cache afterwards.

use std::fs;
use std::sync::Arc;

use granary_core::{Error, ObjectId, ObjectKind, Result};
use granary_meta::Place;

use super::{File, Stage, State};
use crate::extent_map::{ExtentMap, Piece};
use crate::stage::Shape;
use crate::stage::disk::write_all;
use crate::stage::sums::{BLOCK_BYTES, Sums};
use crate::tree::Shared;
use crate::util::blocking;

/// What is to be copied: content of one version, all of it in objects.
#[derive(Debug)]
struct Plan {
    version: u64,
    size: u64,
    map: ExtentMap,
}

/// The objects that are blocks of the file, and whether all chunks that the file needs are cached.
impl Plan {
    fn blocks(&self) -> impl Iterator<Item = ObjectId> + '_ {
        self.map.iter().filter_map(|e| match e.place {
            Place::Object { id, kind: ObjectKind::Block, .. } => Some(id),
            _ => None,
        })
    }

    fn is_cached(&self, shared: &Shared) -> bool {
        self.map.iter().all(|e| match e.place {
            Place::Object { id, offset, .. } => shared.reads.has(id, offset..offset + e.len),
            _ => false,
        })
    }
}

impl File {
    /// What to copy, if the file is one that may be: large, as the store has it, and without a stage file. Whoever shares the
    /// namespace with other nodes has leases to care for, which such a copy would have to follow.
    fn gather_plan(&self, s: &State) -> Option<Plan> {
        let fits = s.loaded
            && !s.dead
            && !s.is_held()
            && !self.shared.many
            && s.stage.is_none()
            && s.writers == 0
            && s.touched.is_none()
            && s.size > self.shared.policy().small_file_bytes_max
            && s.map.iter().all(|e| matches!(e.place, Place::Object { .. }));
        fits.then(|| Plan { version: s.committed.version, size: s.size, map: s.map.clone() })
    }

    /// The kernel would read the file itself, if all of it were here.
    pub(super) fn wish_whole(&self, s: &mut State) {
        s.wished = true;
    }

    /// Whether the file was wished for as a whole, and all of its chunks came. Each time it is found so counts as a use.
    pub(crate) fn is_to_gather(&self) -> bool {
        let mut s = self.state();
        if !s.wished {
            return false;
        }
        let Some(plan) = self.gather_plan(&s).filter(|plan| plan.is_cached(&self.shared)) else {
            return false;
        };
        s.passes = s.passes.saturating_add(1);
        // What is read once does not push out what lies there: the object cache knows better what to keep of that.
        self.shared.has_room_for_copy(plan.map.covered()) || s.passes > 1
    }

    /// Makes the copy; whether the file has one now. `false` also when a chunk left meanwhile, or the file changed.
    pub(crate) async fn gather(self: &Arc<Self>) -> Result<bool> {
        let _one_at_a_time = self.shared.reads.gathering().await;
        let plan = {
            let s = self.state();
            if s.stage.as_ref().is_some_and(Stage::is_complete) {
                return Ok(true);
            }
            self.gather_plan(&s)
        };
        let Some(plan) = plan.filter(|plan| plan.is_cached(&self.shared)) else { return Ok(false) };
        let bytes = plan.map.covered();
        let making = self.shared.clone();
        blocking(&self.shared.runtime, move || {
            making.make_room_for_copy(bytes);
            Ok(())
        })
        .await?;
        if !self.shared.has_room_for_copy(bytes) {
            return Ok(false);
        }
        let (task, version) = (self.clone(), plan.version);
        let copied = blocking(&self.shared.runtime, move || {
            let copied = task.copy_whole(&plan);
            if !matches!(copied, Ok(true)) {
                task.shared.files.abandon_clean(task.ino, plan.version);
            }
            Ok((copied?, plan))
        });
        let (true, plan) = copied.await? else { return Ok(false) };
        if !self.publish_whole(version, bytes).await? {
            return Ok(false);
        }
        let shared = self.shared.clone();
        blocking(&self.shared.runtime, move || {
            plan.blocks().for_each(|id| shared.reads.drop_chunks(id));
            shared.files.sync_folders()
        })
        .await?;
        Ok(true)
    }

    /// Fills the copy, not yet in its place, and writes down its checksums. `false`: a chunk is gone, or the tree stops.
    fn copy_whole(&self, plan: &Plan) -> Result<bool> {
        let shared = &self.shared;
        let file = shared.files.begin_clean(self.ino, plan.version)?;
        let failed =
            |e| Error::io(format!("cannot fill a copy of inode {} on this node's disk", self.ino), e);
        let mut crcs = Vec::new();
        for start in (0..plan.size).step_by(BLOCK_BYTES as usize) {
            if shared.drain.stop.is_cancelled() {
                return Ok(false);
            }
            let len = BLOCK_BYTES.min(plan.size - start);
            let Some(crc) = self.copy_block(plan, &file, start, len)? else { return Ok(false) };
            crcs.push(crc);
        }
        shared.disk.set_len(&file, plan.size).map_err(failed)?;
        // What is called clean is believed after a power loss too.
        shared.disk.sync_data(&file).map_err(failed)?;
        let sums = Sums { ino: self.ino.0, version: plan.version, size: plan.size, crcs };
        shared.files.write_sums(self.ino, &sums)?;
        Ok(true)
    }

    /// One block of the file; its checksum.
    fn copy_block(&self, plan: &Plan, file: &fs::File, start: u64, len: u64) -> Result<Option<u32>> {
        let shared = &self.shared;
        let (mut crc, mut at) = (0, start);
        for piece in plan.map.resolve(start, len) {
            match piece {
                Piece::Hole { len, .. } => {
                    crc = granary_core::crc32c_append(crc, &vec![0; len as usize]);
                    at += len;
                }
                Piece::Data { part, .. } => {
                    let Place::Object { id, offset, .. } = part.place else { return Ok(None) };
                    let Some(pieces) = shared.reads.copy_of(id, offset..offset + part.len) else {
                        return Ok(None);
                    };
                    for bytes in pieces {
                        write_all(&*shared.disk, file, &[], &bytes, at).map_err(|e| {
                            let what =
                                format!("cannot fill a copy of inode {} on this node's disk", self.ino);
                            Error::io(what, e)
                        })?;
                        crc = granary_core::crc32c_append(crc, &bytes);
                        at += bytes.len() as u64;
                    }
                }
            }
        }
        Ok(Some(crc))
    }

    /// The copy is the file's from now on, unless the file changed while it was made.
    async fn publish_whole(&self, version: u64, bytes: u64) -> Result<bool> {
        let shared = &self.shared;
        let _turn = self.turn().await;
        let mut guard = self.state();
        let s = &mut *guard;
        // A file that the table forgot may have come anew, and changed, without this one knowing.
        let in_use = shared.table.find(self.ino).is_some_and(|file| std::ptr::eq(&*file, self));
        if !in_use || self.gather_plan(s).is_none_or(|plan| plan.version != version) {
            shared.files.abandon_clean(self.ino, version);
            return Ok(false);
        }
        shared.files.publish_clean(self.ino, version)?;
        let mut stage = Stage::new(Shape::Clean(version), None);
        stage.unsynced = false;
        s.stage = Some(stage);
        s.wished = false;
        shared.clean.insert(self.ino, version, bytes);
        self.settle(s);
        Ok(true)
    }
}
