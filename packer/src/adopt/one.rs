//! One tar: read from end to end, its index put beside it.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufReader, Read};

use granary_core::{Error, Kind, Result};
use tokio::runtime::Handle;

use super::{Options, compressed, compressed_bytes, shard_of};
use crate::blocking::ShardBytes;
use crate::counts::Counts;
use crate::index::{self, Builder, Index, NewFile, NewOther, Summing};
use crate::key::Grouping;
use crate::manifest::{Shard, index_path};
use crate::place::Place;
use crate::tar::{Member, Members};

/// What came of a tar.
#[derive(Debug)]
pub struct Adopted {
    /// `None` when nothing of it can be used.
    pub shard: Option<Shard>,
    /// Its index was there.
    pub kept: bool,
    /// What was left out.
    pub messages: Vec<String>,
}

/// Errors: what is wrong with the tar, unless that is to be left out; what disk and store say, always.
pub fn adopt(
    place: &Place,
    tar: &str,
    grouping: Grouping,
    options: &Options,
    runtime: &Handle,
    counts: &Counts,
) -> Result<Adopted> {
    let bytes = ShardBytes::open(place, tar, runtime)?;
    if !options.anew
        && let Some(index) = index_there(place, tar, grouping, bytes.bytes(), runtime)?
    {
        counts.add(u64::from(index.file_count()), bytes.bytes());
        let shard = shard_of(tar, index.header(), index.bytes());
        return Ok(Adopted { shard: Some(shard), kept: true, messages: Vec::new() });
    }
    let mut reading = Reading {
        name: bytes.describe(),
        builder: Builder::new(grouping, &options.work_dir),
        grouping,
        paths: HashSet::new(),
        keys: HashSet::new(),
        key: Vec::new(),
        skip: options.skip_errors,
        messages: Vec::new(),
    };
    let head = bytes.read(0..bytes.bytes().min(8))?;
    let read = match compressed_bytes(&head) {
        Some(what) => Err(compressed(&reading.name, what)),
        None => reading.all(&bytes, counts),
    };
    if let Err(e) = read {
        // A disk or store that fails is no fault of the tar.
        if !options.skip_errors || !is_of_the_tar(&e) {
            return Err(e);
        }
        if reading.builder.file_count() == 0 {
            reading.messages.push(format!("{e}; nothing of it is taken"));
            return Ok(Adopted { shard: None, kept: false, messages: reading.messages });
        }
        reading.messages.push(format!("{e}; the {} files before are taken", reading.builder.file_count()));
    }
    let sealed = reading.builder.seal(bytes.bytes()).map_err(|e| e.context(&reading.name))?;
    let name = index_path(tar);
    index::put(&sealed, place, &name, &options.work_dir, runtime)?;
    let shard = shard_of(tar, sealed.header(), sealed.bytes());
    Ok(Adopted { shard: Some(shard), kept: false, messages: reading.messages })
}

/// The index that is there, when it is whole and was made after the tar.
fn index_there(
    place: &Place,
    tar: &str,
    grouping: Grouping,
    tar_bytes: u64,
    runtime: &Handle,
) -> Result<Option<Index>> {
    let name = index_path(tar);
    let there = runtime.block_on(async {
        match place.head(&name).await {
            Ok(meta) => Ok(Some((meta, place.head(tar).await?))),
            Err(e) if e.kind() == Kind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    })?;
    let Some((index_meta, tar_meta)) = there else { return Ok(None) };
    // A store may tell of whole seconds only: then a tar of the same second may be newer.
    let newer = match place.folder() {
        Some(_) => index_meta.modified >= tar_meta.modified,
        None => index_meta.modified > tar_meta.modified,
    };
    if !newer {
        return Ok(None);
    }
    let index = match place.local_path(&name) {
        Some(path) => Index::open(&path),
        None => runtime.block_on(place.get(&name, 0..index_meta.size)).and_then(Index::from_bytes),
    };
    // A damaged one is made anew, and one that a mount could not use.
    let good = index.ok().filter(|index| {
        index.shard_bytes() == tar_bytes
            && index.framed_bytes().is_some()
            && index.grouping() == grouping
            && index.verify().is_ok()
    });
    Ok(good)
}

fn is_of_the_tar(e: &Error) -> bool {
    matches!(
        e.kind(),
        Kind::Corrupt | Kind::Unsupported | Kind::NameTooLong | Kind::Exists | Kind::FileTooLarge
    )
}

struct Reading {
    name: String,
    builder: Builder,
    grouping: Grouping,
    /// Of paths and of keys seen, as hashes of 128 bits.
    paths: HashSet<u128>,
    keys: HashSet<u128>,
    key: Vec<u8>,
    skip: bool,
    messages: Vec<String>,
}

impl Reading {
    /// All members, and the checksums of all bytes, whatever of them is taken.
    fn all(&mut self, bytes: &ShardBytes, counts: &Counts) -> Result<()> {
        let mut summing = Summing::new(bytes.sequential());
        let read = self.members(&mut summing, bytes.bytes(), counts);
        if read.as_ref().is_err_and(|e| !self.skip || !is_of_the_tar(e)) {
            return read;
        }
        let sums = summing.finish().map_err(|e| Error::io(format!("cannot read {}", self.name), e))?;
        self.builder.summed(&sums)?;
        read
    }

    fn members(&mut self, from: impl Read, tar_bytes: u64, counts: &Counts) -> Result<()> {
        let name = self.name.clone();
        let mut members = Members::new(BufReader::with_capacity(256 << 10, from), &name);
        let mut buffer = vec![0; 256 << 10];
        let mut before = 0;
        while let Some(member) = members.next_member()? {
            counts.add(0, members.at() - before);
            before = members.at();
            if !member.is_file() {
                if !member.path.is_empty() {
                    self.builder.push_other(&other_of(&member)).map_err(|e| e.context(&self.name))?;
                }
                continue;
            }
            let offset = members.at();
            if let Err(e) = self.accept(&member, members.header_at()) {
                if !self.skip {
                    return Err(e);
                }
                self.messages.push(format!("{e}; it is left out"));
                continue;
            }
            let mut crc = 0;
            loop {
                match members.read(&mut buffer)? {
                    0 => break,
                    n => {
                        crc = granary_core::crc32c_append(crc, &buffer[..n]);
                        counts.add(0, n as u64);
                        before += n as u64;
                    }
                }
            }
            let file = NewFile {
                path: &member.path,
                offset,
                length: member.size,
                crc32c: crc,
                mode: member.mode,
                mtime: member.mtime,
                uid: member.uid,
                gid: member.gid,
            };
            self.builder.push(&file).map_err(|e| e.context(&self.name))?;
            counts.add(1, 0);
        }
        counts.add(0, tar_bytes.saturating_sub(before));
        Ok(())
    }

    /// Refuses what is twice there.
    fn accept(&mut self, member: &Member, at: u64) -> Result<()> {
        let refused = |why: String| {
            Err(Error::new(
                Kind::Exists,
                format!(
                    "{} at byte {at}: {why}; make shards of it with `granary pack --from tar`, or leave it out with --skip-errors",
                    self.name
                ),
            ))
        };
        let shown = String::from_utf8_lossy;
        let key = self.grouping.split(&member.path).0;
        if self.paths.contains(&hash(&member.path)) {
            return refused(format!("the path {:?} is twice in it", shown(&member.path)));
        }
        if self.key != key && self.keys.contains(&hash(key)) {
            return refused(format!(
                "the sample {:?} is twice in it: its files are not side by side",
                shown(key)
            ));
        }
        self.paths.insert(hash(&member.path));
        self.keys.insert(hash(key));
        self.key.clear();
        self.key.extend_from_slice(key);
        Ok(())
    }
}

/// 128 bits: of 16 million paths no two are the same by chance.
fn hash(bytes: &[u8]) -> u128 {
    let half = |seed: u8| {
        let mut hasher = DefaultHasher::new();
        (seed, bytes).hash(&mut hasher);
        hasher.finish()
    };
    u128::from(half(0)) << 64 | u128::from(half(1))
}

fn other_of(member: &Member) -> NewOther<'_> {
    NewOther {
        path: &member.path,
        target: &member.target,
        kind: member.kind,
        mode: member.mode,
        mtime: member.mtime,
        uid: member.uid,
        gid: member.gid,
    }
}
