//! One node that stops again and again, and is looked at each time.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;

use granary_core::Failpoint;
use granary_tests::{Model, Node, StoreKind, Worker, read, until};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const THREADS: usize = 3;
/// Every so many rounds all is compared from the store alone.
const STORE_EVERY: u64 = 6;
/// A place that is not reached in so many tries, of so many operations each, is not where it says.
const TRIES: usize = 12;
const OPERATIONS_MAX: u64 = 1_000;
/// A directory of files that each hold their own name.
const SCATTERED: &str = "scattered";
/// A large file of nothing but this byte, and how many of them.
const LARGE: (&str, u8, usize) = ("large", b'g', 200_000);

/// How a round stops the node.
#[derive(Clone, Copy, Debug)]
pub enum Stop {
    /// At a failpoint, the given time that it is reached.
    At(Failpoint, u64),
    /// By kill -9 after so many operations.
    After(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Start,
    Run,
    Stop,
}

/// When the process comes to the place.
fn when(point: Failpoint) -> When {
    use Failpoint::*;
    match point {
        RecoverAfterNumbering
        | RecoverAfterRestore
        | RecoverAfterAdopt
        | RecoverAfterInode
        | RecoverAfterStageFile
        | RecoverBeforeSync
        | RecoverAfterSync
        | StartBeforeReady => When::Start,
        StopBeforeFlush | StopAfterFlush => When::Stop,
        _ => When::Run,
    }
}

pub struct Lane {
    n: u64,
    node: Node,
    rng: StdRng,
    dirs: Vec<String>,
    models: Vec<Model>,
    rounds: u64,
    acknowledged: u64,
    what: String,
}

impl Lane {
    pub fn new(n: u64, seed: u64) -> Lane {
        // Short periods: the drain, relocations and deletions are in the middle of it all. On every other lane large files
        // stay in the stage, to be replaced and deleted there.
        let large_period = if n.is_multiple_of(2) { "60" } else { "1500" };
        let settings = [
            ("GRANARY_SMALL_FILE_BYTES_MAX", "65536"),
            ("GRANARY_SMALL_PERIOD_MS", "30"),
            ("GRANARY_LARGE_PERIOD_MS", large_period),
            ("GRANARY_LOG_SEGMENT_BYTES_MAX", "1048576"),
            ("GRANARY_SYNC_INTERVAL_MS", "300"),
            ("GRANARY_DEAD_OBJECT_GRACE_MS", "1"),
            ("GRANARY_COMPACTION_PERIOD_MS", "50"),
        ];
        let mut lane = Lane {
            n,
            node: Node::with_settings(StoreKind::Folder, &settings),
            rng: StdRng::seed_from_u64(seed ^ (n + 1) << 40),
            dirs: (0..THREADS).map(|t| format!("t{t}")).collect(),
            models: (0..THREADS).map(|_| Model::default()).collect(),
            rounds: 0,
            acknowledged: 0,
            what: "the beginning".to_owned(),
        };
        let mnt = lane.mount();
        // What is removed is dead at once, or after a while in the trash.
        let trash = if n.is_multiple_of(2) { "0" } else { "1s" };
        lane.node.ok(&["ns", "set", "user/alice", "--trash", trash]);
        for dir in &lane.dirs {
            fs::create_dir(mnt.join(dir)).expect("mkdir");
        }
        fs::File::open(&mnt).and_then(|dir| dir.sync_all()).expect("fsync");
        lane.node.kill();
        lane
    }

    fn mount(&self) -> PathBuf {
        self.node.mount("user/alice", "")
    }

    /// Asks the node itself, since `granary mount` would start another one should this one stop before it is asked. `false`:
    /// the node stopped.
    fn try_mount(&self, mnt: &Path) -> bool {
        let body = format!(r#"{{"namespace": "user/alice", "dir": "{}"}}"#, mnt.display());
        let ask = || -> std::io::Result<String> {
            let mut socket = UnixStream::connect(self.node.path("node.sock"))?;
            let head = "POST /v1/mount HTTP/1.1\r\nhost: node\r\nconnection: close\r\ncontent-type: application/json";
            write!(socket, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len())?;
            let mut answer = String::new();
            socket.read_to_string(&mut answer)?;
            Ok(answer)
        };
        match ask() {
            Ok(answer) if answer.starts_with("HTTP/1.1 200") => true,
            Ok(answer) if !answer.is_empty() => panic!("{}: the mount is refused: {answer}", self.what),
            _ => false,
        }
    }

    pub fn round(&mut self, stop: Stop) {
        self.rounds += 1;
        self.what = format!("lane {}, round {}: {stop:?}", self.n, self.rounds);
        println!("{}", self.what);
        match stop {
            Stop::At(point, times) => match when(point) {
                When::Start => self.stop_at_start(point, times),
                When::Run => self.stop_at_work(point, times),
                When::Stop => self.stop_at_stop(point),
            },
            Stop::After(operations) => {
                self.kill_after(operations);
                if self.rng.random() {
                    // Recovery is interrupted, perhaps, and done again.
                    let start = Failpoint::ALL.iter().filter(|p| when(**p) == When::Start);
                    let at = start.map(|p| format!("{}=abort@{}", p.name(), self.rng.random_range(1..9)));
                    let at = at.collect::<Vec<_>>().join(",");
                    if !self.start_at(&at) {
                        self.node.kill();
                    }
                }
            }
        }
        self.node.start();
        let mnt = self.mount();
        self.check(&mnt);
        if self.rounds.is_multiple_of(STORE_EVERY) {
            self.store_alone();
        }
        self.node.kill();
    }

    /// Everything once more from the store alone; how many operations were acknowledged in all.
    pub fn end(mut self) -> u64 {
        self.node.start();
        let mnt = self.mount();
        self.check(&mnt);
        self.store_alone();
        let mnt = self.node.path("mnt-user-alice");
        self.node.umount(&mnt);
        self.node.stop();
        self.acknowledged
    }

    /// Threads work until they have done `enough` operations, or the mount is gone; with `kill` it goes at that operation. How
    /// many threads saw it go.
    fn work(&mut self, mnt: &Path, enough: u64, kill: Option<u64>) -> usize {
        let (count, pid) = (AtomicU64::new(0), self.node.pid());
        let pid = rustix::process::Pid::from_raw(pid as i32).expect("a process");
        let tell = |n| {
            if Some(n) == kill {
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kill -9");
            }
        };
        let seeds: Vec<u64> = (0..THREADS).map(|_| self.rng.random()).collect();
        let failures = std::thread::scope(|scope| {
            let threads: Vec<_> = (self.models.iter_mut().zip(&self.dirs).zip(seeds))
                .map(|((model, dir), seed)| {
                    let (count, worker) = (&count, Worker::new(&mnt.join(dir), model, seed));
                    scope.spawn(move || worker.run(count, enough, tell))
                })
                .collect();
            threads.into_iter().filter_map(|thread| thread.join().expect("a worker")).collect::<Vec<_>>()
        });
        self.acknowledged += count.into_inner();
        for failure in &failures {
            assert!(failure.is_gone(), "{}: {failure:?}\n{}", self.what, self.node.log());
        }
        failures.len()
    }

    fn kill_after(&mut self, operations: u64) {
        self.node.start();
        let mnt = self.mount();
        assert!(self.work(&mnt, u64::MAX, Some(operations)) > 0);
        self.node.wait();
    }

    fn stop_at_work(&mut self, point: Failpoint, times: u64) {
        // The engine writes for the mount's sake as well: the place is reached by the work.
        let times = if point.name().starts_with("engine") { times + 12 } else { times };
        for n in 0..TRIES {
            let times = if n == 0 { times } else { 1 };
            match point {
                Failpoint::SparseAfterRemove => self.leave_to_the_store(),
                Failpoint::CompactBeforePut | Failpoint::CompactAfterPut | Failpoint::CompactAfterMove => {
                    self.scatter();
                }
                _ => {}
            }
            self.node.start_with(&[("GRANARY_FAILPOINTS", &format!("{}=abort@{times}", point.name()))]);
            let mnt = self.node.path("mnt-user-alice");
            // What is staged still may lead there before anybody works.
            if !self.try_mount(&mnt)
                || !self.overwrite_large(&mnt)
                || self.work(&mnt, OPERATIONS_MAX, None) > 0
            {
                return self.assert_stopped();
            }
            // What the work leaves to the background is done now, and may get there still.
            if !self.drain(&mnt) {
                return self.assert_stopped();
            }
            self.models.iter_mut().for_each(Model::promise_all);
            self.node.kill();
            self.node.start();
            let mnt = self.mount();
            self.check(&mnt);
            self.node.kill();
        }
        panic!("{}: no work leads to {}", self.what, point.name());
    }

    /// Large files of which the node has nothing: what overwrites them goes to sparse stage files.
    fn leave_to_the_store(&mut self) {
        self.node.start();
        let mnt = self.mount();
        let (name, byte, bytes) = LARGE;
        fs::write(mnt.join(name), vec![byte; bytes]).expect("write");
        self.work(&mnt, 120, None);
        self.drain_and_wipe();
    }

    /// Writes within the large file, where it was left to the store, what is there already. `false`: the mount went.
    fn overwrite_large(&self, mnt: &Path) -> bool {
        let (name, byte, bytes) = LARGE;
        let write = || {
            let file = fs::File::options().write(true).open(mnt.join(name))?;
            file.write_all_at(&[byte; 100], bytes as u64 / 2)
        };
        match write() {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                let there = fs::symlink_metadata(mnt.join("no such name"));
                let is_gone = there.is_err_and(|e| e.kind() != ErrorKind::NotFound);
                assert!(is_gone, "{}: {name}: {e}\n{}", self.what, self.node.log());
                false
            }
            _ => true,
        }
    }

    /// Unmounts when all is in the store. `false`: the node stopped before.
    fn drain(&self, mnt: &Path) -> bool {
        let out = self.node.run(&["umount", "--drain", mnt.to_str().expect("utf-8")]);
        if out.code != Some(0) {
            let why = format!("{}: {out:?}: the node stops", self.what);
            until(&why, || UnixStream::connect(self.node.path("node.sock")).is_err());
        }
        out.code == Some(0)
    }

    /// So many objects of one small file each that a compaction joins them when the node starts again.
    fn scatter(&mut self) {
        self.node.start_with(&[("GRANARY_COMPACTION_PERIOD_MS", "3600000")]);
        let mnt = self.mount();
        let dir = mnt.join(SCATTERED);
        fs::create_dir_all(&dir).expect("mkdir");
        for i in 0..40 {
            fs::write(dir.join(i.to_string()), i.to_string()).expect("write");
            self.node.sync(&mnt);
        }
        self.node.kill();
    }

    fn stop_at_stop(&mut self, point: Failpoint) {
        self.node.start_with(&[("GRANARY_FAILPOINTS", &format!("{}=abort", point.name()))]);
        let mnt = self.mount();
        let gone = self.work(&mnt, 20, None);
        assert_eq!(gone, 0, "{}: the mount went before the node was stopped", self.what);
        self.node.terminate();
        self.assert_stopped();
    }

    fn stop_at_start(&mut self, point: Failpoint, times: u64) {
        // First a kill amid work, which leaves what it leaves; then what leads there.
        for n in 0..TRIES {
            if n == 0 {
                let operations = self.rng.random_range(10..60);
                self.kill_after(operations);
            } else {
                self.leave_to_the_start();
            }
            // Most places of a start are passed once.
            let several = matches!(point, Failpoint::RecoverAfterInode | Failpoint::RecoverAfterAdopt);
            let times = if several && n == 0 { times } else { 1 };
            if self.start_at(&format!("{}=abort@{times}", point.name())) {
                return;
            }
            let mnt = self.mount();
            self.check(&mnt);
            self.node.kill();
        }
        panic!("{}: no start leads to {}", self.what, point.name());
    }

    /// Small files and a large one that are nowhere but on the node's disk; what of the log the metadata does not know; and what the
    /// metadata has of the log until that is synced, once a second: a kill right after the last fsync nearly always finds it.
    fn leave_to_the_start(&mut self) {
        self.node.start_with(&[
            ("GRANARY_SMALL_PERIOD_MS", "3600000"),
            ("GRANARY_LARGE_PERIOD_MS", "3600000"),
            ("GRANARY_SYNC_INTERVAL_MS", "600000"),
        ]);
        let mnt = self.mount();
        let (name, byte, bytes) = LARGE;
        let (large, dir) = (mnt.join(name), mnt.join(SCATTERED));
        fs::write(&large, vec![byte; bytes]).expect("write");
        fs::create_dir_all(&dir).expect("mkdir");
        let sync = |path: &Path| fs::File::open(path).and_then(|file| file.sync_all()).expect("fsync");
        [&large, &mnt].into_iter().for_each(|path| sync(path));
        let small: Vec<_> = (0..5).map(|i| (i.to_string(), dir.join(i.to_string()))).collect();
        let mut open = Vec::new();
        for (text, path) in &small {
            fs::write(path, text).expect("write");
            sync(path);
            open.push(fs::File::options().write(true).open(path).expect("open"));
        }
        // In the log alone: the metadata is told of it when the file is closed, or after a second.
        for ((text, _), file) in small.iter().zip(&open) {
            file.write_all_at(text.as_bytes(), 0).expect("write");
        }
        self.node.kill();
    }

    /// Starts the node with failpoints; whether it stopped at one before it served.
    fn start_at(&mut self, points: &str) -> bool {
        self.node.start_with(&[("GRANARY_FAILPOINTS", points)]);
        // Who asks waits until the node serves, or its end closes the socket.
        let serves = self.node.run(&["status"]).code == Some(0);
        if !serves {
            self.assert_stopped();
        }
        !serves
    }

    fn assert_stopped(&mut self) {
        let status = self.node.wait();
        assert_eq!(status.signal(), Some(libc::SIGKILL), "{}: {status}\n{}", self.what, self.node.log());
    }

    fn check(&mut self, mnt: &Path) {
        for (dir, model) in self.dirs.iter().zip(&mut self.models) {
            let found = read(&mnt.join(dir)).unwrap_or_else(|e| panic!("{}: {dir}: {e}", self.what));
            if let Err(why) = model.recovered(found) {
                panic!("{}: {dir} is as it was at no moment:\n{why}", self.what);
            }
        }
        for entry in fs::read_dir(mnt.join(SCATTERED)).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {path:?}: {e}", self.what));
            assert_eq!(path.file_name(), Some(text.as_ref()), "{}: {path:?} holds {text:?}", self.what);
        }
        let (name, byte, bytes) = LARGE;
        match fs::read(mnt.join(name)) {
            Ok(found) => assert!(found == vec![byte; bytes], "{}: {name} is not what was written", self.what),
            Err(e) => assert_eq!(e.kind(), ErrorKind::NotFound, "{}: {name}: {e}", self.what),
        }
    }

    /// Drains everything, stops, and takes the node's disk away.
    fn drain_and_wipe(&mut self) {
        let mnt = self.node.path("mnt-user-alice");
        self.node.ok(&["umount", "--drain", mnt.to_str().expect("utf-8")]);
        self.models.iter_mut().for_each(Model::promise_all);
        self.node.stop();
        fs::remove_dir_all(self.node.path("cache")).expect("the cache directory is there");
    }

    /// Compares what the store has. The node runs afterwards.
    fn store_alone(&mut self) {
        self.drain_and_wipe();
        self.node.start();
        let mnt = self.mount();
        self.what += ", from the store alone";
        self.check(&mnt);
    }
}
