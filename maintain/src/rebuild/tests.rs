use granary_meta::engine::RocksEngine;

use super::*;
use crate::finding::Findings;
use crate::fsck::{self, FsckOptions};
use crate::rig::{Rig, Staged, info};

struct Remade {
    report: RebuildReport,
    volume: Arc<Volume>,
    _dir: tempfile::TempDir,
}

impl Remade {
    async fn of(rig: &Rig) -> Remade {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("meta");
        let clock: Arc<dyn Clock> = rig.clock.clone();
        let report = run(&*rig.store, &folder, clock.clone(), &info(), &rig.progress()).await.unwrap();
        let engine = RocksEngine::open(&folder).unwrap();
        Remade { report, volume: Volume::open(engine, clock, &Limits::default()).unwrap(), _dir: dir }
    }

    fn space(&self, ns: NamespaceId) -> Arc<LocalNamespace> {
        self.volume.namespace_by_id(ns).unwrap()
    }

    /// A file's bytes as its extents tell; `None` where nobody has them.
    async fn bytes(&self, rig: &Rig, ns: NamespaceId, path: &str) -> Vec<Option<u8>> {
        let space = self.space(ns);
        let mut ino = Ino::ROOT;
        for name in path.split('/') {
            ino = space.lookup(ino, EntryName::new(name.as_bytes()).unwrap()).await.unwrap().ino;
        }
        let (attr, extents) = space.extents(ino).await.unwrap();
        let mut bytes = vec![None; attr.size as usize];
        for e in extents {
            let Place::Object { kind, id, offset } = e.place else { continue };
            let key = granary_core::id::object_key(ns, kind, id);
            let object = rig.store.object(&key).unwrap();
            for i in 0..e.len {
                bytes[(e.offset + i) as usize] = Some(object[(offset + i) as usize]);
            }
        }
        bytes
    }
}

fn some(bytes: &[u8]) -> Vec<Option<u8>> {
    bytes.iter().copied().map(Some).collect()
}

/// New bytes of a file that is there.
fn again(file: &Staged, bytes: &[u8]) -> Staged {
    let extent = Extent { len: bytes.len() as u64, crc: granary_core::crc32c(bytes), ..file.extent };
    Staged { ino: file.ino, bytes: bytes.to_vec(), extent }
}

#[tokio::test]
async fn files_come_back_with_their_newest_bytes() {
    let rig = Rig::new();
    let (f, g) = (rig.staged(Ino::ROOT, "f", b"old bytes"), rig.staged(Ino::ROOT, "g", b"g's bytes"));
    rig.put(&rig.pack(&[again(&f, b"old bytes"), g]).0);
    rig.later(10);
    rig.put(&rig.pack(&[again(&f, b"new")]).0);
    rig.later(10);
    // Another inode took the name later.
    let h = rig.staged(Ino::ROOT, "h", b"the newest f");
    rig.put(&rig.pack(&[h]).0);

    let remade = Remade::of(&rig).await;
    let ns = rig.ns;
    let r = &remade.report.namespaces[0];
    assert_eq!(
        (r.namespace.clone(), r.files, r.objects, r.renamed_files),
        (format!("dataset/rebuilt-{ns}"), 3, 3, 2)
    );
    assert_eq!((r.nameless_files, r.files_with_gaps, r.superseded_objects), (0, 0, 0));
    // All three had the hint `f` in the root: the newest has it.
    assert_eq!(remade.bytes(&rig, ns, "f").await, some(b"the newest f"));
    let older = format!("f.inode-{}", f.ino);
    assert_eq!(remade.bytes(&rig, ns, &older).await, some(b"new bytes"));
    assert_eq!(remade.space(ns).check().unwrap(), []);
    let all = FsckOptions { data: true, ..FsckOptions::default() };
    let report = fsck::run(&remade.volume, &*rig.store, &[], all, &rig.progress()).await.unwrap();
    assert_eq!(report.findings, Findings::default());
    // No inode number and no namespace id is given again.
    let space = remade.space(ns);
    let made = space.lookup(Ino::ROOT, EntryName::new(b"f").unwrap()).await.unwrap();
    assert!(made.ino.0 > SKIPPED && made.mode == 0o600);
    assert_eq!(made.mtime, Timestamp { secs: 1_000_020, nanos: 0 });
    assert!(remade.volume.create_namespace(crate::rig::named("user/b")).unwrap().id.0 > NAMESPACES_SKIPPED);
    drop(space);
    remade.volume.shutdown().unwrap();
}

#[tokio::test]
async fn what_no_object_has_is_nowhere_and_damage_is_told() {
    use granary_store::format::{BlockBuilder, BlockInfo, NewEntry, PackBuilder};
    let rig = Rig::new();
    let block = |n: u128, at: u64, bytes: &'static [u8]| {
        let info = BlockInfo { ino: Ino(50), file_offset: at, version: 1 };
        let mut block = BlockBuilder::new(rig.ns, ObjectId(n), info);
        block.push(bytes.into()).unwrap();
        rig.put(&block.seal().unwrap())
    };
    block(1, 0, b"front");
    block(2, 8, b"back");
    let lost = block(3, 5, b"mid");
    let mut bytes = rig.store.object(&lost).unwrap().to_vec();
    let at = bytes.len() - 50;
    bytes[at] ^= 1;
    rig.store.tamper(&lost, bytes.into());
    let mut pack = PackBuilder::new(rig.ns, ObjectId(4));
    for (ino, name, parent) in [(60, &b"x"[..], 9), (61, b"a/b", 9), (62, b"y", 0)] {
        let entry = NewEntry {
            ino: Ino(ino),
            parent: Ino(parent),
            file_offset: 0,
            crc: granary_core::crc32c(b"z"),
            name: name.to_vec(),
        };
        pack.push(entry, vec!["z".into()]).unwrap();
    }
    rig.put(&pack.seal().unwrap());
    rig.store.put(&format!("ns/{}/x", rig.ns), vec!["strange".into()]).await.unwrap();

    let remade = Remade::of(&rig).await;
    let ns = rig.ns;
    let expected: Vec<_> = [some(b"front"), vec![None; 3], some(b"back")].concat();
    assert_eq!(remade.bytes(&rig, ns, &format!("nameless/inode-{}", Ino(50))).await, expected);
    assert_eq!(remade.bytes(&rig, ns, &format!("directory-{}/x", Ino(9))).await, some(b"z"));
    let r = &remade.report.namespaces[0];
    assert_eq!((r.files, r.nameless_files, r.files_with_gaps), (4, 3, 1));
    assert_eq!(remade.report.damaged_objects, 1);
    assert!(remade.report.damaged[0].starts_with(&lost), "{:?}", remade.report.damaged);
    assert_eq!(remade.space(ns).check().unwrap(), []);
    remade.volume.shutdown().unwrap();
}
