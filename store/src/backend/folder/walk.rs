//! Listing a folder in key order, one page at a time, without holding more than one directory of each level.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use super::{TEMPORARY, meta_of};
use crate::api::ObjectMeta;

/// At most `max` objects whose key begins with `prefix` and sorts after `after`. An error comes with the key concerned.
pub(super) fn list(
    root: &Path,
    prefix: &str,
    after: Option<&str>,
    max: usize,
) -> Result<Vec<ObjectMeta>, (String, io::Error)> {
    let mut walk = Walk { root, prefix, after: after.unwrap_or(""), max, found: Vec::new() };
    walk.directory("").map(|()| walk.found)
}

struct Walk<'a> {
    root: &'a Path,
    prefix: &'a str,
    after: &'a str,
    max: usize,
    found: Vec<ObjectMeta>,
}

impl Walk<'_> {
    /// `below` is the directory's key with a slash at its end, or empty for the root.
    fn directory(&mut self, below: &str) -> Result<(), (String, io::Error)> {
        let failed = |e| (below.to_owned(), e);
        let entries = match fs::read_dir(self.root.join(below)) {
            Ok(entries) => entries,
            // Deleted while we walk.
            Err(e) if e.kind() == ErrorKind::NotFound && !below.is_empty() => return Ok(()),
            Err(e) => return Err(failed(e)),
        };
        let mut keys = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            // A name that is not UTF-8 is no key: somebody else's file.
            let Ok(name) = entry.file_name().into_string() else { continue };
            if below.is_empty() && name == TEMPORARY {
                continue;
            }
            let mut key = format!("{below}{name}");
            if entry.file_type().map_err(failed)?.is_dir() {
                // With its slash a directory sorts where its objects' keys do: `a.b` before `a/`.
                key.push('/');
            }
            if self.may_hold(&key) {
                keys.push(key);
            }
        }
        keys.sort_unstable();
        for key in keys {
            if self.found.len() == self.max {
                return Ok(());
            }
            if key.ends_with('/') {
                self.directory(&key)?;
                continue;
            }
            match fs::metadata(self.root.join(&key)) {
                Ok(meta) if meta.is_file() => self.found.push(meta_of(key, &meta)),
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err((key, e)),
            }
        }
        Ok(())
    }

    /// Whether a file's key, or a key in a directory, may be wanted.
    fn may_hold(&self, key: &str) -> bool {
        if key.ends_with('/') {
            let prefix = key.starts_with(self.prefix) || self.prefix.starts_with(key);
            prefix && (self.after < key || self.after.starts_with(key))
        } else {
            key.starts_with(self.prefix) && self.after < key
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        /// Against the plain reference: sort all keys, filter.
        #[test]
        fn any_page_of_any_folder_is_right(
            keys in prop::collection::btree_set("[a-c.-]{1,2}(/[a-c.-]{1,2}){0,2}", 0..25),
            prefix in "([a-c.-]{1,2}/?){0,2}",
            after in "([a-c.-]{1,2}/?){0,3}",
            max in 0usize..10,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let mut there = BTreeSet::new();
            for key in keys.into_iter().filter(|key| crate::key::check_key(key).is_ok()) {
                let path = dir.path().join(&key);
                // What is a folder for one key cannot be an object of another.
                if fs::create_dir_all(path.parent().unwrap()).and_then(|()| fs::write(&path, b"x")).is_ok() {
                    there.insert(key);
                }
            }
            let expected: Vec<_> = there
                .iter()
                .filter(|key| key.starts_with(&prefix) && key.as_str() > after.as_str())
                .take(max)
                .cloned()
                .collect();
            let found = list(dir.path(), &prefix, Some(&after), max).map_err(|(_, e)| e).unwrap();
            prop_assert_eq!(found.into_iter().map(|m| m.key).collect::<Vec<_>>(), expected);
        }
    }
}
