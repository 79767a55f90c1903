//! Group commit of the log: however many wait, one fdatasync at a time serves all that came before it.
//!
//! After a failed fdatasync the kernel calls pages clean that are not on disk, so that a second one that succeeds says nothing.
//! Until it is mended the log accepts nothing, and the next syncs do what mends it: the bytes of every segment that was not
//! synced are read back from the page cache, compared with their records' checksums, written again, and synced.

use std::sync::{Arc, Mutex};

use granary_core::{Error, Failpoint, Kind, Result};
use tokio::sync::Notify;

use super::{Log, Unsynced, in_place, read_up_to, record, write_all};
use crate::room::moved_away;
use crate::util::{blocking, lock};

#[derive(Debug, Default)]
pub(super) struct GroupSync {
    /// Guards who syncs and how far it is; never held over the sync.
    state: Mutex<State>,
    done: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Records up to this sequence survive a power loss.
    durable: u64,
    running: bool,
}

impl Log {
    /// Returns when every record appended before the call survives a power loss. `Io` when the disk fails to keep them, or the
    /// directory is not where it was.
    pub async fn sync(self: &Arc<Self>, runtime: &tokio::runtime::Handle) -> Result<()> {
        let target = lock(&self.writer).next_seq - 1;
        let mut tried = false;
        loop {
            let mut done = std::pin::pin!(self.group.done.notified());
            done.as_mut().enable();
            let lead = {
                let mut state = lock(&self.group.state);
                match self.broken() {
                    Some(e) if tried => return Err(e),
                    Some(_) => {}
                    None if state.durable >= target => return Ok(()),
                    None => {}
                }
                !std::mem::replace(&mut state.running, true)
            };
            if lead {
                let log = self.clone();
                // Runs to its end even if this waiter goes away: the next one relies on `running`.
                blocking(runtime, move || {
                    log.sync_now();
                    Ok(())
                })
                .await?;
            } else {
                done.await;
            }
            tried = true;
        }
    }

    fn sync_now(&self) {
        let (target, last, sealed, active, new_entries, broken) = {
            let mut w = lock(&self.writer);
            let active = w.active.as_ref();
            let active = active.map(|a| Unsynced { id: a.info.id, file: a.file.clone(), len: a.info.len });
            let sealed = w.unsynced.clone();
            let new_entries = std::mem::take(&mut w.new_entries);
            (w.next_seq - 1, w.last_seq, sealed, active, new_entries, w.broken.is_some())
        };
        let result = self.keep_all(sealed.iter().chain(&active), new_entries, broken);
        let failed = result.is_err();
        if !failed {
            self.now_durable(last);
        }
        {
            let mut w = lock(&self.writer);
            if !failed {
                w.unsynced.retain(|u| !sealed.iter().any(|s| s.id == u.id));
                if let Some(a) = &active {
                    w.synced = (a.id, a.len);
                    // Sealed during the sync, it is complete if nothing came to it since.
                    w.unsynced.retain(|u| u.id != a.id || u.len > a.len);
                }
            }
            match result {
                Ok(()) if broken => {
                    tracing::info!(log = %self.dir.display(), "the stage log's disk works again, and nothing was lost");
                    w.broken = None;
                }
                Ok(()) => {}
                Err(e) => {
                    if !broken {
                        tracing::error!(error = %e, "stage log");
                    }
                    w.new_entries |= new_entries;
                    w.broken = Some(e);
                }
            }
        }
        let mut state = lock(&self.group.state);
        if !failed {
            state.durable = state.durable.max(target);
        }
        state.running = false;
        drop(state);
        self.group.done.notify_waiters();
    }

    /// Makes these segments durable; `again`: an earlier sync of them failed.
    fn keep_all<'a>(
        &self,
        segments: impl Iterator<Item = &'a Unsynced>,
        new_entries: bool,
        again: bool,
    ) -> Result<()> {
        in_place(&self.dir, &self.dir_file).map_err(|e| Error::io(moved_away(&self.dir), e))?;
        Failpoint::LogBeforeSync.reach();
        for segment in segments {
            if again && self.has(segment.id, 0..0) {
                self.write_again(segment)?;
            }
            self.disk.sync_data(&segment.file).map_err(|e| self.not_kept(e))?;
        }
        if new_entries || again {
            self.disk.sync_dir(&self.dir_file).map_err(|e| self.not_kept(e))?;
        }
        Failpoint::LogAfterSync.reach();
        Ok(())
    }

    fn not_kept(&self, e: std::io::Error) -> Error {
        let dir = self.dir.display();
        Error::io(
            format!(
                "the disk of the stage log in {dir} failed to keep what was written; look at that disk, it is tried again"
            ),
            e,
        )
    }

    /// Writes the segment's bytes over themselves, if they are what they were.
    fn write_again(&self, segment: &Unsynced) -> Result<()> {
        let bytes = read_up_to(&segment.file, 0, segment.len as usize).map_err(|e| self.not_kept(e))?;
        let scanned = record::scan(&bytes, self.ns, segment.id);
        if !scanned.damage.is_empty() || scanned.good_len() as u64 != segment.len {
            return Err(Error::new(
                Kind::Corrupt,
                format!(
                    "the disk lost bytes of segment {:016x} of the stage log in {}; look at that disk, and restart granary, \
                     which then goes on as after a power loss",
                    segment.id,
                    self.dir.display()
                ),
            ));
        }
        write_all(&*self.disk, &segment.file, &[], &bytes, 0).map_err(|e| self.not_kept(e))
    }
}
