//! How a request is served: counted, polled once where it was read, finished there or in a task, and answered once.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use fuser::{
    Errno, INodeNo, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty,
    ReplyEntry, ReplyLseek, ReplyOpen, ReplyWrite, ReplyXattr,
};
use granary_core::{Kind, Result};

use super::Adapter;
use super::metrics::{Metrics, Op};
use super::report::Reporter;
use crate::vfs::Vfs;

/// What a task that answers later needs.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) vfs: Arc<Vfs>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) reporter: Reporter,
}

/// A reply that can carry an error: all of them.
pub(super) trait Fails: Send + 'static {
    fn fail(self, errno: Errno);
}

macro_rules! fails {
    ($($reply:ty),*) => { $(impl Fails for $reply {
        fn fail(self, errno: Errno) {
            self.error(errno);
        }
    })* };
}

fails!(
    ReplyAttr,
    ReplyCreate,
    ReplyData,
    ReplyDirectory,
    ReplyDirectoryPlus,
    ReplyEmpty,
    ReplyEntry,
    ReplyLseek,
    ReplyOpen
);
fails!(ReplyWrite, ReplyXattr);

/// One request being served.
pub(super) struct Serving {
    op: Op,
    ino: u64,
    since: Duration,
}

impl Shared {
    pub(super) fn begin(&self, op: Op, ino: INodeNo) -> Serving {
        self.metrics.begin(op);
        Serving { op, ino: ino.0, since: self.vfs.clock().monotonic() }
    }

    pub(super) fn end(&self, serving: &Serving, failed: bool) {
        let took = self.vfs.clock().monotonic().saturating_sub(serving.since);
        self.metrics.end(serving.op, took, failed);
    }

    pub(super) fn finish<T, R: Fails>(
        &self,
        serving: &Serving,
        result: Result<T>,
        reply: R,
        ok: impl FnOnce(R, T),
    ) {
        match result {
            Ok(value) => {
                ok(reply, value);
                self.end(serving, false);
            }
            Err(e) => {
                reply.fail(self.reporter.report(&e, serving.op, serving.ino));
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
    /// Runs `work` and answers: here if it is ready at once, else in a task.
    pub(super) fn answer<T, R, W>(
        &self,
        op: Op,
        ino: INodeNo,
        reply: R,
        work: W,
        ok: impl FnOnce(R, T) + Send + 'static,
    ) where
        T: Send + 'static,
        R: Fails,
        W: Future<Output = Result<T>> + Send + 'static,
    {
        let serving = self.shared.begin(op, ino);
        let mut work = Box::pin(work);
        let polled = {
            let _runtime = self.runtime.enter();
            poll_once(work.as_mut())
        };
        match polled {
            Poll::Ready(result) => self.shared.finish(&serving, result, reply, ok),
            Poll::Pending => {
                let shared = self.shared.clone();
                self.runtime.spawn(async move {
                    let result = work.await;
                    shared.finish(&serving, result, reply, ok);
                });
            }
        }
    }

    /// The same where nothing is ever waited for.
    pub(super) fn answer_now<T, R: Fails>(
        &self,
        op: Op,
        ino: INodeNo,
        reply: R,
        result: impl FnOnce() -> Result<T>,
        ok: impl FnOnce(R, T),
    ) {
        let serving = self.shared.begin(op, ino);
        self.shared.finish(&serving, result(), reply, ok);
    }

    pub(super) fn answer_listing<R: Fails>(
        &self,
        op: Op,
        ino: INodeNo,
        work: impl Future<Output = Result<(R, Result<()>)>> + Send + 'static,
        ok: impl FnOnce(R) + Send + 'static,
    ) {
        let shared = self.shared.clone();
        self.answer(op, ino, NoReply, work, move |NoReply, (reply, listed)| match listed {
            Ok(()) => ok(reply),
            Err(e) => reply.fail(shared.reporter.report(&e, op, ino.0)),
        });
    }
}

/// Stands where the reply is in the work itself.
struct NoReply;

impl Fails for NoReply {
    fn fail(self, _errno: Errno) {}
}
