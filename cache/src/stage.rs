//! What a node has not yet given to the store: the log of small writes, and large files' own files.
//!
//! ```text
//! <stage_dir>/log/<first sequence, 16 hex digits>.log    segments, in order
//! <stage_dir>/log/sequence                               a bound no sequence number was above
//! <stage_dir>/log/recovered                              a bound below which no segment is replayed again
//! <stage_dir>/log/durable                                a bound below which nothing is lost with the power
//! <stage_dir>/log/boot                                   the start of the machine it was recovered in
//! <stage_dir>/files/<inode, 16 hex digits>               whole content of a large file, changed since it was uploaded
//! <stage_dir>/sparse/<inode>                             changed ranges of a large file whose rest is in objects
//! <stage_dir>/clean/<inode>.<content version>            whole content of a file that is in the store: a cache
//! <stage_dir>/sums/<inode>.<content version>             checksums of a clean copy
//! <stage_dir>/tmp/<inode>                                a stage file being filled; removed at start
//! <stage_dir>/tmp/<inode>.<content version>              the same of a clean copy
//! <stage_dir>/aside/<inode>                              changes that were refused, for a person
//! ```

pub(crate) mod aside;
pub(crate) mod disk;
pub(crate) mod files;
pub(crate) mod log;
pub(crate) mod pages;
pub(crate) mod record;
pub(crate) mod redo;
pub(crate) mod sums;

pub(crate) use files::{Shape, StageFiles};
pub(crate) use log::{Appended, Log};
pub(crate) use record::{Head, RecordKind};
