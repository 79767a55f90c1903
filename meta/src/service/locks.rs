//! Locks of one namespace: fcntl's and OFD locks on ranges of bytes, and `flock`, a space of its own. Plain data without
//! I/O: told what is asked, it says what is done and which waits are over.
//!
//! Ranges split, merge and change their kind as POSIX has it. Who waits, waits in line: a request does not overtake an
//! earlier one that it would keep waiting, unless that one waits, directly or through others, for the overtaker itself.
//! `flock` changes its kind as Linux does: the old lock is given up first.
//!
//! A wait that would close a ring is refused (`Deadlock`): the graph goes from who waits to who holds what is in the way,
//! across all sessions and files of the namespace, as fcntl wants it; `flock` waits are no part of it.
//!
//! Bounded by the caller: waits are calls under way, and a member's locks are counted.

use std::collections::{HashMap, HashSet, VecDeque};

use granary_core::Ino;

use super::leases::Member;
use crate::lease::{Lock, LockKind, LockOwner};

/// Who has a lock: a session, and whom it names.
pub(super) type Owner = (Member, LockOwner);
/// A wait.
pub(super) type Ticket = u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Done,
    WouldBlock,
    Deadlock,
    Waits(Ticket),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    owner: Owner,
    lock: Lock,
}

#[derive(Clone, Copy, Debug)]
struct Wait {
    ticket: Ticket,
    owner: Owner,
    lock: Lock,
}

#[derive(Debug, Default)]
struct File {
    held: Vec<Held>,
    /// First come, first served.
    line: VecDeque<Wait>,
}

#[derive(Debug, Default)]
pub(super) struct Locks {
    files: HashMap<Ino, File>,
    /// Where each wait is.
    waits: HashMap<Ticket, Ino>,
    /// Who waits where.
    waiting: HashMap<Owner, Vec<Ticket>>,
    counts: HashMap<Member, u64>,
    last: Ticket,
}

fn overlap(a: &Lock, b: &Lock) -> bool {
    a.flock == b.flock && a.start <= b.end && b.start <= a.end
}

fn conflict(a: (Owner, &Lock), b: (Owner, &Lock)) -> bool {
    a.0 != b.0 && overlap(a.1, b.1) && (a.1.kind == LockKind::Exclusive || b.1.kind == LockKind::Exclusive)
}

/// A range as the table keeps it: `flock` covers all. `None`: it is empty.
pub(super) fn normal(mut lock: Lock) -> Option<Lock> {
    if lock.flock {
        (lock.start, lock.end) = (0, u64::MAX);
    }
    (lock.start <= lock.end).then_some(lock)
}

impl File {
    fn in_the_way<'a>(&'a self, owner: Owner, lock: &'a Lock) -> impl Iterator<Item = &'a Held> {
        self.held.iter().filter(move |held| conflict((owner, lock), (held.owner, &held.lock)))
    }

    /// Makes the owner's range this kind, or unlocked.
    fn set(&mut self, owner: Owner, lock: &Lock, unlock: bool) {
        let mut kept = Vec::with_capacity(self.held.len() + 2);
        for held in self.held.drain(..) {
            if held.owner != owner || !overlap(&held.lock, lock) {
                kept.push(held);
                continue;
            }
            if held.lock.start < lock.start {
                kept.push(Held { owner, lock: Lock { end: lock.start - 1, ..held.lock } });
            }
            if held.lock.end > lock.end {
                kept.push(Held { owner, lock: Lock { start: lock.end + 1, ..held.lock } });
            }
        }
        if !unlock {
            let mut new = *lock;
            // What touches it and is of the same kind becomes one with it.
            kept.retain(|held| {
                let joins = held.owner == owner
                    && held.lock.flock == new.flock
                    && held.lock.kind == new.kind
                    && (held.lock.end.checked_add(1) == Some(new.start)
                        || new.end.checked_add(1) == Some(held.lock.start));
                if joins {
                    new.start = new.start.min(held.lock.start);
                    new.end = new.end.max(held.lock.end);
                }
                !joins
            });
            kept.push(Held { owner, lock: new });
        }
        self.held = kept;
    }
}

impl Locks {
    /// The first lock of somebody else that is in the way.
    pub fn test(&self, ino: Ino, owner: Owner, lock: &Lock) -> Option<Lock> {
        let file = self.files.get(&ino)?;
        file.in_the_way(owner, lock).map(|held| held.lock).min_by_key(|lock| (lock.start, lock.end))
    }

    /// Other members that hold what is in the way.
    pub fn in_the_way(&self, ino: Ino, owner: Owner, lock: &Lock) -> Vec<Member> {
        let mut members: Vec<Member> = self.holders(ino, owner, lock).into_iter().map(|(m, _)| m).collect();
        members.sort_unstable();
        members.dedup();
        members.retain(|member| *member != owner.0);
        members
    }

    /// Members that hold what others wait for.
    pub fn waited_for(&self) -> Vec<Member> {
        let waits = self.waiting.keys().flat_map(|owner| self.waits_of(*owner));
        waits.flat_map(|(ino, wait)| self.in_the_way(ino, wait.owner, &wait.lock)).collect()
    }

    /// Locks that a member holds.
    pub fn count(&self, member: Member) -> u64 {
        self.counts.get(&member).copied().unwrap_or(0)
    }

    /// The locks of a member, in order. Looks at all.
    pub fn of(&self, member: Member) -> Vec<(Ino, LockOwner, Lock)> {
        if self.count(member) == 0 {
            return Vec::new();
        }
        let held = self.files.iter().flat_map(|(ino, file)| file.held.iter().map(move |held| (*ino, held)));
        let ours = held.filter(|(_, held)| held.owner.0 == member);
        let mut all: Vec<_> = ours.map(|(ino, held)| (ino, held.owner.1, held.lock)).collect();
        all.sort_unstable_by_key(|(ino, owner, lock)| (*ino, *owner, lock.flock, lock.start));
        all
    }

    /// Asks for a lock, or (`unlock`) gives one back. `granted` gets the waits that are over by it, with their locks taken.
    pub fn request(
        &mut self,
        ino: Ino,
        owner: Owner,
        lock: &Lock,
        unlock: bool,
        wait: bool,
        granted: &mut Vec<Ticket>,
    ) -> Asked {
        if unlock {
            self.set(ino, owner, lock, true);
            self.serve(ino, granted);
            return Asked::Done;
        }
        let line = self.files.get(&ino).map_or(0, |file| file.line.len());
        if !self.is_blocked(ino, owner, lock, if wait { line } else { 0 }) {
            self.set(ino, owner, lock, false);
            // A lock that became shared lets others in.
            self.serve(ino, granted);
            return Asked::Done;
        }
        if lock.flock {
            self.set(ino, owner, lock, true);
            self.serve(ino, granted);
        }
        if !wait {
            return Asked::WouldBlock;
        }
        let holders = self.holders(ino, owner, lock);
        if !lock.flock && self.reaches(holders.clone(), Some(owner), false, &mut HashSet::new()) {
            return Asked::Deadlock;
        }
        let mut reached = HashSet::new();
        self.reaches(holders, None, true, &mut reached);
        self.last += 1;
        let ticket = self.last;
        self.files.entry(ino).or_default().line.push_back(Wait { ticket, owner, lock: *lock });
        self.waits.insert(ticket, ino);
        self.waiting.entry(owner).or_default().push(ticket);
        // Somebody whom this wait is for may stand behind one who now waits for it in turn, and may overtake him.
        self.serve_waits_of(&reached, granted);
        if let Some(at) = granted.iter().position(|t| *t == ticket) {
            granted.swap_remove(at);
            return Asked::Done;
        }
        Asked::Waits(ticket)
    }

    /// Ends waits. How many there were.
    pub fn cancel(&mut self, tickets: &[Ticket], granted: &mut Vec<Ticket>) -> usize {
        // First all, so that none of them is granted because another ended.
        let mut files: Vec<Ino> = Vec::new();
        for ticket in tickets {
            if let Some(ino) = self.waits.get(ticket).copied() {
                self.take_wait(ino, *ticket);
                files.push(ino);
            }
        }
        let ended = files.len();
        files.sort_unstable();
        files.dedup();
        for ino in files {
            self.serve(ino, granted);
        }
        ended
    }

    /// Takes away all that a member has and waits for.
    pub fn remove_member(&mut self, member: Member, granted: &mut Vec<Ticket>) {
        let mut files: Vec<Ino> = Vec::new();
        let mut ended: Vec<(Ino, Ticket)> = Vec::new();
        for (ino, file) in &mut self.files {
            let had = file.held.len();
            file.held.retain(|held| held.owner.0 != member);
            let waits = file.line.iter().filter(|wait| wait.owner.0 == member);
            let before = ended.len();
            ended.extend(waits.map(|wait| (*ino, wait.ticket)));
            if file.held.len() != had || ended.len() != before {
                files.push(*ino);
            }
        }
        self.counts.remove(&member);
        for (ino, ticket) in ended {
            self.take_wait(ino, ticket);
        }
        files.sort_unstable();
        for ino in files {
            self.serve(ino, granted);
        }
    }

    fn set(&mut self, ino: Ino, owner: Owner, lock: &Lock, unlock: bool) {
        if unlock && !self.files.contains_key(&ino) {
            return;
        }
        let file = self.files.entry(ino).or_default();
        let before = file.held.len();
        file.set(owner, lock, unlock);
        let after = file.held.len();
        let count = self.counts.entry(owner.0).or_default();
        *count = (*count + after as u64).saturating_sub(before as u64);
        if *count == 0 {
            self.counts.remove(&owner.0);
        }
        self.tidy(ino);
    }

    fn tidy(&mut self, ino: Ino) {
        if self.files.get(&ino).is_some_and(|file| file.held.is_empty() && file.line.is_empty()) {
            self.files.remove(&ino);
        }
    }

    fn take_wait(&mut self, ino: Ino, ticket: Ticket) -> Option<Wait> {
        self.waits.remove(&ticket);
        let file = self.files.get_mut(&ino)?;
        let at = file.line.iter().position(|wait| wait.ticket == ticket)?;
        let wait = file.line.remove(at)?;
        if let Some(tickets) = self.waiting.get_mut(&wait.owner) {
            tickets.retain(|t| *t != ticket);
            if tickets.is_empty() {
                self.waiting.remove(&wait.owner);
            }
        }
        self.tidy(ino);
        Some(wait)
    }

    fn holders(&self, ino: Ino, owner: Owner, lock: &Lock) -> Vec<Owner> {
        let file = self.files.get(&ino);
        file.into_iter().flat_map(|file| file.in_the_way(owner, lock)).map(|held| held.owner).collect()
    }

    /// Whether one of `from` is `target` or waits for it, directly or through others: for what is held, and with `lines`
    /// also for who is before it in line. All that were met are put in `met`.
    fn reaches(
        &self,
        mut from: Vec<Owner>,
        target: Option<Owner>,
        lines: bool,
        met: &mut HashSet<Owner>,
    ) -> bool {
        while let Some(owner) = from.pop() {
            if Some(owner) == target {
                return true;
            }
            if !met.insert(owner) {
                continue;
            }
            for (ino, wait) in self.waits_of(owner) {
                if lines || !wait.lock.flock {
                    from.extend(self.holders(ino, owner, &wait.lock));
                }
                if lines {
                    from.extend(self.before(ino, &wait));
                }
            }
        }
        false
    }

    fn waits_of(&self, owner: Owner) -> impl Iterator<Item = (Ino, Wait)> {
        self.waiting.get(&owner).into_iter().flatten().filter_map(|ticket| {
            let ino = *self.waits.get(ticket)?;
            let wait = self.files.get(&ino)?.line.iter().find(|wait| wait.ticket == *ticket)?;
            Some((ino, *wait))
        })
    }

    /// Whether a request must wait: for what is held, or for one of the first `ahead` in line.
    fn is_blocked(&self, ino: Ino, owner: Owner, lock: &Lock, ahead: usize) -> bool {
        let Some(file) = self.files.get(&ino) else { return false };
        if file.in_the_way(owner, lock).next().is_some() {
            return true;
        }
        file.line.iter().take(ahead).any(|earlier| {
            conflict((owner, lock), (earlier.owner, &earlier.lock)) && !self.waits_for(ino, earlier, owner)
        })
    }

    /// Who is before a wait in its line and in its way.
    fn before(&self, ino: Ino, wait: &Wait) -> impl Iterator<Item = Owner> {
        let line = self.files.get(&ino).map(|file| file.line.iter()).into_iter().flatten();
        let earlier = line.take_while(|other| other.ticket != wait.ticket);
        earlier
            .filter(|other| conflict((wait.owner, &wait.lock), (other.owner, &other.lock)))
            .map(|other| other.owner)
    }

    /// Whether a wait is for `owner`, directly or through others.
    fn waits_for(&self, ino: Ino, wait: &Wait, owner: Owner) -> bool {
        let mut from = self.holders(ino, wait.owner, &wait.lock);
        from.extend(self.before(ino, wait));
        self.reaches(from, Some(owner), true, &mut HashSet::new())
    }

    /// Takes from the line of a file, in order, whoever need not wait any more.
    fn serve(&mut self, ino: Ino, granted: &mut Vec<Ticket>) {
        let mut at = 0;
        while let Some(wait) = self.files.get(&ino).and_then(|file| file.line.get(at)).copied() {
            if self.is_blocked(ino, wait.owner, &wait.lock, at) {
                at += 1;
                continue;
            }
            self.take_wait(ino, wait.ticket);
            self.set(ino, wait.owner, &wait.lock, false);
            granted.push(wait.ticket);
            // Its lock may have become weaker.
            at = 0;
        }
    }

    fn serve_waits_of(&mut self, owners: &HashSet<Owner>, granted: &mut Vec<Ticket>) {
        let mut files: Vec<Ino> = Vec::new();
        for owner in owners {
            files.extend(self.waits_of(*owner).map(|(ino, _)| ino));
        }
        files.sort_unstable();
        files.dedup();
        for ino in files {
            self.serve(ino, granted);
        }
    }
}

#[cfg(test)]
mod tests;
