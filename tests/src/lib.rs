//! What whole-system tests are made of: a real node process with its own directories, real mounts, real stores.
//!
//! Every [`Node`] has a directory of its own for metadata, cache, socket, store and mountpoints, and takes all of it
//! down when dropped, also when the test failed. Needs root and `/dev/fuse`; says so when they are missing.

use std::io::Read;

mod cluster;
mod image;
mod kept;
mod launcher;
mod locker;
mod mapping;
mod model;
mod node;
mod port;
mod program;
mod proxy;
mod service;
mod small_disk;
mod staying;
mod steady;
mod tree;
mod weather;
mod worker;

pub use cluster::Cluster;
pub use image::Image;
pub use kept::Kept;
pub use launcher::{Started, apart, start, start_logged, start_with};
pub use locker::Locker;
pub use model::{Entry, Found, Model, read};
pub use node::{Node, StoreKind, drop_page_cache};
pub use port::Port;
pub use program::{Output, run, run_ok, until, until_within};
pub use proxy::Proxy;
pub use service::Service;
pub use small_disk::SmallDisk;
pub use staying::Staying;
pub use steady::{Rounds, Steady, pattern};
pub use tree::{Tree, fill, read_tree};
pub use weather::{Outage, Weather};
pub use worker::{Failure, Worker};

/// A seed that is printed, so that a failure can be had again: `GRANARY_TEST_SEED` sets it.
pub fn seed() -> u64 {
    let seed = match std::env::var("GRANARY_TEST_SEED") {
        Ok(text) => text.parse().expect("GRANARY_TEST_SEED is a number"),
        Err(_) => {
            let mut bytes = [0; 8];
            std::fs::File::open("/dev/urandom")
                .and_then(|mut f| f.read_exact(&mut bytes))
                .expect("random bytes");
            u64::from_le_bytes(bytes)
        }
    };
    println!("seed: GRANARY_TEST_SEED={seed}");
    seed
}
