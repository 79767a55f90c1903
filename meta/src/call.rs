//! What goes between a session and the metadata service, as plain data: the same in process and over the network, where
//! [`crate::wire`] encodes it.
//!
//! A session greets ([`Hello`]), is answered ([`Greeting`]), and then asks ([`Request`]) and is answered ([`Response`]), many
//! at once and in any order; meanwhile the service recalls leases ([`Recall`]), which the session answers ([`Released`]).
//! Everything that the service sends to one session is in one order: a grant that was followed by its recall is seen so.

mod kind;

use std::time::Duration;

use granary_core::{Error, Ino, NamespaceId, NamespaceName, NodeId, ObjectId, SessionId};

use crate::lease::{LeaseKind, Lock, LockOwner, LockRequest, PeerInfo, Scope};
use crate::types::*;

pub use kind::CallKind;

/// A session's first words, and again after each broken connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// To go on with a session; `None` begins one.
    pub session: Option<SessionId>,
    pub node: NodeId,
    /// Its host's name, for messages.
    pub name: String,
    /// Where it serves its staged bytes, `host:port`.
    pub data_address: Option<String>,
    /// What it still has, for a service that was restarted meanwhile and does not know.
    pub held: Vec<Held>,
    /// The process that knew what the session has is gone. This one takes its place, and asks for it ([`Greeting::had`]).
    pub anew: bool,
}

/// What a session has of one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub ns: NamespaceId,
    pub opens: Vec<Ino>,
    /// Write leases with held state; read leases are not kept across a restart.
    pub writes: Vec<Ino>,
    pub locks: Vec<(Ino, LockOwner, Lock)>,
}

/// What the service has written down for a session in one namespace, for a process that takes another one's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Had {
    pub ns: NamespaceId,
    /// Those that are being recalled too; the recalls follow.
    pub leases: Vec<(Scope, LeaseKind)>,
    pub opens: Vec<Ino>,
    pub locks: Vec<(Ino, LockOwner, Lock)>,
    /// Inodes that were made or changed by calls whose answers were not confirmed.
    pub changed: Vec<Ino>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    pub session: SessionId,
    /// Changes whenever the service was started anew: then read leases are gone.
    pub incarnation: u64,
    /// Whether the session that was asked for goes on. If not, this is a new one, and what the old one had is lost.
    pub resumed: bool,
    /// Each word of the session extends its leases to this long after it.
    pub lease_time: Duration,
    pub volume: VolumeInfo,
    /// What verifies the tickets of peers that ask for staged bytes ([`crate::token::TicketVerifier`]); empty: nobody
    /// has tickets.
    pub ticket_key: Vec<u8>,
    /// The answer to [`Hello::anew`], of a session that goes on: the number of its next call, above all that were used. 0: not
    /// asked, or asked of a service that cannot tell.
    pub next_call: u64,
    /// With it: what the session has.
    pub had: Vec<Had>,
}

/// One call of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Grows by one from call to call of a session. Asked again with the same number, a call is not done again: its first
    /// answer is given.
    pub id: u64,
    /// All answers to calls below this number that change something ([`Call::changes`]) arrived: they need not be
    /// remembered any more. Others never are, so that a lock that is waited for does not hold this number back.
    pub acked_below: u64,
    /// 0 with calls that concern the volume.
    pub ns: NamespaceId,
    pub call: Call,
}

/// The calls. Those of a namespace are the methods of [`crate::Metadata`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    Lookup {
        dir: Ino,
        name: Box<[u8]>,
    },
    GetAttr {
        ino: Ino,
    },
    ReadDir {
        dir: Ino,
        cookie: u64,
        max: u32,
        with_attr: bool,
    },
    Parent {
        dir: Ino,
    },
    ReadLink {
        ino: Ino,
    },
    GetXattr {
        ino: Ino,
        name: Box<[u8]>,
    },
    ListXattr {
        ino: Ino,
    },
    SetXattr {
        ino: Ino,
        name: Box<[u8]>,
        value: Box<[u8]>,
        create_only: bool,
        replace_only: bool,
    },
    RemoveXattr {
        ino: Ino,
        name: Box<[u8]>,
    },
    /// With `open` the creator has the inode open and gets its write lease.
    Create {
        dir: Ino,
        name: Box<[u8]>,
        new: NewInode,
        open: bool,
    },
    Tmpfile {
        dir: Ino,
        new: NewInode,
    },
    Link {
        ino: Ino,
        dir: Ino,
        name: Box<[u8]>,
    },
    Unlink {
        dir: Ino,
        name: Box<[u8]>,
    },
    Rmdir {
        dir: Ino,
        name: Box<[u8]>,
    },
    Rename {
        dir: Ino,
        name: Box<[u8]>,
        to_dir: Ino,
        to_name: Box<[u8]>,
        mode: RenameMode,
    },
    SetAttr {
        ino: Ino,
        set: SetAttr,
    },
    /// The session has the inode open from now on, until `Close`, however often it opens it.
    Open {
        ino: Ino,
    },
    Close {
        inos: Vec<Ino>,
    },
    /// `with_inline`: with the copy of its bytes, if there is one.
    Extents {
        ino: Ino,
        with_inline: bool,
    },
    Commit(Commit),
    Relocate {
        object: ObjectInfo,
        moves: Vec<Move>,
    },
    KeepInline {
        object: ObjectInfo,
        copies: Vec<NewInline>,
    },
    Live {
        staged: Vec<(Ino, Extent)>,
    },
    Object {
        id: ObjectId,
    },
    DeadObjects {
        max: u32,
    },
    LiveObjects {
        after: ObjectId,
        max: u32,
    },
    ForgetObjects {
        ids: Vec<ObjectId>,
    },
    CopyRange(CopyRange),
    Sync,
    /// The write lease of a file's content.
    Lease {
        ino: Ino,
    },
    TestLock {
        ino: Ino,
        owner: LockOwner,
        lock: Lock,
    },
    Lock {
        ino: Ino,
        request: LockRequest,
    },
    /// Leases given back without being asked.
    Forget {
        scopes: Vec<Scope>,
    },
    Peer {
        node: NodeId,
    },

    // of the volume
    /// The namespace of this name: `NotFound` also when it is not granted.
    Namespace {
        name: NamespaceName,
    },
    /// Those that are granted.
    Namespaces,
    CreateNamespace {
        new: NewNamespace,
    },
    SetNamespace {
        name: NamespaceName,
        change: NamespaceChange,
    },
    RemoveNamespace {
        name: NamespaceName,
        force: bool,
    },
    Sessions,
    RevokeToken {
        token: String,
    },
    /// A short-lived token for this namespace alone ([`crate::token::Delegator`]). Asked again, another is made.
    Delegate {
        namespace: NamespaceName,
        read_only: bool,
        lifetime_secs: u64,
        /// For whom, in the audit log's words.
        purpose: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Done,
    Attr(Attr),
    Entries(Vec<DirEntry>),
    Ino(Ino),
    Bytes(Vec<u8>),
    Names(Vec<Vec<u8>>),
    /// Of a rename: who lost its name by being replaced.
    Renamed(Option<Attr>),
    Extents(Attr, Vec<Extent>, Option<Inline>),
    /// Parts `(file offset, len)` for each move, or each staged extent.
    Parts(Vec<Vec<(u64, u64)>>),
    Object(ObjectInfo),
    DeadObjects(Vec<DeadObject>),
    LiveObjects(Vec<LiveObject>),
    Copied(Copied),
    Lock(Option<Lock>),
    Peer(PeerInfo),
    Namespace(NamespaceInfo),
    Namespaces(Vec<NamespaceInfo>),
    Sessions(Vec<SessionInfo>),
    Token(TokenText),
}

/// A token: whoever has it may use it, so it is not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenText(pub String);

impl std::fmt::Debug for TokenText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenText(..)")
    }
}

/// A session, as `granary meta sessions` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionInfo {
    pub session: SessionId,
    pub node: NodeId,
    pub name: String,
    pub user: String,
    pub silent: Duration,
    pub leases: u64,
    pub opens: u64,
    pub locks: u64,
}

#[derive(Debug)]
pub struct Response {
    pub id: u64,
    pub result: Result<Answer, Error>,
    /// Leases that come with the answer. Without one, what was answered may be used once and not kept.
    pub grants: Vec<(Scope, LeaseKind)>,
    /// Attributes, after the call, of what it changed besides: directories of entries that were made or removed.
    pub touched: Vec<Attr>,
    /// Of the namespace, when it changed since the session last heard of it.
    pub usage: Option<Usage>,
}

/// The service asks a lease back. Answered by one [`Released`] of the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recall {
    pub id: u64,
    pub ns: NamespaceId,
    pub scope: Scope,
    /// `Read`: keep reading; `Write`: give all of it up.
    pub wanted: LeaseKind,
}

/// The answer to a recall: nothing is kept on the lease's account any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Released {
    pub id: u64,
    /// The inode is open here: from now on the service counts that, until `Close`.
    pub open: bool,
}
