//! Random work on a real mount against a plain reference, with short periods so that the drain is in the middle of it,
//! clean restarts and restarts with an empty cache. `GRANARY_STRESS_SECONDS` makes it long; `GRANARY_TEST_SEED` repeats it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use granary_tests::{Node, StoreKind, seed};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

/// One thread's directory and what must be in it.
struct Model {
    dir: PathBuf,
    rng: StdRng,
    files: BTreeMap<String, Vec<u8>>,
    /// Files kept open, under the name they have now, if any; unlinked ones go on.
    open: Vec<(Option<String>, File, Vec<u8>)>,
}

impl Model {
    fn bytes(&mut self, max: usize) -> Vec<u8> {
        let len = if self.rng.random_range(0..30) == 0 { max * 20 } else { self.rng.random_range(0..max) };
        let mut bytes = vec![0; len];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }

    fn any(&mut self) -> Option<String> {
        let n = self.files.len();
        if n == 0 {
            return None;
        }
        let at = self.rng.random_range(0..n);
        self.files.keys().nth(at).cloned()
    }

    fn new_name(&mut self) -> String {
        let ext = ["", ".txt", ".ckpt", ".wav"][self.rng.random_range(0..4)];
        format!("f{}{ext}", self.rng.random_range(0..60))
    }

    /// Whether a name's file is one of those kept open (whose content the model keeps there).
    fn is_open(&self, name: &str) -> bool {
        self.open.iter().any(|(n, _, _)| n.as_deref() == Some(name))
    }

    fn step(&mut self) {
        let what = self.rng.random_range(0..100);
        match what {
            0..30 => {
                let (name, content) = (self.new_name(), self.bytes(60_000));
                if self.is_open(&name) {
                    return;
                }
                fs::write(self.dir.join(&name), &content).expect("write");
                self.files.insert(name, content);
            }
            30..45 => {
                let Some(name) = self.any() else { return };
                let (part, path) = (self.bytes(20_000), self.dir.join(&name));
                let file = OpenOptions::new().write(true).open(path).expect("open");
                let content = self.files.get_mut(&name).expect("it is there");
                let at = self.rng.random_range(0..=content.len() + 5_000);
                file.write_all_at(&part, at as u64).expect("pwrite");
                overwrite(content, at, &part);
                for open in self.open.iter_mut().filter(|o| o.0.as_deref() == Some(&name)) {
                    open.2.clone_from(&self.files[&name]);
                }
            }
            45..52 => {
                let Some(name) = self.any() else { return };
                let content = self.files.get_mut(&name).expect("it is there");
                let size = self.rng.random_range(0..=content.len() * 3 / 2 + 10);
                OpenOptions::new()
                    .write(true)
                    .open(self.dir.join(&name))
                    .and_then(|f| f.set_len(size as u64))
                    .expect("truncate");
                content.resize(size, 0);
                for open in self.open.iter_mut().filter(|o| o.0.as_deref() == Some(&name)) {
                    open.2.clone_from(&self.files[&name]);
                }
            }
            52..60 => {
                let Some(name) = self.any() else { return };
                fs::remove_file(self.dir.join(&name)).expect("unlink");
                self.files.remove(&name);
                for open in self.open.iter_mut().filter(|o| o.0.as_deref() == Some(&name)) {
                    open.0 = None;
                }
            }
            60..70 => {
                let (Some(from), to) = (self.any(), self.new_name()) else { return };
                fs::rename(self.dir.join(&from), self.dir.join(&to)).expect("rename");
                if from != to {
                    let content = self.files.remove(&from).expect("it is there");
                    for open in self.open.iter_mut() {
                        if open.0.as_deref() == Some(&to) {
                            open.0 = None;
                        } else if open.0.as_deref() == Some(&from) {
                            open.0 = Some(to.clone());
                        }
                    }
                    self.files.insert(to, content);
                }
            }
            70..75 => {
                let Some(name) = self.any() else { return };
                if self.open.len() < 6 {
                    let file =
                        OpenOptions::new().read(true).write(true).open(self.dir.join(&name)).expect("open");
                    self.open.push((Some(name.clone()), file, self.files[&name].clone()));
                }
            }
            75..80 => {
                if !self.open.is_empty() {
                    let at = self.rng.random_range(0..self.open.len());
                    self.open.swap_remove(at);
                }
            }
            80..88 => {
                if self.open.is_empty() {
                    return;
                }
                let part = self.bytes(20_000);
                let which = self.rng.random_range(0..self.open.len());
                let len = self.open[which].2.len();
                let at = self.rng.random_range(0..=len);
                let (name, file, content) = &mut self.open[which];
                file.write_all_at(&part, at as u64).expect("pwrite");
                overwrite(content, at, &part);
                let (name, content) = (name.clone(), content.clone());
                if let Some(name) = name {
                    for open in self.open.iter_mut().filter(|o| o.0.as_deref() == Some(&name)) {
                        open.2.clone_from(&content);
                    }
                    self.files.insert(name, content);
                }
            }
            88..90 => {
                let Some(name) = self.any() else { return };
                File::open(self.dir.join(name)).and_then(|f| f.sync_all()).expect("fsync");
            }
            _ => {
                let Some(name) = self.any() else { return };
                let found = fs::read(self.dir.join(&name)).expect("read");
                assert!(found == self.files[&name], "{name}: {}", difference(&found, &self.files[&name]));
            }
        }
    }

    fn check_all(&mut self) {
        for (name, file, content) in &self.open {
            let mut found = vec![0; content.len() + 1];
            let mut at = 0;
            loop {
                let n = file.read_at(&mut found[at..], at as u64).expect("pread");
                if n == 0 {
                    break;
                }
                at += n;
            }
            assert!(found[..at] == content[..], "open file {name:?}: {}", difference(&found[..at], content));
        }
        self.check_names();
    }

    fn check_names(&self) {
        let mut names: Vec<String> = fs::read_dir(&self.dir)
            .expect("readdir")
            .map(|e| e.expect("entry").file_name().into_string().expect("utf-8"))
            .collect();
        names.sort();
        assert!(names.iter().eq(self.files.keys()), "{names:?} but {:?}", self.files.keys());
        for (name, content) in &self.files {
            let found = fs::read(self.dir.join(name)).expect("read");
            assert!(found == *content, "{name}: {}", difference(&found, content));
        }
    }
}

fn overwrite(content: &mut Vec<u8>, at: usize, part: &[u8]) {
    if !part.is_empty() {
        content.resize(content.len().max(at + part.len()), 0);
        content[at..at + part.len()].copy_from_slice(part);
    }
}

fn difference(found: &[u8], expected: &[u8]) -> String {
    let at = found.iter().zip(expected).position(|(a, b)| a != b).unwrap_or(found.len().min(expected.len()));
    format!("{} bytes, {} expected, first difference at {at}", found.len(), expected.len())
}

#[allow(clippy::disallowed_methods)] // how long to go on, not a measurement
fn stress(options: &str, store: StoreKind) {
    let seed = seed();
    let long = std::env::var("GRANARY_STRESS_SECONDS")
        .ok()
        .map(|s| Duration::from_secs(s.parse().expect("seconds")));
    let settings = [
        ("GRANARY_SMALL_PERIOD_MS", "20"),
        ("GRANARY_LARGE_PERIOD_MS", "40"),
        ("GRANARY_LOG_SEGMENT_BYTES_MAX", "1048576"),
    ];
    let mut node = Node::with_settings(store, &settings);
    let mut dir = node.mount("user/alice", options);
    let mut models: Vec<Model> = (0..4)
        .map(|i| {
            let dir = dir.join(format!("t{i}"));
            fs::create_dir(&dir).expect("mkdir");
            Model { dir, rng: StdRng::seed_from_u64(seed + i), files: BTreeMap::new(), open: Vec::new() }
        })
        .collect();
    let start = Instant::now();
    for round in 0.. {
        if long.map_or(round == 4, |long| start.elapsed() >= long) {
            break;
        }
        std::thread::scope(|scope| {
            for model in &mut models {
                scope.spawn(move || {
                    for _ in 0..400 {
                        model.step();
                    }
                    model.check_all();
                    model.open.clear();
                });
            }
        });
        if round % 2 == 0 {
            node.sync(&dir);
        }
        node.umount(&dir);
        node.stop();
        if round % 2 == 0 {
            node.empty_cache();
        }
        node.start();
        dir = node.mount("user/alice", options);
        models.iter().for_each(|m| m.check_names());
    }
    let used = fs::read_dir(Path::new("/proc").join(node.pid().to_string()).join("fd")).expect("fds").count();
    assert!(used < 2_000, "{used} descriptors are open");
}

#[test]
fn work_mode() {
    stress("", StoreKind::Folder);
}

#[test]
fn data_mode() {
    stress("rw,mode=data", StoreKind::Folder);
}

#[test]
fn over_ceph() {
    stress("", StoreKind::S3);
}
