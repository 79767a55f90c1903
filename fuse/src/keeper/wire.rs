//! What node and keeper say to each other: messages of a `SOCK_SEQPACKET` socket, with descriptors beside them.
//!
//! | offset | size | a message |
//! |---|---|---|
//! | 0 | 1 | version, 1 |
//! | 1 | 1 | kind, below |
//! | 2 | 2 | descriptors that come with it |
//! | 4 | 4 | length of what follows the header |
//! | 8 | 8 | which mount: its device number, major in the upper half |
//! | 16 | 4 | crc32c of the 16 bytes before and of what follows |
//! | 20 | ... | what follows: text, as the kind says |
//!
//! | kind | from | what follows | means |
//! |---|---|---|---|
//! | 1 Hello | node | JSON of [`super::server::Revival`], or nothing | this connection is the node's life; how to start it again, if the keeper is to |
//! | 2 Put | node | blob | keep these descriptors, instead of what was kept for the mount |
//! | 3 Note | node | blob | the mount's blob is this now |
//! | 4 Remove | node | | the mount is over |
//! | 5 Get | node | | tell all: an Entry each, then Done |
//! | 6 Bye | node | | the node ends on purpose: it is not to be started again |
//! | 7 Entry | keeper | blob | one mount, with its descriptors |
//! | 8 Done | keeper | | that is done |
//! | 9 Failed | keeper | why | that is not done |
//!
//! Each message of the node is answered, by Done or Failed. Integers are little-endian.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 20;
/// What follows a header, at most.
pub const BLOB_BYTES_MAX: usize = 64 << 10;
/// Descriptors of one mount at most, its table among them; the kernel takes 253 at once.
pub const DESCRIPTORS_MAX: usize = 128;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Word {
    Hello = 1,
    Put,
    Note,
    Remove,
    Get,
    Bye,
    Entry,
    Done,
    Failed,
}

impl Word {
    fn of(kind: u8) -> Option<Word> {
        use Word::{Bye, Done, Entry, Failed, Get, Hello, Note, Put, Remove};
        [Hello, Put, Note, Remove, Get, Bye, Entry, Done, Failed].into_iter().find(|word| *word as u8 == kind)
    }
}

/// One message.
#[derive(Debug)]
pub struct Message {
    pub word: Word,
    pub mount: u64,
    pub blob: Vec<u8>,
    pub descriptors: Vec<OwnedFd>,
}

impl Message {
    pub fn new(word: Word, mount: u64, blob: &[u8]) -> Message {
        Message { word, mount, blob: blob.to_vec(), descriptors: Vec::new() }
    }
}

fn bad(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

fn header(word: Word, mount: u64, blob: &[u8], descriptors: usize) -> [u8; HEADER_BYTES] {
    let mut out = [0; HEADER_BYTES];
    (out[0], out[1]) = (VERSION, word as u8);
    out[2..4].copy_from_slice(&(descriptors as u16).to_le_bytes());
    out[4..8].copy_from_slice(&(blob.len() as u32).to_le_bytes());
    out[8..16].copy_from_slice(&mount.to_le_bytes());
    let crc = granary_core::crc32c_append(granary_core::crc32c(&out[..16]), blob);
    out[16..].copy_from_slice(&crc.to_le_bytes());
    out
}

/// Checks a message against the descriptors that came with it.
fn parse(bytes: &[u8], descriptors: usize) -> io::Result<(Word, u64, &[u8])> {
    let Some((head, blob)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Err(bad("it is too short"));
    };
    if head[0] != VERSION {
        return Err(bad("it is of another version of granary"));
    }
    let word = Word::of(head[1]).ok_or_else(|| bad("its kind is not known"))?;
    let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let count = usize::from(u16::from_le_bytes([head[2], head[3]]));
    if number(4) as usize != blob.len() || blob.len() > BLOB_BYTES_MAX {
        return Err(bad("its length is wrong"));
    }
    if count != descriptors || count > DESCRIPTORS_MAX {
        return Err(bad("its descriptors are not all there"));
    }
    if granary_core::crc32c_append(granary_core::crc32c(&head[..16]), blob) != number(16) {
        return Err(bad("its checksum is wrong"));
    }
    Ok((word, u64::from(number(8)) | u64::from(number(12)) << 32, blob))
}

/// Sends one message.
pub fn send(
    to: impl AsFd,
    word: Word,
    mount: u64,
    blob: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    if blob.len() > BLOB_BYTES_MAX || descriptors.len() > DESCRIPTORS_MAX {
        return Err(bad("it is too long"));
    }
    let head = header(word, mount, blob, descriptors.len());
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(bad("it has too many descriptors"));
    }
    let parts = [IoSlice::new(&head), IoSlice::new(blob)];
    rustix::io::retry_on_intr(|| rustix::net::sendmsg(&to, &parts, &mut ancillary, SendFlags::NOSIGNAL))?;
    Ok(())
}

/// Receives one message; `None`: the other side is gone.
pub fn receive(from: impl AsFd) -> io::Result<Option<Message>> {
    let mut bytes = vec![0; HEADER_BYTES + BLOB_BYTES_MAX + 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let len = loop {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        match rustix::net::recvmsg(&from, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Ok(got) => break got.bytes,
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    };
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    if len == 0 {
        return Ok(None);
    }
    let (word, mount, blob) = parse(&bytes[..len], descriptors.len())?;
    Ok(Some(Message { word, mount, blob: blob.to_vec(), descriptors }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    #[test]
    fn messages_go_whole_with_their_descriptors() {
        let (a, b) = pair();
        let file = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        send(&a, Word::Put, 5 << 32 | 7, b"blob", &[file.as_fd(), file.as_fd()]).unwrap();
        send(&a, Word::Get, 0, b"", &[]).unwrap();
        let put = receive(&b).unwrap().unwrap();
        assert_eq!(
            (put.word, put.mount, &put.blob[..], put.descriptors.len()),
            (Word::Put, 5 << 32 | 7, &b"blob"[..], 2)
        );
        assert_eq!(receive(&b).unwrap().unwrap().word, Word::Get);
        drop(a);
        assert!(receive(&b).unwrap().is_none());
        assert!(send(&b, Word::Put, 0, &vec![0; BLOB_BYTES_MAX + 1], &[]).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_are_taken_for_a_message_by_chance(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(parse(&bytes, 0).is_err());
        }

        #[test]
        fn every_changed_byte_is_noticed(blob in proptest::collection::vec(any::<u8>(), 0..99), at in 0_usize..119, by in 1_u8..=255) {
            let mut bytes = header(Word::Note, 99, &blob, 0).to_vec();
            bytes.extend_from_slice(&blob);
            let at = at % bytes.len();
            prop_assert_eq!(parse(&bytes, 0).unwrap(), (Word::Note, 99, &blob[..]));
            bytes[at] ^= by;
            prop_assert!(parse(&bytes, 0).is_err());
        }
    }
}
