//! Orders in which files will be read, as programs announced them. Decides only; does no I/O.
//!
//! An *order* is a list of files that grows at its end and shrinks at its front: a file that is read takes all before it out. What
//! is fetched goes along it, ahead of what was read, at most so many bytes and files. Several orders take turns, and have equal parts of
//! those bytes, so that one whose program ended without a word keeps its part only until it is forgotten.
//!
//! Several readers share one order, and none keeps it to the letter (the workers of a data loader each have a batch of their own), so
//! the file furthest on counts as where they are, unless it is further than [`BAND_FILES`] from there or from what was fetched: then
//! it is somebody else's read. A file that stands in an order more than once is read at its first place first.
//!
//! A file costs what was fetched for it: whole chunks, so a small one may cost many times its size, and one whose neighbour was
//! fetched costs nothing.
//!
//! | module | noun |
//! |---|---|
//! | `follow` | does what is decided here |

pub(crate) mod follow;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::time::Duration;

use granary_core::limits::{
    ANNOUNCED_FILES_MAX, ANNOUNCED_ORDERS_MAX, ANNOUNCED_ORDERS_OF_USER_MAX, CHUNK_BYTES,
};
use granary_core::{Error, Ino, Kind, Result};

/// Files fetched together, and bytes of them: enough to keep a store busy that answers in 30 ms, few enough that an order that is given up
/// leaves little behind.
const BATCH_FILES: usize = 64;
const BATCH_BYTES: u64 = 32 << 20;
/// Files looked at ahead of the reader, whether they cost anything or not.
const AHEAD_FILES: u64 = 16_384;
/// How far from where they are readers may be seen: 16 workers with a batch of 256 files each.
const BAND_FILES: u64 = 4096;
/// An order that nobody followed for so long is forgotten.
const IDLE: Duration = Duration::from_secs(3600);

/// Whose order it is, and which of theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrderId {
    pub uid: u32,
    /// Chosen by the program.
    pub number: u64,
}

#[derive(Clone, Copy, Debug)]
struct Planned {
    ino: Ino,
    size: u64,
    /// Bytes that were fetched for it, or are being.
    cost: u64,
}

/// What is to be fetched together.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    order: u64,
    /// The number of the first file in its order; the others follow.
    first: u64,
    pub pieces: Vec<(Ino, Range<u64>)>,
}

#[derive(Debug)]
struct Order {
    id: OrderId,
    /// Never used twice, so that a batch finds the order that it is of, or none.
    serial: u64,
    files: VecDeque<Planned>,
    /// The number of the first of them; numbers only grow.
    first: u64,
    /// Each file with its number, to find where one that is read stands.
    places: BTreeSet<(u64, u64)>,
    /// The file to be fetched next, and how much of it was.
    next: u64,
    within: u64,
    /// Of all files that are still in it.
    cost: u64,
    touched: Duration,
}

/// What a piece may cost at most: the chunks that it lies in.
fn estimate(piece: &Range<u64>) -> u64 {
    (piece.end - piece.start).next_multiple_of(CHUNK_BYTES)
}

impl Order {
    fn end(&self) -> u64 {
        self.first + self.files.len() as u64
    }

    fn file(&mut self, number: u64) -> Option<&mut Planned> {
        self.files.get_mut(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    fn push(&mut self, ino: Ino, size: u64) {
        self.places.insert((ino.0, self.end()));
        self.files.push_back(Planned { ino, size, cost: 0 });
    }

    /// Whether the reader got further by reading this file.
    fn on_read(&mut self, ino: Ino) -> bool {
        let Some(&(_, number)) = self.places.range((ino.0, 0)..=(ino.0, u64::MAX)).next() else {
            return false;
        };
        if number >= self.next.max(self.first) + BAND_FILES {
            return false;
        }
        while self.first <= number {
            let Some(gone) = self.files.pop_front() else { break };
            self.places.remove(&(gone.ino.0, self.first));
            self.cost -= gone.cost;
            self.first += 1;
        }
        if self.next < self.first {
            (self.next, self.within) = (self.first, 0);
        }
        true
    }

    fn next(&mut self, window_bytes: u64) -> Option<Batch> {
        let mut batch = Batch { order: self.serial, first: self.next, pieces: Vec::new() };
        let mut bytes = 0;
        while self.cost < window_bytes
            && batch.pieces.len() < BATCH_FILES
            && bytes < BATCH_BYTES
            && self.next < self.first + AHEAD_FILES
        {
            let (number, from) = (self.next, self.within);
            let Some(file) = self.file(number) else { break };
            let piece = from..file.size.min(from + BATCH_BYTES - bytes);
            let cost = estimate(&piece);
            if file.size > 0 {
                file.cost += cost;
            }
            let is_whole = piece.end == file.size;
            let (ino, len) = (file.ino, piece.end - piece.start);
            (bytes, self.cost) = (bytes + len, self.cost + cost);
            batch.pieces.push((ino, piece));
            (self.next, self.within) = if is_whole { (number + 1, 0) } else { (number, from + len) };
        }
        (!batch.pieces.is_empty()).then_some(batch)
    }

    /// Puts what a batch did cost in the place of what it might have.
    fn settle(&mut self, batch: &Batch, bytes: u64) {
        let each = bytes / batch.pieces.len().max(1) as u64;
        for (number, (_, piece)) in (batch.first..).zip(&batch.pieces) {
            let Some(file) = self.file(number) else { continue };
            let before = file.cost;
            file.cost = (before + each).saturating_sub(estimate(piece));
            let after = file.cost;
            self.cost = self.cost + after - before;
        }
    }
}

/// All orders of one namespace on this node.
#[derive(Debug, Default)]
pub(crate) struct Announced {
    orders: Vec<Order>,
    serials: u64,
    /// Whose turn it is.
    turn: usize,
}

impl Announced {
    pub fn is_empty(&self) -> bool {
        self.orders.is_empty()
    }

    /// Files in all orders.
    pub fn files(&self) -> usize {
        self.orders.iter().map(|order| order.files.len()).sum()
    }

    fn find(&mut self, id: OrderId) -> Option<&mut Order> {
        self.orders.iter_mut().find(|order| order.id == id)
    }

    /// Forgets orders that nobody follows.
    fn forget_idle(&mut self, now: Duration) {
        self.orders.retain(|order| now.saturating_sub(order.touched) < IDLE);
    }

    /// Whether so many files more would be taken.
    ///
    /// Errors: `WouldBlock` when there is room only once some were read; `NoSpace` when there are too many orders.
    pub fn check_room(&mut self, id: OrderId, files: usize, now: Duration) -> Result<()> {
        self.forget_idle(now);
        let mine = self.orders.iter().filter(|order| order.id.uid == id.uid).count();
        let may_begin = self.orders.len() < ANNOUNCED_ORDERS_MAX && mine < ANNOUNCED_ORDERS_OF_USER_MAX;
        let has_order = may_begin || self.find(id).is_some();
        match (has_order, self.files() + files <= ANNOUNCED_FILES_MAX) {
            (true, true) => Ok(()),
            (false, _) => Err(Error::new(
                Kind::NoSpace,
                format!(
                    "too many orders are announced ({ANNOUNCED_ORDERS_OF_USER_MAX} of a user, {ANNOUNCED_ORDERS_MAX} in all); end one, \
                     or add to one that there is"
                ),
            )),
            (true, false) => Err(Error::new(
                Kind::WouldBlock,
                format!(
                    "{ANNOUNCED_FILES_MAX} files are announced and not read yet; announce more when some of them were read"
                ),
            )),
        }
    }

    /// Puts files at the end of an order; `anew`: in the place of what it had. A file comes with its size.
    ///
    /// Errors: those of [`check_room`](Self::check_room).
    pub fn append(&mut self, id: OrderId, anew: bool, files: &[(Ino, u64)], now: Duration) -> Result<()> {
        if anew {
            self.end(id);
        }
        self.check_room(id, files.len(), now)?;
        if self.find(id).is_none() {
            self.serials += 1;
            self.orders.push(Order {
                id,
                serial: self.serials,
                files: VecDeque::new(),
                first: 0,
                places: BTreeSet::new(),
                next: 0,
                within: 0,
                cost: 0,
                touched: now,
            });
        }
        if let Some(order) = self.find(id) {
            files.iter().for_each(|&(ino, size)| order.push(ino, size));
            order.touched = now;
        }
        Ok(())
    }

    /// Nobody will read on in it.
    pub fn end(&mut self, id: OrderId) {
        self.orders.retain(|order| order.id != id);
    }

    /// A file begins to be read; whether more may be fetched since.
    pub fn on_read(&mut self, ino: Ino, now: Duration) -> bool {
        let mut further = false;
        for order in &mut self.orders {
            if order.on_read(ino) {
                (order.touched, further) = (now, true);
            }
        }
        further
    }

    /// What to fetch now: while less than `window_bytes` were fetched that are ahead of their readers.
    pub fn next(&mut self, window_bytes: u64, now: Duration) -> Option<Batch> {
        self.forget_idle(now);
        let unread = self.orders.iter().filter(|order| !order.files.is_empty()).count();
        let each = window_bytes / unread.max(1) as u64;
        for _ in 0..self.orders.len() {
            self.turn = (self.turn + 1) % self.orders.len();
            let batch = self.orders[self.turn].next(each);
            if batch.is_some() {
                return batch;
            }
        }
        None
    }

    /// A batch came; for it `bytes` were fetched.
    pub fn on_fetched(&mut self, batch: &Batch, bytes: u64) {
        if let Some(order) = self.orders.iter_mut().find(|order| order.serial == batch.order) {
            order.settle(batch, bytes);
        }
    }

    /// The cache has no room for what is fetched: the order ends, and reading goes on without.
    pub fn on_refused(&mut self, batch: &Batch) {
        self.orders.retain(|order| order.serial != batch.order);
    }
}
