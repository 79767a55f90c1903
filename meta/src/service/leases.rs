//! Who holds which lease, and what was recalled: plain data without I/O, one for each namespace.
//!
//! A scope is held by one session for writing, or by any number for reading. There are millions of entries, nearly all
//! with one holder: so an entry is a scope as one number and a holder as another (16 bytes, and what the hash table adds),
//! and only scopes with several readers have a list.

use std::collections::HashMap;
use std::time::Duration;

use granary_core::Ino;

use crate::changes::KeyHash;
use crate::lease::{LeaseKind, Scope};

/// A session's number within the service, never used twice.
pub(super) type Member = u32;
/// The number of no session.
pub(super) const NOBODY: Member = Member::MAX;

/// A scope as one number: the inode's, shifted, and whether its entries are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ScopeKey(u64);

impl ScopeKey {
    /// `None` for an inode number that is never given out.
    pub fn new(scope: Scope) -> Option<ScopeKey> {
        let (ino, directory) = match scope {
            Scope::Inode(ino) => (ino, 0),
            Scope::Directory(ino) => (ino, 1),
        };
        (ino.0 >> 63 == 0).then_some(ScopeKey(ino.0 << 1 | directory))
    }

    pub fn scope(self) -> Scope {
        let ino = Ino(self.0 >> 1);
        if self.0 & 1 == 0 { Scope::Inode(ino) } else { Scope::Directory(ino) }
    }
}

/// Who holds a scope: a member and the kind, or that a list says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    Reader(Member),
    Writer(Member),
    Readers,
}

/// The recalls of one lease that were not answered: of each kind one at most.
#[derive(Clone, Copy, Debug, Default)]
struct Outstanding {
    read: Option<u64>,
    write: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Recalled {
    member: Member,
    key: ScopeKey,
    wanted: LeaseKind,
    /// When it was made, by the clock.
    at: Duration,
}

#[derive(Debug, Default)]
pub(super) struct Leases {
    held: HashMap<ScopeKey, Holder, KeyHash>,
    /// Of the scopes with `Holder::Readers`, two members or more.
    readers: HashMap<ScopeKey, Vec<Member>, KeyHash>,
    outstanding: HashMap<(Member, ScopeKey), Outstanding, KeyHash>,
    recalls: HashMap<u64, Recalled, KeyHash>,
}

impl Leases {
    pub fn holds(&self, member: Member, key: ScopeKey) -> Option<LeaseKind> {
        match *self.held.get(&key)? {
            Holder::Reader(m) => (m == member).then_some(LeaseKind::Read),
            Holder::Writer(m) => (m == member).then_some(LeaseKind::Write),
            Holder::Readers => self.readers.get(&key)?.contains(&member).then_some(LeaseKind::Read),
        }
    }

    /// Whether the member may be given a lease now: nothing of it is being recalled.
    pub fn is_recalled(&self, member: Member, key: ScopeKey) -> bool {
        !self.outstanding.is_empty() && self.outstanding.contains_key(&(member, key))
    }

    /// Who else holds what is in the way of `wanted`: of reading another's write lease, of changing any other lease.
    pub fn in_the_way(&self, member: Member, key: ScopeKey, wanted: LeaseKind, found: &mut Vec<Member>) {
        match self.held.get(&key) {
            Some(&Holder::Writer(m)) if m != member => found.push(m),
            Some(&Holder::Reader(m)) if m != member && wanted == LeaseKind::Write => found.push(m),
            Some(Holder::Readers) if wanted == LeaseKind::Write => {
                let readers = self.readers.get(&key).into_iter().flatten();
                found.extend(readers.copied().filter(|m| *m != member));
            }
            _ => {}
        }
    }

    pub fn is_free(&self, member: Member, key: ScopeKey, wanted: LeaseKind) -> bool {
        match self.held.get(&key) {
            None => true,
            Some(&Holder::Writer(m)) => m == member,
            Some(&Holder::Reader(m)) => m == member || wanted == LeaseKind::Read,
            Some(Holder::Readers) => wanted == LeaseKind::Read,
        }
    }

    /// Gives a lease that nothing is in the way of; a read lease does not take a write lease away. Whether the member had
    /// none of this scope.
    pub fn grant(&mut self, member: Member, key: ScopeKey, kind: LeaseKind) -> bool {
        debug_assert!(self.is_free(member, key, kind), "a lease is given while another is in the way");
        let fresh = match kind {
            LeaseKind::Read => Holder::Reader(member),
            LeaseKind::Write => Holder::Writer(member),
        };
        match self.held.get(&key).copied() {
            None => {
                self.held.insert(key, fresh);
                true
            }
            Some(Holder::Writer(m)) if m == member => false,
            Some(Holder::Reader(m)) if m == member => {
                self.held.insert(key, fresh);
                false
            }
            Some(Holder::Reader(m)) => {
                self.held.insert(key, Holder::Readers);
                self.readers.insert(key, vec![m, member]);
                true
            }
            Some(Holder::Readers) => {
                let readers = self.readers.entry(key).or_default();
                let new = !readers.contains(&member);
                if new {
                    readers.push(member);
                }
                new
            }
            Some(Holder::Writer(_)) => false,
        }
    }

    /// Takes a member's lease away. Whether it had one.
    pub fn remove(&mut self, member: Member, key: ScopeKey) -> bool {
        self.answered(member, key);
        match self.held.get(&key).copied() {
            Some(Holder::Reader(m) | Holder::Writer(m)) if m == member => {
                self.held.remove(&key);
                true
            }
            Some(Holder::Readers) => self.remove_reader(member, key),
            _ => false,
        }
    }

    fn remove_reader(&mut self, member: Member, key: ScopeKey) -> bool {
        let Some(readers) = self.readers.get_mut(&key) else { return false };
        let Some(at) = readers.iter().position(|m| *m == member) else { return false };
        readers.swap_remove(at);
        if let [last] = readers[..] {
            self.readers.remove(&key);
            self.held.insert(key, Holder::Reader(last));
        }
        true
    }

    /// Notes a recall, unless one that asks for as much is under way already. Whether it is to be sent.
    pub fn recall(
        &mut self,
        member: Member,
        key: ScopeKey,
        wanted: LeaseKind,
        id: u64,
        at: Duration,
    ) -> bool {
        let known = self.outstanding.entry((member, key)).or_default();
        if known.write.is_some() || (wanted == LeaseKind::Read && known.read.is_some()) {
            return false;
        }
        match wanted {
            LeaseKind::Read => known.read = Some(id),
            LeaseKind::Write => known.write = Some(id),
        }
        self.recalls.insert(id, Recalled { member, key, wanted, at });
        true
    }

    /// A recall was answered: the lease is what is left of it. The scope, and whether the lease is gone now.
    pub fn released(&mut self, member: Member, id: u64) -> Option<(ScopeKey, bool)> {
        let &Recalled { member: of, key, wanted, .. } = self.recalls.get(&id)?;
        if of != member {
            return None;
        }
        self.recalls.remove(&id);
        if wanted == LeaseKind::Write {
            return Some((key, self.remove(member, key)));
        }
        if let Some(known) = self.outstanding.get_mut(&(member, key)) {
            known.read = None;
            if known.write.is_none() {
                self.outstanding.remove(&(member, key));
            }
        }
        if self.held.get(&key) == Some(&Holder::Writer(member)) {
            self.held.insert(key, Holder::Reader(member));
        }
        Some((key, false))
    }

    /// Whatever was recalled of this lease needs no answer any more.
    fn answered(&mut self, member: Member, key: ScopeKey) {
        if let Some(known) = self.outstanding.remove(&(member, key)) {
            for id in [known.read, known.write].into_iter().flatten() {
                self.recalls.remove(&id);
            }
        }
    }

    /// The recalls that a member has not answered, in the order in which they were made.
    pub fn unanswered(&self, member: Member) -> Vec<(u64, ScopeKey, LeaseKind)> {
        let mut all: Vec<_> = self
            .recalls
            .iter()
            .filter(|(_, recalled)| recalled.member == member)
            .map(|(id, recalled)| (*id, recalled.key, recalled.wanted))
            .collect();
        all.sort_unstable_by_key(|(id, ..)| *id);
        all
    }

    /// Who has not answered a recall that was made before this time.
    pub fn overdue(&self, before: Duration) -> Vec<Member> {
        self.recalls
            .values()
            .filter(|recalled| recalled.at < before)
            .map(|recalled| recalled.member)
            .collect()
    }

    /// Takes all of a member's leases away; what it held.
    pub fn remove_member(&mut self, member: Member) -> Vec<ScopeKey> {
        let mut keys: Vec<ScopeKey> = Vec::new();
        for (key, holder) in &self.held {
            let has = match *holder {
                Holder::Reader(m) | Holder::Writer(m) => m == member,
                Holder::Readers => self.readers.get(key).is_some_and(|all| all.contains(&member)),
            };
            if has {
                keys.push(*key);
            }
        }
        for key in &keys {
            self.remove(member, *key);
        }
        self.outstanding.retain(|(m, _), _| *m != member);
        self.recalls.retain(|_, recalled| recalled.member != member);
        keys
    }

    /// What a member holds, in order. Looks at all.
    pub fn of(&self, member: Member) -> Vec<(Scope, LeaseKind)> {
        let held = self.held.keys().filter_map(|key| Some((*key, self.holds(member, *key)?)));
        let mut all: Vec<(ScopeKey, LeaseKind)> = held.collect();
        all.sort_unstable_by_key(|(key, _)| *key);
        all.into_iter().map(|(key, kind)| (key.scope(), kind)).collect()
    }

    /// Whether a member holds anything. Looks at all.
    pub fn is_member(&self, member: Member) -> bool {
        self.held.iter().any(|(key, _)| self.holds(member, *key).is_some())
    }

    /// Scopes that are held.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.held.len()
    }
}

#[cfg(test)]
mod tests;
