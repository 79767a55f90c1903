//! The nouns of metadata, as other crates see them. How they lie on disk is the business of `record`.

use std::sync::Arc;

pub use granary_core::policy::{NamespacePolicy, PolicyChange};
use granary_core::{
    Error, Ino, Kind, NamespaceId, NamespaceName, NodeId, ObjectId, ObjectKind, Result, Timestamp,
};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileType {
    File,
    Directory,
    Symlink,
    Fifo,
    Socket,
    CharDevice,
    BlockDevice,
}

/// An inode's attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attr {
    pub ino: Ino,
    pub kind: FileType,
    /// Permission bits, 0o7777.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub nlink: u32,
    /// Device number of device files, as Linux's `dev_t` (32 bits).
    pub rdev: u32,
    /// Bytes; for directories the number of entries times 32 or so, for symlinks the target's length.
    pub size: u64,
    /// Bytes that extents cover: what quota counts and `st_blocks` shows.
    pub stored: u64,
    pub atime: Timestamp,
    pub mtime: Timestamp,
    pub ctime: Timestamp,
    pub btime: Timestamp,
    /// Changes whenever content changes (commit, truncate); kernel pages of an older version are not kept.
    pub version: u64,
    /// Sequence of the last record of the node's stage log whose effect is in `extents` and `size` (0: none).
    /// Recovery replays later records only.
    pub staged_seq: u64,
}

/// Where an extent's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// In the payload of an object in the store, from this offset on.
    Object { kind: ObjectKind, id: ObjectId, offset: u64 },
    /// In a stage log segment of that node, payload at this offset of the segment file.
    Log { node: NodeId, segment: u64, offset: u64 },
    /// In that node's stage file of this inode, at the same offset as in the file.
    StageFile { node: NodeId },
}

/// `len` bytes of a file at `offset`. Ranges without extent, below the file's size, are zeros (a hole).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Extent {
    pub offset: u64,
    pub len: u64,
    pub place: Place,
    /// crc32c of the bytes when the extent was made whole; 0 with `Place::StageFile`, whose bytes still change, and for
    /// a part cut off a larger extent (objects have checksums per frame of their own).
    pub crc: u32,
}

impl Extent {
    pub fn end(&self) -> u64 {
        self.offset + self.len
    }
}

/// One entry of a directory listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    pub name: Vec<u8>,
    pub ino: Ino,
    pub kind: FileType,
    /// Pass it to `readdir` to go on after this entry. Stays valid while other entries come and go.
    pub cookie: u64,
    /// With attributes when asked for.
    pub attr: Option<Attr>,
}

/// What setattr changes; `None` stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttr {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<Timestamp>,
    pub mtime: Option<Timestamp>,
    /// Only with `size`: the stage log's sequence number of the truncation.
    pub staged_seq: Option<u64>,
    /// Somebody without privileges is about to change the content: setuid, setgid (of a file that its group may execute) and
    /// file capabilities go. A change of owner does the same by itself, unless it says the mode.
    pub kill_priv: bool,
    /// The file was read at this time: atime goes forward to it, and ctime stays.
    pub accessed: Option<Timestamp>,
}

/// How rename treats an existing target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RenameMode {
    Replace,
    NoReplace,
    Exchange,
}

/// What is to be made by `create`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewInode {
    pub kind: FileType,
    /// Permission bits as they were asked for.
    pub mode: u32,
    /// Taken off the mode, where the directory has no default ACL; 0 when the kernel has applied it.
    pub umask: u32,
    pub uid: u32,
    /// Replaced by the directory's group when that has the setgid bit (a new directory inherits the bit too).
    pub gid: u32,
    pub rdev: u32,
    /// Symlinks only.
    pub target: Vec<u8>,
}

/// New content of one file, made visible at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    pub ino: Ino,
    pub size: u64,
    pub mtime: Timestamp,
    /// When it was changed, not when that is told; a later change of the inode stays.
    pub ctime: Timestamp,
    /// Each replaces whatever the file had in its range.
    pub extents: Vec<Extent>,
    /// Ranges `(offset, len)` that became holes, applied before `extents`.
    pub holes: Vec<(u64, u64)>,
    pub staged_seq: u64,
}

/// One extent's way from the stage into an object. Takes effect only where the file still has exactly `from`'s place at
/// those offsets (or part of it: the parts that are left move).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    pub ino: Ino,
    /// The staged extent as it was when its bytes were read for the upload.
    pub from: Extent,
    /// Where in the object's payload its first byte went.
    pub to_offset: u64,
}

/// A copy of a tiny file's whole content, beside its inode. The object that has the bytes stays the truth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inline {
    /// [`Attr::version`] of the content that it is of.
    pub version: u64,
    /// crc32c of the bytes.
    pub crc: u32,
    /// From 1 to [`granary_core::limits::INLINE_BYTES_MAX`].
    pub bytes: Arc<[u8]>,
}

impl Inline {
    /// Whether the bytes are those that were put.
    pub fn is_sound(&self) -> bool {
        granary_core::crc32c(&self.bytes) == self.crc
    }
}

/// A copy of the bytes of a file whose whole content they are, for the metadata to keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewInline {
    pub ino: Ino,
    /// Where in the object's payload they are.
    pub at: u64,
    /// crc32c of the bytes.
    pub crc: u32,
    pub bytes: Arc<[u8]>,
}

/// A copy by reference; see [`crate::Metadata::copy_range`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyRange {
    pub from: Ino,
    pub from_offset: u64,
    pub to: Ino,
    pub to_offset: u64,
    pub len: u64,
    /// Sequence of the record that says so in the stage log of the node that copies; 0: none.
    pub staged_seq: u64,
}

/// What a copy by reference did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    pub len: u64,
    /// Of `to`, after it.
    pub attr: Attr,
}

/// Bytes of a node's stage log that its disk may lose with the power.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redo {
    /// Segment of the log, and the offset in it.
    pub segment: u64,
    pub offset: u64,
    pub bytes: std::sync::Arc<[u8]>,
}

/// An object in the store, as metadata knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    pub id: ObjectId,
    pub kind: ObjectKind,
    /// Bytes of files in it.
    pub payload_len: u64,
    /// Bytes of the whole object as it is stored: fewer than those of the payload if it is compressed, more if not.
    pub total_len: u64,
}

/// An object nothing refers to any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadObject {
    pub object: ObjectInfo,
    pub since: Timestamp,
}

/// An object with bytes of files in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveObject {
    pub object: ObjectInfo,
    /// How many bytes of files are in it; not 0.
    pub live: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// What lies in the trash is not counted here.
    pub bytes: u64,
    pub inodes: u64,
    /// 0: no limit.
    pub bytes_max: u64,
    pub inodes_max: u64,
    /// What lies in the trash, with the directories there.
    #[serde(default)]
    pub trash_bytes: u64,
    #[serde(default)]
    pub trash_inodes: u64,
}

/// How long what was removed stays in the trash where nothing else is asked for: a day.
pub const TRASH_MS_DEFAULT: u64 = 86_400_000;
const TRASH_MS_MIN: u64 = 1_000;
const TRASH_MS_MAX: u64 = 366 * TRASH_MS_DEFAULT;

/// `Invalid` for what [`NewNamespace::trash_ms`] cannot be.
pub fn check_trash_ms(ms: u64) -> Result<()> {
    if ms == 0 || (TRASH_MS_MIN..=TRASH_MS_MAX).contains(&ms) {
        return Ok(());
    }
    Err(Error::new(
        Kind::Invalid,
        format!("trash_ms = {ms} cannot work; give 0 for no trash, or from {TRASH_MS_MIN} to {TRASH_MS_MAX}"),
    ))
}

/// Where acknowledged fsyncs are safe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// On the node's disk.
    #[default]
    Local,
    /// In the store and the metadata.
    Object,
}

/// Bytes of the longest URL of a packed data set.
pub const PACKED_URL_BYTES_MAX: usize = 2048;

/// A packed data set, which a namespace shows as its tree. The metadata knows where it is, and none of its files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackedSource {
    /// `s3://bucket/prefix` or `file:///path`.
    pub url: String,
    /// The version that is shown; `None`: the newest at each mount. Versions are numbered from 1.
    #[serde(default)]
    pub version: Option<u64>,
}

impl PackedSource {
    /// Whether it can be kept; whether it can be read, only who opens it finds out.
    ///
    /// Errors: `Invalid` says what is wrong.
    pub fn validate(&self) -> Result<()> {
        let why = match (self.url.len(), self.version) {
            (0, _) => "its URL is empty; give s3://bucket/prefix or file:///path".to_owned(),
            (n, _) if n > PACKED_URL_BYTES_MAX => {
                format!("its URL has {n} bytes, {PACKED_URL_BYTES_MAX} are allowed")
            }
            (_, Some(0)) => "versions are numbered from 1; leave it out for the newest".to_owned(),
            _ => return Ok(()),
        };
        Err(Error::new(Kind::Invalid, format!("the packed data set cannot be shown: {why}")))
    }
}

/// A namespace, as `granary ns` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceInfo {
    #[serde(skip, default = "NamespaceInfo::no_id")]
    pub id: NamespaceId,
    #[serde(with = "name_as_text")]
    pub name: NamespaceName,
    pub uid: u32,
    pub gid: u32,
    /// Mode of the root directory.
    pub mode: u32,
    pub durability: Durability,
    /// How its writes reach the store, where it does not leave that to each node's limits.
    #[serde(default)]
    pub policy: NamespacePolicy,
    /// How long what was removed stays in the trash; 0: there is none.
    #[serde(default)]
    pub trash_ms: u64,
    /// What it shows instead of files of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packed: Option<PackedSource>,
    pub usage: Usage,
}

impl NamespaceInfo {
    pub fn write_settings(&self) -> WriteSettings {
        WriteSettings { durability: self.durability, policy: self.policy }
    }

    fn no_id() -> NamespaceId {
        NamespaceId(0)
    }
}

/// What `granary ns create` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewNamespace {
    pub name: NamespaceName,
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
    pub bytes_max: u64,
    pub inodes_max: u64,
    pub durability: Durability,
    /// How long what was removed stays in the trash, [`TRASH_MS_DEFAULT`] where nothing else is asked for; 0: there is none.
    pub trash_ms: u64,
    /// A packed data set to show, read-only, instead of files of its own. It stays as it is for the namespace's life.
    pub packed: Option<PackedSource>,
}

/// What `granary ns set` changes; `None` stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamespaceChange {
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub mode: Option<u32>,
    pub bytes_max: Option<u64>,
    pub inodes_max: Option<u64>,
    pub durability: Option<Durability>,
    #[serde(default)]
    pub policy: PolicyChange,
    #[serde(default)]
    pub trash_ms: Option<u64>,
}

/// What of a namespace's settings decides how its writes reach the store. It may change at any moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteSettings {
    pub durability: Durability,
    pub policy: NamespacePolicy,
}

/// A volume, written once by `granary init`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeInfo {
    /// 32 hexadecimal digits, also in the store's marker object, so that the two cannot be mixed up.
    pub uuid: String,
    pub store_url: String,
    pub created_unix_ms: u64,
}

mod name_as_text {
    use granary_core::NamespaceName;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(name: &NamespaceName, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(name.as_str())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<NamespaceName, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}
