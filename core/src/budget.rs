//! The byte budget: a bound on bytes held (in memory, or dirty). Over it means waiting, not growing.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

mod share;

pub use share::memory_share;

/// Bytes are counted in units of 4 KiB, rounded up, because a semaphore counts to `usize::MAX >> 3` permits but acquires
/// at most `u32::MAX` at once.
const UNIT: u64 = 4096;

/// A shared bound on bytes. Waiters are served in order. Cloning shares the bound.
#[derive(Clone, Debug)]
pub struct ByteBudget {
    semaphore: Arc<Semaphore>,
    max_units: u64,
}

/// Holds part of a budget; dropping it gives the bytes back.
#[derive(Debug)]
pub struct BytePermit {
    _permit: OwnedSemaphorePermit,
}

impl ByteBudget {
    pub fn new(bytes_max: u64) -> ByteBudget {
        let max_units = (bytes_max / UNIT).max(1);
        ByteBudget { semaphore: Arc::new(Semaphore::new(max_units as usize)), max_units }
    }

    fn units(&self, bytes: u64) -> u32 {
        // A request larger than the whole budget takes all of it: it runs alone rather than never.
        bytes.div_ceil(UNIT).clamp(1, self.max_units).min(u64::from(u32::MAX)) as u32
    }

    /// Waits until `bytes` are free.
    pub async fn acquire(&self, bytes: u64) -> BytePermit {
        match self.semaphore.clone().acquire_many_owned(self.units(bytes)).await {
            Ok(permit) => BytePermit { _permit: permit },
            Err(_) => unreachable!("the budget's semaphore is never closed"),
        }
    }

    /// `None` when they are not free now.
    pub fn try_acquire(&self, bytes: u64) -> Option<BytePermit> {
        let permit = self.semaphore.clone().try_acquire_many_owned(self.units(bytes)).ok()?;
        Some(BytePermit { _permit: permit })
    }

    pub fn max(&self) -> u64 {
        self.max_units * UNIT
    }

    pub fn used(&self) -> u64 {
        self.max() - self.semaphore.available_permits() as u64 * UNIT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn over_budget_waits_and_larger_than_all_runs_alone() {
        let budget = ByteBudget::new(8192);
        let held = budget.acquire(1 << 40).await;
        assert_eq!(budget.used(), 8192);
        assert!(budget.try_acquire(1).is_none());
        drop(held);
        assert!(budget.try_acquire(1).is_some());
        assert_eq!(budget.used(), 0);
    }
}
