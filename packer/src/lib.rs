//! Data sets: shards that other tools read, their indexes, and versions.
//!
//! ```text
//! data set = folder or s3://bucket/prefix
//!   manifests/0000000001.jsonl   a version: which shards there are, what of them lives      (manifest)
//!   shards/000000.tar            a plain tar, with a trailer behind its end                 (tar, shard, trailer)
//!   shards/000000.gidx           where each file's bytes are in it, and what is a sample    (index)
//! ```
//!
//! | word | meaning |
//! |---|---|
//! | file | a regular member of a tar |
//! | sample | files with one key, side by side in their shard ([`key`]) |
//! | shard | a tar and its index. Numbers of files and samples in it are dense from 0 |
//! | data set | shards under one root; *version*: what a manifest says of them |
//!
//! A shard has its name only when it is whole and synced; its index follows, the manifest comes last. So whatever a manifest names
//! is there, and what no manifest names is nothing. Tars of other programs are taken as they are: only index and manifest are added.
//! Nothing here needs a node, metadata or a mount.

pub mod adopt;
pub mod blocking;
pub mod counts;
pub mod dataset;
pub mod edit;
pub mod foreign;
pub mod from;
pub mod index;
pub mod key;
pub mod limits;
pub mod manifest;
pub mod pack;
pub mod place;
pub mod shard;
pub mod tar;
pub mod trailer;
pub mod unpack;
pub mod verify;
