//! A block: one range of one file.

use bytes::Bytes;
use granary_core::codec::{Put, Reader};
use granary_core::limits::{FILE_BYTES_MAX, OBJECT_PAYLOAD_MAX};
use granary_core::{Error, Ino, Kind, NamespaceId, ObjectId, ObjectKind, Result};

use super::Sealed;
use super::codec::Codec;
use super::footer;
use super::frames::FrameSums;

/// Whose bytes a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockInfo {
    pub ino: Ino,
    /// Where in the file its first byte is.
    pub file_offset: u64,
    /// The inode's content version when it was uploaded: of two blocks of one range the higher is the newer.
    pub version: u64,
}

impl BlockInfo {
    pub(super) fn decode(r: &mut Reader<'_>, payload_len: u64) -> Result<BlockInfo> {
        let info = BlockInfo { ino: Ino(r.u64()?), file_offset: r.u64()?, version: r.u64()? };
        if info.ino.0 == 0 {
            return Err(r.corrupt("its inode is 0"));
        }
        if info.file_offset.checked_add(payload_len).is_none_or(|end| end > FILE_BYTES_MAX) {
            return Err(r.corrupt("its offset in the file is impossible"));
        }
        Ok(info)
    }
}

/// Gathers one block. Pure: no I/O, no copy.
#[derive(Debug)]
pub struct BlockBuilder {
    ns: NamespaceId,
    id: ObjectId,
    info: BlockInfo,
    payload: Vec<Bytes>,
    sums: FrameSums,
}

impl BlockBuilder {
    pub fn new(ns: NamespaceId, id: ObjectId, info: BlockInfo) -> BlockBuilder {
        BlockBuilder { ns, id, info, payload: Vec::new(), sums: FrameSums::default() }
    }

    /// Payload bytes so far.
    pub fn len(&self) -> u64 {
        self.sums.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends payload bytes.
    ///
    /// Errors: `Bug` when the payload would be longer than 15 MiB, or the file longer than allowed.
    pub fn push(&mut self, bytes: Bytes) -> Result<()> {
        let len = self.len() + bytes.len() as u64;
        if len > OBJECT_PAYLOAD_MAX {
            return Err(Error::new(Kind::Bug, format!("block {} would have {len} payload bytes", self.id)));
        }
        if self.info.file_offset.checked_add(len).is_none_or(|end| end > FILE_BYTES_MAX) {
            return Err(Error::new(
                Kind::Bug,
                format!("block {} would reach past the longest file", self.id),
            ));
        }
        self.sums.add(&bytes);
        self.payload.push(bytes);
        Ok(())
    }

    /// Errors: `Bug` when it is empty or has no inode.
    pub fn seal(self) -> Result<Sealed> {
        self.seal_with(Codec::None)
    }

    /// The same compressed, where that makes it smaller. Takes processor time: not for a thread that must not wait.
    pub fn seal_with(self, codec: Codec) -> Result<Sealed> {
        let info = self.info;
        if info.ino.0 == 0 {
            return Err(Error::new(Kind::Bug, format!("block {} is of inode 0", self.id)));
        }
        footer::seal((self.ns, self.id, ObjectKind::Block), self.payload, self.sums, codec, |out| {
            out.put_u64(info.ino.0);
            out.put_u64(info.file_offset);
            out.put_u64(info.version);
        })
    }
}
