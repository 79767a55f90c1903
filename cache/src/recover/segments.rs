//! The log's segments: what the metadata kept of them, what was promised of them, and what of each is good.

use std::collections::HashSet;
use std::sync::Arc;

use granary_core::{Failpoint, NamespaceId, Result};

use crate::stage::RecordKind;
use crate::stage::record::{self, Damage, Scanned};
use crate::tree::Shared;
use crate::util::blocking;

/// Writes to the log what the metadata kept of it; where that was. Segments that are made for it join the others.
pub(super) async fn restore(shared: &Arc<Shared>, segments: &mut Vec<u64>) -> Result<Vec<(u64, u64)>> {
    let kept = shared.meta.redo(shared.node).await?;
    let places = kept.iter().map(|r| (r.segment, r.offset)).collect();
    for redo in kept {
        let is_there = segments.contains(&redo.segment);
        // A segment that is gone, though a part of it was durable, was deleted: all of it is in the store.
        if shared.log.is_recovered(redo.segment) || !(is_there || redo.offset == 0) {
            continue;
        }
        if !is_there {
            segments.push(redo.segment);
        }
        let task = shared.clone();
        let write = move || task.log.restore(redo.segment, redo.offset, &redo.bytes);
        blocking(&shared.runtime, write).await?;
        Failpoint::RecoverAfterRestore.reach();
    }
    segments.sort_unstable();
    Ok(places)
}

/// What of the log an earlier run had made durable before it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Promised {
    /// All up to this sequence.
    UpTo(u64),
    /// All but the end of this segment: version 1 does not say more.
    AllBut(u64),
}

impl Promised {
    /// Whether a power loss may have taken what is missing there, without breaking a promise.
    fn allows(self, segment: u64, good_len: usize, lost: &Damage) -> bool {
        match self {
            Promised::UpTo(seq) => seq <= lost.after,
            Promised::AllBut(newest) => segment == newest && lost.range.start >= good_len,
        }
    }
}

/// Asks the newest record, and what is known beside the log. Sequences, and what is durable, only grow.
pub(super) async fn promised(shared: &Arc<Shared>, segments: &[u64]) -> Result<Promised> {
    let known = shared.log.was_durable();
    for &id in segments.iter().rev() {
        let task = shared.clone();
        let last = blocking(&shared.runtime, move || {
            let scanned = record::scan(&task.log.read_all(id)?, task.ns, id);
            Ok(scanned.records.into_iter().rev().find(|r| r.head.kind != RecordKind::Gap))
        });
        if let Some(last) = last.await? {
            return Ok(match last.head.durable {
                None if known == 0 => Promised::AllBut(id),
                durable => Promised::UpTo(durable.unwrap_or(0).max(known)),
            });
        }
    }
    Ok(Promised::UpTo(known))
}

/// Reads a segment, makes its content known to the log, cuts its torn tail, and fills the gaps that a power loss left; what is
/// in it, and the bytes that are damaged.
pub(super) async fn adopt(shared: &Arc<Shared>, id: u64, promised: Promised) -> Result<(Scanned, u64)> {
    let task = shared.clone();
    blocking(&shared.runtime, move || {
        let bytes = task.log.read_all(id)?;
        let scanned = record::scan(&bytes, task.ns, id);
        let good = scanned.good_len();
        let (mut gaps, mut end) = (Vec::new(), good);
        for damage in &scanned.damage {
            let is_lost = !task.log.is_recovered(id) && promised.allows(id, good, damage);
            tell(task.ns, id, damage, is_lost);
            if !is_lost {
                end = end.max(damage.range.end); // what was promised is an error to read, and stays for a person
            }
            // Records are no shorter; what is, was never one.
            if is_lost && damage.range.start < good && damage.range.len() >= record::GAP_HEADER {
                gaps.push((damage.after, damage.range.clone()));
            }
        }
        task.log.keep(id, end as u64, &gaps)?;
        Failpoint::RecoverAfterAdopt.reach();
        let inodes: HashSet<u64> = scanned.files().map(|r| r.head.ino.0).collect();
        let payload = scanned.records.iter().map(|r| r.head.payload_len()).sum();
        let known = scanned.records.iter().filter(|r| r.head.kind == RecordKind::Gap).map(|r| &r.body);
        let all = gaps.iter().map(|(_, gap)| gap).chain(known);
        let all = all.map(|gap| gap.start as u64..gap.end as u64).collect();
        task.log.adopt(id, end as u64, payload, inodes, all);
        let lost: usize = scanned.damage.iter().map(|d| d.range.len()).sum();
        Ok((scanned, lost as u64))
    })
    .await
}

fn tell(ns: NamespaceId, id: u64, damage: &Damage, is_lost: bool) {
    let segment = format_args!("{id:016x}").to_string();
    let (from, to) = (damage.range.start, damage.range.end);
    if is_lost {
        tracing::info!(
            %ns, segment, from, to,
            "a part of the stage log that was not durable was lost with the power; it is passed over"
        );
    } else {
        tracing::error!(
            %ns, segment, from, to, why = damage.why,
            "the stage log is damaged; what precedes and follows is recovered"
        );
    }
}
