//! What an inode number says. The table is in [`tree`](super).

use granary_core::Ino;

/// Places of an order that a directory's number can name.
pub(super) const PLACES_MAX: u64 = 1 << 35;
const SHARDS: Ino = Ino(2);
const TAR: u64 = 1 << 44;
const INDEX: u64 = 1 << 32;
const FILE: u64 = 1 << 45;
const OTHER: u64 = 1 << 46;
const DIRECTORY: u64 = 1 << 47;
const END: u64 = 1 << 48;

const _: () = assert!(END == Ino::TRASH.0);

/// What has an inode number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Root,
    /// The directory of shards.
    Shards,
    Tar(u32),
    Index(u32),
    /// By its number among all files.
    File(u64),
    /// By its number among all that are no files.
    Other(u64),
    Directory {
        depth: u32,
        first: u64,
    },
}

impl What {
    pub fn of(ino: Ino) -> Option<What> {
        Some(match ino.0 {
            1 => What::Root,
            2 => What::Shards,
            DIRECTORY..END => What::Directory {
                depth: ((ino.0 - DIRECTORY) / PLACES_MAX) as u32,
                first: ino.0 % PLACES_MAX,
            },
            OTHER..DIRECTORY => What::Other(ino.0 - OTHER),
            FILE..OTHER => What::File(ino.0 - FILE),
            TAR..FILE => {
                let shard = (ino.0 - TAR) as u32;
                match (ino.0 - TAR) >> 32 {
                    0 => What::Tar(shard),
                    1 => What::Index(shard),
                    _ => return None,
                }
            }
            _ => return None,
        })
    }

    pub fn ino(self) -> Ino {
        match self {
            What::Root => Ino::ROOT,
            What::Shards => SHARDS,
            What::Tar(shard) => Ino(TAR + u64::from(shard)),
            What::Index(shard) => Ino(TAR + INDEX + u64::from(shard)),
            What::File(n) => Ino(FILE + n),
            What::Other(n) => Ino(OTHER + n),
            What::Directory { depth, first } => Ino(DIRECTORY + u64::from(depth) * PLACES_MAX + first),
        }
    }
}

pub(super) fn file_ino(n: u64) -> Ino {
    What::File(n).ino()
}

pub(super) fn other_ino(n: u64) -> Ino {
    What::Other(n).ino()
}

pub(super) fn directory_ino(depth: u32, first: u64) -> Ino {
    What::Directory { depth, first }.ino()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_say_what_has_them(shard: u32, n in 0..FILE, depth in 1..2049u32, first in 0..PLACES_MAX) {
            for what in [
                What::Root, What::Shards, What::Tar(shard), What::Index(shard), What::File(n), What::Other(n),
                What::Directory { depth, first },
            ] {
                prop_assert_eq!(What::of(what.ino()), Some(what));
                prop_assert!(!what.ino().is_of_trash());
            }
        }
    }

    #[test]
    fn others_have_none() {
        for ino in [0, 3, TAR - 1, TAR + (2 << 32), END, u64::MAX] {
            assert_eq!(What::of(Ino(ino)), None, "{ino}");
        }
    }
}
