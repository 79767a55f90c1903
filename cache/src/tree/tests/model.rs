//! Random histories against plain byte vectors.
//!
//! After a crash of the process every file is as it was left, but for a copy by reference, which is in the metadata alone and
//! lost when that was not written yet. After a power loss a small file is as it was at some moment
//! since its last fsync; a large one, whose stage file is overwritten in place, may be a mixture of such moments, as on any
//! local file system.

use granary_core::limits::Limits;
use granary_meta::types::Durability;
use proptest::prelude::*;
use std::sync::Arc;

use super::world::{World, limits, pattern};
use crate::File;
use crate::stage::disk::write_all;

const FILES: usize = 4;
const SIZE_MAX: u64 = 40_000;

#[derive(Clone, Debug)]
enum Op {
    Write {
        file: usize,
        offset: u64,
        len: u64,
    },
    Append {
        file: usize,
        len: u64,
    },
    /// The kernel writes, where it may.
    Passthrough {
        file: usize,
        offset: u64,
        len: u64,
    },
    Truncate {
        file: usize,
        size: u64,
    },
    Zero {
        file: usize,
        offset: u64,
        len: u64,
        keep_size: bool,
    },
    Allocate {
        file: usize,
        offset: u64,
        len: u64,
    },
    Copy {
        from: usize,
        to: usize,
        from_offset: u64,
        to_offset: u64,
        len: u64,
    },
    Read {
        file: usize,
        offset: u64,
        len: u64,
    },
    Reopen {
        file: usize,
    },
    Fsync {
        file: usize,
    },
    Flush,
    Sync,
    Restart {
        empty_cache: bool,
    },
    Kill,
    PowerLoss {
        keep: usize,
        part: f64,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let (file, offset, len) = (0..FILES, 0u64..20_000, 1u64..6000);
    let spot = (file.clone(), offset, len.clone());
    prop_oneof![
        20 => spot.clone().prop_map(|(file, offset, len)| Op::Write { file, offset, len }),
        8 => (file.clone(), len).prop_map(|(file, len)| Op::Append { file, len }),
        4 => spot.clone().prop_map(|(file, offset, len)| Op::Passthrough { file, offset, len }),
        // Often so short that the metadata keeps a copy.
        5 => (file.clone(), prop_oneof![0u64..20_000, 0u64..2049]).prop_map(|(file, size)| Op::Truncate { file, size }),
        5 => (spot.clone(), any::<bool>()).prop_map(|((file, offset, len), keep_size)| Op::Zero { file, offset, len, keep_size }),
        2 => spot.clone().prop_map(|(file, offset, len)| Op::Allocate { file, offset, len }),
        8 => (spot.clone(), (file.clone(), 0u64..20_000)).prop_map(|((from, from_offset, len), (to, to_offset))| {
            Op::Copy { from, to, from_offset, to_offset, len }
        }),
        10 => spot.prop_map(|(file, offset, len)| Op::Read { file, offset, len }),
        8 => file.clone().prop_map(|file| Op::Reopen { file }),
        4 => file.prop_map(|file| Op::Fsync { file }),
        1 => Just(Op::Flush),
        5 => Just(Op::Sync),
        1 => any::<bool>().prop_map(|empty_cache| Op::Restart { empty_cache }),
        2 => Just(Op::Kill),
        2 => (0usize..6, 0.0..1.0f64).prop_map(|(keep, part)| Op::PowerLoss { keep, part }),
    ]
}

/// What a file may be.
struct Plain {
    now: Vec<u8>,
    /// Every content since the last promise, oldest first, `now` last.
    since: Vec<Vec<u8>>,
    open: Option<Arc<File>>,
    /// It may have, or have had, a stage file.
    large: bool,
    /// A range was copied into it: by reference perhaps, and then past the log, which has all else.
    copied: bool,
    /// A power loss may have taken bytes off it, which the next fsync tells, once.
    cut: bool,
}

impl Plain {
    fn changed(&mut self) {
        self.since.push(self.now.clone());
    }

    /// Whether `found` is what a power loss may leave.
    fn may_be(&self, found: &[u8]) -> bool {
        if !self.large {
            return self.since.iter().any(|v| v == found);
        }
        let byte = |i: usize, b: u8| self.since.iter().any(|v| v.get(i).copied().unwrap_or(0) == b);
        // A write may have made it longer in part.
        let lens = || self.since.iter().map(Vec::len);
        (lens().min()..=lens().max()).contains(&Some(found.len()))
            && found.iter().enumerate().all(|(i, &b)| byte(i, b))
    }

    fn promised(&mut self) {
        self.copied = false;
        self.since = vec![self.now.clone()];
    }

    fn put(&mut self, offset: u64, bytes: &[u8]) {
        let end = offset as usize + bytes.len();
        self.now.resize(self.now.len().max(end), 0);
        self.now[offset as usize..end].copy_from_slice(bytes);
        self.large |= end as u64 > limits().small_file_bytes_max;
        self.changed();
    }
}

struct Run {
    w: World,
    files: Vec<Plain>,
    seed: u64,
}

fn name(i: usize) -> String {
    format!("f{i}")
}

impl Run {
    async fn new() -> Run {
        let limits = Limits { memory_bytes_max: 64 << 20, ..limits() };
        let w = World::with(limits, 0, Durability::Local).await;
        super::inline::set(&w, 2048);
        let mut files = Vec::new();
        for i in 0..FILES {
            let file = w.create(&name(i), i == 3).await;
            files.push(Plain {
                now: Vec::new(),
                since: vec![Vec::new()],
                open: Some(file),
                large: i == 3,
                copied: false,
                cut: false,
            });
        }
        w.tree_ref().flush().await.unwrap();
        Run { w, files, seed: 0 }
    }

    async fn file(&mut self, i: usize) -> Arc<File> {
        if self.files[i].open.is_none() {
            self.files[i].open = Some(self.w.open(&name(i)).await);
        }
        self.files[i].open.clone().unwrap()
    }

    fn bytes(&mut self, len: u64) -> Vec<u8> {
        self.seed += 1;
        pattern(self.seed, len as usize)
    }

    async fn step(&mut self, op: Op) {
        match op {
            Op::Write { file: i, offset, len } => {
                let (file, bytes) = (self.file(i).await, self.bytes(len));
                file.write(offset, &bytes, false).await.unwrap();
                self.files[i].put(offset, &bytes);
            }
            Op::Append { file: i, len } => {
                let (file, bytes) = (self.file(i).await, self.bytes(len));
                let end = self.files[i].now.len() as u64;
                if end + len <= SIZE_MAX {
                    assert_eq!(file.write(0, &bytes, true).await.unwrap(), end);
                    self.files[i].put(end, &bytes);
                }
            }
            Op::Passthrough { file: i, offset, len } => {
                let (file, bytes) = (self.file(i).await, self.bytes(len));
                if let Some(backing) = file.begin_passthrough(true).unwrap() {
                    write_all(&*self.w.disk, &backing.file, &[], &bytes, offset).unwrap();
                    self.files[i].put(offset, &bytes);
                    assert_eq!(file.size(), self.files[i].now.len() as u64);
                    file.end_passthrough(true);
                }
            }
            Op::Truncate { file: i, size } => {
                let attr = self.file(i).await.truncate(size).await.unwrap();
                assert_eq!(attr.size, size);
                self.files[i].now.resize(size as usize, 0);
                self.files[i].changed();
            }
            Op::Zero { file: i, offset, len, keep_size } => {
                self.file(i).await.zero(offset, len, keep_size).await.unwrap();
                let now = &mut self.files[i].now;
                let end = (offset + len) as usize;
                if !keep_size {
                    now.resize(now.len().max(end), 0);
                }
                let (from, to) = (now.len().min(offset as usize), now.len().min(end));
                now[from..to].fill(0);
                // Its two steps, longer and zeroed, may be parted by a power loss.
                self.files[i].changed();
                if !keep_size {
                    let before = self.files[i].since.len() - 2;
                    let mut longer = self.files[i].since[before].clone();
                    longer.resize(longer.len().max(end), 0);
                    self.files[i].since.insert(before + 1, longer);
                }
            }
            Op::Allocate { file: i, offset, len } => {
                self.file(i).await.allocate(offset, len, false).await.unwrap();
                let now = &mut self.files[i].now;
                now.resize(now.len().max((offset + len) as usize), 0);
                self.files[i].changed();
            }
            Op::Copy { from, to, from_offset, to_offset, len } => {
                self.copy(from, to, from_offset, to_offset, len).await
            }
            Op::Read { file: i, offset, len } => self.read(i, offset, len).await,
            Op::Reopen { file: i } => self.close(i).await,
            Op::Fsync { file: i } => {
                let file = self.file(i).await;
                let synced = file.fsync().await;
                let may_tell = std::mem::take(&mut self.files[i].cut);
                if let Err(e) = synced {
                    assert!(may_tell && e.kind() == granary_core::Kind::Io, "{e}");
                    file.fsync().await.unwrap();
                }
                self.files[i].promised();
            }
            Op::Flush => {
                self.w.tree_ref().flush().await.unwrap();
                self.files.iter_mut().for_each(Plain::promised);
            }
            Op::Sync => {
                self.w.tree_ref().sync().await.unwrap();
                self.files.iter_mut().for_each(Plain::promised);
            }
            Op::Restart { empty_cache } => {
                for i in 0..FILES {
                    self.close(i).await;
                }
                if empty_cache {
                    self.w.restart_with_empty_cache().await
                } else {
                    self.restart().await
                }
                self.files.iter_mut().for_each(Plain::promised);
            }
            Op::Kill => {
                self.files.iter_mut().for_each(|f| f.open = None);
                self.w.kill().await;
                self.after_crash(false, |f| f.copied).await;
                self.compare().await;
            }
            Op::PowerLoss { keep, part } => {
                self.files.iter_mut().for_each(|f| f.open = None);
                self.w.cut_power(keep, part).await;
                self.files.iter_mut().for_each(|f| f.cut = f.large);
                self.after_crash(true, |_| true).await;
            }
        }
    }

    /// Where the copy is made of bytes, it is made stretch by stretch: data, hole, data, ... as `from` has them.
    async fn copy(&mut self, i: usize, j: usize, from_offset: u64, to_offset: u64, len: u64) {
        let (from, to) = (self.file(i).await, self.file(j).await);
        let mut stretches = Vec::new();
        let (mut at, end) = (from_offset, (from_offset + len).min(from.size()));
        let overlaps = i == j && from_offset.abs_diff(to_offset) < end.saturating_sub(from_offset);
        while at < end {
            let data = from.seek(at, true) == Some(at);
            let next = from.seek(at, !data).unwrap_or(end).min(end);
            stretches.push((at, next, data));
            at = next;
        }
        let done = self.w.tree_ref().copy_range(&from, from_offset, &to, to_offset, len).await;
        if overlaps {
            assert_eq!(done.unwrap_err().kind(), granary_core::Kind::Invalid);
            return;
        }
        let done = done.unwrap();
        assert!(done > 0 || stretches.is_empty(), "something is copied unless there is nothing");
        assert!(from_offset + done <= end.max(from_offset));
        let source = self.files[i].now.clone();
        for (start, stop, data) in stretches {
            let stop = stop.min(from_offset + done);
            if start < stop {
                let bytes = &source[start as usize..stop as usize];
                self.files[j].copied = true;
                let target = to_offset + (start - from_offset);
                if !data {
                    // Longer first, then zeros.
                    let plain = &mut self.files[j];
                    plain.now.resize(plain.now.len().max(target as usize + bytes.len()), 0);
                    plain.changed();
                }
                self.files[j].put(target, bytes);
            }
        }
    }

    async fn restart(&mut self) {
        self.w.stop().await;
        self.w.start().await;
    }

    async fn close(&mut self, i: usize) {
        if let Some(file) = self.files[i].open.take() {
            self.w.close(file).await;
        }
    }

    async fn read(&mut self, i: usize, offset: u64, len: u64) {
        let file = self.file(i).await;
        let now = &self.files[i].now;
        let expected = &now[now.len().min(offset as usize)..now.len().min((offset + len) as usize)];
        assert_eq!(file.size(), now.len() as u64);
        if let Some(ready) = file.read_ready(offset, len as u32) {
            assert_eq!(ready.unwrap(), expected);
        }
        assert_eq!(file.read(offset, len as u32).await.unwrap(), expected);
    }

    async fn compare(&mut self) {
        for i in 0..FILES {
            assert_eq!(self.w.attr(&name(i)).await.unwrap().size, self.files[i].now.len() as u64);
            assert!(self.w.content(&name(i)).await == self.files[i].now, "file {i} is not what was written");
        }
    }

    /// Those that may have lost something are as they were at some moment before. What recovery found in the log is durable;
    /// a stage file's bytes are when somebody syncs them, or when a power loss left them (`durable`).
    async fn after_crash(&mut self, durable: bool, may_lose: impl Fn(&Plain) -> bool) {
        for i in 0..FILES {
            if !may_lose(&self.files[i]) {
                if !self.files[i].large {
                    self.files[i].promised();
                }
                continue;
            }
            let content = self.w.content(&name(i)).await;
            assert!(
                self.files[i].may_be(&content),
                "file {i} ({} bytes) is not what it was at any moment since its last promise ({:?})",
                content.len(),
                self.files[i].since.iter().map(Vec::len).collect::<Vec<_>>()
            );
            self.files[i].now = content;
            if durable || !self.files[i].large {
                self.files[i].promised();
            } else {
                self.files[i].changed();
            }
        }
    }
}

/// Histories are long: fewer of them, unless the environment asks for a number.
fn config() -> ProptestConfig {
    let config = ProptestConfig { max_shrink_iters: 2000, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_some() {
        return config;
    }
    ProptestConfig { cases: 60, ..config }
}

proptest! {
    #![proptest_config(config())]
    #[test]
    fn it_is_files(ops in proptest::collection::vec(op(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let mut run = Run::new().await;
            for op in ops {
                run.step(op).await;
            }
            run.compare().await;
            for i in 0..FILES {
                run.close(i).await;
            }
            run.w.tree_ref().sync().await.unwrap();
            run.w.check().await;
            run.w.restart_with_empty_cache().await;
            run.compare().await;
            run.w.stop().await;
        });
    }
}
