//! Makes a plan of entries, fed in their order.

use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

use granary_core::{Error, Kind, Result};

use super::filling::Filling;
use super::{BUFFER_BYTES, ENTRIES_MAX, Plan, ShardPlan, TAIL_BYTES, tar_bytes};
use crate::limits::{SHARD_BYTES_MAX, SHARDS_MAX};
use crate::pack::entry::Entry;
use crate::pack::sip::Fingerprint;
use crate::pack::sort::{In, Out};

/// Directories that stay with the sample behind them; of longer rows the first may come to be at a shard's end.
const DIRECTORIES_LEADING_MAX: u32 = 1024;

#[derive(Debug)]
pub(super) struct Planner {
    out: Out,
    /// What the data set has, and what the source has, of unchanged files and directories.
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
    pub(super) plan: Plan,
    scratch: Vec<u8>,
}

impl Planner {
    /// Writes below `dir`.
    pub(super) fn new(dir: &Path, shard_bytes: u64) -> Result<Planner> {
        let mut fingerprint = Fingerprint::new(1);
        fingerprint.write_u64(shard_bytes);
        Ok(Planner {
            out: Out::new(dir)?,
            unchanged: Out::new(dir)?,
            shard_bytes,
            shards: Vec::new(),
            filling: Filling::default(),
            before: Filling::default(),
            sample_at: 0,
            only_directories: true,
            key: Vec::new(),
            fingerprint,
            plan: Plan::empty(dir)?,
            scratch: Vec::new(),
        })
    }

    /// What the data set has as it is.
    pub(super) fn keep(&mut self, there: &[u8], record: &[u8], is_directory: bool) -> Result<()> {
        match is_directory {
            true => self.plan.unchanged_directories += 1,
            false => self.plan.unchanged += 1,
        }
        self.unchanged.write(there)?;
        self.unchanged.write(record)
    }

    pub(super) fn add(&mut self, record: &[u8], key: Vec<u8>, entry: &Entry) -> Result<()> {
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

    pub(super) fn finish(mut self) -> Result<Plan> {
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
