//! Recalls: leases that others want back.
//!
//! A recall is processed after everything that the service said before it. Who keeps something under the lease is told
//! in a task of its own, so that recalls of different scopes and all calls go on meanwhile; those of one scope follow each
//! other. When he returned, what is kept here goes too, and the service is told, within one critical section: so an open that
//! was counted under the lease is part of the answer.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::namespace::RemoteNamespace;
use crate::call::{Call, Recall, Released};
use crate::lease::{LeaseKind, Scope};

/// Recalls under way, and those behind them, with the stamp of the lease that they found.
pub(super) type Recalls = HashMap<Scope, VecDeque<(Recall, Option<u64>)>>;

impl RemoteNamespace {
    pub(super) fn recalled(self: &Arc<Self>, recall: Recall) {
        let holder = {
            let mut state = self.state();
            state.cache.recall(recall.scope, recall.wanted);
            let stamp = state.cache.stamp(recall.scope);
            if let Some(behind) = state.recalls.get_mut(&recall.scope) {
                // The service asks again after a new connection; one answer is enough.
                if !behind.iter().any(|(r, _)| r.id == recall.id) {
                    behind.push_back((recall, stamp));
                }
                return;
            }
            state.recalls.insert(recall.scope, VecDeque::from([(recall, stamp)]));
            state.holder.clone()
        };
        let Some(holder) = holder else {
            while let Some((recall, stamp)) = self.next_recall(recall.scope) {
                self.release(recall, stamp);
            }
            return;
        };
        let space = self.clone();
        self.core.holders.spawn(async move {
            while let Some((recall, stamp)) = space.next_recall(recall.scope) {
                holder.recall(recall.scope, recall.wanted).await;
                space.release(recall, stamp);
            }
        });
    }

    /// The first recall of a scope, which stays the first until it is released; `None`: there is none, and the next that
    /// comes begins anew.
    fn next_recall(&self, scope: Scope) -> Option<(Recall, Option<u64>)> {
        let mut state = self.state();
        let next = state.recalls.get(&scope).and_then(|behind| behind.front().copied());
        if next.is_none() {
            state.recalls.remove(&scope);
        }
        next
    }

    fn release(&self, recall: Recall, stamp: Option<u64>) {
        let mut state = self.state();
        if let Some(behind) = state.recalls.get_mut(&recall.scope) {
            behind.pop_front();
        }
        state.cache.release(recall.scope, stamp, recall.wanted);
        let open = match recall.scope {
            Scope::Inode(ino) if recall.wanted == LeaseKind::Write => {
                state.unheard.remove(ino);
                if let Some(ino) = state.opens.close_one(ino) {
                    self.tell(Call::Close { inos: vec![ino] });
                }
                state.opens.tell(ino)
            }
            _ => false,
        };
        self.core.release(Released { id: recall.id, open });
    }
}
