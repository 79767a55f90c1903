//! Getting samples of a bucket: few long requests for many samples, each sample as soon as its bytes are there.
//!
//! | module | what it is |
//! |---|---|
//! | `plan` | which ranges are asked for, from what is wanted |
//! | `ranges` | asking: the store, or a disk cache in front of it |
//! | `fetched` | requests under way, and the samples they bring |
//!
//! Retry, limits and hedging are the store's own ([`granary_store::production`]).

mod fetched;
mod plan;
mod ranges;

use std::collections::HashMap;
use std::sync::Arc;

use granary_core::Result;

pub(crate) use fetched::{Asked, Fetching, planned};
pub(crate) use plan::{Need, Plan, Rules, plan};
pub(crate) use ranges::{Direct, Ranges};

use crate::sample::{Files, OpenShard};
use crate::source::{Home, Want};

/// A sample that is to be fetched: where its files are.
#[derive(Debug)]
pub(crate) struct Item {
    pub want: Want,
    pub shard: Arc<OpenShard>,
    pub files: Files,
}

/// Looks samples up, each shard's index once, indexes side by side.
pub(crate) async fn items(home: &Arc<Home>, wants: &[Want]) -> Vec<Result<Item>> {
    let mut numbers: Vec<u32> = wants.iter().map(|want| want.shard).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let opened = futures::future::join_all(numbers.iter().map(|&number| home.shard(number))).await;
    let opened: HashMap<u32, Result<Arc<OpenShard>>> = numbers.into_iter().zip(opened).collect();
    let item = |want: &Want| {
        let shard = opened[&want.shard].as_ref().map_err(|e| e.duplicate())?.clone();
        let files = home.files(&shard, want)?;
        Ok(Item { want: *want, shard, files })
    };
    wants.iter().map(item).collect()
}
