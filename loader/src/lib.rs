//! Feeds shards to training.
//!
//! ```text
//! training <- Loader (order, batches ahead, resume) <- Source (samples of a data set) <- granary-packer (shards, indexes, versions)
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | [`order`] | which sample comes when: any position of any epoch, computed |
//! | [`source`] | a data set, open: samples by number |
//! | [`sample`], [`batch`] | views of bytes, and a rank's part of a global batch |
//! | [`loader`] | batches made ahead of their use |
//! | [`forecast`] | what a training would ask of a store, without asking |
//! | [`options`], [`state`] | a loader's settings, and where it is |
//! | `fetch` | few long requests for many samples of a bucket |
//! | [`cache`] | a folder on the node for what comes from a bucket |
//! | [`node`] | data sets through the node process, from its cache's own files |
//! | [`decode`] | images and sound as arrays |
//! | `depth` | how many batches to have ready |
//! | [`stats`] | what was done |
//! | `process` | what belongs to one process, and not to children made by `fork` |
//!
//! **Invariants**
//!
//! * Every byte that is given was verified against its checksum in the shard's index.
//! * A global batch depends on data set, version, seed, epoch, shuffle and its size only; not on ranks, workers, threads or time.
//! * Of an epoch each sample is given exactly once, but for what `tail`, `on_error` and deletions say.
//! * What is fetched and not given is within `memory_bytes_max`, and what is decoded within `decoded_bytes_max`; but for the batch that is next.
//!
//! There is no Python: `loader/python` binds this.

pub mod batch;
pub mod cache;
pub mod decode;
mod depth;
mod fetch;
pub mod forecast;
pub mod loader;
pub mod node;
pub mod options;
pub mod order;
mod process;
pub mod sample;
pub mod source;
pub mod state;
pub mod stats;

pub use batch::Batch;
pub use cache::CacheOptions;
pub use decode::Decode;
pub use loader::{Loader, Next};
pub use options::{OnError, Options};
pub use order::batches::Tail;
pub use order::shuffle::{Method, Shuffle};
pub use sample::{Member, Sample};
pub use source::{Source, SourceOptions};
pub use state::State;
pub use stats::Stats;
