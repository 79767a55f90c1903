//! The kernel's words: messages of the FUSE protocol as `linux/fuse.h` numbers and lays them out, ABI 7.31 to 7.45, little or
//! big endian as the machine is. No I/O and no policy in here: bytes become plain values ([`request`]), plain values become bytes
//! ([`answer`], [`listing`], [`notification`]).
//!
//! A request is one read(2) of the device, an answer or a notification one write(2):
//!
//! | offset | size | request header | | offset | size | answer header |
//! |---|---|---|---|---|---|---|
//! | 0 | 4 | length of all, this header too | | 0 | 4 | length of all, this header too |
//! | 4 | 4 | operation ([`opcode`]) | | 4 | 4 | 0, or the errno made negative; of a notification its code |
//! | 8 | 8 | unique: the request's number | | 8 | 8 | unique of the request; of a notification 0 |
//! | 16 | 8 | inode | | | | |
//! | 24 | 4 | uid | | | | |
//! | 28 | 4 | gid | | | | |
//! | 32 | 4 | pid | | | | |
//! | 36 | 2 | extensions at the end, in units of 8 bytes | | | | |
//! | 38 | 2 | zero | | | | |
//!
//! What follows is in the tables of each module. Whatever the bytes are, parsing ends with a value or [`wire::Malformed`].

pub mod announce;
pub mod answer;
pub mod init;
pub mod listing;
pub mod notification;
pub mod opcode;
pub mod request;
pub mod ring;
pub mod wire;

pub use init::{Agreement, Flags, Offer};
pub use request::{Operation, Request};
pub use wire::Malformed;

/// The version of the protocol that is spoken here; the lower one of ours and the kernel's counts.
pub const MAJOR: u32 = 7;
pub const MINOR: u32 = 45;
/// The oldest that is understood (Linux 5.4).
pub const MINOR_MIN: u32 = 31;

/// Length of a request's header.
pub const REQUEST_HEADER_BYTES: usize = 40;
/// Length of an answer's header.
pub const ANSWER_HEADER_BYTES: usize = 16;
/// Room for the header and the fixed part of any request, above the longest WRITE.
pub const REQUEST_OVERHEAD_BYTES: usize = 4096;
/// Set in the unique number of an INTERRUPT; the rest is that of the request that is interrupted.
pub const INTERRUPT_BIT: u64 = 1;
/// Set in the unique number of a request that is sent again, and in that of its answer.
pub const RESEND_BIT: u64 = 1 << 63;
