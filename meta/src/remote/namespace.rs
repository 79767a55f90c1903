//! One namespace of a client: its leases and what is kept under them, its opens and locks.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use granary_core::{Error, Ino, Kind, NamespaceId, Result};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::cache::{Cache, InodeSet};
use super::calls::Waiter;
use super::core::Core;
use super::held_locks::HeldLocks;
use super::opens::Opens;
use super::recall::Recalls;
use crate::call::{Answer, Call, Had, Held};
use crate::lease::{Holder, LeaseKind, Lost, Scope};
use crate::settings::SharedSettings;
use crate::types::{Attr, NamespaceInfo, Usage};

/// So many leases are given back at once.
pub(super) const FORGET_AT_ONCE: usize = 256;
/// When so many inodes are not open any more, the service is told.
pub(super) const CLOSE_AT_ONCE: usize = 64;

pub struct RemoteNamespace {
    pub(super) core: Arc<Core>,
    pub(super) this: Weak<RemoteNamespace>,
    pub(super) info: NamespaceInfo,
    /// Guards the below; held for an operation in memory, never across a wait. The client's calls are locked after it.
    state: Mutex<State>,
    usage: UsageCells,
    pub(super) write_settings: SharedSettings,
    pub(super) answers: Answers,
}

/// Answers of the service, counted: what was done up to one of them is durable.
#[derive(Debug, Default)]
pub(super) struct Answers {
    pub known: AtomicU64,
    pub durable: AtomicU64,
}

pub(super) struct State {
    pub cache: Cache,
    pub opens: Opens,
    pub locks: HeldLocks,
    pub recalls: Recalls,
    /// Scopes that a `Forget` under way gives back, by how many of them: grants of these do not count.
    pub forgetting: HashMap<Scope, u32>,
    /// Who waits for the write lease of an inode that is asked for.
    pub leasing: HashMap<Ino, Vec<oneshot::Sender<Result<Attr>>>>,
    /// Inodes whose write lease ended unheard: state may be held back for them that the service is to expect.
    pub unheard: InodeSet,
    /// Inodes whose write lease ended with the session: what was held back for them is refused, until a new lease.
    pub fenced: InodeSet,
    pub holder: Option<Arc<dyn Holder>>,
    /// Inodes that the service counts as open since another process's time, until that is settled.
    pub opens_before: Vec<Ino>,
    /// What that process changed without confirming that it heard so.
    pub changed_before: HashSet<Ino>,
}

impl State {
    /// A `Forget` is answered.
    pub fn forgotten(&mut self, scopes: &[Scope]) {
        for scope in scopes {
            if let Some(count) = self.forgetting.get_mut(scope) {
                *count -= 1;
                if *count == 0 {
                    self.forgetting.remove(scope);
                }
            }
        }
    }
}

/// Read by many threads, without a lock.
#[derive(Debug, Default)]
struct UsageCells {
    bytes: AtomicU64,
    inodes: AtomicU64,
    bytes_max: AtomicU64,
    inodes_max: AtomicU64,
    trash_bytes: AtomicU64,
    trash_inodes: AtomicU64,
}

impl RemoteNamespace {
    pub(super) fn new(core: Arc<Core>, info: NamespaceInfo) -> Arc<RemoteNamespace> {
        let state = State {
            cache: Cache::new(core.limits.cache()),
            opens: Opens::default(),
            locks: HeldLocks::default(),
            recalls: Recalls::default(),
            forgetting: HashMap::new(),
            leasing: HashMap::new(),
            unheard: InodeSet::default(),
            fenced: InodeSet::default(),
            holder: None,
            opens_before: Vec::new(),
            changed_before: HashSet::new(),
        };
        let space = Arc::new_cyclic(|this| RemoteNamespace {
            core,
            this: this.clone(),
            info,
            state: Mutex::new(state),
            usage: UsageCells::default(),
            write_settings: SharedSettings::default(),
            answers: Answers::default(),
        });
        space.set_usage(&space.info.usage);
        space.write_settings.store(&space.info.write_settings());
        space
    }

    /// As the service told it when the namespace was first asked for.
    pub fn info(&self) -> &NamespaceInfo {
        &self.info
    }

    pub(super) fn id(&self) -> NamespaceId {
        self.info.id
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a lease is ours, if only to finish what is under way: true also while it is being recalled, until that is
    /// answered. [`crate::Metadata::holds`] is false then.
    pub fn holds_for_finishing(&self, scope: Scope, kind: LeaseKind) -> bool {
        self.core.is_alive() && self.state().cache.has(scope, kind)
    }

    pub(super) fn set_usage(&self, usage: &Usage) {
        self.usage.bytes.store(usage.bytes, Ordering::Relaxed);
        self.usage.inodes.store(usage.inodes, Ordering::Relaxed);
        self.usage.bytes_max.store(usage.bytes_max, Ordering::Relaxed);
        self.usage.inodes_max.store(usage.inodes_max, Ordering::Relaxed);
        self.usage.trash_bytes.store(usage.trash_bytes, Ordering::Relaxed);
        self.usage.trash_inodes.store(usage.trash_inodes, Ordering::Relaxed);
    }

    pub(super) fn usage_now(&self) -> Usage {
        Usage {
            bytes: self.usage.bytes.load(Ordering::Relaxed),
            inodes: self.usage.inodes.load(Ordering::Relaxed),
            bytes_max: self.usage.bytes_max.load(Ordering::Relaxed),
            inodes_max: self.usage.inodes_max.load(Ordering::Relaxed),
            trash_bytes: self.usage.trash_bytes.load(Ordering::Relaxed),
            trash_inodes: self.usage.trash_inodes.load(Ordering::Relaxed),
        }
    }

    /// A call to the service, waiting until it is answered.
    pub(super) async fn call(&self, call: Call) -> Result<Answer> {
        self.core.call(self.this.upgrade(), self.id(), call).await
    }

    pub(super) async fn call_attr(&self, call: Call) -> Result<Attr> {
        match self.call(call).await? {
            Answer::Attr(attr) => Ok(attr),
            other => Err(unexpected(&other)),
        }
    }

    pub(super) async fn call_done(&self, call: Call) -> Result<()> {
        match self.call(call).await? {
            Answer::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// A call whose answer nobody waits for.
    pub(super) fn tell(&self, call: Call) {
        self.core.submit(self.this.upgrade(), self.id(), call, Waiter::None, None);
    }

    /// Something from the cache, if the leases still count.
    pub(super) fn cached<T>(&self, look: impl FnOnce(&mut Cache) -> Option<T>) -> Option<T> {
        if !self.core.is_alive() {
            return None;
        }
        look(&mut self.state().cache)
    }

    /// What a service that was restarted must know of. Sorted.
    pub(super) fn held(&self) -> Held {
        let state = self.state();
        let mut writes = state.cache.writes();
        writes.extend(state.unheard.iter());
        writes.sort_unstable();
        writes.dedup();
        Held { ns: self.id(), opens: state.opens.all(), writes, locks: state.locks.all() }
    }

    /// The service that was restarted heard of `held`.
    pub(super) fn reclaimed(&self, held: &Held) {
        let others = self.state().opens.told(&held.opens);
        for ino in others {
            self.tell(Call::Open { ino });
        }
    }

    /// What the session had here when another process had it.
    pub(super) fn inherit(&self, had: Had) {
        let mut state = self.state();
        had.leases.iter().for_each(|(scope, kind)| state.cache.grant(*scope, *kind));
        had.locks.iter().for_each(|(ino, owner, lock)| state.locks.inherit(*ino, *owner, *lock));
        state.opens_before = had.opens;
        state.changed_before = had.changed.into_iter().collect();
    }

    /// Who has files open since then has opened them here by now.
    pub(super) fn settle(&self) {
        let mut state = self.state();
        for ino in std::mem::take(&mut state.opens_before) {
            state.opens.adopt(ino);
        }
    }

    /// All leases are gone. Ends when who keeps something under them has dropped it.
    pub(super) fn lose(&self, why: Lost) -> Option<JoinHandle<()>> {
        let holder = {
            let mut state = self.state();
            let state = &mut *state;
            for ino in state.cache.writes() {
                state.unheard.insert(ino);
            }
            state.cache.clear();
            if why == Lost::Fenced {
                for ino in state.unheard.iter() {
                    state.fenced.insert(ino);
                }
                state.unheard.clear();
                state.opens.fenced();
                state.opens_before.clear();
                state.locks.clear();
            }
            state.holder.clone()
        };
        let holder = holder?;
        Some(self.core.holders.spawn(async move { holder.lost(why).await }))
    }

    /// Gives leases back when there are too many: who keeps something under them is told first.
    pub(super) fn trim(&self) {
        let (scopes, holder) = {
            let mut state = self.state();
            let state = &mut *state;
            let opens = &state.opens;
            let scopes = state.cache.victims(FORGET_AT_ONCE, |ino| opens.is_open(ino));
            (scopes, state.holder.clone())
        };
        if scopes.is_empty() {
            return;
        }
        let Some(space) = self.this.upgrade() else { return };
        self.core.holders.spawn(async move {
            if let Some(holder) = holder {
                for (scope, _) in &scopes {
                    holder.recall(*scope, LeaseKind::Write).await;
                }
            }
            space.forget(scopes);
        });
    }

    /// What was chosen to be given back is not used any more.
    fn forget(&self, mut scopes: Vec<(Scope, u64)>) {
        let mut state = self.state();
        let state = &mut *state;
        scopes.retain(|(scope, stamp)| state.cache.release(*scope, Some(*stamp), LeaseKind::Write));
        let scopes: Vec<Scope> = scopes.into_iter().map(|(scope, _)| scope).collect();
        // An inode that was opened meanwhile under its lease stays open: the service is told before the lease is gone.
        for scope in &scopes {
            if let Scope::Inode(ino) = scope
                && state.opens.tell(*ino)
            {
                self.tell(Call::Open { ino: *ino });
            }
        }
        if !scopes.is_empty() {
            scopes.iter().for_each(|scope| *state.forgetting.entry(*scope).or_default() += 1);
            self.tell(Call::Forget { scopes });
        }
    }

    /// Why held state of this inode is refused, if it is.
    pub(super) fn refused(&self, ino: Ino) -> Result<()> {
        let state = self.state();
        if state.fenced.contains(ino) && !state.cache.has(Scope::Inode(ino), LeaseKind::Write) {
            drop(state);
            return Err(self.core.fenced_error(&format!("inode {ino} of {}", self.info.name)));
        }
        Ok(())
    }

    pub(super) fn leases(&self) -> (u64, u64, u64) {
        let state = self.state();
        (state.cache.len() as u64, state.cache.bytes() as u64, state.opens.len() as u64)
    }
}

impl std::fmt::Debug for RemoteNamespace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteNamespace").field("info", &self.info).finish_non_exhaustive()
    }
}

impl Drop for RemoteNamespace {
    /// Nobody uses it any more: what it has is given back.
    fn drop(&mut self) {
        let (scopes, opens) = {
            let mut state = self.state();
            let mut opens = state.opens.all();
            opens.extend(state.opens.close_all());
            opens.append(&mut state.opens_before);
            (state.cache.scopes(), opens)
        };
        for scopes in scopes.chunks(FORGET_AT_ONCE * 16) {
            let call = Call::Forget { scopes: scopes.to_vec() };
            self.core.submit(None, self.id(), call, Waiter::None, None);
        }
        for inos in opens.chunks(FORGET_AT_ONCE * 16) {
            self.core.submit(None, self.id(), Call::Close { inos: inos.to_vec() }, Waiter::None, None);
        }
    }
}

pub(super) fn unexpected(answer: &Answer) -> Error {
    Error::new(Kind::Bug, format!("the metadata service gave an answer of the wrong kind: {answer:?}"))
}
