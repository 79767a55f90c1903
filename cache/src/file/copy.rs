//! Copying a range from file to file: what is in objects is shared in the metadata, the rest is copied here.
//!
//! Sharing changes a file past its stage log, whose later records must not be replayed onto the file as it was before: the log
//! gets a record that says so ([`RecordKind::Shared`]), and the metadata has that record's sequence once it has the copy. After a
//! crash without the copy replay ends there, and the file is as it was at some moment before.
//!
//! The two files' states are never locked at once, and only the target's turn is held: copies in opposite directions do not
//! wait for each other.

use granary_core::{Error, Kind, Result};
use granary_meta::{CopyRange, Place};

use super::commit::Turn;
use super::{File, Stage, State};
use crate::stage::{RecordKind, Shape};

/// Bytes copied here with one read and one write.
pub const PIECE_BYTES: u64 = 1 << 20;
/// Bytes copied here in one call, so that nobody waits long: the caller asks again for the rest.
const CALL_BYTES: u64 = 16 << 20;

impl File {
    /// Copies up to `len` bytes, at least one unless `from` ends at `from_offset`; how many. Ranges of one file must not
    /// overlap.
    ///
    /// Errors: those of reading `from` and of writing here; `Invalid` for ranges that overlap.
    pub(crate) async fn copy_from(
        &self,
        from: &File,
        from_offset: u64,
        to_offset: u64,
        len: u64,
    ) -> Result<u64> {
        let len = len.min(from.size().saturating_sub(from_offset));
        if len == 0 {
            return Ok(0);
        }
        self.check_end(to_offset, len)?;
        if from.ino() == self.ino() && from_offset.abs_diff(to_offset) < len {
            return Err(Error::new(Kind::Invalid, "a range cannot be copied onto a part of itself"));
        }
        let copy = CopyRange { from: from.ino(), from_offset, to: self.ino(), to_offset, len, staged_seq: 0 };
        match self.share(from, copy).await? {
            0 => self.copy_here(from, from_offset, to_offset, len.min(CALL_BYTES)).await,
            shared => Ok(shared),
        }
    }

    /// Shares the beginning of the range that is in objects; its length, 0 where there is none.
    async fn share(&self, from: &File, mut copy: CopyRange) -> Result<u64> {
        from.make_current().await?;
        from.absorb_open()?;
        from.commit().await?;
        if !from.begins_shareable(copy.from_offset) {
            return Ok(0);
        }
        self.absorb_open()?;
        let mut lease = None;
        while self.begin_change(false, lease)?.is_none() {
            lease = self.take_lease(None).await?;
        }
        let turn = self.turn().await;
        self.commit_in(&turn).await?;
        match self.announce_share()? {
            Some(seq) => copy.staged_seq = seq,
            None => return Ok(0),
        }
        let copied = match self.shared.meta.copy_range(copy).await {
            Ok(copied) if copied.len > 0 => copied,
            other => {
                self.commit_announced();
                return other.map(|_| 0);
            }
        };
        self.install_shared(&turn, copy.to_offset + copied.len).await?;
        Ok(copied.len)
    }

    /// Whether a copy from `offset` on would have to copy bytes, as far as is known.
    pub fn is_staged_at(&self, offset: u64) -> bool {
        !self.begins_shareable(offset)
    }

    /// Whether the byte at `offset` is in an object, or none.
    fn begins_shareable(&self, offset: u64) -> bool {
        let s = self.state();
        s.writers == 0
            && s.map.within(offset..offset + 1).iter().all(|e| matches!(e.place, Place::Object { .. }))
    }

    /// Makes the state ready for extents that come from the metadata, and writes the record that says so: its sequence.
    /// `None`: the content is in a stage file that is changed, or that the kernel uses.
    fn announce_share(&self) -> Result<Option<u64>> {
        let mut guard = self.state();
        let s = &mut *guard;
        s.alive(self.ino)?;
        if !self.leave_stage(s)? {
            return Ok(None);
        }
        let mut head = self.head(s, RecordKind::Shared, 0, 0);
        Ok(Some(self.append(s, &mut head, &[])?.seq))
    }

    /// Whether the stage file, if there is one, is not the whole content any more.
    fn leave_stage(&self, s: &mut State) -> Result<bool> {
        if s.writers > 0 || s.readers > 0 {
            return Ok(false);
        }
        let Some(stage) = &s.stage else { return Ok(true) };
        match stage.shape {
            Shape::Sparse => Ok(true),
            Shape::Clean(_) if s.touched.is_none() && !stage.loose => {
                let shape = stage.shape;
                s.stage = None;
                self.shared.clean.remove(self.ino);
                self.shared.files.remove(self.ino, shape)?;
                Ok(true)
            }
            // Begun for a file that has nothing yet.
            Shape::Whole if s.size == 0 && s.touched.is_none() && !stage.loose && !s.is_held() => {
                s.stage = None;
                self.shared.files.remove(self.ino, Shape::Whole)?;
                // Were it there after a crash, it would be taken for the content.
                self.shared.files.sync_folders()?;
                self.settle(s);
                Ok(true)
            }
            Shape::Clean(_) | Shape::Whole => Ok(false),
        }
    }

    /// Nothing was shared, but the log says so: the record's sequence goes into the metadata with the next commit.
    fn commit_announced(&self) {
        let mut s = self.state();
        let (mtime, ctime) = (s.mtime, s.ctime);
        s.change(self.shared.clock.now(), self.shared.next_version());
        (s.mtime, s.ctime) = (mtime, ctime);
        self.settle(&mut s);
    }

    /// Takes over what the metadata made of the file, up to `end`; what was written meanwhile stays on top.
    async fn install_shared(&self, _turn: &Turn<'_>, end: u64) -> Result<()> {
        loop {
            let moves = self.state().moves;
            let asked = self.shared.meta.extents(self.ino).await;
            let mut s = self.state();
            let (attr, extents) = asked.inspect_err(|_| s.loaded = false)?;
            if s.moves != moves {
                continue;
            }
            let held = s.is_held();
            s.install(&attr, extents);
            if held && s.delta.cut_to.is_none() {
                s.size = s.size.max(end);
            }
            debug_assert!(!s.stage.as_ref().is_some_and(Stage::is_complete));
            self.settle(&mut s);
            return Ok(());
        }
    }

    /// Copies the bytes; a hole becomes a hole.
    async fn copy_here(&self, from: &File, from_offset: u64, to_offset: u64, len: u64) -> Result<u64> {
        let mut done = 0;
        while done < len {
            let at = from_offset + done;
            let left = len - done;
            // Who waits for room must be able to give up, which is done between two calls.
            if done > 0 && self.shared.would_wait(left.min(PIECE_BYTES)) {
                break;
            }
            let hole = match from.seek(at, true) {
                Some(data) => (data - at).min(left),
                None => left.min(from.size().saturating_sub(at)),
            };
            let n = if hole > 0 {
                self.zero(to_offset + done, hole, false).await?;
                hole
            } else {
                let data = from.seek(at, false).map_or(left, |end| (end - at).min(left));
                let bytes = from.read(at, data.clamp(1, PIECE_BYTES) as u32).await?;
                self.write(to_offset + done, &bytes, false).await?;
                bytes.len() as u64
            };
            if n == 0 {
                break;
            }
            done += n;
        }
        Ok(done)
    }
}
