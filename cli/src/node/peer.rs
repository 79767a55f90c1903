//! Who is at the other end of the socket, by the kernel's word, and what they may do.
//!
//! | who | may |
//! |---|---|
//! | root, and the user the node runs as | everything |
//! | a user | mount, sync and see `user/<own login>` and `group/<own group>`, at directories of their own; unmount what they mounted |
//! | anybody | see that the node runs |
//!
//! What is not permitted answers as if it did not exist, so that nobody learns of names they were not granted.

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use granary_core::{Kind, NamespaceKind, NamespaceName};

use super::server::Gate;
use crate::exit::{Failure, Outcome};
use crate::users;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub uid: u32,
    /// The first group.
    pub gid: u32,
    /// All groups.
    pub gids: Vec<u32>,
    /// Root, or the node's own user.
    pub administrator: bool,
}

impl Connected<IncomingStream<'_, Gate>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Gate>) -> Peer {
        stream.remote_addr().clone()
    }
}

impl Peer {
    /// `gids`: the groups besides the first.
    pub fn new(uid: u32, gid: u32, mut gids: Vec<u32>) -> Peer {
        gids.push(gid);
        let own = rustix::process::geteuid().as_raw();
        Peer { uid, gid, gids, administrator: uid == 0 || uid == own }
    }

    /// Of this connection.
    pub fn of(stream: &tokio::net::UnixStream) -> std::io::Result<Peer> {
        let credentials = stream.peer_cred()?;
        Ok(Peer::new(credentials.uid(), credentials.gid(), users::peer_groups(stream)?))
    }

    /// Whether this namespace was granted to the peer.
    pub fn may(&self, name: &NamespaceName) -> bool {
        self.administrator
            || match name.kind() {
                NamespaceKind::User => users::by_login(name.leaf()).is_some_and(|user| user.uid == self.uid),
                NamespaceKind::Group => users::group(name.leaf()).is_some_and(|gid| self.gids.contains(&gid)),
                NamespaceKind::Dataset | NamespaceKind::Bucket => false,
            }
    }

    /// A namespace that was not granted does not exist.
    pub fn check(&self, name: &NamespaceName) -> Outcome<()> {
        if self.may(name) { Ok(()) } else { Err(missing(name)) }
    }

    pub fn check_administrator(&self, what: &str) -> Outcome<()> {
        if self.administrator {
            return Ok(());
        }
        Err(Failure::of_kind(Kind::Permission, format!("only root may {what}; use sudo")))
    }
}

/// The answer for a namespace that is not there, or not for this peer: the same words.
pub fn missing(name: &NamespaceName) -> Failure {
    Failure::of_kind(
        Kind::NotFound,
        format!("there is no namespace {name}; `granary ns list` shows those you may use"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_reach_their_own_only() {
        let name = |s: &str| s.parse::<NamespaceName>().unwrap();
        let daemon = users::by_login("daemon").unwrap();
        let peer = Peer { administrator: false, ..Peer::new(daemon.uid, daemon.gid, vec![]) };
        assert!(peer.may(&name("user/daemon")));
        assert!(peer.may(&name("group/daemon")));
        for other in ["user/root", "group/root", "user/no-such-user-here", "dataset/x", "bucket/x"] {
            let e = peer.check(&name(other)).unwrap_err();
            assert_eq!(e, missing(&name(other)));
        }
        assert!(peer.check_administrator("stop the node").unwrap_err().is(Kind::Permission));
        assert!(Peer::new(0, 0, vec![]).may(&name("dataset/x")));
    }
}
