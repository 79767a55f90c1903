//! One entry of a queue: a request, and then its answer, in one piece of memory.
//!
//! | stage | whose the memory is | goes on with |
//! |---|---|---|
//! | kernel's | the kernel's | a completion: serving |
//! | serving | the service reads the request in it, on the worker | the service returns: waiting, or answered if it has been |
//! | waiting | nobody's | an answer, of any thread: answered |
//! | answered | nobody's | the worker commits: kernel's |
//!
//! While a request is being served, its names and data may lie in the payload, so an answer that comes meanwhile is kept
//! aside, and put in place when the service has returned.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::dev::Device;
use super::super::interrupts::Interrupts;
use super::super::{BackingId, Channel, dispatch::Dispatcher};
use super::home::Home;
use super::memory::{KEPT_BYTES, Memory};
use crate::proto::opcode;
use crate::proto::request::Header;
use crate::proto::ring::{Answer, Delivery};

/// Answers kept aside are short (entries, attributes, extended attributes); room for longer ones is given back.
const ASIDE_BYTES_KEPT: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Kernels,
    /// With the payload in use or not.
    Serving {
        unique: u64,
        borrowed: bool,
    },
    Waiting {
        unique: u64,
    },
    Answered,
}

#[derive(Debug)]
struct Slot {
    stage: Stage,
    commit: u64,
    /// An answer's payload for when the request's is not used any more.
    aside: Vec<u8>,
    /// Bytes of the payload that have been used, and are resident therefore.
    touched: usize,
    /// What the answer names.
    names: Option<Arc<BackingId>>,
}

#[derive(Debug)]
pub(super) struct Entry {
    /// Its number at the worker.
    at: u32,
    queue: u16,
    memory: Memory,
    /// Guards the stage, and by that the memory, while an answer is put in place.
    slot: Mutex<Slot>,
    home: Arc<Home>,
    device: Arc<Device>,
}

/// What came of a request that was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Served {
    Answered,
    Waits,
}

impl Entry {
    pub(super) fn new(
        at: u32,
        queue: u16,
        payload_bytes: usize,
        home: Arc<Home>,
        device: Arc<Device>,
    ) -> io::Result<Entry> {
        let slot = Slot { stage: Stage::Kernels, commit: 0, aside: Vec::new(), touched: 0, names: None };
        Ok(Entry { at, queue, memory: Memory::new(payload_bytes)?, slot: Mutex::new(slot), home, device })
    }

    pub(super) fn queue(&self) -> u16 {
        self.queue
    }

    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves the request that has come, on the worker's thread.
    pub(super) fn serve(self: &Arc<Entry>, reader: usize, dispatcher: &Dispatcher) -> Served {
        // SAFETY: the kernel has completed the entry, so it is ours, and nothing else is until `slot` says so.
        let header = unsafe { self.memory.header() };
        let delivery = match Delivery::parse(&header, self.memory.payload_bytes()) {
            Ok(delivery) => delivery,
            Err((unique, e)) => {
                tracing::error!(error = %e, "the kernel sent a malformed request");
                self.begin(unique, unique, false, 0);
                self.answer(unique, libc::EIO, &[], None);
                return self.settle();
            }
        };
        let Delivery { unique, commit, payload_bytes, .. } = delivery;
        self.begin(unique, commit, payload_bytes > 0, payload_bytes);
        {
            // SAFETY: the entry is ours, and answers leave the payload alone until `settle` if there is something in it.
            let message = unsafe { self.memory.message(&delivery, &header) };
            match Header::parse(message) {
                // Committed all the same: the kernel waits for that.
                Ok(header) if opcode::is_silent(header.opcode) => self.answer(unique, 0, &[], None),
                Ok(_) => dispatcher.serve(reader, self, message),
                Err(e) => {
                    tracing::error!(error = %e, "the kernel sent a malformed request");
                    self.answer(unique, libc::EIO, &[], None);
                }
            }
        }
        self.settle()
    }

    fn begin(&self, unique: u64, commit: u64, borrowed: bool, payload_bytes: usize) {
        let mut slot = self.slot();
        debug_assert_eq!(slot.stage, Stage::Kernels);
        slot.stage = Stage::Serving { unique, borrowed };
        slot.commit = commit;
        slot.touched = slot.touched.max(payload_bytes);
    }

    /// The service has returned.
    fn settle(&self) -> Served {
        let mut slot = self.slot();
        match slot.stage {
            Stage::Serving { unique, .. } => {
                slot.stage = Stage::Waiting { unique };
                Served::Waits
            }
            _ => {
                if !slot.aside.is_empty() {
                    // SAFETY: it is answered and not committed, and the request is used no more.
                    let _len = unsafe { self.memory.put_payload(&[&slot.aside]) };
                    slot.aside.clear();
                    slot.aside.shrink_to(ASIDE_BYTES_KEPT);
                }
                Served::Answered
            }
        }
    }

    /// Gives the entry to the kernel: by what it is to be committed, how much of its payload is resident, and what is to stay
    /// registered until it is committed.
    pub(super) fn hand_over(&self) -> (u64, usize, Option<Arc<BackingId>>) {
        let mut slot = self.slot();
        debug_assert_eq!(slot.stage, Stage::Answered);
        slot.stage = Stage::Kernels;
        (slot.commit, slot.touched, slot.names.take())
    }

    /// Gives back what is resident above [`KEPT_BYTES`], if there is no request in it; how much that was.
    ///
    /// To be called by the worker for entries that it has committed and knows of no completion of since: the kernel only writes to
    /// the memory while the worker waits, and tells of what it wrote at the end of that.
    pub(super) fn shed(&self) -> usize {
        let mut slot = self.slot();
        if slot.stage != Stage::Kernels || slot.touched <= KEPT_BYTES {
            return 0;
        }
        // SAFETY: no request and no answer is in it, as the stage and the caller say.
        unsafe { self.memory.shed() };
        let given = slot.touched - KEPT_BYTES;
        slot.touched = KEPT_BYTES;
        given
    }
}

impl Channel for Entry {
    fn answer(&self, unique: u64, errno: i32, parts: &[&[u8]], names: Option<Arc<BackingId>>) {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let (errno, parts, len) = match errno {
            0 if len <= self.memory.payload_bytes() => (0, parts, len),
            0 => {
                tracing::error!(unique, len, "an answer is longer than the kernel takes");
                (libc::EIO, &parts[..0], 0)
            }
            errno => (errno, &parts[..0], 0),
        };
        let mut slot = self.slot();
        let serving = match slot.stage {
            Stage::Serving { unique: of, .. } if of == unique => true,
            Stage::Waiting { unique: of } if of == unique => false,
            _ => return tracing::error!(unique, "a request was answered that is not there"),
        };
        if let Stage::Serving { borrowed: true, .. } = slot.stage {
            parts.iter().for_each(|part| slot.aside.extend_from_slice(part));
        } else {
            // SAFETY: the entry is ours while it is served or waits, and nothing of the request is in the payload any more.
            let _len = unsafe { self.memory.put_payload(parts) };
        }
        // SAFETY: the same; the header was copied when it was served.
        unsafe { self.memory.put_answer(&Answer { unique, errno, payload_bytes: len as u32 }) };
        slot.touched = slot.touched.max(len);
        slot.stage = Stage::Answered;
        slot.names = names;
        drop(slot);
        if !serving {
            self.home.finish(self.at);
        }
    }

    fn notify(&self, code: i32, body: &[u8]) -> io::Result<()> {
        self.device.notify(code, body)
    }

    fn open_backing(&self, file: BorrowedFd<'_>) -> io::Result<BackingId> {
        self.device.open_backing(file)
    }

    fn is_ring(&self) -> bool {
        true
    }

    fn settle(&self) {
        self.device.settle();
    }

    fn interrupts(&self) -> &Interrupts {
        self.device.interrupts()
    }
}
