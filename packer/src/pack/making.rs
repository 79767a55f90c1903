//! A shard under way: what its segments gave, put back in order, becomes its index; then come its end, its trailer and its name.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use granary_core::{Error, Failpoint, Kind, Result};
use tokio::runtime::Handle;

use super::entry::Entry;
use super::output::Output;
use super::plan::ShardPlan;
use super::segment::{Done, Piece};
use crate::index::{self, Builder, NewFile, NewOther, Summed};
use crate::key::Grouping;
use crate::manifest::{Runs, Shard, index_path};
use crate::place::Place;
use crate::tar;
use crate::trailer::Trailer;

/// What every shard of a pack has in common.
#[derive(Debug)]
pub struct Common<'a> {
    pub place: &'a Place,
    pub runtime: &'a Handle,
    pub data_set: [u8; 16],
    pub grouping: Grouping,
    pub work_dir: &'a Path,
}

/// One shard under way.
#[derive(Debug)]
pub struct Making {
    /// Its place in the plan.
    pub number: u32,
    pub path: String,
    pub plan: ShardPlan,
    pub excluded: Arc<HashSet<u32>>,
    output: Output,
    /// Files and bytes that progress was told of.
    told: (AtomicU64, AtomicU64),
    /// Guards what the segments gave; held to add one's, which may write a part of the index into an unnamed file.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    builder: Option<Builder>,
    /// The first segment that is not in the index yet, and those after it that are made.
    next: u32,
    waiting: BTreeMap<u32, (Vec<Done>, Vec<Summed>)>,
    /// How many there are, known with the last.
    total: Option<u32>,
    /// The last: its number, where it begins, its bytes.
    tail: Option<(u32, u64, Vec<u8>)>,
    /// How far the index is in the tar.
    at: u64,
    /// Checksum of the open file's pieces so far.
    crc: u32,
    /// Entries whose bytes did not come.
    failed: Vec<(u32, Arc<Entry>, Error)>,
}

/// What a finished or given up shard is.
#[derive(Debug)]
pub enum Outcome {
    Made(Shard),
    /// It must be made again without these, whose bytes did not come.
    Failed(Vec<(u32, Arc<Entry>, Error)>),
}

/// Everything about a shard but the tar's bytes, when all of its segments are made.
#[derive(Debug)]
pub struct Ready {
    builder: Builder,
    tail: (u32, u64, Vec<u8>),
    failed: Vec<(u32, Arc<Entry>, Error)>,
}

impl Making {
    /// Errors: what the disk or the store says.
    pub fn begin(
        common: &Common<'_>,
        number: u32,
        path: String,
        plan: ShardPlan,
        excluded: Arc<HashSet<u32>>,
    ) -> Result<Making> {
        let output = Output::create(common.place, &path, plan.bytes, common.runtime)?;
        let state = State {
            builder: Some(Builder::new(common.grouping, common.work_dir)),
            next: 0,
            waiting: BTreeMap::new(),
            total: None,
            tail: None,
            at: 0,
            crc: 0,
            failed: Vec::new(),
        };
        Ok(Making {
            number,
            path,
            plan,
            excluded,
            output,
            told: Default::default(),
            state: Mutex::new(state),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first segment that is not done.
    pub fn oldest(&self) -> u32 {
        self.state().next
    }

    /// Writes a segment that is not the last.
    pub fn write(&self, number: u32, at: u64, buffer: &mut Vec<u8>, bytes: usize) -> Result<()> {
        self.output.write(number, at, buffer, bytes)?;
        Failpoint::PackAfterSegment.reach();
        Ok(())
    }

    /// What came of a segment, and the checksums of its bytes; of the last also its bytes. With the last of all that was missing comes what the shard is finished of.
    ///
    /// Errors: those of [`Builder::push`].
    pub fn done(
        &self,
        number: u32,
        (done, sums): (Vec<Done>, Vec<Summed>),
        failed: Vec<(Piece, Error)>,
        tail: Option<(u64, Vec<u8>)>,
    ) -> Result<Option<Ready>> {
        let mut state = self.state();
        for (piece, e) in failed {
            if state.failed.last().is_none_or(|(ordinal, ..)| *ordinal != piece.ordinal) {
                state.failed.push((piece.ordinal, piece.entry, e));
            }
        }
        if let Some((at, bytes)) = tail {
            state.total = Some(number + 1);
            state.tail = Some((number, at, bytes));
        }
        state.waiting.insert(number, (done, sums));
        let next = state.next;
        let mut at = next;
        while let Some((done, sums)) = state.waiting.remove(&at) {
            // With a file missing no index is made of it.
            if state.failed.is_empty() {
                for done in done {
                    state.index(done)?;
                }
                if let Some(builder) = &mut state.builder {
                    builder.summed(&sums)?;
                }
            }
            at += 1;
        }
        state.next = at;
        if state.total != Some(at) {
            return Ok(None);
        }
        match (state.builder.take(), state.tail.take()) {
            (Some(builder), Some(tail)) => {
                Ok(Some(Ready { builder, tail, failed: std::mem::take(&mut state.failed) }))
            }
            _ => Err(Error::new(Kind::Bug, "a shard was finished twice")),
        }
    }

    /// Gives the shard its name, then writes its index.
    ///
    /// Errors: what the disk or the store says; nothing half-written has a shard's name.
    pub fn finish(&self, common: &Common<'_>, ready: Ready) -> Result<Outcome> {
        let Ready { mut builder, tail: (number, at, mut tail), failed } = ready;
        if !failed.is_empty() {
            self.output.abort();
            return Ok(Outcome::Failed(failed));
        }
        tail.extend_from_slice(&tar::END);
        builder.bytes(&tar::END)?;
        let tar_bytes = at + tail.len() as u64;
        let bytes = tar_bytes + crate::trailer::TRAILER_BYTES as u64;
        let index = builder.seal(bytes)?;
        let header = index.header();
        let trailer = Trailer {
            data_set: common.data_set,
            name: self.path.clone(),
            number: self.number,
            files: header.files,
            samples: header.samples,
            payload_bytes: header.payload_bytes,
            tar_bytes,
            index_bytes: index.bytes(),
            index_crc32c: index.crc32c(),
        };
        tail.extend_from_slice(&trailer.encode()?);
        self.output.finish(number, at, tail)?;
        Failpoint::PackAfterShard.reach();
        index::put(&index, common.place, &index_path(&self.path), common.work_dir, common.runtime)?;
        Failpoint::PackAfterIndex.reach();
        Ok(Outcome::Made(Shard {
            path: self.path.clone(),
            bytes,
            files: trailer.files,
            samples: trailer.samples,
            index_bytes: trailer.index_bytes,
            index_crc32c: trailer.index_crc32c,
            dead_samples: Runs::default(),
            dead_files: Runs::default(),
        }))
    }

    /// Progress was told of so much of it.
    pub fn count(&self, files: u64, bytes: u64) {
        self.told.0.fetch_add(files, Ordering::Relaxed);
        self.told.1.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Of how much progress was told.
    pub fn counted(&self) -> (u64, u64) {
        (self.told.0.load(Ordering::Relaxed), self.told.1.load(Ordering::Relaxed))
    }

    /// It will not be finished.
    pub fn abort(&self) {
        self.output.abort();
    }
}

impl State {
    fn index(&mut self, done: Done) -> Result<()> {
        let Done { piece, crc } = done;
        let Some(builder) = &mut self.builder else {
            return Err(Error::new(Kind::Bug, "a shard's index is closed"));
        };
        let entry = &*piece.entry;
        self.crc = match piece.from {
            0 => crc,
            _ => granary_core::crc32c_combine(self.crc, crc, piece.len as usize),
        };
        self.at += piece.bytes();
        if !piece.is_last {
            return Ok(());
        }
        if !entry.is_file() {
            return builder.push_other(&NewOther {
                path: &entry.path,
                target: entry.target(),
                kind: entry.kind(),
                mode: u32::from(entry.mode),
                mtime: entry.mtime,
                uid: entry.uid,
                gid: entry.gid,
            });
        }
        let file = NewFile {
            path: &entry.path,
            offset: self.at - tar::padded(entry.length),
            length: entry.length,
            crc32c: self.crc,
            mode: u32::from(entry.mode),
            mtime: entry.mtime,
            uid: entry.uid,
            gid: entry.gid,
        };
        builder.push(&file).map(drop)
    }
}
