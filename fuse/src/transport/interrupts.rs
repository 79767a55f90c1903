//! Which requests wait, so that an INTERRUPT can end one of them.
//!
//! A signal to a program whose request was read makes the kernel send INTERRUPT with the request's number, on whichever
//! descriptor is read next; it may be seen before the request itself is known here, or after its answer. So:
//!
//! | the request | what is done |
//! |---|---|
//! | waits, and may be interrupted | it is told, and answers EINTR |
//! | waits, and may not | nothing: it will be answered |
//! | is being served on the thread that read it | the interrupt is kept until that is over or the request waits |
//! | is not known: not yet, or not any more | EAGAIN: the kernel sends the INTERRUPT again if the request is still there |
//!
//! EAGAIN is for requests that were read of `/dev/fuse`; of those that come over a ring the kernel knows nothing there. So
//! where there are rings the last interrupts of requests that are not known are remembered here, for when they come to wait. Of
//! requests that were interrupted before they came the kernel says nothing: [`super::caller`] is looked at.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::{Channel, caller};

/// Requests that wait at once; later ones that could be interrupted are refused (ENOLCK), others wait without being known.
const WAITING_MAX: usize = 1 << 16;

/// The same where there are rings, whose memory each waiting request keeps an entry of.
pub(super) const RINGS_WAITING_MAX: usize = 1 << 12;
/// Interrupts of requests that are not known, remembered at once. Between a request's completion and its waiting there are
/// microseconds; most that are remembered were answered before.
const UNSEEN_MAX: usize = 256;

/// No more requests can wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

/// What came of an INTERRUPT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    /// To be answered EAGAIN.
    Unknown,
}

#[derive(Debug)]
enum State {
    /// Waits; told through this, where it may be interrupted.
    Waits(Option<Arc<Notify>>),
    /// Interrupted while it is being served.
    Early,
}

/// One connection's requests.
#[derive(Debug)]
pub(crate) struct Interrupts {
    /// Guards the table, for a few instructions. Requests that are answered at once never come here.
    table: Mutex<HashMap<u64, State>>,
    /// Per reading thread: the request that it serves, 0 for none.
    serving: Vec<AtomicU64>,
    /// How many [`State::Early`] there are or are about to be. Raised before `serving` is looked at and read after
    /// `serving` is cleared, so that one of the two threads sees the other.
    early: AtomicUsize,
    waiting_max: usize,
    /// Guards the interrupts of requests that were not known, the last ones; only where there are rings. Taken under `table`.
    unseen: Option<Mutex<VecDeque<u64>>>,
}

impl Interrupts {
    pub(super) fn new(readers: usize) -> Interrupts {
        Interrupts {
            table: Mutex::default(),
            serving: (0..readers).map(|_| AtomicU64::new(0)).collect(),
            early: AtomicUsize::new(0),
            waiting_max: WAITING_MAX,
            unseen: None,
        }
    }

    /// The same where requests come over rings as well.
    pub(super) fn of_rings(readers: usize) -> Interrupts {
        let unseen = Some(Mutex::new(VecDeque::with_capacity(UNSEEN_MAX)));
        Interrupts { waiting_max: RINGS_WAITING_MAX, unseen, ..Interrupts::new(readers) }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, State>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A reading thread begins to serve a request.
    pub(super) fn begin(&self, reader: usize, unique: u64) {
        self.serving[reader].store(unique, Ordering::SeqCst);
    }

    /// It is done with it: the request was answered, or waits elsewhere.
    pub(super) fn end(&self, reader: usize, unique: u64) {
        self.serving[reader].store(0, Ordering::SeqCst);
        if self.early.load(Ordering::SeqCst) > 0 {
            let mut table = self.lock();
            if let Entry::Occupied(entry) = table.entry(unique)
                && matches!(entry.get(), State::Early)
            {
                entry.remove();
                self.early.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }

    pub(super) fn interrupt(&self, unique: u64) -> Outcome {
        let mut table = self.lock();
        match table.get(&unique) {
            Some(State::Waits(Some(tell))) => {
                // Keeps until it is waited for; a second one changes nothing.
                tell.notify_one();
                return Outcome::Done;
            }
            Some(State::Waits(None) | State::Early) => return Outcome::Done,
            None => {}
        }
        self.early.fetch_add(1, Ordering::SeqCst);
        if self.serving.iter().any(|serving| serving.load(Ordering::SeqCst) == unique) {
            table.insert(unique, State::Early);
            return Outcome::Done;
        }
        self.early.fetch_sub(1, Ordering::SeqCst);
        if let Some(unseen) = &self.unseen {
            let mut unseen = unseen.lock().unwrap_or_else(PoisonError::into_inner);
            if unseen.len() == UNSEEN_MAX {
                unseen.pop_front();
            }
            unseen.push_back(unique);
            return Outcome::Done;
        }
        // Where not all that wait are known, asking the kernel to send it again would never end.
        if table.len() >= self.waiting_max { Outcome::Done } else { Outcome::Unknown }
    }

    fn wait(&self, unique: u64, interruptible: bool) -> Result<Option<Arc<Notify>>, TooMany> {
        let tell = interruptible.then(Arc::<Notify>::default);
        let mut table = self.lock();
        if let Some(State::Early) = table.get(&unique) {
            self.early.fetch_sub(1, Ordering::SeqCst);
            if let Some(tell) = &tell {
                tell.notify_one();
            }
        } else if self.was_unseen(unique)
            && let Some(tell) = &tell
        {
            tell.notify_one();
        } else if table.len() >= self.waiting_max {
            return Err(TooMany);
        }
        table.insert(unique, State::Waits(tell.clone()));
        Ok(tell)
    }

    /// Whether it was interrupted before it was known.
    fn was_unseen(&self, unique: u64) -> bool {
        let Some(unseen) = &self.unseen else { return false };
        let mut unseen = unseen.lock().unwrap_or_else(PoisonError::into_inner);
        let at = unseen.iter().position(|&seen| seen == unique);
        at.and_then(|at| unseen.remove(at)).is_some()
    }

    fn over(&self, unique: u64) {
        self.lock().remove(&unique);
    }
}

/// A request that waits; over when dropped.
#[derive(Debug)]
pub struct Waiting {
    channel: Arc<dyn Channel>,
    unique: u64,
    /// The thread that waits for the answer.
    caller: u32,
    tell: Option<Arc<Notify>>,
}

impl Waiting {
    pub(super) fn begin(
        channel: Arc<dyn Channel>,
        unique: u64,
        caller: u32,
        interruptible: bool,
    ) -> Result<Waiting, TooMany> {
        let tell = channel.interrupts().wait(unique, interruptible)?;
        Ok(Waiting { channel, unique, caller, tell })
    }

    /// Returns when the program is to wait no longer. Never, for a request that may not be interrupted.
    pub async fn interrupted(&self) {
        match &self.tell {
            Some(tell) if self.channel.is_ring() => {
                tokio::select! {
                    () = tell.notified() => {}
                    () = caller::had_a_signal(self.caller) => {}
                }
            }
            Some(tell) => tell.notified().await,
            None => std::future::pending().await,
        }
    }
}

impl Waiting {
    /// Returns when the program is being killed. Never, for a request that may not be interrupted, or of a program that cannot be seen.
    pub async fn killed(&self) {
        self.interrupted().await;
        caller::is_being_killed(self.caller).await;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.channel.interrupts().over(self.unique);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_told(tell: &Notify) -> bool {
        let mut notified = std::pin::pin!(tell.notified());
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        notified.as_mut().poll(&mut cx).is_ready()
    }

    #[test]
    fn who_waits_is_told_and_nobody_else() {
        let i = Interrupts::new(2);
        let (two, four) = (i.wait(2, true).unwrap().unwrap(), i.wait(4, true).unwrap().unwrap());
        assert_eq!(i.wait(6, false).unwrap().map(|_| ()), None);
        assert_eq!((i.interrupt(2), i.interrupt(6)), (Outcome::Done, Outcome::Done));
        assert!(is_told(&two) && !is_told(&four));
        i.over(2);
        assert_eq!(i.interrupt(2), Outcome::Unknown, "answered meanwhile");
    }

    #[test]
    fn an_interrupt_during_the_serving_is_kept_for_the_wait() {
        let i = Interrupts::new(2);
        assert_eq!(i.interrupt(8), Outcome::Unknown, "read, and not known yet");
        i.begin(1, 8);
        assert_eq!(i.interrupt(8), Outcome::Done);
        let tell = i.wait(8, true).unwrap().unwrap();
        i.end(1, 8);
        assert!(is_told(&tell));
        assert_eq!(i.interrupt(8), Outcome::Done, "it still waits");
        i.over(8);
        assert!(i.lock().is_empty());
    }

    #[test]
    fn an_interrupt_of_what_is_answered_at_once_leaves_nothing() {
        let i = Interrupts::new(1);
        i.begin(0, 8);
        assert_eq!(i.interrupt(8), Outcome::Done);
        i.end(0, 8);
        assert!(i.lock().is_empty());
        assert_eq!(i.early.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn over_rings_an_interrupt_before_the_request_is_kept_for_its_wait() {
        let i = Interrupts::of_rings(2);
        assert_eq!(i.interrupt(8), Outcome::Done, "nobody would send it again");
        let tell = i.wait(8, true).unwrap().unwrap();
        assert!(is_told(&tell));
        i.over(8);
        assert!(!is_told(&i.wait(8, true).unwrap().unwrap()), "it was used");
        i.over(8);
        for unique in 1..=2 * UNSEEN_MAX as u64 {
            i.interrupt(unique << 8);
        }
        assert_eq!(i.unseen.as_ref().unwrap().lock().unwrap().len(), UNSEEN_MAX);
        assert!(!is_told(&i.wait(1 << 8, true).unwrap().unwrap()), "the oldest are forgotten");
    }

    #[test]
    fn the_table_is_bounded_and_full_it_asks_for_nothing_again() {
        let i = Interrupts { waiting_max: 1, ..Interrupts::new(1) };
        i.wait(2, true).unwrap();
        assert_eq!(i.wait(4, true).map(|_| ()), Err(TooMany));
        assert_eq!(i.interrupt(4), Outcome::Done);
        i.over(2);
        assert!(i.wait(4, true).is_ok());
    }
}
