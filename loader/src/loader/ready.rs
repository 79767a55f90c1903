//! Batches that are made and not given, and how many may be begun.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use granary_core::{Clock, Error, Kind, Result};
use tokio::sync::Notify;

use crate::batch::Made;
use crate::depth::Depth;
use crate::fetch::Asked;
use crate::stats::Counters;

/// What was made of a batch, and the requests that brought its bytes, which are counted until it is given.
pub(crate) type Outcome = (Result<Made>, Vec<Arc<Asked>>);

#[derive(Debug)]
pub(crate) struct Ready {
    clock: Arc<dyn Clock>,
    /// Guards the table and the depth; held for look-ups.
    state: Mutex<State>,
    /// A batch was made.
    made: Notify,
    /// One was taken or made: more may be begun. The driver alone waits for it.
    room: Notify,
    /// One was taken.
    taken: Notify,
}

#[derive(Debug)]
struct State {
    made: BTreeMap<u64, Outcome>,
    /// The first place that was not taken, and those behind it that were.
    next: u64,
    taken: BTreeSet<u64>,
    depth: Depth,
    /// Nothing more will be made.
    ended: bool,
    /// Somebody waits for this one, or did lately.
    waited_for: Option<u64>,
}

impl Ready {
    /// `taken`: places behind `next` that nobody will ask for.
    pub fn new(next: u64, taken: BTreeSet<u64>, depth: Depth, clock: Arc<dyn Clock>) -> Ready {
        let state = State { made: BTreeMap::new(), next, taken, depth, ended: false, waited_for: None };
        let state = Mutex::new(state);
        Ready { clock, state, made: Notify::new(), room: Notify::new(), taken: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn put(&self, place: u64, outcome: Outcome) {
        self.state().made.insert(place, outcome);
        self.made.notify_waiters();
        self.room.notify_one();
    }

    /// Nothing more will be made: who waits is told.
    pub fn end(&self) {
        self.state().ended = true;
        self.made.notify_waiters();
    }

    /// The first of these places whose batch is made; waits until one is.
    pub async fn take(&self, places: &[u64], counters: &Counters) -> (u64, Result<Made>) {
        let mut waiting: Option<Waiting<'_>> = None;
        loop {
            let made = self.made.notified();
            let mut made = std::pin::pin!(made);
            made.as_mut().enable();
            if let Some((place, (outcome, held))) = self.state().take(places, waiting.is_some()) {
                if waiting.is_some() {
                    Counters::add(&counters.waits, 1);
                }
                drop((waiting, held));
                self.room.notify_one();
                self.taken.notify_waiters();
                return (place, outcome);
            }
            if self.state().ended {
                return (
                    places[0],
                    Err(Error::new(Kind::Bug, "the loader's driver ended; its log says why")),
                );
            }
            waiting.get_or_insert_with(|| Waiting::begin(&*self.clock, counters));
            made.await;
        }
    }

    /// Waits until a batch at this place may be begun, with `after_all` when those before it are made. False when it was taken: nobody
    /// will ask for it.
    pub async fn may_begin(&self, place: u64, after_all: bool) -> bool {
        self.when(|state| {
            if place < state.next || state.taken.contains(&place) {
                return Some(false);
            }
            let room = place < state.next + state.depth.batches();
            (room && (!after_all || state.is_made_before(place))).then_some(true)
        })
        .await
    }

    /// Waits until nothing but the batch at this place can be given next.
    pub async fn is_next(&self, place: u64) {
        self.when(|state| (state.next >= place).then_some(())).await;
    }

    /// The same for those who make batches, of whom many wait.
    pub async fn becomes_next(&self, place: u64) {
        loop {
            let mut taken = std::pin::pin!(self.taken.notified());
            taken.as_mut().enable();
            if self.state().next >= place {
                return;
            }
            taken.await;
        }
    }

    async fn when<T>(&self, found: impl Fn(&State) -> Option<T>) -> T {
        loop {
            let found = found(&self.state());
            if let Some(found) = found {
                return found;
            }
            self.room.notified().await;
        }
    }

    /// Batches that are ready, and that may be ready or under way.
    pub fn counts(&self) -> (u64, u64) {
        let state = self.state();
        (state.made.len() as u64, state.depth.batches())
    }
}

impl State {
    fn is_made_before(&self, place: u64) -> bool {
        let before = self.made.range(..place).count() + self.taken.range(..place).count();
        before as u64 >= place.saturating_sub(self.next)
    }

    fn take(&mut self, places: &[u64], waited: bool) -> Option<(u64, Outcome)> {
        let Some(&place) = places.iter().find(|place| self.made.contains_key(place)) else {
            self.waited_for = places.first().copied();
            return None;
        };
        let outcome = self.made.remove(&place)?;
        self.depth.given(waited || self.waited_for == Some(place));
        self.waited_for = None;
        self.taken.insert(place);
        while self.taken.remove(&self.next) {
            self.next += 1;
        }
        Some((place, outcome))
    }
}

/// Counts the time until it is dropped, also when the caller gives up.
struct Waiting<'a> {
    clock: &'a dyn Clock,
    counters: &'a Counters,
    since: std::time::Duration,
}

impl<'a> Waiting<'a> {
    fn begin(clock: &'a dyn Clock, counters: &'a Counters) -> Waiting<'a> {
        Waiting { clock, counters, since: clock.monotonic() }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.counters.waited(self.clock.monotonic().saturating_sub(self.since));
    }
}
