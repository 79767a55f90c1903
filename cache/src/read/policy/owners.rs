//! Whose the entries are: what each namespace has, at least and at most. Sums are kept with every change, so that no question is
//! answered by going through all namespaces.

use std::collections::BTreeMap;

use granary_core::NamespaceId;

use super::Queue;
use crate::read::share::CacheShare;

/// The owner of what outlived a restart and was not read since. It has no minimum and no maximum.
pub(super) const NOBODY: u16 = 0;
/// A number that nobody is given.
pub(super) const NO_OWNER: u16 = u16::MAX;

/// Bytes of one owner.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Owner {
    pub share: CacheShare,
    pub small_bytes: u64,
    pub main_bytes: u64,
    pub pinned_bytes: u64,
    /// Room that was made for what is being written.
    pub reserved: u64,
    /// Where its oldest entries are looked for in the queues.
    pub small_next: u64,
    pub main_next: u64,
}

impl Owner {
    pub fn bytes(&self) -> u64 {
        self.small_bytes + self.main_bytes + self.pinned_bytes
    }

    /// Bytes that do not leave for others.
    pub fn held_bytes(&self) -> u64 {
        self.pinned_bytes.max(self.bytes().min(self.share.bytes_min))
    }

    fn of(&mut self, queue: Queue) -> &mut u64 {
        match queue {
            Queue::Small => &mut self.small_bytes,
            Queue::Main => &mut self.main_bytes,
            Queue::Pinned => &mut self.pinned_bytes,
        }
    }
}

#[derive(Debug)]
pub(super) struct Owners {
    by_namespace: BTreeMap<NamespaceId, u16>,
    /// By number; `NOBODY` is the first.
    owners: Vec<Owner>,
    /// All owners' bytes.
    all: Owner,
    /// Of owners that have more than their minimum: bytes in the two queues.
    free_small: u64,
    free_main: u64,
    /// Of all owners.
    held: u64,
    /// Minimums do not count at the moment.
    lifted: bool,
}

impl Owners {
    pub fn new() -> Owners {
        Owners {
            by_namespace: BTreeMap::new(),
            owners: vec![Owner::default()],
            all: Owner::default(),
            free_small: 0,
            free_main: 0,
            held: 0,
            lifted: false,
        }
    }

    /// The same owners, who have nothing.
    pub fn emptied(&self) -> Owners {
        let owners =
            self.owners.iter().map(|o| Owner { share: o.share, reserved: o.reserved, ..Owner::default() });
        Owners { by_namespace: self.by_namespace.clone(), owners: owners.collect(), ..Owners::new() }
    }

    /// The namespace's number, given when it is first heard of. `NOBODY` when there are 65,534 already.
    pub fn number(&mut self, ns: NamespaceId) -> u16 {
        if let Some(number) = self.by_namespace.get(&ns) {
            return *number;
        }
        let number = match u16::try_from(self.owners.len()) {
            Ok(number) if number != NO_OWNER => number,
            _ => return NOBODY,
        };
        self.owners.push(Owner::default());
        self.by_namespace.insert(ns, number);
        number
    }

    pub fn find(&self, ns: NamespaceId) -> Option<&Owner> {
        Some(self.get(*self.by_namespace.get(&ns)?))
    }

    pub fn get(&self, number: u16) -> &Owner {
        &self.owners[usize::from(number)]
    }

    pub fn all(&self) -> &Owner {
        &self.all
    }

    /// Bytes of the small and the main queue that may leave for others.
    pub fn free(&self) -> (u64, u64) {
        (self.free_small, self.free_main)
    }

    /// Bytes that do not leave for others, whoever they are.
    pub fn held_bytes(&self) -> u64 {
        self.held
    }

    /// Whether what the owner has stays when others need room.
    pub fn is_guarded(&self, number: u16) -> bool {
        self.guards(self.get(number))
    }

    fn guards(&self, owner: &Owner) -> bool {
        !self.lifted && owner.bytes() <= owner.share.bytes_min
    }

    pub fn add(&mut self, number: u16, queue: Queue, size: u64) {
        *self.all.of(queue) += size;
        self.change(number, |owner| *owner.of(queue) += size);
    }

    pub fn subtract(&mut self, number: u16, queue: Queue, size: u64) {
        *self.all.of(queue) -= size;
        self.change(number, |owner| *owner.of(queue) -= size);
    }

    /// Changes an owner, and with it the sums.
    pub fn change(&mut self, number: u16, change: impl FnOnce(&mut Owner)) {
        let mut owner = *self.get(number);
        let (small, main, held) = self.sums(&owner);
        change(&mut owner);
        let (small_now, main_now, held_now) = self.sums(&owner);
        self.free_small = self.free_small - small + small_now;
        self.free_main = self.free_main - main + main_now;
        self.held = self.held - held + held_now;
        self.owners[usize::from(number)] = owner;
    }

    /// What an owner adds to `free_small`, `free_main` and `held`.
    fn sums(&self, owner: &Owner) -> (u64, u64, u64) {
        match self.guards(owner) {
            true => (0, 0, owner.held_bytes()),
            false => (owner.small_bytes, owner.main_bytes, owner.held_bytes()),
        }
    }

    /// Minimums do not count from now on, or do again.
    pub fn set_lifted(&mut self, lifted: bool) {
        self.lifted = lifted;
        (self.free_small, self.free_main) = (0, 0);
        for owner in &self.owners {
            let (small, main, _) = self.sums(owner);
            self.free_small += small;
            self.free_main += main;
        }
    }

    /// Where all look from the front again.
    pub fn look_from_front(&mut self, small: Option<u64>, main: Option<u64>) {
        for owner in &mut self.owners {
            owner.small_next = small.unwrap_or(owner.small_next);
            owner.main_next = main.unwrap_or(owner.main_next);
        }
    }

    /// All minimums of namespaces.
    pub fn minimums(&self) -> u64 {
        self.owners.iter().fold(0, |sum, owner| sum.saturating_add(owner.share.bytes_min))
    }
}
