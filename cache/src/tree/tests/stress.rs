//! Many files written and read at once while everything is uploaded, made durable and evicted all the time.

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use granary_core::limits::Limits;
use granary_meta::types::Durability;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::world::{World, limits, pattern};
use crate::File;

const STEPS: u64 = 150;
const WRITERS: u64 = 6;

/// One file's user: does something, then looks at all of it.
struct User {
    w: Arc<World>,
    name: String,
    random: SmallRng,
    plain: Vec<u8>,
    file: Option<Arc<File>>,
    /// What was done, for the message.
    story: Vec<String>,
}

impl User {
    fn put(&mut self, offset: usize, bytes: &[u8]) {
        self.plain.resize(self.plain.len().max(offset + bytes.len()), 0);
        self.plain[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    async fn step(&mut self, step: u64) {
        let file = match self.file.take() {
            Some(file) => file,
            None => self.w.open(&self.name).await,
        };
        let offset = self.random.random_range(0..20_000u64);
        let len = self.random.random_range(1..6000usize);
        let bytes = pattern(step << 8 | u64::from(self.random.random::<u8>()), len);
        let what = self.random.random_range(0..12);
        let shape = file.state().stage.as_ref().map(|stage| stage.shape);
        self.story.push(format!("{step}: op {what} at {offset}, {len} bytes, stage {shape:?}"));
        match what {
            0..4 => {
                file.write(offset, &bytes, false).await.unwrap();
                self.put(offset as usize, &bytes);
            }
            4 => {
                let at = file.write(0, &bytes, true).await.unwrap();
                self.put(at as usize, &bytes);
            }
            5..7 => {
                if let Some(backing) = file.begin_passthrough(true).unwrap() {
                    backing.file.write_all_at(&bytes, offset).unwrap();
                    self.put(offset as usize, &bytes);
                    tokio::task::yield_now().await;
                    file.end_passthrough(true);
                }
            }
            7 => {
                file.truncate(offset).await.unwrap();
                self.plain.resize(offset as usize, 0);
            }
            8 => {
                file.zero(offset, len as u64, true).await.unwrap();
                let size = self.plain.len();
                self.plain[size.min(offset as usize)..size.min(offset as usize + len)].fill(0);
            }
            9 => file.fsync().await.unwrap(),
            _ => tokio::task::yield_now().await,
        }
        assert_eq!(file.size(), self.plain.len() as u64, "{} after step {step}", self.name);
        let seen = file.read(0, 1 << 20).await.unwrap();
        let wrong = seen.iter().zip(&self.plain).position(|(a, b)| a != b);
        assert!(
            seen == self.plain,
            "{} of {} bytes, first wrong {wrong:?}, after {:#?}\n{:#?}",
            self.name,
            seen.len(),
            &self.story[self.story.len().saturating_sub(12)..],
            file.state().map
        );
        if self.random.random_range(0..3) == 0 {
            self.w.close(file).await;
        } else {
            self.file = Some(file);
        }
    }
}

async fn run(seed: u64) {
    let limits =
        Limits { cache_bytes_max: 150_000, cache_free_bytes_min: 0, cache_free_percent_min: 0, ..limits() };
    let w = Arc::new(World::with(limits, 0, Durability::Local).await);
    let running = Arc::new(AtomicUsize::new(WRITERS as usize));
    let users: Vec<_> = (0..WRITERS)
        .map(|i| {
            let (w, running) = (w.clone(), running.clone());
            tokio::spawn(async move {
                let name = format!("f{i}");
                let file = Some(w.create(&name, i % 3 == 0).await);
                let random = SmallRng::seed_from_u64(seed << 16 | i);
                let mut user = User { w, name, random, plain: Vec::new(), file, story: Vec::new() };
                for step in 0..STEPS {
                    user.step(step).await;
                    tokio::task::yield_now().await;
                }
                if let Some(file) = user.file.take() {
                    user.w.close(file).await;
                }
                running.fetch_sub(1, SeqCst);
                user.plain
            })
        })
        .collect();
    let syncer = tokio::spawn({
        let (w, running) = (w.clone(), running.clone());
        async move {
            while running.load(SeqCst) > 0 {
                w.tree_ref().sync().await.unwrap();
                w.tree_ref().flush().await.unwrap();
                tokio::task::yield_now().await;
            }
        }
    });
    let mut plains = Vec::new();
    for user in users {
        match user.await {
            Ok(plain) => plains.push(plain),
            Err(e) => {
                running.store(0, SeqCst);
                std::panic::resume_unwind(e.into_panic());
            }
        }
    }
    syncer.await.unwrap();
    w.tree_ref().sync().await.unwrap();
    w.check().await;
    let mut w = Arc::try_unwrap(w).map_err(|_| "in use").unwrap();
    for empty in [false, true] {
        for (i, plain) in plains.iter().enumerate() {
            assert!(w.content(&format!("f{i}")).await == *plain, "f{i}, empty cache: {empty}");
        }
        w.restart_with_empty_cache().await;
    }
    w.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn files_stay_what_was_written_whatever_goes_on_around_them() {
    let seeds = std::env::var("GRANARY_STRESS_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(3);
    for seed in 0..seeds {
        run(seed).await;
    }
}
