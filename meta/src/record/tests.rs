use granary_core::{NamespaceName, NodeId, ObjectKind};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::types::{
    Attr, Copied, Durability, FileType, NamespacePolicy, ObjectInfo, PackedSource, Place, TRASH_MS_DEFAULT,
    VolumeInfo,
};

pub(crate) fn time() -> impl Strategy<Value = Timestamp> {
    (any::<i64>(), 0u32..1_000_000_000).prop_map(|(secs, nanos)| Timestamp { secs, nanos })
}

fn file_type() -> impl Strategy<Value = FileType> {
    prop_oneof![
        3 => Just(FileType::File),
        3 => Just(FileType::Directory),
        1 => Just(FileType::Symlink),
        1 => Just(FileType::Fifo),
        1 => Just(FileType::Socket),
        1 => Just(FileType::CharDevice),
        1 => Just(FileType::BlockDevice),
    ]
}

fn object_kind() -> impl Strategy<Value = ObjectKind> {
    prop_oneof![Just(ObjectKind::Block), Just(ObjectKind::Pack)]
}

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![
        (object_kind(), any::<u128>(), any::<u64>()).prop_map(|(kind, id, offset)| Place::Object {
            kind,
            id: ObjectId(id),
            offset
        }),
        (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(node, segment, offset)| Place::Log {
            node: NodeId(node),
            segment,
            offset
        }),
        any::<u64>().prop_map(|node| Place::StageFile { node: NodeId(node) }),
    ]
}

fn extents() -> impl Strategy<Value = Vec<Extent>> {
    vec((0u64..1 << 40, 1u64..1 << 40, place(), any::<u32>()), 0..=EXTENTS_INLINE_MAX).prop_map(|parts| {
        let mut at = 0;
        let make = |(gap, len, place, crc)| {
            let e = Extent { offset: at + gap, len, place, crc };
            at = e.end();
            e
        };
        parts.into_iter().map(make).collect()
    })
}

fn inode() -> impl Strategy<Value = Inode> {
    let numbers = (any::<[u32; 5]>(), any::<[u64; 7]>(), 0u32..=0o7777);
    (file_type(), numbers, [time(), time(), time(), time()], extents(), any::<bool>()).prop_map(
        |(kind, (small, large, mode), [atime, mtime, ctime, btime], extents, spilled)| {
            let [uid, gid, nlink, rdev, xattr_names] = small;
            let [size, stored, version, staged_seq, parent, entries, cookie] = large;
            let ino = Ino(if nlink % 2 == 0 { 77 } else { Ino::TRASH.0 + 77 });
            let attr = Attr {
                ino,
                kind,
                mode,
                uid,
                gid,
                nlink,
                rdev,
                size,
                stored,
                atime,
                mtime,
                ctime,
                btime,
                version,
                staged_seq,
            };
            let mut inode = Inode { xattr_names, ..Inode::new(attr) };
            match kind {
                FileType::Directory => {
                    inode.parent = Ino(parent);
                    inode.entries = entries;
                    inode.next_cookie = cookie.max(inode::COOKIE_MIN);
                    inode.name = vec![b'n'; (entries % 256) as usize].into();
                    if ino.is_of_trash() {
                        inode.held = inode::Held { bytes: size, inodes: cookie, last: mtime };
                    }
                }
                FileType::File => {
                    inode.parent = Ino(parent);
                    match spilled {
                        true => inode.spilled = entries,
                        false => inode.extents = extents,
                    }
                }
                _ => {}
            }
            inode
        },
    )
}

fn reply() -> impl Strategy<Value = ReplyRecord> {
    let attr = || inode().prop_map(|i| i.attr);
    let answer = prop_oneof![
        Just(Answered::Done),
        attr().prop_map(Answered::Attr),
        proptest::option::of(attr()).prop_map(Answered::Renamed),
        vec(vec((any::<u64>(), any::<u64>()), 0..4), 0..4).prop_map(Answered::Parts),
        (any::<u64>(), attr()).prop_map(|(len, attr)| Answered::Copied(Copied { len, attr })),
    ];
    let touched = vec(any::<u64>().prop_map(Ino), 0..=reply::TOUCHED_MAX);
    (any::<u64>(), answer, touched).prop_map(|(id, answer, touched)| ReplyRecord { id, answer, touched })
}

fn namespace_name() -> impl Strategy<Value = NamespaceName> {
    "(user|group|dataset|bucket)/[a-z0-9][a-z0-9_-]{0,20}".prop_map(|s| s.parse().unwrap())
}

fn name() -> impl Strategy<Value = Box<[u8]>> {
    vec(any::<u8>(), 1..=255).prop_map(Into::into)
}

fn orphan() -> impl Strategy<Value = Orphan> {
    prop_oneof![
        Just(Orphan::LostName),
        Just(Orphan::Remains),
        Just(Orphan::NeverNamed),
        (any::<u64>(), name()).prop_map(|(dir, name)| Orphan::Kept { dir: Ino(dir), name }),
    ]
}

fn packed() -> impl Strategy<Value = Option<PackedSource>> {
    let source = ("[a-z0-9:/]{1,40}", proptest::option::of(1u64..));
    proptest::option::of(source.prop_map(|(url, version)| PackedSource { url, version }))
}

fn record() -> impl Strategy<Value = (Key, Value)> {
    let ino = any::<u64>().prop_map(Ino);
    let id = any::<u128>().prop_map(ObjectId);
    let live_ino = (1..u64::MAX).prop_map(Ino);
    let bytes = vec(any::<u8>(), 0..300).prop_map(Arc::<[u8]>::from);
    prop_oneof![
        (ino.clone(), name(), bytes.clone()).prop_map(|(i, n, v)| (Key::Xattr(i, n), Value::Xattr(v))),
        (ino.clone(), any::<u64>(), any::<u32>(), vec(any::<u8>(), 1..=2048)).prop_map(
            |(ino, version, crc, bytes)| {
                (Key::Inline(ino), Value::Inline(Inline { version, crc, bytes: bytes.into() }.into()))
            }
        ),
        (2..u64::MAX, any::<[u64; 3]>(), Ino::TRASH.0 + 1..).prop_map(
            |(next, [bytes, inodes, capabilities], dir)| {
                let (next_ino, next_of_trash) = (Ino(next), Ino(dir));
                let counters = Counters { next_ino, bytes, inodes, capabilities, next_of_trash };
                (Key::Counters, Value::Counters(counters))
            }
        ),
        (time(), id.clone()).prop_map(|(t, id)| (Key::Dead(t, id), Value::Dead)),
        (time(), id.clone()).prop_map(|(t, id)| (Key::Condemned(id), Value::Condemned(t))),
        (ino.clone(), name(), live_ino.clone(), file_type(), inode::COOKIE_MIN..u64::MAX).prop_map(
            |(dir, n, ino, kind, cookie)| (Key::Entry(dir, n), Value::Entry(Entry { ino, kind, cookie }))
        ),
        (any::<[u64; 3]>(), bytes.clone())
            .prop_map(|([node, segment, at], v)| (Key::Redo(NodeId(node), segment, at), Value::Redo(v))),
        inode().prop_map(|i| (Key::Inode(i.attr.ino), Value::Inode(Arc::new(i)))),
        (ino.clone(), any::<u64>(), live_ino, file_type(), name()).prop_map(
            |(dir, cookie, ino, kind, name)| {
                (Key::Listing(dir, cookie), Value::Listing(Listing { ino, kind, name }))
            }
        ),
        (namespace_name(), any::<bool>(), any::<[u64; 2]>(), any::<[u64; 9]>(), packed()).prop_map(
            |(name, o, [bytes_max, inodes_max], values, packed)| {
                let durability = if o { Durability::Object } else { Durability::Local };
                let policy = NamespacePolicy::from_values(values);
                let record = NamespaceRecord {
                    name,
                    durability,
                    bytes_max,
                    inodes_max,
                    policy,
                    trash_ms: values[0] ^ bytes_max,
                    packed,
                };
                (Key::Namespace, Value::Namespace(Arc::new(record)))
            }
        ),
        (id, object_kind(), any::<[u64; 3]>(), proptest::option::of(time())).prop_map(
            |(id, kind, [a, b, live], dead_since)| {
                let info = ObjectInfo { id, kind, payload_len: a.min(b), total_len: a.max(b) };
                let live = if dead_since.is_some() { 0 } else { live };
                (Key::Object(id), Value::Object(ObjectRecord { info, live, dead_since }))
            }
        ),
        (ino.clone(), bytes).prop_map(|(i, v)| (Key::Target(i), Value::Target(v))),
        (ino.clone(), 0u64..1 << 60, 1u64..1 << 60, place(), any::<u32>()).prop_map(
            |(i, offset, len, place, crc)| {
                let e = Extent { offset, len, place, crc };
                (Key::Extent(i, e.end()), Value::Extent(e))
            }
        ),
        (ino, orphan()).prop_map(|(i, orphan)| (Key::Orphan(i), Value::Orphan(orphan))),
        (any::<u64>(), any::<u32>(), reply())
            .prop_map(|(s, slot, v)| (Key::Reply(SessionId(s), slot), Value::Reply(Arc::new(v)))),
    ]
}

proptest! {
    #[test]
    fn records_round_trip((key, value) in record(), ns in 1u32..) {
        let ns = NamespaceId(ns);
        prop_assert_eq!(&Key::decode(ns, &key.encode(ns))?, &key);
        prop_assert_eq!(&Value::decode(&key, &value.encode())?, &value);
    }

    #[test]
    fn the_order_of_keys_is_the_order_of_their_bytes((a, _) in record(), (b, _) in record()) {
        let ns = NamespaceId(5);
        prop_assert_eq!(a.cmp(&b), a.encode(ns).cmp(&b.encode(ns)));
        for span in [Span::All(b.family()), Span::Of(b.family(), Ino(3))] {
            prop_assert_eq!(span.contains(&a), a.encode(ns).starts_with(&span.prefix(ns)));
        }
    }

    #[test]
    fn of_one_inode_the_order_holds_too(ino in 0u64..3, x in 0u64..5, y in 0u64..5, n in name(), m in name()) {
        let (ns, ino) = (NamespaceId(5), Ino(ino));
        let (a, b) = (Key::Entry(ino, n), Key::Entry(Ino(1), m));
        prop_assert_eq!(a.cmp(&b), a.encode(ns).cmp(&b.encode(ns)));
        let (a, b) = (Key::Extent(ino, x), Key::Extent(Ino(1), y));
        prop_assert_eq!(a.cmp(&b), a.encode(ns).cmp(&b.encode(ns)));
        prop_assert_eq!(Span::Of(Family::Extent, Ino(1)).contains(&a), ino == Ino(1));
    }

    /// What is cut or longer is refused; what is changed is refused or is another record whose bytes are these.
    #[test]
    fn damage_is_refused_or_harmless((key, value) in record(), at: prop::sample::Index, to: u8) {
        let bytes = value.encode();
        let open_ended = matches!(key, Key::Xattr(..) | Key::Target(_) | Key::Redo(..));
        for cut in 0..bytes.len() {
            let decoded = Value::decode(&key, &bytes[..cut]);
            prop_assert!(decoded.is_err() || (open_ended && cut > 0));
        }
        let longer = [&bytes[..], &[0]].concat();
        prop_assert!(open_ended || Value::decode(&key, &longer).is_err());
        let mut changed = bytes.clone();
        let at = at.index(bytes.len());
        changed[at] = to;
        // Where the version is changed it is the record of an older one, perhaps.
        if let Ok(other) = Value::decode(&key, &changed) && at > 0 {
            prop_assert_eq!(other.encode(), changed);
        }
        let mut newer = bytes;
        newer[0] = 9;
        prop_assert_eq!(Value::decode(&key, &newer).unwrap_err().kind(), Kind::Unsupported);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..80), (key, _) in record()) {
        let ns = NamespaceId(1);
        if let Ok(key) = Key::decode(ns, &bytes) { prop_assert_eq!(key.encode(ns), bytes.clone()); }
        let tagged = [&ns.0.to_be_bytes()[..], &bytes].concat();
        if let Ok(key) = Key::decode(ns, &tagged) { prop_assert_eq!(key.encode(ns), tagged); }
        if let Ok(value) = Value::decode(&key, &bytes) { prop_assert_eq!(value.encode(), bytes.clone()); }
        let _ = volume::decode_volume(&bytes).is_ok();
        if let Ok(id) = volume::decode_id(&bytes) { prop_assert_eq!(volume::encode_id(id), bytes); }
    }

    #[test]
    fn volume_records_round_trip(name in namespace_name(), id in 1u32.., ms: u64, uuid in "[0-9a-f]{32}", url: String, at: prop::sample::Index, to: u8) {
        prop_assert_eq!(volume::decode_name_key(&volume::name_key(&name))?, name);
        prop_assert_eq!(volume::decode_id(&volume::encode_id(NamespaceId(id)))?, NamespaceId(id));
        let info = VolumeInfo { uuid, store_url: url, created_unix_ms: ms };
        let bytes = volume::encode_volume(&info);
        prop_assert_eq!(&volume::decode_volume(&bytes)?, &info);
        for cut in 0..bytes.len() { prop_assert!(volume::decode_volume(&bytes[..cut]).is_err()); }
        let mut changed = bytes;
        let at = at.index(changed.len());
        changed[at] = to;
        if let Ok(other) = volume::decode_volume(&changed) {
            prop_assert_eq!(volume::encode_volume(&other), changed);
        }
    }
}

proptest! {
    #[test]
    fn records_of_sessions_round_trip(numbers: [u64; 4], texts: [String; 3], ends: i64, id: u32, made: bool, at: prop::sample::Index, to: u8) {
        use session::*;
        let [node, session, call, starts] = numbers;
        let [name, user, token] = texts;
        let record = SessionRecord { node: NodeId(node), name, user, token: token.clone() };
        let bytes = record.encode();
        prop_assert_eq!(&SessionRecord::decode(&bytes)?, &record);
        for cut in 0..bytes.len() { prop_assert!(SessionRecord::decode(&bytes[..cut]).is_err()); }
        let mut changed = bytes;
        let at = at.index(changed.len());
        changed[at] = to;
        if let Ok(other) = SessionRecord::decode(&changed) { prop_assert_eq!(other.encode(), changed); }
        prop_assert_eq!(decode_session_key(&session_key(SessionId(session)))?, SessionId(session));
        prop_assert_eq!(decode_revoked_key(&revoked_key(&token))?, token);
        prop_assert_eq!(decode_revoked(&encode_revoked(ends))?, ends);
        prop_assert_eq!(decode_incarnation(&encode_incarnation(starts))?, starts);
        let id = NamespaceId(id);
        let answer = if made { AnsweredNamespace::Made(id) } else { AnsweredNamespace::Removed(id) };
        prop_assert_eq!(AnsweredNamespace::decode(&answer.encode())?, answer);
        prop_assert!(answered_key(SessionId(session), call).starts_with(&answered_prefix(SessionId(session))));
    }
}

#[test]
fn a_newer_format_names_both_and_the_mend() {
    let info = VolumeInfo { uuid: "0".repeat(32), store_url: String::new(), created_unix_ms: 0 };
    let mut bytes = volume::encode_volume(&info);
    bytes[1] = 9;
    let e = volume::decode_volume(&bytes).unwrap_err();
    assert_eq!(e.kind(), Kind::Unsupported);
    assert!(e.to_string().contains("format 9") && e.to_string().contains("up to 1"), "{e}");
}

#[test]
fn counters_of_version_1_have_no_capabilities() {
    let mut bytes = vec![1];
    for n in [9_u64, 70, 3] {
        bytes.extend_from_slice(&n.to_le_bytes());
    }
    let next_of_trash = Ino(Ino::TRASH.0 + 1);
    let counters = Counters { next_ino: Ino(9), bytes: 70, inodes: 3, capabilities: 0, next_of_trash };
    assert_eq!(Value::decode(&Key::Counters, &bytes).unwrap(), Value::Counters(counters));
    assert_eq!(
        Value::decode(&Key::Counters, &Value::Counters(counters).encode()).unwrap(),
        Value::Counters(counters)
    );
}

#[test]
fn settings_of_version_1_leave_all_to_the_nodes() {
    let mut bytes = vec![1, 6, 0];
    bytes.extend_from_slice(b"user/a");
    bytes.push(2);
    for n in [70_u64, 3] {
        bytes.extend_from_slice(&n.to_le_bytes());
    }
    let record = NamespaceRecord {
        name: "user/a".parse().unwrap(),
        durability: Durability::Object,
        bytes_max: 70,
        inodes_max: 3,
        policy: NamespacePolicy::default(),
        trash_ms: TRASH_MS_DEFAULT,
        packed: None,
    };
    let value = Value::Namespace(record.into());
    assert_eq!(Value::decode(&Key::Namespace, &bytes).unwrap(), value);
    let now = value.encode();
    assert_eq!((now[0], now.len()), (4, bytes.len() + 10 * 8));
    assert_eq!(Value::decode(&Key::Namespace, &now).unwrap(), value);
}

#[test]
fn settings_of_version_3_keep_no_copies() {
    let policy = NamespacePolicy { uploads_max: Some(3), compression: Some(2), ..NamespacePolicy::default() };
    let record = NamespaceRecord {
        name: "user/a".parse().unwrap(),
        durability: Durability::Local,
        bytes_max: 0,
        inodes_max: 0,
        policy,
        trash_ms: 5,
        packed: None,
    };
    let value = Value::Namespace(record.into());
    let now = value.encode();
    // Without the ninth value, which is before the last eight bytes.
    let mut then = [&now[..now.len() - 16], &now[now.len() - 8..]].concat();
    then[0] = 3;
    assert_eq!(Value::decode(&Key::Namespace, &then).unwrap(), value);
}

#[test]
fn only_settings_with_a_packed_data_set_are_of_version_5() {
    let packed = |version| Some(PackedSource { url: "s3://b/images".into(), version });
    let mut record = NamespaceRecord {
        name: "dataset/images".parse().unwrap(),
        durability: Durability::Local,
        bytes_max: 0,
        inodes_max: 0,
        policy: NamespacePolicy::default(),
        trash_ms: 0,
        packed: None,
    };
    let encode = |record: &NamespaceRecord| Value::Namespace(Arc::new(record.clone())).encode();
    let plain = encode(&record);
    record.packed = packed(None);
    let newest = encode(&record);
    record.packed = packed(Some(7));
    let seventh = encode(&record);
    assert_eq!((plain[0], newest[0], seventh[0]), (4, 5, 5));
    assert_eq!(seventh[..newest.len() - 8], newest[..newest.len() - 8]);
    assert_eq!(newest.len(), plain.len() + 2 + "s3://b/images".len() + 8);
    let mut nowhere = [&plain[..], &[0; 10]].concat();
    nowhere[0] = 5;
    let e = Value::decode(&Key::Namespace, &nowhere).unwrap_err();
    assert!(e.kind() == Kind::Corrupt && e.to_string().contains("URL is empty"), "{e}");
}
