//! The order of samples: a pure function of the data set, the seed and the epoch, computed for any position without those before it.
//!
//! | module | what it decides |
//! |---|---|
//! | [`shape`] | what of a data set counts: samples and bytes of each shard, a digest |
//! | [`permutation`] | a keyed permutation of `0..n`, one number at a time |
//! | [`runs`] | neighbours in a shard that stay together in time |
//! | [`epoch`] | one epoch of one data set: position to sample, and back |
//! | [`mix`] | which data set is next |
//! | [`buckets`] | batches of samples of like length, when asked for |
//! | [`stream`] | the line that training sees: data sets mixed, epoch after epoch |
//! | [`batches`] | the line cut into global batches, and each among ranks |
//! | [`quality`] | how well it is shuffled |
//!
//! A *global batch* is the samples of one step over all ranks. It does not depend on how many ranks there are: rank `r` of `R` has its
//! contiguous part of it. So a run that goes on with another number of ranks sees the batches that would have come.
//!
//! A good shuffle takes any sample at any time; a store wants long requests. [`Method::Window`](shuffle::Method::Window) gives most of both.
//! Shards are cut into *runs* of about 8 MiB; a permutation puts all runs of the data set into a line; the line is cut into as many *lanes* as
//! a global batch has slots (or fewer), and each slot of all batches is fed by one lane. So
//!
//! * the samples of a batch are of runs from all over the data set, as far apart as in a full shuffle;
//! * one slot's samples in consecutive batches are neighbours in a shard, and are got with one request for as many batches ahead as memory allows;
//! * a rank has its own slots, therefore its own lanes: with any number of ranks each reads its runs, whole, and nobody else does;
//! * lanes begin and end their runs at different times, so that requests are spread.
//!
//! Within a run, up to `mix_samples` neighbours are mixed. What stays is that neighbours in a shard come within some batches of each other, in
//! different places of them; in the next epoch beside others.
//!
//! Cost: 16 bytes a shard, 8 bytes a run and epoch; nothing a sample. A position takes one binary search among runs and one among shards.
//!
//! [`VERSION`] is part of a saved state: a change of anything here that moves one sample is a new version, which refuses old states.

pub mod batches;
pub mod buckets;
pub mod epoch;
pub mod mix;
pub mod permutation;
pub mod quality;
pub mod runs;
pub mod shape;
pub mod shuffle;
pub mod stream;

#[cfg(test)]
mod tests;

/// Of the algorithm.
pub const VERSION: u32 = 1;
