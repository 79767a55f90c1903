//! Calls on their way: room for them, the queue, and what becomes of an answer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use granary_core::waits::{self, Cause};
use granary_core::{Error, Ino, NamespaceId, Result};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{Core, closed, lock};
use crate::call::{Answer, Call, Released, Response};
use crate::lease::LockRequest;
use crate::remote::calls::{self, Calls, Next, Pending, Waiter};
use crate::remote::held_locks::End;
use crate::remote::namespace::{self, RemoteNamespace};
use crate::wire::pb;

impl Core {
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
            other => Err(namespace::unexpected(&other)),
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
    pub(super) fn with_calls<T>(&self, change: impl FnOnce(&mut Calls) -> T) -> T {
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
}

/// A call will not be answered.
pub(super) fn fail(pending: Pending, e: Error) {
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
