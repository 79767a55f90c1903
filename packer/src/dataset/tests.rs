use bytes::Bytes;
use granary_core::SystemClock;
use granary_store::MemoryStore;

use super::*;
use crate::key::Grouping;
use crate::limits::INDEX_MEMORY_BYTES_MAX;
use crate::manifest::Runs;
use crate::shard::{Identity, Writer};
use crate::tar::Entry;

/// Puts a shard of samples `from..to`, two files each, and returns its line of the manifest.
async fn put_shard(place: &Place, number: u32, from: u32, to: u32) -> Shard {
    let mut shard = Writer::new(Vec::new(), Grouping::Stem, &std::env::temp_dir());
    for n in from..to {
        for extension in ["cls", "jpg"] {
            let path = format!("{n:04}.{extension}");
            let entry = Entry {
                path: path.as_bytes(),
                target: b"",
                kind: b'0',
                size: 4,
                mode: 0o644,
                mtime: 0,
                uid: 0,
                gid: 0,
            };
            shard.file(&entry, &n.to_le_bytes()).unwrap();
        }
    }
    let path = format!("shards/{number:06}.tar");
    let finished = shard.finish(Identity { data_set: [1; 16], number, name: path.clone() }).unwrap();
    let shard = Shard {
        path,
        bytes: finished.bytes,
        files: finished.trailer.files,
        samples: finished.trailer.samples,
        index_bytes: finished.index.bytes(),
        index_crc32c: finished.index.crc32c(),
        dead_samples: Runs::default(),
        dead_files: Runs::default(),
    };
    place.put(&shard.path, Bytes::from(finished.out)).await.unwrap();
    place.put(&shard.index_path(), finished.index.to_bytes().unwrap()).await.unwrap();
    shard
}

async fn fill(place: &Place) -> Manifest {
    let shards = vec![put_shard(place, 0, 0, 3).await, put_shard(place, 1, 3, 5).await];
    let manifest = Manifest::new(1, [1; 16], Grouping::Stem, "pack", shards).unwrap();
    manifest::write(place, &manifest).await.unwrap();
    manifest
}

fn bucket() -> Place {
    Place::of_store(Arc::new(MemoryStore::new(Arc::new(SystemClock))))
}

fn folder(dir: &tempfile::TempDir) -> Place {
    let options = crate::place::Options::default();
    Place::open(dir.path().to_str().unwrap(), &options, Arc::new(SystemClock)).unwrap()
}

async fn every_sample(data: &DataSet) -> Vec<u32> {
    let mut all = Vec::new();
    for n in 0..data.manifest().sample_count() {
        let (shard, sample) = data.manifest().locate_sample(n).unwrap();
        let index = data.index(shard).await.unwrap();
        let files = data.live_files(shard, &index, sample).unwrap();
        let file = index.file(*files.last().unwrap()).unwrap();
        let bytes =
            data.place().get(&data.shard(shard).unwrap().path, file.offset..file.offset + 4).await.unwrap();
        assert_eq!(granary_core::crc32c(&bytes), file.crc32c);
        all.push(u32::from_le_bytes(bytes[..].try_into().unwrap()));
    }
    all
}

#[tokio::test]
async fn samples_are_found_in_a_folder_and_in_a_bucket() {
    let dir = tempfile::tempdir().unwrap();
    let kept = tempfile::tempdir().unwrap();
    let with_folder = Options { index_folder: Some(kept.path().to_owned()), ..Options::default() };
    for (place, options) in
        [(folder(&dir), Options::default()), (bucket(), Options::default()), (bucket(), with_folder)]
    {
        fill(&place).await;
        let local = place.folder().is_some() || options.index_folder.is_some();
        let data = DataSet::open_with(place, None, options).await.unwrap();
        assert_eq!(every_sample(&data).await, [0, 1, 2, 3, 4]);
        assert_eq!(data.find(b"0003.jpg").await.unwrap(), Some((1, 1)));
        assert_eq!(data.find(b"0009.jpg").await.unwrap(), None);
        assert!(data.index_now(0).unwrap().is_some());
        assert_eq!(data.index(2).await.unwrap_err().kind(), Kind::Invalid);
        assert!(local || kept.path().read_dir().unwrap().next().is_none());
    }
    assert_eq!(kept.path().read_dir().unwrap().count(), 2);
}

#[tokio::test]
async fn versions_stay_as_they_are_and_deleting_rewrites_no_shard() {
    let place = bucket();
    let first = fill(&place).await;
    let mut shards = first.shards().to_vec();
    shards[0].dead_samples = Runs::from_numbers([1]);
    // Sample 1 has files 2 and 3; of sample 0 one file is gone, of sample 2 none.
    shards[0].dead_files = Runs::from_numbers([0, 2, 3]);
    manifest::write(&place, &first.next("delete", shards).unwrap()).await.unwrap();
    assert_eq!(manifest::versions(&place).await.unwrap(), [1, 2]);
    let now = DataSet::open(place.clone(), None).await.unwrap();
    assert_eq!(now.manifest().version(), 2);
    assert_eq!(every_sample(&now).await, [0, 2, 3, 4]);
    let index = now.index(0).await.unwrap();
    assert_eq!(now.live_files(0, &index, 0).unwrap(), [1]);
    assert_eq!(now.find(b"0001.jpg").await.unwrap(), None);
    let before = DataSet::open(place.clone(), Some(1)).await.unwrap();
    assert_eq!(every_sample(&before).await, [0, 1, 2, 3, 4]);
    let e = manifest::write(&place, &first.next("append", vec![]).unwrap()).await.unwrap_err();
    assert!(e.kind() == Kind::Exists && e.to_string().contains("do it again"), "{e}");
    assert_eq!(DataSet::open(place, Some(3)).await.unwrap_err().kind(), Kind::NotFound);
}

#[tokio::test]
async fn a_damaged_version_is_passed_over() {
    let place = bucket();
    let first = fill(&place).await;
    place.put("manifests/0000000002.jsonl", Bytes::from_static(b"{}\n")).await.unwrap();
    place.put("manifests/notes.txt", Bytes::from_static(b"x")).await.unwrap();
    let data = DataSet::open(place.clone(), None).await.unwrap();
    assert_eq!(**data.manifest(), first);
    place.put("manifests/0000000001.jsonl", Bytes::from_static(b"{}\n")).await.unwrap();
    assert_eq!(DataSet::open(place, None).await.unwrap_err().kind(), Kind::Corrupt);
}

#[tokio::test]
async fn no_data_set_is_told_with_the_mend() {
    let e = DataSet::open(bucket(), None).await.unwrap_err();
    assert!(e.kind() == Kind::NotFound && e.to_string().contains("`granary index`"), "{e}");
}

#[tokio::test]
async fn another_shards_index_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for place in [folder(&dir), bucket()] {
        fill(&place).await;
        let other = place.read_whole("shards/000001.gidx", 1 << 20).await.unwrap();
        place.put("shards/000000.gidx", other).await.unwrap();
        let data = DataSet::open(place, None).await.unwrap();
        let e = data.index(0).await.unwrap_err();
        assert_eq!(e.kind(), Kind::Corrupt, "{e}");
        data.index(1).await.unwrap();
    }
}

#[tokio::test]
async fn open_indexes_have_a_bound() {
    let place = bucket();
    fill(&place).await;
    let options = Options { index_bytes_max: 1, ..Options::default() };
    let data = DataSet::open_with(place, None, options).await.unwrap();
    let first = data.index(0).await.unwrap();
    data.index(1).await.unwrap();
    // The first left when the second came; who holds it still can use it.
    assert!(data.index_now(0).unwrap().is_none());
    assert_eq!(first.sample_count(), 3);
}

#[tokio::test]
async fn a_large_index_of_a_bucket_is_on_disk_and_small_ones_in_memory() {
    let place = bucket();
    let shards = vec![put_shard(&place, 0, 0, 45_000).await, put_shard(&place, 1, 45_000, 45_010).await];
    assert!(shards[0].index_bytes > INDEX_MEMORY_BYTES_MAX && shards[1].index_bytes < INDEX_MEMORY_BYTES_MAX);
    let manifest = Manifest::new(1, [1; 16], Grouping::Stem, "pack", shards).unwrap();
    let data = DataSet::of_manifest(place.clone(), manifest.clone(), Options::default());
    let kind = |index: &Index| format!("{index:?}").contains("mapped");
    let (large, small) = (data.index(0).await.unwrap(), data.index(1).await.unwrap());
    assert_eq!((kind(&large), kind(&small)), (true, false));
    assert_eq!(data.find(b"44999.jpg").await.unwrap(), Some((0, 89_999)));
    assert_eq!(data.find(b"45009.cls").await.unwrap(), Some((1, 18)));
    // Where no file can be made it is in memory.
    let file = tempfile::NamedTempFile::new().unwrap();
    let options = Options { index_folder: Some(file.path().join("below-a-file")), ..Options::default() };
    let data = DataSet::of_manifest(place.clone(), manifest.clone(), options);
    let index = data.index(0).await.unwrap();
    assert_eq!((kind(&index), index.sample_count()), (false, 45_000));
    // One that came wrong is refused, wherever it was to be kept.
    let whole = place.read_whole("shards/000000.gidx", 64 << 20).await.unwrap();
    let mut wrong = whole.to_vec();
    wrong[3_000_000] ^= 1;
    place.put("shards/000000.gidx", wrong.into()).await.unwrap();
    let kept = tempfile::tempdir().unwrap();
    for index_folder in [None, Some(kept.path().to_owned())] {
        let options = Options { index_folder, ..Options::default() };
        let data = DataSet::of_manifest(place.clone(), manifest.clone(), options);
        assert_eq!(data.index(0).await.unwrap_err().kind(), Kind::Corrupt);
    }
    assert_eq!(kept.path().read_dir().unwrap().count(), 0);
}
