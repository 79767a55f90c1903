//! How a request is served: counted, polled once where it was read, finished there or in a task, and answered once.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use granary_core::waits::{self, Waits};
use granary_core::{Error, Ino, Kind, Result};

use super::Adapter;
use super::metrics::{Metrics, Op};
use super::report::Reporter;
use super::trace::Traced;
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
    /// It is answered in a task.
    waits: bool,
    /// While somebody watches.
    traced: Option<Box<Traced>>,
}

/// How a request ended.
enum Ended {
    Done,
    /// With this errno, which may be the answer that was asked for: a name that is absent.
    Failed {
        errno: i32,
        plainly_absent: bool,
    },
}

impl Shared {
    pub(super) fn begin(&self, op: Op, ino: Ino) -> Serving {
        self.metrics.begin(op);
        let clock = self.vfs.clock();
        let traced = self.metrics.trace().begin(clock);
        Serving { op, ino, since: clock.monotonic(), waits: false, traced }
    }

    /// It goes on in a task.
    fn waits(&self, serving: &mut Serving) -> Option<Arc<Waits>> {
        serving.waits = true;
        self.metrics.waits(serving.op, serving.since);
        serving.traced.as_ref().map(|traced| traced.waits.clone())
    }

    fn end(&self, serving: &Serving, ended: Ended) {
        let clock = self.vfs.clock();
        let took = clock.monotonic().saturating_sub(serving.since);
        if serving.waits {
            self.metrics.waited(serving.op, serving.since, took);
        }
        let (errno, failed) = match ended {
            Ended::Done => (None, false),
            Ended::Failed { errno, plainly_absent } => (Some(errno), !plainly_absent),
        };
        self.metrics.end(serving.op, took, failed);
        if let Some(traced) = &serving.traced {
            self.metrics.trace().end(traced, serving.op, serving.ino, took, errno, &**clock);
        }
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
                self.end(serving, Ended::Done);
            }
            Err(e) => {
                let errno = self.reporter.report(&e, serving.op, serving.ino.0);
                reply.error(errno);
                let plainly_absent = matches!(e.kind(), Kind::NotFound | Kind::NoAttribute);
                self.end(serving, Ended::Failed { errno, plainly_absent });
            }
        }
    }
}

/// Polls once, with nobody to wake: for work that is ready at once, or is polled again elsewhere.
pub(super) fn poll_once<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Does `work`, and notes what it waits for when somebody wants to know.
async fn noted<F: Future>(waits: Option<Arc<Waits>>, work: F) -> F::Output {
    match waits {
        Some(waits) => waits::noted(waits, work).await,
        None => work.await,
    }
}

impl Adapter {
    fn poll_here<F: Future + ?Sized>(&self, serving: &Serving, future: Pin<&mut F>) -> Poll<F::Output> {
        let _runtime = self.runtime.enter();
        match &serving.traced {
            Some(traced) => waits::noted_once(&traced.waits, || poll_once(future)),
            None => poll_once(future),
        }
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
        match self.poll_here(&serving, work.as_mut()) {
            Poll::Ready(result) => self.shared.finish(&serving, result, reply, ok),
            Poll::Pending => self.spawn(serving, reply, work, ok),
        }
    }

    /// Answers in a task.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        mut serving: Serving,
        reply: Reply,
        work: impl Future<Output = Result<T>> + Send + 'static,
        ok: impl FnOnce(&Shared, Reply, T) + Send + 'static,
    ) {
        let shared = self.shared.clone();
        let waits = shared.waits(&mut serving);
        // Known as waiting or not, it is answered when it is done.
        let waiting = reply.waits(false);
        self.runtime.spawn(async move {
            let result = noted(waits, work).await;
            shared.finish(&serving, result, reply, ok);
            drop(waiting);
        });
    }

    /// As `answer`, where `first` may wait for ever: of a program that is being killed it is given up, and `work` never begins. Both are
    /// polled here once, one after the other.
    pub(super) fn answer_after<T: Send + 'static>(
        &self,
        op: Op,
        ino: Ino,
        reply: Reply,
        first: impl Future<Output = Result<()>> + Send + 'static,
        work: impl Future<Output = Result<T>> + Send + 'static,
        ok: impl FnOnce(&Shared, Reply, T) + Send + 'static,
    ) {
        let serving = self.shared.begin(op, ino);
        let (mut first, mut work) = (Box::pin(first), Box::pin(work));
        match self.poll_here(&serving, first.as_mut()) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(e)) => return self.shared.finish(&serving, Err(e), reply, ok),
            Poll::Pending => return self.spawn_after(serving, reply, first, work, ok),
        }
        match self.poll_here(&serving, work.as_mut()) {
            Poll::Ready(result) => self.shared.finish(&serving, result, reply, ok),
            Poll::Pending => self.spawn(serving, reply, work, ok),
        }
    }

    /// The same in a task.
    pub(super) fn spawn_after<T: Send + 'static>(
        &self,
        mut serving: Serving,
        reply: Reply,
        first: impl Future<Output = Result<()>> + Send + 'static,
        work: impl Future<Output = Result<T>> + Send + 'static,
        ok: impl FnOnce(&Shared, Reply, T) + Send + 'static,
    ) {
        let shared = self.shared.clone();
        let waits = shared.waits(&mut serving);
        // Of too many the others wait as long as it takes.
        let waiting = reply.waits(true).or_else(|TooMany| reply.waits(false));
        self.runtime.spawn(async move {
            let killed = async {
                match &waiting {
                    Ok(waiting) => waiting.killed().await,
                    Err(TooMany) => std::future::pending().await,
                }
            };
            let work = async {
                tokio::select! {
                    biased;
                    ready = first => ready?,
                    () = killed => {
                        return Err(Error::new(Kind::Interrupted, "the program was killed while it waited for room"));
                    }
                }
                work.await
            };
            let result = noted(waits, work).await;
            shared.finish(&serving, result, reply, ok);
            drop(waiting);
        });
    }

    /// As `answer` for work that may wait for ever: an interrupted program gets EINTR. Work that is dropped while it waits
    /// must have done nothing.
    pub(super) fn answer_or_interrupt<T: Send + 'static>(
        &self,
        op: Op,
        ino: Ino,
        reply: Reply,
        work: impl Future<Output = Result<T>> + Send + 'static,
        ok: impl FnOnce(&Shared, Reply, T) + Send + 'static,
    ) {
        let mut serving = self.shared.begin(op, ino);
        let mut work = Box::pin(work);
        if let Poll::Ready(result) = self.poll_here(&serving, work.as_mut()) {
            return self.shared.finish(&serving, result, reply, ok);
        }
        let waiting = match reply.waits(true) {
            Ok(waiting) => waiting,
            Err(TooMany) => {
                self.shared.end(&serving, Ended::Failed { errno: libc::ENOLCK, plainly_absent: false });
                return reply.error(libc::ENOLCK);
            }
        };
        let shared = self.shared.clone();
        let waits = shared.waits(&mut serving);
        self.runtime.spawn(async move {
            let result = tokio::select! {
                biased; // what is got is not given back
                result = noted(waits, &mut work) => result,
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
