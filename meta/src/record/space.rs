//! What a namespace as a whole has: its settings, its counters, and the inodes that wait to be freed.
//!
//! Settings:
//!
//! | bytes | field |
//! |---|---|
//! | 1 | version: 4, or 5 where there is a packed data set |
//! | 2 + n | name: length u16, then the bytes |
//! | 1 | durability: 1 local, 2 object |
//! | 8, 8 | bytes_max, inodes_max u64 (0: no limit) |
//! | 9 x 8 | its write policy, in the order of `granary_core::policy::POLICY_NAMES`, each u64 (0: as the node's limits say); absent in version 1, where all are 0; the last absent before version 4 |
//! | 8 | how long the trash keeps what was removed, in ms u64 (0: there is no trash); absent before version 3: a day |
//! | 2 + n | *version 5 only:* URL of the packed data set that it shows: length u16, not 0, then the bytes |
//! | 8 | *version 5 only:* version of the data set u64 (0: the newest) |
//!
//! Older programs refuse version 5, and with it a namespace that they would show as an empty one.
//!
//! Owner and mode are the root directory's. Counters:
//!
//! | bytes | field |
//! |---|---|
//! | 1 | version, 3 |
//! | 8 | next inode number u64 |
//! | 8 | bytes: sum of `stored` of all inodes that are not in the trash u64 |
//! | 8 | inodes that are not in the trash, the root included u64 |
//! | 8 | inodes with file capabilities u64; absent in version 1, where there are none |
//! | 8 | the next number of a directory of the trash, from [`Ino::TRASH`] on, u64; absent before version 3, where there is none |
//!
//! Orphan: an inode without name, kept while it is open; or what is left of one after its inode record went, when it has
//! too many extents to be freed in one operation:
//!
//! | bytes | field |
//! |---|---|
//! | 1 | version, 1; with a place in the trash 2 |
//! | 1 | 0: it lost its last name; 1: only extents are left; 2: it never had a name, and may get one; 3: it lost its last name, and goes to the trash when nobody has it open any more |
//! | 8 | *only with 3:* directory in the trash u64 |
//! | 1 + n | *only with 3:* the name that it had: length u8, not 0, then the bytes |

use granary_core::codec::{Put, Reader};
use granary_core::policy::{NamespacePolicy, POLICY_NAMES};
use granary_core::{Ino, NamespaceName, Result};

use crate::types::{Durability, PackedSource, TRASH_MS_DEFAULT};

const VERSION: u8 = 1;
const ORPHAN_VERSION: u8 = 2;
const SETTINGS_VERSION: u8 = 5;
/// Where no packed data set is shown.
const PLAIN_SETTINGS_VERSION: u8 = 4;
const COUNTERS_VERSION: u8 = 3;
/// Values of the write policy in versions 2 and 3 of the settings.
const POLICY_NAMES_OF_3: usize = 8;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceRecord {
    pub name: NamespaceName,
    pub durability: Durability,
    /// 0: no limit.
    pub bytes_max: u64,
    pub inodes_max: u64,
    pub policy: NamespacePolicy,
    /// 0: there is no trash.
    pub trash_ms: u64,
    /// It shows this, and has no files of its own.
    pub packed: Option<PackedSource>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    pub next_ino: Ino,
    pub bytes: u64,
    pub inodes: u64,
    /// Inodes with `security.capability`.
    pub capabilities: u64,
    /// The next directory that is made for the trash.
    pub next_of_trash: Ino,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Orphan {
    LostName,
    /// It lost its last name while it was open: then it goes to this directory of the trash.
    Kept {
        dir: Ino,
        name: Box<[u8]>,
    },
    /// The inode record is gone, extents are left.
    Remains,
    /// Made without a name.
    NeverNamed,
}

impl NamespaceRecord {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(if self.packed.is_some() { SETTINGS_VERSION } else { PLAIN_SETTINGS_VERSION });
        out.put_bytes16(self.name.as_str().as_bytes());
        out.put_u8(match self.durability {
            Durability::Local => 1,
            Durability::Object => 2,
        });
        out.put_u64(self.bytes_max);
        out.put_u64(self.inodes_max);
        self.policy.values().into_iter().for_each(|value| out.put_u64(value));
        out.put_u64(self.trash_ms);
        if let Some(packed) = &self.packed {
            out.put_bytes16(packed.url.as_bytes());
            out.put_u64(packed.version.unwrap_or(0));
        }
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<NamespaceRecord> {
        let mut r = Reader::new(bytes, "a namespace's settings");
        let version = r.version(SETTINGS_VERSION)?;
        let name = std::str::from_utf8(r.bytes16()?).ok().and_then(|s| s.parse().ok());
        let name = name.ok_or_else(|| r.corrupt("its name is impossible"))?;
        let durability = match r.u8()? {
            1 => Durability::Local,
            2 => Durability::Object,
            _ => return Err(r.corrupt("its durability is unknown")),
        };
        let (bytes_max, inodes_max) = (r.u64()?, r.u64()?);
        let mut values = [0; POLICY_NAMES.len()];
        let count = match version {
            1 => 0,
            2 | 3 => POLICY_NAMES_OF_3,
            _ => values.len(),
        };
        for value in &mut values[..count] {
            *value = r.u64()?;
        }
        let policy = NamespacePolicy::from_values(values);
        let trash_ms = if version >= 3 { r.u64()? } else { TRASH_MS_DEFAULT };
        let packed = match version >= 5 {
            true => {
                let url = std::str::from_utf8(r.bytes16()?).ok().map(str::to_owned);
                let url = url.ok_or_else(|| r.corrupt("the URL of its data set is no text"))?;
                let packed = PackedSource { url, version: Some(r.u64()?).filter(|&version| version > 0) };
                packed.validate().map_err(|e| r.corrupt(&e.to_string()))?;
                Some(packed)
            }
            false => None,
        };
        let record = NamespaceRecord { name, durability, bytes_max, inodes_max, policy, trash_ms, packed };
        r.finish()?;
        Ok(record)
    }
}

impl Counters {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(COUNTERS_VERSION);
        out.put_u64(self.next_ino.0);
        out.put_u64(self.bytes);
        out.put_u64(self.inodes);
        out.put_u64(self.capabilities);
        out.put_u64(self.next_of_trash.0);
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Counters> {
        let mut r = Reader::new(bytes, "a namespace's counters");
        let version = r.version(COUNTERS_VERSION)?;
        let (next_ino, bytes, inodes) = (Ino(r.u64()?), r.u64()?, r.u64()?);
        let capabilities = if version >= 2 { r.u64()? } else { 0 };
        let next_of_trash = if version >= 3 { Ino(r.u64()?) } else { Ino(Ino::TRASH.0 + 1) };
        let counters = Counters { next_ino, bytes, inodes, capabilities, next_of_trash };
        if counters.next_ino <= Ino::ROOT || counters.next_of_trash <= Ino::TRASH {
            return Err(r.corrupt("its next inode number is impossible"));
        }
        r.finish()?;
        Ok(counters)
    }
}

impl Orphan {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(if matches!(self, Orphan::Kept { .. }) { ORPHAN_VERSION } else { VERSION });
        out.put_u8(match self {
            Orphan::LostName => 0,
            Orphan::Remains => 1,
            Orphan::NeverNamed => 2,
            Orphan::Kept { .. } => 3,
        });
        if let Orphan::Kept { dir, name } = self {
            out.put_u64(dir.0);
            out.put_u8(name.len() as u8);
            out.extend_from_slice(name);
        }
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Orphan> {
        let mut r = Reader::new(bytes, "an orphan's record");
        let version = r.version(ORPHAN_VERSION)?;
        let orphan = match r.u8()? {
            0 => Orphan::LostName,
            1 => Orphan::Remains,
            2 => Orphan::NeverNamed,
            3 if version >= 2 => {
                let (dir, n) = (Ino(r.u64()?), usize::from(r.u8()?));
                if n == 0 {
                    return Err(r.corrupt("its name is empty"));
                }
                Orphan::Kept { dir, name: Box::from(r.take(n)?) }
            }
            _ => return Err(r.corrupt("its state is unknown")),
        };
        r.finish()?;
        Ok(orphan)
    }
}
