//! Which pods may have which namespaces: the administrator's file, and what it says to a question.
//!
//! ```toml
//! [[grant]]
//! to = ["team-a/*", "system:serviceaccount:team-b:trainer"]
//! namespaces = ["group/asr", "dataset/*", "group/nlp:corpora"]
//! rights = "rw"
//! squash = true
//! ```
//!
//! | key | meaning |
//! |---|---|
//! | `to` | service accounts, `NAMESPACE/NAME` or as Kubernetes writes them; `*` for either part is any |
//! | `namespaces` | `KIND/NAME`, `KIND/*`, `*/*`, each perhaps with a `:TREE` of it. `{account}` and `{namespace}` are who asks |
//! | `rights` | `ro` (default) or `rw` |
//! | `squash` | whether the pod may act as the owner, or the group, of the namespace's top directory (`uid`, `gid`, `fsGroup`); default `false` |
//!
//! Nothing is granted that no grant names. Of those that fit, the one with the most rights counts, and only its `squash`. `*` does not
//! mean what a claim made: that belongs to the Kubernetes namespace of its claim, unless a grant names it. A grant to every
//! Kubernetes namespace cannot say `{account}`, since whoever may make service accounts in any of them would choose it.

use std::fmt;
use std::path::Path;

use granary_core::{Error, Kind, NamespaceName, Result};
use serde::Deserialize;

use crate::handle::{Handle, check_tree, is_made};
use crate::status::invalid;

/// Of the file.
pub const GRANTS_BYTES_MAX: u64 = 1 << 20;

/// How Kubernetes begins a service account's user name.
const ACCOUNT_PREFIX: &str = "system:serviceaccount:";

/// Who asks, as Kubernetes vouches for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub namespace: String,
    pub name: String,
}

impl Account {
    /// From a user name as TokenReview gives it; `None` for who is no service account.
    pub fn of_user(user: &str) -> Option<Account> {
        let (namespace, name) = user.strip_prefix(ACCOUNT_PREFIX)?.split_once(':')?;
        (!namespace.is_empty() && !name.is_empty())
            .then(|| Account { namespace: namespace.to_owned(), name: name.to_owned() })
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ACCOUNT_PREFIX}{}:{}", self.namespace, self.name)
    }
}

/// What a pod may do with a volume. In the order of how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rights {
    Read,
    Write,
}

/// What was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Granted {
    pub rights: Rights,
    pub squash: bool,
}

impl Granted {
    /// Whether it gives nothing that `other` does not.
    pub fn is_within(self, other: Granted) -> bool {
        self.rights <= other.rights && (!self.squash || other.squash)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    grant: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    to: Vec<String>,
    namespaces: Vec<String>,
    #[serde(default)]
    rights: Word,
    #[serde(default)]
    squash: bool,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    #[default]
    Ro,
    Rw,
}

/// The whole file, understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    all: Vec<Grant>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Grant {
    to: Vec<Subject>,
    namespaces: Vec<Object>,
    granted: Granted,
}

/// `None`: any.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Subject {
    namespace: Option<String>,
    name: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Object {
    kind: Option<String>,
    leaf: Option<String>,
    tree: Option<String>,
}

impl Grants {
    /// Errors: `Invalid` says what cannot be used, and where.
    pub fn parse(text: &str) -> Result<Grants> {
        let file: File = toml::from_str(text)
            .map_err(|e| Error::new(Kind::Invalid, format!("it cannot be read: {}", e.to_string().trim())))?;
        Ok(Grants { all: file.grant.iter().map(Grant::parse).collect::<Result<_>>()? })
    }

    /// The file as it is now. A ConfigMap's is replaced as a whole, so that no half of one is seen.
    ///
    /// Errors: `Invalid`, or that of the disk; both name the file.
    pub fn read(path: &Path) -> Result<Grants> {
        let named = |e: &dyn fmt::Display| format!("the access file {} cannot be used: {e}", path.display());
        let meta = std::fs::metadata(path).map_err(|e| Error::io(named(&"it cannot be looked at"), e))?;
        if meta.len() > GRANTS_BYTES_MAX {
            let long = format!("it has {} bytes, {GRANTS_BYTES_MAX} are allowed", meta.len());
            return invalid(named(&long));
        }
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(named(&"it cannot be read"), e))?;
        Grants::parse(&text).map_err(|e| Error::new(e.kind(), named(&e)))
    }

    /// What `who` may do with the volume; `None`: nothing.
    pub fn of(&self, who: &Account, volume: &Handle) -> Option<Granted> {
        let fits = |grant: &&Grant| {
            grant.to.iter().any(|subject| subject.is(who))
                && grant.namespaces.iter().any(|object| object.has(who, volume))
        };
        self.all.iter().filter(fits).map(|grant| grant.granted).max()
    }
}

impl Grant {
    fn parse(entry: &Entry) -> Result<Grant> {
        let to = entry.to.iter().map(|text| Subject::parse(text)).collect::<Result<Vec<_>>>()?;
        let namespaces =
            entry.namespaces.iter().map(|text| Object::parse(text)).collect::<Result<Vec<_>>>()?;
        if to.is_empty() || namespaces.is_empty() {
            return invalid("a grant has no `to`, or no `namespaces`: it would grant nothing");
        }
        let by_account =
            |object: &Object| object.leaf.as_ref().is_some_and(|leaf| leaf.contains("{account}"));
        if to.iter().any(|subject| subject.namespace.is_none()) && namespaces.iter().any(by_account) {
            return invalid(
                "a grant to every Kubernetes namespace cannot say {account}, since anybody could choose it; name the \
                 namespace whose service accounts are meant: to = [\"users/*\"]",
            );
        }
        let rights = match entry.rights {
            Word::Ro => Rights::Read,
            Word::Rw => Rights::Write,
        };
        Ok(Grant { to, namespaces, granted: Granted { rights, squash: entry.squash } })
    }
}

/// `*` is any; anything else is itself, without a `*`.
fn part(text: &str) -> Option<Option<String>> {
    match text {
        "*" => Some(None),
        "" => None,
        _ => (!text.contains('*')).then(|| Some(text.to_owned())),
    }
}

impl Subject {
    fn parse(text: &str) -> Result<Subject> {
        let parts = match text.strip_prefix(ACCOUNT_PREFIX) {
            Some(rest) => rest.split_once(':'),
            None => text.split_once('/'),
        };
        let read = parts.and_then(|(namespace, name)| Some((part(namespace)?, part(name)?)));
        match read {
            Some((namespace, name)) if !name.as_ref().is_some_and(|name| name.contains(['/', ':'])) => {
                Ok(Subject { namespace, name })
            }
            _ => invalid(format!(
                "`to` has {text:?}; write NAMESPACE/SERVICEACCOUNT, either of which may be `*`, or \
                 {ACCOUNT_PREFIX}NAMESPACE:SERVICEACCOUNT"
            )),
        }
    }

    fn is(&self, who: &Account) -> bool {
        self.namespace.as_ref().is_none_or(|namespace| *namespace == who.namespace)
            && self.name.as_ref().is_none_or(|name| *name == who.name)
    }
}

impl Object {
    fn parse(text: &str) -> Result<Object> {
        let (name, tree) = match text.split_once(':') {
            Some((name, tree)) => (name, Some(check_tree(tree)?)),
            None => (text, None),
        };
        let object = name
            .split_once('/')
            .and_then(|(kind, leaf)| Some(Object { kind: part(kind)?, leaf: part(leaf)?, tree }))
            // Whatever it is filled in with, it must be a name then.
            .filter(|object| {
                let kind = object.kind.as_deref().unwrap_or("user");
                let leaf = object.leaf.as_deref().unwrap_or("x");
                let filled = leaf.replace("{account}", "x").replace("{namespace}", "x");
                format!("{kind}/{filled}").parse::<NamespaceName>().is_ok()
            });
        object.map_or_else(
            || {
                invalid(format!(
                    "`namespaces` has {text:?}; write KIND/NAME, KIND/* or KIND/{{account}}, perhaps with a :TREE"
                ))
            },
            Ok,
        )
    }

    fn has(&self, who: &Account, volume: &Handle) -> bool {
        let (kind, leaf) = volume.namespace.as_str().split_once('/').unwrap_or_default();
        let named = match &self.leaf {
            Some(pattern) => {
                pattern.replace("{account}", &who.name).replace("{namespace}", &who.namespace) == leaf
            }
            None => !is_made(&volume.namespace),
        };
        let within = |tree: &String| {
            volume.tree.as_ref().is_some_and(|asked| {
                asked.strip_prefix(tree.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
        };
        self.kind.as_ref().is_none_or(|wanted| wanted == kind)
            && named
            && self.tree.as_ref().is_none_or(within)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn who(namespace: &str, name: &str) -> Account {
        Account { namespace: namespace.into(), name: name.into() }
    }

    fn ask(text: &str, who: &Account, volume: &str) -> Option<Granted> {
        Grants::parse(text).unwrap().of(who, &volume.parse().unwrap())
    }

    const FILE: &str = r#"
        [[grant]]
        to = ["team-a/*", "system:serviceaccount:team-b:trainer"]
        namespaces = ["group/asr", "dataset/*"]
        rights = "rw"

        [[grant]]
        to = ["users/*"]
        namespaces = ["user/{account}"]
        rights = "rw"
        squash = true

        [[grant]]
        to = ["*/*"]
        namespaces = ["group/nlp:corpora", "group/{namespace}"]
    "#;

    #[test]
    fn what_is_named_is_granted_and_nothing_else() {
        let write = Some(Granted { rights: Rights::Write, squash: false });
        let read = Some(Granted { rights: Rights::Read, squash: false });
        let (a, b, other) = (who("team-a", "web"), who("team-b", "trainer"), who("team-b", "web"));
        for (who, volume, granted) in [
            (&a, "group/asr", write),
            (&a, "group/asr:any/tree", write),
            (&b, "dataset/libri", write),
            (&other, "group/asr", None),
            (&other, "dataset/libri", None),
            (&a, "group/asr2", None),
            (&a, "user/web", None),
            (&other, "group/nlp:corpora", read),
            (&other, "group/nlp:corpora/2026", read),
            (&other, "group/nlp:corpora2", None),
            (&other, "group/nlp", None),
            (&other, "group/team-b", read),
            (&other, "group/team-a", None),
        ] {
            assert_eq!(ask(FILE, who, volume), granted, "{who} {volume}");
        }
        let alice = who("users", "alice");
        assert_eq!(ask(FILE, &alice, "user/alice"), Some(Granted { rights: Rights::Write, squash: true }));
        assert_eq!(ask(FILE, &alice, "user/bob"), None);
        assert_eq!(ask("", &alice, "user/alice"), None);
    }

    #[test]
    fn stars_do_not_reach_what_claims_made() {
        let text = "[[grant]]\nto = ['*/*']\nnamespaces = ['*/*']\nrights = 'rw'\n";
        assert!(ask(text, &who("a", "b"), "bucket/plain").is_some());
        assert!(ask(text, &who("a", "b"), "bucket/csi-pvc-1").is_none());
        let named = "[[grant]]\nto = ['a/b']\nnamespaces = ['bucket/csi-pvc-1']\n";
        assert!(ask(named, &who("a", "b"), "bucket/csi-pvc-1").is_some());
    }

    #[test]
    fn two_grants_do_not_add_up_to_what_neither_gives() {
        let text = r#"
            [[grant]]
            to = ["a/*"]
            namespaces = ["group/x"]
            squash = true
            [[grant]]
            to = ["a/b"]
            namespaces = ["group/x"]
            rights = "rw"
        "#;
        let both = ask(text, &who("a", "b"), "group/x");
        assert_eq!(both, Some(Granted { rights: Rights::Write, squash: false }));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (bad, says) in [
            ("grant = 1", "cannot be read"),
            ("[[grant]]\nto = ['a/b']\nnamespaces = ['group/x']\nright = 'rw'", "right"),
            ("[[grant]]\nto = ['a/b']\nnamespaces = ['group/x']\nrights = 'rwx'", "rwx"),
            ("[[grant]]\nto = []\nnamespaces = ['group/x']", "grant nothing"),
            ("[[grant]]\nto = ['team-*/x']\nnamespaces = ['group/x']", "team-*"),
            ("[[grant]]\nto = ['alice']\nnamespaces = ['group/x']", "alice"),
            ("[[grant]]\nto = ['a/b/c']\nnamespaces = ['group/x']", "a/b/c"),
            ("[[grant]]\nto = ['a/b']\nnamespaces = ['group/as*']", "as*"),
            ("[[grant]]\nto = ['a/b']\nnamespaces = ['home/x']", "home/x"),
            ("[[grant]]\nto = ['a/b']\nnamespaces = ['group/x:../y']", "tree"),
            ("[[grant]]\nto = ['*/*']\nnamespaces = ['user/{account}']", "{account}"),
        ] {
            let e = Grants::parse(bad).unwrap_err();
            assert!(e.kind() == Kind::Invalid && e.to_string().contains(says), "{bad}: {e}");
        }
    }

    #[test]
    fn accounts_are_read_as_kubernetes_writes_them() {
        assert_eq!(Account::of_user("system:serviceaccount:a:b"), Some(who("a", "b")));
        assert_eq!(who("a", "b").to_string(), "system:serviceaccount:a:b");
        for other in ["alice", "system:node:n1", "system:serviceaccount:a", "system:serviceaccount::b", ""] {
            assert_eq!(Account::of_user(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,200}") {
            let _ = Grants::parse(&text);
        }

        /// Whoever is not named gets nothing, however the names look.
        #[test]
        fn strangers_get_nothing(namespace in "[a-z-]{1,8}", name in "[a-z-]{1,8}", volume in "(group|dataset)/[a-z]{1,8}") {
            let text = "[[grant]]\nto = ['0only/0me']\nnamespaces = ['*/*']\nrights = 'rw'";
            prop_assert_eq!(ask(text, &who(&namespace, &name), &volume), None);
        }
    }
}
