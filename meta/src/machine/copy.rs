//! Copies by reference: a file's range becomes what another's is, in the same objects.

use granary_core::{Error, Kind, Result};

use super::content::{Deltas, regular_file};
use super::extents::{Editor, checked_end, cut};
use super::{Reply, Tx, View, inline, view::Records};
use crate::record::{Family, Inode, Key, Span, Value};
use crate::types::{Copied, CopyRange, Extent, Place};

/// Extents shared in one operation; more are for the next one. Small in tests, so that random files meet the limit.
const EXTENTS_AT_ONCE: usize = if cfg!(test) { 5 } else { 1024 };

pub(super) fn copy_range(tx: &mut Tx<'_>, copy: CopyRange) -> Result<Reply> {
    let from = regular_file(tx, copy.from)?;
    let mut to = regular_file(tx, copy.to)?;
    let len = copy.len.min(from.attr.size.saturating_sub(copy.from_offset));
    checked_end(copy.to_offset, len)?;
    let apart = copy.from_offset.abs_diff(copy.to_offset);
    if copy.from == copy.to && apart < len {
        return Err(Error::new(Kind::Invalid, "a range cannot be copied onto a part of itself"));
    }
    let (shared, len) = shareable(tx, &from, copy.from_offset, len)?;
    drop(from);
    if len == 0 {
        return Ok(Reply::Copied(Copied { len, attr: to.attr }));
    }
    inline::forget(tx, &to)?;
    let end = copy.to_offset + len;
    let mut deltas = Deltas::default();
    let mut editor = Editor::open(tx, &to, shared.len() + 1)?;
    editor.replace(tx, &mut deltas, copy.to_offset, end, None)?;
    for extent in shared {
        let new = Extent { offset: copy.to_offset + (extent.offset - copy.from_offset), ..extent };
        editor.replace(tx, &mut deltas, new.offset, new.end(), Some(new))?;
    }
    within_quota(tx, deltas.stored)?;
    editor.finish(tx, &mut to);
    deltas.apply(tx, &mut to, None)?;
    let attr = &mut to.attr;
    attr.size = attr.size.max(end);
    attr.version += 1;
    attr.mtime = tx.now;
    attr.ctime = tx.now;
    attr.staged_seq = attr.staged_seq.max(copy.staged_seq);
    let attr = attr.clone();
    tx.put_inode(to);
    Ok(Reply::Copied(Copied { len, attr }))
}

/// The extents of the range's beginning that is in objects or holes, cut to it, and its length.
fn shareable(tx: &mut Tx<'_>, from: &Inode, offset: u64, len: u64) -> Result<(Vec<Extent>, u64)> {
    let end = offset + len;
    let mut shared = Vec::new();
    let mut stop = end;
    let mut visit = |e: Extent| {
        let (start, last) = (e.offset.max(offset), e.end().min(end));
        if start >= last {
            return e.offset < end;
        }
        if !matches!(e.place, Place::Object { .. }) || shared.len() == EXTENTS_AT_ONCE {
            stop = start;
            return false;
        }
        shared.push(cut(&e, start, last));
        true
    };
    if from.spilled == 0 {
        from.extents.iter().all(|e| visit(*e));
    } else {
        let ino = from.attr.ino;
        let first = Key::Extent(ino, offset + 1);
        tx.scan(Span::Of(Family::Extent, ino), Some(&first), &mut |_, value| {
            Ok(if let Value::Extent(e) = value { visit(e) } else { true })
        })?;
    }
    Ok((shared, stop - offset))
}

fn within_quota(tx: &mut Tx<'_>, growth: i64) -> Result<()> {
    let (settings, counters) = (tx.settings()?, tx.counters()?);
    let after = counters.bytes.saturating_add_signed(growth);
    if growth > 0 && settings.bytes_max > 0 && after > settings.bytes_max {
        return Err(Error::new(
            Kind::QuotaExceeded,
            format!(
                "namespace {} is full ({} of {} bytes); delete some, or ask for more",
                settings.name.as_str(),
                counters.bytes,
                settings.bytes_max
            ),
        ));
    }
    Ok(())
}
