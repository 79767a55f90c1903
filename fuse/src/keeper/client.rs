//! The node's side of the keeper's socket.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use granary_core::{Error, Kind, Result};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::wire::{self, Message, Word};

/// How long a keeper may take for an answer.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
const BACKLOG: i32 = 16;

/// A connection to the keeper. While it is open, and Bye was not said, the node counts as alive.
#[derive(Debug)]
pub struct Link {
    socket: OwnedFd,
}

fn failed(e: io::Error) -> Error {
    Error::new(Kind::Unavailable, "the keeper of the mounts does not answer").with_source(e)
}

fn socket(path: &Path) -> io::Result<(OwnedFd, SocketAddrUnix)> {
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    Ok((socket, SocketAddrUnix::new(path)?))
}

/// A listening socket for a keeper, for its user alone; one that a dead keeper left is replaced. `AddrInUse` when one answers.
pub fn listen(path: &Path) -> io::Result<OwnedFd> {
    use std::os::unix::fs::PermissionsExt;
    let (socket, address) = socket(path)?;
    if let Err(rustix::io::Errno::ADDRINUSE) = rustix::net::bind(&socket, &address) {
        if Link::connect(path).is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        std::fs::remove_file(path)?;
        rustix::net::bind(&socket, &address)?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

impl Link {
    pub fn connect(path: &Path) -> io::Result<Link> {
        let (socket, address) = socket(path)?;
        rustix::net::connect(&socket, &address)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_WAIT))?;
        set_socket_timeout(&socket, Timeout::Send, Some(ANSWER_WAIT))?;
        Ok(Link { socket })
    }

    /// For who waits for its end: it is readable then.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Says something, and waits for its answer: all entries that come before it.
    ///
    /// Errors: `Unavailable` when the keeper is gone, `Busy` with what it refused.
    pub fn say(&self, word: Word, mount: u64, blob: &[u8], descriptors: &[OwnedFd]) -> Result<Vec<Message>> {
        let all: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
        wire::send(&self.socket, word, mount, blob, &all).map_err(failed)?;
        let mut entries = Vec::new();
        loop {
            let message = wire::receive(&self.socket).map_err(failed)?;
            match message.ok_or_else(|| failed(io::ErrorKind::ConnectionReset.into()))? {
                entry if entry.word == Word::Entry => entries.push(entry),
                message if message.word == Word::Done => return Ok(entries),
                message => {
                    let why = String::from_utf8_lossy(&message.blob).into_owned();
                    return Err(Error::new(Kind::Busy, format!("the keeper of the mounts refused: {why}")));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use granary_core::SystemClock;

    use super::super::server::{ServerParts, serve};
    use super::*;

    fn start(
        path: &Path,
        revived: std::sync::mpsc::Sender<Vec<u8>>,
    ) -> std::thread::JoinHandle<io::Result<()>> {
        let listener = listen(path).unwrap();
        std::thread::spawn(move || {
            let revive = Box::new(move |hello: &[u8]| {
                let _gone = revived.send(hello.to_vec());
                std::process::Command::new("true").spawn()
            });
            serve(ServerParts { listener, clock: Arc::new(SystemClock), revive, ends_idle: true })
        })
    }

    fn pipe() -> (OwnedFd, OwnedFd) {
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap()
    }

    #[test]
    fn what_is_kept_outlives_who_gave_it_until_its_mount_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keeper.sock");
        let (revived, told) = std::sync::mpsc::channel();
        let server = start(&path, revived);
        assert_eq!(listen(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let link = Link::connect(&path).unwrap();
        link.say(Word::Hello, 0, b"how", &[]).unwrap();
        assert_eq!(link.say(Word::Put, 1, b"", &[]).unwrap_err().kind(), Kind::Busy);
        // The writing end of a pipe tells when its reading end is closed, as a descriptor of a mount that is over.
        let (reading, writing) = pipe();
        link.say(Word::Put, 7, b"first", &[writing]).unwrap();
        link.say(Word::Note, 7, b"second", &[]).unwrap();
        assert!(link.say(Word::Note, 8, b"none", &[]).is_err());
        drop(link);
        assert_eq!(told.recv().unwrap(), b"how", "it ended without a word");
        let next = Link::connect(&path).unwrap();
        next.say(Word::Hello, 0, b"how", &[]).unwrap();
        let entries = next.say(Word::Get, 0, b"", &[]).unwrap();
        let [entry] = &entries[..] else { panic!("{entries:?}") };
        assert_eq!((entry.mount, &entry.blob[..], entry.descriptors.len()), (7, &b"second"[..], 1));
        drop(entries);
        drop(reading);
        while !next.say(Word::Get, 0, b"", &[]).unwrap().is_empty() {}
        next.say(Word::Bye, 0, b"", &[]).unwrap();
        drop(next);
        server.join().unwrap().unwrap();
        assert!(told.try_recv().is_err(), "it said bye");
    }
}
