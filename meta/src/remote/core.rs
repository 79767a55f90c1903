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

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use granary_core::waits::{self, Cause};
use granary_core::{Clock, Error, Ino, Kind, NamespaceId, NodeId, Result, SessionId};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::task::JoinHandle;

use super::calls::{self, Calls, Next, Pending, Waiter};
use super::held_locks::End;
use super::namespace::RemoteNamespace;
use super::options::{ClientLimits, SessionWatch};
use super::takeover::TakeOver;
use crate::call::{Answer, Call, Greeting, Had, Held, Hello, Released, Response};
use crate::lease::{LockRequest, Lost};
use crate::types::{VolumeInfo, WriteSettings};
use crate::wire::{pb, response, session};

/// Clocks of two machines do not run quite alike: our lease time ends a hundredth earlier.
const LEASE_MARGIN: u32 = 100;
/// How long a service that was started anew is not called because something kept from before is not dropped.
const DROP_WAIT: Duration = Duration::from_secs(1);

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

fn ns(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
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

    // Calls

    /// A call, until it is answered. Waits for room first.
    pub async fn call(
        &self,
        space: Option<Arc<RemoteNamespace>>,
        ns: NamespaceId,
        call: Call,
    ) -> Result<Answer> {
        let kind = call.kind();
        let answered = async {
            let room = self.room(&call).await?;
            let (tell, told) = oneshot::channel();
            self.submit(space, ns, call, Waiter::One(tell), Some(room));
            told.await.map_err(|_| closed())?
        };
        waits::on(|| Cause::Metadata(kind.as_str()), answered).await
    }

    /// A lock call, which ends with its future.
    pub async fn lock(
        &self,
        space: Option<Arc<RemoteNamespace>>,
        ns: NamespaceId,
        ino: Ino,
        request: LockRequest,
    ) -> Result<()> {
        /// Who asks may go away before the answer comes, or with it on the way to him.
        struct Asking<'a> {
            core: &'a Core,
            space: Option<Arc<RemoteNamespace>>,
            ino: Ino,
            request: LockRequest,
            id: u64,
            told: oneshot::Receiver<Result<Answer>>,
            heard: bool,
        }
        impl Drop for Asking<'_> {
            fn drop(&mut self) {
                if self.heard {
                    return;
                }
                self.told.close();
                match (self.told.try_recv(), &self.space) {
                    (Ok(Ok(_)), Some(space)) => space.lock_unheard(self.ino, &self.request),
                    (Ok(_), _) => {}
                    (Err(_), _) => self.core.with_calls(|calls| calls.cancel(self.id)),
                }
            }
        }
        let call = Call::Lock { ino, request };
        let room = self.room(&call).await?;
        let (tell, told) = oneshot::channel();
        if let Some(space) = &space {
            space.lock_begins(ino, &request);
        }
        let id = self.submit(space.clone(), ns, call, Waiter::One(tell), Some(room));
        let mut asking = Asking { core: self, space, ino, request, id, told, heard: false };
        let answer = (&mut asking.told).await.map_err(|_| closed());
        asking.heard = true;
        match answer?? {
            Answer::Done => Ok(()),
            other => Err(super::namespace::unexpected(&other)),
        }
    }

    async fn room(&self, call: &Call) -> Result<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        if self.closed.load(Ordering::Acquire) {
            return Err(closed());
        }
        let bytes = calls::weight(call).min(self.limits.bytes_max).min(u32::MAX as usize) as u32;
        let one = self.room.clone().acquire_owned().await.map_err(|_| closed())?;
        let some = self.room_bytes.clone().acquire_many_owned(bytes).await.map_err(|_| closed())?;
        Ok((one, some))
    }

    /// Puts a call into the queue. Never waits; may be called under a namespace's lock.
    pub fn submit(
        &self,
        space: Option<Arc<RemoteNamespace>>,
        ns: NamespaceId,
        call: Call,
        waiter: Waiter,
        room: Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>,
    ) -> u64 {
        let pending = Pending::new(space, ns, call, waiter, self.clock.monotonic(), room);
        if self.closed.load(Ordering::Acquire) {
            // Elsewhere, because the namespace's lock may be held.
            self.holders.spawn(async move { fail(pending, closed()) });
            return 0;
        }
        self.with_calls(|calls| calls.submit(pending))
    }

    pub fn release(&self, released: Released) {
        self.with_calls(|calls| calls.release(released));
    }

    /// Alters what is to be sent, and wakes who sends it.
    fn with_calls<T>(&self, change: impl FnOnce(&mut Calls) -> T) -> T {
        let mut calls = lock(&self.calls);
        let result = change(&mut calls);
        let waker = calls.waker();
        drop(calls);
        if let Some(waker) = waker {
            waker.wake();
        }
        result
    }

    /// The next frame of a connection.
    pub fn poll_frame(&self, connection: u64, cx: &mut Context<'_>) -> Poll<Option<pb::ClientFrame>> {
        let mut calls = lock(&self.calls);
        match calls.frame(connection, self.clock.monotonic()) {
            Next::Frame(frame) => Poll::Ready(Some(frame)),
            Next::Over => Poll::Ready(None),
            Next::Nothing => {
                calls.set_waker(cx.waker());
                Poll::Pending
            }
        }
    }

    /// An answer: leases and values are kept first, then who waits is woken.
    pub fn answered(&self, response: Response) {
        let (pending, waker, idle) = {
            let mut calls = lock(&self.calls);
            let (pending, waker) = calls.answered(response.id);
            (pending, waker, calls.len() == 0)
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        if idle {
            self.drained.notify_waiters();
        }
        if let Ok(Answer::Namespace(info)) = &response.result {
            self.settings(info.id, info.write_settings());
        }
        // Given up meanwhile: what it grants is not taken, and what it did is unknown here.
        let Some(pending) = pending else { return };
        if let Some(space) = &pending.space {
            space.apply(&pending, &response, self.is_alive());
        }
        let Pending { space, call, waiter, .. } = pending;
        let Waiter::One(waiter) = waiter else { return };
        let is_done = response.result.is_ok();
        let sent = waiter.send(response.result);
        let Some(space) = space else { return };
        if let Call::Lock { ino, request } = &call {
            let end = if is_done { End::Done { told: sent.is_ok() } } else { End::NotDone };
            space.lock_ended(*ino, request, end);
        } else if let Err(Ok(answer)) = sent {
            space.unclaimed(&call, &answer);
        }
    }

    // Connections

    /// The first words of a connection, and its number.
    pub fn hello(&self) -> (u64, Hello, pb::ClientFrame) {
        let session = lock(&self.life).session;
        let held: Vec<Held> = self.live_spaces().iter().map(|space| space.held()).collect();
        let (name, data_address) = (self.name.clone(), self.data_address.clone());
        let anew = lock(&self.takeover).is_due();
        let hello = Hello { session, node: self.node, name, data_address, held, anew };
        let connection = lock(&self.calls).connect(self.clock.monotonic());
        let frame =
            pb::ClientFrame { number: 1, hello: Some(session::encode_hello(&hello)), ..Default::default() };
        (connection, hello, frame)
    }

    /// The answer to it. From here on calls go out: the first of them tells a service that was started anew that nothing is kept
    /// here from before. `Unavailable`: greet again, the session that another process left is lost.
    pub async fn greeted(&self, hello: &Hello, mut greeting: Greeting) -> Result<()> {
        let (before, restarted) = {
            let life = lock(&self.life);
            let known = life.session.is_some() && !hello.anew;
            (life.session, known && life.incarnation != greeting.incarnation)
        };
        let resumed = before.is_some() && greeting.resumed;
        if hello.anew && resumed {
            self.take_over(greeting.next_call, std::mem::take(&mut greeting.had))?;
        }
        if before.is_some() && !resumed {
            self.fenced("the session was ended while its node was not heard of".into());
        } else if restarted {
            // The service knows of no lease but those that it was told of, and of them only that state is held back.
            self.lose_all().await;
        }
        let last = {
            let mut life = lock(&self.life);
            life.session = Some(greeting.session);
            life.incarnation = greeting.incarnation;
            life.lease_time = greeting.lease_time;
            life.volume = Some(greeting.volume);
            life.ticket_key = greeting.ticket_key;
            life.last.replace(greeting.session)
        };
        let spaces = self.live_spaces();
        let mut first = Vec::new();
        if !resumed || restarted {
            for space in &spaces {
                if let Some(held) = hello.held.iter().find(|held| held.ns == space.id() && resumed) {
                    space.reclaimed(held);
                }
                let call = Call::Namespace { name: space.info().name.clone() };
                let now = self.clock.monotonic();
                first.push(Pending::new(None, NamespaceId(0), call, Waiter::None, now, None));
            }
        }
        let waker = lock(&self.calls).greeted(first);
        if let Some(waker) = waker {
            waker.wake();
        }
        if last != Some(greeting.session)
            && let Some(watch) = &self.on_session
        {
            watch(last, greeting.session);
        }
        Ok(())
    }

    /// Frames up to this one were heard.
    pub fn heard(&self, frame: u64) {
        let sent = lock(&self.calls).heard(frame);
        if let Some(sent) = sent {
            self.renew(sent);
        }
    }

    pub fn connected(&self, url: &str) {
        let now = self.clock.monotonic();
        *lock(&self.link) = Link { url: url.to_owned(), connected: true, since: now, last_error: None };
    }

    pub fn disconnected(&self, url: &str, why: &Error) {
        let waker = lock(&self.calls).disconnect();
        if let Some(waker) = waker {
            waker.wake();
        }
        let mut link = lock(&self.link);
        if std::mem::take(&mut link.connected) {
            link.since = self.clock.monotonic();
        }
        link.url = url.to_owned();
        link.last_error = Some((why.kind(), why.to_string()));
    }

    /// There is another token to show: what was said of the one before does not count any more.
    pub fn new_token(&self) {
        {
            let mut link = lock(&self.link);
            if !link.connected {
                (link.last_error, link.since) = (None, self.clock.monotonic());
            }
        }
        self.cut.notify_one();
    }

    // The session's life

    pub fn is_alive(&self) -> bool {
        ns(self.clock.monotonic()) < self.lease_until.load(Ordering::Acquire)
    }

    pub fn lease_left(&self) -> Duration {
        let until = Duration::from_nanos(self.lease_until.load(Ordering::Acquire));
        until.saturating_sub(self.clock.monotonic())
    }

    fn renew(&self, sent: Duration) {
        self.expire();
        let now = self.clock.monotonic();
        let mut life = lock(&self.life);
        let until = sent + life.lease_time - life.lease_time / LEASE_MARGIN;
        if until > now {
            life.alive = true;
            self.lease_until.fetch_max(ns(until), Ordering::AcqRel);
        }
    }

    /// Notices that the lease time ended: leases that came back to life would be others.
    pub fn expire(&self) {
        if !self.is_alive() && std::mem::take(&mut lock(&self.life).alive) {
            self.tell_lost(Lost::Unheard);
        }
    }

    /// Returns when nothing is kept any more, or after [`DROP_WAIT`]: what is dropped may wait for who waits for the service.
    async fn lose_all(&self) {
        lock(&self.life).alive = false;
        self.lease_until.store(0, Ordering::Release);
        let dropping = futures::future::join_all(self.tell_lost(Lost::Unheard));
        if tokio::time::timeout(DROP_WAIT, dropping).await.is_err() {
            tracing::warn!(
                "what was kept from before the metadata service's start is not dropped yet; it goes on"
            );
        }
    }

    fn tell_lost(&self, why: Lost) -> Vec<JoinHandle<()>> {
        self.live_spaces().iter().filter_map(|space| space.lose(why)).collect()
    }

    /// The service ended the session: nothing of it counts any more.
    pub fn fenced(&self, why: String) {
        let Some(session) = lock(&self.life).session.take() else { return };
        if self.is_leaving() {
            return;
        }
        lock(&self.life).alive = false;
        self.lease_until.store(0, Ordering::Release);
        tracing::warn!(
            "node {} ({}): the metadata service ended session {session}: {why}; locks and open files of it are gone, \
             what was not committed is refused",
            self.name,
            self.node
        );
        *lock(&self.fence) = Some((why, self.clock.monotonic()));
        lock(&self.takeover).lose();
        self.tell_lost(Lost::Fenced);
        let lost = {
            let mut calls = lock(&self.calls);
            calls.forget_releases();
            // What only asks is asked again in the next session. Of what alters, nobody knows whether it was done.
            calls.give_up(|p| match &p.call {
                Call::Commit(_) | Call::Close { .. } | Call::Forget { .. } | Call::Lock { .. } => true,
                call => p.was_sent() && calls::alters(call),
            })
        };
        for pending in lost {
            fail(pending, self.fenced_error("a call"));
        }
    }

    pub fn fenced_error(&self, what: &str) -> Error {
        let (why, ago) = match &*lock(&self.fence) {
            Some((why, at)) => (why.clone(), self.clock.monotonic().saturating_sub(*at)),
            None => ("its session is over".into(), Duration::ZERO),
        };
        let (node, name, url) = (self.node, &self.name, lock(&self.link).url.clone());
        Error::new(
            Kind::Fenced,
            format!(
                "{what} on node {name} ({node}): the metadata service at {url} ended the node's session {:.0} s ago ({why}); \
                 what was written and not yet committed is refused, locks are gone; close the file and open it again",
                ago.as_secs_f64()
            ),
        )
    }

    pub fn fence(&self) -> Option<(String, Duration)> {
        let fence = lock(&self.fence).clone();
        fence.map(|(why, at)| (why, self.clock.monotonic().saturating_sub(at)))
    }

    // Time

    /// What time brings: the end of leases, heartbeats, the end of connections and of calls that nobody answers.
    pub fn tick(&self) {
        self.expire();
        let now = self.clock.monotonic();
        let lease_time = lock(&self.life).lease_time;
        if !lease_time.is_zero() {
            self.tick_connection(now, lease_time);
        }
        self.give_up(now);
        for space in self.live_spaces() {
            space.tell_closed(&mut space.state());
            // The kernel keeps things under leases that nobody here has told it of yet.
            let settled = lock(&self.takeover).is_settled(space.id());
            if settled {
                space.trim();
            }
        }
    }

    fn tick_connection(&self, now: Duration, lease_time: Duration) {
        let left = self.lease_left();
        let mut calls = lock(&self.calls);
        if !calls.is_greeted() {
            return;
        }
        let unheard = calls.unheard_since().map_or(Duration::ZERO, |at| now.saturating_sub(at));
        if unheard >= lease_time {
            drop(calls);
            // Sent, but not heard for so long: the connection is dead, whatever TCP believes.
            return self.cut.notify_one();
        }
        // An answer may be on its way for what was just sent.
        let due = left <= lease_time - lease_time / 3;
        if due && (calls.unheard_since().is_none() || unheard >= lease_time / 6) {
            calls.beat();
            let waker = calls.waker();
            drop(calls);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// Calls that waited for too long without a connection.
    fn give_up(&self, now: Duration) {
        let link = lock(&self.link).clone();
        if link.connected {
            return;
        }
        let wait_max = Duration::from_millis(self.limits.call_wait_ms_max);
        // What is refused is refused at once from then on, not after another wait for each call.
        let refused_max = Duration::from_millis(self.limits.refused_ms_max);
        let refused = matches!(link.last_error, Some((Kind::Denied, _)))
            && now.saturating_sub(link.since) >= refused_max;
        let lost =
            lock(&self.calls).give_up(|p| refused || now.saturating_sub(p.since.max(link.since)) >= wait_max);
        for pending in lost {
            let waited = now.saturating_sub(pending.since);
            fail(pending, self.unavailable(&link, waited));
        }
        if self.waiting_calls() == 0 {
            self.drained.notify_waiters();
        }
    }

    pub fn unavailable(&self, link: &Link, waited: Duration) -> Error {
        let url = &link.url;
        let why = match &link.last_error {
            // What is wrong with the token, or the certificate, does not pass by itself.
            Some((Kind::Denied, why)) => {
                return Error::new(Kind::Denied, format!("the metadata service at {url}: {why}"));
            }
            Some((_, why)) => why.as_str(),
            None => "no answer",
        };
        Error::new(
            Kind::Unavailable,
            format!(
                "the metadata service at {url} has not answered for {:.0} s ({why}); start it, or mend the network, and try again",
                waited.as_secs_f64()
            ),
        )
    }

    /// Waits until no call is under way.
    pub async fn drained(&self) {
        loop {
            let drained = self.drained.notified();
            if self.waiting_calls() == 0 || self.closed.load(Ordering::Acquire) {
                return;
            }
            drained.await;
        }
    }

    /// Asks for the end of the session; `false`: there is no connection.
    pub fn leave(&self) -> bool {
        self.leaving.store(true, Ordering::Release);
        self.with_calls(|calls| {
            calls.leave();
            calls.is_greeted()
        })
    }

    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Acquire)
    }

    /// Ends everything: calls fail from now on.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.room.close();
        self.room_bytes.close();
        self.lease_until.store(0, Ordering::Release);
        let lost = lock(&self.calls).give_up(|_| true);
        lost.into_iter().for_each(|pending| fail(pending, closed()));
        self.stop.send_replace(true);
    }

    // The session of another process

    fn take_over(&self, next_call: u64, had: Vec<Had>) -> Result<()> {
        if next_call == 0 {
            // It would take our calls for those of the other process. A session of our own, next time.
            let why = "the service is too old to go on with it for another process of the node; upgrade the service first";
            self.fenced(why.into());
            return Err(Error::new(Kind::Unavailable, why));
        }
        let left = had.iter().map(|had| had.changed.len()).sum();
        lock(&self.calls).begin_at(next_call, left);
        lock(&self.takeover).begin(had);
        Ok(())
    }

    // Namespaces and what status tells

    pub fn space(self: &Arc<Self>, info: crate::types::NamespaceInfo) -> Arc<RemoteNamespace> {
        let had = lock(&self.takeover).take(info.id);
        let space = self.find_or_make(info);
        if let Some(had) = had {
            space.inherit(had);
        }
        space
    }

    fn find_or_make(self: &Arc<Self>, info: crate::types::NamespaceInfo) -> Arc<RemoteNamespace> {
        let mut spaces = lock(&self.spaces);
        if let Some(space) = spaces.get(&info.id).and_then(Weak::upgrade) {
            return space;
        }
        spaces.retain(|_, space| space.strong_count() > 0);
        let id = info.id;
        let space = RemoteNamespace::new(self.clone(), info);
        if let Some(heard) = lock(&self.settings).get(&id) {
            space.write_settings.store(heard);
        }
        spaces.insert(id, Arc::downgrade(&space));
        space
    }

    /// The service says how a namespace's writes reach the store from now on. Called in the order of its words.
    pub fn settings(&self, ns: NamespaceId, settings: WriteSettings) {
        let spaces = lock(&self.spaces);
        lock(&self.settings).insert(ns, settings);
        if let Some(space) = spaces.get(&ns).and_then(Weak::upgrade) {
            space.write_settings.store(&settings);
        }
    }

    pub fn find_space(&self, id: NamespaceId) -> Option<Arc<RemoteNamespace>> {
        lock(&self.spaces).get(&id).and_then(Weak::upgrade)
    }

    pub fn live_spaces(&self) -> Vec<Arc<RemoteNamespace>> {
        lock(&self.spaces).values().filter_map(Weak::upgrade).collect()
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

/// A call will not be answered.
fn fail(pending: Pending, e: Error) {
    if let Some(space) = &pending.space {
        space.failed(&pending, &e);
        if let (Call::Lock { ino, request }, Waiter::One(_)) = (&pending.call, &pending.waiter) {
            space.lock_ended(*ino, request, End::NotDone);
        }
    }
    if let Waiter::One(waiter) = pending.waiter {
        // Who asked may have gone.
        let _ = waiter.send(Err(e));
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
