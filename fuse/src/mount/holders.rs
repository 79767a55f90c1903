//! Who keeps a mount busy, found in `/proc`: working directories, roots, open files and mapped files. Nothing here asks the
//! mount itself, so it works where that hangs.

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::table::Mount;

/// At most so many are named in a message.
const NAMED_MAX: usize = 8;

/// A process that uses a mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub pid: u32,
    pub name: String,
    pub how: &'static str,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {}, {})", self.name, self.pid, self.how)
    }
}

/// All processes that this one may look at and that use `mount`, each once.
pub fn of(mount: &Mount) -> Vec<Holder> {
    let Ok(dir) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = dir.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let mut holders: Vec<Holder> = pids.filter_map(|pid| holder(pid, mount)).collect();
    holders.sort_by_key(|holder| holder.pid);
    holders
}

/// For a message: `bash (pid 12, working directory), python (pid 13, open file), and 3 more`.
pub fn list(holders: &[Holder]) -> String {
    if holders.is_empty() {
        return "processes that cannot be seen from here".to_owned();
    }
    let mut text = holders.iter().take(NAMED_MAX).map(Holder::to_string).collect::<Vec<_>>().join(", ");
    if holders.len() > NAMED_MAX {
        text.push_str(&format!(", and {} more", holders.len() - NAMED_MAX));
    }
    text
}

fn holder(pid: u32, mount: &Mount) -> Option<Holder> {
    let proc = Path::new("/proc").join(pid.to_string());
    let how = how(&proc, mount)?;
    let name = std::fs::read_to_string(proc.join("comm")).unwrap_or_default().trim().to_owned();
    Some(Holder { pid, name, how })
}

fn how(proc: &Path, mount: &Mount) -> Option<&'static str> {
    let within =
        |link: &str| std::fs::read_link(proc.join(link)).is_ok_and(|target| target.starts_with(&mount.path));
    if within("cwd") {
        return Some("working directory");
    }
    if within("root") {
        return Some("root directory");
    }
    let mount_id = format!("mnt_id:\t{}\n", mount.id);
    let infos = std::fs::read_dir(proc.join("fdinfo")).into_iter().flatten().flatten();
    for info in infos {
        if std::fs::read_to_string(info.path()).is_ok_and(|text| text.contains(&mount_id)) {
            return Some("open file");
        }
    }
    let device = format!(" {:02x}:{:02x} ", mount.major, mount.minor);
    let path = mount.path.as_os_str().as_bytes();
    let maps = std::fs::read(proc.join("maps")).unwrap_or_default();
    let mapped =
        maps.split(|&b| b == b'\n').any(|line| contains(line, device.as_bytes()) && contains(line, path));
    mapped.then_some("mapped file")
}

fn contains(line: &[u8], what: &[u8]) -> bool {
    line.windows(what.len()).any(|part| part == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_holders_are_counted_and_none_is_said() {
        let holders: Vec<Holder> =
            (1..=10).map(|pid| Holder { pid, name: "sh".into(), how: "open file" }).collect();
        let text = list(&holders);
        assert!(text.starts_with("sh (pid 1, open file), sh (pid 2"), "{text}");
        assert!(text.ends_with("and 2 more"), "{text}");
        assert!(list(&[]).contains("cannot be seen"));
    }

    #[test]
    fn this_process_holds_what_it_has_open() {
        let open = tempfile::tempfile().unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&open);
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
        let id: u64 = info.lines().find_map(|l| l.strip_prefix("mnt_id:")).unwrap().trim().parse().unwrap();
        let mount = super::super::table::read().unwrap().into_iter().find(|m| m.id == id).unwrap();
        let holders = of(&Mount { path: "/no/such/place".into(), ..mount });
        assert!(holders.iter().any(|h| h.pid == std::process::id() && h.how == "open file"), "{holders:?}");
    }
}
