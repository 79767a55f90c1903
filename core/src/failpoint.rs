//! Named places where the process can be made to stop as by `kill -9`, so that a test may ask of each what a crash there leaves.
//!
//! `GRANARY_FAILPOINTS=drain_after_put=abort@3,log_after_sync=abort` kills the process with SIGKILL when it comes to the first
//! place for the third time, or to the second at all. Without the variable a place costs one relaxed load of a byte that
//! never changes, so that the program that is tested is the one that is shipped.
//!
//! A new one is a line in the table below, with what must hold if the process stops there, and `Failpoint::Name.reach()` at the
//! place. `tests/tests/kills` takes every one of a node in turn, and fails for one that its work never comes to;
//! `cli/tests/pack.rs` does so for those of `granary pack`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::{Error, Kind, Result};

macro_rules! failpoints {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Failpoint { $($(#[doc = $doc])+ $name),+ }

        impl Failpoint {
            pub const ALL: &[Failpoint] = &[$(Failpoint::$name),+];

            pub fn name(self) -> &'static str {
                match self { $(Failpoint::$name => $text),+ }
            }

            /// What must hold if the process stops here.
            pub fn promise(self) -> &'static str {
                match self { $(Failpoint::$name => concat!($($doc),+).trim_ascii()),+ }
            }
        }
    };
}

failpoints! {
    // Writing to the stage.
    /// Nothing was acknowledged: the record is not there, and what precedes it is.
    LogBeforeAppend = "log_before_append",
    /// The record is found again, acknowledged or not.
    LogAfterAppend = "log_after_append",
    /// A segment without records: removed, its number is not used again.
    LogAfterNewSegment = "log_after_new_segment",
    /// A sealed segment is replayed as any other.
    LogAfterSeal = "log_after_seal",
    /// The file is as it was before the write.
    StageBeforeWrite = "stage_before_write",
    /// Some or all of the write is in the stage file, which is the content; where it is sparse, no record names it yet.
    StageAfterWrite = "stage_after_write",
    /// The half-filled stage file in `tmp` is removed; the file's bytes are in the log.
    StageBeforePublish = "stage_before_publish",
    /// The stage file is the content; the log has the same bytes.
    StageAfterPublish = "stage_after_publish",
    /// The former clean copy counts as changed and is uploaded again.
    StageAfterSoil = "stage_after_soil",

    // Durability.
    /// What was appended is in the page cache of a machine that goes on: nothing is missing.
    LogBeforeSync = "log_before_sync",
    /// What fsync will not have answered is there all the same.
    LogAfterSync = "log_after_sync",
    /// The log's newest bytes are with the metadata in memory: a kill finds them in the log itself.
    LogHandedOver = "log_handed_over",
    /// As after the log's sync, for a stage file, whose entry in its folder may not be durable yet.
    StageAfterSync = "stage_after_sync",

    // Commit.
    /// The log has every record that the commit would have told of.
    CommitBefore = "commit_before",
    /// The metadata in memory is gone, and the log has the records still.
    CommitAfter = "commit_after",
    /// All operations since the last batch are gone, in order: no later one is there without an earlier one.
    EngineBeforeBatch = "engine_before_batch",
    /// The batch is there as a whole, whether its callers were answered or not.
    EngineAfterBatch = "engine_after_batch",
    /// The same, and it is durable.
    EngineAfterSync = "engine_after_sync",

    // Drain.
    /// Nothing left the node: it is tried again.
    DrainBeforePut = "drain_before_put",
    /// An object that nobody names; the bytes are in the stage, and are put again.
    DrainAfterPut = "drain_after_put",
    /// Extents name the stage or, if a batch went out, the object: both are there.
    DrainAfterRelocate = "drain_after_relocate",
    /// Extents name the object durably; log and stage file are there as well.
    DrainAfterDurable = "drain_after_durable",
    /// Of several segments that one pack took, some are gone: none is named any more.
    DrainAfterSegmentRemoved = "drain_after_segment_removed",
    /// A part of a large file's blocks is in the store, and its extents name them; the rest is in its stage file.
    LargeBetweenBlocks = "large_between_blocks",
    /// The stage file lies in `clean`, of the version that the metadata has; or, after a power loss, still in `files`.
    CleanAfterRename = "clean_after_rename",
    /// The sparse stage file of a stored file is gone: nothing names its ranges.
    SparseAfterRemove = "sparse_after_remove",
    /// A deleted file's stage file is there still; the metadata does not know the inode, durably.
    BuriedBeforeRemove = "buried_before_remove",
    /// It is gone, and no name can come back for it.
    BuriedAfterRemove = "buried_after_remove",

    // Compaction.
    /// Nothing was changed.
    CompactBeforePut = "compact_before_put",
    /// An object that nobody names; files name the old ones.
    CompactAfterPut = "compact_after_put",
    /// Each extent names the old object or the new one, as the last batch left it: both are there.
    CompactAfterMove = "compact_after_move",

    // Dead objects.
    /// Nobody refers to them, durably; they are listed as dead, and deleted later.
    DeadBeforeDelete = "dead_before_delete",
    /// They are gone and still listed as dead: deleted again, which is no error.
    DeadAfterDelete = "dead_after_delete",

    // Recovery, which is done again from the start.
    /// What the engine had of the stage log is written to the log, or a part of it.
    RecoverAfterRestore = "recover_after_restore",
    /// A bound of sequence numbers is reserved, nothing else.
    RecoverAfterNumbering = "recover_after_numbering",
    /// The segment's torn tail is cut off and what is left is durable.
    RecoverAfterAdopt = "recover_after_adopt",
    /// One inode's records are applied and committed in memory, its later ones, and other inodes, are not.
    RecoverAfterInode = "recover_after_inode",
    /// A stage file was taken for its file's content; others were not.
    RecoverAfterStageFile = "recover_after_stage_file",
    /// All is applied, and a part of it perhaps in the engine.
    RecoverBeforeSync = "recover_before_sync",
    /// All is durable, and the segments are there still.
    RecoverAfterSync = "recover_after_sync",

    // Start and stop.
    /// Every namespace with staged bytes is open, none is mounted.
    StartBeforeReady = "start_before_ready",
    /// Mounts are gone, and what was held back is in the stage only.
    StopBeforeFlush = "stop_before_flush",
    /// The stage is durable, the metadata perhaps not.
    StopAfterFlush = "stop_after_flush",

    // `granary pack`, which no node comes to: their names begin with `pack_`.
    /// Nothing was written.
    PackAfterPlan = "pack_after_plan",
    /// A part of a shard is in a temporary file, or in parts that nobody sees; it is made again.
    PackAfterSegment = "pack_after_segment",
    /// All of a shard is there, without its name; it is made again.
    PackBeforeShard = "pack_before_shard",
    /// The tar has its name and no index; it is made again.
    PackAfterShard = "pack_after_shard",
    /// The shard is finished: the next pack finds and keeps it.
    PackAfterIndex = "pack_after_index",
    /// All shards are finished, and no version names them.
    PackBeforeManifest = "pack_before_manifest",
    /// The version is there; the same pack again says so.
    PackAfterManifest = "pack_after_manifest",
    /// A part of the source is deleted; all of it is in the data set.
    PackAfterDelete = "pack_after_delete",
}

/// Whether any place is armed. Set before there are other threads.
static ARMED: AtomicBool = AtomicBool::new(false);
/// How often each place is passed until the process stops there; 0: always.
static LEFT: [AtomicU64; Failpoint::ALL.len()] = [const { AtomicU64::new(0) }; Failpoint::ALL.len()];

impl Failpoint {
    /// Whether a node may come here; otherwise only `granary pack` does.
    pub fn is_of_node(self) -> bool {
        !self.name().starts_with("pack_")
    }

    /// The process came here. Does not return if it is to stop here.
    #[inline]
    pub fn reach(self) {
        if ARMED.load(Ordering::Relaxed) {
            self.reached();
        }
    }

    #[cold]
    fn reached(self) {
        let left = &LEFT[self as usize];
        let before = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        if before == Ok(1) {
            // Nothing unwinds, nothing is flushed. Whoever waits for the process sees the signal.
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            std::process::abort(); // only if the signal could not be sent
        }
    }

    /// Arms the places that `text` names: `NAME=abort` or `NAME=abort@TIMES`, with commas between them. Before there are
    /// other threads. `Invalid` for what is not understood.
    pub fn arm(text: &str) -> Result<()> {
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let (point, times) = parse(word)?;
            LEFT[point as usize].store(times, Ordering::SeqCst);
            ARMED.store(true, Ordering::SeqCst);
            tracing::warn!(
                "the process will stop at the failpoint {}, time {times}, as a test wants it",
                point.name()
            );
        }
        Ok(())
    }
}

fn parse(word: &str) -> Result<(Failpoint, u64)> {
    let (name, action) = word.split_once('=').unwrap_or((word, ""));
    let Some(&point) = Failpoint::ALL.iter().find(|point| point.name() == name) else {
        return Err(Error::new(
            Kind::Invalid,
            format!("there is no failpoint {name:?}; core/src/failpoint.rs lists them"),
        ));
    };
    let (action, times) = action.split_once('@').unwrap_or((action, "1"));
    match times.parse() {
        Ok(times @ 1..) if action == "abort" => Ok((point, times)),
        _ => Err(Error::new(
            Kind::Invalid,
            format!("{word:?} is no failpoint's setting; write {name}=abort or {name}=abort@3"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_tell_places_apart_and_each_says_what_must_hold() {
        let names: HashSet<_> = Failpoint::ALL.iter().map(|p| p.name()).collect();
        assert_eq!(names.len(), Failpoint::ALL.len());
        for (i, point) in Failpoint::ALL.iter().enumerate() {
            assert_eq!(*point as usize, i);
            assert!(point.promise().ends_with('.'), "{}: {:?}", point.name(), point.promise());
        }
    }

    #[test]
    fn settings_are_understood_or_refused() {
        assert_eq!(parse("drain_after_put=abort").unwrap(), (Failpoint::DrainAfterPut, 1));
        assert_eq!(parse("drain_after_put=abort@17").unwrap(), (Failpoint::DrainAfterPut, 17));
        for bad in [
            "",
            "x=abort",
            "drain_after_put",
            "drain_after_put=stop",
            "drain_after_put=abort@0",
            "drain_after_put=abort@x",
        ] {
            assert_eq!(parse(bad).unwrap_err().kind(), Kind::Invalid, "{bad}");
        }
        // Nothing is armed by this, or the test would end here.
        Failpoint::arm(" , ").unwrap();
        Failpoint::ALL.iter().for_each(|p| p.reach());
    }
}
