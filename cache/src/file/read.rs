//! Reading: the extent map says where the bytes are, the log, the stage file and the object cache have them.
//!
//! A record's checksum is verified whatever part of it is read; the last long one is kept for who reads it part by part. Bytes of
//! objects are verified by the object cache. Stage files that are changed have no checksums, and are read as the disk gives them.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use granary_core::id::object_key;
use granary_core::limits::INLINE_BYTES_MAX;
use granary_core::waits::{self, Cause};
use granary_core::{Error, Ino, Kind, ObjectId, Result};
use granary_meta::{Extent, Place};

use super::ahead::Wanted;
use super::{File, Stage, State};
use crate::extent_map::Piece;
use crate::stage::disk::read_up_to;
use crate::tree::Shared;
use crate::tree::served::Tier;
use crate::util::lock;

/// Records longer than this are kept when they were read for a part of them.
const KEEP_MIN: u64 = 128 << 10;
/// Objects read at once for one request.
const OBJECTS_AT_ONCE: usize = 8;
/// How often a read follows bytes that move away under it. The drain moves them once, a compaction once more.
const ATTEMPTS: usize = 5;
/// How often a read for the page cache asks for a lease before it does without.
const PATIENCE: u32 = 20;

/// Where one stretch of a read comes from.
#[derive(Debug)]
enum Source {
    Zeros(u64),
    Stage {
        file: Arc<fs::File>,
        offset: u64,
        len: u64,
    },
    Log {
        part: Extent,
        whole: Extent,
    },
    Object {
        id: ObjectId,
        offset: u64,
        len: u64,
        /// The metadata may have a copy of it.
        tiny: Option<Tiny>,
    },
    /// In another node's stage.
    Peer {
        part: Extent,
        whole: Extent,
    },
}

impl Source {
    /// Where its bytes come from when nobody waits for them.
    fn tier_at_hand(&self) -> Tier {
        match self {
            Source::Zeros(_) => Tier::Hole,
            Source::Stage { .. } | Source::Log { .. } => Tier::Stage,
            Source::Object { .. } => Tier::Cache,
            Source::Peer { .. } => Tier::Peer,
        }
    }
}

/// A part of a file so short that the metadata may keep a copy of all of it.
#[derive(Clone, Copy, Debug)]
struct Tiny {
    /// Of the content that is read.
    version: u64,
    /// The file's length, and where the part begins.
    size: u64,
    start: u64,
}

/// What is to be done for a read.
#[derive(Debug)]
enum Step {
    /// With what is to be fetched ahead, and whether what is read may be kept.
    Fetch(Vec<Source>, Vec<Wanted>, bool),
    /// The state is to be loaded first.
    Load,
    /// A recall is being worked at: wait for its end, at most so long.
    HoldBack(Duration),
}

/// A part of a record's payload. `None`: the segment is gone, the bytes are elsewhere by now.
pub(super) fn read_record(shared: &Shared, ino: Ino, part: &Extent, whole: &Extent) -> Result<Option<Bytes>> {
    let (Place::Log { segment, offset, .. }, Place::Log { offset: start, .. }) = (part.place, whole.place)
    else {
        return Err(Error::new(Kind::Bug, "a log source is not in the log"));
    };
    if whole.crc == 0 {
        // What a later write left of a record has no checksum of its own: the record has.
        let verified = shared.log.verify(segment, offset..offset + part.len);
        return match verified.map_err(|e| e.context(format_args!("cannot read inode {ino}")))? {
            Some(()) => Ok(shared.log.read(segment, offset, part.len as usize)?.map(Bytes::from)),
            None => Ok(None),
        };
    }
    let range = (offset - start) as usize..(offset - start + part.len) as usize;
    if let Some((of, at, bytes)) = lock(&shared.last_record).clone()
        && (of, at) == (segment, start)
    {
        return Ok(Some(bytes.slice(range)));
    }
    let Some(bytes) = shared.log.read(segment, start, whole.len as usize)? else { return Ok(None) };
    if granary_core::crc32c(&bytes) != whole.crc {
        return Err(damaged(ino, whole, segment));
    }
    let bytes = Bytes::from(bytes);
    if part.len < whole.len && whole.len > KEEP_MIN {
        *lock(&shared.last_record) = Some((segment, start, bytes.clone()));
    }
    Ok(Some(bytes.slice(range)))
}

fn damaged(ino: Ino, whole: &Extent, segment: u64) -> Error {
    Error::new(
        Kind::Corrupt,
        format!(
            "bytes {}..{} of inode {ino} were damaged on this node's disk (stage log segment {segment:016x}); restore them from \
             another copy",
            whole.offset,
            whole.end(),
        ),
    )
}

/// What of the plan only other nodes have.
fn on_peers(plan: &[Source]) -> Vec<Extent> {
    let part = |source: &Source| match source {
        Source::Peer { part, .. } => Some(*part),
        _ => None,
    };
    plan.iter().filter_map(part).collect()
}

fn join(mut parts: Vec<Bytes>) -> Bytes {
    if parts.len() == 1 {
        return parts.pop().unwrap_or_default();
    }
    let mut all = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
    parts.iter().for_each(|p| all.extend_from_slice(p));
    all.freeze()
}

impl File {
    /// Where the bytes of `offset..offset+len` are; nothing at and after the end of file.
    fn plan(&self, s: &mut State, offset: u64, len: u64) -> Result<Vec<Source>> {
        s.alive(self.ino)?;
        let size = self.current_size(s);
        let len = len.min(size.saturating_sub(offset));
        if len == 0 {
            return Ok(Vec::new());
        }
        if s.stage.as_ref().is_some_and(Stage::is_complete) {
            return Ok(vec![Source::Stage { file: self.stage_file(s)?, offset, len }]);
        }
        let mut sources = Vec::new();
        for piece in s.map.resolve(offset, len) {
            sources.push(match piece {
                Piece::Hole { len, .. } => Source::Zeros(len),
                Piece::Data { part, whole } => self.source(s, part, whole)?,
            });
        }
        Ok(sources)
    }

    fn source(&self, s: &mut State, part: Extent, whole: Extent) -> Result<Source> {
        Ok(match part.place {
            Place::Object { id, offset, .. } => {
                // What is held is not what the version is of.
                let is_tiny =
                    (whole.offset, whole.len) == (0, s.size) && s.size <= INLINE_BYTES_MAX && !s.is_held();
                let tiny = Tiny { version: s.committed.version, size: s.size, start: part.offset };
                Source::Object { id, offset, len: part.len, tiny: is_tiny.then_some(tiny) }
            }
            Place::Log { node, .. } | Place::StageFile { node } if node != self.shared.node => {
                Source::Peer { part, whole }
            }
            Place::Log { .. } => Source::Log { part, whole },
            Place::StageFile { .. } => {
                Source::Stage { file: self.stage_file(s)?, offset: part.offset, len: part.len }
            }
        })
    }

    fn read_log(&self, part: &Extent, whole: &Extent) -> Result<Option<Bytes>> {
        read_record(&self.shared, self.ino, part, whole)
    }

    /// `None`: it changed meanwhile.
    fn read_stage(&self, file: &Arc<fs::File>, offset: u64, len: u64) -> Option<Result<Bytes>> {
        match read_up_to(file, offset, len as usize) {
            Ok(bytes) if (bytes.len() as u64) < len => {
                self.after_short_read(file, offset..offset + len, bytes)
            }
            Ok(bytes) => Some(Ok(bytes.into())),
            Err(e) => Some(Err(Error::io(format!("cannot read the stage file of inode {}", self.ino), e))),
        }
    }

    /// An extent's bytes without waiting for the store.
    pub(super) fn extent_at_hand(&self, extent: &Extent) -> Option<Result<Bytes>> {
        match extent.place {
            Place::Log { node, .. } if node == self.shared.node => self.read_log(extent, extent).transpose(),
            Place::Object { id, offset, .. } => {
                let info = self.shared.objects.known(id)?;
                self.shared.reads.read_ready(self.shared.ns, &info, offset..offset + extent.len).map(Ok)
            }
            _ => None,
        }
    }

    fn at_hand(&self, source: &Source) -> Option<Result<Bytes>> {
        match source {
            Source::Zeros(len) => Some(Ok(vec![0; *len as usize].into())),
            Source::Stage { file, offset, len } => self.read_stage(file, *offset, *len),
            Source::Log { part, whole } => self.read_log(part, whole).transpose(),
            Source::Object { id, offset, len, .. } => {
                let info = self.shared.objects.known(*id)?;
                self.shared.reads.read_ready(self.shared.ns, &info, *offset..*offset + *len).map(Ok)
            }
            Source::Peer { .. } => None,
        }
    }

    pub(super) fn read_local(&self, offset: u64, len: u64) -> Option<Result<Bytes>> {
        let (plan, wanted) = {
            let mut s = self.state();
            if self.shared.many && (s.lease.recalls > 0 || !self.is_current(&s)) {
                return None;
            }
            let plan = match self.plan(&mut s, offset, len) {
                Ok(plan) => plan,
                Err(e) => return Some(Err(e)),
            };
            (plan, self.look_ahead(&mut s, offset, len))
        };
        self.fetch_ahead(wanted);
        let mut parts = Vec::with_capacity(plan.len());
        for source in &plan {
            match self.at_hand(source)? {
                Ok(bytes) => parts.push(bytes),
                Err(e) => return Some(Err(e)),
            }
        }
        for (source, bytes) in plan.iter().zip(&parts) {
            self.shared.served.count(source.tier_at_hand(), bytes.len());
        }
        Some(Ok(join(parts)))
    }

    /// `None`: the bytes moved away.
    async fn fetch(&self, source: &Source) -> Result<Option<Bytes>> {
        let mut tier = source.tier_at_hand();
        let bytes = self.fetch_from(source, &mut tier).await?;
        if let Some(bytes) = &bytes {
            self.shared.served.count(tier, bytes.len());
        }
        Ok(bytes)
    }

    /// `tier` becomes where they came from.
    async fn fetch_from(&self, source: &Source, tier: &mut Tier) -> Result<Option<Bytes>> {
        let (id, offset, len) = match source {
            Source::Object { id, offset, len, tiny } => {
                if let Some(tiny) = tiny
                    && let Some(bytes) = self.read_inline(*tiny, *len).await
                {
                    *tier = Tier::Inline;
                    return Ok(Some(bytes));
                }
                (id, offset, len)
            }
            Source::Peer { part, whole } => return self.read_peer(part, whole).await,
            _ => return self.at_hand(source).transpose(),
        };
        let info = match self.shared.object(*id).await {
            Ok(info) => info,
            Err(e) if e.kind() == Kind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let range = *offset..*offset + *len;
        if !self.shared.reads.has(*id, range.clone()) {
            *tier = Tier::Store;
        }
        let object = || Cause::Store { object: object_key(self.shared.ns, info.kind, info.id) };
        match waits::on(object, self.shared.reads.read(self.shared.ns, &info, range)).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == Kind::NotFound => Ok(None),
            Err(e) => Err(e.context(format_args!("cannot read inode {}", self.ino))),
        }
    }

    /// From the copy that the metadata keeps of the file, if it is of the version that is read: the object has the bytes too,
    /// so that whatever is wrong with the copy is no error.
    async fn read_inline(&self, tiny: Tiny, len: u64) -> Option<Bytes> {
        let copy = match self.shared.meta.inline(self.ino).await {
            Ok(copy) => copy?,
            Err(e) => {
                tracing::debug!(ino = %self.ino, error = %e, "the copy of a file's bytes cannot be asked for");
                return None;
            }
        };
        if copy.version != tiny.version || copy.bytes.len() as u64 != tiny.size || !copy.is_sound() {
            return None;
        }
        let range = tiny.start as usize..(tiny.start + len) as usize;
        copy.bytes.get(range).map(Bytes::copy_from_slice)
    }

    async fn read_peer(&self, part: &Extent, whole: &Extent) -> Result<Option<Bytes>> {
        let Some(peers) = self.shared.peers.get() else {
            return Err(Error::new(
                Kind::Unavailable,
                format!(
                    "bytes of inode {} are still in another node's stage, and this node was started without a way to ask it; \
                     they can be read when it has uploaded them",
                    self.ino
                ),
            ));
        };
        let node = || match part.place {
            Place::Log { node, .. } | Place::StageFile { node } => Cause::Peer { node: node.to_string() },
            Place::Object { .. } => Cause::Peer { node: String::new() },
        };
        waits::on(node, peers.read(self.shared.ns, self.ino, part, whole)).await
    }

    /// `once`: the state was loaded without a lease a moment ago, `patient`: and the caller still hopes for one.
    fn step(
        &self,
        offset: u64,
        len: u64,
        keep: bool,
        held_back: bool,
        once: bool,
        patient: bool,
    ) -> Result<Step> {
        let mut s = self.state();
        s.alive(self.ino)?;
        let mut kept = true;
        if self.shared.many {
            let recalled = s.lease.recalls > 0;
            if !self.is_current(&s) {
                if !once || !s.loaded || keep && patient && !recalled {
                    return Ok(Step::Load);
                }
                kept = recalled;
            }
            if recalled && keep {
                if !held_back && !s.lease.hold.is_zero() {
                    return Ok(Step::HoldBack(s.lease.hold));
                }
                s.lease.served += 1;
            }
        }
        let plan = self.plan(&mut s, offset, len)?;
        let wanted = self.look_ahead(&mut s, offset, len);
        Ok(Step::Fetch(plan, wanted, kept))
    }

    /// Where the bytes are, under the lease; without `keep` also of a state that is good for one use.
    async fn plan_leased(&self, offset: u64, len: u64, keep: bool) -> Result<(Vec<Source>, bool)> {
        let (mut held_back, mut once) = (false, false);
        for attempt in 0.. {
            match self.step(offset, len, keep, held_back, once, attempt < PATIENCE)? {
                Step::Fetch(plan, wanted, kept) => {
                    self.fetch_ahead(wanted);
                    return Ok((plan, kept));
                }
                Step::HoldBack(hold) => {
                    self.hold_back(hold).await;
                    held_back = true;
                }
                Step::Load => {
                    if once {
                        self.wait_for_lease(attempt).await;
                    }
                    once = !self.make_current().await?;
                }
            }
        }
        Err(Error::new(Kind::Busy, "the file's lease could not be had"))
    }

    pub(super) async fn read_anywhere(&self, offset: u64, len: u64, keep: bool) -> Result<(Bytes, bool)> {
        let mut silent: Option<(Vec<Extent>, Error)> = None;
        for attempt in 0..ATTEMPTS {
            let (plan, kept) = self.plan_leased(offset, len, keep).await?;
            let on_peers = on_peers(&plan);
            if let Some((before, e)) = silent.take()
                && before == on_peers
            {
                return Err(e);
            }
            // Collected first: with the closure in it, the future could not be proven to be Send.
            let fetches: Vec<_> = plan.iter().map(|source| self.fetch(source)).collect();
            let fetches = futures::stream::iter(fetches).buffered(OBJECTS_AT_ONCE);
            let fetched: Vec<Result<Option<Bytes>>> = fetches.collect().await;
            let fetched: Option<Vec<Bytes>> = match fetched.into_iter().collect() {
                // A node that does not answer may have uploaded them before it stopped.
                Err(e) if e.kind() == Kind::Unavailable && !on_peers.is_empty() => {
                    silent = Some((on_peers, e));
                    self.refresh_anew().await?;
                    continue;
                }
                fetched => fetched?,
            };
            if let Some(parts) = fetched {
                return Ok((join(parts), kept));
            }
            if attempt > 0 {
                self.refresh_anew().await?;
            }
        }
        Err(self.gone("they moved away again and again, or what the metadata names is gone"))
    }
}
