//! Two numbers that outlive the segments, each in a file of its own, written so that it is there whole or as it was before:
//!
//! | file | no record below it |
//! |---|---|
//! | `sequence` | is still to be written: numbering goes on above |
//! | `recovered` | is still to be replayed: it was, durably, or its inode was gone. Inode numbers that a crash lost are given again, and what the log has of them is of other files |
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

/// The number of an earlier run; 0 when there was none, or its file is damaged: then the segments' own numbers must do.
pub(super) fn read(dir: &Path, name: &str) -> Result<u64> {
    let path = dir.join(name);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(e) => return Err(Error::io(format!("cannot read {}", path.display()), e)),
    };
    if let Ok(all) = <[u8; 12]>::try_from(&bytes[..])
        && let (Some(value), Some(crc)) = (all.first_chunk::<8>(), all.last_chunk::<4>())
        && crc32c::crc32c(value) == u32::from_le_bytes(*crc)
    {
        return Ok(u64::from_le_bytes(*value));
    }
    tracing::error!(file = %path.display(), "a file of the stage log is damaged; numbering goes on above its segments, and all of them are replayed");
    Ok(0)
}

/// Durable when it returns.
pub(super) fn write(disk: &dyn Disk, dir: &Path, dir_file: &File, name: &str, value: u64) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(12);
    bytes.put_u64(value);
    let crc = crc32c::crc32c(&bytes);
    bytes.put_u32(crc);
    let temporary = dir.join(format!("{name}.new"));
    let file = disk.create(&temporary, false)?;
    write_all(disk, &file, &[], &bytes, 0)?;
    disk.sync_data(&file)?;
    disk.rename(&temporary, &dir.join(name))?;
    disk.sync_dir(dir_file)
}
