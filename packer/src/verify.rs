//! Looks at every byte of a data set: versions, indexes, and each tar against its index.
//!
//! Of a tar every header is parsed and compared with what the index says, every payload's crc32c is computed, and that of each frame
//! of 64 KiB, by which mounts verify what they read: so padding and what no index names are looked at too. What a tar has
//! besides, because `granary index --skip-errors` left it out, is counted and is no fault. A damaged frame is told unless a damaged
//! file or header in it was.

#[cfg(test)]
mod tests;

use std::io::{BufReader, Read};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use granary_core::limits::FRAME_BYTES;
use granary_core::{Error, Kind, Result};
use serde::Serialize;
use tokio::runtime::Handle;

use crate::blocking::ShardBytes;
use crate::counts::{Counts, Told};
use crate::dataset::DataSet;
use crate::index::{Index, Other, Summed, Summing};
use crate::manifest::{self, Shard};
use crate::tar::{Member, Members};
use crate::trailer::{TRAILER_BYTES, Trailer};

/// What was looked at, and what is wrong.
#[derive(Debug, Serialize)]
pub struct Report {
    pub version: u64,
    pub shards: u64,
    pub files: u64,
    pub bytes: u64,
    /// Entries of tars that their index leaves out.
    pub left_out: u64,
    /// Shards whose index has no checksums of frames, so that no mount can show them.
    pub without_frames: u64,
    /// Requests that were sent again, because an attempt had failed.
    pub retries: u64,
    /// How much is wrong, and the first thousand messages, each with tar and offset.
    pub faults: u64,
    pub messages: Vec<String>,
}

/// Waits: not for a thread of the runtime.
///
/// Errors: what keeps it from looking: a store that does not answer. What is wrong with the data set is in the report.
pub fn verify(data: &DataSet, threads: usize, runtime: &Handle, counts: &Counts) -> Result<Report> {
    let (shards, retries) = (data.manifest().shards(), data.place().retries());
    counts.expect(shards.iter().map(|s| u64::from(s.files)).sum(), data.manifest().bytes());
    let (told, next) = (Told::default(), AtomicUsize::new(0));
    let (left_out, without_frames) = (AtomicU64::new(0), AtomicU64::new(0));
    // Each version that is there must be whole, whichever is looked at.
    for version in runtime.block_on(manifest::versions(data.place()))? {
        fault(runtime.block_on(manifest::read(data.place(), version)).map(drop), &told)?;
    }
    let work = || -> Result<()> {
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            let Some(shard) = shards.get(n) else { return Ok(()) };
            let check = Check { data, shard, told: &told, counts };
            let found = fault(check.shard(n as u32, runtime), &told)?.unwrap_or_default();
            left_out.fetch_add(found.left_out, Ordering::Relaxed);
            without_frames.fetch_add(u64::from(found.without_frames), Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.clamp(1, shards.len().max(1))).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| Err(panicked())))
    })?;
    let (faults, messages) = told.into_parts();
    Ok(Report {
        version: data.manifest().version(),
        shards: shards.len() as u64,
        files: counts.files.load(Ordering::Relaxed),
        bytes: counts.bytes.load(Ordering::Relaxed),
        left_out: left_out.into_inner(),
        without_frames: without_frames.into_inner(),
        retries: data.place().retries() - retries,
        faults,
        messages,
    })
}

fn panicked() -> Error {
    Error::new(Kind::Bug, "a thread that looked at a shard ended before it was done")
}

/// What is wrong with the data is told; what keeps us from looking at it ends the work.
fn fault<T>(result: Result<T>, told: &Told) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if matches!(e.kind(), Kind::Unavailable | Kind::Denied | Kind::Bug) => Err(e),
        Err(e) => {
            told.tell(e.to_string());
            Ok(None)
        }
    }
}

/// What of a shard is no fault.
#[derive(Default)]
struct Found {
    /// Entries that its index leaves out.
    left_out: u64,
    without_frames: bool,
}

/// What came of a tar's entries.
#[derive(Default)]
struct Entries {
    left_out: u64,
    /// Where the tar ends, when it was gone through to its end.
    end: Option<u64>,
    /// The parts of the tar whose damage was told.
    told: Vec<Range<u64>>,
}

struct Check<'a> {
    data: &'a DataSet,
    shard: &'a Shard,
    told: &'a Told,
    counts: &'a Counts,
}

impl Check<'_> {
    fn shard(&self, number: u32, runtime: &Handle) -> Result<Found> {
        let bytes = ShardBytes::open(self.data.place(), &self.shard.path, runtime)?;
        let name = bytes.describe();
        if bytes.bytes() != self.shard.bytes {
            return Err(Error::new(
                Kind::Corrupt,
                format!("{name} has {} bytes, the data set tells of {}", bytes.bytes(), self.shard.bytes),
            ));
        }
        let index = runtime.block_on(self.data.index(number))?;
        let index_name = format!("{}/{}", self.data.place(), self.shard.index_path());
        index.verify().map_err(|e| e.context(&index_name))?;
        self.dead(&index, &name)?;
        let framed = index.framed_bytes();
        let mut summing = Summing::new(bytes.sequential().take(framed.unwrap_or(bytes.bytes())));
        let reader = BufReader::with_capacity(256 << 10, &mut summing);
        let entries = self.entries(Members::new(reader, &name), &index, &name)?;
        if framed.is_some() {
            let sums = summing.finish().map_err(|e| Error::io(format!("cannot read {name}"), e))?;
            self.frames(&sums, &index, &entries.told, &name)?;
        }
        self.trailer(&bytes, &index, entries.end)?;
        Ok(Found { left_out: entries.left_out, without_frames: framed.is_none() })
    }

    /// Each frame against the index. Frames side by side are told together.
    fn frames(&self, sums: &[Summed], index: &Index, told: &[Range<u64>], name: &str) -> Result<()> {
        let mut damaged: Option<Range<u64>> = None;
        let tell = |range: Range<u64>| {
            self.told.tell(format!(
                "{name} at byte {}: the {} bytes from there do not match the checksums of their frames",
                range.start,
                range.end - range.start
            ));
        };
        let mut at = 0;
        for (number, sum) in (0u32..).zip(sums) {
            let frame = at..at + u64::from(sum.len);
            at += FRAME_BYTES;
            let is_told = || told.iter().any(|of| of.start < frame.end && frame.start < of.end);
            if index.frame(number)? == sum.crc || is_told() {
                continue;
            }
            damaged = match damaged.take() {
                Some(before) if before.end == frame.start => Some(before.start..frame.end),
                before => {
                    before.into_iter().for_each(tell);
                    Some(frame)
                }
            };
        }
        damaged.into_iter().for_each(tell);
        Ok(())
    }

    /// A sample is dead exactly when all of its files are.
    fn dead(&self, index: &Index, name: &str) -> Result<()> {
        for sample in 0..index.sample_count() {
            let all = index.sample(sample)?.all(|file| self.shard.dead_files.contains(file));
            if all != self.shard.dead_samples.contains(sample) {
                return Err(Error::new(
                    Kind::Corrupt,
                    format!("{name}: the version's deleted files and samples differ at sample {sample}"),
                ));
            }
        }
        Ok(())
    }

    /// `end` is where the tar ends, when it was gone through to its end.
    fn trailer(&self, bytes: &ShardBytes, index: &Index, end: Option<u64>) -> Result<()> {
        let Some(at) = bytes.bytes().checked_sub(TRAILER_BYTES as u64) else { return Ok(()) };
        let tail = bytes.read(at..bytes.bytes())?;
        let name = bytes.describe();
        let trailer = Trailer::parse_end(&tail, bytes.bytes()).map_err(|e| e.context(&name))?;
        // An adopted copy of a shard may have another index than it was made with, of another grouping.
        match trailer {
            // Just behind the end, and no padding: it was one.
            None if end == Some(at) && tail.iter().any(|&b| b != 0) => {
                Err(Error::new(Kind::Corrupt, format!("{name} at byte {at}: its trailer is damaged")))
            }
            Some(t) if (t.files, t.payload_bytes) != (index.file_count(), index.header().payload_bytes) => {
                Err(Error::new(
                    Kind::Corrupt,
                    format!("{name}: its trailer tells of other files than its index"),
                ))
            }
            _ => Ok(()),
        }
    }

    /// Each entry against the index.
    fn entries(&self, mut members: Members<impl Read>, index: &Index, name: &str) -> Result<Entries> {
        let (mut file, mut other, mut before) = (0, 0, 0);
        let mut found = Entries::default();
        let mut buffer = vec![0; 256 << 10];
        loop {
            let done = file == index.file_count() && other == index.other_count();
            let member = match members.next_member() {
                Ok(None) => {
                    found.end = Some(members.at());
                    break;
                }
                Ok(Some(member)) => member,
                // Damage behind the last entry of the index was left out with what follows it.
                Err(e)
                    if done && matches!(e.kind(), Kind::Corrupt | Kind::Unsupported | Kind::NameTooLong) =>
                {
                    found.left_out += 1;
                    break;
                }
                Err(e) => return Err(e),
            };
            let at = members.header_at();
            if !member.is_file() {
                let known = other < index.other_count() && is_other(&index.other(other)?, &member);
                if known && !same_other(&index.other(other)?, &member) {
                    found.told.push(at..members.at());
                    self.told.tell(header_differs(name, at, &member.path));
                }
                other += u32::from(known);
                found.left_out += u64::from(!known && !member.path.is_empty());
                continue;
            }
            if file == index.file_count() || index.file(file)?.offset != members.at() {
                found.left_out += 1;
                continue;
            }
            let expected = index.file(file)?;
            file += 1;
            let path = String::from_utf8_lossy(expected.path);
            if !same_file(&expected, &member) {
                found.told.push(at..members.at() + member.size);
                self.told.tell(header_differs(name, at, expected.path));
                continue;
            }
            let mut crc = 0;
            loop {
                match members.read(&mut buffer)? {
                    0 => break,
                    n => crc = granary_core::crc32c_append(crc, &buffer[..n]),
                }
            }
            if crc != expected.crc32c {
                let (at, path) = (expected.offset, path);
                found.told.push(at..at + expected.length);
                self.told
                    .tell(format!("{name} at byte {at}: the bytes of {path:?} do not match their checksum"));
            }
            self.counts.add(1, members.at() - before);
            before = members.at();
        }
        if file != index.file_count() || other != index.other_count() {
            return Err(Error::new(
                Kind::Corrupt,
                format!("{name}: of the {} files in its index {file} are in the tar", index.file_count()),
            ));
        }
        self.counts.add(0, self.shard.bytes.saturating_sub(before));
        Ok(found)
    }
}

fn same_file(file: &crate::index::File<'_>, member: &Member) -> bool {
    (file.path, file.length, file.mode, file.mtime, file.uid, file.gid)
        == (&member.path[..], member.size, member.mode, member.mtime, member.uid, member.gid)
}

/// Whether the index speaks of this entry.
fn is_other(other: &Other<'_>, member: &Member) -> bool {
    (other.path, other.target, other.kind) == (&member.path[..], &member.target[..], member.kind)
}

fn same_other(other: &Other<'_>, member: &Member) -> bool {
    (other.mode, other.mtime, other.uid, other.gid) == (member.mode, member.mtime, member.uid, member.gid)
}

fn header_differs(name: &str, at: u64, path: &[u8]) -> String {
    let path = String::from_utf8_lossy(path);
    format!("{name} at byte {at}: the header is not what the index says of {path:?}")
}
