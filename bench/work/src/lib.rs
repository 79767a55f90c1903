//! The work itself: plain system calls from plain threads, timed, and verified.
//!
//! | module | what it is |
//! |---|---|
//! | `create`, `read`, `once`, `list` | many small files: made, read and looked at again and again, read once, listed |
//! | `large`, `pages` | one large file: sequentially; page by page, and mapped |
//! | `mountpoint` | some of it, bounded, on any mounted file system |
//! | `resident` | what of a file is in the page cache, and dropping it |
//! | `content`, `clock`, `stats`, `stop` | what files hold; time; medians; signals |

pub mod clock;
pub mod content;
pub mod create;
pub mod large;
pub mod list;
mod mapping;
pub mod mountpoint;
pub mod once;
pub mod pages;
pub mod read;
pub mod resident;
pub mod stats;
pub mod stop;

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Barrier;

use anyhow::{Context, Result};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::clock::Stopwatch;

/// How long a step runs.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Steps that repeat go on for so long.
    pub seconds_min: f64,
    /// A system that is slow stops here; its rate is of what it did.
    pub seconds_max: f64,
}

/// What was done in which time.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Files, entries, calls or bytes: the step says.
    pub done: u64,
    pub seconds: f64,
}

impl Outcome {
    pub fn rate(&self) -> f64 {
        self.done as f64 / self.seconds.max(1e-9)
    }

    pub fn mb_rate(&self) -> f64 {
        self.rate() / 1e6
    }
}

/// Files of one size in one directory, `NAME/000000.bin` and on.
#[derive(Clone, Copy, Debug)]
pub struct Set {
    /// Of their directory.
    pub name: &'static str,
    pub size: usize,
    /// Told apart by this in what they hold.
    pub id: u64,
}

impl Set {
    /// What `content` calls the set's file `i`.
    pub fn file_id(&self, i: usize) -> u64 {
        self.id << 32 | i as u64
    }

    pub fn paths(&self, root: &Path, count: usize) -> Result<Vec<CString>> {
        let dir = root.join(self.name);
        (0..count)
            .map(|i| Ok(CString::new(dir.join(format!("{i:06}.bin")).as_os_str().as_bytes())?))
            .collect()
    }
}

/// 0..count in an order that the seed decides.
pub fn shuffled(count: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    order.shuffle(&mut StdRng::seed_from_u64(seed));
    order
}

/// Runs `work(thread)` in threads that start together; gives the sum of what they did and the time from the first one's begin
/// to the last one's end. They look at the clock themselves: who waits for them may sleep while all of them work.
pub fn threads(count: usize, work: impl Fn(usize) -> Result<u64> + Sync) -> Result<Outcome> {
    let barrier = Barrier::new(count);
    let watch = Stopwatch::start();
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..count)
            .map(|i| {
                let (barrier, work, watch) = (&barrier, &work, &watch);
                scope.spawn(move || {
                    barrier.wait();
                    let begin = watch.seconds();
                    work(i).map(|done| (done, begin, watch.seconds()))
                })
            })
            .collect();
        let (mut done, mut begin, mut end) = (0, f64::MAX, 0.0f64);
        for thread in running {
            let result = thread.join();
            let (count, began, ended) = result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            (done, begin, end) = (done + count, begin.min(began), end.max(ended));
        }
        Ok(Outcome { done, seconds: end - begin })
    })
}

/// Calls `op(i)` for i of `order`, again and again: for `seconds_min` and at least once through, at most for `seconds_max`.
pub fn repeat(order: &[usize], limits: Limits, mut op: impl FnMut(usize) -> Result<()>) -> Result<u64> {
    const OPS_A_CHECK: u64 = 16;
    let watch = Stopwatch::start();
    let mut done = 0;
    for pass in 0.. {
        for &i in order {
            if done % OPS_A_CHECK == 0 {
                stop::check()?;
                let seconds = watch.seconds();
                if seconds > limits.seconds_max || (pass > 0 && seconds > limits.seconds_min) {
                    return Ok(done);
                }
            }
            op(i)?;
            done += 1;
        }
        if order.is_empty() {
            break;
        }
    }
    Ok(done)
}

/// Names the file in an error.
pub fn at<T>(result: rustix::io::Result<T>, what: &str, path: &CString) -> Result<T> {
    result.with_context(|| format!("{what} {}", path.to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeating_goes_through_at_least_once_and_stops_at_the_limit() {
        let once = Limits { seconds_min: 0.0, seconds_max: 60.0 };
        let mut seen = [0; 40];
        let order = shuffled(40, 9);
        let done = repeat(&order, once, |i| {
            seen[i] += 1;
            Ok(())
        });
        assert!(done.unwrap() >= 40 && seen.iter().all(|&n| n > 0));
        let never = Limits { seconds_min: 0.0, seconds_max: 0.0 };
        assert!(repeat(&order, never, |_| Ok(())).unwrap() < 40);
        assert_eq!(repeat(&[], once, |_| Ok(())).unwrap(), 0);
        assert_eq!(order, shuffled(40, 9));
        assert_ne!(order, shuffled(40, 10));
    }

    #[test]
    fn threads_add_up_and_errors_come_back() {
        assert_eq!(threads(4, |i| Ok(i as u64)).unwrap().done, 6);
        assert!(threads(2, |i| if i == 1 { anyhow::bail!("no") } else { Ok(0) }).is_err());
    }
}
