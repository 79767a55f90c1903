//! Files of a version's shards that the next version does not have.

use granary_core::Result;

use crate::index::Index;
use crate::manifest::Shard;

/// Counts files of a shard among its dead, and samples of which no file lives.
///
/// Errors: `Corrupt` from the index.
pub fn bury(shard: &mut Shard, index: &Index, files: Vec<u32>) -> Result<()> {
    let mut samples = Vec::new();
    for &file in &files {
        samples.push(index.file(file)?.sample);
    }
    let dead_files = shard.dead_files.with(files);
    let mut gone = Vec::new();
    samples.sort_unstable();
    samples.dedup();
    for sample in samples {
        if index.sample(sample)?.all(|file| dead_files.contains(file)) {
            gone.push(sample);
        }
    }
    shard.dead_files = dead_files;
    shard.dead_samples = shard.dead_samples.with(gone);
    Ok(())
}
