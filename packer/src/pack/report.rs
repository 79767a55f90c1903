//! What a pack tells of itself.

/// What a pack did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The version that has it all.
    pub version: u64,
    pub data_set: [u8; 16],
    /// Shards made now, and found made by a pack that was stopped.
    pub shards_made: u64,
    pub shards_found: u64,
    /// Of the new shards.
    pub files: u64,
    pub links: u64,
    pub directories: u64,
    pub samples: u64,
    pub payload_bytes: u64,
    pub tar_bytes: u64,
    /// Files that the data set had already, as they are.
    pub unchanged: u64,
    pub replaced: u64,
    pub skipped: u64,
    /// Whether every byte was read back.
    pub verified: bool,
    pub deleted: u64,
    /// Files that were to be deleted and stay, because they are no longer what was packed.
    pub kept: u64,
    /// Sorted runs that went to the work directory.
    pub spills: u64,
    /// Requests to the stores of source and place that were sent again, because an attempt had failed.
    pub retries: u64,
}
