//! Binary searches in the order.

use granary_core::Result;

use super::{Directory, Tree};

impl Tree {
    /// The first place from `from` on at whose path `reached` holds, as it does at all later ones; the order's length when there
    /// is none. Steps that double come first: most answers are near.
    pub(super) fn first_from(&self, from: u64, reached: impl Fn(&[u8]) -> bool) -> Result<u64> {
        let end = self.order.len();
        let (mut low, mut step) = (from, 1);
        // `low`: the first place that may be it.
        let mut high = loop {
            let probe = low.saturating_add(step - 1);
            if probe >= end {
                break end;
            }
            if reached(&self.path(probe)?) {
                break probe;
            }
            low = probe + 1;
            step *= 2;
        };
        while low < high {
            let middle = low + (high - low) / 2;
            match reached(&self.path(middle)?) {
                true => high = middle,
                false => low = middle + 1,
            }
        }
        Ok(low)
    }

    /// The first place from `first` on that is not below `dir`.
    pub(super) fn end_of(&self, dir: &Directory) -> Result<u64> {
        match dir.depth {
            0 => Ok(self.order.len()),
            _ => self.first_from(dir.first, |at| !at.starts_with(&dir.path)),
        }
    }

    /// The first place after the child of `dir` that is at `place`; at most `end`, where the directory ends.
    pub(super) fn after(&self, dir: &Directory, place: u64, end: u64) -> Result<u64> {
        if place >= end {
            return Ok(end);
        }
        let path = self.path(place)?;
        match crate::names::prefix(&path, dir.depth + 1) {
            Some(own) => Ok(self.first_from(place + 1, |at| !at.starts_with(own))?.min(end)),
            None => Ok(place + 1),
        }
    }
}
