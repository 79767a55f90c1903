//! Writing: to the log while the file is small, to its stage file afterwards.

use granary_core::limits::FILE_BYTES_MAX;
use granary_core::waits::{self, Cause};
use granary_core::{Error, Kind, Result};
use granary_meta::{Extent, Place};

use super::lease::Turn;
use super::{File, State};
use crate::stage::record::PAYLOAD_MAX;
use crate::stage::{Head, RecordKind};

/// A file of more extents than this gets a stage file however small it is: there, neighbouring writes are one extent.
pub(super) const EXTENTS_MAX: usize = 128;
/// A write that finds the disk full is tried again so often, each time after room was made.
const FULL_TRIES: u32 = 3;

impl File {
    /// `append`: at the end of the file, and whom to tell where that is before anything is written there.
    pub(super) async fn write_with(
        &self,
        offset: u64,
        data: &[u8],
        append: Option<&(dyn Fn(u64) + Sync)>,
        pages: bool,
    ) -> Result<u64> {
        let len = data.len() as u64;
        waits::on(|| Cause::Room, self.shared.admit(len)).await?;
        let mut turn = None;
        let mut tries = 0;
        loop {
            match self.write_now(offset, data, append, pages, turn) {
                Ok(Some(offset)) => return Ok(offset),
                Ok(None) => {}
                // Others took the disk's last bytes. Once something of ours has gone it is tried again.
                Err(e) if e.kind() == Kind::NoSpace && tries < FULL_TRIES && data.len() <= PAYLOAD_MAX => {
                    tries += 1;
                    self.shared.reads.room().exhausted();
                    if !self.shared.admit_to_disk(len).await? {
                        return Err(e);
                    }
                    continue;
                }
                Err(e) => return Err(e),
            }
            let locked = pages.then(|| offset..offset.saturating_add(data.len() as u64));
            turn = self.take_lease(locked).await?;
        }
    }

    /// `None`: the write lease is needed first, and nothing was done.
    fn write_now(
        &self,
        offset: u64,
        data: &[u8],
        append: Option<&(dyn Fn(u64) + Sync)>,
        pages: bool,
        turn: Option<Turn>,
    ) -> Result<Option<u64>> {
        let Some(mut guard) = self.begin_change(pages, turn)? else { return Ok(None) };
        let s = &mut *guard;
        let offset = if append.is_some() { self.current_size(s) } else { offset };
        if let Some(tell) = append {
            tell(offset);
        }
        if data.is_empty() {
            return Ok(Some(offset));
        }
        let end = self.check_end(offset, data.len() as u64)?;
        self.check_quota(s, offset, end)?;
        let result = self.put_bytes(s, offset, data);
        s.change(self.shared.clock.now(), self.shared.next_version());
        self.settle(s);
        result.map(|()| Some(offset))
    }

    pub(super) fn check_end(&self, offset: u64, len: u64) -> Result<u64> {
        offset.checked_add(len).filter(|&end| end <= FILE_BYTES_MAX).ok_or_else(|| {
            Error::new(
                Kind::FileTooLarge,
                format!("a file has at most {} TiB; split the data", FILE_BYTES_MAX >> 40),
            )
        })
    }

    /// Counts the growth of a write to `offset..end` against the quota before it happens; `settle` sets it right afterwards.
    fn check_quota(&self, s: &mut State, offset: u64, end: u64) -> Result<()> {
        let covered: u64 = s.map.within(offset..end).iter().map(|e| e.len).sum();
        let growth = (end - offset - covered) as i64;
        self.shared.grow(growth)?;
        s.counted.growth += growth;
        Ok(())
    }

    fn put_bytes(&self, s: &mut State, offset: u64, data: &[u8]) -> Result<()> {
        let end = offset + data.len() as u64;
        if s.stage.is_none()
            && (end > self.shared.policy().small_file_bytes_max || s.map.len() >= EXTENTS_MAX)
        {
            self.begin_stage(s)?;
        }
        if s.stage.is_some() {
            return self.write_stage(s, offset, data);
        }
        for (i, chunk) in data.chunks(PAYLOAD_MAX).enumerate() {
            self.append_write(s, offset + (i * PAYLOAD_MAX) as u64, chunk)?;
        }
        Ok(())
    }

    fn append_write(&self, s: &mut State, offset: u64, data: &[u8]) -> Result<()> {
        let crc = granary_core::crc32c(data);
        let len = data.len() as u64;
        let mut head = self.head(s, RecordKind::Write, offset, len);
        head.crc = crc;
        let at = self.append(s, &mut head, data)?;
        let place = Place::Log { node: self.shared.node, segment: at.segment, offset: at.offset };
        s.put(Extent { offset, len, place, crc });
        Ok(())
    }

    pub(super) fn head(&self, s: &State, kind: RecordKind, offset: u64, len: u64) -> Head {
        Head {
            kind,
            ino: self.ino,
            offset,
            len,
            seq: 0,
            prev_seq: s.last_seq,
            mtime: self.shared.clock.now(),
            crc: 0,
            durable: None,
            hint: s.hint.clone(),
        }
    }

    pub(super) fn append(
        &self,
        s: &mut State,
        head: &mut Head,
        payload: &[u8],
    ) -> Result<crate::stage::Appended> {
        let at = self.shared.log.append(head, payload).inspect_err(|e| self.shared.note_disk_error(e))?;
        s.last_seq = at.seq;
        if at.first {
            self.shared.drain.wake();
        }
        Ok(at)
    }
}
