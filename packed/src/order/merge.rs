//! Making the order: the shards' sorted paths, merged. Memory is a few hundred bytes a shard, and 64 or so for each directory and
//! link, however many files there are.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::ops::Range;
use std::path::Path;

use granary_core::Result;
use granary_packer::index::Index;
use granary_packer::manifest::Runs;

use super::directories::Directories;
use super::file::Writer;
use super::{Entry, Identity, Of};
use crate::names::clean;
use crate::opening::Opening;

/// A shard as the merge sees it.
#[derive(Clone, Copy, Debug)]
pub struct Shard<'a> {
    pub index: &'a Index,
    pub dead_files: &'a Runs,
}

/// What is in the shards and not in the tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Paths that no tree can have.
    pub odd_paths: u64,
    /// Devices.
    pub devices: u64,
    /// Entries whose path a later shard has too.
    pub replaced: u64,
}

/// Writes the order of these shards to `path`. Of one path in several shards, or twice among a shard's directories and links,
/// the last counts.
///
/// Errors: `Corrupt` when an index is damaged; `Interrupted` when `opening` was given up; what the disk says.
pub fn make<'a>(
    path: &Path,
    of: Identity,
    shards: impl Iterator<Item = Shard<'a>>,
    opening: &Opening,
) -> Result<Skipped> {
    let mut skipped = Skipped::default();
    let (mut heap, mut streams) = (BinaryHeap::new(), Vec::new());
    for (number, shard) in (0u32..).zip(shards) {
        for run in file_runs(shard.index)? {
            streams.push(Stream::Files { shard, number, places: run });
        }
        let others = sorted_others(shard.index, &mut skipped)?;
        if !others.is_empty() {
            streams.push(Stream::Others { number, list: others.into_iter() });
        }
    }
    for (at, stream) in streams.iter_mut().enumerate() {
        heap.extend(stream.next(&mut skipped)?.map(|next| next.head(at)));
    }
    let mut out = Writer::new(path, of)?;
    let mut last: Option<Cow<'_, [u8]>> = None;
    let mut directories = Directories::default();
    while let Some(Head { path, entry, is_dead, stream }) = heap.pop() {
        opening.ordered()?;
        let mut show = |entry| out.push(entry);
        directories.come_to(&path, &mut show)?;
        if is_dead {
            directories.is_dead();
        } else if last.as_ref() == Some(&path) {
            skipped.replaced += 1;
        } else {
            if path.ends_with(b"/") {
                directories.begin(&path, entry);
            } else {
                directories.lives(&mut show)?;
                show(entry)?;
            }
            last = Some(path);
        }
        heap.extend(streams[stream].next(&mut skipped)?.map(|next| next.head(stream)));
    }
    directories.come_to(b"", &mut |entry| out.push(entry))?;
    drop(heap);
    out.finish()?;
    Ok(skipped)
}

/// Runs of an index's sorted files that stay sorted when `./` is taken off: those that have it are side by side.
fn file_runs(index: &Index) -> Result<[Range<u32>; 3]> {
    let (from, to) = (index.lower_bound(b"./")?, index.lower_bound(b".0")?);
    Ok([0..from, from..to, to..index.file_count()])
}

/// Directories with a slash at their end, links and pipes, by path; of several with one path the last.
fn sorted_others<'a>(index: &'a Index, skipped: &mut Skipped) -> Result<Vec<(Cow<'a, [u8]>, u32)>> {
    let mut list = Vec::new();
    for number in 0..index.other_count() {
        let other = index.other(number)?;
        let Some(path) = clean(other.path) else {
            // The root itself is no entry.
            skipped.odd_paths += u64::from(!matches!(other.path, b"." | b"./"));
            continue;
        };
        match other.kind {
            b'5' => list.push((Cow::Owned([path, b"/"].concat()), number)),
            b'1' | b'2' | b'6' => list.push((Cow::Borrowed(path), number)),
            _ => skipped.devices += 1,
        }
    }
    list.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
    Ok(list)
}

enum Stream<'a> {
    Files { shard: Shard<'a>, number: u32, places: Range<u32> },
    Others { number: u32, list: std::vec::IntoIter<(Cow<'a, [u8]>, u32)> },
}

impl<'a> Stream<'a> {
    fn next(&mut self, skipped: &mut Skipped) -> Result<Option<Next<'a>>> {
        match self {
            Stream::Files { shard, number, places } => {
                for place in places {
                    let file = shard.index.sorted(place)?;
                    let is_dead = shard.dead_files.contains(file);
                    match clean(shard.index.path(file)?) {
                        Some(path) => {
                            let entry = Entry { shard: *number, of: Of::File(file) };
                            return Ok(Some(Next { path: Cow::Borrowed(path), entry, is_dead }));
                        }
                        None => skipped.odd_paths += u64::from(!is_dead),
                    }
                }
                Ok(None)
            }
            Stream::Others { number, list } => {
                let next = list.next();
                Ok(next.map(|(path, other)| {
                    let entry = Entry { shard: *number, of: Of::Other(other) };
                    Next { path, entry, is_dead: false }
                }))
            }
        }
    }
}

/// A stream's next entry.
struct Next<'a> {
    path: Cow<'a, [u8]>,
    entry: Entry,
    /// It was deleted.
    is_dead: bool,
}

impl<'a> Next<'a> {
    fn head(self, stream: usize) -> Head<'a> {
        let Next { path, entry, is_dead } = self;
        Head { path, entry, is_dead, stream }
    }
}

/// The same, with its stream's number.
struct Head<'a> {
    path: Cow<'a, [u8]>,
    entry: Entry,
    is_dead: bool,
    stream: usize,
}

impl Head<'_> {
    /// The least path first; of one path the last shard's, and there a link before a file: then the order does not depend on
    /// that of the streams.
    fn key(&self) -> (&[u8], std::cmp::Reverse<u32>, bool) {
        (&self.path, std::cmp::Reverse(self.entry.shard), matches!(self.entry.of, Of::File(_)))
    }
}

impl Ord for Head<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        other.key().cmp(&self.key()) // the heap gives the greatest
    }
}

impl PartialOrd for Head<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Head<'_> {}
