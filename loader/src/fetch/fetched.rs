//! Requests under way, and the samples they bring.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use granary_core::{BytePermit, Error, Kind, Result};
use tokio_util::task::AbortOnDropHandle;

use super::plan::{Need, Plan, Request, Rules, plan};
use super::{Item, Ranges};
use crate::sample::{Files, Held, Sample};

/// An error is given to each sample that waits for the request.
type Answer = Result<Bytes, Arc<Error>>;

/// A request that was sent. When the last one drops it that has it, it ends, and its memory is given back.
#[derive(Debug)]
pub(crate) struct Asked {
    start: u64,
    answer: Shared<BoxFuture<'static, Answer>>,
    _memory: Option<BytePermit>,
}

impl Asked {
    /// `memory`: what its bytes are counted in. Within a runtime.
    pub fn send(ranges: &Arc<dyn Ranges>, request: &Request, memory: Option<BytePermit>) -> Arc<Asked> {
        let (ranges, shard, range) = (ranges.clone(), request.shard, request.range.clone());
        let start = range.start;
        let task = tokio::spawn(async move { ranges.get(shard, range).await });
        let answer = AbortOnDropHandle::new(task).map(|ended| match ended {
            Ok(answer) => answer.map_err(Arc::new),
            Err(_) => Err(Arc::new(Error::new(Kind::Interrupted, "the loader ended while it fetched"))),
        });
        Arc::new(Asked { start, answer: answer.boxed().shared(), _memory: memory })
    }
}

/// What is asked for of an item: all of it in one piece, or each file that was chosen.
fn ranges_of(item: &Item) -> Result<Vec<Range<u64>>> {
    let index = &item.shard.index;
    match &item.files {
        Files::All(_) => Ok(vec![index.sample_span(item.want.sample)?]),
        Files::Some(files) => files
            .iter()
            .map(|&file| index.file(file).map(|file| file.offset..file.offset + file.length))
            .collect(),
    }
}

/// What would be asked for.
pub(crate) fn planned(items: &[Result<Item>], rules: &Rules) -> Plan {
    let mut needs = Vec::with_capacity(items.len());
    for (at, item) in items.iter().enumerate() {
        let Ok(item) = item else { continue };
        // One whose index is damaged has its error when it is made.
        for range in ranges_of(item).unwrap_or_default() {
            needs.push(Need { item: at, shard: item.want.shard, range });
        }
    }
    plan(items.len(), needs, rules)
}

/// A sample whose requests were sent.
#[derive(Debug)]
pub(crate) struct Fetching {
    ranges: Arc<dyn Ranges>,
    item: Result<Item>,
    requests: Vec<Arc<Asked>>,
}

impl Fetching {
    pub fn new(ranges: Arc<dyn Ranges>, item: Result<Item>, requests: Vec<Arc<Asked>>) -> Fetching {
        Fetching { ranges, item, requests }
    }

    /// What its bytes are in: holds their memory.
    pub fn requests(&self) -> &[Arc<Asked>] {
        &self.requests
    }

    /// The sample, verified. What does not match its checksum is fetched once more before it is called damaged.
    pub async fn sample(&self) -> Result<Sample> {
        let item = self.item.as_ref().map_err(|e| e.duplicate())?;
        let mut held = Vec::with_capacity(self.requests.len());
        for asked in &self.requests {
            held.push((asked.start, asked.answer.clone().await.map_err(|e| e.duplicate())?));
        }
        let sample = made(item, held);
        let Err(e) = sample.verify() else { return Ok(sample) };
        if e.kind() != Kind::Corrupt {
            return Err(e);
        }
        let mut held = Vec::new();
        for range in ranges_of(item)? {
            self.ranges.forget(item.want.shard, range.clone());
            held.push((range.start, self.ranges.get(item.want.shard, range).await?));
        }
        let sample = made(item, held);
        sample.verify()?;
        tracing::warn!("{e}; read again, it is as it should be");
        Ok(sample)
    }
}

fn made(item: &Item, held: Vec<(u64, Bytes)>) -> Sample {
    Sample {
        source: 0,
        number: item.want.number,
        shard: item.shard.clone(),
        files: item.files.clone(),
        held: Held::Fetched(held.into()),
        arrays: None,
    }
}
