//! Random work on a real mount against a plain reference, with short periods so that the drain is in the middle of it,
//! clean restarts and restarts with an empty cache. `GRANARY_STRESS_SECONDS` makes it long; `GRANARY_TEST_SEED` repeats it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use granary_tests::{Node, StoreKind, seed};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

/// What a file must hold, shared by its name and by who keeps it open.
type Content = Arc<Mutex<Vec<u8>>>;

/// One thread's directory and what must be in it.
struct Model {
    dir: PathBuf,
    rng: StdRng,
    files: BTreeMap<String, Content>,
    /// Files kept open; those that lost their name go on.
    open: Vec<(File, Content)>,
}

impl Model {
    fn bytes(&mut self, max: usize) -> Vec<u8> {
        let len = if self.rng.random_range(0..30) == 0 { max * 20 } else { self.rng.random_range(0..max) };
        let mut bytes = vec![0; len];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }

    /// Any file: its path and content.
    fn any(&mut self) -> Option<(String, PathBuf, Content)> {
        let at = self.rng.random_range(0..self.files.len().max(1));
        let (name, content) = self.files.iter().nth(at)?;
        Some((name.clone(), self.dir.join(name), content.clone()))
    }

    fn new_name(&mut self) -> String {
        let ext = ["", ".txt", ".ckpt", ".wav"][self.rng.random_range(0..4)];
        format!("f{}{ext}", self.rng.random_range(0..60))
    }

    fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..30 => self.write_whole(),
            30..45 => self.write_part(),
            45..52 => self.truncate(),
            52..60 => {
                let Some((name, path, _)) = self.any() else { return };
                fs::remove_file(path).expect("unlink");
                self.files.remove(&name);
            }
            60..70 => {
                let to = self.new_name();
                let Some((name, path, content)) = self.any() else { return };
                fs::rename(path, self.dir.join(&to)).expect("rename");
                self.files.remove(&name);
                self.files.insert(to, content);
            }
            70..75 => {
                let Some((_, path, content)) = self.any() else { return };
                if self.open.len() < 6 {
                    let file = OpenOptions::new().read(true).write(true).open(path).expect("open");
                    self.open.push((file, content));
                }
            }
            75..80 => {
                if !self.open.is_empty() {
                    self.open.swap_remove(self.rng.random_range(0..self.open.len()));
                }
            }
            80..88 => {
                if !self.open.is_empty() {
                    let part = self.bytes(20_000);
                    let (file, content) = &self.open[self.rng.random_range(0..self.open.len())];
                    let mut content = content.lock().expect("content");
                    let at = self.rng.random_range(0..=content.len());
                    file.write_all_at(&part, at as u64).expect("pwrite");
                    overwrite(&mut content, at, &part);
                }
            }
            88..90 => {
                let Some((_, path, _)) = self.any() else { return };
                File::open(path).and_then(|f| f.sync_all()).expect("fsync");
            }
            _ => {
                let Some((name, path, content)) = self.any() else { return };
                compare(&name, &fs::read(path).expect("read"), &content);
            }
        }
    }

    /// Makes a file, or writes an existing one anew.
    fn write_whole(&mut self) {
        let (name, bytes) = (self.new_name(), self.bytes(60_000));
        fs::write(self.dir.join(&name), &bytes).expect("write");
        *self.files.entry(name).or_default().lock().expect("content") = bytes;
    }

    fn write_part(&mut self) {
        let part = self.bytes(20_000);
        let Some((_, path, content)) = self.any() else { return };
        let mut content = content.lock().expect("content");
        let at = self.rng.random_range(0..=content.len() + 5_000);
        OpenOptions::new()
            .write(true)
            .open(path)
            .and_then(|f| f.write_all_at(&part, at as u64))
            .expect("pwrite");
        overwrite(&mut content, at, &part);
    }

    fn truncate(&mut self) {
        let Some((_, path, content)) = self.any() else { return };
        let mut content = content.lock().expect("content");
        let size = self.rng.random_range(0..=content.len() * 3 / 2 + 10);
        OpenOptions::new().write(true).open(path).and_then(|f| f.set_len(size as u64)).expect("truncate");
        content.resize(size, 0);
    }

    fn check_open(&self) {
        for (file, content) in &self.open {
            let size = file.metadata().expect("fstat").len() as usize;
            let mut found = vec![0; size];
            file.read_exact_at(&mut found, 0).expect("pread");
            compare("an open file", &found, content);
        }
    }

    fn check_names(&self) {
        let mut names: Vec<String> = fs::read_dir(&self.dir)
            .expect("readdir")
            .map(|e| e.expect("entry").file_name().into_string().expect("utf-8"))
            .collect();
        names.sort();
        assert!(names.iter().eq(self.files.keys()), "{names:?} but {:?}", self.files.keys());
        for (name, content) in &self.files {
            compare(name, &fs::read(self.dir.join(name)).expect("read"), content);
        }
    }
}

fn compare(name: &str, found: &[u8], content: &Content) {
    let expected = content.lock().expect("content");
    let at =
        found.iter().zip(&*expected).position(|(a, b)| a != b).unwrap_or(found.len().min(expected.len()));
    assert!(
        *found == **expected,
        "{name}: {} bytes, {} expected, first difference at {at}",
        found.len(),
        expected.len()
    );
}

fn overwrite(content: &mut Vec<u8>, at: usize, part: &[u8]) {
    if !part.is_empty() {
        content.resize(content.len().max(at + part.len()), 0);
        content[at..at + part.len()].copy_from_slice(part);
    }
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
                    model.check_open();
                    model.check_names();
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

/// Many names in one directory: made by several threads, each listed once while others go, found again after a restart. A
/// million when it is to be long.
#[test]
fn a_directory_of_many_entries() {
    let count = if std::env::var("GRANARY_STRESS_SECONDS").is_ok() { 1_000_000 } else { 20_000 };
    let mut node = Node::with_settings(StoreKind::Folder, &[]);
    let mut dir = node.mount("user/alice", "").join("many");
    fs::create_dir(&dir).expect("mkdir");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let dir = &dir;
            scope.spawn(move || {
                for i in (thread..count).step_by(4) {
                    File::create(dir.join(format!("entry-{i:07}"))).expect("create");
                }
            });
        }
    });
    let listed = |dir: &Path| {
        let mut seen = vec![false; count];
        for entry in fs::read_dir(dir).expect("open the directory") {
            let name = entry.expect("an entry").file_name().into_string().expect("a name");
            let i: usize = name.strip_prefix("entry-").and_then(|i| i.parse().ok()).expect("a name of ours");
            assert!(!std::mem::replace(&mut seen[i], true), "{name} is listed twice");
        }
        seen
    };
    assert!(listed(&dir).iter().all(|seen| *seen), "some are not listed");
    // The odd ones go while somebody lists: the even ones are all there, and none twice.
    let seen = std::thread::scope(|scope| {
        let (all, going) = (scope.spawn(|| listed(&dir)), &dir);
        for i in (1..count).step_by(2) {
            fs::remove_file(going.join(format!("entry-{i:07}"))).expect("unlink");
        }
        all.join().expect("who lists")
    });
    assert!(seen.iter().step_by(2).all(|seen| *seen), "some that stayed are not listed");
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).expect("the node lives");
    let memory = status.lines().find(|line| line.starts_with("VmRSS")).expect("VmRSS");
    println!("{count} entries were made, and half of them removed: the node has {memory}");
    node.umount(dir.parent().expect("the mountpoint"));
    node.stop();
    node.start();
    dir = node.mount("user/alice", "").join("many");
    let seen = listed(&dir);
    assert!((0..count).all(|i| seen[i] == (i % 2 == 0)), "after the restart other names are there");
    assert!(dir.join("entry-0000000").exists() && !dir.join("entry-0000001").exists());
}
