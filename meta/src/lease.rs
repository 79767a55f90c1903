//! What a session may assume of a namespace that others use too, and for how long; and locks.
//!
//! A lease comes with an answer of the service and lasts until it is recalled, or until the session's lease time ends
//! without a renewal. Before the service acknowledges a change, it recalls what other sessions hold of the scopes that
//! change, and waits for them or for the end of their time. So whatever a session holds is true.
//!
//! | scope, kind | what its holder may assume or do |
//! |---|---|
//! | inode, read | its attributes, extended attributes, extents and bytes, symlink target |
//! | inode, write | the same, and that it alone may change bytes, size and mtime, and hold that back from the service |
//! | directory, read | its entries, which names are absent, its listing |

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use granary_core::{Ino, NodeId};

/// What a lease covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    Inode(Ino),
    Directory(Ino),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LeaseKind {
    Read,
    Write,
}

/// Why a session's leases are all gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lost {
    /// The service was not heard of for the lease time. The session may come back: what is held back is kept.
    Unheard,
    /// The service ended the session: its locks and open files are gone, its held state is refused.
    Fenced,
}

/// Who keeps what leases allow: told before they end.
#[async_trait]
pub trait Holder: Send + Sync + 'static {
    /// Somebody else wants to read (`Read`: a write lease becomes a read lease) or to change (`Write`: all is given up)
    /// what `scope` covers. At the return nothing that is kept here relies on the lease any more, and what was held back has
    /// been committed. Until then the lease is still ours, and calls that are under way may be finished with it. Must
    /// never wait for an answer of the service, but for that of a commit.
    async fn recall(&self, scope: Scope, wanted: LeaseKind);
    /// All leases are gone: nothing that is kept may be used without asking again.
    async fn lost(&self, why: Lost);
}

/// Who has a lock, within a session: the kernel's number of an open file description or of a process's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LockOwner(pub u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LockKind {
    Shared,
    Exclusive,
}

/// A lock on bytes `start..=end` of a file (fcntl, OFD), or on all of it (`flock`: a space of its own).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lock {
    pub flock: bool,
    pub kind: LockKind,
    pub start: u64,
    /// The last byte, included; `u64::MAX`: to the end, wherever it is.
    pub end: u64,
    /// Who, for F_GETLK.
    pub pid: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LockRequest {
    pub owner: LockOwner,
    pub lock: Lock,
    /// `lock.kind` does not matter then.
    pub unlock: bool,
    pub wait: bool,
}

/// A node that serves its staged bytes to others.
#[derive(Clone, PartialEq, Eq)]
pub struct PeerInfo {
    pub node: NodeId,
    /// Its host's name, for messages.
    pub name: String,
    /// `host:port`; `None`: it serves nobody, or is gone.
    pub address: Option<String>,
    /// Shown to the peer: a signed token that lets this session read this namespace's staged bytes, for some minutes.
    pub ticket: String,
    /// How long the service has not heard of it; zero while its session lives.
    pub silent: Duration,
}

impl fmt::Debug for PeerInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerInfo")
            .field("node", &self.node)
            .field("name", &self.name)
            .field("address", &self.address)
            .field("silent", &self.silent)
            .finish_non_exhaustive()
    }
}
