//! Names: of namespaces (`user/alice`) and of directory entries.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Kind, Result};

/// Longest directory entry name, in bytes, as Linux has it.
pub const ENTRY_NAME_MAX: usize = 255;
/// Longest namespace name, in bytes, kind and slash included.
pub const NAMESPACE_NAME_MAX: usize = 64;

/// What a namespace is for; the first word of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NamespaceKind {
    User,
    Group,
    Dataset,
    Bucket,
}

/// A namespace's name, checked: `KIND/NAME`, kind one of user, group, dataset, bucket; the name of letters, digits and
/// `._-` (not first), at most 64 bytes in all.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamespaceName(String);

impl NamespaceName {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn kind(&self) -> NamespaceKind {
        match self.0.split('/').next() {
            Some("user") => NamespaceKind::User,
            Some("group") => NamespaceKind::Group,
            Some("dataset") => NamespaceKind::Dataset,
            _ => NamespaceKind::Bucket,
        }
    }

    /// The part after the kind: `alice` of `user/alice`.
    pub fn leaf(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, leaf)| leaf)
    }
}

impl fmt::Display for NamespaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for NamespaceName {
    type Err = Error;

    fn from_str(s: &str) -> Result<NamespaceName> {
        let bad = |why: &str| {
            Err(Error::new(
                Kind::Invalid,
                format!(
                    "namespace name {s:?} cannot be used: {why}; write KIND/NAME, for example user/alice or group/asr"
                ),
            ))
        };
        if s.is_empty() {
            return bad("it is empty");
        }
        if s.len() > NAMESPACE_NAME_MAX {
            return bad(&format!("it has {} bytes, {NAMESPACE_NAME_MAX} are allowed", s.len()));
        }
        if s.starts_with('/') {
            return bad("it begins with a slash");
        }
        let Some((kind, leaf)) = s.split_once('/') else { return bad("it has no kind") };
        if !["user", "group", "dataset", "bucket"].contains(&kind) {
            return bad(&format!("{kind:?} is not one of user, group, dataset, bucket"));
        }
        if leaf.is_empty() {
            return bad("nothing follows the kind");
        }
        if leaf.contains("..") {
            return bad("it contains `..`");
        }
        if let Some(c) = leaf.chars().find(|&c| !(c.is_ascii_alphanumeric() || "._-".contains(c))) {
            return bad(&format!("{c:?} is not a letter, digit, `.`, `_` or `-`"));
        }
        if !leaf.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') {
            return bad("the part after the slash must begin with a letter, digit or `_`");
        }
        Ok(NamespaceName(s.to_owned()))
    }
}

/// A directory entry's name, checked: 1 to 255 bytes, no slash, no NUL, not `.` or `..`. Any other bytes, UTF-8 or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryName<'a>(&'a [u8]);

impl<'a> EntryName<'a> {
    pub fn new(bytes: &'a [u8]) -> Result<EntryName<'a>> {
        if bytes.len() > ENTRY_NAME_MAX {
            return Err(Error::new(Kind::NameTooLong, "an entry's name has at most 255 bytes"));
        }
        if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.iter().any(|&b| b == b'/' || b == 0) {
            return Err(Error::new(
                Kind::Invalid,
                "an entry's name is not empty, `.`, `..`, and has no slash or NUL",
            ));
        }
        Ok(EntryName(bytes))
    }

    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespace_names() {
        for good in ["user/alice", "group/asr", "dataset/libri-960.v2", "bucket/_x"] {
            assert_eq!(good.parse::<NamespaceName>().unwrap().as_str(), good);
        }
        let long = format!("user/{}", "a".repeat(60));
        for bad in [
            "",
            "/user/a",
            "alice",
            "user/",
            "user/..",
            "user/a..b",
            "user/a\0b",
            "user/a\nb",
            "user/a/b",
            "root/x",
            "user/-a",
            &long,
        ] {
            let e = bad.parse::<NamespaceName>().unwrap_err();
            assert_eq!(e.kind(), Kind::Invalid, "{bad:?}");
            assert!(e.to_string().contains("write KIND/NAME"), "{e}");
        }
        assert_eq!("group/asr".parse::<NamespaceName>().unwrap().leaf(), "asr");
    }

    #[test]
    fn entry_names() {
        assert!(EntryName::new(b"\xff\xfe").is_ok());
        assert!(EntryName::new(&[b'a'; 255]).is_ok());
        assert_eq!(EntryName::new(&[b'a'; 256]).unwrap_err().kind(), Kind::NameTooLong);
        for bad in [&b""[..], b".", b"..", b"a/b", b"a\0"] {
            assert_eq!(EntryName::new(bad).unwrap_err().kind(), Kind::Invalid);
        }
    }
}
