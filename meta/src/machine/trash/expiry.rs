//! What is purged, and when: the oldest hour, when the last file came into it long enough ago, or when the trash is nearly as
//! large as it may become, or would be too large with what is about to come.
//!
//! [`due`] only reads. What it finds is purged by [`crate::machine::Operation::Purge`], by whoever knows which of it is in use.

use granary_core::{Ino, Result, Timestamp};

use super::super::remove;
use super::super::view::Records;
use super::super::{Reply, Tx, View};
use super::holds;
use crate::record::{Family, Key, NamespaceRecord, Span, Value, inode::Held};
use crate::types::FileType;

/// Purging for room begins when less than this part of the bound is left.
const ROOM_PART: u64 = 8;

/// An entry of the trash that is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Victim {
    pub dir: Ino,
    pub name: Box<[u8]>,
    pub ino: Ino,
    pub directory: bool,
    cookie: u64,
}

/// A directory in which nothing is left up to this cookie, because it was purged: the search begins after it. What is skipped
/// wrongly is found when nothing else is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hint(Option<(Ino, u64)>);

impl Hint {
    /// After these were purged.
    pub fn after(victims: &[Victim]) -> Hint {
        Hint(victims.iter().rev().find(|v| !v.directory).map(|v| (v.dir, v.cookie)))
    }

    fn cookie(self, dir: Ino) -> u64 {
        self.0.filter(|(known, _)| *known == dir).map_or(0, |(_, cookie)| cookie)
    }
}

/// What is to be purged now, at most `max` entries of one hour; each comes before the directory that it is in. `wanted`: bytes
/// that are about to come.
pub fn due(view: &mut dyn View, now: Timestamp, wanted: u64, max: usize, hint: Hint) -> Result<Vec<Victim>> {
    let trash = view.inode(Ino::TRASH)?;
    // In order of their making, which is that of time.
    let Some(hour) = entries(view, Ino::TRASH, 0, 1)?.pop() else { return Ok(Vec::new()) };
    let settings = view.settings()?;
    let last = view.inode(hour.ino)?.held.last;
    if !is_old(last, now, settings.trash_ms) && !is_full(&trash.held, wanted, &settings) {
        return Ok(Vec::new());
    }
    collect(view, hour, max, hint)
}

fn is_old(last: Timestamp, now: Timestamp, keep_ms: u64) -> bool {
    let ns = |t: Timestamp| i128::from(t.secs) * 1_000_000_000 + i128::from(t.nanos);
    ns(last) + i128::from(keep_ms) * 1_000_000 <= ns(now)
}

fn is_full(held: &Held, wanted: u64, settings: &NamespaceRecord) -> bool {
    let nearly = |has: u64, max: u64| max > 0 && has > max - max / ROOM_PART;
    let max = settings.bytes_max;
    let lacks = max > 0 && held.bytes.saturating_add(wanted) > max;
    lacks || nearly(held.bytes, max) || nearly(held.inodes, settings.inodes_max)
}

/// A directory whose entries are being looked at.
struct Frame {
    /// The entry of the directory itself.
    itself: Victim,
    /// Those that were read and not looked at, in reverse.
    rest: Vec<Victim>,
    /// None was left out.
    whole: bool,
}

/// Depth first, without recursion: a path may be long.
fn collect(view: &mut dyn View, hour: Victim, max: usize, hint: Hint) -> Result<Vec<Victim>> {
    let mut found = Vec::new();
    let mut frames = vec![open(view, hour, max, hint)?];
    while let Some(frame) = frames.last_mut() {
        let left = max - found.len();
        if left == 0 {
            break;
        }
        match frame.rest.pop() {
            Some(entry) if entry.directory => frames.push(open(view, entry, left, hint)?),
            Some(entry) => found.push(entry),
            None if frame.whole => found.extend(frames.pop().map(|frame| frame.itself)),
            None => break,
        }
    }
    Ok(found)
}

fn open(view: &mut dyn View, itself: Victim, max: usize, hint: Hint) -> Result<Frame> {
    let (dir, after) = (itself.ino, hint.cookie(itself.ino));
    let mut rest = entries(view, dir, after, max)?;
    if rest.is_empty() && after > 0 && view.directory(dir)?.entries > 0 {
        rest = entries(view, dir, 0, max)?;
    }
    let whole = rest.len() < max;
    rest.reverse();
    Ok(Frame { itself, rest, whole })
}

fn entries(view: &mut dyn View, dir: Ino, after: u64, max: usize) -> Result<Vec<Victim>> {
    let mut out = Vec::new();
    let from = Key::Listing(dir, after.saturating_add(1));
    view.scan(Span::Of(Family::Listing, dir), Some(&from), &mut |key, value| {
        if let (Key::Listing(_, cookie), Value::Listing(listing)) = (key, value) {
            let (ino, name) = (listing.ino, listing.name);
            out.push(Victim { dir, name, ino, directory: listing.kind == FileType::Directory, cookie });
        }
        Ok(out.len() < max)
    })?;
    Ok(out)
}

/// Removes entries of the trash. Those that are not there, or not in it, or directories that are not empty stay as they are.
/// Answers which inodes lost their name.
pub(in super::super) fn purge(tx: &mut Tx<'_>, victims: Vec<(Ino, Box<[u8]>)>) -> Result<Reply> {
    let mut gone = Vec::with_capacity(victims.len());
    for (dir, name) in victims {
        let Some(entry) = tx.entry(dir, &name)? else { continue };
        if !holds(tx, dir)? {
            continue;
        }
        if entry.kind == FileType::Directory {
            if tx.directory(entry.ino)?.entries > 0 {
                continue;
            }
            remove::rmdir(tx, dir, name)?;
        } else {
            remove::unlink(tx, dir, name, false)?;
        }
        gone.push(entry.ino);
    }
    Ok(Reply::Purged(gone))
}
