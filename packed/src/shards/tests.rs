use std::sync::Arc;

use bytes::Bytes;
use granary_core::id::object_key;
use granary_packer::place::Place as DataPlace;
use granary_store::format::{Footer, decode_object};
use granary_store::{MemoryStore, Store};

use super::*;
use crate::rig::{Made, file, manifest, shard};

const NS: NamespaceId = NamespaceId(7);

/// Two shards, the first of several pieces.
struct World {
    shards: Arc<Shards>,
    store: ShardStore,
    place: DataPlace,
    made: Vec<Made>,
    _dir: tempfile::TempDir,
}

async fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let noise = |len: usize| {
        (0..len).map(|i| (i as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect::<Vec<u8>>()
    };
    let made = vec![
        shard(0, &[file("small", b"hello"), file("large", &noise(33 << 20)), file("last", &noise(70_000))]),
        shard(1, &[file("other", b"world")]),
    ];
    let place = DataPlace::of_store(Arc::new(MemoryStore::default()));
    let mut indexes = Vec::new();
    for one in &made {
        place.put(&one.shard.path, one.tar.clone()).await.unwrap();
        let path = dir.path().join(format!("{:08x}", one.shard.index_crc32c));
        std::fs::write(&path, &one.index).unwrap();
        indexes.push((Index::open(&path).unwrap(), path));
    }
    let of = manifest(1, made.iter().map(|one| one.shard.clone()).collect());
    let shards = Arc::new(Shards::new(NS, &of, indexes).unwrap());
    let store = ShardStore::new(NS, shards.clone(), place.clone());
    World { shards, store, place, made, _dir: dir }
}

fn key(info: &ObjectInfo) -> String {
    object_key(NS, info.kind, info.id)
}

impl World {
    /// The bytes that extents name, as the cache would have them.
    async fn read(&self, extents: &[Extent]) -> Vec<u8> {
        let mut out = Vec::new();
        for extent in extents {
            let Place::Object { id, offset, .. } = extent.place else { panic!("{extent:?}") };
            let info = self.shards.info(id).unwrap();
            out.extend(self.store.get(&key(&info), offset..offset + extent.len).await.unwrap());
        }
        out
    }
}

#[tokio::test]
async fn every_piece_reads_as_a_pack() {
    let w = world().await;
    let mut tars = [Vec::new(), Vec::new()];
    let pieces = w.shards.following(ObjectId(0), usize::MAX);
    assert_eq!(pieces.len(), 4, "33 MiB in three pieces, and the other shard");
    for live in &pieces {
        let info = live.object;
        assert_eq!(live.live, info.payload_len);
        let whole = w.store.get(&key(&info), 0..info.total_len).await.unwrap();
        let object = decode_object(&whole).unwrap();
        object.footer.check_identity(NS, info.kind, info.id).unwrap();
        let piece = w.shards.piece_of(info.id).unwrap();
        tars[piece.shard as usize].extend_from_slice(&object.payload);
        // Footer alone, and a range across.
        let footer = w.store.get(&key(&info), info.payload_len..info.total_len).await.unwrap();
        assert_eq!(footer, whole.slice(info.payload_len as usize..));
        Footer::parse(&footer, info.payload_len).unwrap();
        let across = info.payload_len - 1..info.payload_len + 3;
        assert_eq!(
            w.store.get(&key(&info), across.clone()).await.unwrap(),
            whole[across.start as usize..across.end as usize]
        );
        assert_eq!(w.store.head(&key(&info)).await.unwrap().size, info.total_len);
    }
    for (tar, made) in tars.iter().zip(&w.made) {
        assert_eq!(tar[..], made.tar[..made.tar.len() - 512]);
    }
    // One after another, and none after the last.
    assert_eq!(w.shards.following(pieces[0].object.id, 9), pieces[1..]);
    assert_eq!(w.shards.following(pieces[3].object.id, 9), []);
    assert_eq!(w.shards.following(ObjectId(77), 9), []);
}

#[tokio::test]
async fn files_tars_and_indexes_are_read_through_their_extents() {
    let w = world().await;
    for (number, made) in (0u32..).zip(&w.made) {
        let index = Index::from_bytes(made.index.clone()).unwrap();
        for n in 0..index.file_count() {
            let f = index.file(n).unwrap();
            let extents = w.shards.extents(number, Which::Tar, f.offset, f.length, f.crc32c).unwrap();
            assert_eq!(extents.iter().map(|e| e.len).sum::<u64>(), f.length);
            assert_eq!(extents.len() == 1, extents.iter().any(|e| e.crc == f.crc32c));
            let bytes = w.read(&extents).await;
            assert_eq!(granary_core::crc32c(&bytes), f.crc32c);
        }
        let tar = w.shards.extents(number, Which::Tar, 0, made.tar.len() as u64, 0).unwrap();
        assert!(w.read(&tar).await == made.tar, "the trailer too");
        let idx = w.shards.extents(number, Which::Index, 0, made.index.len() as u64, 0).unwrap();
        assert_eq!(w.read(&idx).await, made.index);
        for extent in tar.iter().chain(&idx) {
            let Place::Object { id, .. } = extent.place else { panic!("{extent:?}") };
            let info = w.shards.info(id).unwrap();
            decode_object(&w.store.get(&key(&info), 0..info.total_len).await.unwrap()).unwrap();
        }
        let past = w.shards.extents(number, Which::Tar, made.tar.len() as u64 - 1, 2, 0).unwrap_err();
        assert_eq!(past.kind(), Kind::Corrupt);
    }
}

#[tokio::test]
async fn damage_and_loss_name_the_shard() {
    let w = world().await;
    let piece = w.shards.following(ObjectId(0), 2)[1].object;
    let mut bad = w.made[0].tar.to_vec();
    bad[(15 << 20) + 200_000] ^= 1;
    w.place.put(&w.made[0].shard.path, Bytes::from(bad)).await.unwrap();
    let e = w.store.get(&key(&piece), 0..1 << 20).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Corrupt);
    assert!(
        e.to_string().contains("shards/000000.tar") && e.to_string().contains("15925248..15990784"),
        "{e}"
    );
    w.store.get(&key(&piece), 1 << 20..2 << 20).await.unwrap();

    w.place.store().delete(vec![w.made[0].shard.path.clone()]).await.unwrap();
    let e = w.store.get(&key(&piece), 0..10).await.unwrap_err();
    assert!(e.kind() == Kind::Corrupt && e.to_string().contains("shard shards/000000.tar"), "{e}");
    assert!(e.to_string().contains("is missing"), "{e}");
}

#[tokio::test]
async fn nothing_else_is_there_and_nothing_is_changed() {
    let w = world().await;
    let info = w.shards.following(ObjectId(0), 1)[0].object;
    let other = object_key(NamespaceId(8), info.kind, info.id);
    assert_eq!(w.store.get(&other, 0..1).await.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(w.store.put(&key(&info), vec![]).await.unwrap_err().kind(), Kind::ReadOnly);
    assert_eq!(w.store.delete(vec![key(&info)]).await.unwrap_err().kind(), Kind::ReadOnly);
    assert_eq!(w.shards.info(ObjectId(info.id.0 + 9)).unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn ids_are_of_one_namespace_one_shard_and_its_content() {
    let made = shard(0, &[file("a", b"1")]);
    let of = |ns, shard: &Shard| id_of(ns, &manifest(1, vec![made.shard.clone()]), shard, Which::Tar);
    let own = of(NS, &made.shard);
    assert_eq!(
        own,
        id_of(NS, &manifest(2, vec![made.shard.clone()]), &made.shard, Which::Tar),
        "in all versions"
    );
    assert_eq!(own.0 as u32, 0);
    for other in [
        of(NamespaceId(8), &made.shard),
        of(NS, &Shard { index_crc32c: 1, ..made.shard.clone() }),
        of(NS, &Shard { path: "shards/1.tar".into(), ..made.shard.clone() }),
        id_of(NS, &manifest(1, vec![made.shard.clone()]), &made.shard, Which::Index),
    ] {
        assert_ne!(own, other);
    }
}

#[test]
fn names_of_tars_are_unique() {
    let one = shard(0, &[file("a", b"1")]).shard;
    let with = |path: &str| Shard { path: path.into(), ..one.clone() };
    let names = file_names(&manifest(1, vec![with("x/a.tar"), with("b.tar"), with("y/a.tar")]));
    let names: Vec<&str> = names.iter().map(|(name, ..)| &**name).collect();
    assert_eq!(names, ["000000-a.gidx", "000000-a.tar", "000002-a.gidx", "000002-a.tar", "b.gidx", "b.tar"]);
}
