//! Who a session belongs to, and which namespaces that opens. Proven by the caller (a signed token); the session's own
//! words do not count.

use granary_core::{NamespaceKind, NamespaceName, Timestamp};

/// What somebody may do with the namespaces that are theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rights {
    ReadOnly,
    ReadWrite,
    /// Everything, in every namespace.
    Admin,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub user: String,
    pub groups: Vec<String>,
    pub rights: Rights,
    /// The token's id, by which it is revoked.
    pub token: String,
    /// Since when the token is not accepted any more: its connection ends then, and a revocation need not be remembered for
    /// longer. `None`: not known.
    pub expires: Option<Timestamp>,
}

impl Identity {
    /// The right to the namespace of this name; `None`: for this identity it does not exist. `user/NAME` is NAME's,
    /// `group/NAME` its members', everything is an administrator's.
    pub fn may(&self, name: &NamespaceName) -> Option<Rights> {
        let own = match name.kind() {
            _ if self.rights == Rights::Admin => true,
            NamespaceKind::User => self.user == name.leaf(),
            NamespaceKind::Group => self.groups.iter().any(|group| group == name.leaf()),
            NamespaceKind::Dataset | NamespaceKind::Bucket => false,
        };
        own.then_some(self.rights)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_granted_exists() {
        let mut alice = Identity {
            user: "alice".into(),
            groups: vec!["asr".into(), "bob".into()],
            rights: Rights::ReadOnly,
            token: "t".into(),
            expires: None,
        };
        let may = |who: &Identity, name: &str| who.may(&name.parse().unwrap());
        assert_eq!(may(&alice, "user/alice"), Some(Rights::ReadOnly));
        assert_eq!(may(&alice, "group/asr"), Some(Rights::ReadOnly));
        // A group's name is no user's, nor the other way round.
        for other in ["user/bob", "group/alice", "user/Alice", "user/alice2", "dataset/alice", "bucket/asr"] {
            assert_eq!(may(&alice, other), None, "{other}");
        }
        alice.rights = Rights::Admin;
        assert_eq!(may(&alice, "bucket/x"), Some(Rights::Admin));
    }
}
