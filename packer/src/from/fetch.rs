//! Ranges of a bucket's objects, many at once.
//!
//! Small files of one container lie side by side, and shards want them in about that order. So ranges of one object that are near each
//! other are one request: a request costs the store's first byte, 5 to 30 ms, in which a connection brings 500 KB or more.

use futures::StreamExt;
use granary_core::{Error, Kind, Result};
use granary_store::Store;
use tokio::runtime::Handle;

/// Requests of one thread at once.
const REQUESTS_MAX: usize = 16;
/// A longer range is asked for in parts of so many bytes, and no more of them are joined.
const PART_BYTES: u64 = 8 << 20;
/// Bytes that nobody wants, at most, between two ranges that are asked for together.
const GAP_BYTES_MAX: u64 = 64 << 10;

/// A range that is wanted: of which object, from which byte on, and where to.
pub type Wanted<'a> = (&'a str, u64, &'a mut [u8]);

/// Reads the ranges. Each has its own outcome.
pub fn fetch(runtime: &Handle, store: &dyn Store, wanted: Vec<Wanted<'_>>) -> Vec<Result<()>> {
    let mut outcomes: Vec<Result<()>> = wanted.iter().map(|_| Ok(())).collect();
    let requests = joined(wanted).into_iter().map(|request| request.send(store));
    runtime.block_on(async {
        let mut answers = futures::stream::iter(requests).buffer_unordered(REQUESTS_MAX);
        while let Some(answer) = answers.next().await {
            for (number, e) in answer {
                outcomes[number] = Err(e);
            }
        }
    });
    outcomes
}

/// A range, or a part of one.
struct Piece<'a> {
    /// Of the wanted range.
    number: usize,
    from: u64,
    into: &'a mut [u8],
}

impl Piece<'_> {
    fn to(&self) -> u64 {
        self.from + self.into.len() as u64
    }
}

struct Request<'a> {
    key: &'a str,
    from: u64,
    to: u64,
    pieces: Vec<Piece<'a>>,
}

/// The requests that bring all of it. What is empty needs none.
fn joined(wanted: Vec<Wanted<'_>>) -> Vec<Request<'_>> {
    let mut pieces = Vec::new();
    for (number, (key, from, into)) in wanted.into_iter().enumerate() {
        let parts = into.chunks_mut(PART_BYTES as usize).enumerate();
        pieces
            .extend(parts.map(|(n, into)| (key, Piece { number, from: from + n as u64 * PART_BYTES, into })));
    }
    pieces.sort_by(|(a, one), (b, other)| a.cmp(b).then(one.from.cmp(&other.from)));
    let mut requests: Vec<Request<'_>> = Vec::new();
    for (key, piece) in pieces {
        let to = piece.to();
        match requests.last_mut() {
            Some(last)
                if last.key == key
                    && piece.from <= last.to + GAP_BYTES_MAX
                    && to.max(last.to) - last.from <= PART_BYTES =>
            {
                last.to = to.max(last.to);
                last.pieces.push(piece);
            }
            _ => requests.push(Request { key, from: piece.from, to, pieces: vec![piece] }),
        }
    }
    requests
}

impl Request<'_> {
    /// What failed of it.
    async fn send(self, store: &dyn Store) -> Vec<(usize, Error)> {
        match store.get(self.key, self.from..self.to).await {
            Ok(bytes) => {
                for piece in self.pieces {
                    let at = (piece.from - self.from) as usize;
                    piece.into.copy_from_slice(&bytes[at..at + piece.into.len()]);
                }
                Vec::new()
            }
            // The object is shorter than it was: what is there of it is given all the same.
            Err(e) if e.kind() == Kind::Corrupt && self.pieces.len() > 1 => {
                let mut failed = Vec::new();
                for piece in self.pieces {
                    match store.get(self.key, piece.from..piece.to()).await {
                        Ok(bytes) => piece.into.copy_from_slice(&bytes),
                        Err(e) => failed.push((piece.number, e)),
                    }
                }
                failed
            }
            Err(e) => {
                let again = || Error::new(e.kind(), e.to_string());
                self.pieces.iter().map(|piece| (piece.number, again())).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use granary_core::SystemClock;
    use granary_store::{FaultStore, MemoryStore, Operation};
    use proptest::prelude::*;

    use super::*;

    fn object(len: usize, salt: usize) -> Bytes {
        (0..len).map(|n| (n * 7 + n / 255 + salt) as u8).collect()
    }

    /// A store of these objects that counts requests.
    fn store(runtime: &tokio::runtime::Runtime, objects: &[(&str, &Bytes)]) -> Arc<FaultStore> {
        let memory = MemoryStore::new(Arc::new(SystemClock));
        for (key, bytes) in objects {
            runtime.block_on(memory.put(key, vec![(*bytes).clone()])).unwrap();
        }
        Arc::new(FaultStore::new(Arc::new(memory), 1))
    }

    #[test]
    fn neighbours_are_one_request_and_each_has_its_own_outcome() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (a, b) = (object(400_000, 1), object(1_000, 2));
        let store = store(&runtime, &[("a", &a), ("b", &b)]);
        let ranges: [(&str, usize, usize); 8] = [
            ("a", 5_000, 100),
            ("b", 0, 1_000),
            ("a", 0, 5_000),
            ("a", 5_050, 100), // overlaps
            ("a", 300_000, 10),
            ("a", 7, 0),
            ("a", 399_000, 2_000), // past the end
            ("c", 0, 10),
        ];
        let mut buffers: Vec<Vec<u8>> = ranges.iter().map(|&(_, _, len)| vec![0; len]).collect();
        let wanted = ranges.iter().zip(&mut buffers).map(|(r, buffer)| (r.0, r.1 as u64, &mut buffer[..]));
        let outcomes = fetch(runtime.handle(), &*store, wanted.collect());
        for (n, (key, from, len)) in ranges.into_iter().enumerate() {
            let of = if key == "a" { &a } else { &b };
            match n {
                6 => assert_eq!(outcomes[n].as_ref().unwrap_err().kind(), Kind::Corrupt),
                7 => assert_eq!(outcomes[n].as_ref().unwrap_err().kind(), Kind::NotFound),
                _ => assert!(outcomes[n].is_ok() && buffers[n] == of[from..from + len], "{n}"),
            }
        }
        // a's first three; its two at the end, which are not near each other; b; c.
        assert_eq!(store.calls(Operation::Get), 5);
    }

    #[test]
    fn a_failure_is_told_of_all_that_it_took() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let store = store(&runtime, &[]);
        let mut buffers = [[0; 10], [0; 10]];
        let wanted = buffers.iter_mut().zip([0, 10]).map(|(buffer, at)| ("gone", at, &mut buffer[..]));
        let outcomes = fetch(runtime.handle(), &*store, wanted.collect());
        assert!(
            outcomes.iter().all(|o| o.as_ref().is_err_and(|e| e.kind() == Kind::NotFound)),
            "{outcomes:?}"
        );
        assert_eq!(store.calls(Operation::Get), 1);
    }

    proptest! {
        #[test]
        fn any_ranges_bring_their_bytes(ranges in proptest::collection::vec((0..2usize, 0..300_000usize, 0..90_000usize), 1..40)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let objects = [object(400_000, 1), object(400_000, 2)];
            let store = store(&runtime, &[("0", &objects[0]), ("1", &objects[1])]);
            let mut buffers: Vec<Vec<u8>> = ranges.iter().map(|&(_, _, len)| vec![0; len]).collect();
            let wanted = ranges.iter().zip(&mut buffers);
            let wanted = wanted.map(|(&(of, from, _), buffer)| (["0", "1"][of], from as u64, &mut buffer[..]));
            let outcomes = fetch(runtime.handle(), &*store, wanted.collect());
            prop_assert!(outcomes.iter().all(Result::is_ok));
            for (&(of, from, len), buffer) in ranges.iter().zip(&buffers) {
                prop_assert!(*buffer == objects[of][from..from + len]);
            }
            let asked = ranges.iter().filter(|range| range.2 > 0).count();
            prop_assert!(store.calls(Operation::Get) <= asked);
        }
    }
}
