//! One session, and all of them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use granary_core::{Error, Kind, NamespaceId, NodeId, Result, SessionId};

use super::identity::{Identity, Rights};
use super::leases::Member;
use super::outgoing::Queue;
use super::space::Space;
use crate::record::session::SessionRecord;

/// A session from its greeting to its end.
#[derive(Debug)]
pub(super) struct Session {
    pub member: Member,
    pub id: SessionId,
    pub node: NodeId,
    pub queue: Queue,
    /// When it was last heard of: the clock's nanoseconds.
    heard: AtomicU64,
    /// Why it is over. Set before what it had is taken away, and looked at under a namespace's lock before a call of it is
    /// done: so nothing of it is done afterwards.
    ended: OnceLock<Error>,
    /// Who it is and what it reaches. Held for a few instructions.
    about: Mutex<About>,
    /// Held while the record is written, so that none is left of a session that is over.
    record: Mutex<Recorded>,
    pub leases: AtomicU64,
    pub opens: AtomicU64,
}

/// Whether a session's record is in the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recorded {
    Not,
    There,
    /// The session is over: never again.
    Over,
}

#[derive(Debug)]
pub(super) struct About {
    pub who: Identity,
    pub name: String,
    pub data_address: Option<String>,
    /// The namespaces that it was told of.
    pub granted: HashMap<NamespaceId, Granted>,
}

#[derive(Clone, Debug)]
pub(super) struct Granted {
    pub rights: Rights,
    pub space: Arc<Space>,
}

impl Session {
    pub fn new(member: Member, id: SessionId, node: NodeId, about: About, calls_max: usize) -> Session {
        Session {
            member,
            id,
            node,
            queue: Queue::new(calls_max),
            heard: AtomicU64::new(0),
            ended: OnceLock::new(),
            about: Mutex::new(about),
            record: Mutex::new(Recorded::Not),
            leases: AtomicU64::new(0),
            opens: AtomicU64::new(0),
        }
    }

    pub fn about(&self) -> MutexGuard<'_, About> {
        self.about.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has `write` put its record into the volume, unless it is there; a session that is over gets none.
    pub fn record(&self, write: impl FnOnce(SessionRecord) -> Result<()>) -> Result<()> {
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        match *record {
            Recorded::There => return Ok(()),
            Recorded::Over => return Err(Error::new(Kind::Fenced, "the session is over")),
            Recorded::Not => {}
        }
        let about = {
            let About { who, name, .. } = &*self.about();
            SessionRecord {
                node: self.node,
                name: name.clone(),
                user: who.user.clone(),
                token: who.token.clone(),
            }
        };
        write(about)?;
        *record = Recorded::There;
        Ok(())
    }

    /// It was in the volume before.
    pub fn note_recorded(&self) {
        *self.record.lock().unwrap_or_else(PoisonError::into_inner) = Recorded::There;
    }

    /// None is written from now on; whether there is one.
    pub fn end_record(&self) -> bool {
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *record, Recorded::Over) == Recorded::There
    }

    pub fn granted(&self, ns: NamespaceId) -> Option<Granted> {
        self.about().granted.get(&ns).cloned()
    }

    pub fn spaces(&self) -> Vec<Arc<Space>> {
        self.about().granted.values().map(|granted| granted.space.clone()).collect()
    }

    pub fn heard(&self, now: Duration) {
        self.heard.fetch_max(now.as_nanos() as u64, Ordering::Relaxed);
    }

    /// How long it was not heard of.
    pub fn silent(&self, now: Duration) -> Duration {
        now.saturating_sub(Duration::from_nanos(self.heard.load(Ordering::Relaxed)))
    }

    pub fn ended(&self) -> Option<&Error> {
        self.ended.get()
    }

    /// Whether it was not over before.
    pub fn set_ended(&self, why: Error) -> bool {
        self.ended.set(why).is_ok()
    }

    /// Why a session that was silent for so long is over, and what to do about it.
    pub fn fenced(&self, silent: Duration) -> Error {
        let name = self.about().name.clone();
        Error::new(
            Kind::Fenced,
            format!(
                "session {} of node {name} was not heard of for {:.1} s, so the metadata service ended it: its locks and \
                 open files went to others, and what it did not hand over is refused; open the files again",
                self.id,
                silent.as_secs_f64()
            ),
        )
    }
}

/// The sessions that live, by both of their numbers. Read for each recall, written when a session begins or ends.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    tables: RwLock<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    by_member: HashMap<Member, Arc<Session>>,
    by_id: HashMap<SessionId, Member>,
    last: Member,
}

impl Sessions {
    fn read<T>(&self, f: impl FnOnce(&Tables) -> T) -> T {
        f(&self.tables.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// A number for a session to come.
    pub fn member(&self) -> Member {
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        tables.last += 1;
        tables.last
    }

    pub fn insert(&self, session: Arc<Session>) {
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        tables.by_id.insert(session.id, session.member);
        tables.by_member.insert(session.member, session);
    }

    pub fn remove(&self, session: &Session) {
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        tables.by_id.remove(&session.id);
        tables.by_member.remove(&session.member);
    }

    pub fn get(&self, member: Member) -> Option<Arc<Session>> {
        self.read(|tables| tables.by_member.get(&member).cloned())
    }

    pub fn find(&self, id: SessionId) -> Option<Arc<Session>> {
        self.read(|tables| tables.by_member.get(tables.by_id.get(&id)?).cloned())
    }

    /// In the order in which they began.
    pub fn all(&self) -> Vec<Arc<Session>> {
        let mut all: Vec<_> = self.read(|tables| tables.by_member.values().cloned().collect());
        all.sort_unstable_by_key(|session: &Arc<Session>| session.member);
        all
    }

    pub fn len(&self) -> usize {
        self.read(|tables| tables.by_member.len())
    }
}
