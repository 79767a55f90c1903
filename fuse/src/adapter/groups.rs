//! The ids of a program that waits for an answer. A request has the first group only, and in a mount that may show other ids not even
//! the user; `/proc` has all, and they stay what they are while the program's thread waits. A mountpoint that shows other ids
//! has them otherwise; which one it was no request says. They decide about what is read ahead, and nothing else.

use std::fs;

/// What a request says that comes without ids.
const NONE: u32 = u32::MAX;

/// The user and all groups of a thread. Where it cannot be seen (it is of a container whose processes are not ours to see): the first one alone,
/// which may be less than it has, and never more.
pub(super) fn of(thread: u32, user: u32, first: u32) -> (u32, Vec<u32>) {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    // The fourth counts for files.
    let own = |line: &str, said: u32| match said {
        NONE => numbers(&status, line).nth(3).unwrap_or(NONE),
        _ => said,
    };
    let (user, first) = (own("Uid:", user), own("Gid:", first));
    let mut groups: Vec<u32> = numbers(&status, "Groups:").collect();
    if !groups.contains(&first) {
        groups.push(first);
    }
    (user, groups)
}

fn numbers<'a>(status: &'a str, name: &'a str) -> impl Iterator<Item = u32> + 'a {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().filter_map(|number| number.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_on_their_line() {
        let groups = |status: &str| numbers(status, "Groups:").collect::<Vec<_>>();
        assert_eq!(groups("Name:\tcat\nGid:\t1\t1\t1\t1\nGroups:\t4 27 1000 \nNStgid:\t1\n"), [4, 27, 1000]);
        assert_eq!(groups("Name:\tGroups: 5\nGroups:\t \n"), [0_u32; 0]);
        assert_eq!(of(0, 5, 7), (5, vec![7]), "there is no thread 0");
        assert_eq!(of(0, NONE, NONE), (NONE, vec![NONE]));
        let me = rustix::thread::gettid().as_raw_nonzero().get() as u32;
        let own = rustix::process::getgroups().unwrap();
        assert!(own.iter().all(|group| of(me, 1, 7).1.contains(&group.as_raw())));
        let (uid, gids) = of(me, NONE, NONE);
        assert_eq!(uid, rustix::process::geteuid().as_raw());
        assert!(gids.contains(&rustix::process::getegid().as_raw()));
    }
}
