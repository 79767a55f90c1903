//! Four numbers that outlive the segments, each in a file of its own. All but `durable` are written so that they are there whole or as they
//! were before; that one is overwritten in place after each sync of the log and not synced itself: damaged, or older than it
//! was, it promises less.
//!
//! | file | no record below it |
//! |---|---|
//! | `sequence` | is still to be written: numbering goes on above |
//! | `recovered` | is still to be replayed: it was, durably, or its inode was gone. Inode numbers that a crash lost are given again, and what the log has of them is of other files |
//!
//! | `durable` | (nor at it) can be lost with the power: the log was synced up to it |
//!
//! `boot` is no bound: it tells the start of the machine ([`Disk::boot`]) in which everything was recovered last. Another one now
//! means that what was not synced may be gone.
//!
//! | bytes | field |
//! |---|---|
//! | 8 | the number, u64 |
//! | 4 | crc32c of it |

use std::fs::{self, File};
use std::io;
use std::path::Path;

use granary_core::codec::Put;
use granary_core::{Error, Result};

use crate::stage::disk::{Disk, write_all};

pub(super) const SEQUENCE: &str = "sequence";
pub(super) const RECOVERED: &str = "recovered";
pub(super) const DURABLE: &str = "durable";
pub(super) const BOOT: &str = "boot";

pub(super) fn encode(value: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(12);
    bytes.put_u64(value);
    let crc = granary_core::crc32c(&bytes);
    bytes.put_u32(crc);
    bytes
}

fn decode(bytes: &[u8]) -> Option<u64> {
    let all = <[u8; 12]>::try_from(bytes).ok()?;
    let (value, crc) = (all.first_chunk::<8>()?, all.last_chunk::<4>()?);
    (granary_core::crc32c(value) == u32::from_le_bytes(*crc)).then(|| u64::from_le_bytes(*value))
}

/// How far the log was durable, as far as is known.
pub(super) fn read_durable(dir: &Path) -> u64 {
    fs::read(dir.join(DURABLE)).ok().and_then(|bytes| decode(&bytes)).unwrap_or(0)
}

/// The number of an earlier run; 0 when there was none, or its file is damaged: then the segments' own numbers must do.
pub(super) fn read(dir: &Path, name: &str) -> Result<u64> {
    let path = dir.join(name);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(e) => return Err(Error::io(format!("cannot read {}", path.display()), e)),
    };
    if let Some(value) = decode(&bytes) {
        return Ok(value);
    }
    tracing::error!(file = %path.display(), "a file of the stage log is damaged; numbering goes on above its segments, and all of them are replayed");
    Ok(0)
}

/// Durable when it returns.
pub(super) fn write(disk: &dyn Disk, dir: &Path, dir_file: &File, name: &str, value: u64) -> io::Result<()> {
    let bytes = encode(value);
    let temporary = dir.join(format!("{name}.new"));
    let file = disk.create(&temporary, false)?;
    write_all(disk, &file, &[], &bytes, 0)?;
    disk.sync_data(&file)?;
    disk.rename(&temporary, &dir.join(name))?;
    disk.sync_dir(dir_file)
}
