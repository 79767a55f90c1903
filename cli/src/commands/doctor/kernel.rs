//! The kernel: its version, whether this process may mount, and what it offers to mounts.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use granary_fuse::mount::trial::{Offered, try_mount};

use super::Finding;
use crate::exit::plain;
use crate::settings::Settings;

/// Below it files of large mounts do not open.
const OPEN_FILES_MIN: u64 = 65_536;

/// The first kernel with a thing that makes something better.
const PASSTHROUGH: (u32, u32) = (6, 9);
const NAMES_KEPT: (u32, u32) = (6, 16);

pub fn version() -> Finding {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    judge_version(&release)
}

fn judge_version(release: &str) -> Finding {
    let found = format!("Linux {release}");
    match numbers(release) {
        None => {
            Finding::lacking("kernel", found, "its version cannot be read; what it offers is tried below")
        }
        Some(version) if version < (5, 4) => Finding::bad("kernel", found, "Linux 5.4 or later is needed"),
        Some(version) if version < PASSTHROUGH => Finding::lacking(
            "kernel",
            found,
            "Linux 6.9 or later reads and writes large files at the disk's speed (passthrough)",
        ),
        Some(version) if version < NAMES_KEPT => Finding::lacking(
            "kernel",
            found,
            "Linux 6.16 or later keeps names of namespaces that many nodes write; nothing to do for others",
        ),
        Some(_) => Finding::good("kernel", found),
    }
}

fn numbers(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Mounts for a moment.
pub fn mounting(settings: &Settings) -> Vec<Finding> {
    let backing = match Backing::make(&settings.cache) {
        Ok(backing) => backing,
        Err(e) => {
            return vec![Finding::bad(
                "mount",
                format!("not tried: {} cannot be written to: {}", settings.cache.display(), plain(&e)),
                "see the cache below",
            )];
        }
    };
    let dir = match Scratch::make() {
        Ok(dir) => dir,
        Err(e) => {
            let found = format!("not tried: no directory can be made in /run: {}", plain(&e));
            return vec![Finding::bad("mount", found, "run as root")];
        }
    };
    match try_mount(&dir.0, &backing.0) {
        Ok(offered) => judge_offer(&offered, &settings.cache),
        Err(e) => vec![Finding::failed("mount", &e)],
    }
}

fn judge_offer(offered: &Offered, cache: &Path) -> Vec<Finding> {
    let (major, minor) = offered.version;
    let passthrough = match (&offered.backing_refused, offered.passthrough) {
        (_, false) => Finding::lacking(
            "passthrough",
            "not offered by this kernel",
            "Linux 6.9 or later, with CONFIG_FUSE_PASSTHROUGH: large files then go past the node process",
        ),
        (Some(why), true) => Finding::lacking(
            "passthrough",
            format!("refused for files in {}: {why}", cache.display()),
            "it needs CAP_SYS_ADMIN, and a cache directory on a disk of its own, not on overlayfs",
        ),
        (None, true) => Finding::good("passthrough", format!("works for files in {}", cache.display())),
    };
    let uring = match offered.uring {
        true => Finding::good("io_uring", "offered (transport = auto or uring uses it)"),
        false => Finding::lacking(
            "io_uring",
            "not offered now",
            "Linux 6.14 or later: a mount with transport=auto switches it on; /dev/fuse is used until then",
        ),
    };
    vec![Finding::good("mount", format!("works, FUSE {major}.{minor}")), passthrough, uring]
}

pub fn open_files() -> Finding {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let found = limit.map_or_else(|| "no limit".to_owned(), |limit| format!("{limit} at most"));
    match limit {
        Some(limit) if limit < OPEN_FILES_MIN => Finding::lacking(
            "open files",
            found,
            format!(
                "raise the hard limit to {OPEN_FILES_MIN} or more (LimitNOFILE= of the unit, ulimit -Hn)"
            ),
        ),
        _ => Finding::good("open files", found),
    }
}

/// An unnamed file in the cache directory; gone when closed.
struct Backing(File);

impl Backing {
    fn make(cache: &Path) -> std::io::Result<Backing> {
        DirBuilder::new().recursive(true).mode(0o700).create(cache)?;
        tempfile::tempfile_in(cache).map(Backing)
    }
}

/// A directory for the mount; removed with its end.
struct Scratch(PathBuf);

impl Scratch {
    fn make() -> std::io::Result<Scratch> {
        let dir = PathBuf::from(format!("/run/granary-doctor.{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&dir)?;
        Ok(Scratch(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _best = std::fs::remove_dir(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn kernels() {
        for (release, state) in [
            ("6.18.5-cloud", State::Good),
            ("6.16", State::Good),
            ("6.12.1", State::Lacking),
            ("6.1.0-13-amd64", State::Lacking),
            ("5.3.18", State::Bad),
            ("new", State::Lacking),
        ] {
            assert_eq!(judge_version(release).state, state, "{release}");
        }
    }

    #[test]
    fn what_a_kernel_lacks_is_said() {
        let all = Offered { version: (7, 45), uring: true, passthrough: true, backing_refused: None };
        let states = |offered: &Offered| -> Vec<State> {
            judge_offer(offered, Path::new("/c")).iter().map(|finding| finding.state).collect()
        };
        assert_eq!(states(&all), [State::Good; 3]);
        let old = Offered { uring: false, passthrough: false, ..all.clone() };
        assert_eq!(states(&old), [State::Good, State::Lacking, State::Lacking]);
        let refused = Offered { backing_refused: Some("Too many levels".into()), ..all };
        let findings = judge_offer(&refused, Path::new("/c"));
        assert!(findings[1].state == State::Lacking && findings[1].found.contains("Too many levels"));
    }
}
