//! Objects in the store: the trait every backend and wrapper implements, and the formats of blocks and packs.
//!
//! ```text
//! caller -> RetryStore -> LimitStore -> HedgeStore -> MeterStore -> FolderStore | S3Store | BalanceStore -> several S3Stores
//! test   -> RetryStore -> FaultStore -> MemoryStore                      stacked as the test wants it
//! ```
//!
//! [`format`](mod@format) knows bytes and does no I/O; backends do one request for one call; everything between is a wrapper.

pub mod api;
mod attempt;
pub mod backend;
pub mod balance;
pub mod fault;
pub mod format;
pub mod hedge;
pub mod inspect;
pub mod key;
pub mod limit;
pub mod marker;
pub mod memory;
pub mod meter;
pub mod operation;
mod probe;
pub mod retry;
mod size;
mod stack;
pub mod upload;

pub use api::{ObjectMeta, PartsId, Store};
pub use backend::{Environment, Options, open};
pub use balance::{BalanceMetrics, BalanceStore};
pub use fault::{Fault, FaultStore};
pub use hedge::{HedgeMetrics, HedgeOptions, HedgeStore};
pub use limit::{GetPlaces, LimitMetrics, LimitStore};
pub use memory::MemoryStore;
pub use meter::MeterStore;
pub use operation::Operation;
pub use probe::probe;
pub use retry::{RetryOptions, RetryStore, Sleep, TokioSleep};
pub use stack::{production, production_with, stacked};
pub use upload::Upload;
