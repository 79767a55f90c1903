//! Requests under way, and the samples they bring.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use granary_core::{Error, Kind, Result};
use tokio_util::task::AbortOnDropHandle;

use super::plan::{Need, Plan, Rules, plan};
use super::{Item, Ranges};
use crate::sample::{Files, Held, Sample};

/// An error is given to each sample that waits for the request.
type Answer = Result<Bytes, Arc<Error>>;

/// Samples whose requests were sent together. Dropping it ends the requests.
#[derive(Debug)]
pub(crate) struct Fetched {
    ranges: Arc<dyn Ranges>,
    items: Vec<Result<Item>>,
    plan: Plan,
    answers: Vec<Shared<BoxFuture<'static, Answer>>>,
}

/// What is asked for of an item: all of it in one piece, or each file that was chosen.
pub(crate) fn ranges_of(item: &Item) -> Result<Vec<Range<u64>>> {
    let index = &item.shard.index;
    match &item.files {
        Files::All(_) => Ok(vec![index.sample_span(item.want.sample)?]),
        Files::Some(files) => files
            .iter()
            .map(|&file| index.file(file).map(|file| file.offset..file.offset + file.length))
            .collect(),
    }
}

impl Fetched {
    /// What would be asked for.
    pub fn planned(items: &[Result<Item>], rules: &Rules) -> Plan {
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

    /// Sends all requests. Within a runtime.
    pub fn begin(ranges: Arc<dyn Ranges>, items: Vec<Result<Item>>, rules: Rules) -> Fetched {
        let plan = Fetched::planned(&items, &rules);
        Fetched::of_plan(ranges, items, plan)
    }

    pub fn of_plan(ranges: Arc<dyn Ranges>, items: Vec<Result<Item>>, plan: Plan) -> Fetched {
        let send = |request: &super::plan::Request| {
            let (ranges, shard, range) = (ranges.clone(), request.shard, request.range.clone());
            let task = tokio::spawn(async move { ranges.get(shard, range).await });
            let answer = AbortOnDropHandle::new(task).map(|ended| match ended {
                Ok(answer) => answer.map_err(Arc::new),
                Err(_) => Err(Arc::new(Error::new(Kind::Interrupted, "the loader ended while it fetched"))),
            });
            answer.boxed().shared()
        };
        let answers = plan.requests.iter().map(send).collect();
        Fetched { ranges, items, plan, answers }
    }

    /// One sample, verified. What does not match its checksum is fetched once more before it is called damaged.
    pub async fn sample(&self, at: usize) -> Result<Sample> {
        let item = self.items[at].as_ref().map_err(|e| e.duplicate())?;
        let mut held = Vec::new();
        for &request in &self.plan.of_item[at] {
            let bytes = self.answers[request].clone().await.map_err(|e| e.duplicate())?;
            held.push((self.plan.requests[request].range.start, bytes));
        }
        let sample = self.made(item, held);
        let Err(e) = sample.verify() else { return Ok(sample) };
        if e.kind() != Kind::Corrupt {
            return Err(e);
        }
        let mut held = Vec::new();
        for range in ranges_of(item)? {
            self.ranges.forget(item.want.shard, range.clone());
            held.push((range.start, self.ranges.get(item.want.shard, range).await?));
        }
        let sample = self.made(item, held);
        sample.verify()?;
        tracing::warn!("{e}; read again, it is as it should be");
        Ok(sample)
    }

    fn made(&self, item: &Item, held: Vec<(u64, Bytes)>) -> Sample {
        Sample {
            source: 0,
            number: item.want.number,
            shard: item.shard.clone(),
            files: item.files.clone(),
            held: Held::Fetched(held.into()),
        }
    }
}
