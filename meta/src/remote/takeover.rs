//! Going on with the session of a process that ended without a word, so that its mounts, which somebody else kept, stay what they
//! are: the files that programs have open, their locks, and the leases under which the kernel keeps pages, attributes and names.
//!
//! The session lives at the service for as long as nobody needs what it has, and for the lease time if somebody does. Whoever
//! has a token of the same user, the same node id and the session's own number, which nobody else was told, is let in; a
//! connection of the other process, should it be alive, ends with that. Nothing else has to be remembered anywhere, because the
//! service knows what the session has, and tells ([`crate::call::Greeting::had`]):
//!
//! | what | becomes |
//! |---|---|
//! | leases | ours, without the values: these are asked for when they are needed. So recalls come for all that the kernel may have |
//! | opens | [`super::opens`]: closed, unless somebody here has opened them by the time of [`super::Client::settle`] |
//! | locks | [`super::held_locks`] |
//! | the number of the next call | where our numbers begin, so that no answer to the other process's calls is taken for ours |
//! | inodes changed by calls that were not confirmed | tell what is there because that process made it from what others made |
//!
//! The last is exact for the [`super::ClientLimits::answers_told_late`] last changes: an answer that was heard may not have
//! reached the program that waits for it.
//!
//! The other process's calls are done when the greeting comes, or never will be: their connection is over.
//!
//! A recall that comes before a namespace is *settled* waits: its stage may hold what was not committed, and nobody could tell the
//! kernel. That is no danger to others but for the time it takes, which the service bounds as for all recalls. What the session
//! has in namespaces that nobody asked for until all is settled goes back to the service.
//!
//! A service that was started meanwhile knows of leases and locks only what sessions tell, and nobody is left to tell: then the
//! session is over, as after any that was lost.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use granary_core::NamespaceId;

use super::calls::Waiter;
use super::core::{Core, lock};
use super::namespace::FORGET_AT_ONCE;
use crate::call::{Call, Had, Recall, Released};
use crate::lease::LockRequest;

#[derive(Debug)]
enum Stage {
    /// The service is to be asked.
    Due,
    /// It told; what is in `settled` is ours already.
    Begun,
    /// There is nothing of another process's time, or no more.
    Over,
}

#[derive(Debug)]
pub(super) struct TakeOver {
    stage: Stage,
    had: HashMap<NamespaceId, Had>,
    settled: HashSet<NamespaceId>,
    /// In the order in which they came.
    waiting: Vec<Recall>,
}

impl TakeOver {
    pub fn new(due: bool) -> TakeOver {
        let stage = if due { Stage::Due } else { Stage::Over };
        TakeOver { stage, had: HashMap::new(), settled: HashSet::new(), waiting: Vec::new() }
    }

    /// Whether the next greeting is to ask.
    pub fn is_due(&self) -> bool {
        matches!(self.stage, Stage::Due)
    }

    pub fn begin(&mut self, had: Vec<Had>) {
        self.stage = Stage::Begun;
        self.had = had.into_iter().map(|had| (had.ns, had)).collect();
    }

    /// The session is over.
    pub fn lose(&mut self) {
        *self = TakeOver::new(false);
    }

    pub fn is_settled(&self, ns: NamespaceId) -> bool {
        match self.stage {
            Stage::Over => true,
            Stage::Due | Stage::Begun => self.settled.contains(&ns),
        }
    }

    /// What the session has of a namespace that is used from now on.
    pub fn take(&mut self, ns: NamespaceId) -> Option<Had> {
        self.had.remove(&ns)
    }

    /// A recall, if it is to be answered now. One that comes again, on another connection, waits once.
    pub fn pass(&mut self, recall: Recall) -> Option<Recall> {
        if self.is_settled(recall.ns) {
            return Some(recall);
        }
        if !self.waiting.iter().any(|waiting| waiting.id == recall.id) {
            self.waiting.push(recall);
        }
        None
    }

    /// This namespace, or all that is left, is settled: the recalls that waited for it, and what nobody asked for.
    pub fn settle(&mut self, ns: Option<NamespaceId>) -> (Vec<Recall>, Vec<Had>) {
        let Some(ns) = ns else {
            self.stage = Stage::Over;
            let left = std::mem::take(&mut self.had).into_values().collect();
            self.settled.clear();
            return (std::mem::take(&mut self.waiting), left);
        };
        if matches!(self.stage, Stage::Begun) {
            self.settled.insert(ns);
        }
        let recalls = self.waiting.extract_if(.., |recall| recall.ns == ns).collect();
        (recalls, Vec::new())
    }
}

impl Core {
    /// See [`super::Client::settle`].
    pub fn settle(self: &Arc<Self>, ns: Option<NamespaceId>) {
        let mut takeover = lock(&self.takeover);
        let (recalls, left) = takeover.settle(ns);
        left.into_iter().for_each(|had| self.give_back(had));
        for space in self.live_spaces() {
            if ns.is_none_or(|ns| ns == space.id()) {
                space.settle();
            }
        }
        recalls.into_iter().for_each(|recall| self.recalled(recall));
    }

    /// Nobody here uses the namespace any more.
    fn give_back(&self, had: Had) {
        let tell = |call| self.submit(None, had.ns, call, Waiter::None, None);
        for (ino, owner, lock) in had.locks {
            tell(Call::Lock { ino, request: LockRequest { owner, lock, unlock: true, wait: false } });
        }
        let scopes: Vec<_> = had.leases.into_iter().map(|(scope, _)| scope).collect();
        for scopes in scopes.chunks(FORGET_AT_ONCE * 16) {
            tell(Call::Forget { scopes: scopes.to_vec() });
        }
        for inos in had.opens.chunks(FORGET_AT_ONCE * 16) {
            tell(Call::Close { inos: inos.to_vec() });
        }
    }

    pub fn recalled(&self, recall: Recall) {
        match self.find_space(recall.ns) {
            Some(space) => space.recalled(recall),
            // Of a namespace that is not used here any more.
            None => self.release(Released { id: recall.id, open: false }),
        }
    }
}

#[cfg(test)]
mod tests {
    use granary_core::Ino;

    use super::*;
    use crate::lease::{LeaseKind, Scope};

    fn recall(id: u64, ns: u32) -> Recall {
        Recall { id, ns: NamespaceId(ns), scope: Scope::Inode(Ino(7)), wanted: LeaseKind::Write }
    }

    fn had(ns: u32) -> Had {
        let (leases, opens, locks, changed) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Had { ns: NamespaceId(ns), leases, opens, locks, changed }
    }

    #[test]
    fn recalls_wait_until_their_namespace_is_settled() {
        let mut takeover = TakeOver::new(true);
        assert!(takeover.is_due());
        takeover.begin(vec![had(1), had(2), had(3)]);
        assert!(!takeover.is_due());
        assert_eq!(takeover.take(NamespaceId(1)), Some(had(1)));
        for id in [10, 11, 10] {
            assert_eq!(takeover.pass(recall(id, 1)), None);
        }
        assert_eq!(takeover.pass(recall(20, 2)), None);
        let (recalls, left) = takeover.settle(Some(NamespaceId(1)));
        assert_eq!((recalls, left), (vec![recall(10, 1), recall(11, 1)], vec![]));
        assert_eq!(takeover.pass(recall(12, 1)), Some(recall(12, 1)));
        assert_eq!(takeover.pass(recall(21, 2)), None);
        takeover.take(NamespaceId(2));
        let (recalls, left) = takeover.settle(None);
        assert_eq!((recalls, left), (vec![recall(20, 2), recall(21, 2)], vec![had(3)]));
        assert_eq!(takeover.pass(recall(22, 2)), Some(recall(22, 2)));
    }

    #[test]
    fn nothing_waits_without_another_process_or_after_the_session() {
        assert_eq!(TakeOver::new(false).pass(recall(1, 1)), Some(recall(1, 1)));
        let mut takeover = TakeOver::new(true);
        takeover.begin(vec![had(1)]);
        assert_eq!(takeover.pass(recall(1, 1)), None);
        takeover.lose();
        assert_eq!((takeover.take(NamespaceId(1)), takeover.is_settled(NamespaceId(1))), (None, true));
        assert_eq!(takeover.settle(None), (vec![], vec![]));
    }
}
