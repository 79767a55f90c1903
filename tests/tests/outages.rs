//! The real store goes away in the middle of work, in every way a network has, again and again: programs do not notice, and
//! nothing is lost.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use granary_tests::{Node, Proxy, StoreKind, seed, until};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

const OUTAGES: u64 = 50;
const FILES: u64 = 40;

type Files = BTreeMap<String, Vec<u8>>;

/// One thing that a program does; `files` is what must be there after it.
fn step(dir: &Path, rng: &mut StdRng, files: &mut Files) {
    let name = format!("f{}", rng.random_range(0..FILES));
    let path = dir.join(&name);
    match rng.random_range(0..10) {
        0..4 => {
            // Seldom a large one, which becomes blocks.
            let len = if rng.random_range(0..12) == 0 { 3 << 20 } else { rng.random_range(0..200_000) };
            let mut bytes = vec![0; len];
            rng.fill_bytes(&mut bytes);
            fs::write(&path, &bytes).expect("write");
            if rng.random() {
                fs::File::open(&path).and_then(|f| f.sync_all()).expect("fsync");
            }
            files.insert(name, bytes);
        }
        4..6 => {
            let Some(content) = files.get_mut(&name).filter(|c| !c.is_empty()) else { return };
            let mut part = vec![0; rng.random_range(1..5000)];
            rng.fill_bytes(&mut part);
            let at = rng.random_range(0..content.len());
            let file = fs::OpenOptions::new().write(true).open(&path).expect("open");
            file.write_all_at(&part, at as u64).expect("pwrite");
            content.resize(content.len().max(at + part.len()), 0);
            content[at..at + part.len()].copy_from_slice(&part);
        }
        6..7 => {
            if files.remove(&name).is_some() {
                fs::remove_file(&path).expect("unlink");
            }
        }
        _ => {
            // It is on the node, in the stage or in the cache of what was uploaded.
            let Some(content) = files.get(&name) else { return };
            assert!(fs::read(&path).expect("read") == *content, "{name} differs");
        }
    }
}

fn compare(dir: &Path, files: &Files, when: &str) {
    let mut names: Vec<String> = fs::read_dir(dir)
        .expect("readdir")
        .map(|e| e.expect("entry").file_name().into_string().expect("utf-8"))
        .collect();
    names.sort();
    assert!(names.iter().eq(files.keys()), "{when}: {names:?}, not {:?}", files.keys());
    for (name, content) in files {
        assert!(fs::read(dir.join(name)).expect("read") == *content, "{when}: {name} differs");
    }
}

fn synced(node: &Node, dir: &Path) -> bool {
    node.run(&["sync", dir.to_str().expect("utf-8")]).code == Some(0)
}

#[test]
fn a_store_that_comes_and_goes_loses_nothing() {
    let seed = seed();
    let endpoint = std::env::var("GRANARY_TEST_S3_ENDPOINT").expect("tools/test names the S3 server");
    let proxy = Proxy::new(endpoint.trim_start_matches("http://").trim_end_matches('/'));
    let url = proxy.url();
    let settings = [
        ("AWS_ENDPOINT_URL", url.as_str()),
        ("AWS_ENDPOINT_URL_S3", url.as_str()),
        ("GRANARY_SMALL_PERIOD_MS", "20"),
        ("GRANARY_LARGE_PERIOD_MS", "40"),
        // So short that uploads fail, and the drain has to try them again.
        ("GRANARY_RETRY_MS_MAX", "50"),
    ];
    let mut node = Node::with_settings(StoreKind::S3, &settings);
    let mut dir = node.mount("user/alice", "");
    let (done, steps) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut files = std::thread::scope(|scope| {
        let (dir, done, steps) = (&dir, &done, &steps);
        let worker = scope.spawn(move || {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut files = Files::new();
            while !done.load(Ordering::SeqCst) {
                step(dir, &mut rng, &mut files);
                steps.fetch_add(1, Ordering::SeqCst);
            }
            files
        });
        let work = |count: u64| {
            let target = steps.load(Ordering::SeqCst) + count;
            until("the work goes on", || steps.load(Ordering::SeqCst) >= target || worker.is_finished());
        };
        let mut rng = StdRng::seed_from_u64(seed ^ 1);
        for outage in 0..OUTAGES {
            match rng.random_range(0..5) {
                0 => proxy.unplug(),
                1 => proxy.silence(),
                2 => proxy.cut(),
                3 => proxy.lose_answer(),
                _ => proxy.delay(Duration::from_millis(rng.random_range(1..20))),
            }
            work(rng.random_range(5..40));
            proxy.mend();
            if outage % 5 == 4 {
                // An upload that began before may still fail.
                until("everything is in the store", || synced(&node, dir));
            }
        }
        done.store(true, Ordering::SeqCst);
        worker.join().expect("the work")
    });
    compare(&dir, &files, "after the outages");
    until("everything is in the store", || synced(&node, &dir));

    // The status tells of an outage, and that it is over.
    proxy.unplug();
    fs::write(dir.join("late"), "late").expect("write");
    files.insert("late".into(), b"late".into());
    until("the status tells of it", || node.status().to_string().contains("cannot upload"));
    proxy.mend();
    until("everything is in the store", || synced(&node, &dir));
    until("the status tells that it is over", || !node.status().to_string().contains("cannot upload"));
    node.umount(&dir);
    node.stop();
    node.empty_cache();
    node.start();
    dir = node.mount("user/alice", "");
    compare(&dir, &files, "from the store alone");
    node.umount(&dir);
    node.stop();
}
