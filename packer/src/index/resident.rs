//! What of mapped indexes is resident, within a bound that many of them share.
//!
//! A page that is touched is mapped with its neighbours: 64 KiB, and from some version of Linux on the whole of what the page cache has in one piece,
//! which is 2 MiB at most and lies at a multiple of its length. So a mapping counts the *regions* of 2 MiB that were touched since it was
//! given back, and no more than that is resident. Over the bound, what was touched first is given back: it is in the page cache alone,
//! until it is touched again.
//!
//! A touch is counted before it is done, and what is lent stays lent: a reader that looks at bytes it got before their mapping was given back
//! makes them resident once more without being counted, one region each.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use memmap2::{Mmap, UncheckedAdvice};

/// The largest piece that the page cache has, and where such pieces begin.
const REGION_BYTES: u64 = 2 << 20;

/// A bound for all mappings that are made within it.
#[derive(Debug)]
pub struct Resident {
    bytes_max: u64,
    /// Of all mappings. Relaxed, as all numbers here: one region more or less does not matter.
    bytes: AtomicU64,
    /// Guards the order in which mappings were first touched; held while what leaves is given back, some microseconds.
    oldest: Mutex<VecDeque<Weak<Mapping>>>,
}

impl Resident {
    /// At least four regions: less would be given back while it is looked at.
    pub fn new(bytes_max: u64) -> Arc<Resident> {
        let bytes_max = bytes_max.max(4 * REGION_BYTES);
        Arc::new(Resident { bytes_max, bytes: AtomicU64::new(0), oldest: Mutex::default() })
    }

    fn oldest(&self) -> MutexGuard<'_, VecDeque<Weak<Mapping>>> {
        self.oldest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn grew(&self, mapping: &Arc<Mapping>, bytes: u64) {
        if mapping.bytes.fetch_add(bytes, Ordering::Relaxed) == 0 {
            let mut oldest = self.oldest();
            // Those that are closed leave before there are more places.
            if oldest.len() == oldest.capacity() {
                oldest.retain(|mapping| mapping.strong_count() > 0);
            }
            oldest.push_back(Arc::downgrade(mapping));
        }
        if self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes <= self.bytes_max {
            return;
        }
        let mut oldest = self.oldest();
        while self.bytes.load(Ordering::Relaxed) > self.bytes_max / 2 {
            let Some(mapping) = oldest.pop_front() else { break };
            if let Some(mapping) = mapping.upgrade() {
                mapping.give_back();
            }
        }
    }
}

/// A mapped file.
#[derive(Debug)]
pub struct Mapping {
    map: Mmap,
    within: Arc<Resident>,
    /// A bit for each region.
    touched: Box<[AtomicU64]>,
    /// Of the regions that were.
    bytes: AtomicU64,
    /// How many go through all of it: then nothing is counted.
    sweeps: AtomicU64,
}

impl Mapping {
    pub fn new(map: Mmap, within: &Arc<Resident>) -> Arc<Mapping> {
        let regions = (map.len() as u64).div_ceil(REGION_BYTES);
        let touched = (0..regions.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Mapping {
            map,
            within: within.clone(),
            touched,
            bytes: AtomicU64::new(0),
            sweeps: AtomicU64::new(0),
        })
    }

    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// These bytes are going to be looked at: not empty, and within the file.
    pub fn touch(self: &Arc<Mapping>, range: &Range<u64>) {
        for region in range.start / REGION_BYTES..=(range.end - 1) / REGION_BYTES {
            let (word, bit) = (&self.touched[(region / 64) as usize], 1u64 << (region % 64));
            if word.load(Ordering::Relaxed) & bit == 0 && word.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
                if self.sweeps.load(Ordering::Relaxed) > 0 {
                    continue;
                }
                let start = region * REGION_BYTES;
                self.within.grew(self, REGION_BYTES.min(self.map.len() as u64 - start));
            }
        }
    }

    /// Does what looks at all of it, again and again here and there: it is resident meanwhile, and not behind that.
    pub fn sweep<T>(&self, work: impl FnOnce() -> T) -> T {
        self.sweeps.fetch_add(1, Ordering::Relaxed);
        let done = work();
        self.sweeps.fetch_sub(1, Ordering::Relaxed);
        self.give_back();
        done
    }

    /// Nothing of it is resident, until it is touched again.
    fn give_back(&self) {
        // First the sum: a region that is touched meanwhile is counted twice rather than never.
        self.within.bytes.fetch_sub(self.bytes.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        self.touched.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        // SAFETY: pages of a file that is mapped for reading come back with the same bytes when they are touched, whoever reads them now.
        // It cannot fail on a mapping of ours; if it did, nothing would be given back.
        let _ = unsafe { self.map.unchecked_advise(UncheckedAdvice::DontNeed) };
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.within.bytes.fetch_sub(*self.bytes.get_mut(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(bytes: u64, within: &Arc<Resident>) -> Arc<Mapping> {
        let file = tempfile::tempfile().unwrap();
        file.set_len(bytes).unwrap();
        // SAFETY: nobody else has the file.
        Mapping::new(unsafe { Mmap::map(&file) }.unwrap(), within)
    }

    #[test]
    fn what_was_touched_first_is_given_back_at_the_bound() {
        let within = Resident::new(4 * REGION_BYTES);
        let of = |mapping: &Arc<Mapping>| mapping.bytes.load(Ordering::Relaxed);
        let all = || within.bytes.load(Ordering::Relaxed);
        let (large, small) = (mapping(5 * REGION_BYTES + 9, &within), mapping(7, &within));
        large.touch(&(0..1));
        large.touch(&(9..REGION_BYTES));
        small.touch(&(6..7));
        assert_eq!((of(&large), of(&small), all()), (REGION_BYTES, 7, REGION_BYTES + 7));
        // Over the border of two; and the last, which is short.
        large.touch(&(2 * REGION_BYTES - 1..2 * REGION_BYTES + 1));
        large.touch(&(5 * REGION_BYTES..5 * REGION_BYTES + 9));
        assert_eq!((of(&large), all()), (3 * REGION_BYTES + 9, 3 * REGION_BYTES + 16));
        large.touch(&(4 * REGION_BYTES..4 * REGION_BYTES + 1));
        assert_eq!((of(&large), of(&small), all()), (0, 7, 7));
        large.touch(&(0..1));
        large.sweep(|| large.touch(&(0..5 * REGION_BYTES)));
        assert_eq!((of(&large), all()), (0, 7));
        large.touch(&(0..1));
        assert_eq!(all(), REGION_BYTES + 7);
        drop(large);
        assert_eq!(all(), 7);
        small.give_back();
        assert_eq!(all(), 0);
    }

    #[test]
    fn those_that_are_closed_leave_nothing_behind() {
        let within = Resident::new(0);
        for _ in 0..10_000 {
            mapping(1, &within).touch(&(0..1));
        }
        assert_eq!(within.bytes.load(Ordering::Relaxed), 0);
        assert!(within.oldest().capacity() < 64, "{}", within.oldest().capacity());
    }
}
