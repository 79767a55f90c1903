//! Changes that may not be committed any more: the service ended the session, so the file belongs to others. They are kept
//! aside for a person, every later call on the file fails, and who opens it anew gets what the metadata has.

use granary_core::{Error, Kind, Result};
use granary_meta::{Extent, Place};

use super::{File, Stage, State};
use crate::stage::Shape;
use crate::stage::aside::Aside;
use crate::util::blocking;

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
        let kept = self.keep_aside(held, false).await;
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
        let kept = self.keep_aside(extents, true).await?;
        self.shared.note_overtaken(self.ino, &kept);
        Ok(())
    }

    fn refusal(&self, s: &State, why: &Error) -> Error {
        let name = s.hint.as_ref().map_or_else(String::new, |h| {
            format!(" ({:?} in directory {})", String::from_utf8_lossy(&h.name), h.dir)
        });
        Error::new(
            why.kind(),
            format!("changes of inode {}{name} were refused: {why}; write it again", self.ino),
        )
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

    /// Writes the extents, at their offsets, to a file beside the stage, and returns its path. When that fails a part is better
    /// than nothing, unless it `stays` where it is to be tried again.
    async fn keep_aside(&self, held: Vec<Extent>, stays: bool) -> Result<String> {
        let Some(me) = self.me.upgrade() else {
            return Err(Error::new(Kind::Bug, format!("inode {} is gone while it is kept aside", self.ino)));
        };
        let path = blocking(&self.shared.runtime, move || {
            let aside = me.shared.files.begin_aside(me.ino)?;
            match held.iter().try_for_each(|extent| me.copy_aside(extent, &aside)) {
                Ok(()) => aside.keep(),
                Err(e) if stays => Err(e),
                Err(e) => Err(e.context(format_args!("a part of it lies in {}", aside.leave().display()))),
            }
        });
        Ok(path.await?.display().to_string())
    }

    fn copy_aside(&self, extent: &Extent, to: &Aside) -> Result<()> {
        match extent.place {
            Place::StageFile { node } if node == self.shared.node => {
                let stage = self.stage_file(&mut self.state())?;
                to.copy_range(&stage, extent.offset, extent.end())
            }
            Place::Log { node, segment, offset } if node == self.shared.node => {
                match self.shared.log.read(segment, offset, extent.len as usize)? {
                    Some(bytes) => to.write(&bytes, extent.offset),
                    None => Ok(()), // the drain has given it to the store
                }
            }
            _ => Ok(()), // already in the store
        }
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
