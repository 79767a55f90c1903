//! Several trees on one namespace, as nodes of one cluster.

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use granary_core::limits::Limits;
use granary_core::{ByteBudget, EntryName, Ino, Kind, NamespaceId, NodeId, ObjectId, Result, TestClock};
use granary_meta::engine::memory::MemoryEngine;
use granary_meta::lease::{Holder, LeaseKind, Lost, Scope};
use granary_meta::local::Volume;
use granary_meta::types::{Durability, FileType, NewInode, NewNamespace, VolumeInfo};
use granary_meta::{Attr, Extent, LiveObject, Metadata, NamespaceChange, Place, PolicyChange};
use granary_store::memory::MemoryStore;
use granary_store::{FaultStore, Operation};
use proptest::prelude::*;
use tempfile::TempDir;
use tokio::sync::Semaphore;

use super::leases::{Client, Service};
use super::world::{limits, pattern};
use crate::drain::compact::{rewrite, run_once};
use crate::drain::dead::delete_dead;
use crate::peer::Peers;
use crate::{File, NoPages, PathHint, ReadCache, Tree, TreeParts};

/// What a mount does with recalls, without a kernel.
struct Keeper(Weak<Tree>);

#[async_trait]
impl Holder for Keeper {
    async fn recall(&self, scope: Scope, wanted: LeaseKind) {
        if let (Scope::Inode(ino), Some(tree)) = (scope, self.0.upgrade()) {
            tree.recall(ino, wanted, &NoPages).await;
        }
    }

    async fn lost(&self, why: Lost) {
        if let Some(tree) = self.0.upgrade() {
            tree.lost(why).await;
        }
    }
}

type Trees = Arc<Mutex<Vec<Option<Arc<Tree>>>>>;

struct Neighbours(Trees);

#[async_trait]
impl Peers for Neighbours {
    async fn read(&self, _: NamespaceId, ino: Ino, part: &Extent, whole: &Extent) -> Result<Option<Bytes>> {
        let (Place::Log { node, .. } | Place::StageFile { node }) = part.place else { return Ok(None) };
        let tree = self.0.lock().unwrap()[node.0 as usize - 1].clone();
        match tree {
            Some(tree) => tree.staged(ino, part, whole).await,
            None => granary_core::error::fail(Kind::Unavailable, "the node is down"),
        }
    }
}

pub struct Nodes {
    dir: TempDir,
    limits: Limits,
    clock: Arc<TestClock>,
    store: Arc<FaultStore>,
    volume: Arc<Volume>,
    service: Arc<Service>,
    pub sessions: Vec<Arc<Client>>,
    trees: Trees,
    starts: u64,
}

impl Nodes {
    pub async fn new(count: usize) -> Nodes {
        let (clock, limits) = (Arc::new(TestClock::default()), limits());
        let engine = MemoryEngine::new();
        let info = VolumeInfo { uuid: "0".repeat(32), store_url: "memory:".into(), created_unix_ms: 1 };
        Volume::init(&*engine, &info).unwrap();
        let volume = Volume::open(engine, clock.clone(), &limits).unwrap();
        let new = NewNamespace {
            name: "group/a".parse().unwrap(),
            uid: 1,
            gid: 1,
            mode: 0o755,
            bytes_max: 0,
            inodes_max: 0,
            durability: Durability::Local,
            trash_ms: 0,
            packed: None,
        };
        let id = volume.create_namespace(new).unwrap().id;
        let runtime = tokio::runtime::Handle::current();
        let service = Service::new(volume.namespace_by_id(id).unwrap(), runtime);
        let mut nodes = Nodes {
            dir: tempfile::tempdir().unwrap(),
            limits,
            store: Arc::new(FaultStore::new(Arc::new(MemoryStore::new(clock.clone())), 1)),
            clock,
            volume,
            sessions: (0..count).map(|_| service.session()).collect(),
            service,
            trees: Arc::new(Mutex::new(vec![None; count])),
            starts: 0,
        };
        for node in 0..count {
            nodes.start(node).await;
        }
        nodes
    }

    pub fn tree(&self, node: usize) -> Arc<Tree> {
        self.trees.lock().unwrap()[node].clone().unwrap()
    }

    async fn start(&mut self, node: usize) {
        self.starts += 1;
        let base = self.dir.path().join(format!("node{node}"));
        let memory = ByteBudget::new(self.limits.memory_bytes_max);
        let cache = base.join(format!("cache{}", self.starts));
        let reads =
            ReadCache::open(&cache, &self.limits, self.store.clone(), self.clock.clone(), memory.clone())
                .unwrap();
        let mut next = u128::from(self.starts) << 64;
        let parts = TreeParts {
            stage_dir: base.join("stage"),
            node: NodeId(node as u64 + 1),
            limits: self.limits.clone(),
            meta: self.sessions[node].clone(),
            store: self.store.clone(),
            reads,
            clock: self.clock.clone(),
            random: Box::new(move || {
                next += 1;
                next
            }),
            memory,
            runtime: tokio::runtime::Handle::current(),
        };
        let tree = Tree::open(parts).await.unwrap();
        tree.set_peers(Arc::new(Neighbours(self.trees.clone())));
        self.sessions[node].set_holder(Arc::new(Keeper(Arc::downgrade(&tree))));
        self.trees.lock().unwrap()[node] = Some(tree);
    }

    /// The node's process is gone, its disk stays; the service ended its session.
    async fn kill(&mut self, node: usize) {
        let tree = self.trees.lock().unwrap()[node].take().unwrap();
        tree.stop().await;
        drop(tree);
        self.sessions[node] = self.service.replace(&self.sessions[node]);
    }

    pub async fn create(&self, node: usize, name: &str) -> Arc<File> {
        let entry = EntryName::new(name.as_bytes()).unwrap();
        let attr = self.sessions[node].create(Ino::ROOT, entry, new_file(), true).await.unwrap();
        let hint = PathHint { dir: Ino::ROOT, name: name.as_bytes().to_vec() };
        self.tree(node).created(&attr, hint, false).unwrap()
    }

    async fn attr(&self, node: usize, name: &str) -> Attr {
        let entry = EntryName::new(name.as_bytes()).unwrap();
        let mut attr = self.sessions[node].lookup(Ino::ROOT, entry).await.unwrap();
        self.tree(node).overlay(&mut attr);
        attr
    }

    pub async fn open(&self, node: usize, name: &str) -> Arc<File> {
        let attr = self.attr(node, name).await;
        self.tree(node).file(&attr, None).await.unwrap()
    }

    pub async fn content(&self, node: usize, name: &str) -> Vec<u8> {
        let file = self.open(node, name).await;
        let bytes = file.read(0, 1 << 30).await.unwrap().to_vec();
        self.tree(node).close(file).await.unwrap();
        bytes
    }

    fn aside(&self, node: usize) -> Vec<Vec<u8>> {
        let dir = self.dir.path().join(format!("node{node}/stage/aside"));
        let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
        entries.map(|e| std::fs::read(e.unwrap().path()).unwrap()).collect()
    }

    /// Requests for objects so far.
    pub fn gets(&self) -> usize {
        self.store.calls(Operation::Get)
    }

    pub fn set_policy(&self, policy: PolicyChange) {
        let change = NamespaceChange { policy, ..NamespaceChange::default() };
        self.volume.set_namespace(&"group/a".parse().unwrap(), change).unwrap();
    }

    pub async fn end(&self) {
        let trees: Vec<_> = self.trees.lock().unwrap().iter().flatten().cloned().collect();
        for tree in trees {
            tree.shutdown().await.unwrap();
        }
        let problems = self.volume.check(&"group/a".parse().unwrap()).unwrap();
        assert!(problems.is_empty(), "{problems:?}");
    }
}

/// A recall that found no file to tell, and is not answered yet: for the moment in which a mount drops the kernel's pages.
struct Underway {
    came: Semaphore,
    go_on: Semaphore,
}

#[async_trait]
impl Holder for Underway {
    async fn recall(&self, _scope: Scope, _wanted: LeaseKind) {
        self.came.add_permits(1);
        self.go_on.acquire().await.unwrap().forget();
    }

    async fn lost(&self, _why: Lost) {}
}

/// The file is loaded without a lease, because its lease is being recalled; the lease that comes later is of a newer content.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_opened_amid_a_recall_does_not_stay_as_it_was() {
    let nodes = Nodes::new(2).await;
    let writer = nodes.create(0, "f").await;
    writer.write(0, b"old", false).await.unwrap();
    let attr = nodes.attr(1, "f").await; // and the read lease
    let underway = Arc::new(Underway { came: Semaphore::new(0), go_on: Semaphore::new(0) });
    nodes.sessions[1].set_holder(underway.clone());
    let writing = tokio::spawn({
        let writer = writer.clone();
        async move { writer.write(0, b"new", false).await }
    });
    underway.came.acquire().await.unwrap().forget();
    let reader = nodes.tree(1).file(&attr, None).await.unwrap();
    underway.go_on.add_permits(1);
    writing.await.unwrap().unwrap();
    nodes.sessions[1].set_holder(Arc::new(Keeper(Arc::downgrade(&nodes.tree(1)))));
    nodes.sessions[1].getattr(attr.ino).await.unwrap(); // the lease comes with another answer
    assert_eq!(reader.read(0, 3).await.unwrap(), "new");
    nodes.tree(0).close(writer).await.unwrap();
    nodes.tree(1).close(reader).await.unwrap();
    nodes.end().await;
}

fn new_file() -> NewInode {
    NewInode { kind: FileType::File, mode: 0o644, umask: 0, uid: 1, gid: 1, rdev: 0, target: Vec::new() }
}

#[derive(Clone, Debug)]
enum Op {
    Write { offset: u64, len: u64 },
    Append { len: u64 },
    Truncate { size: u64 },
    Zero { offset: u64, len: u64 },
    Read { offset: u64, len: u64 },
    Stat,
    Reopen,
    Fsync,
    Upload,
}

fn op() -> impl Strategy<Value = Op> {
    let offset = 0..30_000_u64;
    let len = 1..6_000_u64;
    prop_oneof![
        5 => (offset.clone(), len.clone()).prop_map(|(offset, len)| Op::Write { offset, len }),
        2 => len.clone().prop_map(|len| Op::Append { len }),
        // Often so short that the metadata keeps a copy.
        1 => prop_oneof![offset.clone(), 1..2049_u64].prop_map(|size| Op::Truncate { size }),
        1 => (offset.clone(), len.clone()).prop_map(|(offset, len)| Op::Zero { offset, len }),
        6 => (offset, len).prop_map(|(offset, len)| Op::Read { offset, len }),
        2 => Just(Op::Stat),
        1 => Just(Op::Reopen),
        1 => Just(Op::Fsync),
        1 => Just(Op::Upload),
    ]
}

async fn history(count: usize, ops: Vec<(usize, bool, Op)>) {
    let nodes = Nodes::new(count).await;
    nodes.set_policy(PolicyChange { inline_bytes_max: Some(2048), ..PolicyChange::default() });
    let mut models: [Vec<u8>; 2] = Default::default();
    let mut open: Vec<Vec<Arc<File>>> = Vec::new();
    let names = ["a", "b"];
    for node in 0..count {
        let mut files = Vec::new();
        for name in names {
            files.push(if node == 0 { nodes.create(0, name).await } else { nodes.open(node, name).await });
        }
        open.push(files);
    }
    for (step, (node, second, op)) in ops.into_iter().enumerate() {
        let (node, which) = (node % count, usize::from(second));
        let (file, model) = (open[node][which].clone(), &mut models[which]);
        match op {
            Op::Write { offset, len } => {
                let bytes = pattern(step as u64, len as usize);
                file.write(offset, &bytes, false).await.unwrap();
                grow(model, offset + len);
                model[offset as usize..(offset + len) as usize].copy_from_slice(&bytes);
            }
            Op::Append { len } => {
                let bytes = pattern(step as u64, len as usize);
                let at = file.write(0, &bytes, true).await.unwrap();
                assert_eq!(at, model.len() as u64, "step {step}: appended elsewhere than at the end");
                model.extend_from_slice(&bytes);
            }
            Op::Truncate { size } => {
                let attr = file.truncate(size).await.unwrap();
                assert_eq!(attr.size, size);
                model.resize(size as usize, 0);
            }
            Op::Zero { offset, len } => {
                file.zero(offset, len, false).await.unwrap();
                grow(model, offset + len);
                model[offset as usize..(offset + len) as usize].fill(0);
            }
            Op::Read { offset, len } => {
                let read = match file.read_ready(offset, len as u32) {
                    Some(ready) => ready.unwrap(),
                    None if step % 2 == 0 => file.read(offset, len as u32).await.unwrap(),
                    None => file.read_to_keep(offset, len as u32).await.unwrap().0,
                };
                let end = model.len().min((offset + len) as usize);
                let expected = model.get(offset as usize..end).unwrap_or_default();
                assert!(read == expected, "step {step}: node {node} read something else");
            }
            Op::Stat => {
                assert_eq!(nodes.attr(node, names[which]).await.size, model.len() as u64, "step {step}");
            }
            Op::Reopen => {
                let again = nodes.open(node, names[which]).await;
                let before = std::mem::replace(&mut open[node][which], again);
                nodes.tree(node).close(before).await.unwrap();
            }
            Op::Fsync => file.fsync().await.unwrap(),
            Op::Upload => nodes.tree(node).sync().await.unwrap(),
        }
    }
    for node in 0..count {
        for (name, model) in names.iter().zip(&models) {
            assert!(nodes.content(node, name).await == *model, "at the end, node {node}");
        }
    }
    for (node, files) in open.into_iter().enumerate() {
        for file in files {
            nodes.tree(node).close(file).await.unwrap();
        }
    }
    nodes.end().await;
}

fn grow(model: &mut Vec<u8>, len: u64) {
    model.resize(model.len().max(len as usize), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// Every read sees what every node did before it.
    #[test]
    fn no_read_is_stale(
        count in 2..4_usize,
        ops in proptest::collection::vec((0..3_usize, any::<bool>(), op()), 1..80),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(history(count, ops));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_at_once_are_all_there() {
    let nodes = Arc::new(Nodes::new(3).await);
    let first = nodes.create(0, "log").await;
    let tasks: Vec<_> = (0..3_usize)
        .map(|node| {
            let nodes = nodes.clone();
            tokio::spawn(async move {
                let file = nodes.open(node, "log").await;
                for i in 0..200_u64 {
                    file.write(0, &[node as u64, i].map(u64::to_le_bytes).concat(), true).await.unwrap();
                    file.read_to_keep(0, 64).await.unwrap();
                }
                nodes.tree(node).close(file).await.unwrap();
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    nodes.tree(0).close(first).await.unwrap();
    let content = nodes.content(1, "log").await;
    let mut next = [0_u64; 3];
    for record in content.chunks(16) {
        let of = |at: usize| u64::from_le_bytes(record[at..at + 8].try_into().unwrap());
        assert_eq!(of(8), next[of(0) as usize], "in order, each once");
        next[of(0) as usize] += 1;
    }
    assert_eq!(next, [200; 3]);
    nodes.end().await;
}

/// A stage file is overwritten in place: of what was refused, bytes may be seen where nobody else wrote. A small file's are
/// in the log, and are not.
fn refused_part(size: usize) -> std::ops::Range<usize> {
    if size > 8 << 10 { 10..520 } else { 0..0 }
}

fn same_but_for(content: &[u8], expected: &[u8], either: &std::ops::Range<usize>) {
    assert_eq!(content.len(), expected.len());
    for (at, (a, b)) in content.iter().zip(expected).enumerate() {
        assert!(a == b || either.contains(&at), "byte {at} is another one");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fenced_nodes_changes_are_refused_and_kept_aside() {
    for size in [1000, 50_000] {
        let nodes = Nodes::new(2).await;
        let file = nodes.create(0, "f").await;
        file.write(0, &pattern(1, size), false).await.unwrap();
        file.fsync().await.unwrap();
        nodes.tree(0).begin_stop(); // nothing is committed by itself from here on
        file.write(10, &pattern(2, 500), false).await.unwrap();
        nodes.sessions[0].end().await;

        same_but_for(&nodes.content(1, "f").await, &pattern(1, size), &refused_part(size));
        let other = nodes.open(1, "f").await;
        other.write(0, b"of the other", false).await.unwrap();
        nodes.tree(1).close(other).await.unwrap();

        assert_eq!(file.write(0, b"x", false).await.unwrap_err().kind(), Kind::Fenced);
        assert_eq!(file.fsync().await.unwrap_err().kind(), Kind::Fenced);
        assert_eq!(file.take_error().unwrap_err().errno(), 5);
        let told = nodes.tree(0).status().error.unwrap();
        assert!(told.contains("\"f\"") && told.contains("aside"), "{told}");
        let kept = nodes.aside(0);
        assert_eq!(kept.len(), 1);
        assert_eq!(kept[0][10..510], pattern(2, 500));

        let mut expected = pattern(1, size);
        expected[..12].copy_from_slice(b"of the other");
        // A new open works, with the others' bytes.
        let now = nodes.content(0, "f").await;
        same_but_for(&now, &expected, &refused_part(size));
        assert_eq!(now[..12], *b"of the other");
        nodes.tree(0).close(file).await.unwrap();
        nodes.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn recovery_replays_nothing_over_another_nodes_change() {
    for (size, changed) in [(1000, true), (1000, false), (50_000, true), (50_000, false)] {
        let mut nodes = Nodes::new(2).await;
        let file = nodes.create(0, "f").await;
        file.write(0, &pattern(1, size), false).await.unwrap();
        file.fsync().await.unwrap();
        nodes.tree(0).begin_stop();
        file.write(10, &pattern(2, 500), false).await.unwrap();
        file.write(20, &pattern(3, 500), false).await.unwrap();
        drop(file);
        let mut expected = pattern(1, size);
        nodes.kill(0).await;
        if changed {
            let other = nodes.open(1, "f").await;
            other.write(0, b"of the other", false).await.unwrap();
            nodes.tree(1).close(other).await.unwrap();
            expected[..12].copy_from_slice(b"of the other");
        } else {
            expected[10..510].copy_from_slice(&pattern(2, 500));
            expected[20..520].copy_from_slice(&pattern(3, 500));
        }
        nodes.start(0).await;
        for node in [1, 0] {
            let either = if changed { refused_part(size) } else { 0..0 };
            let now = nodes.content(node, "f").await;
            same_but_for(&now, &expected, &either);
            assert!(!changed || now[..12] == *b"of the other");
        }
        assert_eq!(nodes.aside(0).is_empty(), !changed);
        assert_eq!(nodes.tree(0).status().error.is_some(), changed);
        nodes.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_is_given_what_is_staged_and_nothing_else() {
    let nodes = Nodes::new(1).await;
    let tree = nodes.tree(0);
    tree.begin_stop();
    let file = nodes.create(0, "large").await;
    file.write(0, &pattern(1, 50_000), false).await.unwrap();
    file.fsync().await.unwrap();
    let (_, extents) = nodes.sessions[0].extents(file.ino()).await.unwrap();
    let whole = extents[0];
    let part = crate::extent_map::clip(&whole, 100, 400);
    assert_eq!(tree.staged(file.ino(), &part, &whole).await.unwrap().unwrap(), pattern(1, 50_000)[100..400]);
    assert_eq!(tree.staged(Ino(99), &part, &whole).await.unwrap(), None, "another inode's");
    let elsewhere = |e: &Extent| Extent { place: Place::StageFile { node: NodeId(5) }, ..*e };
    assert_eq!(tree.staged(file.ino(), &elsewhere(&part), &elsewhere(&whole)).await.unwrap(), None);
    let beyond = Extent { len: whole.len + 1, ..whole };
    assert_eq!(tree.staged(file.ino(), &beyond, &whole).await.unwrap_err().kind(), Kind::Invalid);
    let log = |offset| Extent {
        offset: 0,
        len: 10,
        place: Place::Log { node: NodeId(1), segment: 77, offset },
        crc: 0,
    };
    assert_eq!(tree.staged(file.ino(), &log(u64::MAX - 5), &log(u64::MAX - 5)).await.unwrap(), None::<Bytes>);
    file.zero(0, 50_000, true).await.unwrap();
    assert_eq!(tree.staged(file.ino(), &part, &whole).await.unwrap(), None, "no zeros for what is not there");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_on_a_node_that_is_down_are_an_error_until_it_is_back() {
    let mut nodes = Nodes::new(2).await;
    for (name, size) in [("small", 1000), ("large", 50_000)] {
        let file = nodes.create(0, name).await;
        file.write(0, &pattern(1, size), false).await.unwrap();
        file.fsync().await.unwrap();
        nodes.tree(0).close(file).await.unwrap();
    }
    nodes.kill(0).await;
    for name in ["small", "large"] {
        let file = nodes.open(1, name).await;
        assert_eq!(file.read(0, 100).await.unwrap_err().kind(), Kind::Unavailable);
        nodes.tree(1).close(file).await.unwrap();
    }
    nodes.start(0).await;
    for (name, size) in [("small", 1000), ("large", 50_000)] {
        assert!(nodes.content(1, name).await == pattern(1, size));
    }
    nodes.tree(0).sync().await.unwrap();
    nodes.kill(0).await;
    assert!(nodes.content(1, "large").await == pattern(1, 50_000), "it is in the store by now");
    nodes.start(0).await;
    nodes.end().await;
}

/// Another node's compaction moves bytes without a recall: who keeps where they were finds them gone, and asks anew.
#[tokio::test(flavor = "multi_thread")]
async fn what_another_node_compacted_is_found_where_it_is_now() {
    const FILES: u64 = 40;
    let nodes = Nodes::new(2).await;
    for i in 0..FILES {
        let file = nodes.create(0, &i.to_string()).await;
        file.write(0, &pattern(i, 1000), false).await.unwrap();
        nodes.tree(0).close(file).await.unwrap();
        nodes.tree(0).sync().await.unwrap();
    }
    nodes.sessions[1].keep_extents();
    let mut files = Vec::new();
    for i in 0..FILES {
        files.push(nodes.open(1, &i.to_string()).await);
    }
    let tree = nodes.tree(0);
    assert!(run_once(&tree.shared).await.unwrap() > 0);
    nodes.clock.advance(Duration::from_secs(61));
    assert!(delete_dead(&tree.shared).await.unwrap().deleted > 1);
    for (i, file) in files.into_iter().enumerate() {
        assert_eq!(file.read(0, 1000).await.unwrap(), pattern(i as u64, 1000), "file {i}");
        nodes.tree(1).close(file).await.unwrap();
    }
    nodes.end().await;
}

/// Two nodes that chose the same objects: the second finds them gone, and nothing is wrong.
#[tokio::test(flavor = "multi_thread")]
async fn a_compaction_that_comes_too_late_does_nothing() {
    let nodes = Nodes::new(2).await;
    for i in 0..40 {
        let file = nodes.create(0, &i.to_string()).await;
        file.write(0, &pattern(i, 1000), false).await.unwrap();
        nodes.tree(0).close(file).await.unwrap();
        nodes.tree(0).sync().await.unwrap();
    }
    let chosen = nodes.sessions[1].live_objects(ObjectId(0), 100).await.unwrap();
    let tree = nodes.tree(0);
    run_once(&tree.shared).await.unwrap();
    nodes.clock.advance(Duration::from_secs(61));
    delete_dead(&tree.shared).await.unwrap();
    let late = nodes.tree(1);
    assert_eq!(rewrite(&late.shared, &chosen).await.unwrap(), 0);
    let alone = |o: &&LiveObject| late.shared.drain.compaction.is_left_alone(o.object.id);
    assert_eq!(chosen.iter().filter(alone).count(), 0, "none is taken for damaged");
    nodes.end().await;
}
