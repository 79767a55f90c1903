//! Answers in the kernel's words.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use fuser::{
    BackingId, Errno, FileHandle, FopenFlags, Generation, INodeNo, ReplyAttr, ReplyCreate,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyXattr,
};
use granary_core::{Ino, Result};
use granary_meta::Attr;

use super::convert;
use super::metrics::Op;
use super::serve::Shared;
use crate::vfs::{ENTRIES_AT_ONCE, Entry, Io, Opened, VALID, Vfs};

/// Inode numbers are never used again.
const GENERATION: Generation = Generation(0);

/// A name that is not there: the kernel remembers that.
pub(super) fn reply_absent(reply: ReplyEntry) {
    reply.entry(&VALID, &convert::absent(), GENERATION);
}

pub(super) fn reply_entry(reply: ReplyEntry, attr: Attr) {
    reply.entry(&VALID, &convert::attr(&attr), GENERATION);
}

pub(super) fn reply_attr(reply: ReplyAttr, attr: Attr) {
    reply.attr(&VALID, &convert::attr(&attr));
}

pub(super) fn reply_done(reply: ReplyEmpty, _: ()) {
    reply.ok();
}

pub(super) fn reply_xattr(reply: ReplyXattr, size: u32, value: &[u8]) {
    match size {
        0 => reply.size(value.len() as u32),
        size if value.len() > size as usize => reply.error(Errno::ERANGE),
        _ => reply.data(value),
    }
}

/// How an open file is described to the kernel: its flags, and the registered stage file with passthrough.
struct Description {
    fh: FileHandle,
    flags: FopenFlags,
    backing: Option<Arc<BackingId>>,
}

/// Registers the stage file where the kernel is to use it; where it refuses, the handle goes through the page cache.
fn describe(
    vfs: &Vfs,
    opened: Opened,
    open_backing: impl FnOnce(&std::fs::File) -> io::Result<BackingId>,
) -> Result<Description> {
    let mut flags = if opened.flush { FopenFlags::empty() } else { FopenFlags::FOPEN_NOFLUSH };
    let fh = FileHandle(opened.fh);
    match opened.io {
        Io::Cached { keep } => {
            if keep {
                flags |= FopenFlags::FOPEN_KEEP_CACHE;
            }
            Ok(Description { fh, flags, backing: None })
        }
        Io::Direct => Ok(Description { fh, flags: flags | FopenFlags::FOPEN_DIRECT_IO, backing: None }),
        Io::Passthrough(grant) => {
            let for_good = match grant.registration.get(|| open_backing(&grant.backing.file)) {
                Ok(Some(id)) => return Ok(Description { fh, flags, backing: Some(id) }),
                Ok(None) => false,
                Err(e) => {
                    let out_of_room =
                        matches!(e.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM));
                    tracing::warn!(
                        namespace = vfs.options().name,
                        "the kernel does not take a stage file for passthrough ({e}); {} slower; the stage must lie on a \
                         plain local file system, and the process needs CAP_SYS_ADMIN and room below RLIMIT_NOFILE",
                        if out_of_room { "this file is" } else { "large files are" },
                    );
                    !out_of_room
                }
            };
            drop(grant);
            let instead = vfs.passthrough_refused(opened.fh, for_good)?;
            let flags = if instead.flush { FopenFlags::empty() } else { FopenFlags::FOPEN_NOFLUSH };
            Ok(Description { fh, flags, backing: None })
        }
    }
}

pub(super) fn reply_opened(shared: &Shared, reply: ReplyOpen, ino: INodeNo, opened: Option<Opened>) {
    // A kernel that is told ENOSYS sends no OPEN and no RELEASE any more, and keeps its pages.
    let Some(opened) = opened else { return reply.error(Errno::ENOSYS) };
    match describe(&shared.vfs, opened, |file| reply.open_backing(file)) {
        Ok(Description { fh, flags, backing: Some(id) }) => reply.opened_passthrough(fh, flags, &id),
        Ok(Description { fh, flags, backing: None }) => reply.opened(fh, flags),
        Err(e) => reply.error(shared.reporter.report(&e, Op::Open, ino.0)),
    }
}

pub(super) fn reply_created(shared: &Shared, reply: ReplyCreate, (attr, opened): (Attr, Opened)) {
    let described = describe(&shared.vfs, opened, |file| reply.open_backing(file));
    let attr = convert::attr(&attr);
    match described {
        Ok(Description { fh, flags, backing: Some(id) }) => {
            reply.created_passthrough(&VALID, &attr, GENERATION, fh, flags, &id);
        }
        Ok(Description { fh, flags, backing: None }) => reply.created(&VALID, &attr, GENERATION, fh, flags),
        Err(e) => reply.error(shared.reporter.report(&e, Op::Create, attr.ino.0)),
    }
}

/// Fills a listing's buffer, asking for more entries until it is full or there are no more.
pub(super) async fn list(
    vfs: &Vfs,
    dir: Ino,
    mut offset: u64,
    with_attr: bool,
    mut add: impl FnMut(&Entry) -> bool,
) -> Result<()> {
    loop {
        let entries = vfs.readdir(dir, offset, ENTRIES_AT_ONCE, with_attr).await?;
        let Some(last) = entries.last() else { return Ok(()) };
        offset = last.next;
        for entry in &entries {
            if add(entry) {
                return Ok(());
            }
        }
    }
}

/// fuser says that an entry does not fit by `true`; whoever is not in the buffer was not looked up.
pub(super) fn add_plus(vfs: &Vfs, reply: &mut ReplyDirectoryPlus, entry: &Entry) -> bool {
    let Some(attr) = &entry.attr else { return false };
    let name = OsStr::from_bytes(&entry.name);
    let full = reply.add(INodeNo(entry.ino.0), entry.next, name, &VALID, &convert::attr(attr), GENERATION);
    if !full && !entry.is_dots() {
        vfs.looked_up(entry.ino);
    }
    full
}
