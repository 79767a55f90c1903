//! One version of a data set: which shards it has, and which of their samples live.
//!
//! Versions lie below the data set's root as `manifests/<version, ten digits>.jsonl`. A version is never changed; appending,
//! deleting and replacing make the next one, and readers stay with the one they opened. The latest is the highest that is whole.
//! A shard that any version names is never written over.
//!
//! A version is JSON, one object a line, each line ended by a new line:
//!
//! ```text
//! {"granary":"data set","format":1,"version":2,"data_set":"<32 hexadecimal digits>","grouping":"stem","note":"delete","shards":1}
//! {"path":"shards/000000.tar","bytes":10752,"files":6,"samples":3,"index_bytes":400,"index_crc32c":"<8 hexadecimal digits>",
//!  "dead_samples":[[1,1]],"dead_files":[[2,3]]}                                                            (all on one line)
//! {"crc32c":"<8 hexadecimal digits>"}                                           of all bytes of the lines before it
//! ```
//!
//! | field | what |
//! |---|---|
//! | `format` | 1; a newer one is refused |
//! | `grouping` | `stem` or `directory`: what makes files a sample |
//! | `note` | what made this version, for people |
//! | `shards` | how many lines of shards follow |
//! | `path` | of the tar, relative to the root; its index lies beside it, with `.gidx` for `.tar` |
//! | `bytes`, `files`, `samples` | of the tar, and as its index counts them, dead ones too |
//! | `index_bytes`, `index_crc32c` | of the index; its checksum is that in its header |
//! | `dead_samples`, `dead_files` | what was deleted: runs of numbers in the shard, `[first, how many]`, in order; left out when empty |
//!
//! # What is deleted
//!
//! Removing a file rewrites no shard: the next version has its number among its shard's dead files, and when no file of a sample
//! is left, the sample among the dead samples. So a dead file may be of a living sample; all files of a dead sample are dead. The
//! numbers of what lives stay dense: a sample's global number is its rank among the living ones, in the order of shards.
//! [`Manifest::locate_sample`] finds it by two binary searches, over the shards' sums and over the shard's dead runs, and nothing
//! is kept for each sample.

mod encode;
mod runs;
mod store;
#[cfg(test)]
mod tests;

use granary_core::{Error, Kind, Result};

pub use runs::Runs;
pub use store::{FOLDER, key, latest, read, versions, write};

use crate::key::Grouping;
use crate::limits::SHARDS_MAX;

/// The newest format this program reads, and the one it writes.
pub const FORMAT: u32 = 1;

/// A shard of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Of the tar, relative to the data set's root.
    pub path: String,
    pub bytes: u64,
    /// Files and samples in the shard, dead ones too: the numbers that its index has.
    pub files: u32,
    pub samples: u32,
    pub index_bytes: u64,
    pub index_crc32c: u32,
    pub dead_samples: Runs,
    /// Also those of dead samples.
    pub dead_files: Runs,
}

impl Shard {
    /// Where its index is, relative to the root.
    pub fn index_path(&self) -> String {
        index_path(&self.path)
    }

    pub fn live_samples(&self) -> u32 {
        self.samples - self.dead_samples.count()
    }

    pub fn live_files(&self) -> u32 {
        self.files - self.dead_files.count()
    }

    /// Errors: `Corrupt` or `Invalid` would be too late when it is used: says why it cannot be.
    fn check(&self) -> Result<(), &'static str> {
        granary_store::key::check_key(&self.path).map_err(|_| "its path cannot be")?;
        granary_store::key::check_key(&self.index_path()).map_err(|_| "its path cannot be")?;
        if self.samples > self.files || (self.samples == 0) != (self.files == 0) {
            return Err("it has more samples than files");
        }
        if self.dead_samples.end() > self.samples || self.dead_files.end() > self.files {
            return Err("what it has deleted is not in it");
        }
        if self.live_samples() > self.live_files() || (self.live_samples() == 0) != (self.live_files() == 0) {
            return Err("it has more living samples than files");
        }
        Ok(())
    }
}

/// Where the index of a tar is.
pub fn index_path(tar: &str) -> String {
    format!("{}.gidx", tar.strip_suffix(".tar").unwrap_or(tar))
}

/// One version of a data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    version: u64,
    data_set: [u8; 16],
    grouping: Grouping,
    note: String,
    shards: Vec<Shard>,
    /// Living samples before each shard, and of all.
    before: Vec<u64>,
}

impl Manifest {
    /// Errors: `Invalid` names a shard that cannot be, or is twice there.
    pub fn new(
        version: u64,
        data_set: [u8; 16],
        grouping: Grouping,
        note: &str,
        shards: Vec<Shard>,
    ) -> Result<Manifest> {
        let invalid = |why: String| Error::new(Kind::Invalid, format!("version {version} cannot be: {why}"));
        if version == 0 || version > store::VERSION_MAX {
            return Err(invalid("versions go from 1 to 9,999,999,999".to_owned()));
        }
        if shards.len() > SHARDS_MAX {
            return Err(invalid(format!("{} shards are too many; make them larger", shards.len())));
        }
        let mut names = std::collections::HashSet::with_capacity(shards.len());
        let mut before = Vec::with_capacity(shards.len() + 1);
        let mut sum = 0;
        for shard in &shards {
            shard.check().map_err(|why| invalid(format!("shard {}: {why}", shard.path)))?;
            if !names.insert(index_path(&shard.path)) {
                return Err(invalid(format!("shard {} is twice there", shard.path)));
            }
            before.push(sum);
            sum += u64::from(shard.live_samples());
        }
        before.push(sum);
        Ok(Manifest { version, data_set, grouping, note: note.to_owned(), shards, before })
    }

    /// The version after this one, of the same data set, with other shards.
    ///
    /// Errors: as [`Manifest::new`].
    pub fn next(&self, note: &str, shards: Vec<Shard>) -> Result<Manifest> {
        Manifest::new(self.version + 1, self.data_set, self.grouping, note, shards)
    }

    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn data_set(&self) -> [u8; 16] {
        self.data_set
    }

    pub fn grouping(&self) -> Grouping {
        self.grouping
    }

    /// What made this version.
    pub fn note(&self) -> &str {
        &self.note
    }

    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// Living samples.
    pub fn sample_count(&self) -> u64 {
        self.before.last().copied().unwrap_or(0)
    }

    /// Living files.
    pub fn file_count(&self) -> u64 {
        self.shards.iter().map(|s| u64::from(s.live_files())).sum()
    }

    /// Bytes of all shards.
    pub fn bytes(&self) -> u64 {
        self.shards.iter().map(|s| s.bytes).sum()
    }

    /// Living samples before a shard; of all when it is the number of shards.
    pub fn samples_before(&self, shard: u32) -> Option<u64> {
        self.before.get(shard as usize).copied()
    }

    /// Shard, and number in the shard's index, of the living sample with this global number. `None` when there is none.
    pub fn locate_sample(&self, sample: u64) -> Option<(u32, u32)> {
        if sample >= self.sample_count() {
            return None;
        }
        // The last shard that begins at or before it; empty ones begin where the next does.
        let shard = self.before.partition_point(|&before| before <= sample) - 1;
        let rank = (sample - self.before[shard]) as u32;
        Some((shard as u32, self.shards[shard].dead_samples.nth_absent(rank)))
    }

    /// The global number of a sample of a shard; `None` when it is dead or not there.
    pub fn sample_number(&self, shard: u32, sample: u32) -> Option<u64> {
        let of = self.shards.get(shard as usize).filter(|s| sample < s.samples)?;
        let rank = of.dead_samples.absent_before(sample);
        (!of.dead_samples.contains(sample)).then(|| self.before[shard as usize] + u64::from(rank))
    }

    /// Tells two data sets apart, and two versions with different content; the same for equal content. Not cryptographic: FNV-1a,
    /// 64 bits (<http://www.isthe.com/chongo/tech/comp/fnv/>), over ids, paths, counts, index checksums and what is dead.
    pub fn digest(&self) -> u64 {
        let digest = fnv(FNV_BASIS, &self.data_set);
        digest_of(fnv(digest, &[self.grouping.code()]), &self.shards)
    }
}

/// An id for a data set of these shards: the same for the same shards, so that the same work gives the same bytes.
pub fn id_of(shards: &[Shard]) -> [u8; 16] {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&digest_of(FNV_BASIS, shards).to_be_bytes());
    id[8..].copy_from_slice(&digest_of(fnv(FNV_BASIS, b"data set"), shards).to_be_bytes());
    id
}

const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;

fn fnv(digest: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(digest, |digest, &byte| (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn digest_of(mut digest: u64, shards: &[Shard]) -> u64 {
    let mut add = |bytes: &[u8]| digest = fnv(digest, bytes);
    for shard in shards {
        add(&(shard.path.len() as u32).to_le_bytes());
        add(shard.path.as_bytes());
        for n in [shard.files, shard.samples, shard.index_crc32c] {
            add(&n.to_le_bytes());
        }
        for runs in [&shard.dead_samples, &shard.dead_files] {
            add(&(runs.runs().len() as u32).to_le_bytes());
            for &(first, count) in runs.runs() {
                add(&first.to_le_bytes());
                add(&count.to_le_bytes());
            }
        }
    }
    digest
}
