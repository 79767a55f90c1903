//! A namespace that other nodes change too: what this node and its kernel keep is given up when the service recalls a lease.
//!
//! No call is passed through to stage files here: the kernel would go on reading and writing one after a recall, and tell
//! nobody. Handles that write go past the page cache, so that a write holds no pages that a recall would wait for; what still
//! comes out of the page cache (shared mappings) is told apart, see [`granary_cache::PageCache`].
//! Listings are not kept by the kernel, and an appending write goes to the end of file that the write lease knows.

use std::ops::Range;
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use granary_cache::{NoPages, PageCache};
use granary_core::{Ino, Kind};
use granary_meta::lease::{Holder, LeaseKind, Lost, Scope};

use super::Vfs;

/// Told of recalls by the metadata; the mount may be gone by then.
pub(super) struct Keeper(pub Weak<Vfs>);

#[async_trait]
impl Holder for Keeper {
    async fn recall(&self, scope: Scope, wanted: LeaseKind) {
        if let Some(vfs) = self.0.upgrade() {
            vfs.give_up(scope, wanted).await;
        }
    }

    async fn lost(&self, why: Lost) {
        if let Some(vfs) = self.0.upgrade() {
            vfs.lost(why).await;
        }
    }
}

struct Pages<'a>(&'a Vfs);

#[async_trait]
impl PageCache for Pages<'_> {
    async fn drop_pages(&self, ino: Ino, range: Range<u64>) {
        let len = if range.end == u64::MAX { 0 } else { range.end - range.start };
        self.0.drop_pages(ino, range.start, len).await;
    }
}

impl Vfs {
    pub(super) fn watch_leases(self: &Arc<Self>) {
        if self.many {
            self.meta.set_holder(Arc::new(Keeper(Arc::downgrade(self))));
        }
    }

    async fn give_up(&self, scope: Scope, wanted: LeaseKind) {
        match (scope, wanted) {
            (Scope::Directory(dir), _) => {
                self.pass_gate().await;
                self.drop_entries();
                self.drop_attributes(dir);
            }
            (Scope::Inode(ino), LeaseKind::Read) => self.tree.recall(ino, wanted, &NoPages).await,
            (Scope::Inode(ino), LeaseKind::Write) => {
                self.pass_gate().await;
                self.drop_attributes(ino);
                self.tree.recall(ino, wanted, &Pages(self)).await;
            }
        }
    }

    async fn lost(&self, why: Lost) {
        if why == Lost::Fenced {
            self.handles.end_session();
        }
        self.pass_gate().await;
        self.drop_entries();
        let known = self.drop_all_attributes();
        self.tree.lost(why).await;
        self.drop_all_pages(known);
    }

    /// Nothing of what the kernel keeps of inodes counts any more.
    pub(crate) fn drop_all(&self) {
        let known = self.drop_all_attributes();
        self.drop_all_pages(known);
    }

    fn drop_all_attributes(&self) -> Vec<Ino> {
        let known = self.references.all();
        for &ino in &known {
            self.drop_attributes(ino);
        }
        known
    }

    fn drop_all_pages(&self, known: Vec<Ino>) {
        // Reads that are under way have pages locked, and wait for the service: nobody waits for them here.
        let Some(notifier) = self.notifier() else { return };
        tokio::task::spawn_blocking(move || {
            for ino in known {
                if let Err(e) = notifier.invalidate_pages(ino, 0, 0) {
                    tracing::error!(%ino, error = %e, "the kernel's pages may be of an earlier state");
                }
            }
        });
    }

    fn drop_entries(&self) {
        let Some(notifier) = self.notifier() else { return };
        if notifier.supported()
            && let Err(e) = notifier.invalidate_entries()
        {
            tracing::error!(namespace = self.options.name, error = %e, "the kernel's entries may be of an earlier state");
        }
    }

    pub(super) fn drop_attributes(&self, ino: Ino) {
        let Some(notifier) = self.notifier() else { return };
        if let Err(e) = notifier.invalidate_attributes(ino) {
            tracing::error!(namespace = self.options.name, %ino, error = %e, "the kernel's attributes may be of an earlier state");
        }
    }

    /// Returns when the kernel has dropped the pages of a range (`len` 0: to the end), having waited for who uses them.
    pub(super) async fn drop_pages(&self, ino: Ino, offset: u64, len: u64) {
        let Some(notifier) = self.notifier() else { return };
        let dropped = tokio::task::spawn_blocking(move || notifier.invalidate_pages(ino, offset, len)).await;
        let failed = match dropped {
            Ok(Ok(())) => return,
            Ok(Err(e)) => e.to_string(),
            Err(e) => e.to_string(),
        };
        tracing::error!(namespace = self.options.name, %ino, "the kernel's pages may be of an earlier state: {failed}");
    }

    /// The same without waiting: for the pages of the call that is being answered.
    pub(super) fn drop_pages_later(&self, ino: Ino, offset: u64, len: u64) {
        let Some(notifier) = self.notifier() else { return };
        tokio::task::spawn_blocking(move || {
            if let Err(e) = notifier.invalidate_pages(ino, offset, len) {
                tracing::error!(%ino, error = %e, "the kernel's pages may be of an earlier state");
            }
        });
    }

    /// After a write past the page cache: a read at the same time may have brought what was before it into the cache.
    pub(super) async fn drop_written(&self, ino: Ino, offset: u64, len: u64) {
        if self.nodes.has_cached(ino) {
            self.drop_pages(ino, offset, len).await;
        }
    }

    /// The inode lost its last name or its last open here, but others may have it open, or it went to the trash: what is
    /// staged of it is dropped if it is gone.
    pub(super) async fn forget_gone(&self, ino: Ino) {
        if self.tree.knows(ino)
            && let Err(e) = self.meta.getattr(ino).await
            && e.kind() == Kind::Stale
        {
            self.tree.forget(ino);
        }
    }
}
