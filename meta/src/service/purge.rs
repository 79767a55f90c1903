//! Purging the trash of served namespaces. A file of which a session has a lease may be open there, which the service was not
//! told: so the lease is recalled, and the file is purged at a later look.

use std::sync::atomic::Ordering;

use granary_core::Ino;

use super::leases::{NOBODY, ScopeKey};
use super::space::Space;
use super::{Service, lock};
use crate::lease::{LeaseKind, Scope};

/// Batches at one look.
const BATCHES: usize = 8;

impl Service {
    pub(super) fn purge(&self) {
        // Sessions from before may have files open that are to be purged.
        if self.in_grace.load(Ordering::SeqCst) {
            return;
        }
        let spaces: Vec<_> = lock(&self.spaces).values().cloned().collect();
        let mut purged = false;
        for space in spaces {
            for _ in 0..BATCHES {
                match self.purge_some(&space) {
                    Ok(true) => purged = true,
                    Ok(false) => break,
                    Err(e) => {
                        tracing::warn!("cannot purge the trash of namespace {}: {e}", space.name);
                        break;
                    }
                }
            }
        }
        if purged {
            self.volume.write_through(Box::new(|_| {}));
        }
    }

    fn purge_some(&self, space: &Space) -> granary_core::Result<bool> {
        let mut state = space.lock();
        let mut held: Vec<ScopeKey> = Vec::new();
        let leases = &state.leases;
        let purged = space.local.purge_due(&mut |ino: Ino| {
            let key = ScopeKey::new(Scope::Inode(ino));
            let in_use = key.filter(|key| !leases.is_free(NOBODY, *key, LeaseKind::Write));
            held.extend(in_use);
            in_use.is_none()
        })?;
        let blocked = !held.is_empty();
        for key in held {
            let mut holders = Vec::new();
            state.leases.in_the_way(NOBODY, key, LeaseKind::Write, &mut holders);
            for holder in holders {
                self.recall_one(space, &mut state, holder, key, LeaseKind::Write);
            }
        }
        Ok(purged && !blocked)
    }
}
