//! What must hold of every parser of bytes that come from a disk, a store, the kernel or anybody, whatever they are: it may refuse, but not
//! panic, not take memory without bound, and not accept what is out of bounds.
//!
//! Each function here has a fuzz target of its name, which calls it with what a fuzzer finds; and the tests of this crate call all of them
//! with bytes made by chance and with good files that were damaged, so that the usual tests compile and try them too. A function panics
//! when something does not hold.
//!
//! | module | parsers |
//! |---|---|
//! | `cache` | stage log, checksums of copies |
//! | `fuse` | the kernel's requests |
//! | `loader` | images and sound |
//! | `meta` | keys and values, backups, frames of the metadata service |
//! | `packer` | indexes, tars, manifests, LMDB's pages |
//! | `store` | objects and their footers |

mod cache;
mod fuse;
mod loader;
mod meta;
mod packer;
mod store;
#[cfg(test)]
mod tests;

pub use cache::{cache_sums, stage_log};
pub use fuse::{fuse_request, fuse_ring};
pub use loader::loader_decode;
pub use meta::{meta_backup, meta_record, meta_wire};
pub use packer::{packer_index, packer_lmdb, packer_manifest, packer_tar};
pub use store::{store_footer, store_object};

/// A function by its target's name.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 14] = [
    ("cache_sums", cache_sums),
    ("fuse_request", fuse_request),
    ("fuse_ring", fuse_ring),
    ("loader_decode", loader_decode),
    ("meta_backup", meta_backup),
    ("meta_record", meta_record),
    ("meta_wire", meta_wire),
    ("packer_index", packer_index),
    ("packer_lmdb", packer_lmdb),
    ("packer_manifest", packer_manifest),
    ("packer_tar", packer_tar),
    ("stage_log", stage_log),
    ("store_footer", store_footer),
    ("store_object", store_object),
];
