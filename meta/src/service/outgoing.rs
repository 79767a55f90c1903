//! What the service sends to one session, in one order, and the calls of it that are under way.
//!
//! A response is put here inside the critical section that does the call and grants its leases, so that a recall of one
//! of them comes after it. But it must not go out before the change is in the engine: then it stays at the head, and what
//! follows behind it, until its [`Turn`] is written.
//!
//! Bounded: a response belongs to a call under way, of which there are so many at most; of recalls there is one for each
//! lease and kind.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};

use granary_core::{Error, Kind, NamespaceId, Result};

use super::session::Session;
use crate::call::{Recall, Response};
use crate::changes::KeyHash;
use crate::types::WriteSettings;

/// One thing that the service says to a session.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // nearly all are responses; a box for each would cost more than the room
pub enum Outgoing {
    Response(Response),
    Recall(Recall),
    /// The connection is over, for this reason: `Fenced`, the session ended; `Busy`, another connection took it over;
    /// `Invalid`, the rules were broken; `Unavailable`, the service stops. Nothing follows but this, again and again.
    Ended(Error),
}

/// The calls that were done together, and whether what they changed is in the engine.
#[derive(Debug, Default)]
pub(super) struct Turn {
    written: OnceLock<Option<Error>>,
    /// Whose responses wait for it. The lock is held for a push or a take.
    sessions: Mutex<Vec<Arc<Session>>>,
}

impl Turn {
    /// Notes that a response of this session waits. Whether it is the first.
    fn wait_for(&self, session: &Arc<Session>) {
        let mut sessions = lock(&self.sessions);
        if !sessions.iter().any(|s| Arc::ptr_eq(s, session)) {
            sessions.push(session.clone());
        }
    }

    pub fn is_waited_for(&self) -> bool {
        !lock(&self.sessions).is_empty()
    }

    pub fn finish(&self, result: Result<()>) {
        // Only the first counts; there is one.
        let _ = self.written.set(result.err());
        for session in std::mem::take(&mut *lock(&self.sessions)) {
            session.queue.wake();
        }
    }
}

#[derive(Debug)]
struct Slot {
    what: Outgoing,
    turn: Option<Arc<Turn>>,
}

/// A call under way: from its arrival until its response went out.
#[derive(Clone, Copy, Debug, Default)]
struct UnderWay {
    cancelled: bool,
}

/// What becomes of a call that arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admitted {
    Yes,
    /// It is under way already.
    Twice,
    TooMany,
    /// The connection is not the session's any more.
    Late,
}

#[derive(Debug)]
pub(super) struct Queue {
    /// Guards all below; held for a few instructions.
    inner: Mutex<Inner>,
    calls_max: usize,
}

#[derive(Debug, Default)]
struct Inner {
    /// Counts the session's connections; what belongs to an earlier one is dropped.
    epoch: u64,
    slots: VecDeque<Slot>,
    calls: HashMap<u64, UnderWay, KeyHash>,
    /// The highest number of a call that came.
    last_call: u64,
    /// Settings that it is to be told of: the last of each namespace. They keep no order with the rest.
    settings: HashMap<NamespaceId, WriteSettings, KeyHash>,
    waker: Option<Waker>,
    ended: Option<Error>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Queue {
    pub fn new(calls_max: usize) -> Queue {
        Queue { inner: Mutex::default(), calls_max }
    }

    /// Begins a connection; the one before, if any, is told so.
    pub fn connect(&self) -> u64 {
        let mut inner = lock(&self.inner);
        inner.epoch += 1;
        inner.slots.clear();
        inner.calls.clear();
        let (epoch, waker) = (inner.epoch, inner.waker.take());
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
        epoch
    }

    /// The highest number of a call that came, on whichever connection.
    pub fn last_call(&self) -> u64 {
        lock(&self.inner).last_call
    }

    pub fn is_current(&self, epoch: u64) -> bool {
        lock(&self.inner).epoch == epoch
    }

    pub fn admit(&self, epoch: u64, id: u64) -> Admitted {
        let mut inner = lock(&self.inner);
        if inner.epoch != epoch {
            return Admitted::Late;
        }
        if inner.calls.len() >= self.calls_max {
            return Admitted::TooMany;
        }
        match inner.calls.insert(id, UnderWay::default()) {
            None => {
                inner.last_call = inner.last_call.max(id);
                Admitted::Yes
            }
            Some(known) => {
                inner.calls.insert(id, known);
                Admitted::Twice
            }
        }
    }

    /// Marks a call that is under way. Whether there is one.
    pub fn cancel(&self, epoch: u64, id: u64) -> bool {
        let mut inner = lock(&self.inner);
        let current = inner.epoch == epoch;
        match inner.calls.get_mut(&id) {
            Some(call) if current => {
                call.cancelled = true;
                true
            }
            _ => false,
        }
    }

    pub fn is_cancelled(&self, epoch: u64, id: u64) -> bool {
        let inner = lock(&self.inner);
        inner.epoch == epoch && inner.calls.get(&id).is_some_and(|call| call.cancelled)
    }

    /// Puts a response at the end; dropped when its connection is over. With `turn` it waits until that is written.
    pub fn respond(&self, session: &Arc<Session>, epoch: u64, response: Response, turn: Option<&Arc<Turn>>) {
        let mut inner = lock(&self.inner);
        if inner.epoch != epoch || inner.ended.is_some() {
            return;
        }
        if let Some(turn) = turn {
            turn.wait_for(session);
        }
        inner.slots.push_back(Slot { what: Outgoing::Response(response), turn: turn.cloned() });
        wake(inner);
    }

    pub fn recall(&self, recall: Recall) {
        let mut inner = lock(&self.inner);
        if inner.ended.is_none() {
            inner.slots.push_back(Slot { what: Outgoing::Recall(recall), turn: None });
            wake(inner);
        }
    }

    /// Somebody changed how the writes of a namespace reach the store.
    pub fn tell_settings(&self, ns: NamespaceId, settings: WriteSettings) {
        let mut inner = lock(&self.inner);
        if inner.ended.is_none() {
            inner.settings.insert(ns, settings);
            wake(inner);
        }
    }

    /// What is to be told of settings.
    pub fn take_settings(&self, epoch: u64) -> Vec<(NamespaceId, WriteSettings)> {
        let mut inner = lock(&self.inner);
        if inner.epoch == epoch { inner.settings.drain().collect() } else { Vec::new() }
    }

    /// The session is over, for good.
    pub fn end(&self, why: &Error) {
        let mut inner = lock(&self.inner);
        inner.ended.get_or_insert_with(|| why.duplicate());
        inner.slots.clear();
        inner.calls.clear();
        wake(inner);
    }

    /// This connection is over; the session may begin another.
    pub fn end_connection(&self, epoch: u64, why: Error) {
        let mut inner = lock(&self.inner);
        if inner.epoch == epoch && inner.ended.is_none() {
            inner.slots.clear();
            inner.calls.clear();
            inner.slots.push_back(Slot { what: Outgoing::Ended(why), turn: None });
            wake(inner);
        }
    }

    /// The connection that there is now is over, whichever it is.
    pub fn stop(&self, why: Error) {
        let epoch = lock(&self.inner).epoch;
        self.end_connection(epoch, why);
    }

    fn wake(&self) {
        wake(lock(&self.inner));
    }

    /// The next thing to send. Never pending once the connection is over.
    pub fn poll_next(&self, epoch: u64, cx: &mut Context<'_>) -> Poll<Outgoing> {
        let mut inner = lock(&self.inner);
        if let Some(e) = &inner.ended {
            return Poll::Ready(Outgoing::Ended(e.duplicate()));
        }
        if inner.epoch != epoch {
            let why = Error::new(Kind::Busy, "another connection of this session took over");
            return Poll::Ready(Outgoing::Ended(why));
        }
        let failed = match inner.slots.front() {
            Some(Slot { what: Outgoing::Ended(e), .. }) => {
                return Poll::Ready(Outgoing::Ended(e.duplicate()));
            }
            Some(Slot { turn: None, .. }) => None,
            Some(Slot { turn: Some(turn), .. }) if turn.written.get().is_some() => {
                turn.written.get().and_then(Option::as_ref).map(Error::duplicate)
            }
            _ => {
                inner.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
        };
        let Some(slot) = inner.slots.pop_front() else { return Poll::Pending };
        let what = match (slot.what, failed) {
            (Outgoing::Response(r), Some(e)) => {
                let (grants, touched) = (Vec::new(), Vec::new());
                Outgoing::Response(Response { id: r.id, result: Err(e), grants, touched, usage: None })
            }
            (what, _) => what,
        };
        if let Outgoing::Response(response) = &what {
            inner.calls.remove(&response.id);
        }
        Poll::Ready(what)
    }
}

/// Wakes who waits for the head, with the lock given up.
fn wake(mut inner: MutexGuard<'_, Inner>) {
    let waker = inner.waker.take();
    drop(inner);
    if let Some(waker) = waker {
        waker.wake();
    }
}
