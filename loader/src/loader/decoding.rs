//! Files of a batch to arrays, by several threads.
//!
//! A batch is decoded when all of its bytes are there, in parts of some files each, so that the first batch has all threads too. They are not the threads
//! that fetch, which would stand still meanwhile; there are as many of them. A batch begins when memory has room for its arrays, of which headers
//! tell the size. The one that is given next does not wait: what memory is full of comes after it.

use std::sync::Arc;

use granary_core::{ByteBudget, BytePermit, Error, Kind, Result};
use tokio::sync::Semaphore;

use super::Shared;
use super::bounds::threads;
use super::ready::Ready;
use crate::decode::Decode;
use crate::sample::Sample;
use crate::stats::Counters;

/// Bytes of files that are worth handing to a thread: some milliseconds of work, where handing over takes some microseconds.
const PART_BYTES: u64 = 128 << 10;

#[derive(Debug)]
pub(super) struct Decoding {
    shared: Arc<Shared>,
    ready: Arc<Ready>,
    budget: ByteBudget,
    /// Who decodes; served in order.
    threads: Arc<Semaphore>,
}

type Samples = Vec<Result<Sample>>;

impl Decoding {
    pub fn new(shared: &Arc<Shared>, ready: Arc<Ready>) -> Decoding {
        Decoding {
            ready,
            budget: ByteBudget::new(shared.options.decoded_bytes_max),
            threads: Arc::new(Semaphore::new(threads(shared.options.threads))),
            shared: shared.clone(),
        }
    }

    fn of(&self, sample: &Sample) -> Option<&Arc<Decode>> {
        self.shared.sources[sample.source as usize].decode()
    }

    /// The batch's samples with their arrays, or why one has none; and the memory of the arrays.
    pub async fn decoded(&self, place: u64, samples: Samples) -> (Samples, Option<BytePermit>) {
        if self.shared.sources.iter().all(|source| source.decode().is_none()) {
            return (samples, None);
        }
        let bytes = samples.iter().flatten().filter_map(|sample| Some(self.of(sample)?.bytes(sample)));
        let bytes = bytes.fold(0, u64::saturating_add);
        let memory = tokio::select! {
            biased;
            memory = self.budget.acquire(bytes) => Some(memory),
            () = self.ready.becomes_next(place) => None,
        };
        let mut parts = Vec::new();
        let mut left = samples.into_iter().peekable();
        while left.peek().is_some() {
            let (mut part, mut part_bytes) = (Vec::new(), 0);
            while part_bytes < PART_BYTES
                && let Some(sample) = left.next()
            {
                let decode = sample.as_ref().ok().and_then(|sample| self.of(sample)).cloned();
                part_bytes += sample.as_ref().map_or(0, |sample| sample.payload_bytes().unwrap_or(0));
                part.push((sample, decode));
            }
            let size = part.len();
            // Never closed.
            let Ok(turn) = self.threads.clone().acquire_owned().await else { continue };
            let counters = self.shared.counters.clone();
            let clock = self.shared.clock.clone();
            let task = tokio::task::spawn_blocking(move || {
                let begun = clock.monotonic();
                let decoded: Samples = part.into_iter().map(decoded).collect();
                Counters::add(&counters.decode_ns, clock.monotonic().saturating_sub(begun).as_nanos() as u64);
                drop(turn);
                decoded
            });
            parts.push((size, task));
        }
        let mut all = Vec::new();
        for (size, task) in parts {
            match task.await {
                Ok(part) => all.extend(part),
                Err(e) => {
                    let e = Error::new(Kind::Interrupted, format!("the loader ended while it decoded: {e}"));
                    all.extend((0..size).map(|_| Err(e.duplicate())));
                }
            }
        }
        (all, memory)
    }
}

fn decoded((sample, decode): (Result<Sample>, Option<Arc<Decode>>)) -> Result<Sample> {
    match decode {
        Some(decode) => decode.sample(sample?),
        None => sample,
    }
}
