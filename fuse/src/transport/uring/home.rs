//! Where a worker is told of what others did: answers that tasks gave, and that it is to end.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

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

    /// Takes what is finished; `into` is empty.
    pub(super) fn take_finished(&self, into: &mut Vec<u32>) {
        std::mem::swap(&mut *self.finished.lock().unwrap_or_else(PoisonError::into_inner), into);
    }

    /// The worker is about to wait. Whether it may: nothing has come meanwhile.
    pub(super) fn lie_down(&self) -> bool {
        self.asleep.store(true, Ordering::SeqCst);
        !self.is_over() && self.finished.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    pub(super) fn get_up(&self) {
        self.asleep.store(false, Ordering::SeqCst);
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
pub(super) struct StopAtEnd(pub(super) Arc<Stop>);

impl Drop for StopAtEnd {
    fn drop(&mut self) {
        self.0.all();
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
    fn a_stop_is_for_all() {
        let homes: Vec<Arc<Home>> = (0..3).map(|_| Arc::new(Home::new().unwrap())).collect();
        assert!(homes[1].lie_down());
        drop(StopAtEnd(Arc::new(Stop::new(homes.clone()).unwrap())));
        assert!(homes.iter().all(|home| home.is_over() && !home.lie_down()));
        assert!(rang(&homes[1]) && !rang(&homes[0]));
    }
}
