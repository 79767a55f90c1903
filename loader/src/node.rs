//! Data sets through the node process of this machine: `granary://NAMESPACE/FOLDER`.
//!
//! ```text
//! loader A --asks for a range--> node process --what is missing--> store
//! loader B --the same range----> node process
//!        <--descriptors of the cache's files (SCM_RIGHTS)--
//! pread of these files: page cache -> batch, nothing goes through the socket or the mount
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | [`wire`] | what is asked and answered, byte by byte |
//! | [`pass`] | bytes and descriptors over a socket |
//! | `hello` | a connection that is opened: HTTP until both say that it is this protocol |
//! | `link` | a connection: many questions under way, answers as they come |
//! | `next_uses` | when what is asked for is wanted again |
//! | `store` | the node as a [`Store`](granary_store::Store), and what is done while it is away |
//! | `parts` | reading what was lent |
//!
//! The node has one cache for all processes, users and mounts, and fetches each chunk once however many ask; loaders need no keys of the
//! bucket. There are two kinds of root:
//!
//! * `granary://group/asr/sets/v1`: a folder of a namespace that holds a data set (what `granary pack` wrote into a mount).
//! * `granary://dataset/asr`: a namespace that shows a packed data set (`granary ns create --packed`), in the version that is shown.
//!
//! The namespace is mounted on this machine, and who asks may use it: the kernel says who they are, and modes and access control lists
//! of the files count as in the mount, each time something is asked for.
//!
//! **Every byte is verified by the loader**, as from a bucket: what is lent is not verified by the node again. A sample that does not match
//! its checksum is asked for once more, and then the node verifies what it has, and fetches again what is damaged.
//!
//! *What stays in the node's cache.* The order is known, so each question for bytes says of each mebibyte when the loader comes to it again, and
//! the node lets what is wanted last leave first, among what its namespace has of the cache (`cache/src/read/policy/wanted.rs`). All ranks and
//! workers of an order are taken for loaders of this machine. What a loader said is forgotten with its connection.
//!
//! *Bounds.* A question is for at most 8 MiB and has at most 16 descriptors in its answer; 16 questions are under way on a connection, and a
//! loader process has one connection a data set, so at most 256 descriptors, closed as soon as they are read. What the node evicts
//! meanwhile stays readable for who has it open.
//!
//! *While the node is away.* Requests under way are asked again. A packed data set is then read from its own bucket or folder if this
//! process's keys allow it, until the node is back; otherwise the loader waits, at most [`NODE_WAIT`]. The order of samples does not depend on
//! it: it is computed.

mod hello;
mod link;
mod next_uses;
mod parts;
pub mod pass;
mod store;
pub mod wire;

use std::time::Duration;

pub(crate) use next_uses::pieces;
pub(crate) use store::{NodeStore, NodeStoreParts};
pub(crate) use wire::{NEVER, PIECE_BYTES};

/// Where a node listens unless it is told otherwise.
pub const SOCKET: &str = "/run/granary/node.sock";
/// So long a loader waits for a node that does not answer, before it says so.
pub const NODE_WAIT: Duration = Duration::from_secs(60);
/// What a data set's name begins with that is read through the node.
const SCHEME: &str = "granary://";

/// The namespace and folder of such a name; `None` for others.
pub(crate) fn root_of(text: &str) -> Option<&str> {
    text.strip_prefix(SCHEME).map(|root| root.trim_end_matches('/'))
}
