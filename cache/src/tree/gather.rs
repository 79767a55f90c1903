//! Files that were read through from the store, and are to get a local file of their own (see [`crate::file`]). One after
//! another, behind everything else.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use granary_core::Ino;
use tokio::sync::Notify;

use super::Shared;
use crate::room::Level;
use crate::util::lock;

/// Files that wait. One more is left out, until it is read again.
const WAITING_MAX: usize = 1024;
/// Clean copies may take one part in so many of what the node's cache may, without what is pinned there.
const SHARE: u64 = 2;

#[derive(Debug, Default)]
pub(crate) struct Gathering {
    /// Guards whose turn is next; the first is being worked at.
    waiting: Mutex<VecDeque<Ino>>,
    /// Told when one more waits, and when one is done.
    news: Notify,
}

impl Gathering {
    pub fn add(&self, ino: Ino) {
        let mut waiting = lock(&self.waiting);
        if waiting.len() < WAITING_MAX && !waiting.contains(&ino) {
            waiting.push_back(ino);
            drop(waiting);
            self.news.notify_waiters();
        }
    }

    fn first(&self) -> Option<Ino> {
        lock(&self.waiting).front().copied()
    }

    fn done(&self) {
        lock(&self.waiting).pop_front();
        self.news.notify_waiters();
    }

    async fn until(&self, wanted: impl Fn(Option<Ino>) -> bool) {
        loop {
            let mut news = std::pin::pin!(self.news.notified());
            news.as_mut().enable();
            if wanted(self.first()) {
                return;
            }
            news.await;
        }
    }

    /// Returns when no file waits.
    pub async fn idle(&self) {
        self.until(|first| first.is_none()).await;
    }
}

/// Never ends by itself.
pub(crate) async fn run(shared: Arc<Shared>) {
    loop {
        shared.gathering.until(|first| first.is_some()).await;
        let Some(ino) = shared.gathering.first() else { continue };
        if let Some(file) = shared.table.find(ino)
            && let Err(e) = file.gather().await
        {
            // Its bytes are in the store: it is read from there.
            tracing::debug!(ns = %shared.ns, %ino, error = %e, "a file that was read through gets no local file");
        }
        shared.gathering.done();
    }
}

impl Shared {
    /// Bytes that clean copies may take of the node's disk.
    pub fn clean_bytes_max(&self) -> u64 {
        self.limits.cache_bytes_max.saturating_sub(self.reads.own_pinned_bytes()) / SHARE
    }

    /// Whether a copy of so many bytes has room beside those that are there.
    pub fn has_room_for_copy(&self, bytes: u64) -> bool {
        self.reads.clean_bytes().saturating_add(bytes) <= self.clean_bytes_max()
            && self.reads.room().look(bytes) == Level::Ample
    }

    /// Drops older copies for one of so many bytes, if it may be had at all. Deletes files.
    pub fn make_room_for_copy(&self, bytes: u64) {
        if bytes <= self.clean_bytes_max() {
            crate::drain::evict_for_copy(self, bytes);
        }
    }
}
