//! Programs run for the benchmark, and processes looked at in /proc.

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::clock::Stopwatch;

/// Runs a program to its end and gives what it printed. Its output goes through a file, not a pipe: daemons that it leaves
/// behind may hold it open. An error holds the program's own words.
pub fn run(command: &mut Command) -> Result<String> {
    let mut out = tempfile::tempfile()?;
    let status = command
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out.try_clone()?)
        .status()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    let mut words = Vec::new();
    out.rewind()?;
    out.read_to_end(&mut words)?;
    let words = String::from_utf8_lossy(&words).trim_end().to_owned();
    if !status.success() {
        bail!("{command:?} failed ({status}): {words}");
    }
    Ok(words)
}

/// Writes back everything dirty and empties the kernel's page, name and inode caches.
pub fn drop_caches() -> Result<()> {
    rustix::fs::sync();
    fs::write("/proc/sys/vm/drop_caches", "3")
        .context("cannot drop the page cache (/proc/sys/vm/drop_caches): cold figures need the right to")
}

/// Memory of a process, KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    pub rss_kib: u64,
    pub peak_kib: u64,
}

fn parse_memory(status: &str) -> Memory {
    let field = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name));
        line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    };
    Memory { rss_kib: field("VmRSS:"), peak_kib: field("VmHWM:") }
}

/// Processes whose arguments or environment hold `mark`, a path that only the benchmark uses. Not this process.
pub fn marked(mark: &Path) -> Vec<Pid> {
    let mark = mark.as_os_str().as_encoded_bytes();
    let holds = |file: &Path| fs::read(file).is_ok_and(|b| b.windows(mark.len()).any(|w| w == mark));
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|e| {
            let path = e.ok()?.path();
            let pid = Pid::from_raw(path.file_name()?.to_str()?.parse().ok()?)?;
            let ours = pid != rustix::process::getpid()
                && (holds(&path.join("cmdline")) || holds(&path.join("environ")));
            ours.then_some(pid)
        })
        .collect()
}

/// The sum over the processes marked, each counted once.
pub fn memory(mark: &Path) -> Result<Memory> {
    let mut sum = Memory::default();
    for pid in marked(mark) {
        let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap_or_default();
        let m = parse_memory(&status);
        sum = Memory { rss_kib: sum.rss_kib + m.rss_kib, peak_kib: sum.peak_kib + m.peak_kib };
    }
    if sum.rss_kib == 0 {
        bail!("no process names {}", mark.display());
    }
    Ok(sum)
}

/// `USER_HZ`: what the kernel counts times in for programs, on x86 and ARM.
const TICKS_A_SECOND: f64 = 100.0;

/// User and system time, in seconds, of the processes marked, with that of their children that ended.
pub fn cpu_seconds(mark: &Path) -> f64 {
    let ticks = |pid: Pid| {
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
        parse_ticks(&stat)
    };
    marked(mark).into_iter().map(ticks).sum::<u64>() as f64 / TICKS_A_SECOND
}

/// utime, stime, cutime and cstime: from the 14th field on, counted behind the name, which may hold anything (proc_pid_stat(5)).
fn parse_ticks(stat: &str) -> u64 {
    let Some((_, rest)) = stat.rsplit_once(')') else { return 0 };
    rest.split_whitespace().skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum()
}

/// Ends the processes marked that did not end by themselves within `patience_s`.
pub fn end_marked(mark: &Path, patience_s: f64) {
    let watch = Stopwatch::start();
    loop {
        let left = marked(mark);
        if left.is_empty() {
            return;
        }
        let late = watch.seconds() - patience_s;
        if late > 0.0 {
            for pid in left {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        if late > 5.0 {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// Whether a file system is mounted at `path`.
pub fn is_mounted(path: &Path) -> bool {
    let mut table = String::new();
    let _ = File::open("/proc/self/mounts").and_then(|mut f| f.read_to_string(&mut table));
    table.lines().any(|l| l.split(' ').nth(1).is_some_and(|p| Path::new(p) == path))
}

/// Takes away what is mounted at `path`, however busy.
pub fn force_unmount(path: &Path) {
    if is_mounted(path) {
        let _ = rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_carry_the_programs_words() {
        assert_eq!(run(Command::new("sh").args(["-c", "echo a; echo b >&2"])).unwrap(), "a\nb");
        let e = run(Command::new("sh").args(["-c", "echo no room; exit 3"])).unwrap_err().to_string();
        assert!(e.contains("no room") && e.contains('3'), "{e}");
    }

    #[test]
    fn memory_is_read_from_the_status_file() {
        let text = "Name:\tx\nVmHWM:\t  2048 kB\nVmRSS:\t  1024 kB\n";
        assert_eq!(parse_memory(text), Memory { rss_kib: 1024, peak_kib: 2048 });
    }

    #[test]
    fn processor_time_is_read_from_the_stat_file() {
        assert_eq!(parse_ticks("7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 30 12 5 1 20 0 1 0 99"), 48);
        assert_eq!(parse_ticks(""), 0);
    }

    #[test]
    fn a_marked_process_is_found_measured_and_ended() {
        let mark = tempfile::tempdir().unwrap();
        let mut child = Command::new("sleep").arg("600").env("MARK", mark.path()).spawn().unwrap();
        while marked(mark.path()).is_empty() {
            std::thread::yield_now();
        }
        assert!(memory(mark.path()).unwrap().rss_kib > 0);
        let reaper = std::thread::spawn(move || child.wait().unwrap());
        end_marked(mark.path(), 0.0);
        assert!(!reaper.join().unwrap().success());
        assert!(marked(mark.path()).is_empty());
    }
}
