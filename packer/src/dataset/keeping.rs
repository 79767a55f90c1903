//! Where an index goes while it comes: to a file, and on in memory if the disk does not take it.
//!
//! What was written before the disk failed is read back, so that nothing is fetched twice. Memory for it is counted as every index's is that is
//! open ([`Options::index_bytes_max`](super::Options)).

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use granary_core::Result;
use tempfile::NamedTempFile;

use super::indexes::index_file_name;
use crate::index::{Index, Resident};
use crate::manifest::Shard;

#[derive(Debug)]
enum To {
    Memory(Vec<u8>),
    Unnamed(File),
    Folder(NamedTempFile, PathBuf),
}

/// An index that comes piece by piece.
#[derive(Debug)]
pub struct Keeping {
    to: To,
    len: u64,
}

impl Keeping {
    fn new(to: To) -> Keeping {
        Keeping { to, len: 0 }
    }

    pub fn in_memory() -> Keeping {
        Keeping::new(To::Memory(Vec::new()))
    }

    /// In a file without a name in `folder`.
    pub fn unnamed(folder: &Path) -> Keeping {
        let made = tempfile::tempfile_in(folder).map(To::Unnamed);
        Keeping::new(made.unwrap_or_else(|e| memory_instead(folder, &e)))
    }

    /// In a file of `folder`, which is made if it is not there.
    pub fn in_folder(folder: &Path) -> Keeping {
        let made = std::fs::create_dir_all(folder)
            .and_then(|()| tempfile::Builder::new().prefix("new-").tempfile_in(folder))
            .map(|file| To::Folder(file, folder.to_owned()));
        Keeping::new(made.unwrap_or_else(|e| memory_instead(folder, &e)))
    }

    /// Bytes that it has.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The bytes behind those that it has.
    pub fn add(&mut self, piece: &[u8]) {
        let written = match &mut self.to {
            To::Memory(bytes) => {
                bytes.extend_from_slice(piece);
                Ok(())
            }
            To::Unnamed(file) => file.write_all(piece),
            To::Folder(file, _) => file.as_file_mut().write_all(piece),
        };
        if let Err(e) = written {
            self.go_on_in_memory(piece, &e);
        } else {
            self.len += piece.len() as u64;
        }
    }

    fn go_on_in_memory(&mut self, piece: &[u8], why: &io::Error) {
        let (file, folder) = match &self.to {
            To::Memory(_) => return,
            To::Unnamed(file) => (file, std::env::temp_dir()),
            To::Folder(file, folder) => (file.as_file(), folder.clone()),
        };
        let mut bytes = vec![0; self.len as usize];
        match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => bytes.extend_from_slice(piece),
            // Then it is fetched once more.
            Err(_) => bytes.clear(),
        }
        memory_instead(&folder, why);
        self.len = bytes.len() as u64;
        self.to = To::Memory(bytes);
    }

    /// What came, as an index; what it says is not checked.
    ///
    /// Errors: as [`Index::open`]; what the disk says.
    pub fn index(&mut self, within: &Arc<Resident>) -> Result<Index> {
        match &mut self.to {
            To::Memory(bytes) => Index::from_bytes(std::mem::take(bytes).into()),
            To::Unnamed(file) => Index::of_file(file, within),
            To::Folder(file, _) => Index::of_file(file.as_file(), within),
        }
    }

    /// Gives it the name by which others find it. Where that cannot be it is read without one.
    pub fn keep(self, shard: &Shard) {
        if let To::Folder(file, folder) = self.to
            && let Err(e) = file.persist(folder.join(index_file_name(shard)))
        {
            tracing::warn!("an index is not kept in {}: {}", folder.display(), e.error);
        }
    }
}

fn memory_instead(folder: &Path, e: &io::Error) -> To {
    tracing::warn!("an index is in memory, since it cannot be kept in {}: {e}", folder.display());
    To::Memory(Vec::new())
}

#[cfg(test)]
mod tests {
    use rustix::fs::{MemfdFlags, SealFlags};

    use super::*;

    /// A file that takes no more than so many bytes.
    fn full_after(bytes: u64) -> File {
        let file = rustix::fs::memfd_create("full", MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&file, bytes).unwrap();
        rustix::fs::fcntl_add_seals(&file, SealFlags::GROW).unwrap();
        file.into()
    }

    #[test]
    fn what_a_disk_took_before_it_failed_is_not_lost() {
        let mut keeping = Keeping::new(To::Unnamed(full_after(10_000)));
        let mut all = Vec::new();
        for n in 0..9_u8 {
            let piece = vec![n; 4096];
            keeping.add(&piece);
            all.extend(piece);
            assert_eq!(keeping.len(), all.len() as u64);
            assert_eq!(matches!(keeping.to, To::Memory(_)), n >= 2, "the third piece does not fit");
        }
        let To::Memory(bytes) = keeping.to else { unreachable!() };
        assert!(bytes == all);
    }

    #[test]
    fn what_cannot_be_read_back_is_wanted_again() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [1; 100]).unwrap();
        let write_only = std::fs::OpenOptions::new().write(true).open(file.path()).unwrap();
        let mut keeping = Keeping::new(To::Unnamed(write_only));
        keeping.add(&[1; 50]);
        keeping.go_on_in_memory(&[2; 50], &io::ErrorKind::StorageFull.into());
        assert_eq!(keeping.len(), 0);
        keeping.add(&[3; 7]);
        assert!(matches!(&keeping.to, To::Memory(bytes) if bytes[..] == [3; 7]));
    }
}
