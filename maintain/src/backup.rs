//! The metadata, saved: a stream of the engine's records as of one moment, in a file or in the bucket, and brought back into
//! a new folder.
//!
//! | part | what it does |
//! |---|---|
//! | [`format`](mod@format) | the stream, byte by byte |
//! | [`dump`] | writes it, of a volume in use |
//! | [`restore`] | a new engine from it |
//! | [`bucket`] | backups in the store: written, listed, read, the oldest deleted |
//! | [`schedule`] | when the next one is due |

pub mod bucket;
pub mod dump;
pub mod format;
pub mod restore;
pub mod schedule;

pub use dump::dump;
pub use format::{Decoder, Header, Totals};
