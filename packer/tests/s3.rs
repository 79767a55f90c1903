//! Packing from and into a bucket: `GRANARY_TEST_S3_ENDPOINT`, with `GRANARY_TEST_S3_BUCKET` and the `AWS_*` variables (`tools/test`
//! starts a Ceph RGW and sets them), else a bucket in memory, which continuous integration (`CI=true`) does not allow. What fails on
//! the way is always tried in memory.

#![allow(clippy::unwrap_used)] // helpers of tests

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use bytes::Bytes;
use granary_core::limits::Limits;
use granary_core::{Clock, Kind, Result, SystemClock};
use granary_packer::dataset::DataSet;
use granary_packer::from::folder::Folder;
use granary_packer::from::objects::Objects;
use granary_packer::from::{Skipped, Source};
use granary_packer::pack::output::WHOLE_BYTES_MAX;
use granary_packer::pack::progress::Progress;
use granary_packer::pack::{Mode, Options, Report, pack};
use granary_packer::place::Place;
use granary_store::{Environment, Fault, FaultStore, MemoryStore, Operation, Store, stacked};
use prometheus_client::registry::Registry;
use tempfile::TempDir;
use tokio::runtime::Runtime;

struct World {
    dir: TempDir,
    runtime: Runtime,
}

impl World {
    fn new() -> World {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        World { dir: tempfile::tempdir().unwrap(), runtime }
    }

    /// The production stack over a bucket, empty below a prefix of the test's own.
    fn store(&self, test: &str) -> Arc<dyn Store> {
        let _within = self.runtime.enter();
        let Ok(endpoint) = std::env::var("GRANARY_TEST_S3_ENDPOINT") else {
            assert!(
                std::env::var("CI").as_deref() != Ok("true"),
                "GRANARY_TEST_S3_ENDPOINT is not set, and here it must be: run tools/test, which starts a Ceph RGW"
            );
            return self.stacked(Arc::new(MemoryStore::new(Arc::new(SystemClock))));
        };
        let bucket =
            std::env::var("GRANARY_TEST_S3_BUCKET").expect("GRANARY_TEST_S3_BUCKET names an empty bucket");
        let now = SystemClock.now();
        let url = format!("s3://{bucket}/packer-{test}-{:x}-{:x}", now.secs, now.nanos);
        let environment = Environment::of_process().with("AWS_ENDPOINT_URL_S3", &endpoint);
        let options = granary_store::Options { environment, ..granary_store::Options::default() };
        self.stacked(granary_store::open(&url, &options).unwrap())
    }

    fn stacked(&self, backend: Arc<dyn Store>) -> Arc<dyn Store> {
        let limits = Limits { retry_ms_max: 2_000, ..Limits::default() };
        stacked(backend, &limits, Arc::new(SystemClock), &mut Registry::default())
    }

    fn options(&self) -> Options {
        Options {
            shard_bytes: 1 << 20,
            grouping: None,
            seed: None,
            threads: 4,
            memory_bytes: 512 << 20,
            work_dir: self.dir.path().to_owned(),
            mode: Mode::New,
            verify: true,
            delete_source: false,
        }
    }

    fn pack(&self, source: &dyn Source, to: &Place, options: &Options) -> Result<Report> {
        pack(source, to, options, self.runtime.handle(), &Skipped::new(false), &Progress::default())
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.dir.path().join("src").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn folder(&self) -> Folder {
        Folder::open(&self.dir.path().join("src"), false).unwrap()
    }

    fn files(&self, place: &Place) -> BTreeMap<String, Bytes> {
        let data = self.runtime.block_on(DataSet::open(place.clone(), None)).unwrap();
        let mut all = BTreeMap::new();
        for (number, shard) in data.manifest().shards().iter().enumerate() {
            let index = self.runtime.block_on(data.index(number as u32)).unwrap();
            for n in 0..index.file_count() {
                let file = index.file(n).unwrap();
                let range = file.offset..file.offset + file.length;
                let bytes = self.runtime.block_on(place.get(&shard.path, range)).unwrap();
                assert_eq!(granary_core::crc32c(&bytes), file.crc32c);
                all.insert(String::from_utf8(file.path.to_vec()).unwrap(), bytes);
            }
        }
        all
    }
}

fn bytes(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64)
        .map(|i| (((i / 3 + 1) * (seed * 2 + 1)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
        .collect()
}

#[test]
fn from_a_bucket_into_a_bucket() {
    let w = World::new();
    let (from, to) = (w.store("from"), Place::of_store(w.store("to")));
    let mut wanted = BTreeMap::new();
    for n in 0..150u64 {
        for (extension, len) in [("jpg", n as usize * 300), ("cls", 3)] {
            let (key, bytes) = (format!("{:02}/{n:04}.{extension}", n % 3), Bytes::from(bytes(n, len)));
            w.runtime.block_on(from.put(&key, vec![bytes.clone()])).unwrap();
            wanted.insert(key, bytes);
        }
    }
    let source = Objects::new(from.clone(), w.runtime.handle().clone());
    let report = w.pack(&source, &to, &w.options()).unwrap();
    assert_eq!((report.files, report.samples, report.verified), (300, 150, true));
    assert!(w.files(&to) == wanted);
    // Again: it is there. Deleted: only what still is as it was.
    assert_eq!(w.pack(&source, &to, &w.options()).unwrap().shards_made, 0);
    let report = w.pack(&source, &to, &Options { delete_source: true, ..w.options() }).unwrap();
    assert_eq!((report.deleted, report.kept), (300, 0));
    assert_eq!(w.runtime.block_on(from.list("", None, 10)).unwrap(), []);
    let names = w.runtime.block_on(to.list("", None, 1_000)).unwrap();
    w.runtime.block_on(to.store().delete(names.into_iter().map(|object| object.key).collect())).unwrap();
}

#[test]
fn shards_over_64_mib_are_put_in_parts_and_are_the_same_bytes_as_in_a_folder() {
    let w = World::new();
    w.write("large.bin", &bytes(5, 70 << 20));
    for n in 0..40 {
        w.write(&format!("{n:02}.x"), &bytes(n, 100_000));
    }
    let options = Options { shard_bytes: 1 << 30, ..w.options() };
    let to = Place::of_store(w.store("parts"));
    let report = w.pack(&w.folder(), &to, &options).unwrap();
    assert_eq!((report.shards_made, report.files), (1, 41));
    assert!(report.tar_bytes > WHOLE_BYTES_MAX);
    let here = w.dir.path().join("here");
    let folder = {
        let _within = w.runtime.enter();
        let place =
            granary_packer::place::Options { create: true, ..granary_packer::place::Options::default() };
        Place::open(here.to_str().unwrap(), &place, Arc::new(SystemClock)).unwrap()
    };
    w.pack(&w.folder(), &folder, &options).unwrap();
    for name in ["shards/v1-000000.tar", "shards/v1-000000.gidx", "manifests/0000000001.jsonl"] {
        let there = w.runtime.block_on(to.read_whole(name, 1 << 30)).unwrap();
        assert!(there == fs::read(here.join(name)).unwrap(), "{name}");
    }
    let names = w.runtime.block_on(to.list("", None, 1_000)).unwrap();
    w.runtime.block_on(to.store().delete(names.into_iter().map(|object| object.key).collect())).unwrap();
}

#[test]
fn a_part_that_fails_ends_the_pack_aborts_its_upload_and_the_next_goes_on() {
    let w = World::new();
    for n in 0..3 {
        w.write(&format!("{n}.bin"), &bytes(n, 66 << 20));
    }
    let memory = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
    let faults = Arc::new(FaultStore::new(memory.clone(), 1));
    let to = Place::of_store(w.stacked(faults.clone()));
    let options = Options { shard_bytes: 65 << 20, threads: 1, verify: false, ..w.options() };
    // What fails for a while is tried again; what fails for good ends it, in the second shard.
    faults.script(Operation::Part, Fault::Before(Kind::Unavailable), 1);
    faults.script(Operation::Part, Fault::None, 6);
    faults.script(Operation::Part, Fault::Before(Kind::NoSpace), 1);
    let e = w.pack(&w.folder(), &to, &options).unwrap_err();
    assert_eq!(e.kind(), Kind::NoSpace, "{e}");
    assert_eq!((memory.begun_count(), faults.calls(Operation::Abort)), (0, 1));
    assert_eq!(memory.keys(), ["shards/v1-000000.gidx", "shards/v1-000000.tar"], "what was finished stays");
    // Bytes that were damaged on the way are found before there is a version, and put again.
    faults.script(Operation::Part, Fault::Flip, 1);
    let verified = Options { verify: true, ..options };
    let e = w.pack(&w.folder(), &to, &verified).unwrap_err();
    assert!(e.kind() == Kind::Corrupt && e.to_string().contains("v1-000001.tar"), "{e}");
    let report = w.pack(&w.folder(), &to, &verified).unwrap();
    assert_eq!((report.shards_found, report.shards_made, report.verified), (2, 1, true));
    assert_eq!(memory.begun_count(), 0);
    assert_eq!(w.files(&to).len(), 3);
}

#[test]
fn a_store_that_does_not_answer_is_told_and_nothing_is_skipped() {
    let w = World::new();
    for n in 0..20 {
        w.write(&format!("{n:02}.x"), &bytes(n, 1_000));
    }
    let memory = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
    let faults = Arc::new(FaultStore::new(memory.clone(), 1));
    let to = Place::of_store(w.stacked(faults.clone()));
    faults.script(Operation::Put, Fault::Before(Kind::Unavailable), 10_000);
    let skipping = Skipped::new(true);
    let e = pack(&w.folder(), &to, &w.options(), w.runtime.handle(), &skipping, &Progress::default())
        .unwrap_err();
    assert_eq!((e.kind(), skipping.count()), (Kind::Unavailable, 0), "{e}");
    assert_eq!(memory.count(), 0);
    faults.heal();
    assert_eq!(w.pack(&w.folder(), &to, &w.options()).unwrap().files, 20);
}

/// A bucket in which somebody puts an object anew, and another, behind the scan.
#[derive(Debug)]
struct Written {
    inner: Objects,
    memory: Arc<MemoryStore>,
    runtime: tokio::runtime::Handle,
    anew: bool,
}

impl Source for Written {
    fn scan(&self, scan: &granary_packer::from::Scan<'_>) -> Result<()> {
        self.inner.scan(scan)?;
        let key = if self.anew { "3.x" } else { "new.x" };
        self.runtime.block_on(self.memory.put(key, vec![Bytes::from(bytes(9, 1_000))]))
    }

    fn read(&self, wants: &mut [granary_packer::from::Want<'_>]) {
        self.inner.read(wants);
    }

    fn remove(&self, entry: &granary_packer::pack::entry::Entry) -> Result<bool> {
        self.inner.remove(entry)
    }

    fn notices_changes(&self) -> bool {
        self.inner.notices_changes()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

#[test]
fn an_object_put_anew_meanwhile_is_noticed_and_one_that_came_is_for_the_next_time() {
    let w = World::new();
    let memory = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
    for n in 0..5 {
        w.runtime.block_on(memory.put(&format!("{n}.x"), vec![Bytes::from(bytes(n, 1_000))])).unwrap();
    }
    let to = Place::of_store(w.stacked(Arc::new(MemoryStore::new(Arc::new(SystemClock)))));
    let source = |anew| Written {
        inner: Objects::new(memory.clone(), w.runtime.handle().clone()),
        memory: memory.clone(),
        runtime: w.runtime.handle().clone(),
        anew,
    };
    let e = w.pack(&source(true), &to, &w.options()).unwrap_err();
    assert!(e.kind() == Kind::Stale && e.to_string().starts_with("3.x: it changed"), "{e}");
    assert_eq!(w.pack(&source(false), &to, &w.options()).unwrap().files, 5);
    let append = Options { mode: Mode::Append, ..w.options() };
    assert_eq!(w.pack(&source(false).inner, &to, &append).unwrap().files, 1);
}

#[test]
fn an_object_that_goes_while_it_is_packed_is_named() {
    let w = World::new();
    let memory = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
    let faults = Arc::new(FaultStore::new(memory.clone(), 1));
    for n in 0..5 {
        w.runtime.block_on(memory.put(&format!("{n}.x"), vec![Bytes::from(bytes(n, 1_000))])).unwrap();
    }
    let source = Objects::new(w.stacked(faults.clone()), w.runtime.handle().clone());
    faults.script(Operation::Get, Fault::Before(Kind::NotFound), 1);
    let to = Place::of_store(w.stacked(Arc::new(MemoryStore::new(Arc::new(SystemClock)))));
    let e = w.pack(&source, &to, &w.options()).unwrap_err();
    assert!(e.kind() == Kind::Stale && e.to_string().contains(".x (--skip-errors"), "{e}");
    assert_eq!(w.pack(&source, &to, &w.options()).unwrap().files, 5);
}
