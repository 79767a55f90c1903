//! The model's trash, and what a namespace has in its own.

use futures::executor::block_on;
use granary_core::Ino;

use super::driver::listing;
use super::model::{Cell, Model};
use crate::Metadata;
use crate::acl::{ACCESS, DEFAULT};
use crate::local::LocalNamespace;
use crate::types::*;

/// What decides who may look into a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rights {
    mode: u32,
    uid: u32,
    gid: u32,
    lists: [Option<Vec<u8>>; 2],
}

/// A mirror: its name without a number (the hour has none), and what it was made like, from the hour down.
pub type Path = Vec<(Vec<u8>, Rights)>;

/// What lies in the trash: where, and by which name.
pub type Place = (Path, Vec<u8>);

impl Model {
    pub fn is_worth(&self, ino: u64) -> bool {
        let node = &self.nodes[&ino];
        let stored = node.cells.iter().flatten().any(|cell| matches!(cell, Cell::Object(..)));
        node.attr.kind == FileType::File && stored
    }

    pub fn has_room(&self, stored: u64, inodes: u64) -> bool {
        let usage = self.usage();
        let fits = |has, more, max| max == 0 || has + more <= max;
        fits(usage.trash_bytes, stored, self.bytes_max) && fits(usage.trash_inodes, inodes, self.inodes_max)
    }

    /// Where a file would go that loses its name in `dir`; mirrors are made even if it goes nowhere in the end.
    pub fn place_for(&mut self, dir: u64, name: &[u8], ino: u64) -> Option<Place> {
        let attr = self.nodes[&ino].attr.clone();
        if self.trash_ms == 0 || attr.nlink != 1 || !self.is_worth(ino) || !self.has_room(attr.stored, 1) {
            return None;
        }
        let mut below = Vec::new();
        let mut at = dir;
        while at != 1 {
            let parent = self.nodes[&at].parent;
            let mut entries = self.nodes[&parent].entries.values();
            below.push((entries.find(|(_, ino)| *ino == at).unwrap().0.clone(), at));
            at = parent;
        }
        below.push((Vec::new(), 1));
        let mut path = Path::new();
        for (name, original) in below.into_iter().rev() {
            path.push((name, self.rights(original)));
            if !self.mirrors.contains(&path) {
                if !self.has_room(0, 2) {
                    return None;
                }
                self.mirrors.insert(path.clone());
            }
        }
        Some((path, name.to_vec()))
    }

    fn rights(&self, dir: u64) -> Rights {
        let node = &self.nodes[&dir];
        let Attr { mode, uid, gid, .. } = node.attr;
        Rights { mode, uid, gid, lists: [ACCESS, DEFAULT].map(|list| node.xattrs.get(list).cloned()) }
    }
}

/// A file in a namespace's trash.
pub struct Found {
    pub ino: u64,
    pub dir: Ino,
    pub name: Vec<u8>,
    pub place: Place,
}

/// All files that lie in the trash, and how many directories do.
pub fn all(space: &LocalNamespace) -> (Vec<Found>, u64) {
    let (mut found, mut dirs) = (Vec::new(), 0);
    look(space, Ino::TRASH, &Path::new(), &mut found, &mut dirs);
    (found, dirs)
}

fn look(space: &LocalNamespace, dir: Ino, path: &Path, found: &mut Vec<Found>, dirs: &mut u64) {
    for entry in listing(space, dir, 5).unwrap() {
        let attr = entry.attr.unwrap();
        let plain = without_number(&entry.name).to_vec();
        if attr.kind == FileType::Directory {
            *dirs += 1;
            let name = if path.is_empty() { Vec::new() } else { plain };
            let lists = [ACCESS, DEFAULT].map(|list| block_on(space.getxattr(attr.ino, list)).ok());
            let rights = Rights { mode: attr.mode, uid: attr.uid, gid: attr.gid, lists };
            look(space, attr.ino, &[&path[..], &[(name, rights)]].concat(), found, dirs);
        } else {
            assert_eq!(attr.nlink, 1);
            let place = (path.clone(), plain);
            found.push(Found { ino: attr.ino.0, dir, name: entry.name, place });
        }
    }
}

/// `f` of `f~2`; the names of the driver have no such end themselves.
fn without_number(name: &[u8]) -> &[u8] {
    match name.iter().rposition(|b| *b == b'~') {
        Some(at) if name[at + 1..].iter().all(u8::is_ascii_digit) => &name[..at],
        _ => name,
    }
}

/// What the trash has that the model's has not, if anything.
pub fn difference(space: &LocalNamespace, model: &Model) -> Option<String> {
    let (found, dirs) = all(space);
    let mut found: Vec<_> = found.into_iter().map(|f| (f.ino, f.place)).collect();
    found.sort();
    let expected: Vec<_> = model.trash.iter().map(|(ino, place)| (*ino, place.clone())).collect();
    if found != expected {
        return Some(format!("in the trash {found:?}, model {expected:?}"));
    }
    let mirrors = model.mirrors.len() as u64;
    (dirs != mirrors).then(|| format!("{dirs} directories in the trash, model {mirrors}"))
}
