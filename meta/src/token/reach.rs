//! Namespaces as a token names them: one, all of a kind, or all.

use std::fmt;
use std::str::FromStr;

use granary_core::{Error, Kind, NamespaceName, Result};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const KINDS: [&str; 4] = ["user", "group", "dataset", "bucket"];

/// `KIND/NAME`, `KIND/*` or `*/*`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern(Shape);

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Shape {
    All,
    Kind(&'static str),
    One(NamespaceName),
}

impl Pattern {
    pub fn covers(&self, name: &NamespaceName) -> bool {
        match &self.0 {
            Shape::All => true,
            Shape::Kind(kind) => name.as_str().split('/').next() == Some(kind),
            Shape::One(one) => one == name,
        }
    }

    /// The only namespace that it covers, if it names one.
    pub fn one(&self) -> Option<&NamespaceName> {
        match &self.0 {
            Shape::One(one) => Some(one),
            _ => None,
        }
    }
}

impl From<NamespaceName> for Pattern {
    fn from(name: NamespaceName) -> Pattern {
        Pattern(Shape::One(name))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Shape::All => f.write_str("*/*"),
            Shape::Kind(kind) => write!(f, "{kind}/*"),
            Shape::One(name) => name.fmt(f),
        }
    }
}

impl FromStr for Pattern {
    type Err = Error;

    fn from_str(text: &str) -> Result<Pattern> {
        if text == "*/*" {
            return Ok(Pattern(Shape::All));
        }
        let kind = text.strip_suffix("/*").and_then(|kind| KINDS.into_iter().find(|known| *known == kind));
        match (kind, text.parse()) {
            (Some(kind), _) => Ok(Pattern(Shape::Kind(kind))),
            (None, Ok(name)) => Ok(Pattern(Shape::One(name))),
            (None, Err(_)) => Err(Error::new(
                Kind::Invalid,
                format!(
                    "{text:?} names no namespaces: write KIND/NAME, KIND/* or */*, kind one of {}",
                    KINDS.join(", ")
                ),
            )),
        }
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Pattern, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_pattern_covers() {
        let covers = |pattern: &str, name: &str| {
            pattern.parse::<Pattern>().unwrap().covers(&name.parse::<NamespaceName>().unwrap())
        };
        for (pattern, name, is) in [
            ("*/*", "bucket/x", true),
            ("user/*", "user/alice", true),
            ("user/*", "group/alice", false),
            ("group/asr", "group/asr", true),
            ("group/asr", "group/asr2", false),
            ("group/asr", "user/asr", false),
        ] {
            assert_eq!(covers(pattern, name), is, "{pattern} {name}");
        }
    }

    #[test]
    fn only_whole_parts_may_be_stars() {
        for text in ["*/*", "dataset/*", "user/alice"] {
            assert_eq!(text.parse::<Pattern>().unwrap().to_string(), text);
        }
        for bad in ["", "*", "*/x", "user/a*", "home/*", "user", "user/", "user/*/x", "/*", "User/*"] {
            assert_eq!(bad.parse::<Pattern>().unwrap_err().kind(), Kind::Invalid, "{bad}");
        }
    }
}
