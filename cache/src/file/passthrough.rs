//! Stage files that the kernel reads and writes itself.

use granary_core::Result;
use granary_meta::Attr;

use super::{Backing, File, Stage, State};
use crate::stage::Shape;
use crate::stage::files;

impl File {
    pub(super) fn passthrough_begin(&self, write: bool) -> Result<Option<Backing>> {
        let mut guard = self.state();
        let s = &mut *guard;
        s.alive(self.ino)?;
        // Nobody can make such a writer wait.
        let room = || self.shared.reads.room().ask(0) == crate::room::Level::Ample;
        if write && !(self.shared.room_for_unbounded_writes() && room()) {
            return Ok(None);
        }
        if s.stage.is_none() && write && s.large && s.size == 0 && s.map.len() == 0 {
            self.begin_empty_stage(s)?;
        }
        if !s.stage.as_ref().is_some_and(Stage::is_complete) {
            self.wish_whole(s);
            return Ok(None);
        }
        if !write {
            let file = self.stage_file(s)?;
            self.shared.clean.used(self.ino);
            s.readers += 1;
            return Ok(Some(Backing { file }));
        }
        self.soil(s)?;
        let file = self.stage_file(s)?;
        if s.writers == 0 {
            self.begin_loose(s, &file)?;
        }
        s.writers += 1;
        s.touched_all = true;
        s.held_version = super::state::HELD_VERSION | self.shared.next_version();
        self.settle(s);
        Ok(Some(Backing { file }))
    }

    pub(super) fn passthrough_resume(&self, write: bool) -> Result<Backing> {
        let mut guard = self.state();
        let s = &mut *guard;
        s.alive(self.ino)?;
        if !s.stage.as_ref().is_some_and(Stage::is_complete) {
            let why = format!(
                "the stage file of inode {}, which a program has open, is not there any more",
                self.ino
            );
            return Err(granary_core::Error::new(granary_core::Kind::Io, why));
        }
        if write {
            self.soil(s)?;
        }
        let file = self.stage_file(s)?;
        if write {
            self.loosen(s);
            s.writers += 1;
            s.touched_all = true;
            s.held_version = super::state::HELD_VERSION | self.shared.next_version();
            self.settle(s);
        } else {
            self.shared.clean.used(self.ino);
            s.readers += 1;
        }
        Ok(Backing { file })
    }

    /// Somebody may write the stage file whom another process gave it: what it looked like then is not known.
    pub(crate) fn loosen(&self, s: &mut State) {
        if let Some(stage) = &mut s.stage {
            stage.loose = true;
            stage.base = None;
        }
    }

    /// Remembers what the stage file looks like before the kernel may write it.
    fn begin_loose(&self, s: &mut State, file: &std::fs::File) -> Result<()> {
        let failed =
            |e| granary_core::Error::io(format!("cannot examine the stage file of inode {}", self.ino), e);
        let stat = files::stat(file).map_err(failed)?;
        let settled = self.settled_stat(stat);
        let Some(stage) = &mut s.stage else { return Ok(()) };
        if !stage.loose {
            stage.loose = true;
            stage.base = settled;
            stage.begin_mtime = stat.mtime;
        }
        Ok(())
    }

    pub(super) fn passthrough_end(&self, write: bool) {
        let mut guard = self.state();
        let s = &mut *guard;
        if !write {
            s.readers = s.readers.saturating_sub(1);
            return;
        }
        if s.writers == 1
            && !s.dead
            && let Err(e) = self.absorb(s)
        {
            tracing::error!(error = %e, "stage file");
            s.error.get_or_insert(e);
        }
        s.writers = s.writers.saturating_sub(1);
        self.settle(s);
        self.shared.drain.wake();
    }

    pub(super) fn overlay_open(&self, s: &mut State, attr: &mut Attr) {
        let Ok(file) = self.stage_file(s) else { return };
        let (Ok(stat), Some(stage)) = (files::stat(&file), &s.stage) else { return };
        (attr.size, attr.stored, attr.version) = (stat.size, stat.stored, s.held_version);
        let (mtime, ctime) =
            if stat.mtime == stage.begin_mtime { (s.mtime, s.ctime) } else { (stat.mtime, stat.ctime) };
        (attr.mtime, attr.ctime) = (mtime, attr.ctime.max(ctime));
    }

    /// Whether the kernel can have no way left to write the stage file: then what it wrote is taken over for good.
    /// `false`: try again later.
    pub(crate) fn tighten(&self, s: &mut State) -> Result<bool> {
        if s.writers > 0 {
            return Ok(false);
        }
        if !s.stage.as_ref().is_some_and(|stage| stage.loose) {
            return Ok(true);
        }
        let file = self.stage_file(s)?;
        let alone = files::nobody_else(&file);
        if alone {
            self.absorb(s)?;
        }
        if let Some(stage) = &mut s.stage {
            stage.loose = !alone;
            stage.mapped = !alone;
        }
        self.settle(s);
        Ok(alone)
    }

    /// Closes the stage file's descriptor when the last user went away.
    pub(crate) fn rest(&self) {
        let mut s = self.state();
        if !self.has_users()
            && s.writers == 0
            && s.readers == 0
            && let Some(stage) = &mut s.stage
        {
            stage.file = None;
        }
    }

    /// Drops a clean copy, unless somebody uses it. Returns whether it is gone.
    pub(crate) fn drop_clean(&self) -> bool {
        let mut s = self.state();
        if s.writers > 0 || s.readers > 0 || s.touched.is_some() {
            return false;
        }
        match &s.stage {
            Some(Stage { shape: Shape::Clean(_), .. }) => {
                s.stage = None;
                true
            }
            Some(_) => false,
            None => true,
        }
    }
}
