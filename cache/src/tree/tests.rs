//! The tree over real metadata (in memory), a store in memory, and real local files.

mod compact;
mod condemned;
mod copy;
mod crash;
mod damage;
mod disk;
mod drain;
mod explain;
mod gather;
mod inline;
mod large;
mod leases;
mod lend;
mod model;
pub(crate) mod nodes;
mod outages;
mod policies;
mod power;
mod prefetch;
mod redo;
mod small;
mod stress;
pub(crate) mod world;
