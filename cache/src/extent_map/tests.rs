use super::*;
use granary_core::{NodeId, ObjectId, ObjectKind};
use proptest::prelude::*;

const SIZE: usize = 96;
const NODE: NodeId = NodeId(9);

/// A byte's place, spelled out: which source, and which byte of it.
type Byte = Option<(u64, u64)>;

fn place(source: u64, offset: u64) -> Place {
    match source % 3 {
        0 => Place::Log { node: NODE, segment: source, offset },
        1 => Place::Object { kind: ObjectKind::Pack, id: ObjectId(u128::from(source)), offset },
        _ => Place::StageFile { node: NODE },
    }
}

fn byte(place: Place, file_offset: u64) -> (u64, u64) {
    match place {
        Place::Log { segment, offset, .. } => (segment, offset),
        Place::Object { id, offset, .. } => (id.0 as u64, offset),
        Place::StageFile { .. } => (u64::MAX, file_offset),
    }
}

#[derive(Clone, Debug)]
enum Op {
    Replace { offset: u64, len: u64, source: u64, at: u64 },
    Cut { offset: u64, len: u64 },
    Relocate { offset: u64, len: u64, source: u64, at: u64, to: u64 },
}

fn op() -> impl Strategy<Value = Op> {
    let range = || (0u64..80, 0u64..16);
    prop_oneof![
        4 => (range(), 0u64..5, 0u64..40).prop_map(|((offset, len), source, at)| Op::Replace { offset, len, source, at }),
        1 => range().prop_map(|(offset, len)| Op::Cut { offset, len }),
        2 => (range(), 0u64..5, 0u64..40, 6u64..9).prop_map(|((offset, len), source, at, to)| {
            Op::Relocate { offset, len, source, at, to: to * 3 + 1 }
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn it_is_a_map_of_bytes(ops in proptest::collection::vec(op(), 0..40), ask in (0u64..90, 1u64..40)) {
        let mut map = ExtentMap::default();
        let mut plain: Vec<Byte> = vec![None; 200];
        for op in ops {
            match op {
                Op::Replace { offset, len, source, at } => {
                    map.replace(Extent { offset, len, place: place(source, at), crc: 7 });
                    for i in 0..len {
                        plain[(offset + i) as usize] = Some(byte(advance(place(source, at), i), offset + i));
                    }
                }
                Op::Cut { offset, len } => {
                    map.cut(offset..offset + len);
                    plain[offset as usize..(offset + len) as usize].fill(None);
                }
                Op::Relocate { offset, len, source, at, to } => {
                    map.relocate(&Extent { offset, len, place: place(source, at), crc: 7 }, place(to, 1000));
                    for i in 0..len {
                        let b = &mut plain[(offset + i) as usize];
                        if *b == Some(byte(advance(place(source, at), i), offset + i)) {
                            *b = Some(byte(advance(place(to, 1000), i), offset + i));
                        }
                    }
                }
            }
        }
        let mut seen: Vec<Byte> = vec![None; 200];
        let (mut covered, mut staged, mut last_end) = (0, 0, 0);
        for e in map.iter() {
            prop_assert!(e.len > 0 && e.offset >= last_end);
            last_end = e.end();
            covered += e.len;
            staged += if matches!(e.place, Place::StageFile { .. }) { e.len } else { 0 };
            for i in 0..e.len {
                seen[(e.offset + i) as usize] = Some(byte(advance(e.place, i), e.offset + i));
            }
        }
        prop_assert_eq!(&seen, &plain);
        prop_assert_eq!((map.covered(), map.staged()), (covered, staged));

        let (offset, len) = ask;
        let mut at = offset;
        for piece in map.resolve(offset, len) {
            match piece {
                Piece::Hole { offset: o, len } => {
                    prop_assert_eq!(o, at);
                    prop_assert!(plain[o as usize..(o + len) as usize].iter().all(Option::is_none));
                }
                Piece::Data { part, whole } => {
                    prop_assert_eq!(part.offset, at);
                    prop_assert!(whole.offset <= part.offset && part.end() <= whole.end());
                    for i in 0..part.len {
                        prop_assert_eq!(plain[(at + i) as usize], Some(byte(advance(part.place, i), at + i)));
                    }
                }
            }
            at += piece.len();
        }
        prop_assert_eq!(at, offset + len);
        let data = (offset as usize..200).find(|&i| plain[i].is_some()).map(|i| i as u64);
        prop_assert_eq!(map.next_data(offset), data);
        let hole = (offset as usize..200).find(|&i| plain[i].is_none()).unwrap() as u64;
        prop_assert_eq!(map.next_hole(offset), hole);
    }
}

#[test]
fn a_whole_extent_keeps_its_checksum_and_a_part_has_none() {
    let mut map = ExtentMap::default();
    map.replace(Extent { offset: 0, len: 10, place: place(0, 0), crc: 5 });
    assert_eq!(map.within(0..10)[0].crc, 5);
    assert_eq!(map.within(0..9)[0].crc, 0);
    map.cut(4..5);
    assert_eq!(map.iter().map(|e| e.crc).collect::<Vec<_>>(), [0, 0]);
}

#[test]
fn neighbours_in_one_object_or_stage_file_join_and_records_do_not() {
    let mut map = ExtentMap::default();
    for (source, joined) in [(0, 8), (1, 1), (2, 1)] {
        map.cut(0..SIZE as u64);
        for i in [0, 2, 1, 3, 7, 6, 5, 4] {
            map.replace(Extent { offset: i * 4, len: 4, place: place(source, i * 4), crc: 1 });
        }
        assert_eq!(map.len(), joined);
    }
}
