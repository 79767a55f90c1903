//! What to fetch before it is asked for: policies that decide, told of each read; [`ReadCache`](crate::ReadCache) and files act.
//!
//! | module | noun |
//! |---|---|
//! | `streams` | reads of one large file: forward, backward, strided, several at once |
//! | `objects` | reads of objects, packs above all: neighbours in order, whole packs when they are read here and there |
//! | `history` | in which order objects were read, for the next pass over the same tree |
//! | `credit` | how much may be fetched on a guess |
//! | `pinned` | trees that stay on the node |
//! | `announced` | orders in which programs said that they will read |
//! | `warm` | `granary warmup`: files fetched, counted and dropped without being read |

pub mod announced;
pub(crate) mod credit;
pub(crate) mod history;
pub(crate) mod objects;
pub mod pinned;
pub(crate) mod streams;
pub mod warm;
