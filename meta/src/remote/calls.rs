//! The calls of a session that are under way, and what waits to be sent: plain data, guarded by the client.
//!
//! A call stays until it is answered, over as many connections as that takes: after each new one all that are left are
//! sent again, in order, with their numbers, so that the service does none twice. What was sent on a connection is
//! counted by frames; the service says up to which it heard, and what of releases came after that is said again too.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use granary_core::{Error, NamespaceId, Result};
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::namespace::RemoteNamespace;
use crate::call::{Answer, Call, Released};
use crate::wire::bounds::{FRAME_BYTES_SOFT, FRAME_ITEMS_MAX};
use crate::wire::{pb, request, response};

/// Frames whose time of sending is remembered until they are heard.
const UNHEARD_FRAMES_MAX: usize = 4096;

/// Who is told of the answer.
#[derive(Debug)]
pub(super) enum Waiter {
    One(oneshot::Sender<Result<Answer>>),
    /// Nobody, or those that the namespace knows of.
    None,
}

#[derive(Debug)]
pub(super) struct Pending {
    /// `None`: of the volume.
    pub space: Option<Arc<RemoteNamespace>>,
    pub ns: NamespaceId,
    pub call: Call,
    pub waiter: Waiter,
    /// When it was asked.
    pub since: Duration,
    /// Room for calls and bytes, until it is answered.
    _room: Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>,
    /// On which connection it was sent last; 0: not yet.
    sent_on: u64,
    /// It was sent on an earlier connection too.
    pub again: bool,
}

impl Pending {
    pub fn new(
        space: Option<Arc<RemoteNamespace>>,
        ns: NamespaceId,
        call: Call,
        waiter: Waiter,
        since: Duration,
        room: Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>,
    ) -> Pending {
        Pending { space, ns, call, waiter, since, _room: room, sent_on: 0, again: false }
    }

    pub fn was_sent(&self) -> bool {
        self.sent_on != 0
    }
}

#[derive(Clone, Copy, Debug)]
enum Item {
    Request(u64),
    Released(Released),
    Cancel(u64),
}

/// Answers left by processes before this one that are not confirmed at once; half of what a service remembers for a session.
const LEFT_MAX: usize = 4096;

#[derive(Debug)]
pub(super) struct Calls {
    next_id: u64,
    pending: BTreeMap<u64, Pending>,
    /// Those of them whose answers the service remembers until they are confirmed.
    unconfirmed: BTreeSet<u64>,
    /// Those whose answers came and are confirmed late, and how many there may be.
    late: VecDeque<u64>,
    late_max: usize,
    queue: VecDeque<Item>,
    /// Calls sent on this connection that were not answered, and how many there may be.
    under_way: usize,
    under_way_max: usize,
    /// With the frame that said it; 0: none yet on this connection.
    released: VecDeque<(u64, Released)>,
    /// Calls that must be answered before any other is sent.
    first: HashSet<u64>,
    gated: bool,
    beat: bool,
    leaving: bool,
    frame: u64,
    sent: VecDeque<(u64, Duration)>,
    /// Counts connections. The stream of an earlier one ends.
    connection: u64,
    /// The connection was greeted: calls may be sent.
    greeted: bool,
    waker: Option<Waker>,
}

/// What to send on a connection.
#[derive(Debug)]
pub(super) enum Next {
    Frame(pb::ClientFrame),
    Nothing,
    /// Another connection took over, or it was cut.
    Over,
}

impl Calls {
    pub fn new(under_way_max: usize, late_max: usize) -> Calls {
        Calls {
            next_id: 1,
            pending: BTreeMap::new(),
            unconfirmed: BTreeSet::new(),
            late: VecDeque::new(),
            late_max,
            queue: VecDeque::new(),
            under_way: 0,
            under_way_max,
            released: VecDeque::new(),
            first: HashSet::new(),
            gated: false,
            beat: false,
            leaving: false,
            frame: 0,
            sent: VecDeque::new(),
            connection: 0,
            greeted: false,
            waker: None,
        }
    }

    pub fn len(&self) -> usize {
        self.pending.len()
    }

    /// Numbers below this one are another process's, which left so many answers (about) unconfirmed. They stay so until as many of our
    /// own came as are confirmed late: what the kernel asks again of that process may be under way when this one ends, too.
    pub fn begin_at(&mut self, id: u64, left: usize) {
        self.next_id = self.next_id.max(id);
        // Of many processes one after another not more than the service remembers.
        if id > 1 && self.late_max > 0 && left <= LEFT_MAX {
            self.unconfirmed.insert(1);
            self.late.push_back(1);
        }
    }

    pub fn is_greeted(&self) -> bool {
        self.greeted
    }

    pub fn submit(&mut self, pending: Pending) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        if pending.call.changes() {
            self.unconfirmed.insert(id);
        }
        self.pending.insert(id, pending);
        self.queue.push_back(Item::Request(id));
        id
    }

    pub fn release(&mut self, released: Released) {
        self.queue.push_back(Item::Released(released));
    }

    pub fn cancel(&mut self, id: u64) {
        if self.pending.contains_key(&id) {
            self.queue.push_back(Item::Cancel(id));
        }
    }

    pub fn beat(&mut self) {
        self.beat = true;
    }

    /// The session is to be ended, with the next frame.
    pub fn leave(&mut self) {
        self.leaving = true;
    }

    /// Who is to be woken to send.
    pub fn waker(&mut self) -> Option<Waker> {
        if self.greeted { self.waker.take() } else { None }
    }

    pub fn set_waker(&mut self, waker: &Waker) {
        if !self.waker.as_ref().is_some_and(|w| w.will_wake(waker)) {
            self.waker = Some(waker.clone());
        }
    }

    /// Begins a connection; nothing but its first frame is sent until it is greeted.
    pub fn connect(&mut self, now: Duration) -> u64 {
        self.disconnect();
        self.frame = 1;
        self.sent.push_back((1, now));
        self.connection
    }

    /// The connection is over. Its stream ends at the next look.
    pub fn disconnect(&mut self) -> Option<Waker> {
        self.connection += 1;
        self.greeted = false;
        self.sent.clear();
        self.under_way = 0;
        self.waker.take()
    }

    /// The connection was greeted: all that is left is to be said again. `first` are calls that open namespaces, without
    /// which the service knows of none.
    pub fn greeted(&mut self, first: Vec<Pending>) -> Option<Waker> {
        let waiting: Vec<Released> = self
            .queue
            .iter()
            .filter_map(|item| match item {
                Item::Released(released) => Some(*released),
                _ => None,
            })
            .collect();
        let cancelled: Vec<u64> = self
            .queue
            .iter()
            .filter_map(|item| match item {
                Item::Cancel(id) => Some(*id),
                _ => None,
            })
            .collect();
        self.queue.clear();
        let said = std::mem::take(&mut self.released).into_iter().map(|(_, released)| released);
        self.queue.extend(said.chain(waiting).map(Item::Released));
        for pending in self.pending.values_mut() {
            pending.again |= pending.was_sent();
        }
        self.queue.extend(self.pending.keys().map(|id| Item::Request(*id)));
        self.queue.extend(cancelled.into_iter().map(Item::Cancel));
        self.first.clear();
        for pending in first {
            let id = self.next_id;
            self.next_id += 1;
            self.pending.insert(id, pending);
            self.first.insert(id);
            self.queue.push_front(Item::Request(id));
        }
        self.gated = !self.first.is_empty();
        self.greeted = true;
        self.waker.take()
    }

    /// The releases that the old session owed concern nobody any more.
    pub fn forget_releases(&mut self) {
        self.released.clear();
        self.queue.retain(|item| !matches!(item, Item::Released(_)));
    }

    /// The next frame of this connection, with whatever waits.
    pub fn frame(&mut self, connection: u64, now: Duration) -> Next {
        if connection != self.connection {
            return Next::Over;
        }
        if !self.greeted {
            return Next::Nothing;
        }
        let (mut items, mut bytes) = (Vec::new(), 0);
        while items.len() < FRAME_ITEMS_MAX && bytes < FRAME_BYTES_SOFT {
            let Some(item) = self.next_item() else { break };
            // A large call goes alone rather than making a frame that is too long.
            let len = item.encoded_len();
            bytes += len;
            items.push(item);
        }
        if items.is_empty() && !self.beat && !self.leaving {
            return Next::Nothing;
        }
        self.beat = false;
        self.frame += 1;
        for (frame, _) in self.released.iter_mut().rev().take_while(|(frame, _)| *frame == 0) {
            *frame = self.frame;
        }
        if self.sent.len() < UNHEARD_FRAMES_MAX {
            self.sent.push_back((self.frame, now));
        }
        let leave = std::mem::take(&mut self.leaving);
        Next::Frame(pb::ClientFrame { number: self.frame, hello: None, items, leave })
    }

    fn next_item(&mut self) -> Option<pb::ClientItem> {
        loop {
            let item = *self.queue.front()?;
            let wire = match item {
                Item::Request(id) => {
                    if self.under_way >= self.under_way_max || (self.gated && !self.first.contains(&id)) {
                        return None;
                    }
                    self.request(id).map(pb::client_item::Item::Request)
                }
                Item::Released(released) => {
                    self.released.push_back((0, released));
                    Some(pb::client_item::Item::Released(response::encode_released(&released)))
                }
                Item::Cancel(id) => {
                    self.pending.contains_key(&id).then_some(pb::client_item::Item::Cancel(id))
                }
            };
            self.queue.pop_front();
            if let Some(item) = wire {
                return Some(pb::ClientItem { item: Some(item) });
            }
        }
    }

    /// `None`: it was given up.
    fn request(&mut self, id: u64) -> Option<pb::Request> {
        let acked_below = self.unconfirmed.first().map_or(id, |first| id.min(*first));
        let pending = self.pending.get_mut(&id)?;
        pending.sent_on = self.connection;
        self.under_way += 1;
        let call = request::encode_call(&pending.call);
        Some(pb::Request { id, unacked: id.saturating_sub(acked_below), ns: pending.ns.0, call: Some(call) })
    }

    /// The service heard this frame: when it was sent.
    pub fn heard(&mut self, frame: u64) -> Option<Duration> {
        let mut at = None;
        while let Some((number, sent)) = self.sent.front().copied().filter(|(number, _)| *number <= frame) {
            debug_assert!(number <= frame);
            at = Some(sent);
            self.sent.pop_front();
        }
        while self.released.front().is_some_and(|(said, _)| *said != 0 && *said <= frame) {
            self.released.pop_front();
        }
        at
    }

    /// When the oldest frame was sent that was not heard.
    pub fn unheard_since(&self) -> Option<Duration> {
        self.sent.front().map(|(_, at)| *at)
    }

    /// A call is answered; and who is to be woken, because more may be sent now.
    pub fn answered(&mut self, id: u64) -> (Option<Pending>, Option<Waker>) {
        let Some(pending) = self.pending.remove(&id) else { return (None, None) };
        if self.unconfirmed.contains(&id) {
            self.late.push_back(id);
            while self.late.len() > self.late_max {
                let confirmed = self.late.pop_front();
                confirmed.map(|id| self.unconfirmed.remove(&id));
            }
        }
        let was_full = self.under_way >= self.under_way_max;
        if pending.sent_on == self.connection {
            self.under_way -= 1;
        }
        let mut more = was_full;
        if self.first.remove(&id) && self.first.is_empty() {
            self.gated = false;
            more = true;
        }
        let waker = if more && !self.queue.is_empty() { self.waker() } else { None };
        (Some(pending), waker)
    }

    /// Takes out the calls that will not be waited for any more.
    pub fn give_up(&mut self, which: impl Fn(&Pending) -> bool) -> Vec<Pending> {
        let ids: Vec<u64> = self.pending.iter().filter(|(_, p)| which(p)).map(|(id, _)| *id).collect();
        ids.into_iter().filter_map(|id| self.answered(id).0).collect()
    }
}

/// What a call needs of the room for bytes, roughly.
pub(super) fn weight(call: &Call) -> usize {
    let extra = match call {
        Call::Commit(c) => (c.extents.len() + c.holes.len()) * 48,
        Call::Relocate { moves, .. } => moves.len() * 64,
        Call::KeepInline { copies, .. } => copies.iter().map(|copy| copy.bytes.len() + 32).sum(),
        Call::Live { staged } => staged.len() * 56,
        Call::ForgetObjects { ids } => ids.len() * 16,
        Call::SetXattr { value, .. } => value.len(),
        Call::Forget { scopes } => scopes.len() * 10,
        Call::Close { inos } => inos.len() * 10,
        _ => 0,
    };
    256 + extra
}

/// Whether the session is another after the call was done.
pub(super) fn alters(call: &Call) -> bool {
    let counts =
        matches!(call, Call::Open { .. } | Call::Close { .. } | Call::Lock { .. } | Call::Forget { .. });
    counts || call.changes()
}

impl Drop for Calls {
    /// Nobody will answer.
    fn drop(&mut self) {
        for (_, pending) in std::mem::take(&mut self.pending) {
            if let Waiter::One(waiter) = pending.waiter {
                let e = Error::new(granary_core::Kind::Unavailable, "the metadata client was closed");
                // Who asked may have gone.
                let _ = waiter.send(Err(e));
            }
        }
    }
}
