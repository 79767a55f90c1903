//! Locks that other nodes have to know of. The metadata decides who has what; here is remembered which owners took locks
//! through which handle, so that they end with it.
//!
//! The kernel tells of an end in three ways: FLUSH of any handle ends what that owner (a process) has of the inode by fcntl;
//! RELEASE names the owner of a flock; locks of an open file description (OFD) are not mentioned again, so RELEASE ends
//! whatever was taken through its handle.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use granary_core::error::fail;
use granary_core::{Ino, Kind, Result};
use granary_meta::lease::{Lock, LockKind, LockOwner, LockRequest};

use super::{Mode, Vfs};

/// Stands for a handle that is not known: no handle has this number.
pub(super) const ANY_HANDLE: u64 = 0;
/// Owners remembered at once, over all inodes of the mount.
const OWNERS_MAX: usize = 1 << 18;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Taken {
    fh: u64,
    owner: LockOwner,
    flock: bool,
}

#[derive(Debug, Default)]
struct Inner {
    by_ino: HashMap<u64, Vec<Taken>>,
    len: usize,
}

/// Who may have locks. Owners that were refused, or unlocked by themselves, stay in it until their handle ends.
#[derive(Debug, Default)]
pub struct Locks {
    /// Guards the table, for a few instructions.
    inner: Mutex<Inner>,
}

impl Locks {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, ino: Ino, taken: Taken) -> Result<()> {
        let mut inner = self.lock();
        let full = inner.len >= OWNERS_MAX;
        let of_ino = inner.by_ino.entry(ino.0).or_default();
        if of_ino.contains(&taken) {
            return Ok(());
        }
        if full {
            return fail(Kind::Busy, "too many locks are held through this mount; give some up");
        }
        of_ino.push(taken);
        inner.len += 1;
        Ok(())
    }

    /// Takes out who ends, each owner once.
    fn take(&self, ino: Ino, ends: impl Fn(&Taken) -> bool) -> Vec<(LockOwner, bool)> {
        let mut inner = self.lock();
        let Some(of_ino) = inner.by_ino.get_mut(&ino.0) else { return Vec::new() };
        let gone: Vec<Taken> = of_ino.extract_if(.., |taken| ends(taken)).collect();
        if of_ino.is_empty() {
            inner.by_ino.remove(&ino.0);
        }
        inner.len -= gone.len();
        let mut owners: Vec<_> = gone.into_iter().map(|taken| (taken.owner, taken.flock)).collect();
        owners.sort_unstable();
        owners.dedup();
        owners
    }
}

impl Vfs {
    /// Whether locks are asked for here. Else the kernel keeps them: on one node that is the same, and a `data` mount, which is
    /// not told of opens and closes, could not know when they end.
    pub fn serves_locks(&self) -> bool {
        self.mode() == Mode::Work && self.meta.is_shared()
    }

    /// The first lock of somebody else that is in the way.
    pub async fn test_lock(&self, ino: Ino, owner: LockOwner, lock: Lock) -> Result<Option<Lock>> {
        self.meta.test_lock(ino, owner, lock).await
    }

    /// Locks or unlocks, through the handle `fh`. Dropped while it waits, nothing is locked.
    pub async fn lock(&self, ino: Ino, fh: u64, request: LockRequest) -> Result<()> {
        if !request.unlock {
            self.handles.to_change(fh)?;
            self.locks.note(ino, Taken { fh, owner: request.owner, flock: request.lock.flock })?;
        }
        self.meta.lock(ino, request).await
    }

    /// A process closed a descriptor of the inode: its fcntl locks end, whichever descriptor they were taken through.
    pub(super) async fn end_process_locks(&self, ino: Ino, owner: LockOwner) {
        let owners = self.locks.take(ino, |taken| taken.owner == owner && !taken.flock);
        self.unlock_all(ino, owners).await;
    }

    /// A handle ends, and with it the flock that the kernel names and whatever else was locked through it; with the last one of
    /// its inode all.
    pub(super) async fn end_handle_locks(&self, ino: Ino, fh: u64, flock_owner: Option<LockOwner>) {
        let last = self.nodes.is_last(ino);
        let ends = |taken: &Taken| {
            taken.fh == fh
                || (taken.flock && Some(taken.owner) == flock_owner)
                || (taken.fh == ANY_HANDLE && last)
        };
        let owners = self.locks.take(ino, ends);
        self.unlock_all(ino, owners).await;
    }

    /// A lock of another process's time; without a handle it ends.
    pub(super) async fn inherit_lock(&self, ino: Ino, fh: Option<u64>, owner: LockOwner, flock: bool) {
        let noted = fh.map(|fh| self.locks.note(ino, Taken { fh, owner, flock }));
        if !matches!(noted, Some(Ok(()))) {
            self.unlock_all(ino, vec![(owner, flock)]).await;
        }
    }

    async fn unlock_all(&self, ino: Ino, owners: Vec<(LockOwner, bool)>) {
        for (owner, flock) in owners {
            let lock = Lock { flock, kind: LockKind::Shared, start: 0, end: u64::MAX, pid: 0 };
            let request = LockRequest { owner, lock, unlock: true, wait: false };
            if let Err(e) = self.meta.lock(ino, request).await {
                tracing::warn!(namespace = self.options.name, %ino, "a lock is not given up before the session ends: {e}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(fh: u64, owner: u64, flock: bool) -> Taken {
        Taken { fh, owner: LockOwner(owner), flock }
    }

    #[test]
    fn an_owner_ends_once_and_only_where_it_locked() {
        let locks = Locks::default();
        let ino = Ino(5);
        for (fh, owner, flock) in [(1, 7, false), (1, 7, false), (2, 7, false), (2, 8, true)] {
            locks.note(ino, taken(fh, owner, flock)).unwrap();
        }
        assert_eq!(locks.lock().len, 3);
        assert_eq!(locks.take(Ino(6), |_| true), []);
        assert_eq!(locks.take(ino, |t| t.owner == LockOwner(7)), [(LockOwner(7), false)]);
        assert_eq!(locks.take(ino, |t| t.fh == 2), [(LockOwner(8), true)]);
        let inner = locks.lock();
        assert!(inner.len == 0 && inner.by_ino.is_empty());
    }
}
