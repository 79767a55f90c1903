//! The tree over real metadata (in memory), a store in memory, and real local files.

mod copy;
mod crash;
mod drain;
mod large;
mod model;
mod small;
mod stress;
mod world;
