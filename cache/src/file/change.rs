//! Changes of content that are not bytes: truncation, allocation, zeroing. Each is a record of the log, unless a whole stage
//! file shows it anyway.

use granary_core::{Error, Kind, Result};

use super::lease::Turn;
use super::{File, Stage, State};
use crate::stage::RecordKind;
use crate::stage::files;

impl File {
    /// `false`, here and below: the write lease is needed first, and nothing was done.
    pub(super) fn truncate_now(&self, size: u64, turn: Option<Turn>) -> Result<bool> {
        self.check_end(0, size)?;
        let Some(mut guard) = self.begin_change(false, turn)? else { return Ok(false) };
        let s = &mut *guard;
        self.resize(s, size)?;
        if s.writers > 0 {
            self.absorb(s)?;
        }
        s.change(self.shared.clock.now(), self.shared.next_version());
        self.settle(s);
        Ok(true)
    }

    /// Applies a new size to stage file, log and state.
    fn resize(&self, s: &mut State, size: u64) -> Result<()> {
        self.soil(s)?;
        if s.stage.as_ref().is_some_and(Stage::is_complete) {
            let file = self.stage_file(s)?;
            let failed = |e| Error::io(format!("cannot size the stage file of inode {}", self.ino), e);
            self.shared.disk.set_len(&file, size).map_err(failed)?;
            if let Some(stage) = &mut s.stage {
                stage.unsynced = true;
            }
        } else {
            // A sparse stage file keeps what it has: the extents say what of it counts, and replay looks for it.
            let mut head = self.head(s, RecordKind::Truncate, size, 0);
            self.append(s, &mut head, &[])?;
        }
        s.set_size(size);
        // Whatever comes of the rest of the call: this is done, and replay would do it again.
        s.change(self.shared.clock.now(), self.shared.next_version());
        self.settle(s);
        Ok(())
    }

    pub(super) fn allocate_now(
        &self,
        offset: u64,
        len: u64,
        keep_size: bool,
        turn: Option<Turn>,
    ) -> Result<bool> {
        let end = self.check_end(offset, len)?;
        let Some(mut guard) = self.begin_change(false, turn)? else { return Ok(false) };
        let s = &mut *guard;
        let covered: u64 = s.map.within(offset..end).iter().map(|e| e.len).sum();
        self.shared.check_room(len - covered)?;
        if !keep_size && end > self.current_size(s) {
            self.resize(s, end)?;
        }
        self.touch(s)?;
        self.settle(s);
        Ok(true)
    }

    /// A call that finds nothing to change sets the times all the same, as on other file systems.
    fn touch(&self, s: &mut State) -> Result<()> {
        let now = self.shared.clock.now();
        if s.writers > 0 {
            let file = self.stage_file(s)?;
            let failed = |e| Error::io(format!("cannot touch the stage file of inode {}", self.ino), e);
            files::set_mtime(&file, now).map_err(failed)?;
        }
        s.change(now, self.shared.next_version());
        Ok(())
    }

    pub(super) fn zero_now(
        &self,
        offset: u64,
        len: u64,
        keep_size: bool,
        turn: Option<Turn>,
    ) -> Result<bool> {
        let wanted = self.check_end(offset, len)?;
        let Some(mut guard) = self.begin_change(false, turn)? else { return Ok(false) };
        let s = &mut *guard;
        let size = self.current_size(s);
        let end = if keep_size { wanted.min(size) } else { wanted };
        if end <= offset {
            self.touch(s)?;
            self.settle(s);
            return Ok(true);
        }
        self.soil(s)?;
        let complete = s.stage.as_ref().is_some_and(Stage::is_complete);
        if complete {
            let file = self.stage_file(s)?;
            self.shared.disk.punch(&file, offset..end.min(size)).map_err(|e| {
                Error::io(format!("cannot zero a range of the stage file of inode {}", self.ino), e)
            })?;
            if let Some(stage) = &mut s.stage {
                stage.unsynced = true;
            }
        }
        if end > size {
            self.resize(s, end)?;
        }
        if !complete {
            let mut head = self.head(s, RecordKind::Zero, offset, end - offset);
            self.append(s, &mut head, &[])?;
        }
        s.zero(offset..end);
        s.change(self.shared.clock.now(), self.shared.next_version());
        self.settle(s);
        Ok(true)
    }

    /// Ends a file whose inode is gone: nothing of it is uploaded or kept.
    pub(crate) fn bury(&self) {
        let mut guard = self.state();
        let s = &mut *guard;
        s.dead = true;
        if let Some(stage) = s.stage.take() {
            self.shared.bury(self.ino, stage.shape);
        }
        self.shared.clean.remove(self.ino);
        self.settle(s);
    }

    /// A content error that a load found: bytes that the metadata names are not there. The file ends before them.
    pub(crate) fn cut_lost(&self, at: u64, why: &str) {
        let mut guard = self.state();
        let s = &mut *guard;
        let e = Error::new(
            Kind::Io,
            format!(
                "bytes of inode {} from offset {at} on were lost before they were made durable ({why}); the file was cut from {} \
                 to {at} bytes",
                self.ino, s.size
            ),
        );
        tracing::error!(error = %e, "stage");
        s.set_size(at.min(s.size));
        let mtime = s.mtime;
        s.change(self.shared.clock.now(), self.shared.next_version());
        s.mtime = mtime;
        s.error.get_or_insert(e);
        self.settle(s);
    }
}
