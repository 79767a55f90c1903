//! A large file's stage file becomes blocks of 15 MiB; many small changed ranges share a pack.
//!
//! Writes go on meanwhile: what is written after the upload took its snapshot is *touched*, and is not moved. The move itself
//! happens in the file's turn, so that no commit of newer bytes comes between the look at what is touched and the move.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use granary_core::limits::OBJECT_PAYLOAD_MAX;
use granary_core::{Error, Failpoint, Ino, Kind, Result};
use granary_meta::{Extent, Move, Place};
use granary_store::format::{BlockBuilder, BlockInfo, NewEntry, PackBuilder};

use super::inline::Copies;
use super::{Failure, Uploaded};
use crate::extent_map::clip;
use crate::file::File;
use crate::range_set::RangeSet;
use crate::stage::Shape;
use crate::stage::disk::read_up_to;
use crate::stage::sums::Sums;
use crate::tree::Shared;
use crate::tree::stuck::Thing;
use crate::util::blocking;

/// Changed ranges in one object.
const RANGES_MAX: usize = 4096;

/// One upload of a file at a time: ends the watch over what is written when it goes away.
struct Watch<'a>(&'a File);

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        {
            let mut s = self.0.state();
            s.touched = None;
            s.touched_all = false;
        }
        self.0.tell_turn_over();
    }
}

/// Uploads what of the file is only in its stage file. `false`: somebody writes it now, or wrote meanwhile; try later.
/// `force` takes it as it is at the moment, even while the kernel writes it.
pub(super) async fn upload(shared: &Arc<Shared>, ino: Ino, force: bool) -> Result<bool, Failure> {
    let Some(large) = shared.large(ino) else { return Ok(true) };
    let result = upload_file(shared, large.file.clone(), force).await;
    match &result {
        Ok(_) => shared.dirty.stuck.release(Thing::File(ino)),
        Err(Failure::Disk(e)) => {
            let staged = large.file.state().map.staged();
            shared.note_stuck(Thing::File(ino), staged, 1, e);
        }
        Err(Failure::Other(_)) => {}
    }
    large.file.rest();
    result
}

async fn upload_file(shared: &Arc<Shared>, file: Arc<File>, force: bool) -> Result<bool, Failure> {
    if shared.many {
        // What others changed meanwhile is not ours to upload.
        match file.make_current().await {
            Err(e) if e.kind() == Kind::Stale => {
                file.bury();
                return Ok(true);
            }
            current => current.map(drop)?,
        }
    }
    let Some((watch, quiet)) = begin(&file, force).await? else { return Ok(false) };
    file.commit().await?;
    let (groups, version) = {
        let s = file.state();
        if s.dead {
            return Ok(true);
        }
        let staged = s.map.iter().filter(|e| e.place == Place::StageFile { node: shared.node }).copied();
        (group(staged), s.committed.version)
    };
    let uploads = futures::stream::iter(groups.into_iter().map(Ok::<_, Failure>)).try_for_each_concurrent(
        shared.policy().uploads_max as usize,
        |extents| {
            let (shared, file) = (shared.clone(), file.clone());
            async move { store_group(&shared, &file, extents, version).await }
        },
    );
    // The clean copy must be durable before it is called clean, and one that is not yet clean is the content after a power
    // loss, whatever the store has: the disk works on that while the store takes the bytes. A disk that fails does not keep
    // them from going there, but it is told.
    let (uploaded, synced) = futures::join!(uploads, file.sync_stage());
    uploaded?;
    shared.meta.sync().await?;
    synced.map_err(Failure::Disk)?;
    if !quiet {
        // What the kernel wrote meanwhile may not be in the objects: everything is looked at again.
        if let Some(stage) = &mut file.state().stage {
            stage.base = None;
        }
        return Ok(true);
    }
    let clean = make_clean(shared, &file).await?;
    drop(watch);
    if clean && !file.has_users() {
        shared.table.retire(&file);
    }
    Ok(clean)
}

/// Starts watching; says whether nobody can write behind our back. `None`: not now.
async fn begin(file: &File, force: bool) -> Result<Option<(Watch<'_>, bool)>> {
    loop {
        let mut over = std::pin::pin!(file.turn_over());
        over.as_mut().enable();
        {
            let mut s = file.state();
            if s.dead {
                return Ok(None);
            }
            let quiet = file.tighten(&mut s)?;
            if !quiet && !force {
                return Ok(None);
            }
            if s.touched.is_none() {
                s.touched = Some(RangeSet::default());
                s.touched_all = false;
                if !quiet && let Some(stage) = &mut s.stage {
                    stage.base = None;
                }
                return Ok(Some((Watch(file), quiet)));
            }
        }
        if !force {
            return Ok(None);
        }
        over.await; // another upload of the file is running
    }
}

/// Extents cut at multiples of a block's length, and joined until an object is full.
fn group(staged: impl Iterator<Item = Extent>) -> Vec<Vec<Extent>> {
    let mut groups: Vec<Vec<Extent>> = Vec::new();
    let mut size = 0;
    for extent in staged {
        let mut at = extent.offset;
        while at < extent.end() {
            let end = extent.end().min((at / OBJECT_PAYLOAD_MAX + 1) * OBJECT_PAYLOAD_MAX);
            let part = clip(&extent, at, end);
            match groups.last_mut() {
                Some(last) if size + part.len <= OBJECT_PAYLOAD_MAX && last.len() < RANGES_MAX => {
                    last.push(part)
                }
                _ => {
                    groups.push(vec![part]);
                    size = 0;
                }
            }
            size += part.len;
            at = end;
        }
    }
    groups
}

async fn store_group(
    shared: &Arc<Shared>,
    file: &Arc<File>,
    extents: Vec<Extent>,
    version: u64,
) -> Result<(), Failure> {
    let slot = shared.slot().await;
    let mut measured = shared.measure();
    let mut paced = shared.pace(extents.iter().map(|e| e.len).sum()).await;
    let memory = shared.memory_for(extents.iter().map(|e| e.len).sum()).await;
    let (descriptor, whole) = {
        let mut s = file.state();
        let Some(stage) = &s.stage else { return Ok(()) }; // deleted meanwhile
        let whole = stage.is_complete();
        (file.stage_file(&mut s)?, whole)
    };
    let (task, owner) = (shared.clone(), file.clone());
    let built =
        blocking(&shared.runtime, move || Ok(build(&task, &owner, &descriptor, &extents, version))).await?;
    let (mut uploaded, missing) = built?;
    if let Some(at) = lost(&untouched(file, &uploaded.moves), &missing) {
        return Err(Failure::Disk(file.cut_short(at)));
    }
    paced.begin(uploaded.sealed.info.total_len);
    shared.put(&uploaded.sealed).await?;
    measured.bytes += uploaded.sealed.info.payload_len;
    drop((slot, measured));
    let _turn = file.turn().await;
    uploaded.moves = untouched(file, &uploaded.moves);
    // A whole stage file stays as the copy that reads are served from; a sparse one is dropped.
    if !whole {
        shared.keep_for_reading(&uploaded);
    }
    shared.relocate(&uploaded).await?;
    Failpoint::LargeBetweenBlocks.reach();
    drop(memory);
    Ok(())
}

/// The object, and ranges of the extents that the stage file did not have: a truncation since the snapshot cut them, and
/// they are not moved; or the disk lost them.
fn build(
    shared: &Shared,
    file: &File,
    descriptor: &std::fs::File,
    extents: &[Extent],
    version: u64,
) -> Result<(Uploaded, Vec<Range<u64>>), Failure> {
    let ino = file.ino();
    let mut missing = Vec::new();
    let mut read = |e: &Extent| {
        let mut bytes =
            read_up_to(descriptor, e.offset, e.len as usize).map_err(|err| unreadable(ino, err))?;
        if (bytes.len() as u64) < e.len {
            missing.push(e.offset + bytes.len() as u64..e.end());
            bytes.resize(e.len as usize, 0);
        }
        Ok::<_, Failure>(Bytes::from(bytes))
    };
    let (id, codec) = (shared.new_object(), shared.policy().compression);
    let mut moves = Vec::with_capacity(extents.len());
    let sealed = if let [one] = extents {
        let mut block = BlockBuilder::new(shared.ns, id, BlockInfo { ino, file_offset: one.offset, version });
        block.push(read(one)?)?;
        moves.push(Move { ino, from: *one, to_offset: 0 });
        block.seal_with(codec)?
    } else {
        let hint = file.state().hint.clone();
        let (parent, name) = hint.map_or((Ino(0), Vec::new()), |h| (h.dir, h.name.clone()));
        let mut pack = PackBuilder::new(shared.ns, id);
        for e in extents {
            let bytes = read(e)?;
            let crc = granary_core::crc32c(&bytes);
            let entry = NewEntry { ino, parent, file_offset: e.offset, crc, name: name.clone() };
            let to_offset = pack.push(entry, vec![bytes])?;
            moves.push(Move { ino, from: *e, to_offset });
        }
        pack.seal_with(codec)?
    };
    Ok((Uploaded { sealed, moves, copies: Copies::default() }, missing))
}

/// Where the first of what is to be moved begins that is missing.
fn lost(moves: &[Move], missing: &[Range<u64>]) -> Option<u64> {
    let of = |m: &Move| {
        let here = missing.iter().filter(|gap| gap.start < m.from.end() && m.from.offset < gap.end);
        here.map(|gap| gap.start.max(m.from.offset)).min()
    };
    moves.iter().filter_map(of).min()
}

fn unreadable(ino: Ino, e: io::Error) -> Failure {
    Failure::Disk(Error::io(
        format!(
            "cannot read the stage file of inode {ino}, whose bytes are nowhere else; look at that disk, and restore the file \
             from another copy"
        ),
        e,
    ))
}

/// The moves, without what was written since the snapshot.
fn untouched(file: &File, moves: &[Move]) -> Vec<Move> {
    let s = file.state();
    if s.touched_all || s.dead {
        return Vec::new();
    }
    let mut kept = Vec::new();
    for m in moves {
        let gaps = s.touched.as_ref().map_or_else(Vec::new, |t| t.gaps(m.from.offset..m.from.end()));
        for gap in gaps {
            let from = clip(&m.from, gap.start, gap.end);
            kept.push(Move { from, to_offset: m.to_offset + (gap.start - m.from.offset), ..*m });
        }
    }
    kept
}

/// Keeps the stage file as a clean copy (or drops it when it is sparse), if all of it is in the store.
async fn make_clean(shared: &Arc<Shared>, file: &Arc<File>) -> Result<bool> {
    let is_stored = |s: &crate::file::State| {
        s.map.staged() == 0
            && !s.is_held()
            && !s.busy
            && s.writers == 0
            && !s.touched_all
            && file.is_current(s)
            && s.touched.as_ref().is_none_or(RangeSet::is_empty)
            && s.stage.as_ref().is_some_and(|stage| !stage.loose && !stage.lost)
    };
    if !is_stored(&file.state()) {
        return Ok(false);
    }
    // What is called clean is believed after a power loss too.
    file.sync_stage().await?;
    let version = keep_sums(shared, file).await?;
    {
        let mut guard = file.state();
        let s = &mut *guard;
        if !is_stored(s) || s.committed.version != version {
            return Ok(false);
        }
        let bytes = s.map.covered();
        let Some(stage) = &mut s.stage else { return Ok(false) };
        match stage.shape {
            Shape::Sparse => {
                shared.files.remove(file.ino(), Shape::Sparse)?;
                Failpoint::SparseAfterRemove.reach();
                s.stage = None;
            }
            Shape::Whole => {
                shared.files.reshape(file.ino(), Shape::Whole, Shape::Clean(version))?;
                Failpoint::CleanAfterRename.reach();
                stage.shape = Shape::Clean(version);
                stage.base = None;
                shared.clean.insert(file.ino(), version, bytes);
            }
            Shape::Clean(_) => {}
        }
        file.settle(s);
    }
    let task = shared.clone();
    blocking(&shared.runtime, move || task.files.sync_folders()).await?;
    Ok(true)
}

/// Writes down what the copy is, for a later run that finds it: of this content version.
async fn keep_sums(shared: &Arc<Shared>, file: &Arc<File>) -> Result<u64> {
    let (version, size, descriptor) = {
        let mut s = file.state();
        let is_whole = s.stage.as_ref().is_some_and(|stage| stage.shape == Shape::Whole);
        (s.committed.version, s.size, if is_whole { Some(file.stage_file(&mut s)?) } else { None })
    };
    let Some(descriptor) = descriptor else { return Ok(version) };
    let (task, ino) = (shared.clone(), file.ino());
    let kept = blocking(&shared.runtime, move || {
        let failed = |e| Error::io(format!("cannot read the stage file of inode {ino}"), e);
        let sums = Sums::compute(&descriptor, ino.0, version, size).map_err(failed)?;
        task.files.write_sums(ino, &sums)
    });
    if let Err(e) = kept.await {
        tracing::debug!(%ino, error = %e, "a clean copy without checksums serves until the next start only");
    }
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use granary_core::NodeId;

    #[test]
    fn blocks_are_aligned_and_small_ranges_share_an_object() {
        let staged =
            |offset, len| Extent { offset, len, place: Place::StageFile { node: NodeId(1) }, crc: 0 };
        let mib = 1 << 20;
        let one: Vec<_> = group([staged(0, 40 * mib)].into_iter());
        assert_eq!(
            one,
            [vec![staged(0, 15 * mib)], vec![staged(15 * mib, 15 * mib)], vec![staged(30 * mib, 10 * mib)]]
        );
        let many: Vec<_> = (0..10).map(|i| staged(i * 100 * mib, mib)).collect();
        assert_eq!(group(many.iter().copied()), [many]);
        let both = group([staged(14 * mib, 2 * mib)].into_iter());
        assert_eq!(both, [vec![staged(14 * mib, mib), staged(15 * mib, mib)]]);
        assert!(group(std::iter::empty()).is_empty());
    }
}
