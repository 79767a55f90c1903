//! The stage file of a large file: beginning it, writing it, reading its extents off it.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use granary_core::{Error, Failpoint, Kind, Result, Timestamp};
use granary_meta::{Extent, Place};

use super::{File, Stage, State};
use crate::stage::disk::write_all;
use crate::stage::files::{self, Stat};
use crate::stage::{RecordKind, Shape, pages};
use crate::util::blocking;

/// A change may be missed when it follows another one within the kernel's clock tick; what is older than this is told apart.
const RACY: Duration = Duration::from_secs(2);
/// A file whose bytes are at hand is copied to a whole stage file up to this size when it outgrows the log.
const COPY_MAX: u64 = 16 << 20;

impl File {
    /// The stage file's descriptor. The state must have a stage.
    pub(crate) fn stage_file(&self, s: &mut State) -> Result<Arc<fs::File>> {
        let Some(stage) = &mut s.stage else {
            return Err(Error::new(Kind::Bug, format!("inode {} has no stage file", self.ino)));
        };
        if let Some(file) = &stage.file {
            return Ok(file.clone());
        }
        let file = Arc::new(self.shared.files.open_existing(self.ino, stage.shape)?);
        stage.file = Some(file.clone());
        Ok(file)
    }

    pub(super) fn staged(&self, offset: u64, len: u64) -> Extent {
        Extent { offset, len, place: Place::StageFile { node: self.shared.node }, crc: 0 }
    }

    /// Gives the file a stage file: a whole one when its bytes are at hand, else a sparse one.
    pub(super) fn begin_stage(&self, s: &mut State) -> Result<()> {
        if !self.copy_to_stage(s)? {
            let file = self.shared.files.create(self.ino, Shape::Sparse)?;
            s.stage = Some(Stage::new(Shape::Sparse, Some(Arc::new(file))));
        }
        self.note_stage(s)
    }

    /// Tells where the file was, should its pack directory never be written, and (by its sequence) that this node changed
    /// it last; replay takes nothing else from it.
    fn note_stage(&self, s: &mut State) -> Result<()> {
        let mut head = self.head(s, RecordKind::StageFile, 0, 0);
        self.append(s, &mut head, &[])?;
        s.delta.any = true;
        Ok(())
    }

    /// Copies what there is to a whole stage file and makes it the place of all of it. `false` when some bytes are only in
    /// the store.
    fn copy_to_stage(&self, s: &mut State) -> Result<bool> {
        if s.map.covered() > COPY_MAX {
            return Ok(false);
        }
        let mut parts = Vec::with_capacity(s.map.len());
        for extent in s.map.iter() {
            match self.extent_at_hand(extent) {
                Some(bytes) => parts.push((*extent, bytes?)),
                None => return Ok(false),
            }
        }
        let file = self.shared.files.begin(self.ino)?;
        let fill = || {
            for (extent, bytes) in &parts {
                write_all(&*self.shared.disk, &file, &[], bytes, extent.offset)?;
            }
            self.shared.disk.set_len(&file, s.size)?;
            // The content that the metadata names, holes included, may be durable; from now on this file is what counts.
            if s.promised || s.flushes != self.shared.flushes() || s.committed.size > 0 {
                self.shared.disk.sync_data(&file)?;
            }
            Ok(())
        };
        if let Err(e) = fill() {
            self.shared.files.abandon(self.ino);
            return Err(self.refused("fill", e));
        }
        Failpoint::StageBeforePublish.reach();
        self.shared.files.publish(self.ino)?;
        Failpoint::StageAfterPublish.reach();
        s.stage = Some(Stage::new(Shape::Whole, Some(Arc::new(file))));
        for (extent, _) in parts {
            s.put(self.staged(extent.offset, extent.len));
        }
        Ok(true)
    }

    /// Makes an empty whole stage file for a file without content.
    pub(super) fn begin_empty_stage(&self, s: &mut State) -> Result<()> {
        let file = self.shared.files.create(self.ino, Shape::Whole)?;
        s.stage = Some(Stage::new(Shape::Whole, Some(Arc::new(file))));
        if self.shared.many { self.note_stage(s) } else { Ok(()) }
    }

    /// A clean copy is about to be changed: whatever happens from now on, it is not taken for clean again.
    pub(super) fn soil(&self, s: &mut State) -> Result<()> {
        if let Some(stage) = &mut s.stage
            && let Shape::Clean(version) = stage.shape
        {
            self.shared.files.reshape(self.ino, stage.shape, Shape::Whole)?;
            Failpoint::StageAfterSoil.reach();
            stage.shape = Shape::Whole;
            self.shared.clean.remove(self.ino);
            if let Err(e) = self.shared.files.sync_folders() {
                tracing::error!(ino = %self.ino, version, error = %e, "stage");
                return Err(e);
            }
            if self.shared.many {
                self.note_stage(s)?;
            }
        }
        Ok(())
    }

    pub(super) fn write_stage(&self, s: &mut State, offset: u64, data: &[u8]) -> Result<()> {
        self.soil(s)?;
        let file = self.stage_file(s)?;
        let len = data.len() as u64;
        Failpoint::StageBeforeWrite.reach();
        if let Err(e) = write_all(&*self.shared.disk, &file, &[], data, offset) {
            self.own_half_written(s, &file, offset, len);
            return Err(self.refused("write", e));
        }
        Failpoint::StageAfterWrite.reach();
        if let Some(stage) = &mut s.stage {
            stage.unsynced = true;
            if stage.shape == Shape::Sparse {
                let sums = pages::sums(&file, offset, data).map_err(|e| self.refused("read", e))?;
                let sums = pages::encode(&sums);
                let mut head = self.head(s, RecordKind::StagePages, offset, len);
                head.crc = granary_core::crc32c(&sums);
                self.append(s, &mut head, &sums)?;
            }
        }
        s.put(self.staged(offset, len));
        Ok(())
    }

    /// The disk refused something.
    fn refused(&self, doing: &str, e: std::io::Error) -> Error {
        let dir = self.shared.files.dir().display();
        let e = Error::io(
            format!(
                "cannot {doing} the stage file of inode {} in {dir}; free some space there, or repair the disk",
                self.ino
            ),
            e,
        );
        self.shared.note_disk_error(&e);
        e
    }

    /// A write failed, and some of its bytes may be there: what a program may now read from a whole stage file is uploaded
    /// as well.
    fn own_half_written(&self, s: &mut State, file: &fs::File, offset: u64, len: u64) {
        if !s.stage.as_ref().is_some_and(Stage::is_complete) {
            return;
        }
        if s.writers == 0
            && let Err(e) = self.shared.disk.set_len(file, s.size)
        {
            tracing::debug!(ino = %self.ino, error = %e, "a stage file that could not be written could not be cut either");
        }
        let end = (offset + len).min(s.size);
        if offset < end {
            s.put(self.staged(offset, end - offset));
        }
    }

    /// The size; asks the stage file while the kernel writes it.
    pub(super) fn current_size(&self, s: &mut State) -> u64 {
        if s.writers > 0
            && let Ok(file) = self.stage_file(s)
            && let Ok(stat) = files::stat(&file)
        {
            return stat.size;
        }
        s.size
    }

    /// `stat`, if it is old enough that any later change will differ from it.
    pub(super) fn settled_stat(&self, stat: Stat) -> Option<Stat> {
        let age = |now: Timestamp, then: Timestamp| {
            (i128::from(now.secs) - i128::from(then.secs)) * 1_000_000_000 + i128::from(now.nanos)
                - i128::from(then.nanos)
        };
        (age(self.shared.clock.now(), stat.ctime) > RACY.as_nanos() as i128).then_some(stat)
    }

    /// Takes size, mtime and data ranges from a whole stage file that the kernel wrote. Nothing when it did not change.
    pub(crate) fn absorb(&self, s: &mut State) -> Result<()> {
        let file = self.stage_file(s)?;
        let failed = |e| Error::io(format!("cannot examine the stage file of inode {}", self.ino), e);
        let stat = files::stat(&file).map_err(failed)?;
        let Some(stage) = &mut s.stage else { return Ok(()) };
        if stage.base == Some(stat) {
            return Ok(());
        }
        let ranges = files::data_ranges(&file, stat.size).map_err(failed)?;
        let (mtime, ctime) = if stat.mtime == stage.begin_mtime {
            (s.mtime, s.ctime)
        } else {
            (stat.mtime, s.ctime.max(stat.ctime))
        };
        stage.base = self.settled_stat(stat);
        stage.begin_mtime = stat.mtime;
        stage.unsynced = true;
        // An upload that runs while the kernel writes takes what it finds, so this is no reason to leave it out.
        let touched = s.touched.take();
        s.set_size(stat.size);
        s.zero(0..stat.size);
        for range in ranges {
            s.put(self.staged(range.start, range.end - range.start));
        }
        s.touched = touched;
        s.change(self.shared.clock.now(), self.shared.next_version());
        (s.mtime, s.ctime) = (mtime, ctime);
        self.settle(s);
        Ok(())
    }

    /// Takes over what the kernel wrote so far.
    pub(crate) fn absorb_open(&self) -> Result<()> {
        let mut s = self.state();
        if s.writers > 0 && !s.dead { self.absorb(&mut s) } else { Ok(()) }
    }

    /// Returns when the stage file's bytes, if it has one, survive a power loss. `Io` for ever once the disk lost some.
    pub(crate) async fn sync_stage(&self) -> Result<()> {
        let Some(syncs) = self.state().stage.as_ref().map(|stage| stage.syncs.clone()) else { return Ok(()) };
        let turn = syncs.lock_owned().await;
        let file = {
            let mut guard = self.state();
            let s = &mut *guard;
            let Some(stage) = &mut s.stage else { return Ok(()) };
            if stage.lost {
                return Err(self.lost_bytes());
            }
            // The kernel's own writes are not told to us: a stage file that it may write is always synced.
            if !stage.unsynced && !stage.loose {
                return Ok(());
            }
            self.stage_file(s)?
        };
        let Some(me) = self.me.upgrade() else { return Ok(()) };
        // Runs to its end even if this waiter goes away, with the turn: the next one relies on it.
        blocking(&self.shared.runtime, move || {
            let _turn = turn;
            me.sync_stage_now(&file)
        })
        .await
    }

    fn sync_stage_now(&self, file: &fs::File) -> Result<()> {
        self.check_place(file)?;
        if let Some(stage) = &mut self.state().stage {
            stage.unsynced = false;
        }
        let synced = self.shared.disk.sync_data(file).map_err(|e| self.lost_bytes().with_source(e));
        let result = synced.and_then(|()| {
            Failpoint::StageAfterSync.reach();
            self.shared.files.sync_folders()
        });
        if let Err(e) = &result {
            // Its pages may count as clean though they are lost: no later sync may say that they are kept.
            if let Some(stage) = &mut self.state().stage {
                stage.lost = true;
            }
            tracing::error!(error = %e, "stage file");
        }
        result
    }

    /// What nobody would find after a crash is not called kept.
    fn check_place(&self, file: &fs::File) -> Result<()> {
        self.shared.files.check_place()?;
        let removed = rustix::fs::fstat(file).is_ok_and(|s| s.st_nlink == 0);
        if removed && !self.state().dead {
            return Err(Error::new(
                Kind::Io,
                format!(
                    "the stage file of inode {} was removed from {} while it was in use; copy the file elsewhere",
                    self.ino,
                    self.shared.files.dir().display()
                ),
            ));
        }
        Ok(())
    }

    fn lost_bytes(&self) -> Error {
        let ino = self.ino;
        Error::new(
            Kind::Io,
            format!("the disk lost bytes of inode {ino}; check it, and write the file again"),
        )
    }
}
