//! Bytes of shards, asked of the store.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use granary_core::Result;

use crate::source::Home;

/// Bytes of a data set's shards.
#[async_trait]
pub(crate) trait Ranges: Send + Sync + Debug {
    /// Exactly these bytes.
    async fn get(&self, shard: u32, range: Range<u64>) -> Result<Bytes>;

    /// Bytes of this range were not what they should be: what is kept of it is given up.
    fn forget(&self, shard: u32, range: Range<u64>);
}

/// Right from the store, or the node.
#[derive(Debug)]
pub(crate) struct Direct {
    home: Arc<Home>,
    /// A longer range is asked for in parts, side by side.
    part_bytes: u64,
}

impl Direct {
    pub fn new(home: Arc<Home>, part_bytes: u64) -> Direct {
        Direct { home, part_bytes }
    }
}

#[async_trait]
impl Ranges for Direct {
    async fn get(&self, shard: u32, range: Range<u64>) -> Result<Bytes> {
        let (path, place) = (&self.home.data().shard(shard)?.path, self.home.data().place());
        let len = range.end - range.start;
        if len <= self.part_bytes {
            return place.get(path, range).await;
        }
        let parts = len.div_ceil(self.part_bytes);
        let cut = |part: u64| range.start + part * len / parts;
        let parts = (0..parts).map(|part| place.get(path, cut(part)..cut(part + 1)));
        let mut all = BytesMut::with_capacity(len as usize);
        for part in futures::future::try_join_all(parts).await? {
            all.extend_from_slice(&part);
        }
        Ok(all.freeze())
    }

    fn forget(&self, shard: u32, range: Range<u64>) {
        self.home.doubt(shard, range);
    }
}
