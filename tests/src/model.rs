//! What a directory may hold after a crash: names as they were at one moment since they were last promised, in the order in
//! which they changed; and in each file one content that it had since it was last promised.
//!
//! An operation that is answered by an error of a kind that is looked for (a full disk, a store that is gone) has happened,
//! or not, or in part: then the directory is looked at, and must be as it was at one moment of that operation.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

mod history;
mod names;

use history::History;
pub use history::{Content, Found, read};
use names::{Change, apply};
pub use names::{Entry, Names};

/// Where the operation that is under way began.
#[derive(Debug, Default)]
struct Mark {
    files: usize,
    changes: usize,
    /// Files whose content it changed, with how many contents they had before.
    touched: BTreeMap<usize, usize>,
}

/// One thread's directory. A change is noted before it is tried, since one that was not answered may have happened.
#[derive(Debug, Default)]
pub struct Model {
    files: Vec<History>,
    /// As they were at the last promise.
    promised: Names,
    since: Vec<Change>,
    pub now: Names,
    mark: Mark,
}

impl Model {
    fn change(&mut self, change: Change) {
        apply(&mut self.now, &change);
        self.since.push(change);
    }

    /// A new, empty file without a name. One that never gets one leaves nothing behind.
    pub fn create_nameless(&mut self) -> usize {
        self.files.push(History::default());
        self.files.len() - 1
    }

    /// A new, empty file; who had the name before loses it.
    pub fn create(&mut self, path: &str) -> usize {
        let id = self.create_nameless();
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

    /// One more name of a file.
    pub fn link(&mut self, id: usize, to: &str) {
        self.change(Change::Put(to.to_owned(), Entry::File(id)));
    }

    pub fn size(&self, id: usize) -> usize {
        self.files[id].now.len()
    }

    pub fn content(&self, id: usize) -> &[u8] {
        &self.files[id].now
    }

    fn touch(&mut self, id: usize) -> &mut History {
        let file = &mut self.files[id];
        self.mark.touched.entry(id).or_insert(file.since.len());
        file
    }

    fn changed(&mut self, id: usize) {
        self.touch(id).note();
    }

    pub fn write(&mut self, id: usize, offset: usize, bytes: &[u8]) {
        let now = &mut self.files[id].now;
        now.resize(now.len().max(offset + bytes.len()), 0);
        now[offset..offset + bytes.len()].copy_from_slice(bytes);
        self.changed(id);
    }

    /// Bytes that come in an unknown number of pieces, in order, to a place that is not behind the end.
    pub fn write_in_pieces(&mut self, id: usize, offset: usize, bytes: &[u8]) {
        self.touch(id).note_pieces(offset, bytes);
        self.write(id, offset, bytes);
    }

    pub fn truncate(&mut self, id: usize, size: usize) {
        self.files[id].now.resize(size, 0);
        self.changed(id);
    }

    /// fsync of the file returned: its content, and every name as it is.
    pub fn promise(&mut self, id: usize) {
        self.mark.touched.remove(&id);
        self.files[id].promise();
        self.promise_names();
    }

    pub fn promise_names(&mut self) {
        self.promised = self.now.clone();
        self.since.clear();
        self.mark.changes = 0;
    }

    /// Everything was acknowledged as stored.
    pub fn promise_all(&mut self) {
        self.files.iter_mut().for_each(History::promise);
        self.promise_names();
    }

    /// The next operation begins.
    pub fn begin(&mut self) {
        self.mark = Mark { files: self.files.len(), changes: self.since.len(), touched: BTreeMap::new() };
    }

    /// The operation that is under way failed, and this was found afterwards: it happened, in part, or not at all. Then that
    /// is how things are. The error says what is wrong with each moment.
    pub fn settle(&mut self, found: &Found) -> Result<(), String> {
        let mut why = String::new();
        for changes in (self.mark.changes..=self.since.len()).rev() {
            let names = self.names_after(changes);
            let content = |id: usize, found: &Content| {
                let file = &self.files[id];
                let from = if id >= self.mark.files { 0 } else { file.since.len() - 1 };
                let from = self.mark.touched.get(&id).map_or(from, |before| before - 1);
                file.since[from..].iter().any(|version| version.is(found))
            };
            match self.allows(&names, found, content) {
                Ok(()) => {
                    self.since.truncate(changes);
                    for (path, entry) in &names {
                        if let (Entry::File(id), Some(found)) = (entry, &found[path])
                            && self.files[*id].now != found.bytes
                        {
                            self.files[*id].now.clone_from(&found.bytes);
                            self.changed(*id);
                        }
                    }
                    self.now = names;
                    return Ok(());
                }
                Err(e) => {
                    let _ = writeln!(why, "  after {} changes: {e}", changes - self.mark.changes);
                }
            }
        }
        Err(why)
    }

    /// Whether this is how things are, no older and no newer.
    pub fn is_now(&self, found: &Found) -> Result<(), String> {
        self.allows(&self.now, found, |id, found| self.files[id].now == found.bytes)
    }

    /// After so many of the changes since the promise.
    fn names_after(&self, changes: usize) -> Names {
        let mut names = self.promised.clone();
        self.since[..changes].iter().for_each(|change| apply(&mut names, change));
        names
    }

    fn allows(
        &self,
        names: &Names,
        found: &Found,
        content: impl Fn(usize, &Content) -> bool,
    ) -> Result<(), String> {
        if !names.keys().eq(found.keys()) {
            let lost: Vec<_> = names.keys().filter(|k| !found.contains_key(*k)).collect();
            let more: Vec<_> = found.keys().filter(|k| !names.contains_key(*k)).collect();
            return Err(format!("without {lost:?}, with {more:?} besides"));
        }
        let mut numbers = BTreeMap::new();
        for (path, entry) in names {
            match (entry, &found[path]) {
                (Entry::Dir, None) => {}
                (Entry::File(id), Some(found)) => {
                    if *numbers.entry(*id).or_insert(found.ino) != found.ino {
                        return Err(format!("{path} is another file than the other names of its file"));
                    }
                    if !content(*id, found) {
                        return Err(format!("{path} {}", self.files[*id].differs(&found.bytes)));
                    }
                }
                _ => return Err(format!("{path} is a file, or a directory, and was not")),
            }
        }
        let different: BTreeSet<_> = numbers.values().collect();
        if different.len() < numbers.len() {
            return Err("two files have one inode number".to_owned());
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
            let content = |id: usize, found: &Content| self.files[id].since.iter().any(|v| v.is(found));
            match self.allows(&names, &found, content) {
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
        let mut by_number = BTreeMap::new();
        for (path, content) in found {
            match content {
                None => self.mkdir(&path),
                Some(Content { ino, bytes, .. }) => {
                    if let Some(&id) = by_number.get(&ino) {
                        self.link(id, &path);
                        continue;
                    }
                    let id = self.create(&path);
                    by_number.insert(ino, id);
                    self.files[id].now = bytes;
                }
            }
        }
        self.promise_all();
        Ok(())
    }
}
