//! What is said is heard; what is damaged is refused, and harms nobody.

use std::time::Duration;

use granary_core::{
    Error, Ino, Kind, NamespaceId, NamespaceName, NodeId, ObjectId, ObjectKind, SessionId, Timestamp,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use prost::Message;

use super::fuzzing::hear;
use super::*;
use crate::call::*;
use crate::lease::{LeaseKind, Lock, LockKind, LockOwner, LockRequest, PeerInfo, Scope};
use crate::types::*;

fn ino() -> impl Strategy<Value = Ino> {
    any::<u64>().prop_map(Ino)
}

fn name() -> impl Strategy<Value = Box<[u8]>> {
    vec(1u8..=255, 1..60).prop_filter_map("an entry's name", |name| {
        granary_core::EntryName::new(&name).is_ok().then(|| name.into_boxed_slice())
    })
}

fn time() -> impl Strategy<Value = Timestamp> {
    (any::<i64>(), 0u32..1_000_000_000).prop_map(|(secs, nanos)| Timestamp { secs, nanos })
}

fn file_type() -> impl Strategy<Value = FileType> {
    use FileType::*;
    proptest::sample::select(vec![File, Directory, Symlink, Fifo, Socket, CharDevice, BlockDevice])
}

prop_compose! {
    fn attr()(
        ino in ino(), kind in file_type(), n in any::<[u32; 5]>(), m in any::<[u64; 4]>(),
        times in any::<bool>(), mtime in time(), atime in time(), ctime in time(), btime in time(),
    ) -> Attr {
        let or = |t: Timestamp| if times { t } else { mtime };
        Attr {
            ino, kind, mode: n[0], uid: n[1], gid: n[2], nlink: n[3], rdev: n[4], size: m[0], stored: m[1],
            atime: or(atime), mtime, ctime: or(ctime), btime: or(btime), version: m[2], staged_seq: m[3],
        }
    }
}

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![
        (any::<bool>(), any::<u128>(), any::<u64>()).prop_map(|(pack, id, offset)| {
            let kind = if pack { ObjectKind::Pack } else { ObjectKind::Block };
            Place::Object { kind, id: ObjectId(id), offset }
        }),
        any::<[u64; 3]>().prop_map(|[node, segment, offset]| Place::Log {
            node: NodeId(node),
            segment,
            offset
        }),
        any::<u64>().prop_map(|node| Place::StageFile { node: NodeId(node) }),
    ]
}

prop_compose! {
    pub(crate) fn extent()(offset in 0u64..u64::MAX / 2, len in 1u64..u64::MAX / 2, place in place(), crc: u32) -> Extent {
        Extent { offset, len, place, crc }
    }
}

prop_compose! {
    fn lock_value()(flock: bool, exclusive: bool, a: u64, b: u64, pid: u32) -> Lock {
        let kind = if exclusive { LockKind::Exclusive } else { LockKind::Shared };
        Lock { flock, kind, start: a.min(b), end: a.max(b), pid }
    }
}

fn scope() -> impl Strategy<Value = Scope> {
    (ino(), any::<bool>()).prop_map(|(ino, dir)| if dir { Scope::Directory(ino) } else { Scope::Inode(ino) })
}

fn object() -> impl Strategy<Value = ObjectInfo> {
    (any::<u128>(), any::<bool>(), any::<u64>(), any::<u64>()).prop_map(|(id, pack, a, b)| ObjectInfo {
        id: ObjectId(id),
        kind: if pack { ObjectKind::Pack } else { ObjectKind::Block },
        payload_len: a.min(b),
        total_len: a.max(b),
    })
}

fn namespace_name() -> impl Strategy<Value = NamespaceName> {
    "(user|group|dataset|bucket)/[a-z0-9_][a-z0-9_-]{0,20}".prop_map(|name| name.parse().expect("a name"))
}

fn new_inode() -> impl Strategy<Value = NewInode> {
    (file_type(), any::<[u32; 4]>(), vec(any::<u8>(), 0..50)).prop_map(|(kind, n, target)| NewInode {
        kind,
        mode: n[0],
        umask: n[0] >> 9,
        uid: n[1],
        gid: n[2],
        rdev: n[3],
        target,
    })
}

fn durability() -> impl Strategy<Value = Durability> {
    any::<bool>().prop_map(|object| if object { Durability::Object } else { Durability::Local })
}

fn rename_mode() -> impl Strategy<Value = RenameMode> {
    proptest::sample::select(vec![RenameMode::Replace, RenameMode::NoReplace, RenameMode::Exchange])
}

fn lock_request() -> impl Strategy<Value = LockRequest> {
    (any::<u64>(), lock_value(), any::<bool>(), any::<bool>())
        .prop_map(|(owner, lock, unlock, wait)| LockRequest { owner: LockOwner(owner), lock, unlock, wait })
}

fn ranges() -> impl Strategy<Value = Vec<(u64, u64)>> {
    vec((0u64..u64::MAX / 2, 1u64..u64::MAX / 2), 0..8)
}

fn commit() -> impl Strategy<Value = Commit> {
    (ino(), any::<[u64; 2]>(), (time(), time()), vec(extent(), 0..8), ranges()).prop_map(
        |(ino, n, (mtime, ctime), extents, holes)| Commit {
            ino,
            size: n[0],
            mtime,
            ctime,
            extents,
            holes,
            staged_seq: n[1],
        },
    )
}

fn set_attr() -> impl Strategy<Value = SetAttr> {
    (option::of(any::<u32>()), option::of(any::<u64>()), option::of(time()), option::of(time())).prop_map(
        |(n, m, atime, mtime)| SetAttr {
            mode: n,
            uid: n,
            gid: None,
            size: m,
            atime,
            mtime,
            staged_seq: m,
            kill_priv: n.is_some(),
            accessed: atime,
        },
    )
}

fn copy() -> impl Strategy<Value = Inline> {
    (any::<u64>(), any::<u32>(), vec(any::<u8>(), 1..60)).prop_map(|(version, crc, bytes)| Inline {
        version,
        crc,
        bytes: bytes.into(),
    })
}

fn call() -> impl Strategy<Value = Call> {
    let names = prop_oneof![
        (ino(), name()).prop_map(|(dir, name)| Call::Lookup { dir, name }),
        (ino(), any::<u64>(), any::<u32>(), any::<bool>())
            .prop_map(|(dir, cookie, max, with_attr)| Call::ReadDir { dir, cookie, max, with_attr }),
        (ino(), name()).prop_map(|(ino, name)| Call::GetXattr { ino, name }),
        (ino(), name(), vec(any::<u8>(), 0..50), any::<bool>(), any::<bool>()).prop_map(
            |(ino, name, value, create_only, replace_only)| {
                let value = value.into();
                Call::SetXattr { ino, name, value, create_only, replace_only }
            }
        ),
        (ino(), name()).prop_map(|(ino, name)| Call::RemoveXattr { ino, name }),
        (ino(), name(), new_inode(), any::<bool>()).prop_map(|(dir, name, new, open)| Call::Create {
            dir,
            name,
            new,
            open
        }),
        (ino(), new_inode()).prop_map(|(dir, new)| Call::Tmpfile { dir, new }),
        (ino(), ino(), name()).prop_map(|(ino, dir, name)| Call::Link { ino, dir, name }),
        (ino(), name()).prop_map(|(dir, name)| Call::Unlink { dir, name }),
        (ino(), name()).prop_map(|(dir, name)| Call::Rmdir { dir, name }),
        (ino(), name(), ino(), name(), rename_mode()).prop_map(|(dir, name, to_dir, to_name, mode)| {
            Call::Rename { dir, name, to_dir, to_name, mode }
        }),
    ];
    let inodes = (ino(), 0..9).prop_map(|(ino, which)| match which {
        0 => Call::GetAttr { ino },
        1 => Call::Parent { dir: ino },
        2 => Call::ReadLink { ino },
        3 => Call::ListXattr { ino },
        4 => Call::Open { ino },
        5 => Call::Close { inos: vec![ino, Ino(7)] },
        6 => Call::Extents { ino, with_inline: ino.0 % 2 == 0 },
        7 => Call::Lease { ino },
        _ => Call::Sync,
    });
    let content = prop_oneof![
        (ino(), set_attr()).prop_map(|(ino, set)| Call::SetAttr { ino, set }),
        commit().prop_map(Call::Commit),
        (object(), vec((ino(), extent()), 0..8)).prop_map(|(object, moves)| {
            let moves =
                moves.into_iter().map(|(ino, from)| Move { ino, from, to_offset: from.offset / 2 }).collect();
            Call::Relocate { object, moves }
        }),
        (object(), vec((ino(), any::<u64>(), copy()), 1..8)).prop_map(|(object, copies)| {
            let new =
                |(ino, at, copy): (_, _, Inline)| NewInline { ino, at, crc: copy.crc, bytes: copy.bytes };
            Call::KeepInline { object, copies: copies.into_iter().map(new).collect() }
        }),
        vec((ino(), extent()), 0..8).prop_map(|staged| Call::Live { staged }),
        any::<u128>().prop_map(|id| Call::Object { id: ObjectId(id) }),
        any::<u32>().prop_map(|max| Call::DeadObjects { max }),
        (any::<u128>(), any::<u32>())
            .prop_map(|(after, max)| Call::LiveObjects { after: ObjectId(after), max }),
        vec(any::<u128>(), 0..8)
            .prop_map(|ids| Call::ForgetObjects { ids: ids.into_iter().map(ObjectId).collect() }),
        any::<[u32; 6]>().prop_map(|n| {
            let n = n.map(u64::from);
            let (from, to) = (Ino(n[0]), Ino(n[1]));
            Call::CopyRange(CopyRange {
                from,
                from_offset: n[2],
                to,
                to_offset: n[3],
                len: n[4],
                staged_seq: n[5],
            })
        }),
    ];
    let leases = prop_oneof![
        (ino(), any::<u64>(), lock_value()).prop_map(|(ino, owner, lock)| Call::TestLock {
            ino,
            owner: LockOwner(owner),
            lock
        }),
        (ino(), lock_request()).prop_map(|(ino, request)| Call::Lock { ino, request }),
        vec(scope(), 0..8).prop_map(|mut scopes| {
            // Inodes come before directories on the wire.
            scopes.sort();
            Call::Forget { scopes }
        }),
        any::<u64>().prop_map(|node| Call::Peer { node: NodeId(node) }),
    ];
    let volume = prop_oneof![
        namespace_name().prop_map(|name| Call::Namespace { name }),
        Just(Call::Namespaces),
        Just(Call::Sessions),
        (namespace_name(), any::<[u32; 3]>(), any::<[u64; 2]>(), durability(), packed()).prop_map(
            |(name, n, m, durability, packed)| Call::CreateNamespace {
                new: NewNamespace {
                    name,
                    uid: n[0],
                    gid: n[1],
                    mode: n[2],
                    bytes_max: m[0],
                    inodes_max: m[1],
                    durability,
                    trash_ms: m[0] ^ m[1],
                    packed,
                }
            }
        ),
        (
            namespace_name(),
            option::of(any::<u32>()),
            option::of(any::<u64>()),
            option::of(durability()),
            policy()
        )
            .prop_map(|(name, n, m, durability, policy)| {
                let change = NamespaceChange {
                    uid: n,
                    gid: None,
                    mode: n,
                    bytes_max: m,
                    inodes_max: m,
                    durability,
                    policy,
                    trash_ms: m,
                };
                Call::SetNamespace { name, change }
            }),
        (namespace_name(), any::<bool>()).prop_map(|(name, force)| Call::RemoveNamespace { name, force }),
        "[a-z0-9-]{0,40}".prop_map(|token| Call::RevokeToken { token }),
        (namespace_name(), any::<bool>(), any::<u64>(), "[a-z /0-9-]{0,40}").prop_map(
            |(namespace, read_only, lifetime_secs, purpose)| Call::Delegate {
                namespace,
                read_only,
                lifetime_secs,
                purpose
            }
        ),
    ];
    prop_oneof![names, inodes, content, leases, volume]
}

fn usage() -> impl Strategy<Value = Usage> {
    any::<[u64; 6]>().prop_map(|n| Usage {
        bytes: n[0],
        inodes: n[1],
        bytes_max: n[2],
        inodes_max: n[3],
        trash_bytes: n[4],
        trash_inodes: n[5],
    })
}

fn policy() -> impl Strategy<Value = PolicyChange> {
    proptest::array::uniform9(option::of(any::<u64>())).prop_map(PolicyChange::from_values)
}

fn packed() -> impl Strategy<Value = Option<PackedSource>> {
    let source = ("[a-z0-9:/]{1,40}", option::of(1u64..));
    option::of(source.prop_map(|(url, version)| PackedSource { url, version }))
}

fn namespace_info() -> impl Strategy<Value = NamespaceInfo> {
    (any::<[u32; 4]>(), namespace_name(), durability(), usage(), policy(), packed()).prop_map(
        |(n, name, durability, usage, p, packed)| {
            let policy = NamespacePolicy::default().changed(&p);
            NamespaceInfo {
                id: NamespaceId(n[0]),
                name,
                uid: n[1],
                gid: n[2],
                mode: n[3],
                durability,
                policy,
                trash_ms: usage.bytes,
                packed,
                usage,
            }
        },
    )
}

fn answer() -> impl Strategy<Value = Answer> {
    let entry = (name(), ino(), file_type(), any::<u64>(), option::of(attr())).prop_map(
        |(name, ino, kind, cookie, attr)| DirEntry { name: name.into_vec(), ino, kind, cookie, attr },
    );
    let alive = (object(), any::<u64>()).prop_map(|(object, live)| LiveObject { object, live });
    let dead = (object(), time()).prop_map(|(object, since)| DeadObject { object, since });
    let peer = (any::<u64>(), "[a-z.]{0,20}", option::of("[a-z0-9:]{0,20}"), any::<u32>()).prop_map(
        |(node, name, address, ms)| PeerInfo {
            node: NodeId(node),
            name,
            address,
            ticket: "ticket".into(),
            silent: Duration::from_millis(ms.into()),
        },
    );
    let session = (any::<[u64; 5]>(), "[a-z.]{0,20}", any::<u32>()).prop_map(|(n, name, ms)| SessionInfo {
        session: SessionId(n[0]),
        node: NodeId(n[1]),
        user: name.clone(),
        name,
        silent: Duration::from_millis(ms.into()),
        leases: n[2],
        opens: n[3],
        locks: n[4],
    });
    prop_oneof![
        Just(Answer::Done),
        attr().prop_map(Answer::Attr),
        vec(entry, 0..8).prop_map(Answer::Entries),
        ino().prop_map(Answer::Ino),
        vec(any::<u8>(), 0..50).prop_map(Answer::Bytes),
        vec(vec(any::<u8>(), 0..20), 0..8).prop_map(Answer::Names),
        option::of(attr()).prop_map(Answer::Renamed),
        (attr(), vec(extent(), 0..8), option::of(copy()))
            .prop_map(|(attr, extents, copy)| Answer::Extents(attr, extents, copy)),
        vec(ranges(), 0..5).prop_map(Answer::Parts),
        object().prop_map(Answer::Object),
        vec(dead, 0..8).prop_map(Answer::DeadObjects),
        vec(alive, 0..8).prop_map(Answer::LiveObjects),
        (any::<u64>(), attr()).prop_map(|(len, attr)| Answer::Copied(Copied { len, attr })),
        option::of(lock_value()).prop_map(Answer::Lock),
        peer.prop_map(Answer::Peer),
        namespace_info().prop_map(Answer::Namespace),
        vec(namespace_info(), 0..4).prop_map(Answer::Namespaces),
        vec(session, 0..4).prop_map(Answer::Sessions),
        "[A-Za-z0-9._-]{0,80}".prop_map(|text| Answer::Token(TokenText(text))),
    ]
}

fn lease_kind() -> impl Strategy<Value = LeaseKind> {
    any::<bool>().prop_map(|write| if write { LeaseKind::Write } else { LeaseKind::Read })
}

/// Through bytes, as a frame goes.
fn over<T: Message + Default>(message: &T) -> T {
    T::decode(&message.encode_to_vec()[..]).expect("our own message")
}

proptest! {
    #[test]
    fn requests_are_heard_as_said(call in call(), id in 1u64.., below in any::<u64>(), ns: u32) {
        let said = Request { id, acked_below: below.min(id), ns: NamespaceId(ns), call };
        prop_assert_eq!(request::decode(over(&request::encode(&said)))?, said);
    }

    #[test]
    fn responses_are_heard_as_said(
        answer in answer(), failed in option::of(".{0,40}"), id: u64, touched in vec(attr(), 0..4),
        grants in vec((scope(), lease_kind()), 0..5), usage in option::of(usage()),
    ) {
        let result = match failed {
            Some(message) => Err(Error::new(Kind::Stale, message)),
            None => Ok(answer),
        };
        let said = Response { id, result, grants, touched, usage };
        let heard = response::decode(over(&response::encode(&said)))?;
        prop_assert_eq!(format!("{heard:?}"), format!("{said:?}"));
    }

    #[test]
    fn first_words_are_heard_as_said(
        session in option::of(1u64..), node: u64, address in option::of("[a-z0-9:.]{1,20}"), ns: u32,
        inos in vec(ino(), 0..8), locks in vec((ino(), any::<u64>().prop_map(LockOwner), lock_value()), 0..8),
        n in any::<[u64; 2]>(), resumed: bool, ms in 1u32..,
    ) {
        let held = Held { ns: NamespaceId(ns), opens: inos.clone(), writes: inos.clone(), locks };
        let said = Hello {
            session: session.map(SessionId), node: NodeId(node), name: "host".into(), data_address: address,
            held: vec![held.clone(), held.clone()], anew: resumed,
        };
        prop_assert_eq!(session::decode_hello(over(&session::encode_hello(&said)))?, said);
        let scopes = inos.iter().map(|ino| Ino(ino.0 >> 1)).flat_map(|ino| [(Scope::Inode(ino), LeaseKind::Read), (Scope::Directory(ino), LeaseKind::Write)]);
        let mut leases: Vec<_> = scopes.collect();
        leases.sort_by_key(|(_, kind)| *kind);
        let had = Had { ns: NamespaceId(ns), leases, opens: inos.clone(), locks: held.locks, changed: inos };
        let volume =
            VolumeInfo { uuid: "0".repeat(32), store_url: "s3://b".into(), created_unix_ms: n[0] };
        let said = Greeting {
            session: SessionId(n[0].max(1)), incarnation: n[1], resumed,
            lease_time: Duration::from_millis(ms.into()), volume,
            ticket_key: if resumed { vec![7; 32] } else { vec![] },
            next_call: n[1], had: vec![had.clone(), had],
        };
        prop_assert_eq!(session::decode_greeting(over(&session::encode_greeting(&said)))?, said);
    }

    #[test]
    fn recalls_and_releases_are_heard_as_said(id: u64, ns: u32, scope in scope(), wanted in lease_kind(), open: bool) {
        let recall = Recall { id, ns: NamespaceId(ns), scope, wanted };
        prop_assert_eq!(response::decode_recall(over(&response::encode_recall(&recall)))?, recall);
        let released = Released { id, open };
        prop_assert_eq!(response::decode_released(over(&response::encode_released(&released))), released);
    }

    /// Never a panic; what is accepted can be said again.
    #[test]
    fn random_bytes_are_refused_or_understood(bytes in vec(any::<u8>(), 0..200)) {
        hear(&bytes);
    }

    #[test]
    fn damaged_frames_are_refused_or_understood(
        calls in vec(call(), 1..4), at: proptest::sample::Index, to: u8, cut: proptest::sample::Index,
    ) {
        let items = calls.into_iter().map(|call| {
            let request = Request { id: 9, acked_below: 3, ns: NamespaceId(1), call };
            let item = Some(pb::client_item::Item::Request(request::encode(&request)));
            pb::ClientItem { item }
        });
        let frame = pb::ClientFrame { number: 2, items: items.collect(), ..Default::default() };
        let mut bytes = frame.encode_to_vec();
        hear(&bytes);
        let at = at.index(bytes.len());
        bytes[at] = to;
        hear(&bytes);
        hear(&bytes[..cut.index(bytes.len())]);
    }
}

#[test]
fn more_items_than_a_frame_may_have_are_refused_before_they_cost_memory() {
    // Empty items: two bytes each.
    let many = [0x1a, 0x00].repeat(FRAME_ITEMS_MAX + 100);
    assert!(codec::decode::<pb::ClientFrame>(&many).is_err());
    assert!(codec::decode::<pb::ClientFrame>(&many[..2 * FRAME_ITEMS_MAX]).is_ok());
    // Namespaces of a Hello.
    let held = [0x2a, 0x00].repeat(FRAME_ITEMS_MAX + 100);
    let mut frame = vec![0x12];
    prost::encoding::encode_varint(held.len() as u64, &mut frame);
    frame.extend(held);
    assert!(codec::decode::<pb::ClientFrame>(&frame).is_err());
}

#[test]
fn impossible_values_are_malformed() {
    use pb::request::Call as Wire;
    let refused = |call: Wire| {
        let wire = pb::Request { id: 1, unacked: 0, ns: 1, call: Some(call) };
        let e = request::decode(wire).expect_err("impossible");
        assert!(e.to_string().starts_with(MALFORMED), "{e}");
        assert_eq!(e.kind(), Kind::Invalid);
    };
    for name in [&b""[..], b".", b"..", b"a/b", b"a\0", &[b'a'; 256]] {
        refused(Wire::Lookup(pb::Entry { dir: 1, name: name.to_vec() }));
    }
    refused(Wire::SetXattr(pb::SetXattr {
        name: b"user.a".to_vec(),
        value: vec![0; 65_537],
        ..Default::default()
    }));
    refused(Wire::GetXattr(pb::Xattr { ino: 1, name: vec![b'a'; 256] }));
    refused(Wire::Object(vec![0; 15]));
    refused(Wire::ForgetObjects(vec![0; 17]));
    refused(Wire::Live(vec![0; 60]));
    refused(Wire::Rename(pb::Rename {
        name: b"a".to_vec(),
        to_name: b"b".to_vec(),
        mode: 7,
        ..Default::default()
    }));
    refused(Wire::Commit(pb::Commit {
        mtime: Some(pb::Time::default()),
        holes: vec![1],
        ..Default::default()
    }));
    refused(Wire::Commit(pb::Commit {
        mtime: Some(pb::Time { secs: 0, nanos: 1_000_000_000 }),
        ..Default::default()
    }));
    refused(Wire::Lock(pb::LockCall {
        lock: Some(pb::Lock { start: 5, end_from_max: u64::MAX - 4, ..Default::default() }),
        ..Default::default()
    }));
    refused(Wire::Namespace("user/../x".into()));
    refused(Wire::Create(pb::Create { name: b"a".to_vec(), ..Default::default() }));
    refused(Wire::Create(pb::Create {
        name: b"a".to_vec(),
        new: Some(pb::NewInode { kind: 99, ..Default::default() }),
        ..Default::default()
    }));
    assert!(request::decode(pb::Request { id: 1, unacked: 2, ..Default::default() }).is_err());
}

#[test]
fn copies_are_bounded_and_an_older_service_takes_them_for_nothing() {
    use pb::request::Call as Wire;
    let object = ObjectInfo { id: ObjectId(3), kind: ObjectKind::Pack, payload_len: 9, total_len: 100 };
    let copy = |len| NewInline { ino: Ino(5), at: 7, crc: 1, bytes: vec![1; len].into() };
    let keep = |copies| request::encode_call(&Call::KeepInline { object, copies });
    let decoded = |call| request::decode(pb::Request { id: 1, call: Some(call), ..Default::default() });
    decoded(keep(vec![copy(1), copy(2048)])).unwrap();
    for len in [0, 2049] {
        assert_eq!(decoded(keep(vec![copy(len)])).unwrap_err().kind(), Kind::Invalid);
    }
    // Without the field it is a relocation that moves nothing; and moves do not come with copies.
    let Wire::Relocate(sent) = keep(vec![copy(2048)]) else { panic!("it is sent as a relocation") };
    let without = pb::Relocate { inline: Vec::new(), ..sent.clone() };
    let nothing = Call::Relocate { object, moves: Vec::new() };
    assert_eq!(decoded(Wire::Relocate(without)).unwrap().call, nothing);
    let place = Place::StageFile { node: NodeId(1) };
    let from = Extent { offset: 0, len: 1, place, crc: 0 };
    let moves = lists::encode_moves(&[Move { ino: Ino(5), from, to_offset: 0 }]);
    let both = Wire::Relocate(pb::Relocate { moves, ..sent });
    assert_eq!(decoded(both).unwrap_err().kind(), Kind::Invalid);
    // Who asks without knowing of copies asks for none.
    let older = pb::Inode { ino: 8 }.encode_to_vec();
    let newer = pb::ExtentsOf::decode(&older[..]).unwrap();
    assert_eq!(newer, pb::ExtentsOf { ino: 8, with_inline: false });
}

#[test]
fn creating_a_file_costs_few_bytes() {
    let ino = |n: u64| Ino(1_000_000 + n);
    let now = Timestamp { secs: 1_790_000_000, nanos: 123_456_789 };
    let before = Timestamp { secs: 1_780_000_000, nanos: 123_456_789 };
    let new = NewInode {
        kind: FileType::File,
        mode: 0o644,
        umask: 0,
        uid: 1000,
        gid: 1000,
        rdev: 0,
        target: vec![],
    };
    let call = Call::Create { dir: ino(1), name: b"sample-00012345.flac"[..].into(), new, open: true };
    let asked = request::encode(&Request { id: 1_000_000, acked_below: 999_999, ns: NamespaceId(3), call });
    let attr = |ino, kind, size, btime| Attr {
        ino,
        kind,
        mode: 0o755,
        uid: 1000,
        gid: 1000,
        nlink: 1,
        rdev: 0,
        size,
        stored: 0,
        atime: btime,
        mtime: now,
        ctime: now,
        btime,
        version: 1,
        staged_seq: 0,
    };
    let said = response::encode(&Response {
        id: 1_000_000,
        result: Ok(Answer::Attr(attr(ino(2), FileType::File, 0, now))),
        grants: vec![
            (Scope::Directory(ino(1)), LeaseKind::Read),
            (Scope::Inode(ino(1)), LeaseKind::Read),
            (Scope::Inode(ino(2)), LeaseKind::Write),
        ],
        touched: vec![attr(ino(1), FileType::Directory, 1 << 20, before)],
        usage: Some(Usage {
            bytes: 1 << 40,
            inodes: 1 << 20,
            bytes_max: 1 << 42,
            inodes_max: 1 << 30,
            trash_bytes: 1 << 40,
            trash_inodes: 1 << 20,
        }),
    });
    assert!(asked.encoded_len() <= 60, "{}", asked.encoded_len());
    assert!(said.encoded_len() <= 200, "{}", said.encoded_len());
}
