//! `granary pack` killed at random moments and run again, until it ends by itself: what it leaves is what one run makes, and of the
//! source nothing is deleted that the data set does not give back. `GRANARY_TEST_SEED=N` repeats a run's moments; each failure
//! prints its seed.

#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, UNIX_EPOCH};

use common::World;
use common::s3::{Moment, S3};
use granary_core::{Clock, Failpoint, SystemClock};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

/// Packs that are killed and go on, in each test.
const ROUNDS: u64 = 6;
/// Kills of one pack; then it may end.
const KILLS_MAX: u32 = 40;

type Tree = BTreeMap<String, Vec<u8>>;

/// A seed for a round: of the environment, or of the clock.
fn seed(round: u64) -> u64 {
    match std::env::var("GRANARY_TEST_SEED") {
        Ok(text) => text.parse().expect("GRANARY_TEST_SEED is a number"),
        Err(_) => u64::from(SystemClock.now().nanos) << 8 | round,
    }
}

/// Small samples in several directories, and a file of several segments. The same each time, times too.
fn fill(root: &Path) {
    let time = |path: &Path| {
        let file = fs::File::open(path).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(1_700_000_000)).unwrap();
    };
    for n in 0..80u64 {
        let dir = root.join(format!("{:02}", n % 4));
        fs::create_dir_all(&dir).unwrap();
        for (extension, len) in [("jpg", 500 + n * 311 % 9_000), ("cls", 3)] {
            let path = dir.join(format!("{n:04}.{extension}"));
            fs::write(&path, (0..len).map(|i| (i * n + i / 251) as u8).collect::<Vec<_>>()).unwrap();
            time(&path);
        }
    }
    fs::write(root.join("large.bin"), (0..3_000_000u32).map(|i| (i / 999) as u8).collect::<Vec<_>>())
        .unwrap();
    time(&root.join("large.bin"));
    (0..4).for_each(|n| time(&root.join(format!("{n:02}"))));
}

/// Files below a folder, with their bytes.
fn files(root: &Path) -> Tree {
    let (mut all, mut dirs) = (Tree::new(), vec![root.to_owned()]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => dirs.push(path),
                false => {
                    let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                    all.insert(name, fs::read(&path).unwrap());
                }
            }
        }
    }
    all
}

/// What a data set is, without what is left over while it is written.
fn data_set(of: Tree) -> Tree {
    of.into_iter().filter(|(name, _)| name.starts_with("shards/") || name.starts_with("manifests/")).collect()
}

fn pack(w: &World, src: &str, to: &str, more: &[&str]) -> Command {
    let src = w.path(src);
    let mut line = vec!["pack", "--threads", "2", "--shard-size", "128KiB", "--shuffle", "--seed", "7"];
    line.extend(more);
    line.extend([src.to_str().unwrap(), to]);
    let mut command = w.command(&line);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Whether it ended by itself within this time.
fn ends_within(child: &Child, time: Duration) -> bool {
    let process = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).unwrap();
    let time = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) };
    poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&time)).unwrap() > 0
}

/// Where a data set is, and how it is looked at.
struct Target<'a> {
    w: &'a World,
    to: String,
    now: Box<dyn Fn() -> Tree + 'a>,
}

impl Target<'_> {
    /// Nothing that has a name is half, and what is gone from the source comes back from here.
    fn check(&self, whole: &Tree, src: &str, all: &Tree, of: &str) {
        let now = data_set((self.now)());
        for (name, bytes) in &now {
            assert!(whole.get(name) == Some(bytes), "{of}: {name} is not what one run makes");
        }
        let left = files(&self.w.path(src));
        let gone: Vec<&String> = all.keys().filter(|name| !left.contains_key(*name)).collect();
        if gone.is_empty() {
            return;
        }
        let tree = self.w.path(&format!("{src}-back"));
        self.w.run(&["unpack", &self.to, tree.to_str().unwrap()]).unwrap_ok();
        let back = files(&tree);
        for name in gone {
            assert!(
                back.get(name) == all.get(name),
                "{of}: {name} was deleted, and the data set does not have it"
            );
        }
        fs::remove_dir_all(tree).unwrap();
    }

    /// The pack has ended by itself.
    fn check_whole(&self, whole: &Tree, src: &str, deletes: bool, of: &str) {
        assert!(data_set((self.now)()) == *whole, "{of}: other bytes than one run makes");
        let left = files(&self.w.path(src)).len();
        assert_eq!(left == 0, deletes, "{of}: {left} files are in the source");
    }
}

/// As it is run again: what was deleted before the kill is no reason to refuse.
fn more(deletes: bool) -> &'static [&'static str] {
    if deletes { &["--append", "--delete-source"] } else { &[] }
}

#[test]
fn into_a_folder_killed_after_any_time() {
    let w = World::empty();
    fill(&w.path("src"));
    let all = files(&w.path("src"));
    let text = |name: &str| w.path(name).to_str().unwrap().to_owned();
    let began = SystemClock.monotonic();
    assert!(pack(&w, "src", &text("whole"), &["--verify"]).status().unwrap().success());
    let took = SystemClock.monotonic() - began;
    let whole = data_set(files(&w.path("whole")));
    assert!(whole.len() > 8, "several shards");
    let mut kills = 0;
    for round in 0..ROUNDS {
        let seed = seed(round);
        let mut random = StdRng::seed_from_u64(seed);
        let deletes = round % 2 == 1;
        let (src, of) = (format!("src-{round}"), format!("seed {seed}, round {round}"));
        fill(&w.path(&src));
        let to = w.path(&format!("dst-{round}"));
        let target = Target { w: &w, to: text(&format!("dst-{round}")), now: Box::new(|| files(&to)) };
        for kill in 0.. {
            let mut command = pack(&w, &src, &target.to, more(deletes));
            if kill == 0 {
                // The first by itself, at a place that each pack comes to: however fast this machine has become, each round has one.
                let places =
                    Failpoint::ALL.iter().filter(|p| !p.is_of_node() && **p != Failpoint::PackAfterDelete);
                let places: Vec<_> = places.collect();
                let place = places[random.random_range(0..places.len())].name();
                let ended = command.env("GRANARY_FAILPOINTS", format!("{place}=abort")).output().unwrap();
                assert_eq!(ended.status.signal(), Some(9), "{of}, at {place}: {ended:?}");
                kills += 1;
                target.check(&whole, &src, &all, &of);
                continue;
            }
            let mut child = command.spawn().unwrap();
            let moment = took.mul_f64(random.random_range(0.0..1.1));
            if kill == KILLS_MAX || ends_within(&child, moment) {
                let output = child.wait_with_output().unwrap();
                let err = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{of}: {err}");
                break;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            kills += 1;
            target.check(&whole, &src, &all, &of);
        }
        target.check_whole(&whole, &src, deletes, &of);
    }
    assert!(kills >= ROUNDS as u32, "only {kills} kills in {ROUNDS} rounds");
}

/// Kills the process at its `at`th request, before or after that is done; the process is told later.
fn kill_at(bucket: &S3, at: u32, moment: Moment) -> mpsc::Sender<Pid> {
    let (tell, told) = mpsc::channel();
    let mut left = at;
    bucket.hook(move |now, _, _| {
        if now == moment && left > 0 {
            left -= 1;
            if left == 0
                && let Ok(pid) = told.recv()
            {
                kill_process(pid, Signal::KILL).unwrap();
            }
        }
    });
    tell
}

#[test]
fn into_a_bucket_killed_at_any_request() {
    let bucket = S3::start();
    let w = World::empty().with_bucket(&bucket);
    fill(&w.path("src"));
    let all = files(&w.path("src"));
    let (tell, told) = mpsc::channel();
    bucket.hook(move |moment, _, _| {
        if moment == Moment::Before {
            tell.send(()).unwrap();
        }
    });
    assert!(pack(&w, "src", "s3://b/whole", &["--verify"]).status().unwrap().success());
    bucket.unhook();
    let requests = told.iter().count() as u32;
    let whole = data_set(bucket.below("b/whole/"));
    assert!(whole.len() > 8 && requests > 20, "{} objects by {requests} requests", whole.len());
    let mut kills = 0;
    for round in 0..ROUNDS {
        let seed = seed(round);
        let mut random = StdRng::seed_from_u64(seed);
        let deletes = round % 2 == 1;
        let (src, of) = (format!("src-{round}"), format!("seed {seed}, round {round}"));
        fill(&w.path(&src));
        let prefix = format!("b/dst-{round}/");
        let now = Box::new(|| bucket.below(&prefix));
        let target = Target { w: &w, to: format!("s3://b/dst-{round}"), now };
        for kill in 0..=KILLS_MAX {
            // The first early, since without `--verify` there are fewer: each round has one.
            let at = random.random_range(1..=if kill == 0 { 8 } else { requests });
            let moment = if random.random() { Moment::Before } else { Moment::After };
            let tell = kill_at(&bucket, if kill == KILLS_MAX { 0 } else { at }, moment);
            let child = pack(&w, &src, &target.to, more(deletes)).spawn().unwrap();
            let _never_asked = tell.send(Pid::from_child(&child));
            let output = child.wait_with_output().unwrap();
            bucket.unhook();
            if output.status.signal() != Some(9) {
                assert!(output.status.success(), "{of}: {}", String::from_utf8_lossy(&output.stderr));
                break;
            }
            kills += 1;
            target.check(&whole, &src, &all, &of);
        }
        target.check_whole(&whole, &src, deletes, &of);
    }
    assert!(kills >= ROUNDS as u32, "only {kills} kills in {ROUNDS} rounds");
}

#[test]
fn an_upload_in_parts_that_was_killed_is_made_again() {
    let bucket = S3::start();
    let w = World::empty().with_bucket(&bucket);
    fs::create_dir(w.path("src")).unwrap();
    let large: Vec<u8> = (0..70u32 << 20).map(|n| (n / 4099) as u8).collect();
    fs::write(w.path("src/large.bin"), large).unwrap();
    let seed = seed(0);
    let mut random = StdRng::seed_from_u64(seed);
    let src = w.path("src");
    let line = ["pack", "--threads", "2", "--shard-size", "1GiB", src.to_str().unwrap(), "s3://b/dst"];
    // The third request and later ones: the parts of 16 MiB begin then.
    let at = random.random_range(4..8);
    let tell = kill_at(&bucket, at, Moment::After);
    let child = w.command(&line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    tell.send(Pid::from_child(&child)).unwrap();
    let ended = child.wait_with_output().unwrap();
    bucket.unhook();
    assert_eq!(ended.status.signal(), Some(9), "seed {seed}, request {at}: {ended:?}");
    assert!(bucket.below("b/dst/manifests/").is_empty(), "seed {seed}, request {at}");
    w.run(&line).unwrap_ok();
    let here = w.path("here");
    w.run(&[&line[..6], &[here.to_str().unwrap()]].concat()).unwrap_ok();
    assert!(data_set(bucket.below("b/dst/")) == data_set(files(&here)), "seed {seed}, request {at}");
}
