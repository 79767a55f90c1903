//! Local files that the kernel reads and writes by itself (passthrough).

use std::os::fd::BorrowedFd;
use std::{io, sync::Arc};

use super::dev::Connection;

/// A registered file. Dropped, it is registered no more; files that are open with it stay as they are.
#[derive(Debug)]
pub struct BackingId {
    connection: Arc<Connection>,
    id: i32,
}

impl BackingId {
    pub(super) fn register(connection: &Arc<Connection>, file: BorrowedFd<'_>) -> io::Result<BackingId> {
        let id = connection.open_backing(file)?;
        Ok(BackingId { connection: connection.clone(), id })
    }

    /// One that was registered by another process of the connection.
    pub(super) fn inherited(connection: &Arc<Connection>, id: i32) -> BackingId {
        BackingId { connection: connection.clone(), id }
    }

    /// What the kernel calls it.
    pub fn number(&self) -> i32 {
        self.id
    }
}

impl Drop for BackingId {
    fn drop(&mut self) {
        self.connection.close_backing(self.id);
    }
}
