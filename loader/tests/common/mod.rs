//! Data sets for the loader's tests: small, and each sample says which one it is.

#![allow(dead_code)] // each test binary uses some of it
#![allow(clippy::unwrap_used)]

pub mod zeros;

use std::sync::Arc;

use bytes::Bytes;
use granary_core::SystemClock;
use granary_loader::{Batch, Loader, Options, Sample, Source, SourceOptions};
use granary_packer::dataset::{self, DataSet};
use granary_packer::key::Grouping;
use granary_packer::manifest::{self, Manifest, Runs, Shard};
use granary_packer::place::{self, Place};
use granary_packer::shard::{Identity, Writer};
use granary_packer::tar::Entry;
use granary_store::{MemoryStore, Store};

/// What sample `number` holds in its `bin`: its number and then bytes that follow from it.
pub fn payload(number: u64, len: usize) -> Vec<u8> {
    let filler = (0..len).map(|at| (number as usize * 31 + at * 7) as u8);
    let mut all: Vec<u8> = number.to_le_bytes().into_iter().chain(filler).collect();
    all.truncate(len.max(8));
    all
}

fn entry(path: &str, size: usize) -> Entry<'_> {
    Entry {
        path: path.as_bytes(),
        target: b"",
        kind: b'0',
        size: size as u64,
        mode: 0o644,
        mtime: 0,
        uid: 0,
        gid: 0,
    }
}

/// A shard of samples `numbers`, each with a `bin` of so many bytes and a `cls` with the number in digits. Those divisible by five have an `x.txt`.
pub fn shard(numbers: std::ops::Range<u64>, len: usize, number: u32) -> (Vec<u8>, Vec<u8>, Shard) {
    let mut writer = Writer::new(Vec::new(), Grouping::Stem, &std::env::temp_dir());
    for n in numbers {
        let (bytes, class) = (payload(n, len), n.to_string());
        writer.file(&entry(&format!("{n:06}.bin"), bytes.len()), &bytes).unwrap();
        writer.file(&entry(&format!("{n:06}.cls"), class.len()), class.as_bytes()).unwrap();
        if n % 5 == 0 {
            writer.file(&entry(&format!("{n:06}.x.txt"), 3), b"yes").unwrap();
        }
    }
    let path = format!("shards/{number:06}.tar");
    let finished = writer.finish(Identity { data_set: [7; 16], number, name: path.clone() }).unwrap();
    let line = Shard {
        path,
        bytes: finished.bytes,
        files: finished.trailer.files,
        samples: finished.trailer.samples,
        index_bytes: finished.index.bytes(),
        index_crc32c: finished.index.crc32c(),
        dead_samples: Runs::default(),
        dead_files: Runs::default(),
    };
    (finished.out, finished.index.to_bytes().unwrap().to_vec(), line)
}

/// Puts a data set of shards with so many samples each; numbers go on from shard to shard.
pub async fn fill(place: &Place, shards: &[u64], len: usize) -> Manifest {
    let mut lines = Vec::new();
    let mut first = 0;
    for (number, samples) in (0..).zip(shards) {
        let (tar, index, line) = shard(first..first + samples, len, number);
        first += samples;
        place.put(&line.path, Bytes::from(tar)).await.unwrap();
        place.put(&line.index_path(), Bytes::from(index)).await.unwrap();
        lines.push(line);
    }
    let manifest = Manifest::new(1, [7; 16], Grouping::Stem, "test", lines).unwrap();
    manifest::write(place, &manifest).await.unwrap();
    manifest
}

pub fn folder_place(folder: &std::path::Path) -> Place {
    Place::open(folder.to_str().unwrap(), &place::Options::default(), Arc::new(SystemClock)).unwrap()
}

/// A data set in a folder.
pub fn folder(folder: &std::path::Path, shards: &[u64], len: usize) -> Source {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(fill(&folder_place(folder), shards, len));
    Source::open(folder.to_str().unwrap(), SourceOptions::default()).unwrap()
}

pub fn memory() -> Arc<MemoryStore> {
    Arc::new(MemoryStore::default())
}

/// A data set over a store; without real waiting.
pub async fn over(store: Arc<dyn Store>, options: SourceOptions) -> Source {
    let data = DataSet::open_with(Place::of_store(store), None, dataset::Options::default()).await.unwrap();
    Source::of_data_set(data, options).await.unwrap()
}

/// The number that a sample's bytes say.
pub fn says(sample: &Sample) -> u64 {
    let at = sample.find(b"bin").unwrap().unwrap();
    let bytes = sample.bytes(at).unwrap();
    let number = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    assert_eq!(bytes, payload(number, bytes.len()));
    let class = sample.bytes(sample.find(b"cls").unwrap().unwrap()).unwrap();
    assert_eq!(class, number.to_string());
    assert_eq!(sample.key().unwrap(), format!("{number:06}").as_bytes());
    number
}

pub fn numbers(batch: &Batch) -> Vec<u64> {
    batch.samples.iter().map(says).collect()
}

/// The rest of the epoch: each batch's number and samples.
pub fn rest(loader: &Loader) -> Vec<(u64, Vec<u64>)> {
    std::iter::from_fn(|| loader.next_batch().unwrap()).map(|batch| (batch.number, numbers(&batch))).collect()
}

pub fn loader(source: &Source, options: Options) -> Loader {
    Loader::new(vec![source.clone()], options).unwrap()
}

/// A loader whose tasks are in this runtime.
pub fn here(sources: Vec<Source>, options: Options) -> Loader {
    let handle = tokio::runtime::Handle::current();
    Loader::new_with(sources, options, Arc::new(SystemClock), Some(handle)).unwrap()
}

pub async fn rest_here(loader: &Loader) -> Vec<(u64, Vec<u64>)> {
    let mut all = Vec::new();
    while let Some(batch) = loader.next().await.unwrap() {
        all.push((batch.number, numbers(&batch)));
    }
    all
}

/// The same by each sample's number alone: the loader verified its bytes.
pub async fn numbers_here(loader: &Loader) -> Vec<(u64, Vec<u64>)> {
    let mut all = Vec::new();
    while let Some(batch) = loader.next().await.unwrap() {
        all.push((batch.number, batch.samples.iter().map(Sample::number).collect()));
    }
    all
}
