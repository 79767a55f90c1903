//! Who a session belongs to, and which namespaces that opens. Proven by the caller (a signed token); the session's own
//! words do not count.

use granary_core::{NamespaceKind, NamespaceName, Timestamp};

use crate::token::Pattern;

/// What somebody may do with the namespaces that are theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rights {
    /// Nothing but having tokens made for others.
    Delegate,
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
    /// The only namespaces that it reaches, or may delegate; `None`: those of the user and the groups, or may delegate all.
    pub namespaces: Option<Vec<Pattern>>,
    /// The token's id, by which it is revoked.
    pub token: String,
    /// The id of the token that it was delegated from: what revokes that one revokes it.
    pub parent: Option<String>,
    /// Since when the token is not accepted any more: its connection ends then, and a revocation need not be remembered for
    /// longer. `None`: not known.
    pub expires: Option<Timestamp>,
}

impl Identity {
    /// The right to the namespace of this name; `None`: for this identity it does not exist. `user/NAME` is NAME's,
    /// `group/NAME` its members', everything is an administrator's. A token that names namespaces reaches those, whatever they are
    /// called, and no others; one that delegates reaches none.
    pub fn may(&self, name: &NamespaceName) -> Option<Rights> {
        let own = match (name.kind(), &self.namespaces) {
            _ if self.rights == Rights::Admin => true,
            _ if self.rights == Rights::Delegate => false,
            (_, Some(named)) => named.iter().any(|pattern| pattern.covers(name)),
            (NamespaceKind::User, None) => self.user == name.leaf(),
            (NamespaceKind::Group, None) => self.groups.iter().any(|group| group == name.leaf()),
            (NamespaceKind::Dataset | NamespaceKind::Bucket, None) => false,
        };
        own.then_some(self.rights)
    }

    /// Whether it may have a token made for the namespace of this name.
    pub fn may_delegate(&self, name: &NamespaceName) -> bool {
        match self.rights {
            Rights::Admin => true,
            Rights::Delegate => {
                self.namespaces.as_ref().is_none_or(|named| named.iter().any(|pattern| pattern.covers(name)))
            }
            Rights::ReadOnly | Rights::ReadWrite => false,
        }
    }

    /// Whether it comes from the token of this id.
    pub fn comes_from(&self, token: &str) -> bool {
        self.token == token || self.parent.as_deref() == Some(token)
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
            namespaces: None,
            token: "t".into(),
            parent: None,
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

    #[test]
    fn who_delegates_reaches_nothing_and_names_count_alone() {
        let mut who = Identity {
            user: "csi".into(),
            groups: vec!["asr".into()],
            rights: Rights::Delegate,
            namespaces: Some(vec!["user/*".parse().unwrap(), "dataset/x".parse().unwrap()]),
            token: "t".into(),
            parent: Some("p".into()),
            expires: None,
        };
        let name = |text: &str| text.parse::<NamespaceName>().unwrap();
        for (text, covered) in [
            ("user/csi", true),
            ("user/bob", true),
            ("dataset/x", true),
            ("dataset/y", false),
            ("group/asr", false),
        ] {
            who.rights = Rights::Delegate;
            assert_eq!((who.may(&name(text)), who.may_delegate(&name(text))), (None, covered), "{text}");
            who.rights = Rights::ReadOnly;
            let reached = covered.then_some(Rights::ReadOnly);
            assert_eq!((who.may(&name(text)), who.may_delegate(&name(text))), (reached, false), "{text}");
        }
        (who.rights, who.namespaces) = (Rights::Delegate, None);
        assert!(who.may_delegate(&name("group/asr")) && who.may(&name("group/asr")).is_none());
        assert!(who.comes_from("t") && who.comes_from("p") && !who.comes_from("q"));
    }
}
