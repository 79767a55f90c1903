//! What the data set has of the source's entries, found by going through both in their order.

use granary_core::{Error, Kind, Result};

use super::Known;
use crate::pack::entry::{self, Content, Entry};
use crate::pack::sort::Sorted;

/// What the data set has, up to the entry that was asked for last.
pub(super) struct There {
    sorted: Option<Sorted>,
    record: Vec<u8>,
}

/// What becomes of an entry of the source.
pub(super) enum Verdict {
    /// It is packed.
    New,
    /// The data set has it as it is.
    Unchanged,
    /// Something of the data set hides it.
    Hidden,
    /// It is packed in the place of this file of this shard.
    Replaces(u32, u32),
}

impl There {
    /// `sorted`: what the data set has, in the order of the source's entries.
    pub(super) fn new(sorted: Option<Sorted>) -> There {
        There { sorted, record: Vec::new() }
    }

    /// What the data set has in the place of this record of the source, whose turn is no earlier than the last one's.
    ///
    /// Errors: what the work directory's disk says.
    pub(super) fn find(&mut self, record: &[u8]) -> Result<Option<&[u8]>> {
        while let Some(sorted) = &mut self.sorted {
            if !self.record.is_empty() && entry::compare(&self.record, record).is_ge() {
                break;
            }
            match sorted.next_record()? {
                Some(next) => self.record = next.to_vec(),
                None => self.sorted = None,
            }
        }
        let is_it = self.sorted.is_some() && entry::compare(&self.record, record).is_eq();
        Ok(is_it.then_some(&self.record[..]))
    }
}

/// What becomes of `entry`, in whose place the data set has `old`.
///
/// Errors: `Exists` when it is another file, which is not to be replaced.
pub(super) fn verdict(entry: &Entry, old: &Entry, known: Known) -> Result<Verdict> {
    if entry.is_directory() && !old.is_directory() {
        return Ok(Verdict::Hidden);
    }
    if old.is_directory() {
        // Files that come and go change a directory's time: that alone is no reason to refuse it.
        let of = |e: &Entry| (e.kind(), e.mtime, e.mode, e.uid, e.gid);
        let same = of(entry) == of(old) || entry.is_directory() && known == Known::Refuse;
        return Ok(if same { Verdict::Unchanged } else { Verdict::New });
    }
    if (old.length, old.mtime, old.is_link()) == (entry.length, entry.mtime, entry.is_link()) {
        return Ok(Verdict::Unchanged);
    }
    match (known, &old.content) {
        (Known::Replace, Content::Range { container, offset }) => {
            Ok(Verdict::Replaces(*container, *offset as u32))
        }
        _ => Err(Error::new(
            Kind::Exists,
            format!(
                "{:?} is in the data set with another size or time; --replace packs it anew",
                String::from_utf8_lossy(&entry.path)
            ),
        )),
    }
}
