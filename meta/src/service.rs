//! The metadata service: one volume for many sessions at once. In this process; the network is somebody else's
//! ([`crate::call`] says what goes between).
//!
//! ```text
//!  Connection::submit -> line of the namespace -> do it, under the namespace's lock -> Connection::next
//!                             ^                      |  leases in the way: recall them and park the call
//!                             '---- woken <----------'  Connection::released, or a session's end
//! ```
//!
//! **Sessions.** [`Service::greet`] begins or resumes a session and gives its [`Connection`]; a new one supersedes the one
//! before it. What goes to a session is one ordered stream, [`Connection::next`]: a response is put into it in the same
//! critical section in which its call is done and its leases are granted, so a recall comes after what it takes away.
//!
//! **Leases.** What an operation changes is told by the records it would change: those of inode I are scope `Inode(I)`,
//! the entries and the listing of directory D scope `Directory(D)`. If another session holds a lease on one of them, the
//! operation is not applied: the leases are recalled, the call is parked and tried again from the start when all were
//! given up. A reading call waits only for another session's *write* lease on what it answers. While somebody waits to
//! change a scope, others are answered without a grant. The leases of the session that asks are never in its way. Of the trash's
//! directories no leases are given: what comes there would have every node that removes files wait for every other.
//!
//! What a client must keep to:
//! * A value that comes with an answer may be kept if the answer grants its scope, or if it was held before and still is.
//!   `touched` comes after the answer's own value: the later one counts.
//! * A call that changes something and was asked again on a new connection may have been done long before, and later calls
//!   of the session with it: then the answer comes without grants, and `touched` has the *present* attributes of all that the
//!   call changed. Names that it was about are forgotten, because the answer does not say what they are now.
//! * From the moment a `Forget` is sent until its answer comes, grants of its scopes do not count.
//! * A recall is answered without waiting for the service, but for commits of what is held back. After a reconnection those
//!   that have no answer come again, before anything else; none is answered on a connection on which it did not come.
//!   Two of one scope are answered in their order.
//! * An inode that is open under a lease, so that the service was not asked, is told (`Open`) before the session itself
//!   takes its last name away. Calls of one session on one namespace are done in the order of their submission, until one
//!   has to wait.
//! * `acked_below` says: all answers to *calls that change something* ([`Call::changes`]) below this number arrived. Only
//!   they are remembered, so a lock that is waited for does not hold the number back.
//!
//! **Why no ring of waiting nodes can deadlock.** A parked call holds nothing: no lease is reserved for it, no lock of this
//! module is held, and what it marks as wanted only keeps others from being granted anew, not from being answered. So
//! every wait is for a session to answer a recall, and for nothing else. A session answers a recall after at most commits
//! of inodes of which it holds the write lease; nobody else holds anything of such an inode, so these are done without
//! waiting. Whatever else it needs to answer (the kernel's page locks, whose holders may have sent us reads) waits at most
//! for reads, and a read waits only for recalls of write leases, whose holders, again, only commit. So the graph has
//! paths of this length at most: change -> recall of a lease -> read -> recall of a write lease -> commit, and ends there. A
//! session that does not answer is ended when it was silent for the lease time (one that nobody waits for may come back
//! later, as in NFS servers that are called courteous), and one that is not silent but does not
//! answer either when the recall is older than [`RECALL_TIMES`] lease times. Then the call goes on.
//!
//! No call starves: who waits to change a scope keeps others from new leases on it, so each retry finds fewer in its way.
//!
//! **Exactly once.** The answer to a call that changed something is a record in the same batch as the change; asked again,
//! also after a restart, the call is not done again. An error changed nothing and is not remembered. No answer goes out
//! before what it tells of is in the engine, its own changes or others': what anybody saw survives the end of this process.
//!
//! **Restart.** Sessions are records of the volume, each from its first call that reaches or makes a namespace on. After a start there
//! is a grace time in which only sessions from before come back and say what they hold ([`crate::call::Held`]); all calls wait until
//! it is over, which is at once when all are back. What nobody claimed is free then, and files without a name that nobody has open are
//! freed. A session that is not on record has nothing: nobody waits for it, and it begins anew.
//!
//! Locks, in the order in which they are taken; none is held across `.await`:
//!
//! | lock | guards |
//! |---|---|
//! | `greeting` | greetings and ends of sessions, one at a time; the engine is written under it; no call is done under it |
//! | `spaces` | the table of served namespaces; the engine is read under it when one is loaded, and written when one is removed |
//! | a `Space`'s state | leases, parked calls, opens, locks, answers: one call at a time |
//! | the namespace's own state | see [`crate::local`] |
//! | `grace`; table of sessions; a session's `about`, queue; a turn's sessions; the lines | a few instructions each |

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use granary_core::{Clock, Error, Kind, NamespaceId, NodeId, Result};

use crate::Volume;
use crate::call::{Call, CallKind};
use crate::engine::Write;
use crate::record::session as records;

mod answer;
mod audit;
mod calls;
mod connection;
mod fair;
mod grace;
mod greet;
mod identity;
mod leases;
mod linger;
mod locks;
mod options;
mod outgoing;
mod purge;
mod replies;
mod run;
mod session;
mod space;
mod threads;
mod volume_calls;

pub use connection::Connection;
pub use identity::{Identity, Rights};
pub use options::{ServiceOptions, Tickets};
pub use outgoing::Outgoing;

use audit::Audit;
use fair::Fair;
use grace::Grace;
use session::Sessions;
use space::{Job, Space};
use threads::Threads;

/// A session that lives but does not answer a recall for so many lease times is ended.
pub const RECALL_TIMES: u32 = 3;

/// See the module.
pub struct Service {
    volume: Arc<Volume>,
    clock: Arc<dyn Clock>,
    options: ServiceOptions,
    incarnation: u64,
    random: Mutex<Box<dyn FnMut() -> u64 + Send>>,
    sessions: Sessions,
    spaces: Mutex<HashMap<NamespaceId, Arc<Space>>>,
    lines: Mutex<Fair<Job>>,
    /// Whether the service stops: then nobody is greeted any more.
    greeting: Mutex<bool>,
    grace: Mutex<Option<Grace>>,
    /// Without its lock: whether there is a grace time still.
    in_grace: AtomicBool,
    nodes: Mutex<HashMap<NodeId, greet::Seen>>,
    revoked: Mutex<HashSet<String>>,
    /// Files without a name that are kept for a moment. Taken inside a namespace's lock, which is never taken inside it.
    lingering: Mutex<Vec<linger::Lingering>>,
    audit: Audit,
    threads: Threads,
    counts: Counts,
}

/// What the service did since its start.
#[derive(Debug, Default)]
struct Counts {
    calls: CallCounts,
    recalls: AtomicU64,
    fenced: AtomicU64,
    refused: AtomicU64,
}

/// By [`CallKind`].
#[derive(Debug)]
struct CallCounts([AtomicU64; CallKind::ALL.len()]);

impl CallCounts {
    fn add(&self, kind: CallKind) {
        self.0[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self) -> Vec<(CallKind, u64)> {
        let counts = self.0.iter().map(|count| count.load(Ordering::Relaxed));
        CallKind::ALL.iter().copied().zip(counts).collect()
    }
}

impl Default for CallCounts {
    fn default() -> CallCounts {
        CallCounts(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

/// What the service does and did, for metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceStats {
    pub sessions: u64,
    pub leases: u64,
    pub opens: u64,
    /// Calls that wait for leases of other sessions.
    pub parked: u64,
    /// Calls that wait in line.
    pub waiting: u64,
    /// Since the start, by kind.
    pub calls: Vec<(CallKind, u64)>,
    pub recalls: u64,
    pub fenced: u64,
    pub refused: u64,
    pub in_grace: bool,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("incarnation", &self.incarnation).finish_non_exhaustive()
    }
}

fn stops() -> Error {
    Error::new(Kind::Unavailable, "the metadata service stops; connect again")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Service {
    /// Serves a volume that was opened by [`Volume::open_served`]. `random` makes session ids.
    pub fn start(
        volume: Arc<Volume>,
        clock: Arc<dyn Clock>,
        random: Box<dyn FnMut() -> u64 + Send>,
        options: ServiceOptions,
    ) -> Result<Arc<Service>> {
        options.validate()?;
        volume.begin_service();
        let incarnation = match volume.get_record(records::INCARNATION_KEY)? {
            Some(bytes) => records::decode_incarnation(&bytes)? + 1,
            None => 1,
        };
        let count = Write::Put(records::INCARNATION_KEY.to_vec(), records::encode_incarnation(incarnation));
        volume.put_records(vec![count], true)?;
        let grace = Grace::begin(&volume, clock.monotonic() + options.grace)?;
        let revoked = volume_calls::load_revoked(&volume, clock.now())?;
        let service = Arc::new(Service {
            incarnation,
            random: Mutex::new(random),
            sessions: Sessions::default(),
            spaces: Mutex::default(),
            lines: Mutex::new(Fair::new(options.runners)),
            greeting: Mutex::new(false),
            in_grace: AtomicBool::new(true),
            grace: Mutex::new(Some(grace)),
            nodes: Mutex::default(),
            revoked: Mutex::new(revoked),
            lingering: Mutex::default(),
            audit: Audit::new(&*clock),
            threads: Threads::default(),
            counts: Counts::default(),
            volume,
            clock,
            options,
        });
        service.end_grace_if_due()?;
        service.threads.start(&service)?;
        Ok(service)
    }

    pub fn volume(&self) -> &Arc<Volume> {
        &self.volume
    }

    /// Whether a token of this id was revoked.
    pub fn is_revoked(&self, token: &str) -> bool {
        lock(&self.revoked).contains(token)
    }

    /// Looks for sessions whose time, or whose token's, is over, for files that were kept long enough, and whether the grace
    /// time is over. By itself every [`ServiceOptions::tick`]; tests call it after moving their clock.
    pub fn tick(self: &Arc<Self>) {
        if let Err(e) = self.end_grace_if_due() {
            tracing::error!("the metadata service cannot end its grace time: {e}");
        }
        let now = self.clock.monotonic();
        for session in self.sessions.all() {
            self.end_connection_if_token_ended(&session);
        }
        self.end_silent(now);
        self.end_overdue(now);
        self.end_lingering(now);
        self.purge();
        // A namespace that no session was told of is let go.
        lock(&self.spaces).retain(|_, space| Arc::strong_count(space) > 1);
    }

    /// Tells all sessions that the service stops, and makes everything durable. Sessions stay known: they come back to
    /// the next service on this volume, and are not greeted by this one any more.
    pub fn stop(&self) -> Result<()> {
        self.threads.stop();
        *lock(&self.greeting) = true;
        for session in self.sessions.all() {
            session.queue.stop(stops());
        }
        self.volume.flush()
    }

    pub fn stats(&self) -> ServiceStats {
        let mut stats = ServiceStats {
            sessions: self.sessions.len() as u64,
            waiting: lock(&self.lines).waiting() as u64,
            calls: self.counts.calls.read(),
            recalls: self.counts.recalls.load(Ordering::Relaxed),
            fenced: self.counts.fenced.load(Ordering::Relaxed),
            refused: self.counts.refused.load(Ordering::Relaxed),
            in_grace: self.in_grace.load(Ordering::SeqCst),
            ..ServiceStats::default()
        };
        for session in self.sessions.all() {
            stats.leases += session.leases.load(Ordering::Relaxed);
            stats.opens += session.opens.load(Ordering::Relaxed);
        }
        let spaces: Vec<_> = lock(&self.spaces).values().cloned().collect();
        stats.parked = spaces.iter().map(|space| space.lock().parked() as u64).sum();
        stats
    }

    /// The served namespace of this id; loaded when it is not.
    fn space(&self, id: NamespaceId) -> Result<Arc<Space>> {
        let mut spaces = lock(&self.spaces);
        if let Some(space) = spaces.get(&id) {
            return Ok(space.clone());
        }
        let local = self.volume.namespace_by_id(id)?;
        let name = local.info()?.name;
        let space = Arc::new(Space::new(local, name));
        self.load_replies(&space)?;
        spaces.insert(id, space.clone());
        Ok(space)
    }

    /// Finds the remembered answers of sessions that live or may come back; those of others are deleted.
    fn load_replies(&self, space: &Space) -> Result<()> {
        let mut state = space.lock();
        let mut forgotten = Vec::new();
        space.local.replies(&mut |session, place, reply| {
            if self.sessions.find(session).is_some() || self.may_come_back(session) {
                state.replies.entry(session).or_default().load(place, reply);
            } else {
                forgotten.push((session, place));
            }
        })?;
        if !forgotten.is_empty() {
            space.local.forget_replies(forgotten);
        }
        Ok(())
    }
}

impl Drop for Service {
    /// Sessions and namespaces know each other: taken apart, so that both are let go.
    fn drop(&mut self) {
        for session in self.sessions.all() {
            session.about().granted.clear();
        }
    }
}

impl Call {
    /// Whether it changes something: then it is refused to who may only read, and its answer is remembered until
    /// [`crate::call::Request::acked_below`] passes it.
    pub fn changes(&self) -> bool {
        match self {
            Call::SetXattr { .. }
            | Call::RemoveXattr { .. }
            | Call::Create { .. }
            | Call::Tmpfile { .. }
            | Call::Link { .. }
            | Call::Unlink { .. }
            | Call::Rmdir { .. }
            | Call::Rename { .. }
            | Call::SetAttr { .. }
            | Call::Commit(_)
            | Call::Relocate { .. }
            | Call::KeepInline { .. }
            | Call::ForgetObjects { .. }
            | Call::CopyRange(_)
            | Call::CreateNamespace { .. }
            | Call::SetNamespace { .. }
            | Call::RemoveNamespace { .. }
            | Call::RevokeToken { .. } => true,
            Call::Lookup { .. }
            | Call::GetAttr { .. }
            | Call::ReadDir { .. }
            | Call::Parent { .. }
            | Call::ReadLink { .. }
            | Call::GetXattr { .. }
            | Call::ListXattr { .. }
            | Call::Open { .. }
            | Call::Close { .. }
            | Call::Extents { .. }
            | Call::Live { .. }
            | Call::Object { .. }
            | Call::DeadObjects { .. }
            | Call::LiveObjects { .. }
            | Call::Sync
            | Call::Lease { .. }
            | Call::TestLock { .. }
            | Call::Lock { .. }
            | Call::Forget { .. }
            | Call::Peer { .. }
            | Call::Namespace { .. }
            | Call::Namespaces
            | Call::Sessions
            | Call::Delegate { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests;
