//! A program says what it will read.

use std::collections::HashMap;

use futures::StreamExt;
use granary_cache::prefetch::announced::OrderId;
use granary_core::{EntryName, Ino, Result};
use granary_meta::{Attr, FileType};

use super::Vfs;
use super::paths::{resolve, unless_gone};
use super::rights::{READ, Rights, SEARCH};

/// Files looked up at once: where the metadata is far, that is what it costs.
const LOOK_UPS_AT_ONCE: usize = 32;

/// Which files, in which order; a part of a list that may be longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Of the user's orders, this one.
    pub number: u64,
    /// What was announced under the number before does not count any more.
    pub anew: bool,
    /// Nobody will read on in it.
    pub end: bool,
    /// Paths: from the root with a slash in front, else from where the call was made.
    pub names: Vec<Vec<u8>>,
}

/// Where a name's directory is, and what the name is in it.
fn parted(name: &[u8]) -> (&[u8], &[u8]) {
    match name.iter().rposition(|&b| b == b'/') {
        Some(slash) => name.split_at(slash + 1),
        None => (b"", name),
    }
}

impl Vfs {
    /// Takes files that will be read to those of the order: how many. Those are left out that are not there, are no regular files, or
    /// may not be read with these rights. `at`: the file or directory that the call was made on.
    ///
    /// Errors: `WouldBlock` when there is room only once some of what was announced was read, `NoSpace` when there are too
    /// many orders: then none of them was taken. Those of the metadata.
    pub async fn announce(&self, rights: &Rights, at: Ino, reading: Reading) -> Result<u32> {
        let id = OrderId { uid: rights.uid, number: reading.number };
        if reading.end {
            self.tree.end_announced(id);
            return Ok(0);
        }
        if reading.anew {
            self.tree.end_announced(id);
        }
        self.tree.check_announced(id, reading.names.len())?;
        let base = match self.meta.getattr(at).await?.kind {
            FileType::Directory => at,
            _ => Ino::ROOT,
        };
        // Names of one directory come together.
        let mut dirs: HashMap<&[u8], Option<Attr>> = HashMap::new();
        for name in &reading.names {
            let dir = parted(name).0;
            if !dirs.contains_key(dir) {
                let from = if dir.starts_with(b"/") { Ino::ROOT } else { base };
                let found = resolve(&*self.meta, rights, from, dir).await?;
                let passable = match &found {
                    Some(dir) => {
                        dir.kind == FileType::Directory && rights.may(&*self.meta, dir, SEARCH).await?
                    }
                    None => false,
                };
                dirs.insert(dir, found.filter(|_| passable));
            }
        }
        // Collected first: with the closure in it, the future could not be proven to be Send.
        let mut look_ups = Vec::with_capacity(reading.names.len());
        for name in &reading.names {
            let (dir, name) = parted(name);
            if let Some(Some(dir)) = dirs.get(dir) {
                look_ups.push(self.readable(rights, dir.ino, name.to_vec()));
            }
        }
        let mut found = futures::stream::iter(look_ups).buffered(LOOK_UPS_AT_ONCE);
        let mut files = Vec::new();
        while let Some(file) = found.next().await {
            files.extend(file?);
        }
        drop(found);
        self.tree.announce(id, false, &files)?;
        Ok(files.len() as u32)
    }

    /// A regular file in a directory that the caller may pass, if they may read it, with its size.
    async fn readable(&self, rights: &Rights, dir: Ino, name: Vec<u8>) -> Result<Option<(Ino, u64)>> {
        let Ok(entry) = EntryName::new(&name) else { return Ok(None) };
        let found = match unless_gone(self.meta.lookup(dir, entry).await)? {
            Some(link) if link.kind == FileType::Symlink => resolve(&*self.meta, rights, dir, &name).await?,
            found => found,
        };
        let Some(attr) = found.filter(|attr| attr.kind == FileType::File) else { return Ok(None) };
        let attr = self.current(attr);
        match unless_gone(rights.may(&*self.meta, &attr, READ).await)? {
            Some(true) => Ok(Some((attr.ino, attr.size))),
            _ => Ok(None),
        }
    }
}
