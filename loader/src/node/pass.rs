//! Bytes and descriptors over a UNIX socket (`unix(7)`, `SCM_RIGHTS`): one system call each.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use super::wire::PARTS_MAX;

/// Sends some of the bytes, at least one, and all of the descriptors with the first of them: at most [`PARTS_MAX`].
///
/// Errors: `WouldBlock` of a socket that does not block; nothing was sent then.
pub fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PARTS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fits = descriptors.is_empty()
        || descriptors.len() <= PARTS_MAX && control.push(SendAncillaryMessage::ScmRights(descriptors));
    if !fits {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "more descriptors than one answer may have"));
    }
    Ok(sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
}

/// Receives some bytes, 0 at the end, and adds the descriptors that came with them. They are not left to programs that this one runs.
///
/// Errors: the socket's; descriptors that could not be taken, since this process has too many open.
pub fn receive(
    socket: impl AsFd,
    bytes: &mut [u8],
    descriptors: &mut VecDeque<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PARTS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut into = [IoSliceMut::new(bytes)];
    let got = recvmsg(socket, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    if got.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::other(
            "descriptors were lost: this process may not open so many files (ulimit -n)",
        ));
    }
    Ok(got.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn descriptors_come_with_the_first_byte_and_in_order() {
        let (a, b) = UnixStream::pair().unwrap();
        let files: Vec<std::fs::File> = (0_u8..2)
            .map(|n| {
                let mut file = tempfile::tempfile().unwrap();
                file.write_all(&[n]).unwrap();
                file
            })
            .collect();
        let lent: Vec<BorrowedFd<'_>> = files.iter().map(AsFd::as_fd).collect();
        assert_eq!(send(&a, b"xy", &lent).unwrap(), 2);
        assert_eq!(send(&a, b"z", &[]).unwrap(), 1);
        drop((files, a));
        let (mut got, mut bytes, mut all) = (VecDeque::new(), [0; 1], Vec::new());
        while receive(&b, &mut bytes, &mut got).unwrap() > 0 {
            all.push(bytes[0]);
            assert_eq!(got.len(), 2);
        }
        assert_eq!(all, b"xyz");
        for (n, fd) in (0..).zip(got) {
            let mut file = std::fs::File::from(fd);
            std::io::Seek::rewind(&mut file).unwrap();
            let mut found = Vec::new();
            file.read_to_end(&mut found).unwrap();
            assert_eq!(found, [n]);
        }
    }

    #[test]
    fn more_descriptors_than_an_answer_has_are_refused() {
        let (a, _b) = UnixStream::pair().unwrap();
        let lent = vec![a.as_fd(); PARTS_MAX + 1];
        assert!(send(&a, b"x", &lent).is_err());
    }
}
