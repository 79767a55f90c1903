//! The open handles of one mount, in memory that outlives the process: a memfd, of which the keeper holds a descriptor.
//!
//! A record is written before the kernel is told of its handle, and cleared when its RELEASE has come, so that at any moment the
//! table covers what the kernel holds. One record too many can only be that of an OPEN that was not answered: the kernel sends
//! that again, and by its number the record is found ([`Record::unique`]). (Only a program that is killed in the moment between
//! the resending and the reading of its OPEN takes it back unseen; its handle stays open until the mount ends.)
//!
//! A handle's number is `generation << 32 | slot + 1`: a slot's generation grows with each use, so that a RELEASE that is sent
//! again never meets a later handle.
//!
//! Integers are the machine's own (little-endian on all that we build for): the memory never leaves the machine.
//!
//! | offset | size | header |
//! |---|---|---|
//! | 0 | 8 | `granhnd` and the version, 1 |
//! | 8 | 8 | slots |
//! | 16 | 4 | crc32c of bytes 0..16 |
//! | 20 | 4 | 0 |
//! | 24 | 8 | slots from here on were never used |
//! | 32 | 32 | unused |
//!
//! | offset in a record | size | of slot `n`, at `4096 + 32 n` |
//! |---|---|---|
//! | 0 | 8 | inode |
//! | 8 | 8 | number of the request that opened it |
//! | 16 | 4 | flags: 1 in use, 2 write, 4 execute, 8 cached, 16 direct, 32 passthrough |
//! | 20 | 4 | generation |
//! | 24 | 4 | backing id of passthrough, else 0 |
//! | 28 | 4 | crc32c of the 28 bytes before |
//!
//! | offset in an intent | size | `n` of 126, at `64 + 32 n` |
//! |---|---|---|
//! | 0 | 8 | number of the request that exchanges two names, or appends to a file that other nodes change too |
//! | 8 | 8 | inode that had the first name; inode of the file |
//! | 16 | 8 | inode that had the second; where its end was, and the bytes go |
//! | 24 | 4 | crc32c of the 24 bytes before |
//! | 28 | 4 | 0 |
//!
//! A record whose checksum is wrong was being written when the process ended: nobody was told of it.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use granary_core::error::fail;
use granary_core::{Error, Ino, Kind, Result};
use rustix::fs::MemfdFlags;
use rustix::mm::{MapFlags, ProtFlags};

use crate::vfs::iomode::Way;

const MAGIC: u64 = u64::from_le_bytes(*b"granhnd\x01");
const INTENTS_AT: usize = 64;
const RECORDS_AT: usize = 4096;
const RECORD_BYTES: usize = 32;
const INTENTS: u64 = ((RECORDS_AT - INTENTS_AT) / RECORD_BYTES) as u64;
/// Handles of one mount at most: what is read back is not to make us map without bound.
pub const SLOTS_MAX: u64 = 1 << 24;

const USED: u32 = 1;
const WRITE: u32 = 2;
const EXECUTE: u32 = 4;
const CACHED: u32 = 8;
const DIRECT: u32 = 16;
const PASSTHROUGH: u32 = 32;

/// One open handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    pub fh: u64,
    pub ino: Ino,
    /// The request that opened it, without the bit of resending.
    pub unique: u64,
    pub way: Way,
    pub write: bool,
    pub execute: bool,
    /// What the kernel calls the file that it reads and writes by itself.
    pub backing: i32,
}

/// The table, mapped.
#[derive(Debug)]
pub struct HandleTable {
    memory: *mut std::ffi::c_void,
    bytes: usize,
    slots: u64,
    file: OwnedFd,
}

// SAFETY: the memory is only reached through atomics, and lives as long as the table.
unsafe impl Send for HandleTable {}
// SAFETY: as above.
unsafe impl Sync for HandleTable {}

impl Drop for HandleTable {
    fn drop(&mut self) {
        // SAFETY: mapped by us with this length, and nothing refers to it any more.
        let _unmapped = unsafe { rustix::mm::munmap(self.memory, self.bytes) };
    }
}

/// Slot and generation of a handle's number.
fn split(fh: u64) -> Option<(u64, u32)> {
    Some(((fh & u64::from(u32::MAX)).checked_sub(1)?, (fh >> 32) as u32))
}

fn join(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

fn sum(words: &[u64]) -> u32 {
    words.iter().fold(0, |crc, word| granary_core::crc32c_append(crc, &word.to_le_bytes()))
}

impl HandleTable {
    /// A new one with room for `slots` handles; memory is taken when they are used.
    pub fn create(slots: u64) -> Result<Arc<HandleTable>> {
        let slots = slots.clamp(1, SLOTS_MAX);
        let failed = |e: rustix::io::Errno| Error::io("cannot make the table of open files", e.into());
        let file = rustix::fs::memfd_create("granary-handles", MemfdFlags::CLOEXEC).map_err(failed)?;
        rustix::fs::ftruncate(&file, Self::bytes_of(slots) as u64).map_err(failed)?;
        let table = Self::map(file, slots)?;
        table.word(1).store(slots, Ordering::Relaxed);
        table.word(2).store(u64::from(sum(&[MAGIC, slots])), Ordering::Relaxed);
        table.word(0).store(MAGIC, Ordering::Release);
        Ok(Arc::new(table))
    }

    /// One that another process made. `Corrupt` when it is none.
    pub fn open(file: OwnedFd) -> Result<Arc<HandleTable>> {
        let bytes = rustix::fs::fstat(&file)
            .map_err(|e| Error::io("cannot look at the table of open files", e.into()))?
            .st_size as u64;
        let slots = bytes.saturating_sub(RECORDS_AT as u64) / RECORD_BYTES as u64;
        if !(1..=SLOTS_MAX).contains(&slots) || bytes != Self::bytes_of(slots) as u64 {
            return fail(Kind::Corrupt, "what was kept as the table of open files has not the size of one");
        }
        let table = Self::map(file, slots)?;
        let header = [table.word(0), table.word(1), table.word(2)].map(|word| word.load(Ordering::Acquire));
        if header != [MAGIC, slots, u64::from(sum(&[MAGIC, slots]))] {
            return fail(
                Kind::Corrupt,
                "the table of open files that was kept is damaged, or of another version of granary",
            );
        }
        Ok(Arc::new(table))
    }

    fn bytes_of(slots: u64) -> usize {
        RECORDS_AT + slots as usize * RECORD_BYTES
    }

    fn map(file: OwnedFd, slots: u64) -> Result<HandleTable> {
        let bytes = Self::bytes_of(slots);
        let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let memory = unsafe { rustix::mm::mmap(std::ptr::null_mut(), bytes, prot, flags, &file, 0) }
            .map_err(|e| Error::io("cannot map the table of open files", e.into()))?;
        Ok(HandleTable { memory, bytes, slots, file })
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        debug_assert!((at + 1) * 8 <= self.bytes);
        // SAFETY: inside the mapping, which is aligned to a page and lives as long as `self`; nobody reaches it otherwise.
        unsafe { AtomicU64::from_ptr(self.memory.cast::<u64>().add(at)) }
    }

    fn words(&self, at: usize) -> [&AtomicU64; 4] {
        [0, 1, 2, 3].map(|n| self.word(at / 8 + n))
    }

    fn record_at(slot: u64) -> usize {
        RECORDS_AT + slot as usize * RECORD_BYTES
    }

    /// A descriptor more of it, for the keeper.
    pub fn descriptor(&self) -> Result<OwnedFd> {
        self.file
            .as_fd()
            .try_clone_to_owned()
            .map_err(|e| Error::io("cannot duplicate the table of open files", e))
    }

    pub fn slots(&self) -> u64 {
        self.slots
    }

    /// Slots from here on were never used.
    pub fn used(&self) -> u64 {
        self.word(3).load(Ordering::Acquire).min(self.slots)
    }

    /// Writes a handle, before the kernel is told of it. One whose slot is out of bounds is not written.
    pub fn put(&self, record: &Record) {
        let Some((slot, generation)) = split(record.fh).filter(|(slot, _)| *slot < self.slots) else {
            return;
        };
        let way = match record.way {
            Way::Cached => CACHED,
            Way::Direct => DIRECT,
            Way::Passthrough { .. } => PASSTHROUGH,
        };
        let of = |is: bool, flag: u32| if is { flag } else { 0 };
        let flags = USED | way | of(record.write, WRITE) | of(record.execute, EXECUTE);
        self.store(slot, record.ino.0, record.unique, flags, generation, record.backing as u32);
    }

    /// The handle's RELEASE has come. Its slot's generation stays.
    pub fn clear(&self, fh: u64) {
        if let Some((slot, generation)) = split(fh).filter(|(slot, _)| *slot < self.slots) {
            self.store(slot, 0, 0, 0, generation, 0);
        }
    }

    fn store(&self, slot: u64, ino: u64, unique: u64, flags: u32, generation: u32, backing: u32) {
        self.word(3).fetch_max(slot + 1, Ordering::Release);
        let words = self.words(Self::record_at(slot));
        let new = [ino, unique, join(flags, generation)];
        let crc = granary_core::crc32c_append(sum(&new), &backing.to_le_bytes());
        for (word, value) in words.iter().zip(new) {
            word.store(value, Ordering::Relaxed);
        }
        words[3].store(join(backing, crc), Ordering::Release);
    }

    /// The last generation that was used of a slot, and the handle in it. What is torn counts as used once more.
    pub fn get(&self, slot: u64) -> (u32, Option<Record>) {
        let words = self.words(Self::record_at(slot)).map(|word| word.load(Ordering::Acquire));
        let (flags, generation) = (words[2] as u32, (words[2] >> 32) as u32);
        let (backing, crc) = (words[3] as u32, (words[3] >> 32) as u32);
        if words == [0; 4] {
            return (0, None);
        }
        if granary_core::crc32c_append(sum(&words[..3]), &backing.to_le_bytes()) != crc {
            return (generation.wrapping_add(1), None);
        }
        let write = flags & WRITE != 0;
        let way = match flags & (CACHED | DIRECT | PASSTHROUGH) {
            CACHED => Way::Cached,
            DIRECT => Way::Direct,
            PASSTHROUGH => Way::Passthrough { write },
            _ => return (generation, None),
        };
        let record = Record {
            fh: join(slot as u32 + 1, generation),
            ino: Ino(words[0]),
            unique: words[1],
            way,
            write,
            execute: flags & EXECUTE != 0,
            backing: backing as i32,
        };
        (generation, (flags & USED != 0).then_some(record))
    }

    /// Files that are open, and whether the kernel may write (`Some(true)`) or read the stage file of each by itself.
    pub fn files(&self) -> Vec<(Ino, Option<bool>)> {
        let mut files = std::collections::BTreeMap::new();
        for record in (0..self.used()).filter_map(|slot| self.get(slot).1) {
            let passes = match record.way {
                Way::Passthrough { write } => Some(write),
                _ => None,
            };
            let of: &mut Option<bool> = files.entry(record.ino.0).or_default();
            *of = (*of).max(passes);
        }
        files.into_iter().map(|(ino, passes)| (Ino(ino), passes)).collect()
    }

    /// What the kernel calls the files that it reads and writes by itself. Sorted.
    pub fn backings(&self) -> Vec<i32> {
        let records = (0..self.used()).filter_map(|slot| self.get(slot).1);
        let passed = records.filter(|record| matches!(record.way, Way::Passthrough { .. }));
        let mut all: Vec<i32> = passed.map(|record| record.backing).collect();
        all.sort_unstable();
        all
    }

    /// Two names are about to be exchanged, that are these inodes' now. (Or an append: see the module.)
    pub fn intend(&self, unique: u64, first: Ino, second: Ino) {
        let words = self.words(INTENTS_AT + (unique / 2 % INTENTS) as usize * RECORD_BYTES);
        let new = [unique, first.0, second.0];
        for (word, value) in words.iter().zip(new) {
            word.store(value, Ordering::Relaxed);
        }
        words[3].store(u64::from(sum(&new)), Ordering::Release);
    }

    /// What was intended by this request, if it came that far.
    pub fn intended(&self, unique: u64) -> Option<(Ino, Ino)> {
        let words = self.words(INTENTS_AT + (unique / 2 % INTENTS) as usize * RECORD_BYTES);
        let words = words.map(|word| word.load(Ordering::Acquire));
        let good = words[0] == unique && words[3] == u64::from(sum(&words[..3]));
        good.then_some((Ino(words[1]), Ino(words[2])))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(fh: u64, way: Way, write: bool) -> Record {
        Record { fh, ino: Ino(77), unique: 4242, way, write, execute: !write, backing: 9 }
    }

    fn again(table: &HandleTable) -> Arc<HandleTable> {
        HandleTable::open(table.descriptor().unwrap()).unwrap()
    }

    #[test]
    fn what_is_put_is_found_by_the_next_process_and_what_is_cleared_is_not() {
        let table = HandleTable::create(40).unwrap();
        let ways =
            [Way::Cached, Way::Direct, Way::Passthrough { write: true }, Way::Passthrough { write: false }];
        for (slot, way) in ways.into_iter().enumerate() {
            let write = way != Way::Passthrough { write: false };
            table.put(&record(join(slot as u32 + 1, 7), way, write));
        }
        let next = again(&table);
        for (slot, way) in ways.into_iter().enumerate() {
            let write = way != Way::Passthrough { write: false };
            assert_eq!(next.get(slot as u64), (7, Some(record(join(slot as u32 + 1, 7), way, write))));
        }
        assert_eq!(next.backings(), [9, 9]);
        table.clear(join(2, 7));
        assert_eq!((next.get(1), next.get(20)), ((7, None), (0, None)));
        table.put(&record(join(99, 0), Way::Cached, true)); // out of bounds
        assert_eq!(next.slots(), 40);
    }

    #[test]
    fn an_intent_is_found_by_its_request_alone() {
        let table = HandleTable::create(1).unwrap();
        table.intend(10, Ino(1), Ino(2));
        assert_eq!(table.intended(10), Some((Ino(1), Ino(2))));
        assert_eq!((table.intended(12), table.intended(10 + 2 * INTENTS)), (None, None));
    }

    #[test]
    fn what_is_no_table_is_refused() {
        for bytes in [0, 100, 4096, 4096 + 31, 1 << 40] {
            let file = rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC).unwrap();
            rustix::fs::ftruncate(&file, bytes).unwrap();
            assert_eq!(HandleTable::open(file).unwrap_err().kind(), Kind::Corrupt, "{bytes}");
        }
        let table = HandleTable::create(1).unwrap();
        table.word(0).store(MAGIC + 1, Ordering::Relaxed);
        assert_eq!(HandleTable::open(table.descriptor().unwrap()).unwrap_err().kind(), Kind::Corrupt);
    }

    proptest! {
        /// Whatever a process leaves in a record, it is read as nothing or as one that was written whole.
        #[test]
        fn torn_records_are_nothing(words in proptest::array::uniform4(any::<u64>()), keep in 0_usize..4) {
            let table = HandleTable::create(1).unwrap();
            table.put(&record(1, Way::Cached, true));
            let at = HandleTable::record_at(0);
            let changed = table.words(at).iter().zip(words).skip(keep).any(|(word, new)| word.swap(new, Ordering::Relaxed) != new);
            let found = table.get(0).1;
            prop_assert!(found.is_none() || !changed, "{found:?}");
        }
    }
}
