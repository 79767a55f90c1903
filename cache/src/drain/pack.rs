//! Segments of the log become packs: what of their records is still live, in the order of directories and names.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use granary_core::{Error, Failpoint, Ino, Kind, Result};
use granary_meta::{Extent, Move, Place};
use granary_store::format::{NewEntry, PackBuilder};
use rustix::io::Errno;

use super::inline::Copies;
use super::{Failure, Uploaded};
use crate::extent_map::clip;
use crate::stage::Log;
use crate::stage::RecordKind;
use crate::stage::log::SegmentInfo;
use crate::stage::record::{self, Found};
use crate::tree::{PathHint, Shared};
use crate::util::blocking;

/// What a disk fails to give is at least this long.
const PAGE: usize = 4096;

/// A segment's bytes and what is in them.
#[derive(Debug)]
struct Segment {
    id: u64,
    bytes: Bytes,
    records: Vec<Found>,
    damage: Option<String>,
}

/// Live bytes on their way into a pack.
#[derive(Debug)]
pub(super) struct Part {
    pub ino: Ino,
    /// Where the bytes are now.
    pub from: Extent,
    pub bytes: Bytes,
    pub hint: Option<Arc<PathHint>>,
}

/// Uploads what is live in these sealed segments, then deletes them. Nothing is lost when it fails anywhere.
///
/// Errors: those of store and metadata; of the disk when records cannot be read: the others were uploaded, their segments stay.
pub(super) async fn upload(shared: &Arc<Shared>, ids: &[u64]) -> Result<(), Failure> {
    let slot = shared.slot().await;
    let mut measured = shared.measure();
    let infos: Vec<SegmentInfo> = shared.log.sealed().into_iter().filter(|s| ids.contains(&s.id)).collect();
    // Before it holds memory that other namespaces wait for.
    let mut paced = shared.pace(infos.iter().map(|s| s.payload).sum()).await;
    let memory = shared.memory_for(infos.iter().map(|s| s.len).sum()).await;
    let segments = read(shared, infos).await?;
    commit_files(shared, &segments).await?;
    let parts = live_parts(shared, &segments).await?;
    let uploads = build(shared, parts).await?;
    paced.begin(uploads.iter().map(|u| u.sealed.info.total_len).sum());
    for upload in &uploads {
        shared.put(&upload.sealed).await?;
        measured.bytes += upload.sealed.info.payload_len;
    }
    drop((slot, measured));
    for upload in &uploads {
        shared.keep_for_reading(upload);
        shared.relocate(upload).await?;
        shared.keep_copies(upload).await;
    }
    drop(memory);
    shared.meta.sync().await?;
    Failpoint::DrainAfterDurable.reach();
    finish(shared, &segments)
}

async fn read(shared: &Arc<Shared>, infos: Vec<SegmentInfo>) -> Result<Vec<Segment>> {
    let task = shared.clone();
    blocking(&shared.runtime, move || {
        infos
            .into_iter()
            .map(|info| {
                let (mut bytes, unreadable) = match task.log.read_all(info.id) {
                    Ok(bytes) => (bytes, None),
                    Err(e) => read_pages(&task.log, &info, e)?,
                };
                // What a failed append left behind the last record is not of the log.
                bytes.truncate(info.len as usize);
                let bytes = Bytes::from(bytes);
                let scanned = record::scan(&bytes, task.ns, info.id);
                // A complete segment has no torn tail: every byte of it is of a good record.
                let damage = match scanned.damage.first() {
                    _ if unreadable.is_some() => unreadable,
                    Some(d) => Some(d.why.clone()),
                    None if (bytes.len() as u64) < info.len => Some("it ends too early".to_owned()),
                    None => None,
                };
                Ok(Segment { id: info.id, bytes, records: scanned.records, damage })
            })
            .collect()
    })
    .await
}

/// Of a disk that does not have what was written: bad sectors, a file system that found itself broken or lost the file. Other
/// errors (too many open files, too little memory) pass.
const UNREADABLE: [Errno; 4] = [Errno::IO, Errno::NODATA, Errno::UCLEAN, Errno::NOENT];

/// A segment that cannot be read whole, page by page: those that the disk does not give are zeros, and the records in them
/// fail their checksums. Says why, if there is such a page.
fn read_pages(log: &Log, info: &SegmentInfo, e: Error) -> Result<(Vec<u8>, Option<String>)> {
    if !UNREADABLE.iter().any(|errno| e.raw_os_error() == Some(errno.raw_os_error())) {
        return Err(e);
    }
    let mut bytes = vec![0; info.len as usize];
    let mut why = None;
    for (page, at) in bytes.chunks_mut(PAGE).zip((0..).step_by(PAGE)) {
        match log.read(info.id, at, page.len()) {
            Ok(Some(found)) => page.copy_from_slice(&found),
            Ok(None) => {}
            Err(_) => why = Some(e.to_string()),
        }
    }
    Ok((bytes, why))
}

/// After this every record of the segments is in the metadata, or of no use any more.
async fn commit_files(shared: &Shared, segments: &[Segment]) -> Result<()> {
    let inos: BTreeSet<Ino> = segments.iter().flat_map(|s| s.records.iter().map(|r| r.head.ino)).collect();
    for ino in inos {
        if let Some(file) = shared.table.find(ino) {
            file.commit().await?;
        }
    }
    Ok(())
}

async fn live_parts(shared: &Shared, segments: &[Segment]) -> Result<Vec<Part>> {
    let mut staged = Vec::new();
    let mut records = Vec::new();
    for segment in segments {
        for r in segment.records.iter().filter(|r| r.head.kind == RecordKind::Write && r.head.len > 0) {
            let place = Place::Log { node: shared.node, segment: segment.id, offset: r.body.start as u64 };
            staged.push((
                r.head.ino,
                Extent { offset: r.head.offset, len: r.head.len, place, crc: r.head.crc },
            ));
            records.push((segment, r));
        }
    }
    let live = shared.meta.live(&staged).await?;
    let mut parts = Vec::new();
    for (((ino, extent), (segment, r)), ranges) in staged.into_iter().zip(records).zip(live) {
        for (offset, len) in ranges {
            let from = clip(&extent, offset, offset + len);
            let start = r.body.start + (offset - extent.offset) as usize;
            let bytes = segment.bytes.slice(start..start + len as usize);
            parts.push(Part { ino, from, bytes, hint: r.head.hint.clone() });
        }
    }
    sort(&mut parts);
    Ok(parts)
}

/// A directory read in order of names, or a file from its beginning, then finds its bytes side by side.
pub(super) fn sort(parts: &mut [Part]) {
    parts.sort_by_cached_key(|p| {
        let (dir, name) = p.hint.as_ref().map_or((Ino(0), &[][..]), |h| (h.dir, &h.name[..]));
        (dir, name.to_vec(), p.ino, p.from.offset)
    });
}

/// Packs of these parts, in this order.
pub(super) async fn build(shared: &Arc<Shared>, parts: Vec<Part>) -> Result<Vec<Uploaded>> {
    let task = shared.clone();
    let policy = shared.policy();
    let (codec, inline_max) = (policy.compression, policy.inline_bytes_max);
    blocking(&shared.runtime, move || {
        let mut packs = Vec::new();
        let mut pack: Option<(PackBuilder, Vec<Move>, Copies)> = None;
        let seal = |(builder, moves, copies): (PackBuilder, Vec<Move>, Copies)| {
            Ok::<_, Error>(Uploaded { sealed: builder.seal_with(codec)?, moves, copies })
        };
        for part in parts {
            let (parent, name) = part.hint.map_or((Ino(0), Vec::new()), |h| (h.dir, h.name.clone()));
            if let Some(full) = pack.take_if(|(builder, ..)| !builder.fits(part.from.len, name.len())) {
                packs.push(seal(full)?);
            }
            let (builder, moves, copies) = pack.get_or_insert_with(|| {
                (PackBuilder::new(task.ns, task.new_object()), Vec::new(), Copies::new(inline_max))
            });
            let crc = granary_core::crc32c(&part.bytes);
            if part.from.crc != 0 && part.from.crc != crc {
                return Err(Error::new(
                    Kind::Bug,
                    format!("bytes of inode {} changed while they were packed", part.ino),
                ));
            }
            let entry = NewEntry { ino: part.ino, parent, file_offset: part.from.offset, crc, name };
            let to_offset = builder.push(entry, vec![part.bytes.clone()])?;
            copies.add(part.ino, part.from.offset, to_offset, part.bytes);
            moves.push(Move { ino: part.ino, from: part.from, to_offset });
        }
        pack.map(seal).transpose()?.into_iter().for_each(|last| packs.push(last));
        Ok(packs)
    })
    .await
}

fn finish(shared: &Shared, segments: &[Segment]) -> Result<(), Failure> {
    let mut damaged = None;
    for segment in segments {
        match &segment.damage {
            Some(why) => damaged = Some((segment.id, why)),
            None => {
                shared.log.delete(segment.id)?;
                Failpoint::DrainAfterSegmentRemoved.reach();
            }
        }
    }
    match damaged {
        None => Ok(()),
        Some((id, why)) => Err(Failure::Disk(Error::new(
            Kind::Corrupt,
            format!(
                "segment {id:016x} of the stage log in {} was damaged on disk ({why}); what could be read of it is stored; \
                 restore from another copy the files that cannot be read, and look at that disk",
                shared.files.dir().display()
            ),
        ))),
    }
}
