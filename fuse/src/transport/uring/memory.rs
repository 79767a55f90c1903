//! The memory of one entry. Pages are there from their first use on.
//!
//! | offset | size | |
//! |---|---|---|
//! | 0 | 288 | the header ([`crate::proto::ring`]) |
//! | 4096 - n | n | the request's header and its operation's fixed part, put there so that the payload continues them |
//! | 4096 | payload | the payload |
//!
//! The kernel writes to the header and the payload while the entry is its own, and at no other time.

use std::ffi::c_void;
use std::io;
use std::ptr::NonNull;

use rustix::mm::{Advice, MapFlags, ProtFlags};

use crate::proto::ring::{Answer, Delivery, HEADER_BYTES};

const PAYLOAD_AT: usize = 4096;
/// What of the payload stays when the rest is given back.
pub(super) const KEPT_BYTES: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Memory {
    base: NonNull<u8>,
    payload_bytes: usize,
}

// SAFETY: it is memory without an owner thread; who may touch it when is said at each function.
unsafe impl Send for Memory {}
// SAFETY: the same.
unsafe impl Sync for Memory {}

impl Memory {
    pub(super) fn new(payload_bytes: usize) -> io::Result<Memory> {
        let (protection, flags) =
            (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::NORESERVE);
        // SAFETY: the kernel chooses an address where nothing is.
        let base = unsafe {
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), PAYLOAD_AT + payload_bytes, protection, flags)
        }?;
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("memory at address 0"))?;
        Ok(Memory { base, payload_bytes })
    }

    pub(super) fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }

    fn at(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(offset + len <= PAYLOAD_AT + self.payload_bytes);
        // SAFETY: it lies within the mapping, as was just checked.
        unsafe { self.base.as_ptr().add(offset) }
    }

    /// The two `iovec` that the kernel is told. It reads them while the submission is taken.
    pub(super) fn pieces(&self) -> [libc::iovec; 2] {
        let piece = |at, len| libc::iovec { iov_base: self.at(at, len).cast(), iov_len: len };
        [piece(0, HEADER_BYTES), piece(PAYLOAD_AT, self.payload_bytes)]
    }

    /// # Safety
    /// The entry is ours, and nobody writes to its header meanwhile.
    pub(super) unsafe fn header(&self) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        // SAFETY: `at` has checked the source; nobody writes to it, as the caller says.
        unsafe { self.at(0, HEADER_BYTES).copy_to_nonoverlapping(header.as_mut_ptr(), HEADER_BYTES) };
        header
    }

    /// The request as one message, and the length that it has in the payload.
    ///
    /// # Safety
    /// The entry is ours, and as long as the message is used nobody writes to it: to its payload only if that is empty.
    pub(super) unsafe fn message(&self, delivery: &Delivery, header: &[u8; HEADER_BYTES]) -> &[u8] {
        let (front, len) = (delivery.front(header), delivery.front_bytes());
        let at = self.at(PAYLOAD_AT - len, len + delivery.payload_bytes);
        // SAFETY: `at` has checked the range, which the caller vouches for; the front lies behind the header's 288 bytes.
        unsafe {
            at.copy_from_nonoverlapping(front.as_ptr(), len);
            std::slice::from_raw_parts(at, len + delivery.payload_bytes)
        }
    }

    /// Puts an answer's payload in place; its length. The caller has checked that it fits.
    ///
    /// # Safety
    /// The entry is ours, and nobody uses its payload meanwhile.
    pub(super) unsafe fn put_payload(&self, parts: &[&[u8]]) -> usize {
        let mut len = 0;
        for part in parts {
            let at = self.at(PAYLOAD_AT + len, part.len());
            // SAFETY: `at` has checked the target; nobody uses it, as the caller says.
            unsafe { at.copy_from_nonoverlapping(part.as_ptr(), part.len()) };
            len += part.len();
        }
        len
    }

    /// Puts an answer's header in place.
    ///
    /// # Safety
    /// The entry is ours, and nobody uses its header meanwhile.
    pub(super) unsafe fn put_answer(&self, answer: &Answer) {
        let (head, len) = (answer.head(), answer.payload_len());
        // SAFETY: `at` has checked the targets; nobody uses them, as the caller says.
        unsafe {
            self.at(0, head.len()).copy_from_nonoverlapping(head.as_ptr(), head.len());
            self.at(Answer::PAYLOAD_LEN_AT, len.len()).copy_from_nonoverlapping(len.as_ptr(), len.len());
        }
    }

    /// Gives back the pages of the payload but the first [`KEPT_BYTES`].
    ///
    /// # Safety
    /// There is nothing in it that somebody wants.
    pub(super) unsafe fn shed(&self) {
        let len = self.payload_bytes.saturating_sub(KEPT_BYTES);
        if len > 0 {
            let at = self.at(PAYLOAD_AT + KEPT_BYTES, len).cast::<c_void>();
            // SAFETY: whole pages of the mapping, in which nothing is, as the caller says. It stays resident on failure.
            let _resident = unsafe { rustix::mm::madvise(at, len, Advice::LinuxDontNeed) };
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours alone, and nobody has a pointer into it any more. A failure leaves it mapped.
        let _mapped =
            unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), PAYLOAD_AT + self.payload_bytes) };
    }
}
