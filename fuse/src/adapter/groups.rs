//! The groups of a program that waits for an answer. A request has the first of them only; `/proc` has all, and they stay what they
//! are while the program's thread waits.

use std::fs;

/// All groups of a thread. Where it cannot be seen (it is of a container whose processes are not ours to see): the first one alone,
/// which may be less than it has, and never more.
pub(super) fn of(thread: u32, first: u32) -> Vec<u32> {
    let mut groups = fs::read_to_string(format!("/proc/{thread}/status")).map_or(Vec::new(), |s| parse(&s));
    if !groups.contains(&first) {
        groups.push(first);
    }
    groups
}

fn parse(status: &str) -> Vec<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
    line.split_whitespace().filter_map(|group| group.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_on_their_line() {
        assert_eq!(parse("Name:\tcat\nGid:\t1\t1\t1\t1\nGroups:\t4 27 1000 \nNStgid:\t1\n"), [4, 27, 1000]);
        assert_eq!(parse("Name:\tGroups: 5\nGroups:\t \n"), [0_u32; 0]);
        assert_eq!(of(0, 7), [7], "there is no thread 0");
        let me = rustix::thread::gettid().as_raw_nonzero().get() as u32;
        let own = rustix::process::getgroups().unwrap();
        assert!(own.iter().all(|group| of(me, 7).contains(&group.as_raw())));
    }
}
