//! The work: what `granary bench` does as well, and what needs other programs or the metadata service.

pub mod service;
pub mod tree;
pub mod visible;

pub use granary_bench_work::*;
