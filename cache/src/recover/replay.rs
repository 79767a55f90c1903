//! The records of a segment, applied to the files that they are of.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use granary_core::{Error, Failpoint, Ino, NodeId, Result};
use granary_meta::{Attr, Extent, Place};

use super::{ATTRS_AT_ONCE, RecoveryStep, attr_of, unless_gone};
use crate::file::{File, Stage, State};
use crate::range_set::RangeSet;
use crate::stage::record::{Found, Scanned};
use crate::stage::{Head, RecordKind, files, pages};
use crate::tree::Shared;

pub(super) async fn replay(shared: &Arc<Shared>, segment: u64, scanned: &Scanned) -> Result<RecoveryStep> {
    let mut done = RecoveryStep::default();
    let mut by_ino: BTreeMap<Ino, Vec<&Found>> = BTreeMap::new();
    for r in &scanned.records {
        shared.log.stay_above(r.head.seq);
    }
    for r in scanned.files() {
        by_ino.entry(r.head.ino).or_default().push(r);
    }
    if shared.log.is_recovered(segment) {
        return Ok(done); // what it has of inodes that are not in the metadata is not of those that may have their numbers now
    }
    done.records += scanned.records.len() as u64;
    let inos: Vec<Ino> = by_ino.keys().copied().collect();
    let attrs = futures::stream::iter(inos).map(|ino| attr_of(shared, ino));
    let attrs: Vec<Option<Attr>> = attrs.buffered(ATTRS_AT_ONCE).try_collect().await?;
    for ((_, records), attr) in by_ino.into_iter().zip(attrs) {
        let (Some(attr), Some(last)) = (attr, records.last()) else { continue };
        if last.head.seq <= attr.staged_seq {
            continue;
        }
        let replayed = replay_file(shared, &attr, segment, last, &records).await;
        done.replayed += unless_gone(shared, attr.ino, replayed)?.unwrap_or(0);
        Failpoint::RecoverAfterInode.reach();
    }
    Ok(done)
}

async fn replay_file(
    shared: &Arc<Shared>,
    attr: &Attr,
    segment: u64,
    last: &Found,
    records: &[&Found],
) -> Result<u64> {
    let file = shared.open(attr, last.head.hint.as_deref().cloned()).await?;
    let (applied, overtaken) = apply(shared, &file, segment, records);
    let refused = match overtaken.is_empty() {
        true => Ok(()),
        false => file.refuse_overtaken(overtaken).await,
    };
    let committed = match refused {
        Ok(()) => file.commit().await.map(|_| ()),
        refused => refused,
    };
    shared.table.release(&file);
    shared.table.retire(&file);
    committed.map(|()| applied)
}

/// Applies an inode's records to its state, up to the first gap; how many, and the writes that another node overtook.
fn apply(shared: &Shared, file: &File, segment: u64, records: &[&Found]) -> (u64, Vec<Extent>) {
    let mut guard = file.state();
    let s = &mut *guard;
    let mut applied = 0;
    if s.stage.as_ref().is_some_and(Stage::is_complete) {
        // The stage file shows it all, and more.
        s.last_seq = records.iter().map(|r| r.head.seq).fold(s.last_seq, u64::max);
        return (0, Vec::new());
    }
    let records: Vec<&Found> = records.iter().copied().filter(|r| r.head.seq > s.last_seq).collect();
    let survived = Survived::of(shared, file, s, &records);
    for &r in &records {
        let h = &r.head;
        if shared.many && h.prev_seq != s.last_seq {
            let left = records.iter().filter(|r| r.head.seq >= h.seq && r.head.kind == RecordKind::Write);
            return (applied, left.map(|r| in_log(shared, segment, r)).collect());
        }
        if h.prev_seq > s.last_seq {
            tracing::error!(
                ns = %shared.ns, ino = %h.ino, seq = h.seq, missing = h.prev_seq,
                "changes of this file were lost with a part of the stage log; it is brought back as it was before them"
            );
            break;
        }
        match h.kind {
            RecordKind::Write => {
                s.put(in_log(shared, segment, r));
            }
            RecordKind::Truncate => s.set_size(h.offset),
            RecordKind::Zero => {
                s.zero(h.offset..h.offset + h.len);
                s.size = s.size.max(h.offset + h.len);
            }
            RecordKind::Gap => continue,
            RecordKind::StageFile => s.hint = h.hint.clone().or(s.hint.take()),
            RecordKind::Shared => {
                tracing::info!(
                    ns = %shared.ns, ino = %h.ino, seq = h.seq,
                    "a copy by reference was not durable; the file is brought back as it was before it"
                );
                break;
            }
            RecordKind::StageRange | RecordKind::StagePages => {
                if !survived.has(h) {
                    tracing::info!(
                        ns = %shared.ns, ino = %h.ino, offset = h.offset, len = h.len,
                        "bytes that were not synced were lost with the power; the file is brought back as it was before them"
                    );
                    break;
                }
                s.put(Extent {
                    offset: h.offset,
                    len: h.len,
                    place: Place::StageFile { node: shared.node },
                    crc: 0,
                });
            }
        }
        s.last_seq = h.seq;
        s.change(shared.clock.now(), shared.next_version());
        s.mtime = h.mtime;
        applied += 1;
    }
    file.settle(s);
    (applied, Vec::new())
}

fn in_log(shared: &Shared, segment: u64, r: &Found) -> Extent {
    let place = Place::Log { node: shared.node, segment, offset: r.body.start as u64 };
    Extent { offset: r.head.offset, len: r.head.len, place, crc: r.head.crc }
}

/// The first byte that an extent says is in the file's sparse stage file, and is not: a power loss took it. What overwrote
/// bytes was made durable before the extent was, so that it is one that was added to the end.
pub(super) fn first_lost(node: NodeId, file: &File, s: &mut State) -> Result<Option<u64>> {
    if s.stage.as_ref().is_none_or(Stage::is_complete) {
        return Ok(None);
    }
    let stage = file.stage_file(s)?;
    let there = files::stat(&stage).and_then(|stat| files::data_ranges(&stage, stat.size));
    let there = there.map_err(|e| Error::io("cannot examine a stage file", e))?;
    let mut on_disk = RangeSet::default();
    there.into_iter().for_each(|range| on_disk.insert(range));
    let mine = s.map.iter().filter(|e| e.place == Place::StageFile { node });
    Ok(mine.filter_map(|e| on_disk.gaps(e.offset..e.end()).first().map(|gap| gap.start)).min())
}

/// What a file's sparse stage file still has of what was written to it.
#[derive(Debug, Default)]
struct Survived {
    on_disk: Vec<Range<u64>>,
    /// The first write that it has not, or not all of.
    missing: Option<u64>,
}

impl Survived {
    /// While the machine runs nothing is lost, and the pages of a process that was killed may be ahead of its records.
    fn of(shared: &Shared, file: &File, s: &mut State, records: &[&Found]) -> Survived {
        let examine = |s: &mut State| {
            let stage = file.stage_file(s)?;
            let failed = |e| Error::io(format!("cannot examine the stage file of inode {}", file.ino()), e);
            let stat = files::stat(&stage).map_err(failed)?;
            let on_disk = files::data_ranges(&stage, stat.size).map_err(failed)?;
            let missing = match shared.log.was_restarted() {
                true => pages::first_missing(&stage, records).map_err(failed)?,
                false => None,
            };
            Ok::<_, Error>(Survived { on_disk, missing })
        };
        if s.stage.is_none() {
            return Survived::default();
        }
        examine(s).unwrap_or_else(|e| {
            tracing::error!(ns = %shared.ns, error = %e, "what was written to it and not synced is not brought back");
            Survived::default()
        })
    }

    fn has(&self, h: &Head) -> bool {
        self.missing.is_none_or(|missing| h.seq < missing)
            && self.on_disk.iter().any(|w| w.start <= h.offset && h.offset + h.len <= w.end)
    }
}
