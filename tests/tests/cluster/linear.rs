//! One step after another, each on a random node: every other node sees it at once, by name, stat, listing and bytes.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use granary_tests::{Cluster, run_ok, seed};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::model::Model;

/// Steps of a short run; `GRANARY_CLUSTER_STEPS` makes it long.
fn steps() -> u32 {
    std::env::var("GRANARY_CLUSTER_STEPS").map_or(400, |n| n.parse().expect("a number of steps"))
}

fn every_node_sees_every_step(count: usize, options: &str) {
    let cluster = Cluster::new(count);
    let mounts = cluster.mount(options);
    let mut rng = StdRng::seed_from_u64(seed());
    let mut model = Model::default();
    for step in 0..steps() {
        let at = rng.random_range(0..count);
        let touched = model.step(&mounts[at], &mut rng);
        // One other node, so that what the rest keeps grows old.
        let other = rng.random_range(0..count);
        for path in touched {
            model.check_path(&mounts[other], &path, &format!("step {step}: node {at} did, node {other}"));
        }
        if step % 100 == 99 {
            for (node, mount) in mounts.iter().enumerate() {
                model.check(mount, &format!("step {step}: node {node}"));
            }
        }
    }
    // And from the store alone.
    cluster.nodes.iter().zip(&mounts).for_each(|(node, mount)| node.sync(mount));
    for (node, mount) in mounts.iter().enumerate() {
        model.check(mount, &format!("at the end: node {node}"));
    }
}

#[test]
fn two_nodes_in_work_mode() {
    every_node_sees_every_step(2, "");
}

#[test]
fn three_nodes_in_work_mode() {
    every_node_sees_every_step(3, "");
}

#[test]
fn two_nodes_in_data_mode() {
    every_node_sees_every_step(2, "rw,mode=data");
}

#[test]
fn one_node_in_each_mode() {
    let cluster = Cluster::new(2);
    let work = cluster.nodes[0].mount("group/team", "rw,mode=work");
    let data = cluster.nodes[1].mount("group/team", "rw,mode=data");
    let mut rng = StdRng::seed_from_u64(seed());
    let mut model = Model::default();
    for step in 0..steps() {
        let (here, there) = if step % 2 == 0 { (&work, &data) } else { (&data, &work) };
        for path in model.step(here, &mut rng) {
            model.check_path(there, &path, &format!("step {step}"));
        }
    }
}

/// Files that stay open on both nodes, and are mapped: what one writes, the other reads through what it has open.
#[test]
fn open_files_and_mappings_see_it_too() {
    for options in ["", "rw,mode=data"] {
        let cluster = Cluster::new(2);
        let mounts = cluster.mount(options);
        for (name, size) in [("small", 10_000_usize), ("large.bin", 3 << 20)] {
            fs::write(mounts[0].join(name), vec![0; size]).expect("write");
            let open = |dir: &PathBuf| {
                fs::OpenOptions::new().read(true).write(true).open(dir.join(name)).expect("open")
            };
            let files = [open(&mounts[0]), open(&mounts[1])];
            let mut buf = vec![0; size];
            for round in 1..60_u8 {
                let (here, there) = (usize::from(round % 2), usize::from(round % 2 == 0));
                let at = usize::from(round) * 97 % (size - 600);
                files[here].write_all_at(&[round; 600], at as u64).expect("write");
                files[there].read_exact_at(&mut buf, 0).expect("read");
                assert!(buf[at..at + 600] == [round; 600], "{options} {name}: round {round} is not seen");
            }
            // A reader that maps it, in a process of its own.
            let script = r#"
python3 - "$1" "$2" <<'P'
import mmap, sys
here, there = open(sys.argv[1], 'r+b', buffering=0), open(sys.argv[2], 'r+b', buffering=0)
a, b = mmap.mmap(here.fileno(), 0), mmap.mmap(there.fileno(), 0)
for n in range(1, 60):
    at = n * 101 % (len(a) - 8)
    b[at]                                      # the page is there
    if n % 2: here.seek(at); here.write(b'%08d' % n)
    else: a[at:at + 8] = b'%08d' % n; a.flush()
    assert b[at:at + 8] == b'%08d' % n, (n, b[at:at + 8])
P"#;
            run_ok(script, &[mounts[0].join(name), mounts[1].join(name)]);
        }
    }
}
