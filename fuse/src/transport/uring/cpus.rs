//! Processors, as the kernel numbers them.

use std::io;

use rustix::thread::CpuSet;

const POSSIBLE: &str = "/sys/devices/system/cpu/possible";
const ONLINE: &str = "/sys/devices/system/cpu/online";

/// How many there can be: as many queues a connection has.
pub(super) fn possible() -> io::Result<usize> {
    Ok(read(POSSIBLE)?.len())
}

fn read(path: &str) -> io::Result<Vec<u16>> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| io::Error::new(e.kind(), format!("cannot tell the processors ({path}): {e}")))?;
    parse(&text)
        .ok_or_else(|| io::Error::other(format!("{path} says what is no list of processors: {text:?}")))
}

/// A list like `0-3,8`.
fn parse(list: &str) -> Option<Vec<u16>> {
    let mut all = Vec::new();
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
        last.checked_sub(first)?;
        all.extend(first..=last);
    }
    Some(all)
}

/// Puts the calling thread on the processors of its queues. Fails where one of them runs programs and not this process (a
/// container with fewer processors than the machine): its queue could not be set going.
pub(super) fn settle(queues: &[u16]) -> io::Result<()> {
    let online = read(ONLINE)?;
    for &cpu in queues.iter().filter(|cpu| online.contains(cpu)) {
        if !pin(&[cpu]) {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!(
                    "this process may not run on processor {cpu}, whose programs' requests it is to serve; it needs \
                     all of the machine (cpuset.cpus), or mount with -o transport=dev"
                ),
            ));
        }
    }
    // Where all of them are offline it stays where it is, and has nothing to do.
    pin(queues);
    Ok(())
}

/// Puts the calling thread on these processors; false where it may run on none of them.
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
    fn lists_are_read() {
        assert_eq!(parse("0-1\n"), Some(vec![0, 1]));
        assert_eq!(parse("0"), Some(vec![0]));
        assert_eq!(parse("0-3,8-9,16"), Some(vec![0, 1, 2, 3, 8, 9, 16]));
        for bad in ["", "a", "3-1", "0-", "0-70000"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert!(possible().unwrap() >= 1);
        assert!(settle(&read(ONLINE).unwrap()).is_ok());
    }
}
