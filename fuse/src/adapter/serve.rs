//! How a request is served: counted, polled once where it was read, finished there or in a task, and answered once.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use granary_core::{Error, Ino, Kind, Result};

use super::Adapter;
use super::metrics::{Metrics, Op};
use super::report::Reporter;
use crate::transport::Reply;
use crate::transport::interrupts::TooMany;
use crate::vfs::Vfs;

/// What a task that answers later needs.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) vfs: Arc<Vfs>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) reporter: Reporter,
}

/// One request being served.
pub(super) struct Serving {
    op: Op,
    ino: Ino,
    since: Duration,
}

impl Shared {
    pub(super) fn begin(&self, op: Op, ino: Ino) -> Serving {
        self.metrics.begin(op);
        Serving { op, ino, since: self.vfs.clock().monotonic() }
    }

    fn end(&self, serving: &Serving, failed: bool) {
        let took = self.vfs.clock().monotonic().saturating_sub(serving.since);
        self.metrics.end(serving.op, took, failed);
    }

    pub(super) fn finish<T>(
        &self,
        serving: &Serving,
        result: Result<T>,
        reply: Reply,
        ok: impl FnOnce(&Shared, Reply, T),
    ) {
        match result {
            Ok(value) => {
                ok(self, reply, value);
                self.end(serving, false);
            }
            Err(e) => {
                reply.error(self.reporter.report(&e, serving.op, serving.ino.0));
                self.end(serving, e.kind() != Kind::NotFound && e.kind() != Kind::NoAttribute);
            }
        }
    }
}

/// Polls once, with nobody to wake: for work that is ready at once, or is polled again elsewhere.
pub(super) fn poll_once<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

impl Adapter {
    fn poll_here<F: Future + ?Sized>(&self, future: Pin<&mut F>) -> Poll<F::Output> {
        let _runtime = self.runtime.enter();
        poll_once(future)
    }

    /// Runs `work` and answers: here if it is ready at once, else in a task.
    pub(super) fn answer<T: Send + 'static>(
        &self,
        op: Op,
        ino: Ino,
        reply: Reply,
        work: impl Future<Output = Result<T>> + Send + 'static,
        ok: impl FnOnce(&Shared, Reply, T) + Send + 'static,
    ) {
        let serving = self.shared.begin(op, ino);
        let mut work = Box::pin(work);
        match self.poll_here(work.as_mut()) {
            Poll::Ready(result) => self.shared.finish(&serving, result, reply, ok),
            Poll::Pending => self.spawn(serving, reply, work, ok),
        }
    }

    /// Answers in a task.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        serving: Serving,
        reply: Reply,
        work: impl Future<Output = Result<T>> + Send + 'static,
        ok: impl FnOnce(&Shared, Reply, T) + Send + 'static,
    ) {
        let shared = self.shared.clone();
        // Known as waiting or not, it is answered when it is done.
        let waiting = reply.waits(false);
        self.runtime.spawn(async move {
            let result = work.await;
            shared.finish(&serving, result, reply, ok);
            drop(waiting);
        });
    }

    /// The same for work that may wait for ever: an interrupted program gets EINTR. Work that is dropped while it waits
    /// must have done nothing.
    pub(super) fn answer_or_interrupt<T: Send + 'static>(
        &self,
        op: Op,
        ino: Ino,
        reply: Reply,
        work: impl Future<Output = Result<T>> + Send + 'static,
        ok: impl FnOnce(&Shared, Reply, T) + Send + 'static,
    ) {
        let serving = self.shared.begin(op, ino);
        let mut work = Box::pin(work);
        if let Poll::Ready(result) = self.poll_here(work.as_mut()) {
            return self.shared.finish(&serving, result, reply, ok);
        }
        let waiting = match reply.waits(true) {
            Ok(waiting) => waiting,
            Err(TooMany) => {
                self.shared.end(&serving, true);
                return reply.error(libc::ENOLCK);
            }
        };
        let shared = self.shared.clone();
        self.runtime.spawn(async move {
            let result = tokio::select! {
                biased; // what is got is not given back
                result = &mut work => result,
                () = waiting.interrupted() => {
                    Err(Error::new(Kind::Interrupted, "the program stopped waiting"))
                }
            };
            drop(work);
            shared.finish(&serving, result, reply, ok);
            drop(waiting);
        });
    }

    /// The same where nothing is ever waited for.
    pub(super) fn answer_now<T>(
        &self,
        op: Op,
        ino: Ino,
        reply: Reply,
        result: impl FnOnce() -> Result<T>,
        ok: impl FnOnce(&Shared, Reply, T),
    ) {
        let serving = self.shared.begin(op, ino);
        self.shared.finish(&serving, result(), reply, ok);
    }
}
