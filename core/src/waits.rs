//! What a request waits for, told by those who wait to one who wants to know.
//!
//! Whoever waits for something that may take long says so with [`on`]. Who serves a request and wants to know runs it in
//! [`noted`]; without that nothing is noted, and a wait costs one look at a thread's variable each time that it is not over
//! yet. What is ready at once is never noted.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use crate::Clock;

/// Waits of one request that are remembered; further ones are left out.
const NOTED_MAX: usize = 8;

/// What is waited for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Bytes of an object that has this key.
    Store { object: String },
    /// The metadata service; the call's name.
    Metadata(&'static str),
    /// That the metadata's database is durable.
    MetadataSync,
    /// The lease of the file, which another node has.
    Lease,
    /// The node's disk; what is done there.
    Disk(&'static str),
    /// The node that has the bytes.
    Peer { node: String },
    /// That less is dirty, or the disk has room.
    Room,
    /// That what was written is in the store.
    Upload,
}

impl Cause {
    /// In one word, for programs.
    pub fn name(&self) -> &'static str {
        match self {
            Cause::Store { .. } => "store",
            Cause::Metadata(_) | Cause::MetadataSync => "metadata",
            Cause::Lease => "lease",
            Cause::Disk(_) => "disk",
            Cause::Peer { .. } => "peer",
            Cause::Room => "room",
            Cause::Upload => "upload",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Store { object } => write!(f, "store: GET of {object}"),
            Cause::Metadata(call) => write!(f, "metadata service: {call}"),
            Cause::MetadataSync => f.write_str("metadata: sync of its database"),
            Cause::Lease => f.write_str("lease of the file, which another node has"),
            Cause::Disk(what) => write!(f, "node's disk: {what}"),
            Cause::Peer { node } => write!(f, "node {node}, which has the bytes"),
            Cause::Room => f.write_str("room: too much is not in the store yet"),
            Cause::Upload => f.write_str("store: upload of what was written"),
        }
    }
}

/// One wait: all those for the same thing together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waited {
    pub cause: Cause,
    pub took: Duration,
}

#[derive(Debug)]
struct Entry {
    cause: Cause,
    /// Of those that ended.
    took: Duration,
    /// Since when, and how many wait now.
    since: Duration,
    waiting: u32,
}

/// The waits of one request.
#[derive(Debug)]
pub struct Waits {
    clock: Arc<dyn Clock>,
    /// Guards the list for an addition.
    entries: Mutex<Vec<Entry>>,
}

tokio::task_local! {
    static WAITS: Arc<Waits>;
}

impl Waits {
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Waits> {
        Arc::new(Waits { clock, entries: Mutex::default() })
    }

    /// What was waited for until now, the longest first.
    pub fn list(&self) -> Vec<Waited> {
        let now = self.clock.monotonic();
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let took = |e: &Entry| match e.waiting {
            0 => e.took,
            _ => e.took + now.saturating_sub(e.since),
        };
        let mut all: Vec<_> =
            entries.iter().map(|e| Waited { cause: e.cause.clone(), took: took(e) }).collect();
        all.sort_by_key(|waited| std::cmp::Reverse(waited.took));
        all
    }

    fn begin(self: &Arc<Self>, cause: Cause) -> Option<Begun> {
        let now = self.clock.monotonic();
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let at = match entries.iter().position(|e| e.cause == cause) {
            Some(at) => at,
            None if entries.len() < NOTED_MAX => {
                entries.push(Entry { cause, took: Duration::ZERO, since: now, waiting: 0 });
                entries.len() - 1
            }
            None => return None,
        };
        let entry = &mut entries[at];
        if entry.waiting == 0 {
            entry.since = now;
        }
        entry.waiting += 1;
        Some(Begun { waits: self.clone(), at })
    }
}

/// A wait that is not over; it is when this is dropped, whatever came of it.
struct Begun {
    waits: Arc<Waits>,
    at: usize,
}

impl Drop for Begun {
    fn drop(&mut self) {
        let now = self.waits.clock.monotonic();
        let mut entries = self.waits.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = &mut entries[self.at];
        entry.waiting -= 1;
        if entry.waiting == 0 {
            entry.took += now.saturating_sub(entry.since);
        }
    }
}

/// Notes what `work` waits for, in what it does itself: not in tasks that it starts.
pub fn noted<F: Future>(waits: Arc<Waits>, work: F) -> impl Future<Output = F::Output> {
    WAITS.scope(waits, work)
}

/// The same for one poll of it. A future may be polled first here and then in [`noted`]: what it waits for is noted where it
/// is polled, which for some of what it joins is only here until that is over.
pub fn noted_once<T>(waits: &Arc<Waits>, poll: impl FnOnce() -> T) -> T {
    WAITS.sync_scope(waits.clone(), poll)
}

/// Does `work`, which may wait for `cause`.
pub async fn on<T>(cause: impl FnOnce() -> Cause, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    let (mut cause, mut begun) = (Some(cause), None);
    std::future::poll_fn(|cx| {
        let polled = work.as_mut().poll(cx);
        if polled.is_pending()
            && cause.is_some()
            && let Ok(waits) = WAITS.try_with(Arc::clone)
        {
            begun = cause.take().and_then(|cause| waits.begin(cause()));
        }
        if let Poll::Ready(value) = polled {
            begun = None;
            return Poll::Ready(value);
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TestClock;
    use tokio::sync::oneshot;

    fn store(n: u64) -> Cause {
        Cause::Store { object: format!("o{n}") }
    }

    #[tokio::test]
    async fn what_was_waited_for_is_told_with_its_time() {
        let clock = Arc::new(TestClock::default());
        let waits = Waits::new(clock.clone());
        let (first, first_end) = oneshot::channel::<()>();
        let (second, second_end) = oneshot::channel::<()>();
        let work = noted(waits.clone(), async {
            on(|| Cause::Lease, async {}).await; // ready at once: not noted
            let both = async { tokio::join!(on(|| store(1), first_end), on(|| store(1), second_end)) };
            both.await
        });
        let mut work = pin!(work);
        assert!(futures_poll(work.as_mut()).is_pending());
        clock.advance(Duration::from_millis(3));
        assert_eq!(waits.list(), [Waited { cause: store(1), took: Duration::from_millis(3) }], "so far");
        first.send(()).unwrap();
        assert!(futures_poll(work.as_mut()).is_pending());
        clock.advance(Duration::from_millis(4));
        second.send(()).unwrap();
        assert!(futures_poll(work.as_mut()).is_ready());
        clock.advance(Duration::from_millis(5));
        assert_eq!(waits.list(), [Waited { cause: store(1), took: Duration::from_millis(7) }]);
    }

    fn futures_poll<F: Future>(work: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        work.poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
    }

    #[tokio::test]
    async fn a_wait_that_is_given_up_ends_and_the_list_is_bounded() {
        let clock = Arc::new(TestClock::default());
        let waits = Waits::new(clock.clone());
        for n in 0..20 {
            let mut work = Box::pin(noted(waits.clone(), on(|| store(n), std::future::pending::<()>())));
            assert!(futures_poll(work.as_mut()).is_pending());
            clock.advance(Duration::from_millis(n));
        }
        let list = waits.list();
        assert_eq!(list.len(), NOTED_MAX);
        assert_eq!(list[0], Waited { cause: store(7), took: Duration::from_millis(7) }, "the longest first");
    }

    #[tokio::test]
    async fn without_a_listener_nothing_is_made() {
        let mut work = Box::pin(on(|| unreachable!("nobody wants to know"), std::future::pending::<()>()));
        assert!(futures_poll(work.as_mut()).is_pending());
    }
}
