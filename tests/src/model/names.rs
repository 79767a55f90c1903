//! The names of a directory and of what is below it.

use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    Dir,
    /// The index of its history.
    File(usize),
}

/// By path below the thread's directory.
pub type Names = BTreeMap<String, Entry>;

#[derive(Clone, Debug)]
pub(super) enum Change {
    Put(String, Entry),
    Remove(String),
    Rename(String, String),
}

pub(super) fn apply(names: &mut Names, change: &Change) {
    match change {
        Change::Put(path, entry) => drop(names.insert(path.clone(), *entry)),
        Change::Remove(path) => drop(names.remove(path)),
        Change::Rename(from, to) => {
            let below = format!("{from}/");
            let moved: Vec<String> =
                names.keys().filter(|k| *k == from || k.starts_with(&below)).cloned().collect();
            for path in moved {
                let Some(entry) = names.remove(&path) else { continue };
                names.insert(format!("{to}{}", &path[from.len()..]), entry);
            }
        }
    }
}
