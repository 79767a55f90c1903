//! Answers in the kernel's words. What says how long something may be kept is worked out and written under the [`Vfs`]'s
//! gate, so that a recall comes either before it, and is seen, or after it, and drops what was kept.

use std::sync::Arc;
use std::time::Duration;

use granary_core::{Ino, Result};
use granary_meta::Attr;

use super::convert;
use super::metrics::Op;
use super::serve::Shared;
use crate::proto::{answer, listing};
use crate::transport::{BackingId, Reply};
use crate::vfs::{At, ENTRIES_AT_ONCE, Entry, Io, Opened, Vfs};

/// Longest listing in one answer, whatever the kernel asks for.
const LISTING_BYTES_MAX: usize = 1 << 20;

/// A name that is not there: the kernel remembers that.
pub(super) fn reply_absent(shared: &Shared, reply: Reply, at: At<'_>) {
    let _gate = shared.vfs.gate();
    reply.body(&answer::absent(shared.vfs.valid_absent(at)));
}

pub(super) fn reply_entry(shared: &Shared, reply: Reply, at: At<'_>, attr: &Attr) {
    let _gate = shared.vfs.gate();
    let valid = shared.vfs.valid(attr, Some(at));
    reply.body(&answer::entry(&convert::attr(attr), valid.entry, valid.attr));
}

pub(super) fn reply_attr(shared: &Shared, reply: Reply, attr: Attr) {
    let _gate = shared.vfs.gate();
    reply.body(&answer::attr(&convert::attr(&attr), shared.vfs.valid(&attr, None).attr));
}

pub(super) fn reply_statx(shared: &Shared, reply: Reply, attr: Attr) {
    let _gate = shared.vfs.gate();
    reply.body(&answer::statx(&convert::attr(&attr), shared.vfs.valid(&attr, None).attr));
}

/// A recall that drops the pages waits for this answer, so it needs no gate.
pub(super) fn reply_data(_: &Shared, reply: Reply, data: &[u8]) {
    reply.data(data);
}

pub(super) fn reply_done(_: &Shared, reply: Reply, (): ()) {
    reply.ok();
}

pub(super) fn reply_xattr(reply: Reply, size: u32, value: &[u8]) {
    match size {
        0 => reply.body(&answer::count(value.len() as u32)),
        size if value.len() > size as usize => reply.error(libc::ERANGE),
        _ => reply.data(value),
    }
}

fn open(fh: u64, flush: bool, flags: u32) -> answer::Open {
    let flags = if flush { flags } else { flags | answer::FOPEN_NOFLUSH };
    answer::Open { fh, flags, backing_id: 0 }
}

/// How an open file is described to the kernel. Registers the stage file where the kernel is to use it, for the answer to
/// name; where it refuses, the handle goes through the page cache.
fn describe(vfs: &Vfs, opened: Opened, reply: &mut Reply) -> Result<answer::Open> {
    let Opened { fh, flush, .. } = opened;
    let grant = match opened.io {
        Io::Cached { keep } => {
            return Ok(open(fh, flush, if keep { answer::FOPEN_KEEP_CACHE } else { 0 }));
        }
        Io::Direct => return Ok(open(fh, flush, answer::FOPEN_DIRECT_IO)),
        Io::Passthrough(grant) => grant,
    };
    let for_good = match grant.registration.get(|| reply.open_backing(&grant.backing.file)) {
        Ok(Some(id)) => {
            let id: Arc<BackingId> = id;
            let open = open(fh, flush, answer::FOPEN_PASSTHROUGH);
            let backing_id = id.number();
            reply.names(id);
            return Ok(answer::Open { backing_id, ..open });
        }
        Ok(None) => false,
        Err(e) => {
            let out_of_room = matches!(e.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM));
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
    let instead = vfs.passthrough_refused(fh, for_good)?;
    Ok(open(fh, instead.flush, 0))
}

pub(super) fn reply_opened(shared: &Shared, mut reply: Reply, ino: Ino, opened: Option<Opened>) {
    // A kernel that is told ENOSYS sends no OPEN and no RELEASE any more, and keeps its pages.
    let Some(opened) = opened else { return reply.error(libc::ENOSYS) };
    match describe(&shared.vfs, opened, &mut reply) {
        Ok(open) => {
            shared.vfs.remember_handle(open.fh, reply.request(), open.backing_id);
            let _gate = shared.vfs.gate();
            reply.body(&answer::open(&open));
        }
        Err(e) => reply.error(shared.reporter.report(&e, Op::Open, ino.0)),
    }
}

pub(super) fn reply_created(shared: &Shared, mut reply: Reply, at: At<'_>, op: Op, created: (Attr, Opened)) {
    let (attr, opened) = created;
    match describe(&shared.vfs, opened, &mut reply) {
        Ok(open) => {
            shared.vfs.remember_handle(open.fh, reply.request(), open.backing_id);
            let _gate = shared.vfs.gate();
            let valid = shared.vfs.valid(&attr, Some(at));
            let entry = answer::entry(&convert::attr(&attr), valid.entry, valid.attr);
            reply.body(&entry.then(&answer::open(&open)));
        }
        Err(e) => reply.error(shared.reporter.report(&e, op, attr.ino.0)),
    }
}

/// As many entries as an answer of `size` bytes holds.
pub(super) async fn list(vfs: &Vfs, dir: Ino, mut offset: u64, size: u32, plus: bool) -> Result<Vec<Entry>> {
    let mut room = (size as usize).min(LISTING_BYTES_MAX);
    let mut fitting = Vec::new();
    loop {
        let entries = vfs.readdir(dir, offset, ENTRIES_AT_ONCE, plus).await?;
        let Some(last) = entries.last() else { return Ok(fitting) };
        offset = last.next;
        for entry in entries {
            let bytes = listing::entry_bytes(entry.name.len(), plus);
            if bytes > room {
                return Ok(fitting);
            }
            room -= bytes;
            if plus && entry.attr.is_some() && !entry.is_dots() {
                vfs.looked_up(entry.ino);
            }
            fitting.push(entry);
        }
    }
}

pub(super) fn reply_listing(shared: &Shared, reply: Reply, dir: Ino, plus: bool, entries: &[Entry]) {
    let bytes = entries.iter().map(|entry| listing::entry_bytes(entry.name.len(), plus)).sum();
    let mut out = Vec::with_capacity(bytes);
    let _gate = shared.vfs.gate();
    for entry in entries {
        let line = listing::Line {
            ino: entry.ino.0,
            next: entry.next,
            kind: convert::type_bits(entry.kind) >> 12,
            name: &entry.name,
        };
        let attr = plus.then(|| match &entry.attr {
            Some(attr) => {
                let valid = shared.vfs.valid(attr, Some(At { dir, name: None }));
                answer::entry(&convert::attr(attr), valid.entry, valid.attr)
            }
            // Listed, and not looked up.
            None => answer::absent(Duration::ZERO),
        });
        listing::push(&mut out, attr.as_ref(), &line);
    }
    reply.data(&out);
}
