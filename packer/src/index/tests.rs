use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
struct Made {
    path: Vec<u8>,
    length: u64,
    crc: u32,
    mode: u32,
    mtime: i64,
    uid: u32,
}

fn made() -> impl Strategy<Value = Made> {
    let path = "[ab]{1,2}(/[abc]{1,3})?[.]?[xy]{0,2}";
    (path, 0..5000u64, any::<u32>(), 0..0o10000u32, any::<i64>(), 0..3u32).prop_map(
        |(path, length, crc, mode, mtime, uid)| Made {
            path: path.into_bytes(),
            length,
            crc,
            mode,
            mtime,
            uid,
        },
    )
}

fn build(all: &[Made]) -> Result<Sealed> {
    let mut builder = Builder::new(Grouping::Stem, &std::env::temp_dir());
    let mut at = 512;
    for m in all {
        builder.push(&NewFile {
            path: &m.path,
            offset: at,
            length: m.length,
            crc32c: m.crc,
            mode: m.mode,
            mtime: m.mtime,
            uid: m.uid,
            gid: 7,
        })?;
        at += m.length.next_multiple_of(512) + 512;
    }
    builder.push_other(&NewOther {
        path: b"dir/link",
        target: b"../to",
        kind: b'2',
        mode: 0o777,
        mtime: -1,
        uid: 9,
        gid: 9,
    })?;
    builder.seal(at + 1024)
}

fn distinct(all: Vec<Made>) -> Vec<Made> {
    let mut seen = std::collections::HashSet::new();
    all.into_iter().filter(|m| seen.insert(m.path.clone())).collect()
}

proptest! {
    #[test]
    fn what_is_built_is_read(all in proptest::collection::vec(made(), 0..60)) {
        let all = distinct(all);
        let sealed = build(&all).unwrap();
        let bytes = sealed.to_bytes().unwrap();
        prop_assert_eq!(bytes.len() as u64, sealed.bytes());
        let index = Index::from_bytes(bytes).unwrap();
        index.verify().unwrap();
        prop_assert_eq!(index.crc32c(), sealed.crc32c());
        prop_assert_eq!(index.file_count() as usize, all.len());
        let mut at = 512;
        let mut sample = None;
        for (n, m) in all.iter().enumerate() {
            let file = index.file(n as u32).unwrap();
            let key = Grouping::Stem.split(&m.path).0.to_vec();
            if sample.as_ref().is_none_or(|(_, before)| *before != key) {
                sample = Some((sample.map_or(0, |(n, _)| n + 1), key.clone()));
            }
            prop_assert_eq!(file, File {
                path: &m.path, offset: at, length: m.length, crc32c: m.crc,
                sample: sample.as_ref().unwrap().0, mode: m.mode, mtime: m.mtime, uid: m.uid, gid: 7,
            });
            prop_assert_eq!(index.sample_key(file.sample).unwrap(), &key[..]);
            prop_assert!(index.sample(file.sample).unwrap().contains(&(n as u32)));
            prop_assert!(index.sample_span(file.sample).unwrap().contains(&at) || m.length == 0);
            prop_assert_eq!(index.find(&m.path).unwrap(), Some(n as u32));
            at += m.length.next_multiple_of(512) + 512;
        }
        prop_assert_eq!(index.sample_count(), sample.map_or(0, |(n, _)| n + 1));
        prop_assert_eq!(index.find(b"not there").unwrap(), None);
        let sorted: BTreeMap<_, _> = all.iter().map(|m| m.path.clone()).zip(0u32..).collect();
        let places: Vec<u32> = (0..index.file_count()).map(|n| index.sorted(n).unwrap()).collect();
        prop_assert_eq!(places, sorted.into_values().collect::<Vec<_>>());
        let other = index.other(0).unwrap();
        prop_assert_eq!((other.path, other.target, other.kind, other.files_before), (&b"dir/link"[..], &b"../to"[..], b'2', all.len() as u32));
        prop_assert!(index.file(index.file_count()).is_err() && index.sample(index.sample_count()).is_err());
    }

    /// Whatever was changed, with all checksums made anew: errors, never a panic.
    #[test]
    fn hostile_indexes_are_refused(
        all in proptest::collection::vec(made(), 1..20),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
    ) {
        let mut bytes = build(&distinct(all)).unwrap().to_bytes().unwrap().to_vec();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        reseal(&mut bytes);
        if let Ok(index) = Index::from_bytes(bytes.into()) {
            touch(&index);
        }
    }
}

/// Makes the checksums those of what is there, as somebody who means harm would.
fn reseal(bytes: &mut [u8]) {
    let crc = granary_core::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    let Ok(header) = Header::decode(bytes) else { return };
    let (body, sums) = (header.layout().body(), header.layout().sums());
    for (n, at) in (body.start..body.end).step_by(body::BLOCK_BYTES as usize).enumerate() {
        let end = (at + body::BLOCK_BYTES).min(body.end);
        let crc = granary_core::crc32c(&bytes[at as usize..end as usize]);
        bytes[sums.start as usize + n * 4..][..4].copy_from_slice(&crc.to_le_bytes());
    }
    let sums_crc = granary_core::crc32c(&bytes[sums.start as usize..]);
    bytes[56..60].copy_from_slice(&sums_crc.to_le_bytes());
    let crc = granary_core::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
}

fn touch(index: &Index) {
    let _ = index.verify();
    for n in 0..index.file_count().min(100) {
        let _ = (index.file(n), index.sorted(n));
    }
    for n in 0..index.sample_count().min(100) {
        let _ = (index.sample(n), index.sample_span(n), index.sample_key(n));
    }
    for n in 0..index.other_count().min(100) {
        let _ = index.other(n);
    }
    let _ = index.find(b"a/b.x");
}

fn some() -> Vec<Made> {
    (0..5000u32)
        .map(|n| Made {
            path: format!("train/{:05}.{}", n / 2, ["cls", "jpg"][n as usize % 2]).into_bytes(),
            length: 10,
            crc: n,
            mode: 0o644,
            mtime: 0,
            uid: 0,
        })
        .collect()
}

#[test]
fn every_flipped_bit_is_found() {
    let good = build(&some()).unwrap().to_bytes().unwrap();
    assert_eq!(Index::from_bytes(good.clone()).unwrap().sample_count(), 2500);
    for at in (0..good.len()).step_by(997) {
        let mut bad = good.to_vec();
        bad[at] ^= 1 << (at % 8);
        let found = Index::from_bytes(bad.into()).and_then(|index| index.verify());
        assert_eq!(found.unwrap_err().kind(), Kind::Corrupt, "byte {at}");
    }
}

#[test]
fn a_flipped_bit_harms_only_what_lies_beside_it() {
    let good = build(&some()).unwrap().to_bytes().unwrap();
    let mut bad = good.to_vec();
    bad[70] ^= 1;
    let index = Index::from_bytes(bad.into()).unwrap();
    let e = index.file(0).unwrap_err();
    assert!(e.kind() == Kind::Corrupt && e.to_string().contains("64..65600 do not match"), "{e}");
    assert_eq!(index.sample(2400).unwrap(), 4800..4802);
}

#[test]
fn every_cut_is_found() {
    let good = build(&some()[..20]).unwrap().to_bytes().unwrap();
    for end in 0..good.len() {
        assert_eq!(Index::from_bytes(good.slice(..end)).unwrap_err().kind(), Kind::Corrupt);
    }
    let longer = [&good[..], b"x"].concat();
    assert!(Index::from_bytes(Bytes::from(longer)).is_err());
}

#[test]
fn what_is_twice_there_is_told() {
    let mut all = some()[..4].to_vec();
    all.push(all[1].clone());
    let e = build(&all).unwrap_err();
    assert_eq!(e.kind(), Kind::Exists);
    assert!(
        e.to_string().contains("\"train/00000.jpg\" is twice in the shard, as file 1 and as file 4"),
        "{e}"
    );
}

#[test]
fn large_ones_are_built_by_way_of_the_disk_and_mapped() {
    let dir = tempfile::tempdir().unwrap();
    let mut builder = Builder::new(Grouping::Stem, dir.path());
    let count = limits_files();
    for n in 0..count {
        builder
            .push(&NewFile {
                path: format!("{:07}.bin", (n * 7919) % count).as_bytes(),
                offset: u64::from(n) * 1024 + 512,
                length: 1,
                crc32c: 0,
                mode: 0,
                mtime: 0,
                uid: 0,
                gid: 0,
            })
            .unwrap();
    }
    let sealed = builder.seal(u64::from(count) * 1024 + 1024).unwrap();
    assert!(matches!(sealed.parts.files, spool::Spooled::Mapped(_)));
    let path = dir.path().join("x.gidx");
    sealed.write_to(&mut std::fs::File::create(&path).unwrap()).unwrap();
    drop(sealed);
    let index = Index::open(&path).unwrap();
    index.verify().unwrap();
    assert_eq!(index.file(index.find(b"0000003.bin").unwrap().unwrap()).unwrap().path, b"0000003.bin");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

/// Enough that the section of files does not stay in memory; no multiple of 7,919.
fn limits_files() -> u32 {
    (crate::limits::SPOOL_MEMORY_BYTES_MAX / record::FILE_BYTES) as u32 + 10
}

#[test]
fn a_missing_index_is_told_with_the_mend() {
    let e = Index::open(Path::new("/nonexistent/x.gidx")).unwrap_err();
    assert!(e.kind() == Kind::NotFound && e.to_string().contains("`granary index`"), "{e}");
}

/// Resident bytes of the mappings of a file.
fn resident_bytes(path: &std::path::Path) -> u64 {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let (mut is_ours, mut sum) = (false, 0);
    for line in maps.lines() {
        let first = line.split_whitespace().next().unwrap_or_default();
        if !first.ends_with(':') {
            is_ours = line.ends_with(path.to_str().unwrap());
        } else if first == "Rss:" && is_ours {
            let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
            sum += kib << 10;
        }
    }
    sum
}

#[test]
fn large_indexes_take_memory_within_their_bound() {
    const FILES: u32 = 200_000;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large.gidx");
    let mut builder = Builder::new(Grouping::Stem, dir.path());
    // Not in the order of their names.
    let name = |n: u32| format!("train/{:08}.jpg", u64::from(n) * 7919 % u64::from(FILES));
    for n in 0..FILES {
        builder
            .push(&NewFile {
                path: name(n).as_bytes(),
                offset: 512 + u64::from(n) * 1024,
                length: 300,
                crc32c: n,
                mode: 0o644,
                mtime: 0,
                uid: 0,
                gid: 0,
            })
            .unwrap();
    }
    let sealed = builder.seal(u64::from(FILES) * 1024 + 1024).unwrap();
    sealed.write_to(&mut std::io::BufWriter::new(std::fs::File::create(&path).unwrap())).unwrap();
    let within = Resident::new(INDEX_RESIDENT_BYTES_MAX);
    // As many as would take ten times the bound.
    let indexes: Vec<Index> = (0..15).map(|_| Index::open_within(&path, &within).unwrap()).collect();
    let opened = resident_bytes(&path);
    let all: u64 = indexes.iter().map(Index::bytes).sum();
    let mut most = 0;
    let mut look = |index: &Index, n: u32| {
        assert_eq!(index.find(name(n).as_bytes()).unwrap(), Some(n));
        assert_eq!(index.file(n).unwrap().crc32c, n);
        most = most.max(resident_bytes(&path));
    };
    for n in (0..FILES).step_by(FILES as usize / 200) {
        look(&indexes[n as usize / 1000 % 15], n);
    }
    for n in 0..FILES {
        assert_eq!(indexes[0].file(n).unwrap().crc32c, n);
    }
    let read = resident_bytes(&path);
    indexes[..2].iter().for_each(|index| index.verify().unwrap());
    let verified = resident_bytes(&path);
    // What was checked is looked at without being checked.
    for n in (1..FILES).step_by(FILES as usize / 200) {
        look(&indexes[n as usize / 1000 % 2], n);
    }
    println!("of {all} bytes: opened {opened}, at most {most}, each read {read}, verified {verified}");
    assert!(all > 10 * INDEX_RESIDENT_BYTES_MAX && opened > 0 && verified <= 8 << 20);
    for resident in [opened, most, read, verified] {
        assert!(resident <= INDEX_RESIDENT_BYTES_MAX, "{resident}");
    }
    // What was given back is read again.
    assert_eq!(indexes[3].path(FILES / 2).unwrap(), name(FILES / 2).as_bytes());
}
