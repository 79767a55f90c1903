//! The keeper itself: one thread that holds descriptors, and lets go of those whose mount is over. It knows nothing of
//! namespaces, so that it need not change when the node does.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use granary_core::Clock;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use rustix::net::{SocketFlags, accept_with};

use super::wire::{self, Message, Word};

/// Mounts at once.
const MOUNTS_MAX: usize = 4096;
/// Connections at once: a node has one.
const CONNECTIONS_MAX: usize = 16;
/// How long one that does not read is written to.
const SEND_WAIT: Duration = Duration::from_secs(5);
/// Nobody is connected and nothing is kept for this long: a keeper that a node started ends.
const IDLE_MAX: Duration = Duration::from_secs(5);
/// How long a node that ended is waited for before it is started again: at first, and at most.
const REVIVE_FIRST: Duration = Duration::from_millis(50);
const REVIVE_MAX: Duration = Duration::from_secs(30);
/// How often somebody looks whether a node that was started has said hello.
const LOOK: Duration = Duration::from_millis(500);

/// Starts the node again, as its Hello says how.
pub type Revive = Box<dyn FnMut(&[u8]) -> io::Result<std::process::Child>>;

/// What a keeper is made of.
pub struct ServerParts {
    /// A listening `SOCK_SEQPACKET` socket.
    pub listener: OwnedFd,
    pub clock: Arc<dyn Clock>,
    pub revive: Revive,
    /// It ends when it holds nothing and nobody is there.
    pub ends_idle: bool,
}

struct Entry {
    blob: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

struct Connection {
    socket: OwnedFd,
    /// It said Hello, with this.
    hello: Option<Vec<u8>>,
}

/// A node that is to come back.
struct Awaited {
    hello: Vec<u8>,
    due: Duration,
    backoff: Duration,
    child: Option<std::process::Child>,
}

struct Server {
    parts: ServerParts,
    entries: BTreeMap<u64, Entry>,
    connections: Vec<Connection>,
    awaited: Option<Awaited>,
    /// Every child is reaped.
    children: Vec<std::process::Child>,
    idle_since: Duration,
}

/// Serves until it is idle, where it is to end then.
pub fn serve(parts: ServerParts) -> io::Result<()> {
    let idle_since = parts.clock.monotonic();
    let (entries, connections, children) = (BTreeMap::new(), Vec::new(), Vec::new());
    let mut server = Server { parts, entries, connections, awaited: None, children, idle_since };
    while !server.is_over() {
        server.turn()?;
    }
    Ok(())
}

impl Server {
    fn now(&self) -> Duration {
        self.parts.clock.monotonic()
    }

    fn is_over(&mut self) -> bool {
        let now = self.now();
        if !self.entries.is_empty() || !self.connections.is_empty() {
            self.idle_since = now;
        }
        self.parts.ends_idle && now.saturating_sub(self.idle_since) >= IDLE_MAX
    }

    /// Waits for something, and does it.
    fn turn(&mut self) -> io::Result<()> {
        let ids: Vec<u64> = self.entries.keys().copied().collect();
        let mut all = vec![PollFd::from_borrowed_fd(self.parts.listener.as_fd(), PollFlags::IN)];
        all.extend(self.connections.iter().map(|c| PollFd::new(&c.socket, PollFlags::IN)));
        let firsts = self.entries.values().filter_map(|entry| entry.descriptors.first());
        // What it tells unasked: that the connection is over.
        all.extend(firsts.map(|first| PollFd::new(first, PollFlags::empty())));
        let wait = match &self.awaited {
            Some(awaited) => awaited.due.saturating_sub(self.now()),
            None => LOOK,
        };
        let wait = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
        match poll(&mut all, Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let told: Vec<bool> = all.iter().map(|one| !one.revents().is_empty()).collect();
        drop(all);
        let count = self.connections.len();
        for (id, _) in ids.iter().zip(&told[1 + count..]).filter(|(_, over)| **over) {
            self.entries.remove(id);
        }
        for at in (0..count).rev().filter(|at| told[1 + at]) {
            self.hear(at);
        }
        if told[0] {
            self.welcome();
        }
        self.children.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        self.revive();
        Ok(())
    }

    /// Only this user, and root.
    fn welcome(&mut self) {
        let Ok(socket) = accept_with(&self.parts.listener, SocketFlags::CLOEXEC) else { return };
        let Ok(peer) = socket_peercred(&socket) else { return };
        let trusted = peer.uid.is_root() || peer.uid == rustix::process::geteuid();
        let timed = set_socket_timeout(&socket, Timeout::Send, Some(SEND_WAIT)).is_ok();
        if trusted && timed && self.connections.len() < CONNECTIONS_MAX {
            self.connections.push(Connection { socket, hello: None });
        }
    }

    fn hear(&mut self, at: usize) {
        let answered = match wire::receive(&self.connections[at].socket) {
            Ok(Some(message)) => self.answer(at, message),
            Ok(None) => Err(io::ErrorKind::ConnectionReset.into()),
            Err(e) => Err(e),
        };
        if answered.is_err() {
            let gone = self.connections.remove(at);
            if let Some(hello) = gone.hello.filter(|hello| !hello.is_empty()) {
                let due = self.now() + REVIVE_FIRST;
                self.awaited = Some(Awaited { hello, due, backoff: REVIVE_FIRST, child: None });
            }
        }
    }

    fn answer(&mut self, at: usize, message: Message) -> io::Result<()> {
        let Message { word, mount, blob, descriptors } = message;
        match word {
            Word::Hello => {
                self.connections[at].hello = Some(blob);
                self.children.extend(self.awaited.take().and_then(|awaited| awaited.child));
            }
            Word::Bye => self.connections[at].hello = None,
            Word::Put if descriptors.is_empty() => return self.refuse(at, "there is nothing to keep"),
            Word::Put if self.entries.len() >= MOUNTS_MAX => {
                return self.refuse(at, "too many mounts are kept");
            }
            Word::Put => drop(self.entries.insert(mount, Entry { blob, descriptors })),
            Word::Note => match self.entries.get_mut(&mount) {
                Some(entry) => entry.blob = blob,
                None => return self.refuse(at, "the mount is not kept"),
            },
            Word::Remove => drop(self.entries.remove(&mount)),
            Word::Get => {
                for (id, entry) in &self.entries {
                    let all: Vec<BorrowedFd<'_>> = entry.descriptors.iter().map(AsFd::as_fd).collect();
                    wire::send(&self.connections[at].socket, Word::Entry, *id, &entry.blob, &all)?;
                }
            }
            Word::Entry | Word::Done | Word::Failed => {
                return self.refuse(at, "that is for the keeper to say");
            }
        }
        wire::send(&self.connections[at].socket, Word::Done, mount, b"", &[])
    }

    fn refuse(&self, at: usize, why: &str) -> io::Result<()> {
        wire::send(&self.connections[at].socket, Word::Failed, 0, why.as_bytes(), &[])
    }

    /// Starts the node that ended, again and again, until one says hello. Not for nothing: without mounts nobody waits for it.
    fn revive(&mut self) {
        let now = self.now();
        if self.entries.is_empty() {
            self.children.extend(self.awaited.take().and_then(|awaited| awaited.child));
        }
        let Some(awaited) = self.awaited.as_mut().filter(|awaited| awaited.due <= now) else { return };
        if let Some(child) = &mut awaited.child
            && matches!(child.try_wait(), Ok(None))
        {
            awaited.due = now + LOOK; // it starts, which may take its time
            return;
        }
        // A failure is seen by nobody here; it is tried again.
        awaited.child = (self.parts.revive)(&awaited.hello).ok();
        awaited.backoff = (awaited.backoff * 2).min(REVIVE_MAX);
        awaited.due = now + awaited.backoff;
    }
}
