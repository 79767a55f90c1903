//! Parts of the work.

use clap::ValueEnum;

/// Parts that can be run alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Group {
    /// Small files are made
    Small,
    /// Small files, warm: open + read + close, stat; both mount modes
    Read,
    /// 4 KiB and fsync
    Fsync,
    /// One large file: written, read from disk and page cache, at random places, mapped, overwritten; both mount modes
    Large,
    /// A real tree: untar, find, objects, cold read, memory
    Tree,
    /// ls -l of 100,000 entries; both mount modes
    List,
    /// An epoch over files of 100 KiB, and one large file, with nothing on the node, beside raw GETs
    Cold,
    /// The same over a store that is slow: 30 ms to the first byte, and 1 % of requests 2 s
    Slow,
    /// Ten processes read one data set on one node: what the store is asked for
    Sharing,
    /// The node's memory while very many files are walked and very much is read
    Memory,
    /// Processor time for each GiB read
    Cpu,
    /// The drain's rate beside raw PUTs
    Drain,
    /// The node's memory while very many files are made; runs only when asked for
    Million,
    /// How long a node takes to come back after kill -9 with much that is not stored; runs only when asked for
    Recovery,
}

impl Group {
    /// What runs when nothing is asked for: over a folder, not what is about a store.
    pub fn usual(over_s3: bool) -> Vec<Group> {
        let all = <Group as ValueEnum>::value_variants().iter().copied();
        all.filter(|group| match group {
            Group::Million | Group::Recovery => false,
            Group::Cold | Group::Slow | Group::Sharing | Group::Cpu | Group::Drain => over_s3,
            _ => true,
        })
        .collect()
    }

    /// Whether it goes through a proxy before the store.
    pub fn needs_s3(self) -> bool {
        matches!(self, Group::Slow | Group::Sharing)
    }
}
