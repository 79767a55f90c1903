use proptest::prelude::*;

use super::*;
use granary_core::Kind;

fn file<'a>(path: &'a [u8], size: u64) -> Entry<'a> {
    Entry { path, target: b"", kind: b'0', size, mode: 0o640, mtime: 1_700_000_000, uid: 1000, gid: 100 }
}

fn read_all(tar: &[u8]) -> granary_core::Result<Vec<(Member, Vec<u8>)>> {
    let mut members = Members::new(tar, "x.tar");
    let mut all = Vec::new();
    while let Some(member) = members.next_member()? {
        let mut payload = vec![0; member.size.min(1 << 20) as usize];
        let mut filled = 0;
        while filled < payload.len() {
            filled += members.read(&mut payload[filled..])?;
        }
        all.push((member, payload));
    }
    Ok(all)
}

fn written(entries: &[(Entry<'_>, Vec<u8>)]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (entry, payload) in entries {
        encode(entry, &mut tar).unwrap();
        tar.extend_from_slice(payload);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.extend_from_slice(&END);
    tar
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        names in proptest::collection::vec("[a-c]{1,40}(/[a-dé]{1,90}){0,4}", 0..8),
        mode in 0..0o10000u32, mtime: i64, uid: u32, gid: u32, target in "[a-z/]{1,300}",
    ) {
        let entries: Vec<_> = names.iter().enumerate().map(|(n, name)| {
            let (kind, target) = if n % 3 == 2 { (b'2', target.as_bytes()) } else { (b'0', &b""[..]) };
            let payload = vec![n as u8; if kind == b'0' { n * 700 } else { 0 }];
            (Entry { path: name.as_bytes(), target, kind, size: payload.len() as u64, mode, mtime, uid, gid }, payload)
        }).collect();
        let all = read_all(&written(&entries)).unwrap();
        prop_assert_eq!(all.len(), entries.len());
        for ((member, got), (entry, payload)) in all.iter().zip(&entries) {
            prop_assert_eq!(got, payload);
            prop_assert_eq!((&member.path[..], &member.target[..], member.kind, member.mode), (entry.path, entry.target, entry.kind, entry.mode));
            prop_assert_eq!((member.mtime, member.uid, member.gid), (entry.mtime, entry.uid, entry.gid));
        }
    }

    #[test]
    fn hostile_tars_are_refused(changes in proptest::collection::vec((0..4096usize, any::<u8>()), 0..20), fix: bool) {
        let long = [b'a'; 200];
        let mut tar = written(&[(file(b"a/b", 600), vec![1; 600]), (file(&long, 3), vec![2; 3])]);
        for (at, value) in changes {
            let at = at % tar.len();
            tar[at] = value;
        }
        if fix {
            for at in (0..tar.len()).step_by(512) {
                let block: &[u8; 512] = tar[at..at + 512].try_into().unwrap();
                let sum = format!("{:06o}\0 ", checksum(block));
                tar[at + 148..at + 156].copy_from_slice(sum.as_bytes());
            }
        }
        let _ = read_all(&tar);
    }

    #[test]
    fn numbers_of_any_size(value: i64) {
        let mut field = [0; 12];
        number::put(&mut field, value);
        prop_assert_eq!(number::get(&field), Some(value));
    }
}

#[test]
fn numbers_as_other_programs_write_them() {
    assert_eq!(number::get(b"0000644\0"), Some(0o644));
    assert_eq!(number::get(b"   644 \0"), Some(0o644));
    assert_eq!(number::get(b"00000000017\x20"), Some(15));
    assert_eq!(number::get(b"\0\0\0\0"), Some(0));
    assert_eq!(number::get(b"12z\0"), None);
    assert_eq!(number::get(&[0xff; 12]), Some(-1));
    assert_eq!(number::get(&[0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0]), Some(8 << 30));
    assert_eq!(number::get(&[0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), None);
}

#[test]
fn long_paths_are_split_at_a_slash_or_come_before() {
    let short = [b'a'; 100];
    let split = [&[b'p'; 155][..], b"/", &[b'n'; 100]].concat();
    let long = [&[b'p'; 156][..], b"/", &[b'n'; 100]].concat();
    for (path, blocks) in [(&short[..], 1), (&split[..], 1), (&long[..], 3), (&[b'x'; 101][..], 3)] {
        let mut out = Vec::new();
        encode(&file(path, 0), &mut out).unwrap();
        assert_eq!(out.len(), blocks * 512, "{}", path.len());
        assert_eq!(read_all(&[&out[..], &END].concat()).unwrap()[0].0.path, path);
    }
    let e = encode(&file(&[b'x'; 5000], 0), &mut Vec::new()).unwrap_err();
    assert_eq!(e.kind(), Kind::NameTooLong);
}

#[test]
fn sizes_over_eight_gibibytes_are_said_in_base_256() {
    let mut out = Vec::new();
    encode(&file(b"big", 9 << 30), &mut out).unwrap();
    let block: &[u8; 512] = out[..].try_into().unwrap();
    let Step::Member(member) = Parser::default().block(block).unwrap() else { panic!("no member") };
    assert_eq!(member.size, 9 << 30);
}

/// A header of another program: fields set by hand.
fn raw(name: &[u8], kind: u8, size: &str, magic: &[u8]) -> Vec<u8> {
    let mut block = [0u8; 512];
    block[..name.len()].copy_from_slice(name);
    block[100..107].copy_from_slice(b"0000644");
    block[124..124 + size.len()].copy_from_slice(size.as_bytes());
    block[156] = kind;
    block[257..257 + magic.len()].copy_from_slice(magic);
    let sum = format!("{:06o}\0 ", checksum(&block));
    block[148..156].copy_from_slice(sum.as_bytes());
    block.to_vec()
}

fn pax(records: &str) -> Vec<u8> {
    let mut out = raw(b"PaxHeaders/x", b'x', &format!("{:011o}", records.len()), b"ustar\x0000");
    out.extend_from_slice(records.as_bytes());
    out.resize(out.len().next_multiple_of(512), 0);
    out
}

#[test]
fn v7_gnu_and_pax_are_read() {
    let v7 = [raw(b"./d/", 0, "0", b""), raw(b"./d/f", 0, "0", b""), END.to_vec()].concat();
    let all = read_all(&v7).unwrap();
    assert_eq!((all[0].0.kind, &all[0].0.path[..]), (b'5', &b"d"[..]));
    assert_eq!((all[1].0.kind, &all[1].0.path[..]), (b'0', &b"d/f"[..]));

    let records = "17 path=a/\u{e9}.jpg\n99 mtime=-12.25\n";
    let tar = [pax(records), raw(b"short", b'0', "0", b"ustar\x0000"), END.to_vec()].concat();
    let e = read_all(&tar).unwrap_err();
    assert!(e.to_string().contains("x.tar at byte 0: "), "{e}");

    let records = "17 path=a/\u{e9}.jpg\n16 mtime=-12.25\n10 size=3\n";
    let tar =
        [pax(records), raw(b"short", b'0', "0", b"ustar\x0000"), vec![b'x'; 3], vec![0; 509], END.to_vec()];
    let all = read_all(&tar.concat()).unwrap();
    assert_eq!(
        (&all[0].0.path[..], all[0].0.mtime, &all[0].1[..]),
        ("a/\u{e9}.jpg".as_bytes(), -13, &b"xxx"[..])
    );
}

#[test]
fn what_an_index_cannot_say_is_refused_with_the_mend() {
    for (tar, why) in [
        (raw(b"holes", b'S', "0", b"ustar  \0"), "sparse file"),
        ([pax("22 GNU.sparse.major=1\n"), raw(b"holes", b'0', "0", b"ustar\x0000")].concat(), "sparse file"),
        (raw(b"part", b'M', "0", b"ustar  \0"), "several volumes"),
        (raw(b"what", b'Z', "0", b"ustar  \0"), "unknown type 'Z'"),
    ] {
        let e = read_all(&[tar, END.to_vec()].concat()).unwrap_err();
        assert_eq!(e.kind(), Kind::Unsupported);
        assert!(e.to_string().contains(why) && e.to_string().contains("`granary pack`"), "{e}");
    }
}

#[test]
fn every_cut_is_found() {
    let tar = written(&[(file(b"a", 600), vec![1; 600])]);
    for end in 0..tar.len() {
        let e = read_all(&tar[..end]).unwrap_err();
        assert!(e.kind() == Kind::Corrupt && e.to_string().contains("x.tar is cut"), "{end}: {e}");
    }
    assert_eq!(read_all(&[&tar[..], b"anything after the end"].concat()).unwrap().len(), 1);
}
