//! What goes over the socket about `granary warmup`.

use serde::{Deserialize, Serialize};

use crate::exit::Failure;

/// What is done to each file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WarmWork {
    /// Fetched, if it is not on the node.
    #[default]
    Fetch,
    /// Looked at.
    Check,
    /// Dropped from the node.
    Evict,
    /// Fetched and kept, also when others read much; from now on, whatever is added there.
    Pin,
    /// No longer kept.
    Unpin,
}

/// `POST /v1/warmup`
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WarmRequest {
    /// A mounted directory, or something below one: absolute and without symbolic links.
    pub path: String,
    /// Only these, in this order: below `path` or absolute.
    #[serde(default)]
    pub files: Option<Vec<String>>,
    #[serde(default)]
    pub work: WarmWork,
    /// Answer at once; `GET /v1/warmups` tells how far it is.
    #[serde(default)]
    pub background: bool,
}

/// `POST /v1/warmups/cancel`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WarmCancelRequest {
    pub id: u64,
}

/// How far a warmup is, or what came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WarmStatus {
    pub id: u64,
    pub namespace: String,
    pub path: String,
    pub work: WarmWork,
    /// Regular files, and their bytes in extents, that were gone through.
    pub files: u64,
    pub bytes: u64,
    /// Of these, what is on this node: files as a whole, and bytes.
    pub files_here: u64,
    pub bytes_here: u64,
    /// Bytes that only another node has yet.
    pub bytes_elsewhere: u64,
    /// Bytes that came from the store.
    pub bytes_fetched: u64,
    /// Files and bytes in all, as far as they have been counted; and whether they have all been.
    pub files_total: u64,
    pub bytes_total: u64,
    pub counted: bool,
    /// Files and directories that the caller may not read.
    pub denied: u64,
    /// Files that could not be fetched, and why the first could not.
    pub failed: u64,
    pub first_failure: Option<String>,
    pub running_ms: u64,
    /// Over; without a failure it did all that it could.
    pub ended: bool,
    pub failure: Option<Failure>,
}

impl WarmStatus {
    /// Every byte of every file is on this node.
    pub fn is_complete(&self) -> bool {
        self.ended
            && self.failure.is_none()
            && self.failed + self.denied == 0
            && self.files_here == self.files
    }

    /// Of the bytes gone through, how many in a hundred are here, rounded down.
    pub fn percent_here(&self) -> u64 {
        if self.bytes == 0 {
            100
        } else {
            (u128::from(self.bytes_here) * 100 / u128::from(self.bytes)) as u64
        }
    }
}

/// A tree that is kept on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinStatus {
    pub namespace: String,
    /// As it was named when it was pinned.
    pub path: String,
    pub bytes: u64,
    /// Why not all of it is kept.
    pub error: Option<String>,
}

/// Lines of the answer; the last is `Done` or `Failed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WarmLine {
    Progress(WarmStatus),
    Done(WarmStatus),
    Failed(Failure),
}
