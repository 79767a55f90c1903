//! What a directory may hold after a crash: names as they were at one moment since they were last promised, in the order in
//! which they changed; and in each file one content that it had since it was last promised.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

/// Length and hash of a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(usize, u64);

impl Digest {
    fn of(bytes: &[u8]) -> Digest {
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        Digest(bytes.len(), hasher.finish())
    }
}

/// A file, whatever its name is.
#[derive(Debug, Default)]
struct History {
    now: Vec<u8>,
    /// Every content since the last promise, `now` last.
    since: Vec<Digest>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    Dir,
    /// The index of its history.
    File(usize),
}

/// By path below the thread's directory.
pub type Names = BTreeMap<String, Entry>;

#[derive(Clone, Debug)]
enum Change {
    Put(String, Entry),
    Remove(String),
    Rename(String, String),
}

fn apply(names: &mut Names, change: &Change) {
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

/// One thread's directory. A change is noted before it is tried, since one that was not answered may have happened.
#[derive(Debug, Default)]
pub struct Model {
    files: Vec<History>,
    /// As they were at the last promise.
    promised: Names,
    since: Vec<Change>,
    pub now: Names,
}

/// What was found on the mount.
pub type Found = BTreeMap<String, Option<Vec<u8>>>;

impl Model {
    fn change(&mut self, change: Change) {
        apply(&mut self.now, &change);
        self.since.push(change);
    }

    /// A new, empty file; who had the name before loses it.
    pub fn create(&mut self, path: &str) -> usize {
        self.files.push(History { now: Vec::new(), since: vec![Digest::of(&[])] });
        let id = self.files.len() - 1;
        self.change(Change::Put(path.to_owned(), Entry::File(id)));
        id
    }

    pub fn mkdir(&mut self, path: &str) {
        self.change(Change::Put(path.to_owned(), Entry::Dir));
    }

    pub fn remove(&mut self, path: &str) {
        self.change(Change::Remove(path.to_owned()));
    }

    pub fn rename(&mut self, from: &str, to: &str) {
        self.change(Change::Rename(from.to_owned(), to.to_owned()));
    }

    pub fn size(&self, id: usize) -> usize {
        self.files[id].now.len()
    }

    fn changed(&mut self, id: usize) {
        let file = &mut self.files[id];
        file.since.push(Digest::of(&file.now));
    }

    pub fn write(&mut self, id: usize, offset: usize, bytes: &[u8]) {
        let now = &mut self.files[id].now;
        now.resize(now.len().max(offset + bytes.len()), 0);
        now[offset..offset + bytes.len()].copy_from_slice(bytes);
        self.changed(id);
    }

    pub fn truncate(&mut self, id: usize, size: usize) {
        self.files[id].now.resize(size, 0);
        self.changed(id);
    }

    /// fsync of the file returned: its content, and every name as it is.
    pub fn promise(&mut self, id: usize) {
        let file = &mut self.files[id];
        file.since = vec![Digest::of(&file.now)];
        self.promise_names();
    }

    pub fn promise_names(&mut self) {
        self.promised = self.now.clone();
        self.since.clear();
    }

    /// Everything was acknowledged as stored.
    pub fn promise_all(&mut self) {
        for file in &mut self.files {
            file.since = vec![Digest::of(&file.now)];
        }
        self.promise_names();
    }

    fn allows(&self, names: &Names, found: &Found) -> Result<(), String> {
        if !names.keys().eq(found.keys()) {
            let lost: Vec<_> = names.keys().filter(|k| !found.contains_key(*k)).collect();
            let more: Vec<_> = found.keys().filter(|k| !names.contains_key(*k)).collect();
            return Err(format!("without {lost:?}, with {more:?} besides"));
        }
        for (path, entry) in names {
            match (entry, &found[path]) {
                (Entry::Dir, None) => {}
                (Entry::File(id), Some(bytes)) if self.files[*id].since.contains(&Digest::of(bytes)) => {}
                (Entry::File(id), Some(bytes)) => {
                    let file = &self.files[*id];
                    let at = bytes.iter().zip(&file.now).position(|(a, b)| a != b);
                    let lens: Vec<_> = file.since.iter().map(|d| d.0).collect();
                    return Err(format!(
                        "{path} has {} bytes that it never had since its last promise (of {lens:?}; from the newest it differs at {at:?})",
                        bytes.len(),
                    ));
                }
                _ => return Err(format!("{path} is a file, or a directory, and was not")),
            }
        }
        Ok(())
    }

    /// Whether a crash may leave this; then it is how things are from now on. The error says what is wrong with each moment.
    pub fn recovered(&mut self, found: Found) -> Result<(), String> {
        let mut names = self.promised.clone();
        let mut why = String::new();
        let mut allowed = false;
        for k in 0..=self.since.len() {
            if k > 0 {
                apply(&mut names, &self.since[k - 1]);
            }
            match self.allows(&names, &found) {
                Ok(()) => {
                    allowed = true;
                    break;
                }
                Err(e) => {
                    let last = k.checked_sub(1).map(|i| &self.since[i]);
                    let _ = writeln!(why, "  {k} changes since the promise, the last {last:?}: {e}");
                }
            }
        }
        if !allowed {
            return Err(why);
        }
        *self = Model::default();
        for (path, content) in found {
            match content {
                None => self.mkdir(&path),
                Some(bytes) => {
                    let id = self.create(&path);
                    self.files[id].now = bytes;
                }
            }
        }
        self.promise_all();
        Ok(())
    }
}

/// Reads all that is below `dir`.
pub fn read(dir: &Path) -> std::io::Result<Found> {
    let mut found = Found::new();
    let mut todo = vec![String::new()];
    while let Some(at) = todo.pop() {
        for entry in fs::read_dir(dir.join(&at))? {
            let entry = entry?;
            let name = entry.file_name().into_string().expect("utf-8");
            let path = if at.is_empty() { name } else { format!("{at}/{name}") };
            if entry.file_type()?.is_dir() {
                todo.push(path.clone());
                found.insert(path, None);
            } else {
                let bytes = fs::read(entry.path()).map_err(|e| {
                    std::io::Error::other(format!("{path} has a name and cannot be read: {e}"))
                })?;
                found.insert(path, Some(bytes));
            }
        }
    }
    Ok(found)
}
