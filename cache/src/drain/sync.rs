//! Waiting for the store: for all of the namespace, a tree of it, or one file.
//!
//! What one waits for is taken as it is at the call. Of the stage log a file needs the segments that hold bytes of it; the one
//! that is being written is sealed when its turn comes (see [`super::policy`]), with all that others wrote to it until then,
//! so that many fsyncs share a PUT.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use futures::TryStreamExt;
use granary_core::waits::{self, Cause};
use granary_core::{Ino, Kind, Result};
use granary_meta::{Extent, FileType, Place};

use super::large;
use crate::tree::Shared;
use crate::util::lock;

/// Entries of a directory that are looked at together.
const PAGE: usize = 1024;

impl Shared {
    /// Everything written before the call is in the store, and the metadata says so, durably.
    pub(crate) async fn store_all(self: &Arc<Self>) -> Result<()> {
        self.store_with(|inos| async { Ok(inos) }).await
    }

    /// The same for what is below a directory. Small files of others may go along.
    pub(crate) async fn store_below(self: &Arc<Self>, root: Ino) -> Result<()> {
        self.store_with(|inos| self.below(root, inos)).await
    }

    /// Stores small files, and of the large ones those that `choose` leaves.
    async fn store_with<F: Future<Output = Result<Vec<Ino>>>>(
        self: &Arc<Self>,
        choose: impl FnOnce(Vec<Ino>) -> F,
    ) -> Result<()> {
        for large in self.all_large() {
            large.file.absorb_open()?;
        }
        self.commit_all().await?;
        let large = choose(self.all_large().into_iter().map(|l| l.file.ino()).collect()).await?;
        self.store_log().await?;
        futures::stream::iter(large.into_iter().map(Ok))
            .try_for_each_concurrent(self.policy().uploads_max as usize, |ino| self.store_large(ino))
            .await?;
        self.meta.sync().await
    }

    /// Those of `inos` that have a name below `root`. Nothing is looked at when there are none.
    async fn below(&self, root: Ino, inos: Vec<Ino>) -> Result<Vec<Ino>> {
        let (mut left, mut found): (HashSet<Ino>, _) = (inos.into_iter().collect(), Vec::new());
        let mut todo = vec![root];
        while !left.is_empty()
            && let Some(dir) = todo.pop()
        {
            let mut cookie = 0;
            loop {
                let page = match self.meta.readdir(dir, cookie, PAGE, false).await {
                    // Removed meanwhile, with all that was in it.
                    Err(e) if matches!(e.kind(), Kind::Stale | Kind::NotFound) => break,
                    page => page?,
                };
                let Some(last) = page.last() else { break };
                cookie = last.cookie;
                for entry in page {
                    if entry.kind == FileType::Directory {
                        todo.push(entry.ino);
                    } else if left.remove(&entry.ino) {
                        found.push(entry.ino);
                    }
                }
            }
        }
        Ok(found)
    }

    /// The same for one file.
    pub(crate) async fn store_file(self: &Arc<Self>, ino: Ino) -> Result<()> {
        if let Some(large) = self.large(ino) {
            large.file.absorb_open()?;
            large.file.commit().await?;
            self.store_large(ino).await?;
        } else if let Some(file) = self.table.find(ino) {
            file.commit().await?;
        }
        let segments = self.segments_of(ino).await?;
        self.store_segments(&segments).await?;
        self.meta.sync().await
    }

    /// The segments of the log that hold bytes of the file.
    async fn segments_of(&self, ino: Ino) -> Result<Vec<u64>> {
        let of = |extents: &mut dyn Iterator<Item = &Extent>| {
            let segments = extents.filter_map(|e| match e.place {
                Place::Log { node, segment, .. } if node == self.node => Some(segment),
                _ => None,
            });
            segments.collect::<BTreeSet<u64>>().into_iter().collect()
        };
        if let Some(file) = self.table.find(ino)
            && file.is_loaded()
        {
            return Ok(of(&mut file.state().map.iter()));
        }
        match self.meta.extents(ino).await {
            Ok((_, extents)) => Ok(of(&mut extents.iter())),
            Err(e) if e.kind() == Kind::Stale => Ok(Vec::new()),
            Err(e) => Err(e),
        }
    }

    /// All segments of the log, up to now, are given to the store.
    async fn store_log(&self) -> Result<()> {
        self.log.seal();
        let all: Vec<u64> = self.log.sealed().into_iter().map(|s| s.id).collect();
        self.store_segments(&all).await
    }

    /// Returns when these segments are gone, and with them the metadata's last word of them.
    async fn store_segments(&self, segments: &[u64]) -> Result<()> {
        let Some(&last) = segments.iter().max() else { return Ok(()) };
        let began = lock(&self.drain.failures).count();
        let active = self.log.active().map(|a| a.id).filter(|id| segments.contains(id));
        {
            let mut policy = lock(&self.drain.policy);
            policy.hurry(last);
            active.into_iter().for_each(|id| policy.want(id));
        }
        self.drain.wake();
        loop {
            let mut progress = std::pin::pin!(self.drain.progress.notified());
            progress.as_mut().enable();
            if !segments.iter().any(|&id| self.log.has(id, 0..0)) {
                return Ok(());
            }
            if let Some(e) = lock(&self.drain.failures).since(began, segments) {
                return Err(e);
            }
            waits::on(|| Cause::Upload, progress).await;
        }
    }

    async fn store_large(self: &Arc<Self>, ino: Ino) -> Result<()> {
        Ok(waits::on(|| Cause::Upload, large::upload(self, ino, true)).await.map(drop)?)
    }
}
