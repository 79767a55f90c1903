//! Compaction: what lives in objects that are mostly dead, or small, moves into new packs, in the order of directories and
//! names; the old objects are dead then, and [`dead`](super::dead) deletes them after their grace.
//!
//! What an object's own directory says it holds is asked of the metadata, which tells what is still live there, and moves it
//! only if it is at that place when the move comes (compare-and-set): reads, truncations, renames, deletions and another
//! node's compaction may go on meanwhile. Bytes that files came to share by copying are not in the directory; they stay, and
//! so does their object.
//!
//! Stopped anywhere it leaves an object that nobody names, or moves that took effect: both are harmless.

mod choose;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use granary_core::id::object_key;
use granary_core::{Error, Failpoint, Ino, Kind, ObjectId, Result};
use granary_meta::{Extent, LiveObject, ObjectInfo, Place};
use granary_store::format::{Content, Object, decode_object};

use super::pack::{self, Part};
use crate::extent_map::clip;
use crate::tree::{PathHint, Shared};
use crate::util::{blocking, lock};

/// Rounds become rarer while there is nothing to do, up to so many of the shortest periods.
const PERIODS_MAX: u32 = 16;
/// While something is uploaded compaction looks again this often.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Objects that one round looks at; the next goes on after them.
const OBJECTS_PER_ROUND: usize = 16_384;
/// Objects asked for at once.
const PAGE: usize = 1024;
/// Objects that could not be rewritten and are left alone until the next start, at most.
const LEFT_ALONE_MAX: usize = 4096;

/// What compaction did since the start, and what it knows.
#[derive(Debug, Default)]
pub(crate) struct Compaction {
    /// Payload bytes of objects that were rewritten, and bytes written for them.
    rewritten: AtomicU64,
    written: AtomicU64,
    /// Objects that are damaged, or whose live bytes are not where their directory says.
    left_alone: std::sync::Mutex<HashSet<ObjectId>>,
}

impl Compaction {
    /// Payload bytes of objects that were rewritten, and the bytes written for them.
    pub fn sums(&self) -> (u64, u64) {
        (self.rewritten.load(Ordering::Relaxed), self.written.load(Ordering::Relaxed))
    }

    fn leave_alone(&self, id: ObjectId) {
        let mut left = lock(&self.left_alone);
        if left.len() < LEFT_ALONE_MAX {
            left.insert(id);
        }
    }

    pub(crate) fn is_left_alone(&self, id: ObjectId) -> bool {
        lock(&self.left_alone).contains(&id)
    }
}

/// Runs until it is aborted; not at all where nothing may be changed.
pub(crate) async fn run(shared: Arc<Shared>) {
    if shared.limits.compaction_bytes_per_s == 0 {
        return;
    }
    // Each node begins somewhere else, so that two of them seldom rewrite the same object.
    let shortest = Duration::from_millis(shared.limits.compaction_period_ms);
    let (mut after, mut wait) = (shared.new_object(), shortest);
    loop {
        tokio::time::sleep(wait).await;
        let (next, objects) = match look(&shared, after).await {
            Ok(found) => found,
            Err(e) if e.kind() == Kind::ReadOnly => return,
            Err(e) => {
                tracing::debug!(ns = %shared.ns, error = %e, "compaction cannot list objects; tried again later");
                wait = shortest * PERIODS_MAX;
                continue;
            }
        };
        after = next;
        let groups = choose::choose(&objects);
        wait = if groups.is_empty() { (wait * 2).min(shortest * PERIODS_MAX) } else { shortest };
        for group in groups {
            quiet(&shared).await;
            match rewrite(&shared, &group).await {
                Ok(moved) => rest(&shared, moved).await,
                Err(e) => {
                    // Damage was told when it was found; all else passes, and is tried again in a later round.
                    tracing::debug!(ns = %shared.ns, error = %e, "a group of objects was not compacted");
                    break;
                }
            }
        }
    }
}

/// One window of objects, and where the next begins.
async fn look(shared: &Shared, mut after: ObjectId) -> Result<(ObjectId, Vec<LiveObject>)> {
    let mut found = Vec::new();
    while found.len() < OBJECTS_PER_ROUND {
        let page = shared.meta.live_objects(after, PAGE).await?;
        let Some(last) = page.last() else {
            after = ObjectId(0);
            break;
        };
        after = last.object.id;
        found.extend(page);
    }
    found.retain(|o| !shared.drain.compaction.is_left_alone(o.object.id));
    Ok((after, found))
}

/// Everything there is, at once: for tests, which have no minutes.
#[cfg(test)]
pub(crate) async fn run_once(shared: &Arc<Shared>) -> Result<usize> {
    let groups = choose::choose(&look(shared, ObjectId(0)).await?.1);
    for group in &groups {
        rewrite(shared, group).await?;
    }
    Ok(groups.len())
}

/// Uploads go first.
async fn quiet(shared: &Shared) {
    while lock(&shared.drain.policy).is_busy() {
        tokio::time::sleep(LOOK_AGAIN.min(Duration::from_millis(shared.limits.compaction_period_ms))).await;
    }
}

/// So that no more is moved, read and written together, than the limit says.
async fn rest(shared: &Shared, moved: u64) {
    tokio::time::sleep(Duration::from_secs_f64(moved as f64 / shared.limits.compaction_bytes_per_s as f64))
        .await;
}

/// Moves what lives in these objects, which fits one pack, into a new one. Returns the bytes read and written.
///
/// Errors: those of store and metadata. An object that is damaged or missing is told, and left alone.
pub(crate) async fn rewrite(shared: &Arc<Shared>, group: &[LiveObject]) -> Result<u64> {
    let slot = shared.slot().await;
    let largest = group.iter().map(|o| o.object.total_len).max().unwrap_or(0);
    let live = group.iter().map(|o| o.live).sum();
    let mut paced = shared.pace(live).await;
    let memory = shared.memory_for(largest + live).await;
    let (mut parts, mut read, mut rewritten, mut cached) = (Vec::new(), 0, 0, false);
    for object in group {
        match live_parts(shared, object).await {
            Ok(live) => {
                let found: u64 = live.iter().map(|part| part.from.len).sum();
                if found < object.live {
                    // Shared by copies, or changed this moment: not to be looked at again and again.
                    shared.drain.compaction.leave_alone(object.object.id);
                } else {
                    rewritten += object.object.payload_len;
                }
                read += object.object.total_len;
                cached |= shared.reads.has_some(object.object.id);
                parts.extend(live);
            }
            // Another node has moved what lived in it, and deleted it.
            Err(e) if e.kind() == Kind::NotFound && !is_live(shared, object.object.id).await? => {
                tracing::debug!(ns = %shared.ns, error = %e, "an object was compacted by another node");
            }
            Err(e) if matches!(e.kind(), Kind::Corrupt | Kind::NotFound) => {
                shared.drain.compaction.leave_alone(object.object.id);
                tracing::error!(
                    ns = %shared.ns, error = %e,
                    "an object that files need cannot be read whole; find out which with `granary fsck --data`"
                );
            }
            Err(e) => return Err(e),
        }
    }
    pack::sort(&mut parts);
    let uploads = pack::build(shared, parts).await?;
    paced.begin(uploads.iter().map(|upload| upload.sealed.info.total_len).sum());
    for upload in &uploads {
        Failpoint::CompactBeforePut.reach();
        shared.put(&upload.sealed).await?;
        Failpoint::CompactAfterPut.reach();
    }
    drop(slot);
    let mut written = 0;
    for upload in &uploads {
        // Before its chunks come, so that they come as pinned.
        shared.pin_moved(upload.sealed.info.id, &upload.moves);
        if cached {
            shared.keep_for_reading(upload);
        }
        shared.relocate(upload).await?;
        Failpoint::CompactAfterMove.reach();
        shared.keep_copies(upload).await;
        written += upload.sealed.info.total_len;
    }
    drop(memory);
    shared.drain.compaction.rewritten.fetch_add(rewritten, Ordering::Relaxed);
    shared.drain.compaction.written.fetch_add(written, Ordering::Relaxed);
    Ok(read + written)
}

/// Whether files have bytes in the object, as the metadata says now.
async fn is_live(shared: &Shared, id: ObjectId) -> Result<bool> {
    let before = ObjectId(id.0.saturating_sub(1));
    let listed = shared.meta.live_objects(before, 1).await?;
    Ok(listed.first().is_some_and(|object| object.object.id == id))
}

/// What an object's own directory names and the metadata says is still there, copied out of it.
async fn live_parts(shared: &Arc<Shared>, object: &LiveObject) -> Result<Vec<Part>> {
    let info = object.object;
    let key = object_key(shared.ns, info.kind, info.id);
    let whole = shared.store.get(&key, 0..info.total_len).await?;
    let Object { payload, footer } = blocking(&shared.runtime, move || decode_object(&whole)).await?;
    if (footer.ns, footer.id, footer.kind()) != (shared.ns, info.id, info.kind) {
        return Err(Error::new(Kind::Corrupt, format!("object {key} is another one than its name says")));
    }
    let (held, hints) = contents(info, footer.content);
    let live = shared.meta.live(&held).await?;
    let mut parts = Vec::new();
    for (((ino, extent), hint), ranges) in held.into_iter().zip(hints).zip(live) {
        for (offset, len) in ranges {
            let from = clip(&extent, offset, offset + len);
            let Place::Object { offset: start, .. } = from.place else { continue };
            // A copy, so that the little that lives does not keep the whole object in memory.
            let bytes = Bytes::copy_from_slice(&payload[start as usize..(start + len) as usize]);
            parts.push(Part { ino, from, bytes, hint: hint.clone() });
        }
    }
    Ok(parts)
}

type Hint = Option<Arc<PathHint>>;

/// What an object's directory says it holds: whose bytes, and the names they had.
fn contents(object: ObjectInfo, content: Content) -> (Vec<(Ino, Extent)>, Vec<Hint>) {
    let at = |offset| Place::Object { kind: object.kind, id: object.id, offset };
    match content {
        Content::Block(block) => {
            let extent = Extent { offset: block.file_offset, len: object.payload_len, place: at(0), crc: 0 };
            (vec![(block.ino, extent)], vec![None])
        }
        Content::Pack(entries) => entries
            .into_iter()
            .map(|e| {
                let place = at(u64::from(e.payload_offset));
                let extent = Extent { offset: e.file_offset, len: u64::from(e.len), place, crc: e.crc };
                let hint = PathHint { dir: e.parent, name: e.name.into_vec() };
                ((e.ino, extent), (e.parent != Ino(0)).then(|| Arc::new(hint)))
            })
            .unzip(),
    }
}
