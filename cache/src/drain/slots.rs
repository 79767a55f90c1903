//! Uploads at once, where the limit may change while some wait.

use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::Notify;

use crate::util::lock;

/// Who waits looks at the limit again after this long, whatever it was told.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(crate) struct Slots {
    /// Guards the count, for an addition.
    used: Mutex<u32>,
    freed: Notify,
}

/// One upload's place, until it is dropped.
#[derive(Debug)]
pub(super) struct Slot<'a>(&'a Slots);

impl Slots {
    /// Waits until fewer than `max` of this moment are taken.
    pub(super) async fn take(&self, max: impl Fn() -> u32) -> Slot<'_> {
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            freed.as_mut().enable();
            {
                let mut used = lock(&self.used);
                if *used < max().max(1) {
                    *used += 1;
                    return Slot(self);
                }
            }
            let _ = tokio::time::timeout(LOOK_AGAIN, freed).await;
        }
    }

    /// The limit may have changed.
    pub(super) fn look_again(&self) {
        self.freed.notify_waiters();
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        *lock(&self.0.used) -= 1;
        self.0.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test]
    async fn a_larger_limit_lets_those_in_who_wait() {
        let (slots, max) = (Slots::default(), AtomicU32::new(1));
        let limit = || max.load(Ordering::SeqCst);
        let first = slots.take(limit).await;
        let mut second = std::pin::pin!(slots.take(limit));
        assert!(futures::poll!(second.as_mut()).is_pending());
        max.store(2, Ordering::SeqCst);
        slots.look_again();
        let second = second.await;
        // A smaller one waits until enough are back.
        max.store(1, Ordering::SeqCst);
        let mut third = std::pin::pin!(slots.take(limit));
        drop(first);
        assert!(futures::poll!(third.as_mut()).is_pending());
        drop(second);
        drop(third.await);
        assert_eq!(*lock(&slots.used), 0);
    }
}
