//! Bringing stage and metadata back together at start.
//!
//! 1. Segments, in order: each good record whose inode exists, whose sequence is above the inode's, and whose predecessor is
//!    known is applied; one commit for each inode and segment. A gap in an inode's chain ends it there: what comes back of a
//!    file is a prefix of what was done to it. What a power loss took of the log (its torn tail, or pages in the middle of what
//!    was not durable, as the newest record tells) is passed over from then on; what else is no good record is damage, and told.
//! 2. Whole stage files that are not clean are the content of their files, whatever the log says.
//!    Where other nodes change the namespace too, neither counts when another node changed the inode meanwhile: the chain of
//!    records must go on exactly where the inode's sequence is, and a whole stage file counts only if that is this node's. What
//!    was overtaken is kept aside for a person.
//! 3. Sparse stage files stay where extents name them. Clean copies stay where they are of the current version, and are verified
//!    afterwards (`tree/scrub.rs`).
//!
//! Everything is done again when it is interrupted: a record that was applied has its sequence in the inode.

mod replay;
mod segments;
mod stage_files;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use granary_core::{Error, Failpoint, Ino, Kind, Result};
use granary_meta::Attr;

use crate::tree::Shared;
use crate::util::blocking;

use replay::replay;
use segments::{adopt, promised, restore};
use stage_files::{find_stage_files, take_stage_files};

pub(crate) use stage_files::hold;
pub use watch::{RecoveryStep, RecoveryWatch};

/// Progress is logged this often at most.
const PROGRESS: Duration = Duration::from_secs(1);
/// Segments that are read at once, each held in memory while it is scanned.
const SEGMENTS_AT_ONCE: usize = 2;
/// Inodes that are asked for at once, where the metadata is on another machine.
const ATTRS_AT_ONCE: usize = 64;

/// Tells the watch, and once a second the log.
#[derive(Debug)]
struct Telling<'a> {
    shared: &'a Shared,
    watch: &'a RecoveryWatch,
    told: Duration,
    done: RecoveryStep,
}

impl Telling<'_> {
    fn add(&mut self, more: RecoveryStep) {
        let now = self.shared.clock.monotonic();
        self.watch.add(more, now);
        self.done.bytes += more.bytes;
        self.done.records += more.records;
        self.done.replayed += more.replayed;
        self.done.files += more.files;
        self.done.lost += more.lost;
        if now.saturating_sub(self.told) < PROGRESS {
            return;
        }
        self.told = now;
        let all = self.watch.sums();
        tracing::info!(
            ns = %self.shared.ns, bytes = all.bytes, of = all.bytes_total, records = all.records, replayed = all.replayed,
            files = all.files, left_s = all.left.as_secs(),
            "bringing back what is staged"
        );
    }
}

pub(crate) async fn recover(
    shared: &Arc<Shared>,
    mut segments: Vec<u64>,
    watch: &RecoveryWatch,
) -> Result<RecoveryStep> {
    let restored = restore(shared, &mut segments).await?;
    // Loading a file looks whether its bytes are there: so first everything is known that is there.
    for &id in &segments {
        shared.log.announce(id)?;
    }
    let begun = shared.clock.monotonic();
    let _running = watch.begin(segments.iter().map(|&id| shared.log.len(id)).sum(), begun);
    let mut telling = Telling { shared, watch, told: begun, done: RecoveryStep::default() };
    let staged = find_stage_files(shared).await?;
    let promised = promised(shared, &segments).await?;
    // The disk reads on while what was read is replayed.
    let adopted = futures::stream::iter(segments).map(|id| {
        let bytes = shared.log.len(id);
        async move { Ok::<_, Error>((id, bytes, adopt(shared, id, promised).await?)) }
    });
    let mut adopted = std::pin::pin!(adopted.buffered(SEGMENTS_AT_ONCE));
    while let Some((id, bytes, (scanned, lost))) = adopted.try_next().await? {
        let replayed = replay(shared, id, &scanned).await?;
        telling.add(RecoveryStep { bytes, lost, ..replayed });
    }
    if telling.done.lost > 0 {
        // Files loaded before the damage was found may name what is lost.
        for file in shared.table.all().into_iter().filter(|f| f.is_loaded()) {
            file.refresh().await?;
        }
    }
    take_stage_files(shared, staged, &mut telling).await?;
    shared.commit_all().await?;
    let done = telling.done;
    if done.replayed > 0 || done.files > 0 {
        tracing::info!(
            ns = %shared.ns, records = done.records, replayed = done.replayed, stage_files = done.files,
            bytes = done.bytes, "recovered what was not in the metadata"
        );
    }
    Failpoint::RecoverBeforeSync.reach();
    shared.log.sync(&shared.runtime).await?;
    shared.meta.keep_redo(shared.node, Vec::new(), &restored).await?;
    shared.meta.sync().await?;
    let task = shared.clone();
    blocking(&shared.runtime, move || task.log.mark_recovered()).await?;
    Failpoint::RecoverAfterSync.reach();
    Ok(done)
}

/// `None`: the inode was freed since it was looked up, by another node or because the service kept it for a moment only. Then
/// nothing of it is brought back.
fn unless_gone<T>(shared: &Shared, ino: Ino, outcome: Result<T>) -> Result<Option<T>> {
    match outcome {
        Err(e) if shared.many && e.kind() == Kind::Stale => {
            if let Some(file) = shared.table.remove(ino) {
                file.bury();
            }
            Ok(None)
        }
        outcome => outcome.map(Some),
    }
}

async fn attr_of(shared: &Shared, ino: Ino) -> Result<Option<Attr>> {
    match shared.meta.getattr(ino).await {
        Ok(attr) => Ok(Some(attr)),
        Err(e) if matches!(e.kind(), Kind::Stale | Kind::NotFound) => Ok(None),
        Err(e) => Err(e.context(format_args!("cannot recover inode {ino}"))),
    }
}
