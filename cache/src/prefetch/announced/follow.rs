//! Fetches along the orders that were announced: one task of each namespace, woken by announcements, reads, and its own fetches.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use granary_core::{Ino, Kind, ObjectId, Result};
use granary_meta::{Extent, Place};
use tokio::sync::Notify;

use super::{Announced, Batch, OrderId};
use crate::read::Patience;
use crate::tree::{Shared, Tree};
use crate::util::lock;

/// Batches under way at once: one is asked for while the last of another comes.
const BATCHES_AT_ONCE: usize = 2;
/// Objects of one batch that are fetched at once. How many requests are under way is decided where they wait for their turn.
const OBJECTS_AT_ONCE: usize = 32;
/// The part of the cache that may be fetched ahead of its readers, and what that is at most.
const WINDOW_SHARE: u64 = 8;
const WINDOW_BYTES_MAX: u64 = 4 << 30;

/// The orders of a namespace, and who follows them.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    /// Guards the orders, for one decision; a read takes it only while there are some.
    announced: Mutex<Announced>,
    has_some: AtomicBool,
    changed: Notify,
}

impl Orders {
    fn change<T>(&self, change: impl FnOnce(&mut Announced) -> T) -> T {
        let mut announced = lock(&self.announced);
        let result = change(&mut announced);
        self.has_some.store(!announced.is_empty(), Ordering::Relaxed);
        result
    }

    /// A file begins to be read.
    fn on_read(&self, ino: Ino, now: Duration) {
        if self.has_some.load(Ordering::Relaxed) && self.change(|all| all.on_read(ino, now)) {
            self.changed.notify_one();
        }
    }
}

impl Tree {
    /// Whether an order would take so many files more; see [`announce`](Self::announce) for the errors.
    pub fn check_announced(&self, id: OrderId, files: usize) -> Result<()> {
        let now = self.shared().clock.monotonic();
        self.shared().orders.change(|all| all.check_room(id, files, now))
    }

    /// Somebody will read these regular files, in this order, behind those that were announced under the same id; `anew`: instead of
    /// those. They come with their sizes, and are fetched ahead of what is read, behind all that readers wait for and behind what
    /// is guessed from their reads: an eighth of the cache, 4 GiB at most.
    ///
    /// Errors: `WouldBlock` when there is room only once some were read; `NoSpace` when there are too many orders.
    pub fn announce(&self, id: OrderId, anew: bool, files: &[(Ino, u64)]) -> Result<()> {
        let now = self.shared().clock.monotonic();
        self.shared().orders.change(|all| all.append(id, anew, files, now))?;
        self.shared().orders.changed.notify_one();
        Ok(())
    }

    /// Nobody will read on in this order.
    pub fn end_announced(&self, id: OrderId) {
        self.shared().orders.change(|all| all.end(id));
    }

    /// A file begins to be read, or is read again after a pause.
    pub(crate) fn note_read(&self, ino: Ino) {
        self.shared().orders.on_read(ino, self.shared().clock.monotonic());
    }

    /// Files that were announced and not read yet.
    pub fn announced_files(&self) -> usize {
        lock(&self.shared().orders.announced).files()
    }
}

impl Shared {
    /// Bytes that may be fetched ahead of their readers.
    fn announced_window(&self) -> u64 {
        let bytes_max = self.reads.bytes_max().min(self.reads.bytes_max_of(self.ns));
        (bytes_max / WINDOW_SHARE).min(WINDOW_BYTES_MAX)
    }

    /// Where in objects a part of a file is.
    async fn spans_of(&self, ino: Ino, part: &Range<u64>) -> Result<Vec<(ObjectId, Range<u64>)>> {
        let (attr, extents) = match self.meta.extents(ino).await {
            Ok(found) => found,
            Err(e) if matches!(e.kind(), Kind::Stale | Kind::NotFound) => return Ok(Vec::new()), // deleted meanwhile
            Err(e) => return Err(e),
        };
        if self.clean.version(ino) == Some(attr.version) {
            return Ok(Vec::new()); // read from a whole copy
        }
        let within = |extent: &Extent| {
            let (from, to) = (extent.offset.max(part.start), extent.end().min(part.end));
            match extent.place {
                Place::Object { id, offset, .. } if from < to => {
                    Some((id, offset + (from - extent.offset)..offset + (to - extent.offset)))
                }
                _ => None,
            }
        };
        Ok(extents.iter().filter_map(within).collect())
    }

    async fn fetch_announced(&self, batch: &Batch) -> Result<u64> {
        let mut spans = Vec::new();
        for (ino, part) in &batch.pieces {
            spans.extend(self.spans_of(*ino, part).await?);
        }
        self.bring(spans, Patience::Announced, OBJECTS_AT_ONCE).await
    }
}

/// Follows the orders until it is aborted.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut under_way = FuturesUnordered::new();
    loop {
        while under_way.len() < BATCHES_AT_ONCE {
            let (window, now) = (shared.announced_window(), shared.clock.monotonic());
            let Some(batch) = shared.orders.change(|all| all.next(window, now)) else { break };
            let shared = shared.clone();
            under_way.push(async move {
                let fetched = shared.fetch_announced(&batch).await;
                (batch, fetched)
            });
        }
        let ended = tokio::select! {
            ended = under_way.next(), if !under_way.is_empty() => ended,
            () = shared.orders.changed.notified() => None,
        };
        tokio::task::yield_now().await; // in process, what is here already costs no waiting
        let Some((batch, fetched)) = ended else { continue };
        match fetched {
            Ok(bytes) => shared.orders.change(|all| all.on_fetched(&batch, bytes)),
            Err(e) if e.kind() == Kind::NoSpace => {
                tracing::warn!(ns = %shared.ns, "an announced order is not followed any further: {e}");
                shared.orders.change(|all| all.on_refused(&batch));
            }
            // A hint only: who reads it is told what is wrong.
            Err(e) => {
                tracing::debug!(ns = %shared.ns, error = %e, "announced files were not fetched");
                shared.orders.change(|all| all.on_fetched(&batch, 0));
            }
        }
    }
}
