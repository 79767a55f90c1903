//! [`Turns`] with those who wait: a slot comes to its waiter through a channel, and goes back when it is dropped.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use granary_core::NamespaceId;
use tokio::sync::oneshot;

use super::turns::{Class, Granted, Turns};

#[derive(Debug)]
struct Inner {
    turns: Turns,
    /// The other ends of those who wait, by ticket.
    waiters: std::collections::HashMap<u64, oneshot::Sender<Slots>>,
}

/// The requests that may be under way at once.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    /// Guards who waits and who holds what, for one decision.
    inner: Arc<Mutex<Inner>>,
}

/// Held while a fetch is under way.
#[derive(Debug)]
pub(super) struct Slots {
    gate: Gate,
    pub class: Class,
    pub count: u32,
}

impl Drop for Slots {
    fn drop(&mut self) {
        self.gate.change(|turns| turns.give_back(self.class, self.count));
    }
}

/// A place in the queue; dropping it leaves the queue.
#[derive(Debug)]
pub(super) struct Place {
    gate: Gate,
    pub ticket: u64,
    turn: oneshot::Receiver<Slots>,
}

impl Place {
    /// Returns when it is this one's turn; `None` never, but when the gate is gone.
    pub async fn turn(mut self) -> Option<Slots> {
        (&mut self.turn).await.ok()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let (gate, ticket) = (self.gate.clone(), self.ticket);
        let waiter = {
            let mut inner = gate.lock();
            inner.turns.cancel(ticket);
            inner.waiters.remove(&ticket)
        };
        // With it go slots that came too late, outside the lock.
        drop(waiter);
        self.turn.close();
        drop(self.turn.try_recv());
        gate.change(|_| {}); // who was behind it may go
    }
}

impl Gate {
    pub fn new(slots_max: u32, ahead_max: u32) -> Gate {
        let inner = Inner { turns: Turns::new(slots_max, ahead_max), waiters: Default::default() };
        Gate { inner: Arc::new(Mutex::new(inner)) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place to wait at; `None` when too many fetches ahead wait already.
    pub fn enter(&self, ns: NamespaceId, class: Class, slots: u32) -> Option<Place> {
        let (sender, turn) = oneshot::channel();
        let ticket = {
            let mut inner = self.lock();
            let ticket = inner.turns.enter(ns, class, slots)?;
            inner.waiters.insert(ticket, sender);
            ticket
        };
        self.change(|_| {});
        Some(Place { gate: self.clone(), ticket, turn })
    }

    /// Somebody waits for this fetch now.
    pub fn raise(&self, ticket: u64) {
        self.change(|turns| {
            turns.raise(ticket);
        });
    }

    pub fn set_ahead_max(&self, slots: u32) {
        self.change(|turns| turns.set_ahead_max(slots));
    }

    /// Changes the state, and lets begin who may then.
    fn change(&self, change: impl FnOnce(&mut Turns)) {
        let mut begun: Vec<(oneshot::Sender<Slots>, Slots)> = Vec::new();
        {
            let mut inner = self.lock();
            change(&mut inner.turns);
            while let Some(Granted { ticket, class, slots }) = inner.turns.grant() {
                let held = Slots { gate: self.clone(), class, count: slots };
                match inner.waiters.remove(&ticket) {
                    Some(waiter) => begun.push((waiter, held)),
                    // It leaves the queue at this moment; its slots go back below.
                    None => begun.push((oneshot::channel().0, held)),
                }
            }
        }
        for (waiter, slots) in begun {
            // One who went away meanwhile gives them back by dropping them.
            drop(waiter.send(slots));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NS: NamespaceId = NamespaceId(1);

    #[tokio::test]
    async fn slots_go_from_hand_to_hand_and_come_back_from_those_who_leave() {
        let gate = Gate::new(1, 1);
        let first = gate.enter(NS, Class::Demand, 1).unwrap().turn().await.unwrap();
        let leaves = gate.enter(NS, Class::Demand, 1).unwrap();
        let second = gate.enter(NS, Class::Demand, 1).unwrap();
        drop(leaves);
        drop(first);
        let held = second.turn().await.unwrap();
        // Granted, and never looked at.
        let late = gate.enter(NS, Class::Demand, 1).unwrap();
        drop(held);
        drop(late);
        let last = gate.enter(NS, Class::Ahead, 1).unwrap().turn().await.unwrap();
        assert_eq!((last.class, last.count), (Class::Ahead, 1));
    }
}
