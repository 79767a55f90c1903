//! What the parts of a client share: the calls, the session's life, the namespaces.
//!
//! Locks, in the order in which they are taken; none is held across a wait or I/O:
//!
//! | lock | guards |
//! |---|---|
//! | `takeover` | what another process left; held while the recalls that waited for it go on, before those that come |
//! | `spaces` | the table of namespaces |
//! | `settings` | the last word about each namespace's write settings |
//! | a namespace's state | its leases, values, opens, locks |
//! | `life` | session, incarnation, whether leases count |
//! | `calls` | calls under way and what is to be sent; held while a frame is encoded |
//! | `link`, `fence` | what `status` tells |

mod calling;
mod connection;
mod life;
mod spaces;
mod time;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use granary_core::{Clock, Error, Kind, NamespaceId, NodeId, Result, SessionId};
use tokio::sync::{Notify, Semaphore, watch};

use super::calls::Calls;
use super::namespace::RemoteNamespace;
use super::options::{ClientLimits, SessionWatch};
use super::takeover::TakeOver;
use crate::types::{VolumeInfo, WriteSettings};
use crate::wire::{pb, response};

pub(super) struct Core {
    pub clock: Arc<dyn Clock>,
    pub limits: ClientLimits,
    pub node: NodeId,
    pub name: String,
    pub data_address: Option<String>,
    /// Where [`crate::Holder`]s run.
    pub holders: tokio::runtime::Handle,
    calls: Mutex<Calls>,
    room: Arc<Semaphore>,
    room_bytes: Arc<Semaphore>,
    life: Mutex<Life>,
    /// Until when leases count: the clock's nanoseconds. Read before each answer from what is kept.
    lease_until: AtomicU64,
    spaces: Mutex<HashMap<NamespaceId, Weak<RemoteNamespace>>>,
    /// The last that was heard of namespaces' settings. Locked after `spaces`.
    settings: Mutex<HashMap<NamespaceId, WriteSettings>>,
    link: Mutex<Link>,
    fence: Mutex<Option<(String, Duration)>>,
    /// What another process left, until it is settled.
    pub takeover: Mutex<TakeOver>,
    on_session: Option<SessionWatch>,
    /// The connection is to be given up.
    pub cut: Notify,
    /// No call is under way.
    drained: Notify,
    pub stop: watch::Sender<bool>,
    closed: AtomicBool,
    leaving: AtomicBool,
}

#[derive(Debug, Default)]
struct Life {
    session: Option<SessionId>,
    /// The same, or the one that ended last.
    last: Option<SessionId>,
    incarnation: u64,
    lease_time: Duration,
    /// Leases count; false from the moment at which their end was noticed.
    alive: bool,
    volume: Option<VolumeInfo>,
    ticket_key: Vec<u8>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Link {
    pub url: String,
    pub connected: bool,
    pub since: Duration,
    pub last_error: Option<(Kind, String)>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) struct CoreParts {
    pub clock: Arc<dyn Clock>,
    pub limits: ClientLimits,
    pub node: NodeId,
    pub name: String,
    pub data_address: Option<String>,
    pub holders: tokio::runtime::Handle,
    pub resume: Option<SessionId>,
    pub on_session: Option<SessionWatch>,
}

impl Core {
    pub fn new(parts: CoreParts) -> Arc<Core> {
        let CoreParts { clock, limits, node, name, data_address, holders, resume, on_session } = parts;
        let link = Link { since: clock.monotonic(), ..Link::default() };
        Arc::new(Core {
            limits,
            node,
            name,
            data_address,
            holders,
            // Lease calls, closes and cancels come on top of those that wait for room.
            calls: Mutex::new(Calls::new(limits.calls_max, limits.answers_told_late)),
            room: Arc::new(Semaphore::new(limits.calls_max)),
            room_bytes: Arc::new(Semaphore::new(limits.bytes_max.min(u32::MAX as usize))),
            life: Mutex::new(Life { session: resume, last: resume, ..Life::default() }),
            lease_until: AtomicU64::new(0),
            spaces: Mutex::default(),
            settings: Mutex::default(),
            link: Mutex::new(link),
            fence: Mutex::default(),
            takeover: Mutex::new(TakeOver::new(resume.is_some())),
            on_session,
            cut: Notify::new(),
            drained: Notify::new(),
            stop: watch::channel(false).0,
            closed: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            clock,
        })
    }

    pub fn volume(&self) -> Option<VolumeInfo> {
        lock(&self.life).volume.clone()
    }

    pub fn ticket_key(&self) -> Vec<u8> {
        lock(&self.life).ticket_key.clone()
    }

    pub fn last_session(&self) -> Option<SessionId> {
        lock(&self.life).last
    }

    pub fn session(&self) -> (Option<SessionId>, u64) {
        let life = lock(&self.life);
        (life.session, life.incarnation)
    }

    pub fn link(&self) -> Link {
        lock(&self.link).clone()
    }

    pub fn waiting_calls(&self) -> u64 {
        lock(&self.calls).len() as u64
    }

    /// How often [`Core::tick`] is due.
    pub fn tick_interval(&self) -> Duration {
        let lease_time = lock(&self.life).lease_time;
        (lease_time / 30).clamp(Duration::from_millis(5), Duration::from_millis(250))
    }
}

pub(super) fn closed() -> Error {
    Error::new(Kind::Unavailable, "this node's client of the metadata service was closed")
}

/// A recall: of a namespace that is not used here any more, it is answered at once.
pub(super) fn released_at_once(core: &Core, wire: pb::Recall) -> Result<()> {
    let recall = response::decode_recall(wire)?;
    let mut takeover = lock(&core.takeover);
    if let Some(recall) = takeover.pass(recall) {
        core.recalled(recall);
    }
    Ok(())
}
