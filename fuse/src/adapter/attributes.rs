//! LOOKUP, GETATTR, STATX, SETATTR, STATFS.

use granary_core::Ino;

use super::metrics::Op;
use super::reply::{reply_absent, reply_attr, reply_entry, reply_statx};
use super::{Adapter, convert};
use crate::proto::answer::{Statfs, statfs};
use crate::proto::request::Setattr;
use crate::transport::Reply;
use crate::vfs::At;

impl Adapter {
    pub(super) fn lookup(&self, dir: Ino, name: &[u8], reply: Reply) {
        let (vfs, name) = (self.vfs(), name.to_vec());
        let kept = self.kept_name(&name);
        let work = async move { vfs.lookup(dir, &name).await };
        self.answer(Op::Lookup, dir, reply, work, move |shared, reply, found| {
            let at = At { dir, name: kept.as_deref() };
            match found {
                Some(attr) => reply_entry(shared, reply, at, &attr),
                None => reply_absent(shared, reply, at),
            }
        });
    }

    pub(super) fn getattr(&self, ino: Ino, reply: Reply) {
        let vfs = self.vfs();
        self.answer(Op::Getattr, ino, reply, async move { vfs.getattr(ino).await }, reply_attr);
    }

    /// Asked for when somebody wants to know the time of birth.
    pub(super) fn statx(&self, ino: Ino, reply: Reply) {
        let vfs = self.vfs();
        self.answer(Op::Statx, ino, reply, async move { vfs.getattr(ino).await }, reply_statx);
    }

    pub(super) fn setattr(&self, ino: Ino, set: &Setattr, reply: Reply) {
        let (vfs, changes) = (self.vfs(), convert::changes(set));
        let work = async move {
            let attr = vfs.setattr(ino, changes).await?;
            vfs.settle_changes().await?;
            Ok(attr)
        };
        self.answer(Op::Setattr, ino, reply, work, reply_attr);
    }

    pub(super) fn statfs(&self, ino: Ino, reply: Reply) {
        const UNIT: u32 = 4096;
        let space = || Ok(self.shared.vfs.statfs());
        self.answer_now(Op::Statfs, ino, reply, space, |_, reply, space| {
            let blocks = |bytes: u64| bytes / u64::from(UNIT);
            reply.body(&statfs(&Statfs {
                blocks: blocks(space.bytes),
                blocks_free: blocks(space.bytes_free),
                inodes: space.inodes,
                inodes_free: space.inodes_free,
                block_size: UNIT,
                name_max: 255,
            }));
        });
    }
}
