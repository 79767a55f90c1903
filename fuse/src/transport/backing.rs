//! Local files that the kernel reads and writes by itself (passthrough).

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use super::Channel;

/// A registered file. Dropped, it is registered no more; files that are open with it stay as they are.
#[derive(Debug)]
pub struct BackingId {
    channel: Arc<dyn Channel>,
    id: i32,
}

impl BackingId {
    pub(super) fn register(channel: &Arc<dyn Channel>, file: &File) -> io::Result<BackingId> {
        let id = channel.open_backing(file.as_fd())?;
        Ok(BackingId { channel: channel.clone(), id })
    }

    /// What the kernel calls it.
    pub fn number(&self) -> i32 {
        self.id
    }
}

impl Drop for BackingId {
    fn drop(&mut self) {
        self.channel.close_backing(self.id);
    }
}
