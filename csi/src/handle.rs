//! What a volume is called: its namespace, and perhaps one tree of it.
//!
//! ```text
//! user/alice                  a namespace that exists (a PV made by hand, an inline volume)
//! group/asr:corpora/2026      a tree in it
//! bucket/csi-pvc-8c1f…        a namespace that CreateVolume made, and DeleteVolume deletes
//! ```
//!
//! A PV that somebody wrote by hand and forgot to `Retain` must not take a user's files with it: only namespaces whose name begins
//! as CreateVolume's do are listed, and deleted. The name says it, so that nothing has to be kept, and no handle can claim it.

use std::fmt;
use std::str::FromStr;

use granary_core::{EntryName, Error, NamespaceName, Result};

use crate::status::invalid;

/// Of a volume id, as the interface bounds it.
pub const HANDLE_BYTES_MAX: usize = 128;

/// How names of namespaces begin, behind their kind, that claims made.
pub const MADE: &str = "csi-";

/// Whether a claim made it.
pub fn is_made(namespace: &NamespaceName) -> bool {
    namespace.leaf().starts_with(MADE)
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Handle {
    pub namespace: NamespaceName,
    /// Relative, of plain names.
    pub tree: Option<String>,
}

impl Handle {
    /// All of a namespace.
    pub fn whole(namespace: NamespaceName) -> Handle {
        Handle { namespace, tree: None }
    }

    /// Whether it may be deleted with its claim.
    pub fn is_made(&self) -> bool {
        self.tree.is_none() && is_made(&self.namespace)
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.namespace.fmt(f)?;
        self.tree.as_ref().map_or(Ok(()), |tree| write!(f, ":{tree}"))
    }
}

impl FromStr for Handle {
    type Err = Error;

    fn from_str(text: &str) -> Result<Handle> {
        if text.len() > HANDLE_BYTES_MAX {
            return invalid(format!(
                "a volume handle has {} bytes, {HANDLE_BYTES_MAX} are allowed",
                text.len()
            ));
        }
        let (namespace, tree) = match text.split_once(':') {
            Some((namespace, tree)) => (namespace, Some(check_tree(tree)?)),
            None => (text, None),
        };
        Ok(Handle { namespace: namespace.parse()?, tree })
    }
}

/// A path below a namespace's top directory: plain names, so that it leads nowhere else.
pub fn check_tree(tree: &str) -> Result<String> {
    for name in tree.split('/') {
        EntryName::new(name.as_bytes()).map_err(|e| {
            Error::new(
                e.kind(),
                format!("the tree {tree:?} of a volume cannot be used: {e}; write it as a/b/c"),
            )
        })?;
    }
    Ok(tree.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use granary_core::Kind;

    use super::*;

    #[test]
    fn handles_say_what_they_are() {
        for text in ["user/alice", "group/asr:corpora/2026", "bucket/csi-pvc-1"] {
            assert_eq!(text.parse::<Handle>().unwrap().to_string(), text);
        }
        let tree: Handle = "group/asr:a/b".parse().unwrap();
        assert_eq!((tree.namespace.as_str(), tree.tree.as_deref()), ("group/asr", Some("a/b")));
    }

    #[test]
    fn nothing_leads_out_of_a_namespace() {
        for bad in [
            "",
            "alice",
            "user/../group/x",
            "user/alice:",
            "user/alice:/etc",
            "user/alice:a/../..",
            "user/alice:a//b",
            "user/alice:.",
            "made:user/alice",
            &format!("user/alice:{}", "x".repeat(120)),
        ] {
            let e = bad.parse::<Handle>().unwrap_err();
            assert!(matches!(e.kind(), Kind::Invalid | Kind::NameTooLong), "{bad}: {e}");
        }
    }

    #[test]
    fn only_what_a_claim_made_is_deleted() {
        let is_made = |text: &str| text.parse::<Handle>().unwrap().is_made();
        assert!(is_made("bucket/csi-pvc-1") && is_made("user/csi-x"));
        for other in ["user/alice", "bucket/pvc-1", "bucket/xcsi-1", "bucket/csi-pvc-1:tree"] {
            assert!(!is_made(other), "{other}");
        }
    }

    proptest! {
        #[test]
        fn what_is_understood_is_written_the_same(text in "(user|bucket)/[a-z.]{1,8}(:[a-z./]{0,12})?") {
            if let Ok(handle) = text.parse::<Handle>() {
                prop_assert_eq!(handle.to_string(), text);
            }
        }
    }
}
