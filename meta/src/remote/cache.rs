//! What a session keeps of one namespace: leases, and under each the values it covers. A value without a lease is not
//! kept, and goes with it.
//!
//! A lease is in one of three states:
//!
//! | state | `holds` | cached values answer | new values are kept by others (kernel, `cache`) |
//! |---|---|---|---|
//! | held | true | yes | yes |
//! | being recalled: until [`Cache::release`] | false (a write lease recalled to read: true for read) | yes, it is still ours | no |
//! | gone | false | no | no |
//!
//! Own changes alter the values from their answers, in every state. The order of the service's words is the order in
//! which things happened there, so what is kept is always a state that was, and the last one while the lease lasts.
//!
//! Bounded by leases and bytes: what was not used for longest (by second chance) is chosen to be given back. That is a
//! recall that we make ourselves, because who keeps something under the lease must be told too. Write leases and leases
//! of open inodes stay.

use std::collections::{HashMap, HashSet, VecDeque};

use granary_core::Ino;

use crate::lease::{LeaseKind, Scope};
use crate::types::{Attr, DirEntry};

mod directory;
mod inode;

pub use directory::{Directory, Found};
pub use inode::Inode;

/// Memory of a lease without values, roughly: the table's and the queue's entries.
const LEASE_BYTES: usize = 160;
/// So many leases are looked at when one is to be given back: most may be in use.
const LOOKS_MAX: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheLimits {
    /// Leases kept. The service has a limit of its own for each session.
    pub leases_max: usize,
    /// Bytes of leases and values, roughly.
    pub bytes_max: usize,
}

#[derive(Debug)]
enum Value {
    Inode(Inode),
    Directory(Directory),
}

impl Value {
    fn bytes(&self) -> usize {
        match self {
            Value::Inode(inode) => inode.bytes(),
            Value::Directory(dir) => dir.bytes(),
        }
    }
}

#[derive(Debug)]
struct Lease {
    kind: LeaseKind,
    /// What somebody else wants, or we to give back.
    recalled: Option<LeaseKind>,
    /// Used since the last look for something to give back.
    used: bool,
    /// Bytes that were counted as being given back.
    returning: usize,
    /// Tells this lease from an earlier one of the same scope, in the queue.
    stamp: u64,
    value: Value,
}

#[derive(Debug)]
pub struct Cache {
    limits: CacheLimits,
    leases: HashMap<Scope, Lease>,
    /// In the order in which they are looked at; those that are gone are left in it until they are met.
    queue: VecDeque<(Scope, u64)>,
    stamps: u64,
    bytes: usize,
    /// Leases, and their bytes, that are being recalled and will be gone.
    returning: usize,
    returning_bytes: usize,
}

impl Lease {
    fn bytes(&self) -> usize {
        LEASE_BYTES + self.value.bytes()
    }
}

impl Cache {
    pub fn new(limits: CacheLimits) -> Cache {
        Cache {
            limits,
            leases: HashMap::new(),
            queue: VecDeque::new(),
            stamps: 0,
            bytes: 0,
            returning: 0,
            returning_bytes: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.leases.len()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// A grant of the service. One for a lease that is being recalled changes nothing: it ends with the release.
    pub fn grant(&mut self, scope: Scope, kind: LeaseKind) {
        if let Some(lease) = self.leases.get_mut(&scope) {
            lease.kind = lease.kind.max(kind);
            return;
        }
        let value = match scope {
            Scope::Inode(_) => Value::Inode(Inode::default()),
            Scope::Directory(_) => Value::Directory(Directory::default()),
        };
        self.bytes += LEASE_BYTES + value.bytes();
        self.stamps += 1;
        let stamp = self.stamps;
        self.leases.insert(scope, Lease { kind, recalled: None, used: true, returning: 0, stamp, value });
        self.queue.push_back((scope, stamp));
        if self.queue.len() > 2 * self.leases.len() + LOOKS_MAX {
            let leases = &self.leases;
            self.queue.retain(|(scope, stamp)| leases.get(scope).is_some_and(|l| l.stamp == *stamp));
        }
    }

    /// Whether new values may be kept under it.
    pub fn holds(&self, scope: Scope, kind: LeaseKind) -> bool {
        self.leases.get(&scope).is_some_and(|lease| {
            lease.kind >= kind
                && match lease.recalled {
                    None => true,
                    Some(LeaseKind::Read) => kind == LeaseKind::Read,
                    Some(LeaseKind::Write) => false,
                }
        })
    }

    /// Whether it is ours, if only to finish what is under way.
    pub fn has(&self, scope: Scope, kind: LeaseKind) -> bool {
        self.leases.get(&scope).is_some_and(|lease| lease.kind >= kind)
    }

    /// Somebody wants the lease: from now on nothing new is kept under it.
    pub fn recall(&mut self, scope: Scope, wanted: LeaseKind) {
        let Some(lease) = self.leases.get_mut(&scope) else { return };
        if wanted == LeaseKind::Write && lease.recalled != Some(LeaseKind::Write) {
            lease.returning = lease.bytes();
            self.returning += 1;
            self.returning_bytes += lease.returning;
        }
        lease.recalled = lease.recalled.max(Some(wanted));
    }

    /// Which lease of this scope is held now: a later one has another stamp.
    pub fn stamp(&self, scope: Scope) -> Option<u64> {
        self.leases.get(&scope).map(|lease| lease.stamp)
    }

    /// The recall is done with: what was wanted is given up, of the lease that it found. Whether there was one.
    pub fn release(&mut self, scope: Scope, stamp: Option<u64>, wanted: LeaseKind) -> bool {
        let Some(lease) = self.leases.get_mut(&scope).filter(|l| Some(l.stamp) == stamp) else {
            return false;
        };
        if wanted == LeaseKind::Read {
            lease.kind = LeaseKind::Read;
            if lease.recalled == Some(LeaseKind::Read) {
                lease.recalled = None;
            }
            return true;
        }
        if let Some(lease) = self.leases.remove(&scope) {
            self.bytes -= lease.bytes();
            self.returning -= usize::from(lease.returning > 0);
            self.returning_bytes -= lease.returning;
        }
        true
    }

    /// All leases and values are gone.
    pub fn clear(&mut self) {
        self.leases.clear();
        self.queue.clear();
        (self.bytes, self.returning, self.returning_bytes) = (0, 0, 0);
    }

    /// The inodes whose write lease is ours.
    pub fn writes(&self) -> Vec<Ino> {
        let mut all: Vec<Ino> = self
            .leases
            .iter()
            .filter_map(|(scope, lease)| match scope {
                Scope::Inode(ino) if lease.kind == LeaseKind::Write => Some(*ino),
                _ => None,
            })
            .collect();
        all.sort_unstable();
        all
    }

    pub fn scopes(&self) -> Vec<Scope> {
        self.leases.keys().copied().collect()
    }

    /// What to give back to come within the limits, marked as being recalled; at most `max`.
    pub fn victims(&mut self, max: usize, open: impl Fn(Ino) -> bool) -> Vec<(Scope, u64)> {
        let mut chosen = Vec::new();
        for _ in 0..max + LOOKS_MAX {
            let over = self.leases.len() - self.returning > self.limits.leases_max
                || self.bytes.saturating_sub(self.returning_bytes) > self.limits.bytes_max;
            if !over || chosen.len() == max {
                break;
            }
            let Some((scope, stamp)) = self.queue.pop_front() else { break };
            let Some(lease) = self.leases.get_mut(&scope).filter(|l| l.stamp == stamp) else { continue };
            self.queue.push_back((scope, stamp));
            let needed = match scope {
                Scope::Inode(ino) => lease.kind == LeaseKind::Write || open(ino),
                Scope::Directory(_) => false,
            };
            let going = lease.recalled == Some(LeaseKind::Write);
            if needed || going || std::mem::take(&mut lease.used) {
                continue;
            }
            self.recall(scope, LeaseKind::Write);
            chosen.push((scope, stamp));
        }
        chosen
    }

    pub fn inode(&mut self, ino: Ino) -> Option<&Inode> {
        let lease = self.leases.get_mut(&Scope::Inode(ino))?;
        lease.used = true;
        match &lease.value {
            Value::Inode(inode) => Some(inode),
            Value::Directory(_) => None,
        }
    }

    pub fn directory(&mut self, dir: Ino) -> Option<&Directory> {
        let lease = self.leases.get_mut(&Scope::Directory(dir))?;
        lease.used = true;
        match &lease.value {
            Value::Directory(dir) => Some(dir),
            Value::Inode(_) => None,
        }
    }

    /// Alters what is kept of an inode, if its lease is ours.
    pub fn with_inode(&mut self, ino: Ino, change: impl FnOnce(&mut Inode)) {
        let Some(lease) = self.leases.get_mut(&Scope::Inode(ino)) else { return };
        let Value::Inode(inode) = &mut lease.value else { return };
        let before = inode.bytes();
        change(inode);
        self.bytes = self.bytes + inode.bytes() - before;
    }

    /// Alters what is kept of a directory's entries, if their lease is ours.
    pub fn with_directory(&mut self, dir: Ino, change: impl FnOnce(&mut Directory)) {
        let Some(lease) = self.leases.get_mut(&Scope::Directory(dir)) else { return };
        let Value::Directory(directory) = &mut lease.value else { return };
        let before = directory.bytes();
        change(directory);
        // One directory does not push out all others: a larger one is not kept.
        if directory.bytes() > self.limits.bytes_max / 2 {
            *directory = Directory::default();
        }
        self.bytes = self.bytes + directory.bytes() - before;
    }

    pub fn attr(&mut self, ino: Ino) -> Option<&Attr> {
        self.inode(ino)?.attr.as_ref()
    }

    pub fn put_attr(&mut self, attr: &Attr) {
        self.with_inode(attr.ino, |inode| inode.put_attr(attr));
    }

    /// The attributes of an entry, or that it is missing; `None`: unknown.
    pub fn lookup(&mut self, dir: Ino, name: &[u8]) -> Option<Option<&Attr>> {
        let (found, present) = {
            let directory = self.directory(dir)?;
            (directory.find(name), directory.present())
        };
        match found {
            Found::Present(ino) => self.attr(ino).map(Some),
            Found::Absent => Some(None),
            // Nothing but what is known is in it, if it has as many entries.
            Found::Unknown => {
                let size = self.attr(dir)?.size;
                (size == present as u64 * crate::machine::DIRECTORY_ENTRY_BYTES).then_some(None)
            }
        }
    }

    /// A page of a listing, if all of it is known.
    pub fn list(&mut self, dir: Ino, cookie: u64, max: usize, with_attr: bool) -> Option<Vec<DirEntry>> {
        let mut page = self.directory(dir)?.page(cookie, max)?;
        if with_attr {
            for entry in &mut page {
                entry.attr = Some(self.attr(entry.ino)?.clone());
            }
        }
        Some(page)
    }

    /// For tests: that the counts are right.
    #[cfg(test)]
    pub fn check(&self) {
        let bytes: usize = self.leases.values().map(|l| LEASE_BYTES + l.value.bytes()).sum();
        assert_eq!(bytes, self.bytes);
        let queued: HashSet<_> = self.queue.iter().collect();
        for (scope, lease) in &self.leases {
            assert!(queued.contains(&(*scope, lease.stamp)));
        }
    }
}

/// Inodes that something is remembered of, bounded: beyond it, all count.
#[derive(Debug, Default)]
pub struct InodeSet {
    set: HashSet<Ino>,
    all: bool,
}

impl InodeSet {
    const MAX: usize = 1_000_000;

    pub fn insert(&mut self, ino: Ino) {
        if self.set.len() >= InodeSet::MAX {
            self.all = true;
        } else {
            self.set.insert(ino);
        }
    }

    pub fn contains(&self, ino: Ino) -> bool {
        self.all || self.set.contains(&ino)
    }

    pub fn remove(&mut self, ino: Ino) {
        self.set.remove(&ino);
    }

    pub fn iter(&self) -> impl Iterator<Item = Ino> + '_ {
        self.set.iter().copied()
    }

    pub fn clear(&mut self) {
        *self = InodeSet::default();
    }
}

#[cfg(test)]
mod tests;
