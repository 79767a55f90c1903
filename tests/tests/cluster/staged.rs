//! Bytes that are not in the store yet are read from the node that has them; when it is gone, the error says so, soon.

use std::fs;
use std::time::{Duration, Instant};

use granary_tests::{Cluster, fill, read_tree, seed};

/// Nothing leaves for the store by itself.
const NEVER: [(&str, &str); 2] =
    [("GRANARY_SMALL_PERIOD_MS", "3600000"), ("GRANARY_LARGE_PERIOD_MS", "3600000")];

#[test]
fn another_nodes_staged_bytes_are_read_from_it() {
    let cluster = Cluster::with_settings(2, &NEVER);
    let mounts = cluster.mount("");
    fill(&mounts[0], seed(), 200, 20_000);
    fs::write(mounts[0].join("large.bin"), vec![7; 20 << 20]).expect("write");
    let here = read_tree(&mounts[0]);
    assert!(here == read_tree(&mounts[1]), "the tree differs on the other node");
    // A file of which each node has a part.
    fs::write(mounts[1].join("both"), vec![1; 30_000]).expect("write");
    let file = fs::OpenOptions::new().write(true).open(mounts[0].join("both")).expect("open");
    std::os::unix::fs::FileExt::write_all_at(&file, &[2; 10_000], 10_000).expect("write");
    drop(file);
    let expected = [vec![1; 10_000], vec![2; 10_000], vec![1; 10_000]].concat();
    for mount in &mounts {
        assert!(fs::read(mount.join("both")).expect("read") == expected);
    }
}

/// The bound on one read whose bytes are on a node that is gone: the end of its lease, 5 s of asking, and room for a busy machine.
const READ_MAX: Duration = Duration::from_secs(60);

#[test]
#[allow(clippy::disallowed_methods)] // a bound, not a measurement
fn a_node_that_is_gone_makes_an_error_that_names_it_and_never_zeros() {
    let mut cluster = Cluster::with_settings(2, &NEVER);
    let mounts = cluster.mount("");
    for i in 0..4 {
        fs::write(mounts[0].join(format!("f{i}")), vec![i + 1; 50_000]).expect("write");
        fs::File::open(mounts[0].join(format!("f{i}"))).and_then(|f| f.sync_all()).expect("fsync");
    }
    assert!(fs::read(mounts[1].join("f0")).expect("read") == vec![1; 50_000]);
    // Killed while the other reads: what it gets is right, or an error.
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            for i in (0..4).cycle() {
                match fs::read(mounts[1].join(format!("f{i}"))) {
                    Ok(bytes) => assert!(bytes == vec![i + 1; 50_000], "f{i} holds other bytes"),
                    Err(e) => return e,
                }
                granary_tests::drop_page_cache();
            }
            unreachable!("it goes round for ever")
        });
        cluster.nodes[0].kill();
        let e = reader.join().expect("the reader");
        assert_eq!(e.raw_os_error(), Some(libc::EIO), "{e}");
    });
    let start = Instant::now();
    fs::read(mounts[1].join("f3")).expect_err("its bytes are on the node that is gone");
    assert!(start.elapsed() < READ_MAX, "{:?}", start.elapsed());
    let log = cluster.nodes[1].log();
    assert!(log.contains("start granary there"), "the log does not say what to do:\n{log}");
    // What is not on that node goes on, and it comes back with all it had.
    fs::write(mounts[1].join("here"), "mine").expect("write");
    cluster.nodes[0].start();
    cluster.nodes[0].mount("group/team", "");
    for i in 0..4 {
        assert!(fs::read(mounts[1].join(format!("f{i}"))).expect("read") == vec![i + 1; 50_000]);
    }
    assert_eq!(fs::read_to_string(mounts[0].join("here")).expect("read"), "mine");
}
