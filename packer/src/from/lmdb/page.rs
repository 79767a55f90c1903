//! Pages of an LMDB data file, without I/O. The tables are in [`lmdb`](super).

use std::ops::Range;

/// Bytes before what a page holds.
pub const HEADER_BYTES: usize = 16;
/// Bytes of a meta page that are looked at.
pub const META_BYTES: usize = 152;
/// Deeper trees are taken for damage: LMDB's own cursors go no deeper.
const DEPTH_MAX: u16 = 32;
const PAGE_BYTES: Range<u32> = 256..65_537;
const NODE_BYTES: usize = 8;
const NONE: u64 = u64::MAX;

const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
const OVERFLOW: u16 = 0x04;
const KIND: u16 = 0x7f;

const BIG: u16 = 0x01;
const SUB_DATABASE: u16 = 0x02;
const DUPLICATES: u16 = 0x04;

/// Why something is none.
pub type Why = &'static str;

/// What a meta page says of the main database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    pub page_bytes: u32,
    /// `None`: it is empty.
    pub root: Option<u64>,
    pub depth: u16,
    pub entries: u64,
    pub last_page: u64,
    /// The number of the transaction that wrote it.
    pub transaction: u64,
    /// Keys are a machine's integers.
    pub integer_keys: bool,
}

/// Reads one of the two meta pages, from its first byte on.
pub fn meta(page: &[u8]) -> Result<Meta, Why> {
    if page.len() < META_BYTES || u32_at(page, 16) != 0xbeef_c0de {
        return Err("it is no LMDB data file of a little-endian machine");
    }
    if u32_at(page, 20) != 1 {
        return Err("its format is not LMDB's version 1, of LMDB 0.9");
    }
    let (free, main) = (&page[40..88], &page[88..136]);
    let page_bytes = u32_at(free, 0);
    let (flags, depth) = (u16_at(main, 4), u16_at(main, 6));
    let root = u64_at(main, 40);
    let meta = Meta {
        page_bytes,
        root: (root != NONE).then_some(root),
        depth,
        entries: u64_at(main, 32),
        last_page: u64_at(page, 136),
        transaction: u64_at(page, 144),
        integer_keys: flags & 0x08 != 0,
    };
    if !page_bytes.is_power_of_two() || !PAGE_BYTES.contains(&page_bytes) {
        return Err("the size of its pages is impossible");
    }
    if depth > DEPTH_MAX
        || (meta.root.is_none()) != (depth == 0)
        || meta.root.is_some_and(|r| r > meta.last_page)
    {
        return Err("its root is impossible");
    }
    Ok(meta)
}

/// A page of the tree.
#[derive(Debug, PartialEq, Eq)]
pub enum Page {
    /// The pages below, in the order of their keys.
    Branch(Vec<u64>),
    Leaf(Vec<Node>),
}

/// One key and where its value is.
#[derive(Debug, PartialEq, Eq)]
pub struct Node {
    /// In the page.
    pub key: Range<usize>,
    pub length: u32,
    pub value: Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// From this byte of the page on.
    Here(usize),
    /// On pages of its own, from this one on, behind their header.
    Pages(u64),
    /// It is no value, and what it is.
    Other(Why),
}

/// Reads a page of the tree: all of its bytes, and the number it should have.
pub fn parse(page: &[u8], number: u64) -> Result<Page, Why> {
    if page.len() < HEADER_BYTES || u64_at(page, 0) != number {
        return Err("it does not have its own number");
    }
    let (flags, lower, upper) =
        (u16_at(page, 10), usize::from(u16_at(page, 12)), usize::from(u16_at(page, 14)));
    // Of pages of 64 KiB the end does not fit into 16 bits.
    let upper = if upper == 0 && page.len() == 1 << 16 { page.len() } else { upper };
    if lower < HEADER_BYTES || !lower.is_multiple_of(2) || lower > upper || upper > page.len() {
        return Err("its bounds are impossible");
    }
    let nodes = page[HEADER_BYTES..lower].chunks_exact(2).map(|at| usize::from(u16_at(at, 0)));
    match flags & KIND & !0x10 {
        BRANCH => nodes.map(|at| below(page, at)).collect::<Result<_, _>>().map(Page::Branch),
        LEAF => nodes.map(|at| node(page, at)).collect::<Result<_, _>>().map(Page::Leaf),
        _ => Err("it is no page of a tree of keys"),
    }
}

/// Whether the first bytes of the page are those before a value of this length. `page_bytes`: of all pages.
pub fn is_overflow(head: &[u8], number: u64, length: u32, page_bytes: u32) -> bool {
    let bytes = HEADER_BYTES as u64 + u64::from(length);
    head.len() >= HEADER_BYTES
        && u64_at(head, 0) == number
        && u16_at(head, 10) & KIND & !0x10 == OVERFLOW
        && u64::from(u32_at(head, 12)) * u64::from(page_bytes) >= bytes
}

fn below(page: &[u8], at: usize) -> Result<u64, Why> {
    let head = page.get(at..at + NODE_BYTES).filter(|_| at >= HEADER_BYTES).ok_or(OUTSIDE)?;
    Ok(u64::from(u16_at(head, 0)) | u64::from(u16_at(head, 2)) << 16 | u64::from(u16_at(head, 4)) << 32)
}

const OUTSIDE: Why = "a key lies outside of it";

fn node(page: &[u8], at: usize) -> Result<Node, Why> {
    let head = page.get(at..at + NODE_BYTES).filter(|_| at >= HEADER_BYTES).ok_or(OUTSIDE)?;
    let length = u32::from(u16_at(head, 0)) | u32::from(u16_at(head, 2)) << 16;
    let (flags, key_bytes) = (u16_at(head, 4), usize::from(u16_at(head, 6)));
    let key = at + NODE_BYTES..at + NODE_BYTES + key_bytes;
    if key.end > page.len() || key.is_empty() {
        return Err(OUTSIDE);
    }
    let data = key.end;
    let value = if flags & SUB_DATABASE != 0 {
        Value::Other("a named database; the main one alone is packed")
    } else if flags & DUPLICATES != 0 {
        Value::Other("a key with several values (MDB_DUPSORT), which would be one name with several contents")
    } else if flags & BIG != 0 {
        let first = page.get(data..data + 8).ok_or(OUTSIDE)?;
        Value::Pages(u64_at(first, 0))
    } else if data + length as usize <= page.len() {
        Value::Here(data)
    } else {
        return Err("a value lies outside of it");
    };
    Ok(Node { key, length, value })
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A leaf of these keys and small values, as LMDB lays it out: nodes from the end on, each at an even place.
    fn leaf(number: u64, pairs: &[(&[u8], &[u8])]) -> Vec<u8> {
        let mut page = vec![0; 4096];
        page[..8].copy_from_slice(&number.to_le_bytes());
        page[10] = LEAF as u8;
        let mut upper = page.len();
        for (n, (key, value)) in pairs.iter().enumerate() {
            upper -= (NODE_BYTES + key.len() + value.len()).next_multiple_of(2);
            let node = &mut page[upper..];
            node[..4].copy_from_slice(&(value.len() as u32).to_le_bytes());
            node[6..8].copy_from_slice(&(key.len() as u16).to_le_bytes());
            node[8..8 + key.len()].copy_from_slice(key);
            node[8 + key.len()..][..value.len()].copy_from_slice(value);
            page[16 + 2 * n..][..2].copy_from_slice(&(upper as u16).to_le_bytes());
        }
        page[12..14].copy_from_slice(&(16 + 2 * pairs.len() as u16).to_le_bytes());
        page[14..16].copy_from_slice(&(upper as u16).to_le_bytes());
        page
    }

    #[test]
    fn a_leaf_by_hand() {
        let page = leaf(7, &[(b"a", b"one"), (b"bb", b"")]);
        let Page::Leaf(nodes) = parse(&page, 7).unwrap() else { panic!("no leaf") };
        let got: Vec<_> = nodes
            .iter()
            .map(|node| {
                let Value::Here(at) = node.value else { panic!("{node:?}") };
                (&page[node.key.clone()], &page[at..at + node.length as usize])
            })
            .collect();
        assert_eq!(got, [(&b"a"[..], &b"one"[..]), (b"bb", b"")]);
        assert!(parse(&page, 8).is_err(), "another page's number");
    }

    #[test]
    fn what_is_no_value_is_told() {
        for (flags, wanted) in [(SUB_DATABASE, "a named database"), (DUPLICATES, "several values")] {
            let mut page = leaf(7, &[(b"a", b"one")]);
            let at = usize::from(u16_at(&page, 16));
            page[at + 4] = flags as u8;
            let Page::Leaf(nodes) = parse(&page, 7).unwrap() else { panic!("no leaf") };
            let Value::Other(what) = nodes[0].value else { panic!("{nodes:?}") };
            assert!(what.contains(wanted), "{what}");
        }
    }

    #[test]
    fn a_meta_page_by_hand() {
        let mut page = vec![0; META_BYTES];
        page[16..24].copy_from_slice(&[0xde, 0xc0, 0xef, 0xbe, 1, 0, 0, 0]);
        page[40..44].copy_from_slice(&4096u32.to_le_bytes());
        page[92..96].copy_from_slice(&[0x08, 0, 2, 0]);
        page[120..128].copy_from_slice(&9u64.to_le_bytes());
        page[128..136].copy_from_slice(&5u64.to_le_bytes());
        page[136..144].copy_from_slice(&6u64.to_le_bytes());
        page[144..152].copy_from_slice(&3u64.to_le_bytes());
        let wanted = Meta {
            page_bytes: 4096,
            root: Some(5),
            depth: 2,
            entries: 9,
            last_page: 6,
            transaction: 3,
            integer_keys: true,
        };
        assert_eq!(meta(&page), Ok(wanted));
        page[136] = 4;
        assert!(meta(&page).is_err(), "the root is behind the last page");
        page[20] = 2;
        assert!(meta(&page).unwrap_err().contains("version 1"));
    }

    proptest! {
        #[test]
        fn hostile_pages_are_refused_and_what_they_name_lies_within(
            mut page in proptest::collection::vec(any::<u8>(), 0..600), number: u8, kind in 0..3u8, lower in 16..64u16,
        ) {
            if page.len() >= 16 {
                page[..8].copy_from_slice(&u64::from(number).to_le_bytes());
                page[10..12].copy_from_slice(&[kind, 0]);
                page[12..14].copy_from_slice(&(lower & !1).to_le_bytes());
                let upper = (page.len() as u16).max(lower);
                page[14..16].copy_from_slice(&upper.to_le_bytes());
            }
            if let Ok(Page::Leaf(nodes)) = parse(&page, u64::from(number)) {
                for node in nodes {
                    prop_assert!(node.key.end <= page.len());
                    if let Value::Here(at) = node.value {
                        prop_assert!(at + node.length as usize <= page.len());
                    }
                }
            }
            let _ = meta(&page);
            let _ = is_overflow(&page, 1, 5, 4096);
        }
    }
}
