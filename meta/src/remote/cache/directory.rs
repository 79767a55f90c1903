//! What is kept under a directory's lease: names, and the beginning of its listing.
//!
//! An entry that is made here has a cookie above all that were given before, but which, only a listing tells. So the
//! names stay complete, and the listing ends where it was known to end, to be asked on from there.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use granary_core::Ino;

use crate::types::{DirEntry, FileType};

/// Memory of a name, beside its bytes, roughly: both tables' entries.
const NAME_BYTES: usize = 120;
/// Names known to be missing that are kept of one directory.
const ABSENT_MAX: usize = 16_384;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    ino: Ino,
    kind: FileType,
    /// 0: not known.
    cookie: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    Present(Ino),
    Absent,
    Unknown,
}

#[derive(Debug, Default)]
pub struct Directory {
    names: HashMap<Arc<[u8]>, Option<Known>>,
    present: usize,
    bytes: usize,
    /// By cookie: all entries up to `listed`.
    listing: BTreeMap<u64, Arc<[u8]>>,
    listed: u64,
    /// Nothing comes after `listed`.
    whole: bool,
}

impl Directory {
    pub fn bytes(&self) -> usize {
        size_of::<Directory>() + self.bytes
    }

    /// How many names are known to be there.
    pub fn present(&self) -> usize {
        self.present
    }

    pub fn find(&self, name: &[u8]) -> Found {
        match self.names.get(name) {
            Some(Some(known)) => Found::Present(known.ino),
            Some(None) => Found::Absent,
            None if self.whole => Found::Absent,
            None => Found::Unknown,
        }
    }

    pub fn entry(&self, name: &[u8]) -> Option<(Ino, FileType)> {
        self.names.get(name).copied().flatten().map(|known| (known.ino, known.kind))
    }

    /// This name is there. Its place in the listing stays known if it is the same entry.
    pub fn put(&mut self, name: &[u8], ino: Ino, kind: FileType) {
        if self.names.get(name).copied().flatten().is_some_and(|known| known.ino == ino) {
            return;
        }
        self.remove(name);
        self.insert(Arc::from(name), Some(Known { ino, kind, cookie: 0 }));
    }

    /// As [`Directory::put`], for an entry that was made now: the listing has one more at its end. One that takes the place
    /// of another may keep that one's cookie: then nothing of the listing is known.
    pub fn made(&mut self, name: &[u8], ino: Ino, kind: FileType) {
        if self.entry(name).is_some() {
            self.forget_listing();
        }
        self.remove(name);
        self.insert(Arc::from(name), Some(Known { ino, kind, cookie: 0 }));
        // With all names known the directory is whole as to names, but its listing is not.
        self.whole = false;
    }

    pub fn put_absent(&mut self, name: &[u8]) {
        self.remove(name);
        if self.names.len() - self.present >= ABSENT_MAX {
            let bytes = &mut self.bytes;
            self.names.retain(|name, known| {
                if known.is_none() {
                    *bytes -= NAME_BYTES + name.len();
                }
                known.is_some()
            });
        }
        self.insert(Arc::from(name), None);
    }

    /// Nothing is known of this name any more, and so of the listing.
    pub fn forget(&mut self, name: &[u8]) {
        self.remove(name);
        self.forget_listing();
    }

    fn forget_listing(&mut self) {
        self.whole = false;
        self.listed = 0;
        self.listing.clear();
        for known in self.names.values_mut().flatten() {
            known.cookie = 0;
        }
    }

    fn insert(&mut self, name: Arc<[u8]>, known: Option<Known>) {
        self.bytes += NAME_BYTES + name.len();
        self.present += usize::from(known.is_some());
        self.names.insert(name, known);
    }

    fn remove(&mut self, name: &[u8]) {
        let Some((name, known)) = self.names.remove_entry(name) else { return };
        self.bytes -= NAME_BYTES + name.len();
        if let Some(known) = known {
            self.present -= 1;
            self.listing.remove(&known.cookie);
        }
    }

    /// A page that the service gave for `cookie`.
    pub fn put_page(&mut self, cookie: u64, page: &[DirEntry]) {
        for entry in page {
            self.put(&entry.name, entry.ino, entry.kind);
        }
        if cookie > self.listed {
            return;
        }
        let Some(last) = page.last() else {
            self.whole = true;
            return;
        };
        for entry in page {
            let Some((name, _)) = self.names.get_key_value(&entry.name[..]) else { continue };
            let name = name.clone();
            if let Some(Some(known)) = self.names.get_mut(&name) {
                if known.cookie != entry.cookie {
                    self.listing.remove(&known.cookie);
                }
                known.cookie = entry.cookie;
            }
            self.listing.insert(entry.cookie, name);
        }
        self.listed = self.listed.max(last.cookie);
    }

    /// Entries after `cookie`, without attributes; `None` when they are not known.
    pub fn page(&self, cookie: u64, max: usize) -> Option<Vec<DirEntry>> {
        let after = cookie.checked_add(1)?;
        let page: Vec<DirEntry> = self
            .listing
            .range(after..)
            .take(max)
            .filter_map(|(cookie, name)| {
                let known = self.names.get(name).copied().flatten()?;
                Some(DirEntry {
                    name: name.to_vec(),
                    ino: known.ino,
                    kind: known.kind,
                    cookie: *cookie,
                    attr: None,
                })
            })
            .collect();
        (!page.is_empty() || (self.whole && cookie >= self.listed)).then_some(page)
    }
}
