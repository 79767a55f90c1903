//! Changes that may not be committed any more: the service ended the session, so the file belongs to others. They are kept
//! aside for a person, every later call on the file fails, and who opens it anew gets what the metadata has.

use std::os::unix::fs::FileExt;
use std::path::Path;

use granary_core::{Error, Result};
use granary_meta::{Extent, Place};

use super::{File, Stage, State};
use crate::stage::Shape;
use crate::stage::disk::read_up_to;
use crate::util::blocking;

/// Bytes copied at once.
const PIECE_BYTES: u64 = 1 << 20;

impl File {
    /// Refuses what is held back, for ever. Nothing when nothing is.
    pub(crate) async fn fence(&self, why: &Error) {
        let held = {
            let mut s = self.state();
            if !s.is_held() {
                return;
            }
            let held = held_extents(&s);
            s.lease.fenced = Some(self.refusal(&s, why));
            held
        };
        let kept = self.keep_aside(held).await;
        let mut guard = self.state();
        let s = &mut *guard;
        let mut message = s.lease.fenced.as_ref().map_or_else(String::new, ToString::to_string);
        match kept {
            Ok(path) => message.push_str(&format!("; what was written lies in {path}")),
            Err(e) => message.push_str(&format!("; what was written could not be kept: {e}")),
        }
        tracing::error!(ns = %self.shared.ns, ino = %self.ino, "{message}");
        s.lease.fenced = Some(Error::new(why.kind(), message.clone()));
        self.shared.note_fenced(message);
        self.step_down(s);
    }

    /// Found at start: these were never committed, and another node changed the file meanwhile.
    pub(crate) async fn refuse_overtaken(&self, extents: Vec<Extent>) -> Result<()> {
        let kept = self.keep_aside(extents).await?;
        self.shared.note_overtaken(self.ino, &kept);
        Ok(())
    }

    fn refusal(&self, s: &State, why: &Error) -> Error {
        let name = s.hint.as_ref().map_or_else(String::new, |h| {
            format!(" ({:?} in directory {})", String::from_utf8_lossy(&h.name), h.dir)
        });
        Error::new(why.kind(), format!("changes of inode {}{name} were refused: {why}; write it again", self.ino))
    }

    /// What the file had is left to a successor: the stage file, which the metadata may name, and the place in the table.
    fn step_down(&self, s: &mut State) {
        self.outdate(s);
        s.delta = Default::default();
        s.in_commit = None;
        s.map = s.map.with([]);
        let stage = s.stage.take();
        let hint = s.hint.clone();
        self.settle(s);
        self.shared.table.remove_exactly(self);
        let Some(mut stage) = stage else { return };
        debug_assert_eq!(stage.shape, Shape::Sparse, "made so by the loss of the lease");
        stage.unsynced = true;
        let successor = self.shared.table.acquire(self.ino, || File::new(self.ino, self.shared.clone()));
        {
            let mut s = successor.state();
            if s.stage.is_none() {
                s.stage = Some(Stage::new(stage.shape, stage.file));
                s.hint = hint;
            }
            successor.settle(&mut s);
        }
        self.shared.table.release(&successor);
        self.shared.table.retire(&successor);
    }

    /// Writes the extents, at their offsets, to a file beside the stage, and returns its path.
    async fn keep_aside(&self, held: Vec<Extent>) -> Result<String> {
        let (path, file) = self.shared.files.begin_aside(self.ino)?;
        let text = path.display().to_string();
        let Some(me) = self.me.upgrade() else { return Ok(text) };
        blocking(&self.shared.runtime, move || {
            for extent in &held {
                me.copy_aside(extent, &file, &path)?;
            }
            file.sync_all().map_err(|e| Error::io(format!("cannot keep {}", path.display()), e))
        })
        .await?;
        Ok(text)
    }

    fn copy_aside(&self, extent: &Extent, to: &std::fs::File, path: &Path) -> Result<()> {
        let failed = |e| Error::io(format!("cannot write {}", path.display()), e);
        let source = match extent.place {
            Place::StageFile { node } if node == self.shared.node => Some(self.stage_file(&mut self.state())?),
            _ => None,
        };
        let mut at = extent.offset;
        while at < extent.end() {
            let len = PIECE_BYTES.min(extent.end() - at);
            let bytes = match (&source, extent.place) {
                (Some(stage), _) => read_up_to(stage, at, len as usize).map_err(failed)?,
                (None, Place::Log { node, segment, offset }) if node == self.shared.node => {
                    self.shared.log.read(segment, offset + (at - extent.offset), len as usize)?.unwrap_or_default()
                }
                _ => return Ok(()), // already in the store
            };
            to.write_all_at(&bytes, at).map_err(failed)?;
            at += len;
        }
        Ok(())
    }
}

/// Where the bytes are that the metadata does not know of.
fn held_extents(s: &State) -> Vec<Extent> {
    let mut changed = s.delta.changed.clone();
    if let Some(older) = &s.in_commit {
        changed.union(&older.changed);
    }
    changed.iter().flat_map(|range| s.map.within(range.clone())).collect()
}
