//! What a volume's `warmup` says.

use std::fmt;

use granary_core::{Error, Result};

use crate::handle::check_tree;
use crate::status::invalid;

/// Of one volume.
const PATHS_MAX: usize = 64;

/// What is to be brought to the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warm {
    /// The pod starts when it is there.
    pub wait: bool,
    /// Below the volume's top; none: all of it.
    pub paths: Vec<String>,
}

impl Warm {
    /// `None`: nothing is to be brought.
    pub fn parse(value: &str) -> Result<Option<Warm>> {
        let (wait, list) = match value {
            "false" => return Ok(None),
            "true" => (false, ""),
            "wait" => (true, ""),
            _ => value.strip_prefix("wait:").map_or((false, value), |list| (true, list)),
        };
        if list.is_empty() {
            // `wait:` and nothing behind it is a slip.
            return match value {
                "true" | "wait" => Ok(Some(Warm { wait, paths: Vec::new() })),
                _ => invalid(format!("parameter warmup is {value:?}; write true, wait, or paths as a,b/c")),
            };
        }
        let named = |e: Error| Error::new(e.kind(), format!("parameter warmup is {value:?}: {e}"));
        let paths =
            list.split(',').map(|path| check_tree(path.trim())).collect::<Result<Vec<_>>>().map_err(named)?;
        if paths.len() > PATHS_MAX {
            return invalid(format!("parameter warmup has {} paths, {PATHS_MAX} are allowed", paths.len()));
        }
        Ok(Some(Warm { wait, paths }))
    }
}

impl fmt::Display for Warm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.wait, self.paths.is_empty()) {
            (false, true) => f.write_str("true"),
            (true, true) => f.write_str("wait"),
            (false, false) => f.write_str(&self.paths.join(",")),
            (true, false) => write!(f, "wait:{}", self.paths.join(",")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_read() {
        for text in ["true", "wait", "a", "a,b/c", "wait:a,b/c"] {
            assert_eq!(Warm::parse(text).unwrap().unwrap().to_string(), text);
        }
        assert_eq!(Warm::parse("false").unwrap(), None);
        let spaced = Warm::parse("wait: a, b").unwrap().unwrap();
        assert_eq!((spaced.wait, spaced.paths), (true, vec!["a".to_owned(), "b".to_owned()]));
    }

    #[test]
    fn nothing_outside_of_the_volume_is_brought() {
        let many = vec!["x"; PATHS_MAX + 1].join(",");
        for bad in ["", "wait:", "/etc", "../x", "a,,b", "a/../..", &many] {
            assert!(Warm::parse(bad).is_err(), "{bad}");
        }
    }
}
