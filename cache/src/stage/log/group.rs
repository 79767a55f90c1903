//! Group commit of the log: however many wait, one fdatasync at a time serves all that came before it.

use std::sync::{Arc, Mutex};

use granary_core::{Error, Failpoint, Result};
use tokio::sync::Notify;

use super::Log;
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
    /// Returns when every record appended before the call survives a power loss. `Io` for ever once the disk failed to
    /// keep something: after a failed fdatasync nobody knows what is on it.
    pub async fn sync(self: &Arc<Self>, runtime: &tokio::runtime::Handle) -> Result<()> {
        let target = lock(&self.writer).next_seq - 1;
        loop {
            let mut done = std::pin::pin!(self.group.done.notified());
            done.as_mut().enable();
            let lead = {
                let mut state = lock(&self.group.state);
                self.check_broken()?;
                if state.durable >= target {
                    return Ok(());
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
        }
    }

    fn check_broken(&self) -> Result<()> {
        match &lock(&self.writer).broken {
            Some(e) => Err(e.duplicate()),
            None => Ok(()),
        }
    }

    fn sync_now(&self) {
        let (target, last, files, new_entries) = {
            let mut w = lock(&self.writer);
            let mut files = std::mem::take(&mut w.unsynced);
            files.extend(w.active.as_ref().map(|a| a.file.clone()));
            (w.next_seq - 1, w.last_seq, files, std::mem::take(&mut w.new_entries))
        };
        Failpoint::LogBeforeSync.reach();
        let mut result = files.iter().try_for_each(|f| self.disk.sync_data(f));
        if new_entries && result.is_ok() {
            result = self.disk.sync_dir(&self.dir_file);
        }
        Failpoint::LogAfterSync.reach();
        let failed = result.is_err();
        if !failed {
            self.now_durable(last);
        }
        if let Err(e) = result {
            let e = Error::io(
                format!(
                    "the disk of the stage log in {} failed to keep what was written; check it, then restart the mount",
                    self.dir.display()
                ),
                e,
            );
            tracing::error!(error = %e, "stage log");
            lock(&self.writer).broken = Some(e);
        }
        let mut state = lock(&self.group.state);
        if !failed {
            state.durable = state.durable.max(target);
        }
        state.running = false;
        drop(state);
        self.group.done.notify_waiters();
    }
}
