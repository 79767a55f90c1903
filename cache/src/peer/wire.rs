//! The messages, and extents in them.

use granary_core::{Error, Ino, Kind, NamespaceId, NodeId, Result};
use granary_meta::{Extent, Place};

use crate::extent_map::clip;

#[allow(clippy::all, clippy::pedantic, unreachable_pub, missing_docs)]
mod generated {
    tonic::include_proto!("granary.peer");
}

pub(super) use generated::peer_client::PeerClient as Client;
pub(super) use generated::peer_server::{Peer as Service, PeerServer as Server};
pub(super) use generated::{LogPlace, ReadReply, ReadRequest};

/// A question as the server understands it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub ns: NamespaceId,
    pub ino: Ino,
    pub node: NodeId,
    pub part: Extent,
    pub whole: Extent,
}

pub(super) fn request(ns: NamespaceId, ino: Ino, part: &Extent, whole: &Extent) -> Result<ReadRequest> {
    let (node, log) = match whole.place {
        Place::Log { node, segment, offset } => (node, Some(LogPlace { segment, offset })),
        Place::StageFile { node } => (node, None),
        Place::Object { .. } => return Err(Error::new(Kind::Bug, "an object is asked of a peer")),
    };
    Ok(ReadRequest {
        ns: ns.0,
        ino: ino.0,
        node: node.0,
        offset: part.offset,
        len: part.len,
        whole_offset: whole.offset,
        whole_len: whole.len,
        whole_crc: whole.crc,
        log,
    })
}

/// Checked: nothing of it is believed before.
pub(super) fn wanted(r: &ReadRequest) -> Result<Wanted> {
    let nonsense = || Error::new(Kind::Invalid, "the range that is asked for cannot be one of a staged extent");
    let end = |offset: u64, len: u64| offset.checked_add(len).filter(|_| len > 0).ok_or_else(nonsense);
    let (part_end, whole_end) = (end(r.offset, r.len)?, end(r.whole_offset, r.whole_len)?);
    if r.len > super::PEER_BYTES_MAX || r.offset < r.whole_offset || part_end > whole_end {
        return Err(nonsense());
    }
    let node = NodeId(r.node);
    let place = match &r.log {
        Some(at) => {
            end(at.offset, r.whole_len)?;
            Place::Log { node, segment: at.segment, offset: at.offset }
        }
        None => Place::StageFile { node },
    };
    let whole = Extent { offset: r.whole_offset, len: r.whole_len, place, crc: r.whole_crc };
    let part = clip(&whole, r.offset, part_end);
    Ok(Wanted { ns: NamespaceId(r.ns), ino: Ino(r.ino), node, part, whole })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_asked_arrives(
            (start, len) in (0..1_u64 << 60, 1..super::super::PEER_BYTES_MAX),
            (from, to) in (0.0..1.0_f64, 0.0..1.0_f64),
            log in proptest::option::of((any::<u64>(), 0..1_u64 << 60)),
            crc in any::<u32>(),
        ) {
            let node = NodeId(9);
            let place = match log {
                Some((segment, offset)) => Place::Log { node, segment, offset },
                None => Place::StageFile { node },
            };
            let whole = Extent { offset: start, len, place, crc };
            let at = start + (from * (len - 1) as f64) as u64;
            let end = at + 1 + (to * (start + len - at - 1) as f64) as u64;
            let part = clip(&whole, at, end);
            let r = request(NamespaceId(3), Ino(7), &part, &whole).unwrap();
            prop_assert_eq!(wanted(&r).unwrap(), Wanted { ns: NamespaceId(3), ino: Ino(7), node, part, whole });
        }

        /// Whatever comes, it is refused or in bounds.
        #[test]
        fn nonsense_is_refused(v in any::<[u64; 7]>(), log in any::<bool>()) {
            let r = ReadRequest {
                ns: v[0] as u32, ino: v[1], node: v[2], offset: v[3], len: v[4] >> (v[0] % 64), whole_offset: v[5] >> (v[1] % 64),
                whole_len: v[6] >> (v[2] % 64), whole_crc: 0,
                log: log.then_some(LogPlace { segment: v[0], offset: v[1] >> (v[3] % 64) }),
            };
            if let Ok(w) = wanted(&r) {
                prop_assert!(w.part.len <= super::super::PEER_BYTES_MAX && w.part.end() <= w.whole.end());
            }
        }
    }
}
