//! Processors, as the kernel numbers them.

use std::io;

use rustix::thread::CpuSet;

const POSSIBLE: &str = "/sys/devices/system/cpu/possible";

/// How many there can be: as many queues a connection has.
pub(super) fn possible() -> io::Result<usize> {
    let text = std::fs::read_to_string(POSSIBLE)
        .map_err(|e| io::Error::new(e.kind(), format!("cannot tell the processors ({POSSIBLE}): {e}")))?;
    count(&text)
        .ok_or_else(|| io::Error::other(format!("{POSSIBLE} says what is no list of processors: {text:?}")))
}

/// Of a list like `0-3,8`.
fn count(list: &str) -> Option<usize> {
    let mut n = 0_usize;
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
        n += usize::from(last.checked_sub(first)?) + 1;
    }
    Some(n)
}

/// Puts the calling thread on these processors. Where that is not allowed (a container with fewer) it stays where it is, and
/// requests are served from another processor.
pub(super) fn pin(queues: &[u16]) -> bool {
    let mut set = CpuSet::new();
    for &cpu in queues.iter().filter(|&&cpu| usize::from(cpu) < CpuSet::MAX_CPU) {
        set.set(usize::from(cpu));
    }
    rustix::thread::sched_setaffinity(None, &set).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_counted() {
        assert_eq!(count("0-1\n"), Some(2));
        assert_eq!(count("0"), Some(1));
        assert_eq!(count("0-3,8-11,16"), Some(9));
        for bad in ["", "a", "3-1", "0-", "0-70000"] {
            assert_eq!(count(bad), None, "{bad}");
        }
        assert!(possible().unwrap() >= 1);
    }
}
