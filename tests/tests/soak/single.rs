//! One node with the volume to itself, and a disk that becomes full, or a network that does not let it reach the store.

use std::path::PathBuf;
use std::time::Duration;

use granary_tests::{Image, Node, Proxy, StoreKind, Weather, until};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::progress::Progress;
use super::store;
use super::team::Team;
use super::{Lane, SETTINGS};

const THREADS: usize = 3;
const NAMESPACE: &str = "user/alice";
/// The node's disk, where it is small.
const DISK_BYTES: u64 = 512 << 20;

/// What becomes of the node when its programs have worked for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Kill,
    Stop,
    /// Everything must come from the store alone afterwards.
    Wipe,
    /// The same for what was fsynced, where that means the store: nobody waits for the drain before the disk is gone.
    Lose,
}

/// What is wrong for a while.
enum Trouble {
    Disk(Image),
    Network(Proxy),
}

impl Trouble {
    fn begin(&self, weather: &Weather, rng: &mut StdRng) {
        match self {
            Trouble::Disk(image) => {
                weather.disk.begin();
                image.fill();
            }
            Trouble::Network(proxy) => {
                weather.store.begin();
                match rng.random_range(0..5) {
                    0 => proxy.unplug(),
                    1 => proxy.silence(),
                    2 => proxy.cut(),
                    3 => proxy.lose_answer(),
                    _ => proxy.delay(Duration::from_millis(rng.random_range(1..20))),
                }
            }
        }
    }

    fn end(&self, weather: &Weather) {
        match self {
            Trouble::Disk(image) => {
                image.free();
                weather.disk.end();
            }
            Trouble::Network(proxy) => {
                proxy.mend();
                weather.store.end();
            }
        }
    }
}

pub struct Single {
    node: Node,
    mnt: PathBuf,
    trouble: Trouble,
    weather: Weather,
    /// What fsync waits for, as `--durability` says it.
    durability: &'static str,
    rng: StdRng,
    team: Team,
    rounds: u64,
    operations: u64,
    what: String,
}

impl Single {
    /// A node whose disk somebody else fills now and then.
    pub fn on_a_small_disk(seed: u64, durability: &'static str) -> Single {
        let mut node = Node::with_settings(StoreKind::Folder, &SETTINGS);
        node.stop();
        let image = Image::mount(&node.path("cache"), DISK_BYTES);
        node.start();
        let weather = Weather::default();
        weather.disk.expect();
        Single::new(node, Trouble::Disk(image), weather, durability, seed)
    }

    /// A node that works with the real store through a network of a bad kind.
    pub fn by_a_bad_network(seed: u64) -> Single {
        let endpoint = std::env::var("GRANARY_TEST_S3_ENDPOINT").expect("tools/test names the S3 server");
        let proxy = Proxy::new(endpoint.trim_start_matches("http://").trim_end_matches('/'));
        let url = proxy.url();
        let through = [("AWS_ENDPOINT_URL", url.as_str()), ("AWS_ENDPOINT_URL_S3", url.as_str())];
        // So short that requests fail, and what needs them is tried again, or is told of.
        let short = [("GRANARY_RETRY_MS_MAX", "300")];
        let settings: Vec<_> = [&SETTINGS[..], &through, &short].concat();
        let node = Node::with_settings(StoreKind::S3, &settings);
        let weather = Weather::default();
        weather.store.expect();
        Single::new(node, Trouble::Network(proxy), weather, "local", seed ^ 1)
    }

    fn new(node: Node, trouble: Trouble, weather: Weather, durability: &'static str, seed: u64) -> Single {
        let mnt = node.mount(NAMESPACE, "");
        node.ok(&["ns", "set", NAMESPACE, "--durability", durability]);
        let dirs: Vec<String> = (0..THREADS).map(|t| format!("t{t}")).collect();
        let team = Team::new(&mnt, &dirs);
        let rng = StdRng::seed_from_u64(seed);
        Single {
            node,
            mnt,
            trouble,
            weather,
            durability,
            rng,
            team,
            rounds: 0,
            operations: 0,
            what: String::new(),
        }
    }

    fn start(&mut self) {
        self.node.start();
        self.node.mount(NAMESPACE, "");
    }

    /// Works, with trouble now and then; with `kill` until the node is killed after so many operations.
    fn work(&mut self, operations: u64, kill: bool) {
        let mnt = self.mnt.as_path();
        let progress = Progress::default();
        let pid = rustix::process::Pid::from_raw(self.node.pid() as i32).expect("a process");
        let tell = |n| {
            if kill && n == operations {
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kill -9");
            }
        };
        self.team.seed(&mut self.rng);
        let enough = if kill { u64::MAX } else { operations };
        let (team, weather, trouble, rng) = (&mut self.team, &self.weather, &self.trouble, &mut self.rng);
        let failures = std::thread::scope(|scope| {
            let progress = &progress;
            let workers = scope.spawn(move || {
                let _end = progress.until_dropped();
                team.work(mnt, weather, progress, enough, tell)
            });
            let mut at = rng.random_range(0..operations);
            while progress.wait_for(at) {
                trouble.begin(weather, rng);
                progress.bear_until(at + rng.random_range(3..60));
                trouble.end(weather);
                at = progress.total() + rng.random_range(20..200);
            }
            workers.join().unwrap_or_else(|e| std::panic::resume_unwind(e))
        });
        self.operations += progress.total();
        assert_eq!(failures.is_empty(), !kill, "{}: {failures:?}", self.what);
        for failure in &failures {
            assert!(failure.is_gone(), "{}: {failure:?}\n{}", self.what, self.node.log());
        }
    }

    /// The node dies, and its disk with it, right after everything was fsynced.
    fn lose(&mut self) {
        self.team.sync(&self.mnt);
        self.node.kill();
        self.node.empty_cache();
    }

    /// Takes the node's disk away, when all is in the store.
    fn wipe(&mut self) {
        let dir = self.mnt.to_str().expect("utf-8");
        // An upload that began before may still fail.
        until("everything is in the store", || self.node.run(&["sync", dir]).code == Some(0));
        self.node.ok(&["fsck", "--data"]);
        self.node.ok(&["umount", "--drain", dir]);
        self.node.stop();
        self.node.empty_cache();
    }
}

impl Lane for Single {
    fn round(&mut self) {
        self.rounds += 1;
        let mut end =
            [End::Kill, End::Kill, End::Kill, End::Stop, End::Wipe, End::Lose][self.rng.random_range(0..6)];
        if end == End::Lose && self.durability != "object" {
            end = End::Kill;
        }
        let operations = self.rng.random_range(30..600);
        self.what = format!("{}, round {}: {end:?} after {operations}", self.node.store_url(), self.rounds);
        println!("{}", self.what);
        self.work(operations, end == End::Kill);
        if end == End::Kill {
            self.node.wait();
            self.start();
            return self.team.recover(&self.mnt, &self.what);
        }
        self.team.compare(&self.mnt, &self.what);
        match end {
            End::Wipe => self.wipe(),
            End::Lose => self.lose(),
            _ => self.node.stop(),
        }
        self.start();
        self.team.compare(&self.mnt, &format!("{}, afterwards", self.what));
        self.team.promise();
    }

    fn end(mut self) -> u64 {
        self.wipe();
        self.start();
        self.team.compare(&self.mnt, "in the end, from the store alone");
        self.team.clear(&self.mnt);
        self.node.ok(&["ns", "set", NAMESPACE, "--trash", "0"]);
        self.node.sync(&self.mnt);
        store::is_empty_after(self.node.store_url(), || self.node.ok(&["gc", "--delete", "--grace", "0s"]));
        self.node.umount(&self.mnt);
        self.node.stop();
        self.operations
    }
}
