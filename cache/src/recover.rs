//! Bringing stage and metadata back together at start.
//!
//! 1. Segments, in order: each good record whose inode exists, whose sequence is above the inode's, and whose predecessor is
//!    known is applied; one commit for each inode and segment. A gap in an inode's chain ends it there: what comes back of a
//!    file is a prefix of what was done to it. What a power loss took of the log (its torn tail, or pages in the middle of what
//!    was not durable, as the newest record tells) is passed over from then on; what else is no good record is damage, and told.
//! 2. Whole stage files that are not clean are the content of their files, whatever the log says.
//!    Where other nodes change the namespace too, neither counts when another node changed the inode meanwhile: the chain of
//!    records must go on exactly where the inode's sequence is, and a whole stage file counts only if that is this node's. What
//!    was overtaken is kept aside for a person.
//! 3. Sparse stage files stay where extents name them. Clean copies stay where they are of the current version, and are verified
//!    afterwards (`tree/scrub.rs`).
//!
//! Everything is done again when it is interrupted: a record that was applied has its sequence in the inode.

mod watch;

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use granary_core::{Error, Failpoint, Ino, Kind, NamespaceId, NodeId, Result};
use granary_meta::{Attr, Extent, Place};

use crate::file::{File, Stage, State};
use crate::range_set::RangeSet;
use crate::stage::record::{self, Damage, Found, Scanned};
use crate::stage::{Head, RecordKind, Shape, files, pages};
use crate::tree::Shared;
use crate::util::blocking;

pub use watch::{RecoveryStep, RecoveryWatch};

/// Progress is logged this often at most.
const PROGRESS: Duration = Duration::from_secs(1);
/// Segments that are read at once, each held in memory while it is scanned.
const SEGMENTS_AT_ONCE: usize = 2;
/// Inodes that are asked for at once, where the metadata is on another machine.
const ATTRS_AT_ONCE: usize = 64;

/// Tells the watch, and once a second the log.
#[derive(Debug)]
struct Telling<'a> {
    shared: &'a Shared,
    watch: &'a RecoveryWatch,
    told: Duration,
    done: RecoveryStep,
}

impl Telling<'_> {
    fn add(&mut self, more: RecoveryStep) {
        let now = self.shared.clock.monotonic();
        self.watch.add(more, now);
        self.done.bytes += more.bytes;
        self.done.records += more.records;
        self.done.replayed += more.replayed;
        self.done.files += more.files;
        self.done.lost += more.lost;
        if now.saturating_sub(self.told) < PROGRESS {
            return;
        }
        self.told = now;
        let all = self.watch.sums();
        tracing::info!(
            ns = %self.shared.ns, bytes = all.bytes, of = all.bytes_total, records = all.records, replayed = all.replayed,
            files = all.files, left_s = all.left.as_secs(),
            "bringing back what is staged"
        );
    }
}

/// What is in the folders of stage files, of inodes that exist.
#[derive(Debug, Default)]
struct Staged {
    whole: Vec<Ino>,
    sparse: Vec<Ino>,
    clean: Vec<(Ino, u64)>,
}

pub(crate) async fn recover(
    shared: &Arc<Shared>,
    mut segments: Vec<u64>,
    watch: &RecoveryWatch,
) -> Result<RecoveryStep> {
    let restored = restore(shared, &mut segments).await?;
    // Loading a file looks whether its bytes are there: so first everything is known that is there.
    for &id in &segments {
        shared.log.announce(id)?;
    }
    let begun = shared.clock.monotonic();
    let _running = watch.begin(segments.iter().map(|&id| shared.log.len(id)).sum(), begun);
    let mut telling = Telling { shared, watch, told: begun, done: RecoveryStep::default() };
    let staged = find_stage_files(shared).await?;
    let promised = promised(shared, &segments).await?;
    // The disk reads on while what was read is replayed.
    let adopted = futures::stream::iter(segments).map(|id| {
        let bytes = shared.log.len(id);
        async move { Ok::<_, Error>((id, bytes, adopt(shared, id, promised).await?)) }
    });
    let mut adopted = std::pin::pin!(adopted.buffered(SEGMENTS_AT_ONCE));
    while let Some((id, bytes, (scanned, lost))) = adopted.try_next().await? {
        let replayed = replay(shared, id, &scanned).await?;
        telling.add(RecoveryStep { bytes, lost, ..replayed });
    }
    if telling.done.lost > 0 {
        // Files loaded before the damage was found may name what is lost.
        for file in shared.table.all().into_iter().filter(|f| f.is_loaded()) {
            file.refresh().await?;
        }
    }
    take_stage_files(shared, staged, &mut telling).await?;
    shared.commit_all().await?;
    let done = telling.done;
    if done.replayed > 0 || done.files > 0 {
        tracing::info!(
            ns = %shared.ns, records = done.records, replayed = done.replayed, stage_files = done.files,
            bytes = done.bytes, "recovered what was not in the metadata"
        );
    }
    Failpoint::RecoverBeforeSync.reach();
    shared.log.sync(&shared.runtime).await?;
    shared.meta.keep_redo(shared.node, Vec::new(), &restored).await?;
    shared.meta.sync().await?;
    let task = shared.clone();
    blocking(&shared.runtime, move || task.log.mark_recovered()).await?;
    Failpoint::RecoverAfterSync.reach();
    Ok(done)
}

/// Writes to the log what the metadata kept of it; where that was. Segments that are made for it join the others.
async fn restore(shared: &Arc<Shared>, segments: &mut Vec<u64>) -> Result<Vec<(u64, u64)>> {
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
enum Promised {
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
async fn promised(shared: &Arc<Shared>, segments: &[u64]) -> Result<Promised> {
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
async fn adopt(shared: &Arc<Shared>, id: u64, promised: Promised) -> Result<(Scanned, u64)> {
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
        let inodes: HashSet<Ino> = scanned.files().map(|r| r.head.ino).collect();
        let payload = scanned.records.iter().map(|r| r.head.payload_len()).sum();
        let known = scanned.records.iter().filter(|r| r.head.kind == RecordKind::Gap).map(|r| &r.body);
        let all = gaps.iter().map(|(_, gap)| gap).chain(known);
        let all = all.map(|gap| gap.start as u64..gap.end as u64).collect();
        task.log.adopt(id, end as u64, payload, inodes.len() as u64, all);
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

async fn replay(shared: &Arc<Shared>, segment: u64, scanned: &Scanned) -> Result<RecoveryStep> {
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

/// `None`: the inode was freed since it was looked up, by another node or because the service kept it for a moment only. Then
/// nothing of it is brought back.
fn unless_gone<T>(shared: &Shared, ino: Ino, outcome: Result<T>) -> Result<Option<T>> {
    match outcome {
        Err(e) if shared.many && e.kind() == Kind::Stale => {
            if let Some(file) = shared.table.remove(ino) {
                file.bury();
            }
            Ok(None)
        }
        outcome => outcome.map(Some),
    }
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
fn first_lost(node: NodeId, file: &File, s: &mut State) -> Result<Option<u64>> {
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

async fn attr_of(shared: &Shared, ino: Ino) -> Result<Option<Attr>> {
    match shared.meta.getattr(ino).await {
        Ok(attr) => Ok(Some(attr)),
        Err(e) if matches!(e.kind(), Kind::Stale | Kind::NotFound) => Ok(None),
        Err(e) => Err(e.context(format_args!("cannot recover inode {ino}"))),
    }
}

/// Removes stage files of inodes that are gone, and lets the files know of the others.
async fn find_stage_files(shared: &Arc<Shared>) -> Result<Staged> {
    let mut listed = shared.files.list()?;
    // A whole one decides over a sparse or clean one of the same inode, which can only be older.
    listed.sort_by_key(|(_, shape)| *shape != Shape::Whole);
    let mut staged = Staged::default();
    let mut whole = HashSet::new();
    for (ino, shape) in listed {
        let attr = attr_of(shared, ino).await?;
        let Some(attr) = attr.filter(|_| !whole.contains(&ino)) else {
            shared.files.remove(ino, shape)?;
            continue;
        };
        let shape = if shape == Shape::Whole && attr.staged_seq != 0 && !shared.log.is_own(attr.staged_seq) {
            keep_overtaken(shared, ino).await?
        } else {
            shape
        };
        match shape {
            Shape::Whole => {
                whole.insert(ino);
                staged.whole.push(ino);
            }
            Shape::Sparse => staged.sparse.push(ino),
            Shape::Clean(version) => {
                staged.clean.push((ino, version));
                continue;
            }
        }
        let file = shared.table.acquire(ino, || File::new(ino, shared.clone()));
        file.adopt_stage(shape);
        shared.table.release(&file);
    }
    shared.files.sync_folders()?;
    Ok(staged)
}

/// Another node changed the file after this one did: its stage file is not the content any more, but extents may name ranges
/// of it. Returns its new shape.
async fn keep_overtaken(shared: &Arc<Shared>, ino: Ino) -> Result<Shape> {
    let task = shared.clone();
    let kept = blocking(&shared.runtime, move || {
        let (path, mut aside) = task.files.begin_aside(ino)?;
        let mut stage = task.files.open_existing(ino, Shape::Whole)?;
        std::io::copy(&mut stage, &mut aside)
            .map_err(|e| Error::io(format!("cannot keep {}", path.display()), e))?;
        task.files.reshape(ino, Shape::Whole, Shape::Sparse)?;
        Ok(path.display().to_string())
    })
    .await?;
    shared.note_overtaken(ino, &kept);
    Ok(Shape::Sparse)
}

async fn take_stage_files(shared: &Arc<Shared>, staged: Staged, telling: &mut Telling<'_>) -> Result<()> {
    for ino in staged.whole {
        let taken = take_whole(shared, ino).await;
        unless_gone(shared, ino, taken)?;
        telling.add(RecoveryStep { files: 1, ..RecoveryStep::default() });
    }
    for ino in staged.sparse {
        let taken = take_sparse(shared, ino).await;
        unless_gone(shared, ino, taken)?;
    }
    for (ino, version) in staged.clean {
        match attr_of(shared, ino).await? {
            Some(attr) if attr.version == version => shared.clean.found(ino, version),
            _ => shared.files.remove(ino, Shape::Clean(version))?,
        }
    }
    let task = shared.clone();
    blocking(&shared.runtime, move || {
        task.files.sweep_sums()?;
        task.files.sync_folders()
    })
    .await
}

/// The stage file is the file's content.
async fn take_whole(shared: &Arc<Shared>, ino: Ino) -> Result<()> {
    let (Some(attr), Some(file)) = (attr_of(shared, ino).await?, shared.table.find(ino)) else {
        return Ok(());
    };
    file.load(&attr).await?;
    file.absorb(&mut file.state())?;
    file.commit().await?;
    Failpoint::RecoverAfterStageFile.reach();
    file.rest();
    Ok(())
}

/// Files that programs have open since before this process, for as long as it takes to count them: until then nothing of theirs
/// is uploaded, dropped, or taken for settled. With whether the kernel may write each one's stage file.
pub(crate) async fn hold(
    shared: &Arc<Shared>,
    open: &[(Ino, Option<bool>)],
) -> Result<Vec<(Arc<File>, Option<bool>)>> {
    let mut held = Vec::new();
    for &(ino, passes) in open {
        let Some(attr) = attr_of(shared, ino).await? else { continue };
        let opened = shared.open(&attr, None).await;
        let Some(file) = unless_gone(shared, ino, opened)? else { continue };
        let passes = passes.filter(|write| match file.resume_passthrough(*write) {
            Ok(_) => true,
            Err(e) => {
                tracing::error!(ns = %shared.ns, %ino, error = %e, "stage file");
                false
            }
        });
        held.push((file, passes));
    }
    // A mapping outlives its file's close: nothing tells of it but the disk.
    for file in shared.table.all() {
        let mut s = file.state();
        if s.stage.as_ref().is_some_and(|stage| stage.shape == Shape::Whole) {
            file.loosen(&mut s);
        }
    }
    Ok(held)
}

/// The stage file has ranges that extents name, or is a leftover.
async fn take_sparse(shared: &Arc<Shared>, ino: Ino) -> Result<()> {
    let (Some(attr), Some(file)) = (attr_of(shared, ino).await?, shared.table.find(ino)) else {
        return Ok(());
    };
    file.load(&attr).await?;
    {
        let mut s = file.state();
        if s.map.staged() == 0 && !s.is_held() {
            s.stage = None;
            shared.files.remove(ino, Shape::Sparse)?;
        }
        file.settle(&mut s);
    }
    let lost = first_lost(shared.node, &file, &mut file.state())?;
    if let Some(at) = lost {
        file.cut_lost(at, "its stage file does not have them");
        file.commit().await?;
    }
    file.rest();
    shared.table.retire(&file);
    Ok(())
}
