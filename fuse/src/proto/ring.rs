//! Requests and answers over io_uring: the same messages as through `/dev/fuse`, in pieces.
//!
//! An entry of a queue has two pieces of memory, which are the kernel's while it waits for a request with them, and ours from
//! the completion on until the answer is committed. One of them is `fuse_uring_req_header` (288 bytes):
//!
//! | offset | size | with a request | with its answer |
//! |---|---|---|---|
//! | 0 | 128 | request header (40), then unused | answer header (16), then unused |
//! | 128 | 128 | the operation's fixed part, then unused | unused |
//! | 256 | 8 | flags | the same |
//! | 264 | 8 | commit: what the answer is to be committed by | the same |
//! | 272 | 4 | bytes of the payload that are used | the same, of the answer |
//! | 276 | 12 | unused | the same |
//!
//! The other is the payload: of a request what comes behind the fixed part, of an answer all behind its header. How long the
//! fixed part is, is nowhere said: it is what is left of the length in the request's header.
//!
//! A submission is one of 128 bytes, IORING_OP_URING_CMD on the connection's descriptor:
//!
//! | offset | size | |
//! |---|---|---|
//! | 0 | 1 | 46, the operation |
//! | 1 | 3 | flags, priority: 0 |
//! | 4 | 4 | descriptor |
//! | 8 | 4 | command: 1 registers an entry, 2 commits an answer and waits for the next request |
//! | 12 | 4 | 0 |
//! | 16 | 8 | registering: address of two `iovec`, header and payload |
//! | 24 | 4 | registering: 2, their number |
//! | 28 | 4 | 0 |
//! | 32 | 8 | what the completion is known by |
//! | 40 | 8 | 0 |
//! | 48 | 8 | flags: 0 |
//! | 56 | 8 | committing: the request's commit |
//! | 64 | 2 | queue: the number of the processor whose requests it gets |
//! | 66 | 62 | 0 |

use super::wire::{Cursor, Malformed};
use super::{ANSWER_HEADER_BYTES, REQUEST_HEADER_BYTES};

/// Length of `fuse_uring_req_header`.
pub const HEADER_BYTES: usize = 288;
/// Length of a submission.
pub const SUBMISSION_BYTES: usize = 128;
/// Longest fixed part of an operation.
pub const OPERATION_BYTES_MAX: usize = 128;
/// Longest part of a message in front of the payload.
pub const FRONT_BYTES_MAX: usize = REQUEST_HEADER_BYTES + OPERATION_BYTES_MAX;

const OPERATION_AT: usize = 128;
const ENTRY_AT: usize = 256;
const PAYLOAD_LEN_AT: usize = 272;

const OP_URING_CMD: u8 = 46;
const REGISTER: u32 = 1;
const COMMIT_AND_FETCH: u32 = 2;

/// How the pieces of a request are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The request's number, to answer it by whatever else is wrong with it.
    pub unique: u64,
    pub commit: u64,
    /// Bytes of the operation's fixed part.
    pub operation_bytes: usize,
    pub payload_bytes: usize,
}

impl Delivery {
    /// Of an entry's header, whose payload holds `payload_max` bytes. On failure the request's number is told, so that it can be
    /// answered.
    pub fn parse(header: &[u8; HEADER_BYTES], payload_max: usize) -> Result<Delivery, (u64, Malformed)> {
        let mut c = Cursor::new(header);
        let mut fields = || -> Result<(u32, u64, u64, u32), Malformed> {
            let len = c.u32()?;
            c.skip(4)?;
            let unique = c.u64()?;
            c.skip(ENTRY_AT + 8 - 16)?;
            Ok((len, unique, c.u64()?, c.u32()?))
        };
        let (len, unique, commit, payload_bytes) = fields().map_err(|e| (0, e))?;
        let (len, payload_bytes) = (len as usize, payload_bytes as usize);
        if payload_bytes > payload_max {
            return Err((unique, Malformed("the payload is longer than its memory")));
        }
        match len.checked_sub(REQUEST_HEADER_BYTES + payload_bytes) {
            Some(operation_bytes) if operation_bytes <= OPERATION_BYTES_MAX => {
                Ok(Delivery { unique, commit, operation_bytes, payload_bytes })
            }
            _ => Err((unique, Malformed("the length in the header is not that of the pieces"))),
        }
    }

    /// Bytes of the message in front of the payload.
    pub fn front_bytes(&self) -> usize {
        REQUEST_HEADER_BYTES + self.operation_bytes
    }

    /// The message's bytes in front of the payload, as `/dev/fuse` would give them.
    pub fn front(&self, header: &[u8; HEADER_BYTES]) -> [u8; FRONT_BYTES_MAX] {
        let mut front = [0; FRONT_BYTES_MAX];
        front[..REQUEST_HEADER_BYTES].copy_from_slice(&header[..REQUEST_HEADER_BYTES]);
        let operation = &header[OPERATION_AT..OPERATION_AT + self.operation_bytes];
        front[REQUEST_HEADER_BYTES..self.front_bytes()].copy_from_slice(operation);
        front
    }
}

/// What is written over an entry's header to answer: at offset 0, and at [`Answer::PAYLOAD_LEN_AT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    pub unique: u64,
    /// As errno.h has it; 0 for none.
    pub errno: i32,
    pub payload_bytes: u32,
}

impl Answer {
    pub const PAYLOAD_LEN_AT: usize = PAYLOAD_LEN_AT;

    pub fn head(&self) -> [u8; ANSWER_HEADER_BYTES] {
        let mut head = [0; ANSWER_HEADER_BYTES];
        head[..4].copy_from_slice(&(ANSWER_HEADER_BYTES as u32 + self.payload_bytes).to_ne_bytes());
        head[4..8].copy_from_slice(&(-self.errno).to_ne_bytes());
        head[8..].copy_from_slice(&self.unique.to_ne_bytes());
        head
    }

    pub fn payload_len(&self) -> [u8; 4] {
        self.payload_bytes.to_ne_bytes()
    }
}

/// What is asked of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// The kernel may give requests to an entry; `pieces` is the address of its two `iovec`.
    Register { pieces: u64 },
    /// The answer in an entry's memory is complete; the entry waits for the next request.
    Commit { commit: u64 },
}

impl Command {
    /// For the queue `queue` of the connection that `descriptor` is of; its completion tells `user_data`.
    pub fn submission(&self, descriptor: i32, queue: u16, user_data: u64) -> [u8; SUBMISSION_BYTES] {
        let (command, pieces, count, commit) = match *self {
            Command::Register { pieces } => (REGISTER, pieces, 2_u32, 0),
            Command::Commit { commit } => (COMMIT_AND_FETCH, 0, 0, commit),
        };
        let mut bytes = [0; SUBMISSION_BYTES];
        bytes[0] = OP_URING_CMD;
        bytes[4..8].copy_from_slice(&descriptor.to_ne_bytes());
        bytes[8..12].copy_from_slice(&command.to_ne_bytes());
        bytes[16..24].copy_from_slice(&pieces.to_ne_bytes());
        bytes[24..28].copy_from_slice(&count.to_ne_bytes());
        bytes[32..40].copy_from_slice(&user_data.to_ne_bytes());
        bytes[56..64].copy_from_slice(&commit.to_ne_bytes());
        bytes[64..66].copy_from_slice(&queue.to_ne_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::request::{Dialect, Operation, Request};
    use super::*;

    /// Takes a message into the pieces that the kernel makes of it.
    fn pieces(message: &[u8], operation_bytes: usize, commit: u64) -> ([u8; HEADER_BYTES], Vec<u8>) {
        let mut header = [0xa5; HEADER_BYTES];
        header[..40].copy_from_slice(&message[..40]);
        header[128..128 + operation_bytes].copy_from_slice(&message[40..40 + operation_bytes]);
        let payload = message[40 + operation_bytes..].to_vec();
        header[264..272].copy_from_slice(&commit.to_ne_bytes());
        header[272..276].copy_from_slice(&(payload.len() as u32).to_ne_bytes());
        (header, payload)
    }

    fn joined(header: &[u8; HEADER_BYTES], payload: &[u8], max: usize) -> Result<Vec<u8>, (u64, Malformed)> {
        let delivery = Delivery::parse(header, max)?;
        let mut message = delivery.front(header)[..delivery.front_bytes()].to_vec();
        message.extend_from_slice(&payload[..delivery.payload_bytes]);
        Ok(message)
    }

    fn lookup(name: &[u8]) -> Vec<u8> {
        let mut message = vec![0; 40];
        message[..4].copy_from_slice(&(40 + name.len() as u32 + 1).to_ne_bytes());
        message[4..8].copy_from_slice(&1_u32.to_ne_bytes());
        message[8..16].copy_from_slice(&8_u64.to_ne_bytes());
        message.extend_from_slice(name);
        message.push(0);
        message
    }

    #[test]
    fn a_request_in_pieces_is_the_request() {
        let (header, payload) = pieces(&lookup(b"name"), 0, 8);
        let message = joined(&header, &payload, 4096).unwrap();
        let request = Request::parse(&message, Dialect::default()).unwrap();
        assert_eq!(request.operation, Operation::Lookup { name: b"name" });
        assert_eq!(request.header.unique, 8);
    }

    #[test]
    fn a_length_that_fits_no_pieces_is_refused_and_can_be_answered() {
        let (header, _) = pieces(&lookup(b"name"), 0, 8);
        assert_eq!(Delivery::parse(&header, 4).unwrap_err().0, 8, "the payload has no room");
        for len in [0_u32, 39, 44, 45 + 129, u32::MAX] {
            let mut header = header;
            header[..4].copy_from_slice(&len.to_ne_bytes());
            assert_eq!(Delivery::parse(&header, 4096).unwrap_err().0, 8, "{len}");
        }
    }

    #[test]
    fn answers_and_submissions_are_where_the_kernel_looks() {
        let answer = Answer { unique: 8, errno: 2, payload_bytes: 0 };
        assert_eq!(answer.head()[..8], [16, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff]);
        assert_eq!(answer.head()[8..], 8_u64.to_ne_bytes());
        let register = Command::Register { pieces: 0x1122 }.submission(7, 3, 99);
        assert_eq!((register[0], register[4], register[8], register[24]), (46, 7, 1, 2));
        assert_eq!((register[16..18].to_vec(), register[32], register[64]), (vec![0x22, 0x11], 99, 3));
        let commit = Command::Commit { commit: 8 }.submission(7, 3, 99);
        assert_eq!((commit[8], commit[16], commit[24], commit[56], commit[64]), (2, 0, 0, 8, 3));
        assert!(commit[66..].iter().all(|&b| b == 0));
    }

    proptest! {
        #[test]
        fn every_cut_of_a_message_is_joined_to_the_same(
            rest in prop::collection::vec(any::<u8>(), 0..600), cut in 0_usize..=128, commit: u64,
        ) {
            let mut message = vec![7; 40];
            message[..4].copy_from_slice(&(40 + rest.len() as u32).to_ne_bytes());
            message.extend_from_slice(&rest);
            let cut = cut.min(rest.len());
            let (header, payload) = pieces(&message, cut, commit);
            prop_assert_eq!(joined(&header, &payload, 600).unwrap(), message);
            prop_assert_eq!(Delivery::parse(&header, 600).unwrap().commit, commit);
        }

        #[test]
        fn whatever_the_header_is_the_pieces_fit(header: [[u8; 32]; 9], max in 0_usize..1 << 21) {
            let header: [u8; HEADER_BYTES] = header.concat().try_into().unwrap();
            if let Ok(delivery) = Delivery::parse(&header, max) {
                prop_assert!(delivery.payload_bytes <= max && delivery.operation_bytes <= OPERATION_BYTES_MAX);
            }
        }
    }
}
