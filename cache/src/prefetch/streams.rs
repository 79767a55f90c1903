//! Reads of one large file, and what of it will be read next. Decides only; does no I/O.
//!
//! Several programs, or threads, read one file at several places: each is a *stream*, recognised by where its next read begins.
//!
//! | way | recognised by | fetched ahead |
//! |---|---|---|
//! | forward | two reads each near the end of the one before (the kernel's own read-ahead mixes their order); or a read from the file's beginning | a window behind its front |
//! | backward | two reads each just before the one before | a window before its front |
//! | strided | four reads at equal distances | the next ones |
//!
//! A window begins with 1 MiB and is four times as large with each MiB its stream gets on, up to what the store's bandwidth and latency call for. A read
//! that belongs to no stream is fetched as it is, and nothing with it.

use std::collections::VecDeque;
use std::ops::Range;

use granary_core::limits::CHUNK_BYTES;

/// Streams of one file; the one that got on longest ago makes room.
const STREAMS_MAX: usize = 16;
/// Reads remembered to find strides among them.
const RECENT_MAX: usize = 16;
/// Reads so near the front belong to the stream: of one that is recognised, and of one that is not yet.
const NEAR: u64 = 1 << 20;
const NEAR_AT_FIRST: u64 = 128 << 10;
/// Reads in a row before the first fetch ahead.
const STEPS_MIN: u32 = 2;
/// The window grows by this factor with each chunk: a latency is a long time for a program that waits.
const GROWTH: u64 = 4;
/// Asked for at once, at least, unless the window or the file is shorter: one GET.
const ASK_BYTES: u64 = 4 << 20;
/// Strides ahead at most.
const STRIDES_MAX: u64 = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Forward,
    Backward,
    /// By so many bytes, either way.
    Strided(i64),
}

#[derive(Clone, Copy, Debug)]
struct Stream {
    way: Way,
    /// Where its first read began, until it is recognised.
    start: u64,
    /// Forward: the end of what was read; backward: the beginning of it; strided: where the next read begins.
    front: u64,
    steps: u32,
    /// Bytes to be ahead (strided: reads); 0: nothing yet.
    window: u64,
    /// Fetched ahead is what lies between the front and here.
    asked: u64,
    /// `Streams::reads` at its last read.
    used: u64,
}

/// The streams of one file.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    streams: Vec<Stream>,
    recent: VecDeque<u64>,
    reads: u64,
}

impl Streams {
    /// Tells of a read (not empty) of a file of `size` bytes; answers the ranges to fetch in the background. `window_max`: bytes
    /// that are worth having under way.
    pub fn on_read(&mut self, range: &Range<u64>, size: u64, window_max: u64) -> Vec<Range<u64>> {
        self.reads += 1;
        let (reads, window_max) = (self.reads, window_max.max(CHUNK_BYTES));
        if let Some(stream) = self.streams.iter_mut().find(|s| s.takes(range)) {
            stream.used = reads;
            return stream.advance(range, size, window_max);
        }
        if let Some(stride) = self.stride_to(range.start)
            && stride.unsigned_abs() > range.end - range.start
        {
            let front = range.start.saturating_add_signed(stride);
            let mut stream = Stream {
                way: Way::Strided(stride),
                start: 0,
                front,
                steps: 0,
                window: 1,
                asked: front,
                used: reads,
            };
            let wish = stream.ask_strided(range.end - range.start, size, window_max);
            self.put(stream);
            return wish;
        }
        self.recent.push_back(range.start);
        if self.recent.len() > RECENT_MAX {
            self.recent.pop_front();
        }
        let window = if range.start == 0 { CHUNK_BYTES } else { 0 };
        let (start, front) = (range.start, range.end);
        let mut stream =
            Stream { way: Way::Forward, start, front, steps: 0, window, asked: front, used: reads };
        let wish = stream.ask_forward(size);
        self.put(stream);
        wish
    }

    fn put(&mut self, stream: Stream) {
        if self.streams.len() < STREAMS_MAX {
            return self.streams.push(stream);
        }
        if let Some(oldest) = self.streams.iter_mut().min_by_key(|s| s.used) {
            *oldest = stream;
        }
    }

    /// The distance, if this read is the fourth of a row of equal distances.
    fn stride_to(&self, start: u64) -> Option<i64> {
        let at = |back: i64| start.checked_add_signed(-back).is_some_and(|at| self.recent.contains(&at));
        let mut distances = self.recent.iter().rev().map(|before| start as i64 - *before as i64);
        distances.find(|d| *d != 0 && at(2 * d) && at(3 * d))
    }

    /// What was asked for from here on is not being fetched: it is to be asked for again.
    pub fn on_refused(&mut self, refused: &Range<u64>) {
        for stream in &mut self.streams {
            match stream.way {
                Way::Forward if stream.asked > refused.start && stream.front <= refused.start => {
                    stream.asked = refused.start;
                }
                Way::Backward if stream.asked < refused.end && stream.front >= refused.end => {
                    stream.asked = refused.end;
                }
                _ => {}
            }
        }
    }
}

impl Stream {
    /// Whether the read is this stream's next one, or nearly.
    fn takes(&self, range: &Range<u64>) -> bool {
        let near = if self.steps >= STEPS_MIN || self.window > 0 { NEAR } else { NEAR_AT_FIRST };
        match self.way {
            Way::Forward => {
                let forward = range.start <= self.front + near && self.front <= range.start + near;
                forward || self.steps == 0 && self.turns_back(range)
            }
            Way::Backward => range.end <= self.front + near && self.front <= range.end + near,
            Way::Strided(_) => range.start == self.front,
        }
    }

    /// Whether it is the second read of a stream that goes backward.
    fn turns_back(&self, range: &Range<u64>) -> bool {
        range.start < self.start && range.end <= self.start && self.start <= range.end + NEAR_AT_FIRST / 2
    }

    fn advance(&mut self, range: &Range<u64>, size: u64, window_max: u64) -> Vec<Range<u64>> {
        if self.way == Way::Forward && self.steps == 0 && self.turns_back(range) {
            (self.way, self.front, self.asked, self.window) = (Way::Backward, self.start, range.start, 0);
        }
        match self.way {
            Way::Forward => {
                if range.end <= self.front {
                    return Vec::new();
                }
                let new_chunk = range.end.div_ceil(CHUNK_BYTES) > self.front.div_ceil(CHUNK_BYTES);
                self.front = range.end;
                self.grow(new_chunk, window_max);
                self.ask_forward(size)
            }
            Way::Backward => {
                if range.start >= self.front {
                    return Vec::new();
                }
                let new_chunk = range.start / CHUNK_BYTES < self.front / CHUNK_BYTES;
                self.front = range.start;
                self.grow(new_chunk, window_max);
                self.ask_backward()
            }
            Way::Strided(stride) => {
                self.front = range.start.saturating_add_signed(stride);
                self.window = (self.window * 2).min(STRIDES_MAX);
                self.ask_strided(range.end - range.start, size, window_max)
            }
        }
    }

    fn grow(&mut self, new_chunk: bool, window_max: u64) {
        self.steps = self.steps.saturating_add(1);
        if self.window == 0 {
            self.window = if self.steps >= STEPS_MIN { CHUNK_BYTES } else { 0 };
        } else if new_chunk {
            self.window *= GROWTH;
        }
        self.window = self.window.min(window_max);
    }

    fn ask_forward(&mut self, size: u64) -> Vec<Range<u64>> {
        let from = self.asked.max(self.front);
        let to = (self.front + self.window).min(size);
        let enough = to == size || to.saturating_sub(from) >= (self.window / 2).min(ASK_BYTES);
        if from >= to || !enough {
            return Vec::new();
        }
        self.asked = to;
        std::iter::once(from..to).collect()
    }

    fn ask_backward(&mut self) -> Vec<Range<u64>> {
        let to = self.asked.min(self.front);
        let from = self.front.saturating_sub(self.window);
        let enough = from == 0 || to.saturating_sub(from) >= (self.window / 2).min(ASK_BYTES);
        if from >= to || !enough {
            return Vec::new();
        }
        self.asked = from;
        std::iter::once(from..to).collect()
    }

    /// `asked` is the first read not yet asked for.
    fn ask_strided(&mut self, len: u64, size: u64, window_max: u64) -> Vec<Range<u64>> {
        let Way::Strided(stride) = self.way else { return Vec::new() };
        // Each costs at least a chunk.
        let most = self.window.min(window_max / len.max(CHUNK_BYTES)).max(1) as i64;
        let ahead = (self.asked as i64 - self.front as i64) / stride;
        if ahead < 0 {
            self.asked = self.front;
        }
        let mut wish = Vec::new();
        for _ in ahead.max(0)..most {
            if self.asked >= size {
                break;
            }
            wish.push(self.asked..(self.asked + len).min(size));
            match self.asked.checked_add_signed(stride) {
                Some(next) => self.asked = next,
                None => {
                    self.asked = u64::MAX; // before the file's beginning is nothing
                    break;
                }
            }
        }
        wish
    }
}

#[cfg(test)]
mod tests;
