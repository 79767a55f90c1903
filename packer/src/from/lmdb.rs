//! LMDB data files (`data.mdb`), as `lmdb` of Python, Caffe and the like write them: each key of the main database is a file.
//!
//! A value lies in one piece in the data file, so it is read in place as other containers' records are, and nothing is locked, mapped
//! or written: a file on a read-only disk or in a bucket serves, and so does one that another process has open. Only one that is
//! *written* while it is packed is refused, by its time. That, and that a damaged file must give an error and never end the process,
//! is why the format is read here and not by LMDB itself.
//!
//! # Names
//!
//! `data.mdb` of a folder gives names below that folder, `x/photos.mdb` below `x/photos/`. A key's bytes are its name; `%`, control
//! characters and what is not UTF-8 become `%` and two hexadecimal digits, and where a slash would make a part that is empty, `.` or
//! `..`, each slash of the key does, and the dots of a key that is nothing else. So different keys have different names. A key of a
//! database with integer keys is the number, ten digits. A base name without a dot gets an extension by what the value begins with:
//! `jpg`, `png`, `webp`, `gif`, `wav`, `flac`, `npy`, `ogg`, `mp3`, else `txt` when it begins as plain text, else `bin`.
//!
//! # The format, version 1 (LMDB 0.9, 64 bits; `mdb.c`: `MDB_meta`, `MDB_page`, `MDB_node`). All integers are little-endian
//!
//! Pages of one size, from the file's beginning on; pages 0 and 1 are meta pages, of which the one with the later transaction counts.
//!
//! | offset | size | a meta page | | offset | size | a page of the tree |
//! |---|---|---|---|---|---|---|
//! | 16 | 4 | magic 0xBEEFC0DE | | 0 | 8 | its number |
//! | 20 | 4 | version: 1 | | 10 | 2 | kind: 1 branch, 2 leaf, 4 a value's own pages |
//! | 40 | 4 | bytes of a page | | 12 | 2 | end of the list at 16; of a value's pages (4 bytes): how many |
//! | 88 + 4 | 2 | flags of the main database | | 14 | 2 | where the nodes begin |
//! | 88 + 6 | 2 | its depth | | 16 | 2 n | where in the page each node is; of a value's pages: the value |
//! | 88 + 32 | 8 | its number of entries | | | | |
//! | 88 + 40 | 8 | its root page; all ones: empty | | | | |
//! | 136 | 8 | last page | | | | |
//! | 144 | 8 | transaction | | | | |
//!
//! | offset | size | a node |
//! |---|---|---|
//! | 0 | 4 | bytes of the value; of a branch: the page below, with the next two bytes above |
//! | 4 | 2 | flags: 1 the value has pages of its own, 2 a named database, 4 several values |
//! | 6 | 2 | bytes of the key `k` |
//! | 8 | k | key |
//! | 8 + k | | value, or the number of its first page, 8 bytes |

pub mod page;
#[cfg(test)]
mod tests;

use granary_core::{Error, Kind, Result};

use super::containers::{Container, Containers};
use super::{Sink, kind, plain_entry};
use crate::pack::entry::Content;
use page::{HEADER_BYTES, META_BYTES, Meta, Node, Page, Value};

/// Leaves that are read at once: 256 KiB of the usual pages, which a bucket brings in a request or a few.
const LEAVES_AT_ONCE: usize = 64;

/// Whether a file of this name is an LMDB data file, when all of a folder is to be packed.
pub fn has_name(name: &str) -> bool {
    name.ends_with(".mdb") && !name.ends_with("lock.mdb")
}

/// Tells of all keys of a data file.
///
/// Errors: `Corrupt` names page and offset; `Unsupported`; what the place says.
pub fn scan(of: &Containers, number: u32, sink: &mut Sink<'_>) -> Result<()> {
    let container = of.container(number);
    let meta = meta(of, number)?;
    let mut walk =
        Walk { of, number, container, meta, prefix: prefix(&container.name), pages: 0, entries: 0, sink };
    if let Some(root) = meta.root {
        walk.below(&[root], meta.depth)?;
    }
    if walk.entries != meta.entries {
        return Err(corrupt(format!("{} of its {} keys are there", walk.entries, meta.entries)));
    }
    Ok(())
}

fn corrupt(why: impl std::fmt::Display) -> Error {
    Error::new(Kind::Corrupt, format!("it is damaged: {why}; get a whole copy of it"))
}

/// The later of the two meta pages.
fn meta(of: &Containers, number: u32) -> Result<Meta> {
    let bytes = of.container(number).bytes;
    let read = |at: u64| -> Result<std::result::Result<Meta, page::Why>> {
        if bytes < at + META_BYTES as u64 {
            return Ok(Err("it is too short for an LMDB data file"));
        }
        let mut head = [0; META_BYTES];
        of.read_at(number, at, &mut head)?;
        Ok(page::meta(&head))
    };
    let first = read(0)?;
    // The first says where the second is; without it the usual size is tried.
    let second = read(first.map_or(4096, |meta| u64::from(meta.page_bytes)))?;
    match (first, second) {
        (Ok(a), Ok(b)) => Ok(if b.transaction > a.transaction { b } else { a }),
        (Ok(one), Err(_)) | (Err(_), Ok(one)) => Ok(one),
        (Err(why), Err(_)) => Err(corrupt(why)),
    }
}

struct Walk<'a, 's> {
    of: &'a Containers,
    number: u32,
    container: &'a Container,
    meta: Meta,
    prefix: String,
    /// Seen so far.
    pages: u64,
    entries: u64,
    sink: &'a mut Sink<'s>,
}

impl Walk<'_, '_> {
    /// All keys below some pages, in their order. `levels`: of the tree, these pages' among them.
    fn below(&mut self, mut pages: &[u64], levels: u16) -> Result<()> {
        // Leaves, which nearly all pages are, are read many at once.
        let at_once = if levels == 1 { LEAVES_AT_ONCE } else { 1 };
        while let Some(&first) = pages.first() {
            let read = self.read(&pages[..pages.len().min(at_once)])?;
            // Pages of a tree are all different: more of them than the file has are a loop.
            self.pages += read.len() as u64;
            if levels == 0 || self.pages > self.meta.last_page.saturating_add(1) {
                return Err(corrupt(format!("its tree leads to page {first} and on without an end")));
            }
            let (these, rest) = pages.split_at(read.len());
            for (&page, bytes) in these.iter().zip(read) {
                match page::parse(&bytes, page).map_err(|why| self.bad(page, why))? {
                    Page::Branch(pages) => self.below(&pages, levels - 1)?,
                    Page::Leaf(nodes) => self.leaf(page, &bytes, &nodes)?,
                }
            }
            pages = rest;
        }
        Ok(())
    }

    fn leaf(&mut self, page: u64, bytes: &[u8], nodes: &[Node]) -> Result<()> {
        self.entries += nodes.len() as u64;
        let heads = self.heads(nodes)?;
        for (node, head) in nodes.iter().zip(heads) {
            let key = &bytes[node.key.clone()];
            let place = |at: u64, number: u64| number * u64::from(self.meta.page_bytes) + at;
            let (offset, head) = match node.value {
                Value::Here(at) => (place(at as u64, page), &bytes[at..at + node.length as usize]),
                Value::Pages(first) => {
                    if !page::is_overflow(&head, first, node.length, self.meta.page_bytes) {
                        return Err(self.bad(first, "it does not have the value that it should"));
                    }
                    (place(HEADER_BYTES as u64, first), &head[HEADER_BYTES..])
                }
                Value::Other(what) => {
                    let e = Error::new(Kind::Unsupported, format!("it is {what}"));
                    self.sink.skip(&self.name(key, &[]), e)?;
                    continue;
                }
            };
            if offset.checked_add(u64::from(node.length)).is_none_or(|end| end > self.container.bytes) {
                return Err(self.cut(page));
            }
            let content = Content::Range { container: self.number, offset };
            let name = self.name(key, &head[..head.len().min(node.length as usize)]);
            let entry = plain_entry(name.into_bytes(), u64::from(node.length), self.container.mtime, content);
            self.sink.push(&entry)?;
        }
        Ok(())
    }

    /// The first bytes of values' own pages, header and all, many at once.
    fn heads(&self, nodes: &[Node]) -> Result<Vec<Vec<u8>>> {
        let mut heads: Vec<Vec<u8>> = Vec::with_capacity(nodes.len());
        let mut wanted = Vec::new();
        for node in nodes {
            let len = match node.value {
                Value::Pages(first) => {
                    wanted.push(self.offset(first, HEADER_BYTES as u64 + u64::from(node.length))?);
                    HEADER_BYTES + (node.length as usize).min(kind::HEAD_BYTES)
                }
                _ => 0,
            };
            heads.push(vec![0; len]);
        }
        let places = wanted.into_iter().zip(heads.iter_mut().filter(|head| !head.is_empty()));
        self.of.read_many(self.number, places.map(|(at, head)| (at, &mut head[..])).collect())?;
        Ok(heads)
    }

    /// Pages, up to the first that the file does not have; at least one.
    fn read(&self, pages: &[u64]) -> Result<Vec<Vec<u8>>> {
        let page_bytes = self.meta.page_bytes;
        let mut places = Vec::with_capacity(pages.len());
        for &page in pages {
            match self.offset(page, u64::from(page_bytes)) {
                Ok(at) => places.push(at),
                Err(e) if places.is_empty() => return Err(e),
                Err(_) => break,
            }
        }
        let mut all = vec![vec![0; page_bytes as usize]; places.len()];
        let wanted = places.into_iter().zip(&mut all).map(|(at, bytes)| (at, &mut bytes[..]));
        self.of.read_many(self.number, wanted.collect())?;
        Ok(all)
    }

    /// Where a page begins, of which so many bytes must be there.
    fn offset(&self, page: u64, bytes: u64) -> Result<u64> {
        let at = page.checked_mul(u64::from(self.meta.page_bytes));
        let within = |at: &u64| at.checked_add(bytes).is_some_and(|end| end <= self.container.bytes);
        at.filter(within).ok_or_else(|| self.cut(page))
    }

    fn cut(&self, page: u64) -> Error {
        corrupt(format!("it is cut, and ends at byte {}, before or within page {page}", self.container.bytes))
    }

    fn bad(&self, page: u64, why: &str) -> Error {
        let at = page.saturating_mul(u64::from(self.meta.page_bytes));
        corrupt(format!("page {page} at byte {at}: {why}"))
    }

    fn name(&self, key: &[u8], head: &[u8]) -> String {
        format!("{}{}", self.prefix, name(key, self.meta.integer_keys, head))
    }
}

/// A key's name below its data file's. `head`: how the value begins.
fn name(key: &[u8], is_integer: bool, head: &[u8]) -> String {
    let name = match (is_integer, key.len()) {
        (true, 4 | 8) => format!("{:010}", key.iter().rev().fold(0u64, |n, &b| n << 8 | u64::from(b))),
        _ => escaped(key),
    };
    match name.rsplit('/').next().is_some_and(|base| base.contains('.')) {
        true => name,
        false => format!("{name}.{}", kind::of_head(head)),
    }
}

/// The folder of a data file's names, with a slash at its end.
fn prefix(container: &str) -> String {
    match container.strip_suffix("data.mdb") {
        Some(folder) if folder.is_empty() || folder.ends_with('/') => folder.to_owned(),
        _ => format!("{}/", container.strip_suffix(".mdb").unwrap_or(container)),
    }
}

/// A key as a name, as the module says.
fn escaped(key: &[u8]) -> String {
    let mut name = String::with_capacity(key.len());
    for chunk in key.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c == '%' || c.is_control() {
                true => c.to_string().bytes().for_each(|b| name += &format!("%{b:02X}")),
                false => name.push(c),
            }
        }
        chunk.invalid().iter().for_each(|b| name += &format!("%{b:02X}"));
    }
    if name.split('/').any(|part| matches!(part, "" | "." | "..")) {
        name = name.replace('/', "%2F");
    }
    match name.as_str() {
        "." | ".." => name.replace('.', "%2E"),
        _ => name,
    }
}
