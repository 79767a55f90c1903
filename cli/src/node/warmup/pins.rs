//! The trees that stay on this node: `CACHE/pins.json`.
//!
//! ```json
//! {"format": 1, "trees": [{"namespace": "dataset/asr", "ino": 17, "path": "/mnt/asr/train"}]}
//! ```
//!
//! | field | meaning |
//! |---|---|
//! | `format` | 1 |
//! | `namespace` | its name |
//! | `ino` | the directory's or file's inode number, which is never used twice: a tree that is renamed stays pinned |
//! | `path` | as it was named when it was pinned, for people |
//!
//! The list is written before anything is pinned, so that a crash forgets nothing. Which chunks that means is looked up when the
//! namespace is open, and again every five minutes: files come and go, and compaction moves their bytes.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use granary_cache::prefetch::pinned::PinnedChunks;
use granary_core::{Clock, Ino, Kind, NamespaceName};
use granary_fuse::vfs::rights::Rights;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::job::{Ground, Job};
use super::walk::Target;
use crate::exit::{Failure, Outcome};
use crate::node::peer::Peer;
use crate::node::table::Table;
use crate::wire::{PinStatus, WarmWork};

const FORMAT: u32 = 1;
/// Trees pinned at most.
const TREES_MAX: usize = 1000;
/// How often a tree's chunks are looked up again, and how often it is looked whether one is due.
const PERIOD: Duration = Duration::from_secs(300);
const LOOK: Duration = Duration::from_secs(5);

/// One entry of the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinnedTree {
    pub namespace: String,
    pub ino: u64,
    pub path: String,
}

impl PinnedTree {
    fn is_same(&self, other: &PinnedTree) -> bool {
        (&self.namespace, self.ino) == (&other.namespace, other.ino)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    format: u32,
    trees: Vec<PinnedTree>,
}

#[derive(Debug)]
struct Pin {
    tree: PinnedTree,
    chunks: Arc<PinnedChunks>,
    /// When its chunks were looked up.
    done: Option<Duration>,
    error: Option<String>,
}

/// The list, and what is pinned for it.
#[derive(Debug)]
pub struct Pins {
    path: PathBuf,
    /// Guards the list and its file; the file is written under it, which is rare and short.
    pins: Mutex<Vec<Pin>>,
    clock: Arc<dyn Clock>,
}

impl Pins {
    /// Reads the list, and keeps what is on it until `stop`.
    pub fn open(
        cache: &Path,
        table: Arc<Table>,
        clock: Arc<dyn Clock>,
        stop: &CancellationToken,
    ) -> Outcome<Arc<Pins>> {
        let path = cache.join("pins.json");
        let pin = |tree| Pin { tree, chunks: Arc::default(), done: None, error: None };
        let list = read(&path)?.into_iter().map(pin).collect();
        let pins = Arc::new(Pins { path, pins: Mutex::new(list), clock });
        let (keeping, stop) = (pins.clone(), stop.clone());
        tokio::spawn(async move { stop.run_until_cancelled(keeping.keep(table, &stop)).await });
        Ok(pins)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Pin>> {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a tree on the list; the chunks that are pinned for it, as its job pins them.
    pub fn add(&self, tree: PinnedTree) -> Outcome<Arc<PinnedChunks>> {
        let mut pins = self.lock();
        let now = self.clock.monotonic();
        if let Some(pin) = pins.iter_mut().find(|pin| pin.tree.is_same(&tree)) {
            pin.done = Some(now);
            return Ok(pin.chunks.clone());
        }
        if pins.len() >= TREES_MAX {
            return Err(Failure::of_kind(
                Kind::NoSpace,
                format!("{TREES_MAX} trees are pinned on this node; unpin one, or pin what is above them"),
            ));
        }
        let chunks = Arc::new(PinnedChunks::default());
        pins.push(Pin { tree, chunks: chunks.clone(), done: Some(now), error: None });
        if let Err(failure) = self.write(&pins) {
            pins.pop();
            return Err(failure);
        }
        Ok(chunks)
    }

    /// Takes it off the list; what is to be let go.
    pub fn remove(&self, tree: &PinnedTree) -> Outcome<Arc<PinnedChunks>> {
        let mut pins = self.lock();
        let Some(at) = pins.iter().position(|pin| pin.tree.is_same(tree)) else {
            return Err(Failure::of_kind(
                Kind::NotFound,
                format!("{} is not pinned by itself; `granary status` shows what is", tree.path),
            ));
        };
        let pin = pins.remove(at);
        if let Err(failure) = self.write(&pins) {
            pins.insert(at, pin);
            return Err(failure);
        }
        Ok(pin.chunks)
    }

    /// Those that the peer may see.
    pub fn list(&self, peer: &Peer) -> Vec<PinStatus> {
        let all: Vec<_> =
            self.lock().iter().map(|p| (p.tree.clone(), p.chunks.bytes(), p.error.clone())).collect();
        let may = |name: &str| name.parse().is_ok_and(|name| peer.may(&name));
        let visible = all.into_iter().filter(|(tree, ..)| may(&tree.namespace));
        visible
            .map(|(tree, bytes, error)| PinStatus {
                namespace: tree.namespace,
                path: tree.path,
                bytes,
                error,
            })
            .collect()
    }

    async fn keep(&self, table: Arc<Table>, stop: &CancellationToken) {
        loop {
            tokio::time::sleep(LOOK).await;
            let now = self.clock.monotonic();
            let is_due = |pin: &&Pin| pin.done.is_none_or(|done| now.saturating_sub(done) >= PERIOD);
            let due: Vec<PinnedTree> =
                self.lock().iter().filter(is_due).map(|pin| pin.tree.clone()).collect();
            for tree in due {
                self.look_up(&table, tree, stop).await;
            }
        }
    }

    /// Pins what the tree has now, then lets go of what it had.
    async fn look_up(&self, table: &Table, wanted: PinnedTree, stop: &CancellationToken) {
        let name = wanted.namespace.parse::<NamespaceName>();
        let found = name.ok().and_then(|name| table.tree(&name).zip(table.meta(&name)));
        let Some((tree, meta)) = found else {
            return; // not open: nobody reads it here
        };
        let now = self.clock.monotonic();
        let pinned = Arc::new(PinnedChunks::default());
        let error = match meta.getattr(Ino(wanted.ino)).await {
            Ok(top) => {
                let (name, path) = (wanted.namespace.clone(), wanted.path.clone().into());
                let job = Job::new(0, 0, stop.child_token(), name, path, WarmWork::Pin, now);
                let ground = Ground {
                    tree: tree.clone(),
                    meta,
                    rights: Rights::all(),
                    targets: vec![Target::Known(top)],
                    pinned: pinned.clone(),
                    clock: self.clock.clone(),
                };
                job.run(ground).await.failure.map(|failure| failure.message)
            }
            Err(e) => Some(e.to_string()),
        };
        let old = {
            let mut pins = self.lock();
            match pins.iter_mut().find(|pin| pin.tree.is_same(&wanted)) {
                Some(pin) => {
                    (pin.done, pin.error) = (Some(now), error);
                    std::mem::replace(&mut pin.chunks, pinned)
                }
                None => pinned, // unpinned meanwhile
            }
        };
        tree.unpin(&old);
    }

    fn write(&self, pins: &[Pin]) -> Outcome<()> {
        let written = Written { format: FORMAT, trees: pins.iter().map(|pin| pin.tree.clone()).collect() };
        let cannot = |e: &std::io::Error| Failure::io(format!("cannot write {}", self.path.display()), e);
        let text = serde_json::to_vec(&written).map_err(|e| cannot(&e.into()))?;
        let new = self.path.with_extension("json.new");
        let mut file = File::create(&new).map_err(|e| cannot(&e))?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(|e| cannot(&e))?;
        std::fs::rename(&new, &self.path).map_err(|e| cannot(&e))?;
        if let Some(dir) = self.path.parent() {
            File::open(dir).and_then(|dir| dir.sync_all()).map_err(|e| cannot(&e))?;
        }
        Ok(())
    }
}

fn read(path: &Path) -> Outcome<Vec<PinnedTree>> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Failure::io(format!("cannot read {}", path.display()), &e)),
    };
    match serde_json::from_slice::<Written>(&text) {
        Ok(written) if written.format == FORMAT => Ok(written.trees),
        Ok(written) => Err(Failure::of_kind(
            Kind::Unsupported,
            format!(
                "{} has format version {}; use a newer granary, or remove it",
                path.display(),
                written.format
            ),
        )),
        Err(e) => Err(Failure::of_kind(
            Kind::Corrupt,
            format!("{} is damaged ({e}); remove it, and pin your trees again", path.display()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(name: &str, ino: u64) -> PinnedTree {
        PinnedTree { namespace: name.into(), ino, path: format!("/mnt/{ino}") }
    }

    fn pins(cache: &Path) -> Outcome<Arc<Pins>> {
        let clock = Arc::new(granary_core::TestClock::default());
        Pins::open(cache, Arc::default(), clock, &CancellationToken::new())
    }

    #[tokio::test]
    async fn the_list_outlives_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let one = pins(dir.path()).unwrap();
        one.add(tree("dataset/a", 5)).unwrap();
        one.add(tree("dataset/b", 5)).unwrap();
        one.add(PinnedTree { path: "/renamed".into(), ..tree("dataset/a", 5) }).unwrap();
        let two = pins(dir.path()).unwrap();
        let peer = Peer::new(0, 0, vec![]);
        let paths = |pins: &Pins| pins.list(&peer).into_iter().map(|p| p.namespace).collect::<Vec<_>>();
        assert_eq!(paths(&two), ["dataset/a", "dataset/b"]);
        two.remove(&tree("dataset/a", 5)).unwrap();
        assert!(two.remove(&tree("dataset/a", 5)).unwrap_err().is(Kind::NotFound));
        assert_eq!(paths(&pins(dir.path()).unwrap()), ["dataset/b"]);
    }

    #[tokio::test]
    async fn a_damaged_or_newer_list_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("pins.json"), r#"{"format": 2, "trees": []}"#).unwrap();
        assert!(pins(dir.path()).unwrap_err().is(Kind::Unsupported));
        std::fs::write(dir.path().join("pins.json"), r#"{"format": 1, "trees": [{"#).unwrap();
        assert!(pins(dir.path()).unwrap_err().is(Kind::Corrupt));
    }
}
