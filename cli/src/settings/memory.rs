//! Memory that this process may use, as the kernel says it: of its control group, and of the machine.
//!
//! | file | what is read |
//! |---|---|
//! | `/proc/self/cgroup` | `0::/PATH` (version 2), `N:memory:/PATH` (version 1) |
//! | `/sys/fs/cgroup/PATH/memory.max` | version 2: bytes, or `max` |
//! | `/sys/fs/cgroup/memory/PATH/memory.limit_in_bytes` | version 1: bytes; near 2^63 when there is none |
//! | `/proc/meminfo` | `MemTotal: N kB` |
//!
//! The limits of all groups above count too. In a container the path may be the host's while the files are the container's: what
//! is not there is passed over, and the container's own group is found at the top. Source: Linux, "Control Group v2" and
//! "Memory Resource Controller", cgroups(7).

use std::path::Path;

use granary_core::budget::memory_share;

/// Longest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Bytes for data in flight of this process.
pub(super) fn share_of_process() -> u64 {
    let root = Path::new("/");
    memory_share(group(root), machine(root).unwrap_or(0))
}

/// The least limit of the process's groups.
fn group(root: &Path) -> Option<u64> {
    let groups = read(&root.join("proc/self/cgroup"))?;
    groups.lines().filter_map(|line| of_line(&root.join("sys/fs/cgroup"), line)).min()
}

fn of_line(mounted: &Path, line: &str) -> Option<u64> {
    let mut fields = line.splitn(3, ':');
    let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    let (top, file) = match controllers {
        "" => (mounted.to_owned(), "memory.max"),
        list if list.split(',').any(|name| name == "memory") => {
            (mounted.join("memory"), "memory.limit_in_bytes")
        }
        _ => return None,
    };
    let groups = Path::new(path.trim_start_matches('/')).ancestors();
    groups.filter_map(|group| read(&top.join(group).join(file))?.trim().parse().ok()).min()
}

fn machine(root: &Path) -> Option<u64> {
    let text = read(&root.join("proc/meminfo"))?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    total.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn read(path: &Path) -> Option<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path).ok()?.take(FILE_BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn the_least_limit_of_all_groups_above_counts() {
        let v2 = tree(&[
            ("proc/self/cgroup", "0::/system.slice/granary.service\n"),
            ("sys/fs/cgroup/system.slice/granary.service/memory.max", "max\n"),
            ("sys/fs/cgroup/system.slice/memory.max", "1073741824\n"),
            ("proc/meminfo", "MemFree: 1 kB\nMemTotal:       16777216 kB\n"),
        ]);
        assert_eq!((group(v2.path()), machine(v2.path())), (Some(1 << 30), Some(16 << 30)));
        let v1 = tree(&[
            ("proc/self/cgroup", "5:cpu,memory:/pod/a\n4:cpuset:/\n0::/\n"),
            ("sys/fs/cgroup/memory/pod/a/memory.limit_in_bytes", "536870912\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ]);
        assert_eq!(group(v1.path()), Some(512 << 20));
    }

    #[test]
    fn in_a_container_the_limit_is_found_at_the_top_and_nothing_is_no_limit() {
        let container = tree(&[
            ("proc/self/cgroup", "0::/kubepods/pod1/x\n"),
            ("sys/fs/cgroup/memory.max", "268435456\n"),
        ]);
        assert_eq!(group(container.path()), Some(256 << 20));
        for files in [
            &[][..],
            &[("proc/self/cgroup", "garbage\n0::/../..\n::::\n")],
            &[("proc/self/cgroup", "0::/a\n"), ("sys/fs/cgroup/a/memory.max", "max\n")],
        ] {
            let tree = tree(files);
            assert_eq!((group(tree.path()), machine(tree.path())), (None, None), "{files:?}");
        }
    }

    #[test]
    fn this_machine_has_memory() {
        assert!(machine(Path::new("/")).unwrap() > 64 << 20);
        assert!(share_of_process() >= 64 << 20);
    }
}
