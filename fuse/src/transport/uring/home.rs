//! Where a worker is told of what others did: answers that tasks gave, and that it is to end.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

/// One worker's letter box.
#[derive(Debug)]
pub(super) struct Home {
    /// Guards the numbers of entries that are answered and not committed, while one is put in or all are taken out.
    finished: Mutex<Vec<u32>>,
    /// The worker waits, or is about to. Set before the letter box is looked at for the last time, and read after something
    /// was put in, so that one of the two threads sees the other.
    asleep: AtomicBool,
    over: AtomicBool,
    /// How often somebody wanted to know when all that was answered before is committed.
    asked: AtomicU64,
    /// Up to which of these it is so. Raised by the worker alone.
    settled: AtomicU64,
    /// Guards that the worker is gone, and the sleep of who waits for `settled`.
    gone: Mutex<bool>,
    settles: Condvar,
    /// An eventfd that the worker's ring polls.
    bell: OwnedFd,
}

fn ring(bell: &OwnedFd) {
    // It fails only when its counter is full: then nobody needs it any more.
    let _full = rustix::io::write(bell, &1_u64.to_ne_bytes());
}

impl Home {
    pub(super) fn new() -> io::Result<Home> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Home {
            finished: Mutex::default(),
            asleep: AtomicBool::new(false),
            over: AtomicBool::new(false),
            asked: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            gone: Mutex::default(),
            settles: Condvar::new(),
            bell,
        })
    }

    pub(super) fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// Another thread has answered the request of the entry `at`.
    pub(super) fn finish(&self, at: u32) {
        self.finished.lock().unwrap_or_else(PoisonError::into_inner).push(at);
        self.wake();
    }

    fn wake(&self) {
        if self.asleep.swap(false, Ordering::SeqCst) {
            ring(&self.bell);
        }
    }

    /// Takes what is finished; `into` is empty. When that and what the worker has answered itself are committed, it has
    /// [`settled`](Home::settled) up to the number that is returned.
    pub(super) fn take_finished(&self, into: &mut Vec<u32>) -> u64 {
        // First: what was finished before somebody asked is in the letter box by now.
        let asked = self.asked.load(Ordering::SeqCst);
        std::mem::swap(&mut *self.finished.lock().unwrap_or_else(PoisonError::into_inner), into);
        asked
    }

    /// The worker has committed what it had taken when it was told `up_to`.
    pub(super) fn settled(&self, up_to: u64) {
        if up_to > self.settled.load(Ordering::SeqCst) {
            self.settled.store(up_to, Ordering::SeqCst);
            // Who has seen the old number sleeps by now, or will see the new one.
            drop(self.gone.lock().unwrap_or_else(PoisonError::into_inner));
            self.settles.notify_all();
        }
    }

    /// The worker commits no more.
    pub(super) fn leave(&self) {
        *self.gone.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.settles.notify_all();
    }

    /// Asks the worker to commit all that was answered before; the number to wait for.
    fn ask(&self) -> u64 {
        let asked = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        self.wake();
        asked
    }

    fn wait_for(&self, asked: u64) {
        let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        while self.settled.load(Ordering::SeqCst) < asked && !*gone {
            gone = self.settles.wait(gone).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The worker is about to wait. Whether it may: nothing has come meanwhile.
    pub(super) fn lie_down(&self) -> bool {
        self.asleep.store(true, Ordering::SeqCst);
        !self.is_over()
            && !self.is_asked()
            && self.finished.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    pub(super) fn get_up(&self) {
        self.asleep.store(false, Ordering::SeqCst);
    }

    fn is_asked(&self) -> bool {
        self.settled.load(Ordering::SeqCst) < self.asked.load(Ordering::SeqCst)
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }
}

/// Ends all threads of a connection.
#[derive(Debug)]
pub(in super::super) struct Stop {
    homes: Vec<Arc<Home>>,
    /// An eventfd, readable from then on.
    reader: OwnedFd,
}

impl Stop {
    pub(super) fn new(homes: Vec<Arc<Home>>) -> io::Result<Stop> {
        Ok(Stop { homes, reader: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)? })
    }

    /// For who reads `/dev/fuse` to poll beside it.
    pub(in super::super) fn descriptor(&self) -> &OwnedFd {
        &self.reader
    }

    /// Returns when the kernel has all answers that were given before. Never to be called by one of the threads.
    pub(in super::super) fn settle(&self) {
        let asked: Vec<u64> = self.homes.iter().map(|home| home.ask()).collect();
        for (home, asked) in self.homes.iter().zip(asked) {
            home.wait_for(asked);
        }
    }

    /// For them to see what there is to do.
    pub(super) fn wake_all(&self) {
        self.homes.iter().for_each(|home| home.wake());
    }

    pub(super) fn all(&self) {
        ring(&self.reader);
        for home in &self.homes {
            home.over.store(true, Ordering::SeqCst);
            home.wake();
        }
    }
}

/// Stops all when it is dropped.
pub(super) struct StopAtEnd {
    pub(super) stop: Arc<Stop>,
    /// Of the thread that ends.
    pub(super) home: Arc<Home>,
}

impl Drop for StopAtEnd {
    fn drop(&mut self) {
        self.home.leave();
        self.stop.all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rang(home: &Home) -> bool {
        rustix::io::read(&home.bell, &mut [0; 8]).is_ok()
    }

    #[test]
    fn only_who_sleeps_is_woken_and_nothing_is_missed() {
        let home = Home::new().unwrap();
        home.finish(1);
        assert!(!rang(&home), "it is up, and looks before it lies down");
        assert!(!home.lie_down(), "something is there");
        home.get_up();
        let mut taken = Vec::new();
        home.take_finished(&mut taken);
        assert_eq!(taken, [1]);
        assert!(home.lie_down());
        home.finish(2);
        home.finish(3);
        assert!(rang(&home) && !rang(&home));
        taken.clear();
        home.take_finished(&mut taken);
        assert_eq!(taken, [2, 3]);
    }

    #[test]
    fn who_settles_waits_for_what_was_answered_before() {
        let home = Arc::new(Home::new().unwrap());
        home.finish(1);
        let mut taken = Vec::new();
        assert_eq!(home.take_finished(&mut taken), 0);
        taken.clear();
        assert!(home.lie_down(), "nobody asks");
        let (asked, later) = (home.ask(), home.ask());
        assert!(rang(&home));
        home.settled(0);
        assert!(!home.lie_down(), "what was taken before is not all that was meant");
        let up_to = home.take_finished(&mut taken);
        assert_eq!((asked, later, up_to), (1, 2, 2));
        home.settled(up_to);
        home.wait_for(asked);
        home.wait_for(later);
        assert!(home.lie_down());
        let waits = home.clone();
        let asked = home.ask();
        let waiter = std::thread::spawn(move || waits.wait_for(asked));
        home.leave();
        waiter.join().unwrap();
        home.wait_for(home.ask());
    }

    #[test]
    fn a_stop_is_for_all() {
        let homes: Vec<Arc<Home>> = (0..3).map(|_| Arc::new(Home::new().unwrap())).collect();
        assert!(homes[1].lie_down());
        let stop = Arc::new(Stop::new(homes.clone()).unwrap());
        drop(StopAtEnd { stop, home: homes[0].clone() });
        assert!(homes.iter().all(|home| home.is_over() && !home.lie_down()));
        assert!(rang(&homes[1]) && !rang(&homes[0]));
    }
}
