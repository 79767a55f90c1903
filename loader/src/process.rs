//! What belongs to one process: threads, sockets. A child made by `fork` has neither, though it has the memory that names them.

use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

use granary_core::{Error, Kind, Result};

/// Something that each process makes for itself, when it first asks. A child of `fork` does not touch what its parent made: it is
/// left alone, as memory that is not used again.
///
/// No lock: one held by another thread in the moment of `fork` would stay so in the child.
#[derive(Debug)]
pub(crate) struct PerProcess<T> {
    /// The latest; null before the first. Each points to a box, and those of earlier processes stay for ever.
    made: AtomicPtr<Made<T>>,
}

#[derive(Debug)]
struct Made<T> {
    pid: u32,
    value: Arc<T>,
}

impl<T> Default for PerProcess<T> {
    fn default() -> PerProcess<T> {
        PerProcess { made: AtomicPtr::new(std::ptr::null_mut()) }
    }
}

impl<T> PerProcess<T> {
    /// This process's, if it has one.
    pub fn get(&self) -> Option<Arc<T>> {
        let made = self.made.load(Ordering::Acquire);
        // SAFETY: a pointer that was stored is of a box that is freed by `drop` only, which has `self` alone.
        let made = unsafe { made.as_ref() }?;
        (made.pid == std::process::id()).then(|| made.value.clone())
    }

    /// Has `value` from now on: of one that nobody else has yet.
    pub fn set(&mut self, value: Arc<T>) {
        let new = Box::into_raw(Box::new(Made { pid: std::process::id(), value }));
        drop(PerProcess { made: AtomicPtr::new(std::mem::replace(self.made.get_mut(), new)) });
    }

    /// This process's, made now if there is none. Of two threads that come at once, one's is used and the other's dropped.
    pub fn get_or_make(&self, make: impl FnOnce() -> Result<T>) -> Result<Arc<T>> {
        if let Some(value) = self.get() {
            return Ok(value);
        }
        let before = self.made.load(Ordering::Acquire);
        let value = Arc::new(make()?);
        let new = Box::into_raw(Box::new(Made { pid: std::process::id(), value: value.clone() }));
        match self.made.compare_exchange(before, new, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Ok(value),
            Err(_) => {
                // SAFETY: it was not stored, so nobody else has it.
                drop(unsafe { Box::from_raw(new) });
                let made = self.get();
                made.ok_or_else(|| {
                    Error::new(Kind::Bug, "another thread of this process made it, and it is not there")
                })
            }
        }
    }
}

impl<T> Drop for PerProcess<T> {
    fn drop(&mut self) {
        let made = std::mem::replace(self.made.get_mut(), std::ptr::null_mut());
        if made.is_null() {
            return;
        }
        // SAFETY: it came from a box, and `self` was the only one that had it.
        let made = unsafe { Box::from_raw(made) };
        if made.pid != std::process::id() {
            // The parent's: its threads are not here, and waiting for them would never end.
            std::mem::forget(made);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_once_and_a_failure_is_not_kept() {
        let one: PerProcess<u32> = PerProcess::default();
        assert!(one.get().is_none());
        assert!(one.get_or_make(|| Err(Error::new(Kind::Io, "no"))).is_err());
        assert_eq!(*one.get_or_make(|| Ok(7)).unwrap(), 7);
        assert_eq!(*one.get_or_make(|| Ok(8)).unwrap(), 7);
    }

    #[test]
    fn what_another_process_made_is_left_alone() {
        let shared = Arc::new(5);
        let one: PerProcess<Arc<u32>> = PerProcess::default();
        let made = Box::new(Made { pid: std::process::id() + 1, value: Arc::new(shared.clone()) });
        one.made.store(Box::into_raw(made), Ordering::Release);
        assert!(one.get().is_none());
        assert_eq!(Arc::strong_count(&shared), 2);
        drop(one);
        assert_eq!(Arc::strong_count(&shared), 2);
    }

    #[test]
    fn threads_that_come_at_once_have_the_same() {
        let one: PerProcess<u32> = PerProcess::default();
        let first = std::sync::atomic::AtomicU32::new(0);
        let values: Vec<u32> = std::thread::scope(|scope| {
            let ask = || *one.get_or_make(|| Ok(first.fetch_add(1, Ordering::SeqCst))).unwrap();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert!(values.iter().all(|v| *v == values[0]));
    }
}
