//! Files fetched, counted and dropped without being read: what `granary warmup` does to each.
//!
//! Files come in batches: those that lie in one object are fetched together, so that a batch of neighbours is a few large
//! requests.

use std::collections::HashMap;
use std::ops::Range;

use futures::StreamExt;
use granary_core::limits::CHUNK_BYTES;
use granary_core::{Ino, Kind, ObjectId, Result};
use granary_meta::{Attr, Extent, Place};

use crate::read::Patience;
use crate::stage::Shape;
use crate::tree::{Shared, Tree};

/// Objects of a batch that are fetched at once.
const OBJECTS_AT_ONCE: usize = 8;

/// What came of a batch of files. Bytes are files' bytes, holes left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub files: u64,
    pub bytes: u64,
    /// Files all of whose bytes are on this node, and bytes that are.
    pub files_here: u64,
    pub bytes_here: u64,
    /// Bytes that only another node has; they cannot be fetched before that node has stored them.
    pub bytes_elsewhere: u64,
    /// Bytes that came from the store for it: whole chunks, so that a part of them may be other files'.
    pub bytes_fetched: u64,
}

impl Counts {
    pub fn add(&mut self, other: &Counts) {
        self.files += other.files;
        self.bytes += other.bytes;
        self.files_here += other.files_here;
        self.bytes_here += other.bytes_here;
        self.bytes_elsewhere += other.bytes_elsewhere;
        self.bytes_fetched += other.bytes_fetched;
    }
}

/// One file's bytes in objects, and how many are on this node and on others without being in one.
#[derive(Debug, Default)]
struct Whereabouts {
    spans: Vec<(ObjectId, Range<u64>)>,
    here: u64,
    elsewhere: u64,
}

impl Shared {
    async fn whereabouts(&self, ino: Ino) -> Result<Option<Whereabouts>> {
        let (attr, extents) = match self.meta.extents(ino).await {
            Ok(found) => found,
            Err(e) if matches!(e.kind(), Kind::Stale | Kind::NotFound) => return Ok(None), // deleted meanwhile
            Err(e) => return Err(e),
        };
        Ok(Some(self.sort(&attr, &extents)))
    }

    /// Where in objects a file's bytes are.
    pub(super) async fn spans(&self, ino: Ino) -> Result<Vec<(ObjectId, Range<u64>)>> {
        Ok(self.whereabouts(ino).await?.map(|found| found.spans).unwrap_or_default())
    }

    fn sort(&self, attr: &Attr, extents: &[Extent]) -> Whereabouts {
        let mut found = Whereabouts::default();
        // A whole copy in a stage file is read instead of the objects.
        let has_copy = self.clean.version(attr.ino) == Some(attr.version);
        for extent in extents {
            match extent.place {
                Place::Object { .. } if has_copy => found.here += extent.len,
                Place::Object { id, offset, .. } => found.spans.push((id, offset..offset + extent.len)),
                Place::Log { node, .. } | Place::StageFile { node } if node == self.node => {
                    found.here += extent.len;
                }
                Place::Log { .. } | Place::StageFile { .. } => found.elsewhere += extent.len,
            }
        }
        found
    }

    fn count(&self, file: &Whereabouts, counts: &mut Counts) {
        let cached = file.spans.iter().map(|(id, range)| self.reads.cached_bytes(*id, range)).sum::<u64>();
        let in_objects = file.spans.iter().map(|(_, range)| range.end - range.start).sum::<u64>();
        let bytes = in_objects + file.here + file.elsewhere;
        counts.files += 1;
        counts.bytes += bytes;
        counts.bytes_here += cached + file.here;
        counts.files_here += u64::from(cached + file.here == bytes);
        counts.bytes_elsewhere += file.elsewhere;
    }

    /// Drops the copy of a whole file, unless somebody uses it.
    pub(crate) fn drop_clean_copy(&self, ino: Ino) {
        // First out of the table, so that nobody who opens the file now takes the copy up.
        let Some((version, bytes)) = self.clean.take(ino) else { return };
        if !self.table.find(ino).is_none_or(|file| file.drop_clean()) {
            self.clean.insert(ino, version, bytes);
        } else if let Err(e) = self.files.remove(ino, Shape::Clean(version)) {
            tracing::warn!(error = %e, "a clean stage file stays until the next start");
        }
    }

    /// Fetches these parts of objects, in the order in which the objects come first; how many bytes came.
    pub(super) async fn bring(
        &self,
        spans: impl IntoIterator<Item = (ObjectId, Range<u64>)>,
        patience: Patience,
        objects_at_once: usize,
    ) -> Result<u64> {
        let mut order: Vec<(ObjectId, Vec<Range<u64>>)> = Vec::new();
        let mut places: HashMap<ObjectId, usize> = HashMap::new();
        for (id, range) in spans {
            let at = *places.entry(id).or_insert(order.len());
            if at == order.len() {
                order.push((id, Vec::new()));
            }
            order[at].1.push(range);
        }
        // Collected first: with the closure in it, the future could not be proven to be Send.
        let fetches: Vec<_> = order
            .into_iter()
            .map(|(id, parts)| async move { self.bring_parts(id, &merge(parts), patience).await })
            .collect();
        let mut fetches = futures::stream::iter(fetches).buffered(objects_at_once);
        let mut bytes = 0;
        while let Some(fetched) = fetches.next().await {
            bytes += fetched?;
        }
        Ok(bytes)
    }

    async fn bring_parts(&self, id: ObjectId, parts: &[Range<u64>], patience: Patience) -> Result<u64> {
        let object = match self.object(id).await {
            Ok(object) => object,
            Err(e) if e.kind() == Kind::NotFound => return Ok(0), // its files moved to another one meanwhile
            Err(e) => return Err(e),
        };
        let mut fetched = 0;
        for part in parts {
            fetched += self.reads.bring(self.ns, &object, part.clone(), patience).await?;
        }
        Ok(fetched)
    }
}

/// The chunks that have these parts of an object, as few ranges of bytes as possible.
fn merge(mut parts: Vec<Range<u64>>) -> Vec<Range<u64>> {
    for part in &mut parts {
        *part = part.start / CHUNK_BYTES * CHUNK_BYTES..part.end.div_ceil(CHUNK_BYTES) * CHUNK_BYTES;
    }
    parts.sort_unstable_by_key(|part| part.start);
    let mut merged: Vec<Range<u64>> = Vec::new();
    for part in parts {
        match merged.last_mut() {
            Some(last) if part.start <= last.end => last.end = last.end.max(part.end),
            _ => merged.push(part),
        }
    }
    merged
}

impl Tree {
    /// How much of these regular files is on this node. Files that are deleted meanwhile do not count.
    pub async fn residence(&self, files: &[Ino]) -> Result<Counts> {
        let shared = self.shared();
        let mut counts = Counts::default();
        for &ino in files {
            if let Some(file) = shared.whereabouts(ino).await? {
                shared.count(&file, &mut counts);
            }
        }
        Ok(counts)
    }

    /// Brings these regular files into the node's cache, behind all that readers want; what is there is not fetched again. The
    /// objects are fetched in the order in which the files come.
    ///
    /// Errors: the first of the store or the metadata; `NoSpace` when the cache does not keep what came.
    pub async fn warm(&self, files: &[Ino]) -> Result<Counts> {
        let shared = self.shared();
        let mut found = Vec::with_capacity(files.len());
        for &ino in files {
            found.extend(shared.whereabouts(ino).await?);
        }
        let spans = found.iter().flat_map(|file| file.spans.clone());
        let bytes_fetched = shared.bring(spans, Patience::Background, OBJECTS_AT_ONCE).await?;
        let mut counts = Counts { bytes_fetched, ..Counts::default() };
        found.iter().for_each(|file| shared.count(file, &mut counts));
        Ok(counts)
    }

    /// Drops these regular files from the node's cache: the chunks they lie in, and copies of whole files that nobody uses.
    /// What is not in the store stays. Deletes files.
    pub async fn evict(&self, files: &[Ino]) -> Result<Counts> {
        let shared = self.shared();
        let mut counts = Counts::default();
        for &ino in files {
            shared.drop_clean_copy(ino);
            let Some(file) = shared.whereabouts(ino).await? else { continue };
            for (id, range) in &file.spans {
                shared.reads.evict(*id, range);
            }
            shared.count(&file, &mut counts);
        }
        Ok(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_become_whole_chunks_in_few_ranges() {
        let mib = CHUNK_BYTES;
        let parts = vec![3 * mib + 5..3 * mib + 9, 10..20, mib - 1..mib + 1, 9 * mib..9 * mib + 1];
        assert_eq!(merge(parts), [0..2 * mib, 3 * mib..4 * mib, 9 * mib..10 * mib]);
    }
}
