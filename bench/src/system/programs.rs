//! The binaries measured.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;

use super::{GRANARY, JUICEFS, RCLONE, S3FS};
use crate::process::run;

/// A file system beside Granary and ext4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Peer {
    Juicefs,
    S3fs,
    Rclone,
}

#[derive(Clone, Debug)]
pub struct Programs {
    pub granary: PathBuf,
    pub juicefs: Option<PathBuf>,
    pub s3fs: Option<PathBuf>,
    pub rclone: Option<PathBuf>,
}

impl Programs {
    /// Granary and those of `peers` that can be measured; and why others cannot.
    pub fn choose(
        granary: PathBuf,
        peers: &[Peer],
        binary: impl Fn(Peer) -> PathBuf,
        over_s3: bool,
    ) -> (Programs, Vec<String>) {
        let mut notes = Vec::new();
        let mut choose = |peer: Peer, name: &str, needs_s3: bool| {
            if !peers.contains(&peer) {
                return None;
            }
            if needs_s3 && !over_s3 {
                notes.push(format!("{name} is left out: it needs an S3 store (--store ceph)."));
                return None;
            }
            let binary = binary(peer);
            match run(Command::new(&binary).arg("--version")) {
                Ok(_) => Some(binary),
                Err(error) => {
                    notes.push(format!("{name} is left out: it cannot be run here: {error:#}."));
                    None
                }
            }
        };
        let juicefs = choose(Peer::Juicefs, "JuiceFS", false);
        let s3fs = choose(Peer::S3fs, "s3fs", true);
        let rclone = choose(Peer::Rclone, "rclone", true);
        (Programs { granary, juicefs, s3fs, rclone }, notes)
    }

    /// What each says of itself.
    pub fn versions(&self) -> BTreeMap<&'static str, String> {
        let says = |binary: &Path, argument: &str| {
            let said = run(Command::new(binary).arg(argument)).unwrap_or_default();
            said.lines().next().unwrap_or("says nothing of its version").to_owned()
        };
        let mut versions = BTreeMap::from([(GRANARY, says(&self.granary, "version"))]);
        for (name, binary) in [(JUICEFS, &self.juicefs), (S3FS, &self.s3fs), (RCLONE, &self.rclone)] {
            versions.extend(binary.as_deref().map(|binary| (name, says(binary, "--version"))));
        }
        versions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_cannot_be_had_is_told() {
        let binary = |peer| PathBuf::from(if peer == Peer::Rclone { "/no/such/rclone" } else { "true" });
        let all = [Peer::Juicefs, Peer::S3fs, Peer::Rclone];
        let (programs, notes) = Programs::choose("true".into(), &all, binary, true);
        assert!(programs.juicefs.is_some() && programs.s3fs.is_some() && programs.rclone.is_none());
        assert!(
            notes.len() == 1 && notes[0].contains("rclone") && notes[0].contains("/no/such"),
            "{notes:?}"
        );

        let (programs, notes) = Programs::choose("true".into(), &all, binary, false);
        assert!(programs.juicefs.is_some() && programs.s3fs.is_none());
        assert_eq!(notes.len(), 2);
        assert!(notes.iter().all(|note| note.contains("S3 store")), "{notes:?}");

        let (programs, notes) = Programs::choose("true".into(), &[], binary, true);
        assert!(programs.juicefs.is_none() && notes.is_empty());
        assert_eq!(programs.versions().len(), 1);
    }
}
