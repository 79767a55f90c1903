//! Reading each file of a set once, in an order that the seed decides, and how long each took: an epoch over a data set.

use std::path::Path;

use anyhow::Result;

use crate::clock::Stopwatch;
use crate::content::{Content, PAGE, check_stamps};
use crate::read::read_one;
use crate::{Limits, Outcome, Set, shuffled, stop, threads};

/// What one pass took.
#[derive(Clone, Debug)]
pub struct Pass {
    /// `done` is bytes.
    pub outcome: Outcome,
    pub files: u64,
    /// Of each open + read + close, in no order; seconds.
    pub latencies_s: Vec<f64>,
}

/// Reads files `0..count` of the set by `thread_count` threads that share one shuffled order, until all are read or
/// `seconds_max` is over. Length and stamps are checked while time is taken; `content`, when given, checks each byte as well.
pub fn shuffled_pass(
    root: &Path,
    set: Set,
    count: usize,
    thread_count: usize,
    seed: u64,
    limits: Limits,
    content: Option<&Content>,
) -> Result<Pass> {
    let paths = set.paths(root, count)?;
    let order = shuffled(count, seed);
    let next = std::sync::atomic::AtomicUsize::new(0);
    let latencies = std::sync::Mutex::new(Vec::with_capacity(count)); // each thread's, once, at its end
    let mut outcome = threads(thread_count, |_| {
        let mut buf = vec![0; set.size + PAGE];
        let mut mine = Vec::with_capacity(count / thread_count + 1);
        let watch = Stopwatch::start();
        let mut before = 0.0;
        while before < limits.seconds_max {
            let Some(&i) = order.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) else { break };
            stop::check()?;
            let bytes = read_one(&paths[i], &mut buf, set.size)?;
            match content {
                Some(content) => content.check(bytes, set.file_id(i), 0)?,
                None => check_stamps(bytes, set.file_id(i), 0)?,
            }
            let after = watch.seconds();
            mine.push(after - before);
            before = after;
        }
        let done = mine.len() as u64;
        latencies.lock().unwrap_or_else(|e| e.into_inner()).append(&mut mine);
        Ok(done)
    })?;
    let files = outcome.done;
    outcome.done = files * set.size as u64;
    let latencies_s = latencies.into_inner().unwrap_or_else(|e| e.into_inner());
    Ok(Pass { outcome, files, latencies_s })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::create;

    const SET: Set = Set { name: "epoch", size: 9000, id: 3 };
    const LIMITS: Limits = Limits { seconds_min: 0.0, seconds_max: 60.0 };

    #[test]
    fn each_file_is_read_once_and_a_changed_byte_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let content = Content::new(1);
        create::files(dir.path(), SET, 60, 3, &content, LIMITS, create::Then::Close).unwrap();
        let pass = |content| shuffled_pass(dir.path(), SET, 60, 4, 9, LIMITS, content);
        let seen = pass(Some(&content)).unwrap();
        assert_eq!((seen.files, seen.outcome.done, seen.latencies_s.len()), (60, 60 * 9000, 60));
        assert!(seen.latencies_s.iter().all(|&s| s >= 0.0));

        let victim = dir.path().join("epoch/000031.bin");
        let mut bytes = std::fs::read(&victim).unwrap();
        bytes[8999] ^= 1;
        std::fs::write(&victim, &bytes).unwrap();
        assert!(pass(Some(&content)).is_err());
        assert!(pass(None).is_ok(), "the last byte bears no stamp");
        bytes[4096] ^= 1;
        std::fs::write(&victim, &bytes).unwrap();
        assert!(pass(None).is_err());
    }

    #[test]
    fn it_stops_at_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        create::files(dir.path(), SET, 20, 1, &Content::new(1), LIMITS, create::Then::Close).unwrap();
        let never = Limits { seconds_min: 0.0, seconds_max: 0.0 };
        assert_eq!(shuffled_pass(dir.path(), SET, 20, 2, 9, never, None).unwrap().files, 0);
    }
}
