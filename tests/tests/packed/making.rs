//! A tree, packed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use granary_core::SystemClock;
use granary_packer::key::Grouping;
use granary_packer::manifest::{self, Manifest, Runs, Shard};
use granary_packer::place::{Options, Place};
use granary_packer::shard::{Identity, Writer};
use granary_packer::tar::Entry;

const DATA_SET: [u8; 16] = [0x5a; 16];

/// A data set that is being made, version by version.
pub struct DataSet {
    pub url: String,
    pub place: Place,
    runtime: tokio::runtime::Runtime,
    shards: Vec<Shard>,
    version: u64,
}

/// All below a directory, by path, directories before what is in them.
fn walk(root: &Path) -> Vec<std::path::PathBuf> {
    let (mut found, mut todo) = (Vec::new(), vec![root.to_owned()]);
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.symlink_metadata().expect("lstat").is_dir() {
                todo.push(path.clone());
            }
            found.push(path);
        }
    }
    found.sort();
    found
}

impl DataSet {
    /// `url`: a folder's path, which is made, or `s3://bucket/prefix`.
    pub fn new(url: &str) -> DataSet {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let options = Options { create: true, ..Options::from_env() };
        let place =
            runtime.block_on(async { Place::open(url, &options, Arc::new(SystemClock)) }).expect("a place");
        DataSet { url: url.to_owned(), place, runtime, shards: Vec::new(), version: 0 }
    }

    /// Packs what is below `root` into further shards of `files` files, and makes a version of it.
    pub fn append(&mut self, root: &Path, files: usize) {
        let all = walk(root);
        for part in all.chunks(files) {
            self.shard(root, part);
        }
        self.write();
    }

    /// The files with these paths are in no later version.
    pub fn delete(&mut self, paths: &[&str]) {
        for shard in &mut self.shards {
            let index = self.place.local_path(&shard.index_path()).expect("a folder");
            let index = granary_packer::index::Index::open(&index).expect("an index");
            let found = paths.iter().filter_map(|path| index.find(path.as_bytes()).expect("a good index"));
            shard.dead_files = shard.dead_files.with(found);
            let dead = |sample: &u32| {
                index.sample(*sample).expect("a sample").all(|file| shard.dead_files.contains(file))
            };
            shard.dead_samples = Runs::from_numbers((0..index.sample_count()).filter(dead));
        }
        self.write();
    }

    fn shard(&mut self, root: &Path, paths: &[std::path::PathBuf]) {
        let mut writer = Writer::new(Vec::new(), Grouping::Stem, &std::env::temp_dir());
        for path in paths {
            let meta = path.symlink_metadata().expect("lstat");
            let name = path.strip_prefix(root).expect("below the root").as_os_str().as_encoded_bytes();
            let target = if meta.is_symlink() {
                fs::read_link(path).expect("readlink").into_os_string().into_encoded_bytes()
            } else {
                Vec::new()
            };
            let kind = if meta.is_dir() {
                b'5'
            } else if meta.is_symlink() {
                b'2'
            } else {
                b'0'
            };
            let entry = Entry {
                path: name,
                target: &target,
                kind,
                size: if kind == b'0' { meta.len() } else { 0 },
                mode: meta.mode() & 0o7777,
                mtime: meta.mtime(),
                uid: meta.uid(),
                gid: meta.gid(),
            };
            match kind {
                b'0' => drop(writer.file(&entry, &fs::read(path).expect("read")).expect("a file")),
                _ => writer.other(&entry).expect("an entry"),
            }
        }
        let number = self.shards.len() as u32;
        let path = format!("shards/{number:06}.tar");
        let done =
            writer.finish(Identity { data_set: DATA_SET, number, name: path.clone() }).expect("a shard");
        let index = done.index.to_bytes().expect("an index");
        let shard = Shard {
            path,
            bytes: done.bytes,
            files: done.trailer.files,
            samples: done.trailer.samples,
            index_bytes: index.len() as u64,
            index_crc32c: done.index.crc32c(),
            dead_samples: Runs::default(),
            dead_files: Runs::default(),
        };
        self.put(&shard.path, done.out.into());
        self.put(&shard.index_path(), index);
        self.shards.push(shard);
    }

    fn write(&mut self) {
        self.version += 1;
        let made = Manifest::new(self.version, DATA_SET, Grouping::Stem, "test", self.shards.clone());
        let made = made.expect("a manifest");
        self.runtime.block_on(manifest::write(&self.place, &made)).expect("a version");
    }

    pub fn put(&self, name: &str, bytes: Bytes) {
        self.runtime.block_on(self.place.put(name, bytes)).expect("put");
    }

    pub fn get(&self, name: &str) -> Bytes {
        self.runtime.block_on(self.place.read_whole(name, 1 << 30)).expect("get")
    }

    pub fn remove(&self, name: &str) {
        self.runtime.block_on(self.place.store().delete(vec![name.to_owned()])).expect("delete");
    }
}
