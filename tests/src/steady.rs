//! A program that must see no error, whatever becomes of the node below it.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::program::until_within;

/// How long a round may take, with all that happens to the node meanwhile, on a machine that does much else.
const ROUND_MAX: Duration = Duration::from_secs(300);

/// Creates, writes, renames, links, reads and removes in a directory of its own, and knows what must be there.
#[derive(Debug)]
pub struct Steady {
    own: PathBuf,
    seed: u64,
    rng: StdRng,
    kept: Vec<(PathBuf, Vec<u8>)>,
    kept_max: usize,
    rounds: u64,
}

impl Steady {
    /// Its directory is `who` below `dir`, and new; it keeps so many files.
    pub fn new(dir: &Path, who: &str, seed: u64, kept_max: usize) -> Steady {
        let own = dir.join(who);
        fs::create_dir(&own).expect("mkdir");
        Steady { own, seed, rng: StdRng::seed_from_u64(seed), kept: Vec::new(), kept_max, rounds: 0 }
    }

    pub fn dir(&self) -> &Path {
        &self.own
    }

    pub fn rng(&mut self) -> &mut StdRng {
        &mut self.rng
    }

    pub fn rounds(&self) -> u64 {
        self.rounds
    }

    pub fn round(&mut self) {
        let n = self.rounds;
        let (tmp, name) = (self.own.join(format!("{n}.tmp")), self.own.join(format!("{n}")));
        // Some of them by requests as large as requests are.
        let (largest, at_once) = if n.is_multiple_of(4) { (2_500_000, 1 << 20) } else { (200_000, 50_000) };
        let bytes = pattern(self.seed ^ n, self.rng.random_range(1..largest));
        let mut out = File::create_new(&tmp).expect("create");
        for part in bytes.chunks(at_once) {
            out.write_all(part).expect("write");
        }
        drop(out);
        fs::rename(&tmp, &name).expect("rename");
        self.kept.push((name, bytes));
        let dir = self.own.join("dir");
        fs::create_dir(&dir).expect("mkdir");
        std::os::unix::fs::symlink("target", dir.join("link")).expect("symlink");
        fs::hard_link(&self.kept[0].0, dir.join("hard")).expect("link");
        fs::remove_file(dir.join("link")).expect("unlink");
        fs::remove_file(dir.join("hard")).expect("unlink");
        fs::remove_dir(&dir).expect("rmdir");
        if self.kept.len() > self.kept_max {
            let (path, bytes) = self.kept.swap_remove(self.rng.random_range(0..self.kept.len()));
            is(&path, &bytes);
            fs::remove_file(&path).expect("unlink");
        }
        self.rounds += 1;
    }

    /// All that it keeps is as it was written.
    pub fn check(&self) {
        self.kept.iter().for_each(|(path, bytes)| is(path, bytes));
    }
}

fn is(path: &Path, bytes: &[u8]) {
    let found = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert!(found == bytes, "{} differs", path.display());
}

/// Bytes that follow from a seed.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    StdRng::seed_from_u64(seed).fill(&mut bytes[..]);
    bytes
}

/// What several programs do at once: how many rounds were done in all, and how long one took at most, which nobody judges.
#[derive(Debug, Default)]
pub struct Rounds {
    count: AtomicU64,
    longest_us: AtomicU64,
    over: AtomicBool,
}

impl Rounds {
    /// Goes on with this until nobody wants more. Also a panic ends it, for all.
    #[allow(clippy::disallowed_methods)] // clocks, for what is printed
    pub fn work(&self, mut round: impl FnMut()) {
        let _end = OnPanic(self);
        while !self.over.load(Ordering::SeqCst) {
            let begun = Instant::now();
            round();
            self.longest_us.fetch_max(begun.elapsed().as_micros() as u64, Ordering::SeqCst);
            self.count.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Returns when so many more rounds were done, or there will be none.
    pub fn pass(&self, more: u64) {
        let target = self.count.load(Ordering::SeqCst) + more;
        until_within("the programs go on", ROUND_MAX, || {
            self.count.load(Ordering::SeqCst) >= target || self.over.load(Ordering::SeqCst)
        });
    }

    /// The longest round since this was asked last.
    pub fn take_longest(&self) -> Duration {
        Duration::from_micros(self.longest_us.swap(0, Ordering::SeqCst))
    }

    /// When it is dropped, nobody wants more: also when who disturbs fails.
    pub fn until_dropped(&self) -> impl Drop {
        End(self)
    }
}

struct End<'a>(&'a Rounds);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::SeqCst);
    }
}

struct OnPanic<'a>(&'a Rounds);

impl Drop for OnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.over.store(true, Ordering::SeqCst);
        }
    }
}
