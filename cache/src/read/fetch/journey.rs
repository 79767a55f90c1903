//! One fetch, from its place in the queue to disk: what it takes on its way, and gives back at its end.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use granary_core::BytePermit;
use granary_meta::ObjectInfo;

use super::flight::Landing;
use super::slots::{Place, Slots};
use super::{Class, Fetcher};
use crate::read::stats::add;
use crate::read::sums::chunk_range;

/// What is asked for first of a compressed object's end: enough for most footers.
pub(super) const COMPRESSED_FOOTER_BYTES: u64 = 64 << 10;

/// What a fetch holds while its bytes are in flight.
struct Permits {
    _slots: Slots,
    _memory: BytePermit,
    /// Payload and footer may be asked for at once.
    parallel: bool,
}

impl Fetcher {
    /// Puts a run into the queue; `false`, and the run is over, when too many wait there.
    pub(super) fn start(self: &Arc<Self>, landing: Landing, class: Class) -> bool {
        let apart = self.is_footer_apart(&landing);
        // The footer that another fetch is getting costs nothing.
        let slots = if apart && !self.footers().contains_key(&landing.object.id) { 2 } else { 1 };
        let slots = slots.min(self.slots_max);
        let place = match self.gate.enter(landing.ns, class, slots) {
            Some(place) => place,
            None => match self.give_up(landing) {
                None => return false,
                // Somebody began to wait for it.
                Some(wanted) => return self.start(wanted, Class::Demand),
            },
        };
        let raise = landing.board(place.ticket);
        let asked = (class == Class::Demand).then(|| self.note_asked());
        self.tasks
            .spawn_on(self.clone().fly(landing, place, apart && self.slots_max > 1, asked), &self.runtime);
        if let Some(ticket) = raise {
            self.gate.raise(ticket);
        }
        true
    }

    /// Ends a run that nobody waits for; given back when somebody does.
    pub(super) fn give_up(&self, mut landing: Landing) -> Option<Landing> {
        let mut flights = self.flights();
        if landing.is_wanted() {
            return Some(landing);
        }
        landing.withdraw(&mut flights);
        None
    }

    /// Memory that a run takes.
    pub(super) fn bytes_in_flight(&self, object: &ObjectInfo, run: &Range<u32>) -> u64 {
        let from = chunk_range(run.start, object.payload_len).start;
        let payload = chunk_range(run.end - 1, object.payload_len).end - from;
        in_flight(object, payload) + footer_len(object)
    }

    /// Whether the run's footer is to be asked for beside it. Of a compressed object both cannot be asked for at once.
    pub(super) fn is_footer_apart(&self, landing: &Landing) -> bool {
        self.known_sums(landing.ns, &landing.object).is_none()
            && landing.range().end < landing.object.payload_len
            && !is_compressed(&landing.object)
    }

    /// Memory for a run whose turn has come; `None` when it is not worth its memory now, and nobody waits for it.
    pub(super) async fn memory_for(&self, landing: Landing, class: Class) -> Option<(Landing, BytePermit)> {
        let range = landing.range();
        let footer = match self.known_sums(landing.ns, &landing.object) {
            Some(_) => 0,
            None => footer_len(&landing.object),
        };
        let bytes = in_flight(&landing.object, range.end - range.start) + footer;
        let mut landing = landing;
        if class == Class::Ahead {
            let memory =
                if self.has_room_ahead(landing.ns, bytes) { self.memory.try_acquire(bytes) } else { None };
            match memory {
                Some(memory) => return Some((landing, memory)),
                None => {
                    landing = match self.give_up(landing) {
                        Some(wanted) => wanted,
                        None => {
                            add(&self.stats.prefetch_refused, 1);
                            add(&self.stats.prefetch_refused_bytes, bytes);
                            return None;
                        }
                    }
                }
            }
        }
        let memory = self.memory.acquire(bytes).await;
        Some((landing, memory))
    }

    /// One fetch, from its place in the queue to disk. `asked`: since when somebody waits for it.
    pub(super) async fn fly(
        self: Arc<Self>,
        landing: Landing,
        place: Place,
        parallel: bool,
        asked: Option<Duration>,
    ) {
        let Some(slots) = place.turn().await else { return };
        let Some((landing, memory)) = self.memory_for(landing, slots.class).await else { return };
        let permits = Permits { _slots: slots, _memory: memory, parallel };
        match self.fetch(&landing, permits.parallel).await {
            Ok(fetched) => {
                landing.publish(&fetched);
                if let Some(asked) = asked {
                    self.note_waited(fetched.bytes.len() as u64, asked);
                }
                let keep = self.runtime.spawn_blocking(move || landing.keep(&fetched));
                if let Err(e) = keep.await
                    && e.is_panic()
                {
                    tracing::error!("writing to the read cache ended early: {e}");
                }
            }
            Err(e) => landing.publish_error(e),
        }
        drop(permits);
    }
}

/// An object is compressed only if that made it shorter than its payload.
pub(super) fn is_compressed(object: &ObjectInfo) -> bool {
    object.total_len < object.payload_len
}

/// Memory for so many payload bytes on their way: compressed ones are there twice for a moment.
pub(super) fn in_flight(object: &ObjectInfo, payload: u64) -> u64 {
    if is_compressed(object) { 2 * payload } else { payload }
}

pub(super) fn footer_len(object: &ObjectInfo) -> u64 {
    match is_compressed(object) {
        true => COMPRESSED_FOOTER_BYTES,
        false => object.total_len - object.payload_len,
    }
}
