//! fcntl and flock, where other nodes have to know of them; else the kernel keeps them itself and nothing comes here.

use granary_core::Ino;
use granary_meta::lease::{LockOwner, LockRequest};

use super::metrics::Op;
use super::reply::reply_done;
use super::{Adapter, convert};
use crate::proto::answer;
use crate::proto::request::LockCall;
use crate::transport::Reply;

impl Adapter {
    pub(super) fn getlk(&self, ino: Ino, call: &LockCall, reply: Reply) {
        let (vfs, call) = (self.vfs(), *call);
        let work = async move {
            let (lock, _) = convert::lock(&call)?;
            vfs.test_lock(ino, LockOwner(call.owner), lock).await
        };
        self.answer(Op::Getlk, ino, reply, work, |_, reply, found| {
            reply.body(&answer::lock(&convert::file_lock(found.as_ref())));
        });
    }

    /// A wait ends early when the program is interrupted.
    pub(super) fn setlk(&self, ino: Ino, call: &LockCall, wait: bool, reply: Reply) {
        let (vfs, call) = (self.vfs(), *call);
        let work = async move {
            let (lock, unlock) = convert::lock(&call)?;
            let request = LockRequest { owner: LockOwner(call.owner), lock, unlock, wait };
            vfs.lock(ino, call.fh, request).await
        };
        if wait {
            self.answer_or_interrupt(Op::Setlk, ino, reply, work, reply_done);
        } else {
            self.answer(Op::Setlk, ino, reply, work, reply_done);
        }
    }
}
