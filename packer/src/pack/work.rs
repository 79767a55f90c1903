//! The threads of a pack. Each takes whatever is to be done next: a segment of a shard that is open, else the next shard, the largest
//! first. So none waits for another while there is work, and the order in which shards are made never shows in their bytes.
//!
//! In a folder each thread begins a shard of its own while there are shards, and helps others at the end: the kernel lets one thread
//! at a time write a file. In a bucket, where shards wait in memory until they are whole, as few as can be are open.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use granary_core::{Error, Result};

use super::finished;
use super::making::{Common, Making, Outcome};
use super::output::Output;
use super::plan::Plan;
use super::progress::Progress;
use super::segment::{Dealer, Segment, render};
use crate::from::{Skipped, Source};
use crate::index::sums_at;
use crate::manifest::Shard;

/// A shard's segments that may be made before its oldest one is: what they gave waits in memory.
const AHEAD_MAX: u32 = 32;

/// What the threads make.
#[derive(Debug)]
pub struct Work<'a> {
    pub source: &'a dyn Source,
    pub plan: &'a Plan,
    pub common: Common<'a>,
    /// What a shard of the plan is called.
    pub names: Vec<String>,
    /// Names that are there already, half a pack's: looked at before they are made again.
    pub there: HashSet<String>,
    pub segment_bytes: u64,
    pub threads: usize,
    pub skipped: &'a Skipped,
    pub progress: &'a Progress,
}

/// A shard that is made, or was found made.
#[derive(Clone, Debug)]
pub struct Made {
    /// `None` when nothing of it could be read.
    pub shard: Option<Shard>,
    /// Numbers of the plan's entries that are not in it.
    pub excluded: Arc<HashSet<u32>>,
    /// An earlier pack, that was stopped, had made it.
    pub found: bool,
}

/// A shard whose segments are being dealt.
#[derive(Debug)]
struct Open {
    making: Arc<Making>,
    dealer: Dealer,
    /// The thread that began it.
    owner: usize,
}

#[derive(Debug)]
struct Queue {
    /// Shards that are open at once as long as others are to be begun.
    open_wanted: usize,
    /// Shards to be made, the next last, with entries to be left out.
    todo: Vec<(u32, Arc<HashSet<u32>>)>,
    /// Shards whose segments are being dealt.
    open: VecDeque<Open>,
    /// Shards that are begun and not finished.
    active: Vec<Arc<Making>>,
    /// Threads in the middle of something, which may give more to do.
    busy: usize,
    made: Vec<Option<Made>>,
    failed: Option<Error>,
}

enum Job {
    Begin(u32, Arc<HashSet<u32>>),
    Segment(Arc<Making>, Segment),
}

/// What follows from a job.
type Change = Box<dyn FnOnce(&mut Queue)>;

struct Shared {
    /// Guards what is to be done. Dealing a segment reads the plan under it, which is what it puts in order.
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What thread `me` does next; `None` when all is done or something failed.
    fn next(&self, me: usize) -> Option<Job> {
        let mut queue = self.queue();
        loop {
            if queue.failed.is_some() {
                return None;
            }
            match queue.deal(me) {
                Ok(Some(job)) => {
                    queue.busy += 1;
                    return Some(job);
                }
                Ok(None) if queue.busy == 0 => return None,
                Ok(None) => queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner),
                Err(e) => {
                    queue.failed = Some(e);
                    self.changed.notify_all();
                }
            }
        }
    }

    /// A job ended; what comes of it changes the queue.
    fn ended(&self, outcome: Result<Change>) {
        let mut queue = self.queue();
        queue.busy -= 1;
        match outcome {
            Ok(change) => change(&mut queue),
            Err(e) => {
                queue.failed.get_or_insert(e);
            }
        }
        drop(queue);
        self.changed.notify_all();
    }
}

/// A thread that panics ends the others too, which would wait for it for ever; the scope then passes the panic on.
struct Guard<'a>(&'a Shared);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let died = Error::new(granary_core::Kind::Bug, "a thread of the pack died");
            self.0.queue().failed.get_or_insert(died);
            self.0.changed.notify_all();
        }
    }
}

impl Queue {
    fn deal(&mut self, me: usize) -> Result<Option<Job>> {
        let own = self.open.iter().position(|open| open.owner == me);
        if own.is_none()
            && self.open.len() < self.open_wanted
            && let Some((number, excluded)) = self.todo.pop()
        {
            return Ok(Some(Job::Begin(number, excluded)));
        }
        // Its own first.
        if let Some(open) = own.and_then(|own| self.open.remove(own)) {
            self.open.push_front(open);
        }
        let mut at = 0;
        while at < self.open.len() {
            let Open { making, dealer, .. } = &mut self.open[at];
            if dealer.dealt() >= making.oldest() + AHEAD_MAX {
                at += 1;
                continue;
            }
            match dealer.next_segment()? {
                Some(segment) => {
                    let making = making.clone();
                    if segment.is_last {
                        self.open.remove(at);
                    }
                    return Ok(Some(Job::Segment(making, segment)));
                }
                None => drop(self.open.remove(at)),
            }
        }
        Ok(self.todo.pop().map(|(number, excluded)| Job::Begin(number, excluded)))
    }
}

impl Work<'_> {
    /// Makes all shards of the plan, in its order.
    ///
    /// Errors: the first that anything met; what was not finished then is dropped.
    pub fn run(&self) -> Result<Vec<Made>> {
        let shards = &self.plan.shards;
        let mut todo: Vec<(u32, Arc<HashSet<u32>>)> =
            (0..shards.len() as u32).map(|n| (n, Arc::default())).collect();
        todo.sort_by_key(|&(n, _)| (shards[n as usize].bytes, std::cmp::Reverse(n)));
        let open_wanted = if self.common.place.folder().is_some() { self.threads } else { 1 };
        let queue = Queue {
            open_wanted,
            todo,
            open: VecDeque::new(),
            active: Vec::new(),
            busy: 0,
            made: vec![None; shards.len()],
            failed: None,
        };
        let shared = Shared { queue: Mutex::new(queue), changed: Condvar::new() };
        std::thread::scope(|scope| {
            let shared = &shared;
            for me in 0..self.threads.max(1) {
                scope.spawn(move || {
                    let _guard = Guard(shared);
                    let (mut buffer, mut scratch) = (Vec::new(), Vec::new());
                    while let Some(job) = shared.next(me) {
                        match job {
                            Job::Begin(number, excluded) => shared.ended(self.begin(number, excluded, me)),
                            Job::Segment(making, segment) => {
                                shared.ended(self.segment(&making, segment, &mut buffer, &mut scratch));
                            }
                        }
                    }
                });
            }
        });
        let mut queue = shared.queue.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(e) = queue.failed.take() {
            queue.active.iter().for_each(|making| making.abort());
            return Err(e);
        }
        let missing = || Error::new(granary_core::Kind::Bug, "a shard of the plan was not made");
        queue.made.into_iter().map(|made| made.ok_or_else(missing)).collect()
    }

    fn begin(&self, number: u32, excluded: Arc<HashSet<u32>>, me: usize) -> Result<Change> {
        let plan = self.plan.shards[number as usize];
        let name = self.names[number as usize].clone();
        let at = number as usize;
        if excluded.is_empty()
            && self.there.contains(&name)
            && let Some(shard) = finished::find(&self.common, self.plan, number, &name)?
        {
            self.progress.add(u64::from(plan.entries), plan.payload_bytes);
            return Ok(Box::new(move |queue| {
                queue.made[at] = Some(Made { shard: Some(shard), excluded, found: true });
            }));
        }
        let wanted = Output::segment_bytes(self.common.place, plan.bytes, self.segment_bytes);
        let dealer = Dealer::new(self.plan.entries_of(&plan), excluded.clone(), wanted)?;
        if excluded.len() == plan.entries as usize {
            return Ok(Box::new(move |queue| {
                queue.made[at] = Some(Made { shard: None, excluded, found: false });
            }));
        }
        let making = Arc::new(Making::begin(&self.common, number, name, plan, excluded)?);
        Ok(Box::new(move |queue| {
            queue.active.push(making.clone());
            queue.open.push_back(Open { making, dealer, owner: me });
        }))
    }

    fn segment(
        &self,
        making: &Arc<Making>,
        segment: Segment,
        buffer: &mut Vec<u8>,
        scratch: &mut Vec<u8>,
    ) -> Result<Change> {
        let (number, at, bytes, is_last) =
            (segment.number, segment.at, segment.bytes as usize, segment.is_last);
        let (done, failed) = render(segment, self.source, buffer, scratch)?;
        let files = done.iter().filter(|done| done.piece.is_last).count() as u64;
        let payload = done.iter().map(|done| done.piece.len).sum();
        self.progress.add(files, payload);
        making.count(files, payload);
        let sums = sums_at(at, &buffer[..bytes]);
        let tail = match is_last {
            // Held until the shard's end can follow it.
            true => Some((at, buffer[..bytes].to_vec())),
            false => {
                making.write(number, at, buffer, bytes)?;
                None
            }
        };
        let Some(ready) = making.done(number, (done, sums), failed, tail)? else {
            return Ok(Box::new(|_| ()));
        };
        let at = making.number as usize;
        match making.finish(&self.common, ready)? {
            Outcome::Made(shard) => {
                let made = Made { shard: Some(shard), excluded: making.excluded.clone(), found: false };
                Ok(Box::new(move |queue| {
                    queue.active.retain(|other| other.number as usize != at);
                    queue.made[at] = Some(made);
                }))
            }
            Outcome::Failed(failed) => {
                let mut excluded = (*making.excluded).clone();
                for (ordinal, entry, e) in failed {
                    let name = String::from_utf8_lossy(&entry.path).into_owned();
                    if excluded.insert(ordinal) {
                        self.skipped.add(&name, e)?;
                    }
                }
                let (files, payload) = making.counted();
                self.progress.take_back(files, payload);
                Ok(Box::new(move |queue| {
                    queue.active.retain(|other| other.number as usize != at);
                    queue.todo.push((at as u32, Arc::new(excluded)));
                }))
            }
        }
    }
}
