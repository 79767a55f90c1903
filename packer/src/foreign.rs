//! Indexes of other programs, made of ours and put beside each tar, so that those programs need not read the tars for them.
//!
//! | program | beside `NAME.tar` | module |
//! |---|---|---|
//! | Megatron Energon | `NAME.tar.idx` | [`energon`] |
//! | NVIDIA DALI | `NAME.idx` | [`dali`] |
//!
//! Both tell of samples as WebDataset groups them, whatever the data set's own grouping, and of all that the tar has: tars are
//! shared by versions, so what a version deleted is among it. A tar without samples gets neither. The same tar gives the same bytes;
//! what is there is replaced.

pub mod dali;
pub mod energon;
mod gap;
#[cfg(test)]
mod tests;

use granary_core::{Error, Result};
use serde::Serialize;
use tokio::runtime::Handle;

use crate::blocking::ShardBytes;
use crate::dataset::DataSet;

/// Which are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub energon: bool,
    pub dali: bool,
}

impl Wanted {
    pub fn any(self) -> bool {
        self.energon || self.dali
    }
}

/// How many were written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Written {
    pub energon: u64,
    pub dali: u64,
}

/// Writes them for every shard of the version. Waits: not for a thread of the runtime.
///
/// Errors: `Unsupported` for a path that DALI's index cannot say; `Corrupt` from index or tar; what the store says.
pub fn write(data: &DataSet, wanted: Wanted, runtime: &Handle) -> Result<Written> {
    let (place, mut written) = (data.place(), Written::default());
    for (number, shard) in (0u32..).zip(data.manifest().shards()) {
        let index = runtime.block_on(data.index(number))?;
        let stem = shard.path.strip_suffix(".tar").unwrap_or(&shard.path);
        let located = |e: Error| e.context(format_args!("{place}/{}", shard.path));
        if wanted.energon {
            let bytes = ShardBytes::open(place, &shard.path, runtime)?;
            if let Some(made) = energon::make(&index, &bytes).map_err(located)? {
                runtime.block_on(place.put(&format!("{stem}.tar.idx"), made.into()))?;
                written.energon += 1;
            }
        }
        if wanted.dali
            && let Some(made) = dali::make(&index).map_err(located)?
        {
            runtime.block_on(place.put(&format!("{stem}.idx"), made.into()))?;
            written.dali += 1;
        }
    }
    Ok(written)
}
