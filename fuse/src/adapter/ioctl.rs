//! IOCTL: programs that say what they will read. Others are not known here: ENOTTY.

use granary_core::{Error, Ino, Kind};

use super::metrics::Op;
use super::{Adapter, groups};
use crate::proto::announce::{Announcement, is_announcement};
use crate::proto::answer;
use crate::proto::request::Ioctl;
use crate::transport::Reply;
use crate::vfs::rights::Rights;
use crate::vfs::{Cx, Reading};

impl Adapter {
    pub(super) fn ioctl(&self, cx: Cx, ino: Ino, call: &Ioctl<'_>, reply: Reply) {
        if !is_announcement(call.cmd) {
            return self.refuse(Op::Ioctl, reply, libc::ENOTTY);
        }
        let announcement = Announcement::parse(call.data);
        let vfs = self.vfs();
        let work = async move {
            let announcement = announcement.map_err(|e| Error::new(Kind::Invalid, e.to_string()))?;
            let (uid, gids) = groups::of(cx.pid, cx.uid, cx.gid);
            let rights = Rights { uid, gids, all: uid == 0, lists: vfs.keeps_acls() };
            let Announcement { number, anew, end, names } = announcement;
            vfs.announce(&rights, ino, Reading { number, anew, end, names }).await
        };
        self.answer(Op::Ioctl, ino, reply, work, |_, reply, taken| reply.body(&answer::ioctl(taken as i32)));
    }
}
