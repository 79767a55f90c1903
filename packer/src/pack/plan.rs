//! What goes into which shard. Decided from names, sizes and options alone, before any file is opened, and so the same however many
//! threads pack, and after a kill.
//!
//! Entries come in their order and are written to one unnamed file, the plan; of each shard only a few numbers stay in memory. A shard
//! ends before the sample with which its tar would have more than the wanted bytes. A sample never spans two shards; one that is
//! larger than a shard is wanted has one of its own. Directories go into the shard of the sample that follows them, so that none has
//! nothing else as long as there are files.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use granary_core::{Error, Kind, Result};

use super::entry::{self, Content, Entry};
use super::sip::Fingerprint;
use super::sort::{In, Out, Sorted};
use crate::limits::{NAMES_BYTES_MAX, SHARD_BYTES_MAX, SHARD_FILES_MAX, SHARDS_MAX};
use crate::tar::{self, padded};
use crate::trailer::TRAILER_BYTES;

/// Bytes of the plan read at once.
const BUFFER_BYTES: usize = 256 << 10;
/// Bytes behind a shard's last payload.
pub const TAIL_BYTES: u64 = tar::END.len() as u64 + TRAILER_BYTES as u64;
/// An importer's own bytes and links count here too, so that no shard's index comes near its bounds.
const ENTRIES_MAX: u32 = SHARD_FILES_MAX / 2;

/// Directories that stay with the sample behind them; of longer rows the first may come to be at a shard's end.
const DIRECTORIES_LEADING_MAX: u32 = 1024;

/// What is done with a file that the data set has already, when nothing says that it is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It is an error.
    Refuse,
    /// The one that was there is deleted, the new one packed.
    Replace,
}

/// One shard of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardPlan {
    /// Where in the plan its entries begin.
    pub at: u64,
    pub entries: u32,
    /// Bytes of its tar, with end and trailer.
    pub bytes: u64,
    /// Bytes of its files.
    pub payload_bytes: u64,
}

/// What a pack will do.
#[derive(Debug)]
pub struct Plan {
    file: Arc<File>,
    pub shards: Vec<ShardPlan>,
    pub entries: u64,
    pub links: u64,
    pub directories: u64,
    pub payload_bytes: u64,
    /// Of all that decides what the shards hold.
    pub fingerprint: [u8; 16],
    /// Files that the data set has as they are: not packed again.
    pub unchanged: u64,
    /// Directories of the same kind.
    pub unchanged_directories: u64,
    /// Where the entries of both begin, behind those of the shards: of each, what the data set has and what the source has.
    unchanged_at: u64,
    /// Shard and file of what is replaced.
    pub replaced: Vec<(u32, u32)>,
}

/// How much of a tar an entry takes: its header, and what comes before and after.
pub fn tar_bytes(entry: &Entry, scratch: &mut Vec<u8>) -> Result<u64> {
    if entry.path.len() < 100 && entry.target().len() <= 100 {
        return Ok(tar::BLOCK_BYTES as u64 + padded(entry.length));
    }
    scratch.clear();
    encode_header(entry, scratch)?;
    Ok(scratch.len() as u64 + padded(entry.length))
}

/// Appends the entry's header as the tar has it. A directory's path ends with a slash there, as every tar's does.
///
/// Errors: as [`tar::encode`].
pub fn encode_header(entry: &Entry, out: &mut Vec<u8>) -> Result<()> {
    let path = match entry.is_directory() {
        true => Cow::Owned([&entry.path[..], b"/"].concat()),
        false => Cow::Borrowed(&entry.path[..]),
    };
    tar::encode(
        &tar::Entry {
            path: &path,
            target: entry.target(),
            kind: entry.kind(),
            size: entry.length,
            mode: u32::from(entry.mode),
            mtime: entry.mtime,
            uid: entry.uid,
            gid: entry.gid,
        },
        out,
    )
}

/// The shard that is being filled, and the sample at its end.
#[derive(Clone, Copy, Debug, Default)]
struct Filling {
    at: u64,
    entries: u32,
    bytes: u64,
    payload_bytes: u64,
    names_bytes: u64,
}

impl Filling {
    fn add(&mut self, entry: &Entry, bytes: u64) {
        self.entries += 1;
        self.bytes += bytes;
        self.payload_bytes += entry.length;
        self.names_bytes += entry.path.len() as u64;
    }

    /// What is behind the first `before` of it.
    fn since(&self, before: &Filling, at: u64) -> Filling {
        Filling {
            at,
            entries: self.entries - before.entries,
            bytes: self.bytes - before.bytes,
            payload_bytes: self.payload_bytes - before.payload_bytes,
            names_bytes: self.names_bytes - before.names_bytes,
        }
    }

    fn fits(&self, shard_bytes: u64) -> bool {
        self.bytes + TAIL_BYTES <= shard_bytes
            && self.entries <= ENTRIES_MAX
            && self.names_bytes <= NAMES_BYTES_MAX / 2
    }

    fn plan(&self) -> ShardPlan {
        let Filling { at, entries, bytes, payload_bytes, .. } = *self;
        ShardPlan { at, entries, bytes: bytes + TAIL_BYTES, payload_bytes }
    }
}

/// Makes plans; fed with entries in their order.
#[derive(Debug)]
struct Planner {
    out: Out,
    unchanged: Out,
    shard_bytes: u64,
    shards: Vec<ShardPlan>,
    filling: Filling,
    /// `filling` before the sample at its end.
    before: Filling,
    /// Where that sample begins in the plan.
    sample_at: u64,
    /// Whether it is no sample yet, only directories.
    only_directories: bool,
    key: Vec<u8>,
    fingerprint: Fingerprint,
    plan: Plan,
    scratch: Vec<u8>,
}

impl Planner {
    fn add(&mut self, record: &[u8], key: Vec<u8>, entry: &Entry) -> Result<()> {
        let led = self.filling.since(&self.before, self.sample_at).entries;
        let joins = self.only_directories && (1..DIRECTORIES_LEADING_MAX).contains(&led);
        if self.plan.entries == 0 || key != self.key && !joins {
            self.end_sample()?;
        }
        self.key = key;
        self.only_directories &= entry.is_directory();
        self.plan.entries += 1;
        self.plan.links += u64::from(entry.is_link());
        self.plan.directories += u64::from(entry.is_directory());
        self.plan.payload_bytes += entry.length;
        self.fingerprint.write_u64(record.len() as u64);
        self.fingerprint.write(record);
        let bytes = tar_bytes(entry, &mut self.scratch)?;
        self.filling.add(entry, bytes);
        let alone = self.filling.since(&self.before, self.sample_at);
        if alone.bytes + TAIL_BYTES > SHARD_BYTES_MAX || alone.entries > ENTRIES_MAX {
            return Err(Error::new(
                Kind::FileTooLarge,
                format!(
                    "the sample {:?} is larger than a shard can be (2 TiB, 8,388,608 files); split it, or choose \
                     another --by",
                    String::from_utf8_lossy(&self.key)
                ),
            ));
        }
        self.out.write(record)
    }

    /// The sample at the end is whole: if the shard is too large with it, it begins the next.
    fn end_sample(&mut self) -> Result<()> {
        if self.before.entries > 0 && !self.filling.fits(self.shard_bytes) {
            let alone = self.filling.since(&self.before, self.sample_at);
            let whole = self.before;
            self.end_shard(whole)?;
            self.filling = alone;
        }
        self.before = self.filling;
        self.only_directories = true;
        self.sample_at = self.out.position();
        Ok(())
    }

    fn end_shard(&mut self, whole: Filling) -> Result<()> {
        if self.shards.len() == SHARDS_MAX {
            return Err(Error::new(
                Kind::Invalid,
                "there would be more than 4,194,304 shards; make --shard-size larger",
            ));
        }
        self.shards.push(whole.plan());
        Ok(())
    }

    fn finish(mut self) -> Result<Plan> {
        self.end_sample()?;
        if self.filling.entries > 0 {
            self.end_shard(self.filling)?;
        }
        let Planner { mut out, unchanged, shards, fingerprint, mut plan, .. } = self;
        plan.unchanged_at = out.position();
        let mut kept = In::new(BufReader::with_capacity(BUFFER_BYTES, unchanged.finish()?));
        while let Some(record) = kept.next_record()? {
            out.write(record)?;
        }
        plan.fingerprint = fingerprint.finish();
        plan.file = Arc::new(out.finish()?);
        plan.shards = shards;
        Ok(plan)
    }
}

/// How a plan is made.
#[derive(Clone, Copy, Debug)]
pub struct PlanOptions {
    pub shard_bytes: u64,
    pub known: Known,
}

impl Plan {
    /// `known`: what the data set has, in the same order; of each entry the content is the range `{shard, file}`.
    ///
    /// Errors: `Exists` names a path that comes twice, or that the data set has with other content and is not to be replaced;
    /// `FileTooLarge` for a sample that no shard can hold; what the work directory's disk says.
    pub fn make(
        dir: &Path,
        mut sorted: Sorted,
        mut known: Option<Sorted>,
        options: PlanOptions,
    ) -> Result<Plan> {
        let plan = Plan {
            file: Arc::new(tempfile::tempfile_in(dir).map_err(|e| Error::io("cannot write the plan", e))?),
            shards: Vec::new(),
            entries: 0,
            links: 0,
            directories: 0,
            payload_bytes: 0,
            fingerprint: [0; 16],
            unchanged: 0,
            unchanged_directories: 0,
            unchanged_at: 0,
            replaced: Vec::new(),
        };
        let mut fingerprint = Fingerprint::new(1);
        fingerprint.write_u64(options.shard_bytes);
        let mut planner = Planner {
            out: Out::new(dir)?,
            unchanged: Out::new(dir)?,
            shard_bytes: options.shard_bytes,
            shards: Vec::new(),
            filling: Filling::default(),
            before: Filling::default(),
            sample_at: 0,
            only_directories: true,
            key: Vec::new(),
            fingerprint,
            plan,
            scratch: Vec::new(),
        };
        let mut last: Vec<u8> = Vec::new();
        let mut there = Vec::new();
        let mut there_ended = known.is_none();
        while let Some(record) = sorted.next_record()? {
            let (key, entry) = entry::decode(record)?;
            if entry.path == last && !last.is_empty() {
                // Several tars may have one directory. They come behind what else has their path, the newest first.
                if entry.is_directory() {
                    continue;
                }
                return Err(Error::new(
                    Kind::Exists,
                    format!(
                        "{:?} comes twice in the source; rename one of the two",
                        String::from_utf8_lossy(&entry.path)
                    ),
                ));
            }
            last.clone_from(&entry.path);
            // Goes on in what the data set has, up to this entry.
            while !there_ended && (there.is_empty() || entry::compare(&there, record).is_lt()) {
                match known.as_mut().map(Sorted::next_record).transpose()?.flatten() {
                    Some(next) => there = next.to_vec(),
                    None => there_ended = true,
                }
            }
            if !there_ended && entry::compare(&there, record).is_eq() {
                let (_, old) = entry::decode(&there)?;
                if entry.is_directory() && !old.is_directory() {
                    // What has the name in the data set hides it.
                    continue;
                }
                if old.is_directory() {
                    // Files that come and go change a directory's time: that alone is no reason to refuse it.
                    let of = |e: &Entry| (e.kind(), e.mtime, e.mode, e.uid, e.gid);
                    if of(&entry) == of(&old) || entry.is_directory() && options.known == Known::Refuse {
                        planner.plan.unchanged_directories += 1;
                        planner.unchanged.write(&there)?;
                        planner.unchanged.write(record)?;
                    } else {
                        planner.add(record, key, &entry)?;
                    }
                    continue;
                }
                if (old.length, old.mtime, old.is_link()) == (entry.length, entry.mtime, entry.is_link()) {
                    planner.plan.unchanged += 1;
                    planner.unchanged.write(&there)?;
                    planner.unchanged.write(record)?;
                    continue;
                }
                match (options.known, &old.content) {
                    (Known::Replace, Content::Range { container, offset }) => {
                        planner.plan.replaced.push((*container, *offset as u32));
                    }
                    _ => {
                        return Err(Error::new(
                            Kind::Exists,
                            format!(
                                "{:?} is in the data set with another size or time; --replace packs it anew",
                                String::from_utf8_lossy(&entry.path)
                            ),
                        ));
                    }
                }
            }
            planner.add(record, key, &entry)?;
        }
        planner.finish()
    }

    /// The entries of a shard, in its order.
    pub fn entries_of(&self, shard: &ShardPlan) -> Entries {
        self.entries_at(shard.at, u64::from(shard.entries))
    }

    /// The entries of unchanged files and directories, two of each: as the data set has it, its content the range `{shard, file}`, and as the source
    /// has it.
    pub fn unchanged_entries(&self) -> Entries {
        self.entries_at(self.unchanged_at, 2 * (self.unchanged + self.unchanged_directories))
    }

    fn entries_at(&self, at: u64, left: u64) -> Entries {
        let from = At { file: self.file.clone(), at };
        Entries { records: In::new(BufReader::with_capacity(BUFFER_BYTES, from)), left }
    }
}

/// Reads a shared file from a place of its own.
#[derive(Debug)]
struct At {
    file: Arc<File>,
    at: u64,
}

impl Read for At {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let got = self.file.read_at(buffer, self.at)?;
        self.at += got as u64;
        Ok(got)
    }
}

/// Entries of a plan, one after another.
#[derive(Debug)]
pub struct Entries {
    records: In<BufReader<At>>,
    left: u64,
}

impl Entries {
    /// The next; `None` at the end.
    ///
    /// Errors: what the work directory's disk says.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        match self.records.next_record()? {
            Some(record) => Ok(Some(entry::decode(record)?.1)),
            None => Err(Error::new(Kind::Bug, "the plan ends before its entries do")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::entry::tests::file;
    use super::super::entry::{Order, compare_all};
    use super::super::sort::{Sorter, merge};
    use super::*;
    use crate::key::Grouping;

    const ORDER: Order = Order { grouping: Grouping::Stem, seed: None };

    fn sorted(dir: &Path, entries: &[Entry], order: Order) -> Sorted {
        let mut sorter = Sorter::new(dir, compare_all, 1 << 20);
        for entry in entries {
            sorter.push(|out| order.encode(entry, out)).unwrap();
        }
        merge(vec![sorter]).unwrap()
    }

    fn plan(entries: &[Entry], known: &[Entry], shard_bytes: u64, what: Known) -> Result<Plan> {
        let dir = tempfile::tempdir().unwrap();
        let known = Some(sorted(dir.path(), known, ORDER)).filter(|_| !known.is_empty());
        let options = PlanOptions { shard_bytes, known: what };
        Plan::make(dir.path(), sorted(dir.path(), entries, ORDER), known, options)
    }

    fn paths(mut entries: Entries) -> Vec<String> {
        let mut out = Vec::new();
        while let Some(entry) = entries.next_entry().unwrap() {
            out.push(String::from_utf8(entry.path).unwrap());
        }
        out
    }

    proptest! {
        #[test]
        fn shards_hold_all_and_end_between_samples(
            samples in proptest::collection::vec(proptest::collection::vec(0..3_000u64, 1..4), 1..40),
            shard_bytes in 4_000..20_000u64,
        ) {
            let mut all = Vec::new();
            for (n, files) in samples.iter().enumerate() {
                all.extend(files.iter().enumerate().map(|(k, &len)| file(&format!("{n:03}.{k}"), len)));
            }
            let plan = plan(&all, &[], shard_bytes, Known::Refuse).unwrap();
            let shards: Vec<Vec<String>> = plan.shards.iter().map(|s| paths(plan.entries_of(s))).collect();
            prop_assert_eq!(shards.concat(), all.iter().map(|e| String::from_utf8(e.path.clone()).unwrap()).collect::<Vec<_>>());
            let mut keys = std::collections::HashSet::new();
            for (shard, paths) in plan.shards.iter().zip(&shards) {
                let of_shard: std::collections::HashSet<_> = paths.iter().map(|p| p[..3].to_owned()).collect();
                prop_assert!(shard.bytes <= shard_bytes || of_shard.len() == 1, "only a large sample is over");
                for key in of_shard {
                    prop_assert!(keys.insert(key), "a sample spans two shards");
                }
                let bytes: u64 = paths.iter().map(|p| {
                    let entry = all.iter().find(|e| e.path == p.as_bytes()).unwrap();
                    tar_bytes(entry, &mut Vec::new()).unwrap()
                }).sum();
                prop_assert_eq!(shard.bytes, bytes + TAIL_BYTES);
            }
        }
    }

    #[test]
    fn what_is_there_is_passed_over_replaced_or_refused() {
        let there = |path: &str, length, number| Entry {
            content: Content::Range { container: 3, offset: number },
            ..file(path, length)
        };
        let known = [there("a.jpg", 1, 0), there("b.jpg", 1, 1), there("c.jpg", 1, 2), there("e.jpg", 1, 3)];
        let all = [file("a.jpg", 1), file("b.jpg", 2), file("d.jpg", 1), file("e.jpg", 1), file("f.jpg", 9)];
        let e = plan(&all, &known, 1 << 20, Known::Refuse).unwrap_err();
        assert!(
            e.kind() == Kind::Exists
                && e.to_string().contains("\"b.jpg\"")
                && e.to_string().contains("--replace")
        );
        let plan = plan(&all, &known, 1 << 20, Known::Replace).unwrap();
        assert_eq!(plan.replaced, [(3, 1)]);
        assert_eq!(paths(plan.entries_of(&plan.shards[0])), ["b.jpg", "d.jpg", "f.jpg"]);
        assert_eq!(paths(plan.unchanged_entries()), ["a.jpg", "a.jpg", "e.jpg", "e.jpg"]);
    }

    fn directory(path: &str, mtime: i64) -> Entry {
        Entry { content: Content::Directory, mtime, ..file(path, 0) }
    }

    #[test]
    fn directories_lead_the_sample_behind_them_into_its_shard() {
        let all = [
            directory("a", 1),
            file("a/1.jpg", 3_000),
            directory("b", 1),
            directory("b/c", 1),
            file("b/c/1.cls", 2_000),
            file("b/c/1.jpg", 1_000),
            directory("d", 1),
        ];
        let plan = plan(&all, &[], 6_000, Known::Refuse).unwrap();
        let shards: Vec<Vec<String>> = plan.shards.iter().map(|s| paths(plan.entries_of(s))).collect();
        assert_eq!(shards, [vec!["a", "a/1.jpg"], vec!["b", "b/c", "b/c/1.cls", "b/c/1.jpg"], vec!["d"]]);
        assert_eq!((plan.entries, plan.directories), (7, 4));
        for (shard, paths) in plan.shards.iter().zip(&shards) {
            let entry = |path: &String| all.iter().find(|e| e.path == path.as_bytes()).unwrap();
            let bytes: u64 = paths.iter().map(|p| tar_bytes(entry(p), &mut Vec::new()).unwrap()).sum();
            assert_eq!(shard.bytes, bytes + TAIL_BYTES);
        }
    }

    #[test]
    fn a_directory_may_come_twice_and_is_no_reason_to_refuse() {
        let all = [directory("a", 5), file("b", 0), directory("a", 9), directory("b", 1), directory("c", 1)];
        let made = plan(&all, &[], 1 << 20, Known::Refuse).unwrap();
        let mut entries = made.entries_of(&made.shards[0]);
        let mut got = Vec::new();
        while let Some(e) = entries.next_entry().unwrap() {
            got.push((String::from_utf8(e.path.clone()).unwrap(), e.is_directory(), e.mtime));
        }
        let b = file("b", 0).mtime;
        let text = |path: &str, is, mtime| (path.to_owned(), is, mtime);
        assert_eq!(got, [text("a", true, 9), text("b", false, b), text("c", true, 1)]);

        let there = [directory("a", 1), directory("b", 1), directory("c", 1)];
        let kept = plan(&all, &there, 1 << 20, Known::Refuse).unwrap();
        assert_eq!(
            (kept.entries, kept.unchanged, kept.unchanged_directories),
            (1, 0, 2),
            "the file alone is new"
        );
        let replaced = plan(&all, &there, 1 << 20, Known::Replace).unwrap();
        assert_eq!(paths(replaced.entries_of(&replaced.shards[0])), ["a", "b"], "c is as it was");
    }

    #[test]
    fn a_path_that_comes_twice_is_named() {
        let e = plan(&[file("x/a.jpg", 1), file("x/a.jpg", 2)], &[], 1 << 20, Known::Refuse).unwrap_err();
        assert!(e.kind() == Kind::Exists && e.to_string().contains("x/a.jpg"), "{e}");
    }

    #[test]
    fn the_fingerprint_is_of_what_is_packed() {
        let make = |entries: &[Entry], bytes| plan(entries, &[], bytes, Known::Refuse).unwrap().fingerprint;
        let one = make(&[file("a", 1), file("b", 2)], 1 << 20);
        assert_eq!(one, make(&[file("b", 2), file("a", 1)], 1 << 20));
        assert_ne!(one, make(&[file("a", 1), file("b", 3)], 1 << 20));
        assert_ne!(one, make(&[file("a", 1), file("b", 2)], 2 << 20));
    }
}
