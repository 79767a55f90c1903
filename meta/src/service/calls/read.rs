//! Calls that only read: their answers, and what each depends on.

use std::collections::BTreeSet;

use granary_core::{EntryName, Error, Ino, Kind, Result};

use crate::call::{Answer, Call};
use crate::lease::Scope;
use crate::machine::{self, read};
use crate::service::space::Space;

/// Entries, or objects, in one answer.
const ITEMS_MAX: u32 = 10_000;

/// Answers a reading call, and says what the answer depends on.
pub(super) fn read_call(space: &Space, call: &Call) -> (Result<Answer>, Vec<Scope>) {
    let inode = |ino: &Ino| vec![Scope::Inode(*ino)];
    match call {
        Call::Lookup { dir, name } => lookup(space, *dir, name),
        Call::GetAttr { ino } => (space.local.attr_now(*ino).map(Answer::Attr), inode(ino)),
        Call::ReadDir { dir, cookie, max, with_attr } => read_dir(space, *dir, *cookie, *max, *with_attr),
        Call::Parent { dir } => {
            (space.local.read(|view| read::parent(view, *dir)).map(Answer::Ino), inode(dir))
        }
        Call::ReadLink { ino } => {
            (space.local.read(|view| read::readlink(view, *ino)).map(Answer::Bytes), inode(ino))
        }
        Call::GetXattr { ino, name } => {
            (space.local.read(|view| read::getxattr(view, *ino, name)).map(Answer::Bytes), inode(ino))
        }
        Call::ListXattr { ino } => {
            (space.local.read(|view| read::listxattr(view, *ino)).map(Answer::Names), inode(ino))
        }
        Call::Extents { ino, with_inline } => {
            let found = space.local.read(|view| {
                let copy = if *with_inline { read::inline(view, *ino)? } else { None };
                read::extents(view, *ino).map(|(attr, extents)| Answer::Extents(attr, extents, copy))
            });
            (found, inode(ino))
        }
        Call::Live { staged } => {
            (space.local.read(|view| machine::live(view, staged)).map(Answer::Parts), Vec::new())
        }
        Call::Object { id } => {
            (space.local.read(|view| read::object(view, *id)).map(Answer::Object), Vec::new())
        }
        Call::DeadObjects { max } => {
            let dead = space.local.read(|view| read::dead_objects(view, (*max).min(ITEMS_MAX) as usize));
            (dead.map(Answer::DeadObjects), Vec::new())
        }
        Call::LiveObjects { after, max } => {
            let max = (*max).min(ITEMS_MAX) as usize;
            let live = space.local.read(|view| read::live_objects(view, *after, max));
            (live.map(Answer::LiveObjects), Vec::new())
        }
        other => {
            let e = Error::new(Kind::Bug, format!("a call that reads nothing came to be read: {other:?}"));
            (Err(e), Vec::new())
        }
    }
}

fn lookup(space: &Space, dir: Ino, name: &[u8]) -> (Result<Answer>, Vec<Scope>) {
    let found = space.local.read(|view| {
        let name = EntryName::new(name)?;
        read::lookup(view, dir, name)
    });
    let mut scopes = vec![Scope::Directory(dir)];
    match found {
        Ok(attr) => {
            scopes.push(Scope::Inode(attr.ino));
            (Ok(Answer::Attr(attr)), scopes)
        }
        Err(e) => (Err(e), scopes),
    }
}

fn read_dir(space: &Space, dir: Ino, cookie: u64, max: u32, with_attr: bool) -> (Result<Answer>, Vec<Scope>) {
    let max = max.min(ITEMS_MAX) as usize;
    let entries = space.local.read(|view| read::readdir(view, dir, cookie, max, with_attr));
    let mut scopes = Vec::new();
    if let Ok(entries) = &entries {
        let inodes: BTreeSet<Ino> =
            entries.iter().filter_map(|entry| entry.attr.as_ref()).map(|attr| attr.ino).collect();
        scopes.push(Scope::Directory(dir));
        scopes.extend(inodes.into_iter().map(Scope::Inode));
    }
    (entries.map(Answer::Entries), scopes)
}
