//! Data sets of zeros in virtual time: indexes without their tars.

use std::time::Duration;

use granary_core::{Clock, Timestamp};
use granary_packer::index::{Builder, NewFile};
use granary_packer::key::Grouping;
use granary_packer::manifest::{Runs, Shard};
use granary_store::Store;

/// Tokio's time, which stands while anything can be done.
#[derive(Debug)]
pub struct VirtualClock(tokio::time::Instant);

impl VirtualClock {
    pub fn new() -> VirtualClock {
        VirtualClock(tokio::time::Instant::now())
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        let time = self.monotonic();
        Timestamp { secs: time.as_secs() as i64, nanos: time.subsec_nanos() }
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

/// The index of a shard of files of zeros of these lengths, each a sample.
pub async fn put_index(store: &dyn Store, number: u32, lengths: &[u64]) -> Shard {
    let mut builder = Builder::new(Grouping::Stem, &std::env::temp_dir());
    let zeros = vec![0; lengths.iter().copied().max().unwrap_or(0) as usize];
    let mut at = 0;
    let mut last = (0, crc32c::crc32c(b""));
    for (sample, &length) in lengths.iter().enumerate() {
        let path = format!("{number:03}-{sample:06}.npz");
        if last.0 != length {
            last = (length, crc32c::crc32c(&zeros[..length as usize]));
        }
        let (offset, crc32c) = (at + 512, last.1);
        let file =
            NewFile { path: path.as_bytes(), offset, length, crc32c, mode: 0, mtime: 0, uid: 0, gid: 0 };
        builder.push(&file).unwrap();
        at = offset + length.next_multiple_of(512);
    }
    let index = builder.seal(at).unwrap();
    let shard = Shard {
        path: format!("shards/{number:06}.tar"),
        bytes: at,
        files: lengths.len() as u32,
        samples: lengths.len() as u32,
        index_bytes: index.bytes(),
        index_crc32c: index.crc32c(),
        dead_samples: Runs::default(),
        dead_files: Runs::default(),
    };
    store.put(&shard.index_path(), vec![index.to_bytes().unwrap()]).await.unwrap();
    shard
}
