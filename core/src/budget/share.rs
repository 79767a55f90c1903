//! How much memory data in flight may take where nobody says so.

/// What a working process needs: packs being built, a few fetches of 4 MiB.
const BYTES_MIN: u64 = 64 << 20;
/// What 10 GB/s at 30 ms need (300 MB), for reading ahead (which takes half at most) and some uploads.
const BYTES_MAX: u64 = 1 << 30;
/// One part in so many of a control group's limit: the rest is for what grows with files and connections, and for the page
/// cache of what the process reads, which counts as the group's.
const GROUP_PART: u64 = 4;
/// One part in so many of the machine's memory: a machine is there for the programs that read. 16 GiB give 256 MiB.
const MACHINE_PART: u64 = 64;

/// Bytes for data in flight on a machine with `machine` bytes of memory, in a control group that may use `group` bytes
/// (`None`: as many as it likes).
pub fn memory_share(group: Option<u64>, machine: u64) -> u64 {
    let of_group = group.map_or(u64::MAX, |bytes| bytes / GROUP_PART);
    (machine / MACHINE_PART).min(of_group).clamp(BYTES_MIN, BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tighter_of_group_and_machine_counts() {
        for (group, machine, mebibytes) in [
            (None, 16 << 30, 256),
            (None, 256 << 30, 1024),
            (None, 1 << 30, 64),
            (None, 0, 64),
            (Some(512 << 20), 256 << 30, 128),
            (Some(128 << 20), 256 << 30, 64),
            (Some(64 << 30), 16 << 30, 256),
            (Some(u64::MAX), u64::MAX, 1024),
        ] {
            assert_eq!(memory_share(group, machine), mebibytes << 20, "{group:?} {machine}");
        }
    }
}
