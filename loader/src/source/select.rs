//! Which samples take part: a list, or those that have certain files; and how long they are.

use futures::stream::{self, StreamExt, TryStreamExt};
use granary_core::{Error, Kind, Result};
use granary_packer::dataset::DataSet;
use granary_packer::manifest::Manifest;

use super::SourceOptions;
use crate::order::buckets::length_code;
use crate::order::permutation::key;
use crate::order::shape::Shape;

/// Indexes read at once while all are looked through.
const INDEXES_AT_ONCE: usize = 16;

/// Numbers of samples in order; none when all take part.
///
/// Errors: `Invalid` for a number that is not there, or twice; what reading indexes says.
pub async fn selected(data: &DataSet, options: &SourceOptions) -> Result<Option<std::sync::Arc<[u64]>>> {
    let count = data.manifest().sample_count();
    let listed = match &options.select {
        None => None,
        Some(list) => {
            let mut list = list.clone();
            list.sort_unstable();
            if let Some(&last) = list.last().filter(|last| **last >= count) {
                return Err(Error::new(
                    Kind::Invalid,
                    format!("{} has {count} samples; sample {last} cannot be selected", data.place()),
                ));
            }
            if let Some(pair) = list.windows(2).find(|pair| pair[0] == pair[1]) {
                return Err(Error::new(Kind::Invalid, format!("sample {} is selected twice", pair[0])));
            }
            Some(list)
        }
    };
    if options.having.is_empty() {
        return Ok(listed.map(Into::into));
    }
    let having = having(data, &options.having).await?;
    let both = match listed {
        None => having,
        Some(listed) => having.into_iter().filter(|number| listed.binary_search(number).is_ok()).collect(),
    };
    Ok(Some(both.into()))
}

/// Living samples with files of all these extensions.
async fn having(data: &DataSet, extensions: &[String]) -> Result<Vec<u64>> {
    let shards = 0..data.manifest().shards().len() as u32;
    let found = stream::iter(shards.map(|shard| of_shard(data, shard, extensions))).buffered(INDEXES_AT_ONCE);
    let found: Vec<Vec<u64>> = found.try_collect().await?;
    Ok(found.concat())
}

async fn of_shard(data: &DataSet, shard: u32, extensions: &[String]) -> Result<Vec<u64>> {
    let index = data.index(shard).await?;
    let mut found = Vec::new();
    for sample in 0..index.sample_count() {
        let Some(number) = data.manifest().sample_number(shard, sample) else { continue };
        let mut missing = extensions.len();
        for file in data.live_files(shard, &index, sample)? {
            let extension = index.grouping().split(index.file(file)?.path).1;
            missing -= usize::from(extensions.iter().any(|wanted| wanted.as_bytes() == extension));
            if missing == 0 {
                found.push(number);
                break;
            }
        }
    }
    Ok(found)
}

/// Of each sample that takes part how long its file of this extension is, as [`length_code`] has it; 0 of one that has none.
///
/// Errors: what reading indexes says.
pub async fn lengths(data: &DataSet, extension: &str, selected: Option<&[u64]>) -> Result<Vec<u16>> {
    let shards = 0..data.manifest().shards().len() as u32;
    let of = |shard| lengths_of(data, shard, extension.as_bytes(), selected);
    let found: Vec<Vec<u16>> = stream::iter(shards.map(of)).buffered(INDEXES_AT_ONCE).try_collect().await?;
    Ok(found.concat())
}

async fn lengths_of(
    data: &DataSet,
    shard: u32,
    extension: &[u8],
    selected: Option<&[u64]>,
) -> Result<Vec<u16>> {
    let index = data.index(shard).await?;
    let mut found = Vec::new();
    for sample in 0..index.sample_count() {
        let Some(number) = data.manifest().sample_number(shard, sample) else { continue };
        if selected.is_some_and(|selected| selected.binary_search(&number).is_err()) {
            continue;
        }
        let mut length = 0;
        for file in data.live_files(shard, &index, sample)? {
            let file = index.file(file)?;
            if index.grouping().split(file.path).1 == extension {
                length = length_code(file.length);
                break;
            }
        }
        found.push(length);
    }
    Ok(found)
}

/// What decides the order of those that take part: of a shard of which some do, as many of its bytes.
pub fn shape(manifest: &Manifest, selected: Option<&[u64]>) -> Result<Shape> {
    let mut digest = manifest.digest().to_le_bytes().to_vec();
    digest.extend(manifest.version().to_le_bytes());
    if let Some(selected) = selected {
        digest.extend(key(selected).to_le_bytes());
    }
    let mut next = 0;
    let shards = (0_u32..).zip(manifest.shards()).map(|(number, shard)| {
        let Some(selected) = selected else { return (shard.live_samples(), shard.bytes) };
        let end = manifest.samples_before(number + 1).unwrap_or(0);
        let before = next;
        next += selected[next..].partition_point(|&sample| sample < end);
        let samples = (next - before) as u32;
        let part = u128::from(shard.bytes) * u128::from(samples) / u128::from(shard.live_samples().max(1));
        (samples, part as u64)
    });
    Shape::new(shards.collect::<Vec<_>>(), &digest)
}
