//! Whose fetch is next. Decides only; does no I/O.
//!
//! A fetch takes *slots* (requests to the store at once). Who finds none free waits in the lane of its class; within a lane the
//! namespaces take turns, so that a flood of one of them costs another's single read one place, not the flood.
//!
//! | class | whom it is for | goes |
//! |---|---|---|
//! | demand | somebody waits for the bytes | first; nothing overtakes it, not even what needs fewer slots |
//! | ahead | somebody may ask for them soon | while no demand waits, within the share of what is fetched ahead; refused when too many wait |
//! | announced | a program said that it will ask for them | as ahead, after all of that: what goes on from a read is wanted sooner |
//! | background | `granary warmup` | as ahead, after all of that |
//!
//! A fetch that somebody begins to wait for is *raised* to demand, to the front of its namespace's queue.

use std::collections::{HashMap, VecDeque};

use granary_core::NamespaceId;

/// Fetches ahead that wait, of one namespace and of all: of at most 4 MiB each.
const AHEAD_OF_NAMESPACE_MAX: usize = 128;
const AHEAD_MAX: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::read) enum Class {
    Demand,
    Ahead,
    Announced,
    Background,
}

/// A fetch that may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Granted {
    pub ticket: u64,
    /// As it was asked for, or raised to.
    pub class: Class,
    pub slots: u32,
}

#[derive(Clone, Copy, Debug)]
struct Waiter {
    ticket: u64,
    slots: u32,
}

/// Namespaces with waiting fetches, the one whose turn it is first.
#[derive(Debug, Default)]
struct Lane {
    order: VecDeque<NamespaceId>,
    queues: HashMap<NamespaceId, VecDeque<Waiter>>,
    len: usize,
}

impl Lane {
    fn of(&self, ns: NamespaceId) -> usize {
        self.queues.get(&ns).map_or(0, VecDeque::len)
    }

    fn put(&mut self, ns: NamespaceId, waiter: Waiter, first: bool) {
        self.len += 1;
        let queue = self.queues.entry(ns).or_insert_with(|| {
            self.order.push_back(ns);
            VecDeque::new()
        });
        if first { queue.push_front(waiter) } else { queue.push_back(waiter) }
    }

    fn first(&self) -> Option<Waiter> {
        self.queues.get(self.order.front()?)?.front().copied()
    }

    /// Takes the first one; its namespace goes to the end.
    fn pop(&mut self) -> Option<Waiter> {
        let ns = self.order.pop_front()?;
        let queue = self.queues.get_mut(&ns)?;
        let waiter = queue.pop_front()?;
        self.len -= 1;
        if queue.is_empty() {
            self.queues.remove(&ns);
        } else {
            self.order.push_back(ns);
        }
        Some(waiter)
    }

    fn remove(&mut self, ns: NamespaceId, ticket: u64) -> Option<Waiter> {
        let queue = self.queues.get_mut(&ns)?;
        let at = queue.iter().position(|w| w.ticket == ticket)?;
        let waiter = queue.remove(at)?;
        self.len -= 1;
        if queue.is_empty() {
            self.queues.remove(&ns);
            self.order.retain(|other| *other != ns);
        }
        Some(waiter)
    }
}

/// The slots and who waits for them.
#[derive(Debug)]
pub(super) struct Turns {
    slots_max: u32,
    free: u32,
    /// Slots that all but demand may hold together, and do.
    ahead_max: u32,
    ahead_held: u32,
    demand: Lane,
    ahead: Lane,
    announced: Lane,
    background: Lane,
    /// Where those who wait are.
    waiting: HashMap<u64, (Class, NamespaceId)>,
    next: u64,
}

impl Turns {
    pub fn new(slots_max: u32, ahead_max: u32) -> Turns {
        Turns {
            slots_max: slots_max.max(1),
            free: slots_max.max(1),
            ahead_max,
            ahead_held: 0,
            demand: Lane::default(),
            ahead: Lane::default(),
            announced: Lane::default(),
            background: Lane::default(),
            waiting: HashMap::new(),
            next: 0,
        }
    }

    /// From now on; those who hold more give them back as they end.
    pub fn set_ahead_max(&mut self, slots: u32) {
        self.ahead_max = slots;
    }

    fn lane(&mut self, class: Class) -> &mut Lane {
        match class {
            Class::Demand => &mut self.demand,
            Class::Ahead => &mut self.ahead,
            Class::Announced => &mut self.announced,
            Class::Background => &mut self.background,
        }
    }

    /// A ticket to wait with; `None` when too many fetches ahead wait. More slots than there are means all of them.
    pub fn enter(&mut self, ns: NamespaceId, class: Class, slots: u32) -> Option<u64> {
        let full = self.ahead.len >= AHEAD_MAX || self.ahead.of(ns) >= AHEAD_OF_NAMESPACE_MAX;
        if class == Class::Ahead && (full || self.ahead_max == 0) {
            return None;
        }
        self.next += 1;
        let most = if class == Class::Demand { self.slots_max } else { self.ahead_max.max(1) };
        let waiter = Waiter { ticket: self.next, slots: slots.clamp(1, most) };
        self.waiting.insert(waiter.ticket, (class, ns));
        self.lane(class).put(ns, waiter, false);
        Some(waiter.ticket)
    }

    /// Who may begin now; to be asked until nobody may.
    pub fn grant(&mut self) -> Option<Granted> {
        if let Some(first) = self.demand.first() {
            return if first.slots <= self.free { self.begin(Class::Demand) } else { None };
        }
        for class in [Class::Ahead, Class::Announced, Class::Background] {
            let Some(first) = self.lane(class).first() else { continue };
            // One that wants more than the share, which became smaller, runs alone.
            let within = self.ahead_held + first.slots <= self.ahead_max || self.ahead_held == 0;
            return if first.slots <= self.free && within { self.begin(class) } else { None };
        }
        None
    }

    fn begin(&mut self, class: Class) -> Option<Granted> {
        let Waiter { ticket, slots } = self.lane(class).pop()?;
        self.waiting.remove(&ticket);
        self.free -= slots;
        if class != Class::Demand {
            self.ahead_held += slots;
        }
        Some(Granted { ticket, class, slots })
    }

    /// A fetch ended, whose class and slots were those.
    pub fn give_back(&mut self, class: Class, slots: u32) {
        self.free += slots;
        assert!(self.free <= self.slots_max, "slots were given back twice");
        if class != Class::Demand {
            self.ahead_held -= slots;
        }
    }

    /// Somebody waits for it now. Whether it was still waiting for its turn.
    pub fn raise(&mut self, ticket: u64) -> bool {
        let Some((class, ns)) =
            self.waiting.get(&ticket).copied().filter(|(class, _)| *class != Class::Demand)
        else {
            return false;
        };
        let Some(waiter) = self.lane(class).remove(ns, ticket) else { return false };
        self.demand.put(ns, waiter, true);
        self.waiting.insert(ticket, (Class::Demand, ns));
        true
    }

    /// Who waited with it is gone.
    pub fn cancel(&mut self, ticket: u64) {
        if let Some((class, ns)) = self.waiting.remove(&ticket) {
            self.lane(class).remove(ns, ticket);
        }
    }
}

#[cfg(test)]
mod tests;
