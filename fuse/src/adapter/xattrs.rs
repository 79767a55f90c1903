//! Extended attributes.

use granary_core::{Ino, Kind};

use super::Adapter;
use super::metrics::Op;
use super::reply::{reply_done, reply_xattr};
use crate::proto::request::{SETXATTR_ACL_KILL_SGID, Setxattr};
use crate::transport::Reply;
use crate::vfs::{Cx, XattrFlags};

impl Adapter {
    pub(super) fn setxattr(&self, cx: Cx, ino: Ino, set: &Setxattr<'_>, reply: Reply) {
        let (vfs, name, value) = (self.vfs(), set.name.to_vec(), set.value.to_vec());
        let flags = XattrFlags {
            create_only: set.flags & libc::XATTR_CREATE as u32 != 0,
            replace_only: set.flags & libc::XATTR_REPLACE as u32 != 0,
            kill_sgid: set.own_flags & SETXATTR_ACL_KILL_SGID != 0,
        };
        let again = reply.is_again();
        let work = async move {
            match vfs.setxattr(&cx, ino, &name, &value, flags).await {
                Err(e) if again && e.kind() == Kind::Exists => {
                    if vfs.getxattr(&cx, ino, &name).await? != value {
                        return Err(e);
                    }
                }
                first => first?,
            }
            vfs.settle_changes().await
        };
        self.answer(Op::Setxattr, ino, reply, work, reply_done);
    }

    pub(super) fn getxattr(&self, cx: Cx, ino: Ino, name: &[u8], size: u32, reply: Reply) {
        if let Some(ready) = self.shared.vfs.getxattr_ready(&cx, name) {
            return self.answer_now(
                Op::Getxattr,
                ino,
                reply,
                || ready,
                |_, reply, value: Vec<u8>| {
                    reply_xattr(reply, size, &value);
                },
            );
        }
        let (vfs, name) = (self.vfs(), name.to_vec());
        let work = async move { vfs.getxattr(&cx, ino, &name).await };
        self.answer(Op::Getxattr, ino, reply, work, move |_, reply, value| reply_xattr(reply, size, &value));
    }

    pub(super) fn listxattr(&self, cx: Cx, ino: Ino, size: u32, reply: Reply) {
        let vfs = self.vfs();
        let work = async move { vfs.listxattr(&cx, ino).await };
        self.answer(Op::Listxattr, ino, reply, work, move |_, reply, names| reply_xattr(reply, size, &names));
    }

    pub(super) fn removexattr(&self, cx: Cx, ino: Ino, name: &[u8], reply: Reply) {
        let (vfs, name) = (self.vfs(), name.to_vec());
        let again = reply.is_again();
        let work = async move {
            match vfs.removexattr(&cx, ino, &name).await {
                Err(e) if again && e.kind() == Kind::NoAttribute => {}
                first => first?,
            }
            vfs.settle_changes().await
        };
        self.answer(Op::Removexattr, ino, reply, work, reply_done);
    }
}
