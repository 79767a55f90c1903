use std::sync::Arc;

use granary_packer::index::Index;
use granary_packer::manifest::Runs;

use super::*;
use crate::rig::{DATA_SET, file, manifest, owner, shard, tree_of};
use crate::shards::file_names;

const NS: NamespaceId = NamespaceId(3);

fn metadata(members: &[crate::rig::Member]) -> (tempfile::TempDir, PackedMetadata) {
    let dir = tempfile::tempdir().unwrap();
    let made = shard(0, members);
    let index = Index::from_bytes(made.index).unwrap();
    let of = manifest(1, vec![made.shard]);
    assert_eq!(of.data_set(), DATA_SET);
    let shards = Arc::new(Shards::new(NS, &of, [(index.clone(), dir.path().join("index"))]).unwrap());
    let bytes = index.header().payload_bytes;
    let tree = tree_of(dir.path(), &[(index, Runs::default())]);
    (dir, PackedMetadata::new(NS, tree, shards, file_names(&of), owner(), bytes))
}

fn name(text: &str) -> EntryName<'_> {
    EntryName::new(text.as_bytes()).unwrap()
}

#[tokio::test]
async fn every_change_is_refused() {
    let (_dir, meta) = metadata(&[file("a", b"1")]);
    let new =
        NewInode { kind: FileType::File, mode: 0, umask: 0, uid: 0, gid: 0, rdev: 0, target: Vec::new() };
    let root = Ino::ROOT;
    let a = meta.lookup(root, name("a")).await.unwrap().ino;
    let kinds = [
        meta.create(root, name("b"), new.clone(), true).await.unwrap_err().kind(),
        meta.tmpfile(root, new).await.unwrap_err().kind(),
        meta.link(a, root, name("b")).await.unwrap_err().kind(),
        meta.unlink(root, name("a")).await.unwrap_err().kind(),
        meta.rmdir(root, name("a")).await.unwrap_err().kind(),
        meta.rename(root, name("a"), root, name("b"), RenameMode::Replace).await.unwrap_err().kind(),
        meta.setattr(a, SetAttr { mode: Some(0), ..SetAttr::default() }).await.unwrap_err().kind(),
        meta.setxattr(a, b"user.a", b"", false, false).await.unwrap_err().kind(),
        meta.removexattr(a, b"user.a").await.unwrap_err().kind(),
    ];
    assert_eq!(kinds, [Kind::ReadOnly; 9]);
    assert_eq!(meta.getxattr(a, b"user.a").await.unwrap_err().kind(), Kind::NoAttribute);
    assert_eq!(meta.headroom(), 0);
    assert_eq!((meta.usage().bytes, meta.usage().inodes, meta.usage().bytes_max), (1, 2, 1));
}

#[tokio::test]
async fn shards_are_below_a_name_that_is_not_listed() {
    let (_dir, meta) = metadata(&[file("a", b"1")]);
    let listed = meta.readdir(Ino::ROOT, 0, 99, false).await.unwrap();
    assert_eq!(listed.iter().map(|e| &e.name[..]).collect::<Vec<_>>(), [b"a"]);
    let shards = meta.lookup(Ino::ROOT, name(".shards")).await.unwrap();
    assert_eq!((shards.kind, meta.parent(shards.ino).await.unwrap()), (FileType::Directory, Ino::ROOT));
    let first = meta.readdir(shards.ino, 0, 1, true).await.unwrap();
    let second = meta.readdir(shards.ino, first[0].cookie, 9, true).await.unwrap();
    let names: Vec<&[u8]> = first.iter().chain(&second).map(|e| &e.name[..]).collect();
    assert_eq!(names, [&b"000000.gidx"[..], b"000000.tar"]);
    assert_eq!(meta.readdir(shards.ino, second[0].cookie, 9, true).await.unwrap(), []);
    for entry in first.iter().chain(&second) {
        let attr = meta.getattr(entry.ino).await.unwrap();
        assert_eq!(entry.attr.as_ref(), Some(&attr));
        let found = meta.lookup(shards.ino, EntryName::new(&entry.name).unwrap()).await.unwrap();
        assert_eq!(found, attr);
        let (_, extents) = meta.extents(entry.ino).await.unwrap();
        assert_eq!(extents.iter().map(|e| e.len).sum::<u64>(), attr.size);
    }
    assert_eq!(meta.lookup(shards.ino, name("x")).await.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(meta.getattr(What::Tar(1).ino()).await.unwrap_err().kind(), Kind::Stale);
}

#[tokio::test]
async fn a_tree_that_has_the_name_shows_its_own() {
    let (_dir, meta) = metadata(&[file(".shards/mine", b"1")]);
    let own = meta.lookup(Ino::ROOT, name(".shards")).await.unwrap();
    assert_eq!(meta.readdir(own.ino, 0, 9, false).await.unwrap()[0].name, b"mine");
}
