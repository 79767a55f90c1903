//! A network that delays, loses answers, is cut and goes silent, and a service that is killed, all amid work: programs see a
//! pause, nothing is done twice, nothing is lost. A node that is silent for too long is fenced, and says so.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use granary_tests::{Cluster, Locker, seed, until};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::model::Model;

/// Runs the model on all nodes, one step after another, while `disturb` is called again and again, given the count of steps done.
fn model_under(
    cluster: &mut Cluster,
    steps: u64,
    disturb: impl Fn(&mut Cluster, &mut StdRng, &dyn Fn(u64)) + Sync,
) {
    let mounts = cluster.mount("");
    let seed = seed();
    let (done, count) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let (done, count, mounts) = (&done, &count, &mounts);
        let worker = scope.spawn(move || {
            // Also when a check fails: the one who disturbs waits for it.
            let _end = OnDrop(|| done.store(true, Ordering::SeqCst));
            let mut rng = StdRng::seed_from_u64(seed);
            let mut model = Model::default();
            for step in 0..steps {
                let (at, other) = (rng.random_range(0..mounts.len()), rng.random_range(0..mounts.len()));
                for path in model.step(&mounts[at], &mut rng) {
                    model.check_path(&mounts[other], &path, &format!("step {step}: {at} did, {other}"));
                }
                count.fetch_add(1, Ordering::SeqCst);
            }
            model
        });
        // Returns after so many steps, or when all are done.
        let work = |steps: u64| {
            let target = count.load(Ordering::SeqCst) + steps;
            until("the model's steps", || {
                count.load(Ordering::SeqCst) >= target || done.load(Ordering::SeqCst)
            });
        };
        let mut rng = StdRng::seed_from_u64(seed ^ 1);
        while !done.load(Ordering::SeqCst) {
            disturb(cluster, &mut rng, &work);
        }
        cluster.proxies.iter().for_each(|p| p.mend());
        let model = worker.join().expect("the model");
        for (node, mount) in mounts.iter().enumerate() {
            model.check(mount, &format!("at the end: node {node}"));
        }
    });
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[test]
fn a_network_that_loses_delays_and_cuts() {
    let mut cluster = Cluster::new(2);
    model_under(&mut cluster, 500, |cluster, rng, work| {
        let at = rng.random_range(0..2);
        let (node, proxy) = (&cluster.nodes[at], &cluster.proxies[at]);
        match rng.random_range(0..4) {
            0 => proxy.delay(Duration::from_millis(rng.random_range(1..15))),
            1 => proxy.lose_answer(),
            2 => proxy.cut(),
            _ => {
                proxy.unplug();
                // The node answers all the same, and the network is back before anybody's lease ends.
                assert!(node.get("/v1/status").starts_with("HTTP/1.1 200"));
                proxy.mend();
            }
        }
        work(rng.random_range(1..12));
        proxy.mend();
    });
    // And one that is asked for surely, whatever the disturbances met.
    let before: u64 = cluster.proxies.iter().map(|p| p.lost_answers()).sum();
    println!("{before} answers lost");
    let dir = cluster.nodes[0].path("mnt-group-team").join("made-once");
    cluster.proxies[0].lose_answer();
    fs::create_dir(&dir).expect("what is asked again is not done twice");
    assert_eq!(cluster.proxies.iter().map(|p| p.lost_answers()).sum::<u64>(), before + 1);
}

#[test]
fn the_service_is_killed_and_restarted_amid_work() {
    let mut cluster = Cluster::new(2);
    model_under(&mut cluster, 300, |cluster, rng, work| {
        work(rng.random_range(5..40));
        if rng.random() {
            cluster.service.kill();
        } else {
            cluster.service.stop();
        }
        cluster.service.start();
    });
}

/// The process that starts the service anew has a file open whose last writes wait for it.
#[test]
fn a_process_with_files_to_flush_starts_the_service() {
    let mut cluster = Cluster::new(1);
    let path = cluster.mount("")[0].join("f");
    let mut file = fs::File::create(&path).expect("create");
    std::io::Write::write_all(&mut file, b"written").expect("write");
    cluster.service.stop();
    cluster.service.start();
    drop(file);
    assert_eq!(fs::read(&path).expect("read"), b"written");
}

/// A network that is silent for longer than the lease: others go on, and what the silent node writes afterwards on its old
/// handles is refused; `status` says so; opened anew, all is well.
#[test]
fn a_silent_node_is_fenced_and_says_so() {
    let cluster = Cluster::new(2);
    let mounts = cluster.mount("");
    fs::write(mounts[0].join("f"), "before").expect("write");
    let held = fs::OpenOptions::new().write(true).open(mounts[0].join("f")).expect("open");
    let write = |text: &[u8]| std::os::unix::fs::FileExt::write_all_at(&held, text, 0);
    write(b"BEFORE").expect("write");
    held.sync_all().expect("fsync");
    cluster.proxies[0].silence();
    // Waits for the end of the silent node's lease, and no longer.
    fs::write(mounts[1].join("f"), "after").expect("the other goes on");
    assert_eq!(fs::read_to_string(mounts[1].join("f")).expect("read"), "after");
    cluster.proxies[0].mend();
    until("the fenced node is told", || fs::read_to_string(mounts[0].join("f")).is_ok_and(|t| t == "after"));
    let refused = write(b"STALE!").and_then(|()| held.sync_all()).expect_err("its session is over");
    assert_eq!(refused.raw_os_error(), Some(libc::EIO), "{refused}");
    let other = fs::File::open(mounts[0].join("f")).expect("open");
    let ways = [
        ("ftruncate", held.set_len(0).map_err(|e| e.raw_os_error())),
        (
            "fallocate",
            rustix::fs::fallocate(&held, rustix::fs::FallocateFlags::empty(), 0, 99)
                .map_err(|e| Some(e.raw_os_error())),
        ),
        (
            "copy_file_range",
            rustix::fs::copy_file_range(&other, None, &held, Some(&mut 50), 5)
                .map(|_| ())
                .map_err(|e| Some(e.raw_os_error())),
        ),
        (
            "flock",
            rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive)
                .map_err(|e| Some(e.raw_os_error())),
        ),
    ];
    for (way, result) in ways {
        assert_eq!(result, Err(Some(libc::EIO)), "{way} through a file of the session that was ended");
    }
    for mount in &mounts {
        assert_eq!(fs::read_to_string(mount.join("f")).expect("read"), "after");
    }
    let status = cluster.nodes[0].status().to_string();
    assert!(status.contains("fenced"), "{status}");
    fs::write(mounts[0].join("f"), "anew").expect("a new session");
    assert_eq!(fs::read_to_string(mounts[1].join("f")).expect("read"), "anew");
}

/// The same when nobody needs what the silent node has: its leases end and nothing else. It keeps its locks and open files, what
/// it held back is committed, and it sees what others did.
#[test]
fn a_silent_node_that_nobody_missed_goes_on() {
    let cluster = Cluster::new(2);
    let mounts = cluster.mount("");
    fs::create_dir(mounts[0].join("mine")).expect("mkdir");
    fs::create_dir(mounts[1].join("theirs")).expect("mkdir");
    let path = mounts[0].join("mine/file");
    let mut locker = Locker::with(&path);
    locker.is("posix f ex 0 0", "ok");
    let file = fs::OpenOptions::new().read(true).write(true).open(&path).expect("open");
    let write = |text: &[u8], at| std::os::unix::fs::FileExt::write_all_at(&file, text, at);
    write(b"before ", 0).expect("write");
    file.sync_all().expect("fsync");
    let session = |i: usize| cluster.nodes[i].status()["service"]["session"].clone();
    let before = session(0);
    cluster.proxies[0].silence();
    fs::write(mounts[1].join("theirs/new"), "of the other").expect("the other goes on");
    until("the silent node gives its connection up", || {
        cluster.nodes[0].status()["service"]["connected"] == serde_json::Value::Bool(false)
    });
    cluster.proxies[0].mend();
    write(b"after", 7).expect("write");
    file.sync_all().expect("fsync");
    assert_eq!(fs::read_to_string(mounts[0].join("theirs/new")).expect("read"), "of the other");
    assert_eq!(session(0), before, "its session goes on");
    let mut other = Locker::with(&mounts[1].join("mine/file"));
    other.is("posix f sh 0 1 nb", "EAGAIN");
    assert_eq!(fs::read_to_string(mounts[1].join("mine/file")).expect("read"), "before after");
    locker.is("close f", "ok");
    other.is("posix f sh 0 1 nb", "ok");
}

/// Unlinked while it is open on another node: it lives there until its last close, also across a restart of the service.
#[test]
fn an_unlinked_file_lives_while_another_node_has_it_open() {
    for options in ["", "rw,mode=data"] {
        unlinked_while_open(options);
    }
}

fn unlinked_while_open(options: &str) {
    let mut cluster = Cluster::new(2);
    let mounts = cluster.mount(options);
    let bytes = vec![9; 300_000];
    fs::write(mounts[0].join("f"), &bytes).expect("write");
    let held = fs::File::open(mounts[1].join("f")).expect("open");
    fs::remove_file(mounts[0].join("f")).expect("unlink");
    assert!(!mounts[1].join("f").exists());
    let read = |what: &str| {
        let mut found = vec![0; bytes.len()];
        std::os::unix::fs::FileExt::read_exact_at(&held, &mut found, 0)
            .unwrap_or_else(|e| panic!("{options} {what}: {e}"));
        assert!(found == bytes, "{options} {what}");
    };
    read("after the unlink");
    cluster.service.kill();
    cluster.service.start();
    read("after the service's restart");
    cluster.nodes.iter().zip(&mounts).for_each(|(node, mount): (_, &std::path::PathBuf)| node.sync(mount));
    granary_tests::drop_page_cache();
    read("from the store");
}

/// A directory's files are safe when the node that made them is gone for good, once they are in the store.
#[test]
fn what_is_in_the_store_outlives_its_node() {
    let mut cluster = Cluster::new(2);
    let mounts = cluster.mount("");
    let make = |root: &Path| {
        for i in 0..50 {
            fs::write(root.join(format!("f{i}")), vec![i; 10_000]).expect("write");
        }
    };
    make(&mounts[0]);
    cluster.nodes[0].sync(&mounts[0]);
    cluster.nodes[0].kill();
    for i in 0..50 {
        assert!(fs::read(mounts[1].join(format!("f{i}"))).expect("read") == vec![i; 10_000]);
    }
    make(&mounts[1]);
}
