//! What `-o` takes, for `granary mount` and for `mount -t fuse.granary` with what fstab passes.

use granary_core::{Error, Kind, NamespaceKind, Result};
use rustix::mount::MountFlags;

use super::idmap::{self, IdMap};
use crate::transport::Transport;
use crate::vfs::{Atime, Mode};

/// Threads that read requests: the default is one per core within these bounds.
const THREADS_MIN: usize = 2;
const THREADS_MAX: usize = 8;
const THREADS_ALLOWED: usize = 64;

/// How a namespace is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountOptions {
    /// `mode=work|data`; `None`, as with `mode=auto`: see [`MountOptions::mode_for`].
    pub mode: Option<Mode>,
    pub read_only: bool,
    /// Honour set-user-id bits; off by default.
    pub suid: bool,
    /// Honour device files; off by default.
    pub dev: bool,
    pub exec: bool,
    /// When reading sets a file's time of last access: never by default.
    pub atime: Atime,
    /// Keep access control lists; on by default.
    pub acl: bool,
    /// Allow a mountpoint that is not empty.
    pub nonempty: bool,
    /// Mountpoints of this mount may show other ids. Requests then come without the ids of who asks, but where something is made.
    pub idmap: bool,
    /// Which ids this one shows.
    pub ids: IdMap,
    /// What a killed process left mounted there is mounted over, not removed: mount namespaces that follow this one see it.
    pub over_dead: bool,
    /// Which way requests come, where the option says it.
    pub transport: Option<Transport>,
    /// Threads that read requests, where they come through `/dev/fuse`.
    pub threads: usize,
}

impl Default for MountOptions {
    fn default() -> MountOptions {
        let cores = std::thread::available_parallelism().map_or(THREADS_MIN, usize::from);
        MountOptions {
            mode: None,
            read_only: false,
            suid: false,
            dev: false,
            exec: true,
            atime: Atime::Never,
            acl: true,
            nonempty: false,
            idmap: false,
            ids: IdMap::default(),
            over_dead: false,
            transport: None,
            threads: cores.clamp(THREADS_MIN, THREADS_MAX),
        }
    }
}

impl MountOptions {
    /// Whether this word is an option of the mount itself that is given with a value, as `mode=data`.
    pub fn takes_value(name: &str) -> bool {
        ["mode", "threads", "transport", "map_uid", "map_gid", "map_group"].contains(&name)
    }

    /// Parses `ro,mode=data,...`; may be empty. `Invalid` names the option and what would do.
    pub fn parse(text: &str) -> Result<MountOptions> {
        let mut options = MountOptions::default();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match word.split_once('=') {
                None => options.flag(word)?,
                Some(("mode", value)) => options.mode = parse_mode(value)?,
                Some(("transport", value)) => options.transport = Some(parse_transport(value)?),
                Some(("threads", value)) => options.threads = parse_threads(value)?,
                Some(("map_uid", value)) => options.ids.uid = Some(parse_id(word, value)?),
                Some(("map_gid", value)) => options.ids.gid = Some(parse_id(word, value)?),
                Some(("map_group", value)) => options.ids.group = Some(parse_id(word, value)?),
                // For mount(8), systemd and people.
                Some((key, _)) if key == "comment" || key.starts_with("x-") || key.starts_with("X-") => {}
                Some(("uid" | "gid" | "umask" | "fmask" | "dmask", _)) => {
                    return bad(word, "owner and mode belong to the namespace: use `granary ns set`");
                }
                Some(_) => return unknown(word),
            }
        }
        Ok(options)
    }

    /// How a namespace of this kind is mounted: as the option says, else by what it is used for. What nobody writes through the
    /// mount, and data sets, are mostly read; elsewhere large files are to be written at the disk's speed.
    pub fn mode_for(&self, kind: NamespaceKind) -> Mode {
        let is_read = self.read_only || kind == NamespaceKind::Dataset;
        self.mode.unwrap_or(if is_read { Mode::Data } else { Mode::Work })
    }

    fn flag(&mut self, word: &str) -> Result<()> {
        match word {
            "ro" => self.read_only = true,
            "rw" => self.read_only = false,
            "suid" => self.suid = true,
            "nosuid" => self.suid = false,
            "dev" => self.dev = true,
            "nodev" => self.dev = false,
            "exec" => self.exec = true,
            "noexec" => self.exec = false,
            "atime" | "relatime" => self.atime = Atime::Relative,
            "strictatime" => self.atime = Atime::Strict,
            "noatime" => self.atime = Atime::Never,
            "acl" => self.acl = true,
            "noacl" => self.acl = false,
            "nonempty" => self.nonempty = true,
            "idmap" => self.idmap = true,
            "over_dead" => self.over_dead = true,
            // What holds anyway, or concerns only mount(8), systemd and fstab.
            "defaults"
            | "_netdev"
            | "user"
            | "users"
            | "nouser"
            | "owner"
            | "group"
            | "auto"
            | "noauto"
            | "nofail"
            | "async"
            | "allow_other"
            | "default_permissions"
            | "nodiratime"
            | "diratime"
            | "norelatime" => {}
            _ if MountOptions::takes_value(word) => {
                return bad(
                    word,
                    "it needs a value, for example mode=data, threads=4, transport=dev or map_uid=1000",
                );
            }
            "sync" | "dirsync" => {
                return bad(word, "synchronous mounts are not offered; call fsync where it matters");
            }
            "allow_root" => {
                return bad(word, "file modes and the namespace's owner decide who may read; leave it out");
            }
            _ if word.starts_with("x-") || word.starts_with("X-") => {}
            _ => return unknown(word),
        }
        Ok(())
    }

    pub(crate) fn flags(&self) -> MountFlags {
        let mut flags = MountFlags::empty();
        flags.set(MountFlags::RDONLY, self.read_only);
        flags.set(MountFlags::NOSUID, !self.suid);
        flags.set(MountFlags::NODEV, !self.dev);
        flags.set(MountFlags::NOEXEC, !self.exec);
        flags.set(MountFlags::NOATIME, self.atime == Atime::Never);
        flags
    }
}

fn parse_mode(value: &str) -> Result<Option<Mode>> {
    match value {
        "auto" => Ok(None),
        "work" => Ok(Some(Mode::Work)),
        "data" => Ok(Some(Mode::Data)),
        _ => bad(
            &format!("mode={value}"),
            "mode is work (home directories, checkpoints), data (data sets) or auto",
        ),
    }
}

fn parse_transport(value: &str) -> Result<Transport> {
    value.parse().or_else(|e: Error| bad(&format!("transport={value}"), &e.to_string()))
}

fn parse_threads(value: &str) -> Result<usize> {
    match value.parse() {
        Ok(threads) if (1..=THREADS_ALLOWED).contains(&threads) => Ok(threads),
        _ => bad(&format!("threads={value}"), &format!("give a number from 1 to {THREADS_ALLOWED}")),
    }
}

fn parse_id(word: &str, value: &str) -> Result<u32> {
    idmap::parse_id(value).map_or_else(|| bad(word, "give the number of a user or group"), Ok)
}

fn bad<T>(word: &str, why: &str) -> Result<T> {
    Err(Error::new(Kind::Invalid, format!("mount option {word:?} cannot be used: {why}")))
}

fn unknown<T>(word: &str) -> Result<T> {
    bad(
        word,
        "it is not known; known are ro, rw, mode=auto|work|data, transport=auto|dev|uring, threads=N, nonempty, idmap, map_uid=N, map_gid=N, map_group=N, over_dead, suid, nosuid, dev, nodev, exec, noexec, \
         relatime, strictatime, noatime, acl, noacl, and what fstab has for mount(8) (defaults, _netdev, user, noauto, nofail, x-...)",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn safe_by_default_and_what_is_mostly_read_means_data() {
        let options = MountOptions::parse("").unwrap();
        assert_eq!(options, MountOptions::default());
        let flags = options.flags();
        assert!(flags.contains(MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME));
        assert!(!flags.intersects(MountFlags::RDONLY | MountFlags::NOEXEC));
        assert!((THREADS_MIN..=THREADS_MAX).contains(&options.threads));
        let mode = |text: &str, kind| MountOptions::parse(text).unwrap().mode_for(kind);
        for (text, home, data_set) in [
            ("", Mode::Work, Mode::Data),
            ("rw,mode=auto", Mode::Work, Mode::Data),
            ("ro", Mode::Data, Mode::Data),
            ("mode=work,ro", Mode::Work, Mode::Work),
            ("mode=data", Mode::Data, Mode::Data),
        ] {
            assert_eq!(mode(text, NamespaceKind::User), home, "{text}");
            assert_eq!(mode(text, NamespaceKind::Group), home, "{text}");
            assert_eq!(mode(text, NamespaceKind::Dataset), data_set, "{text}");
        }
    }

    #[test]
    fn what_fstab_passes_is_taken() {
        let line = "defaults,_netdev,user,noauto,nofail,x-systemd.automount,x-gvfs-show,comment=home, rw ,noexec,suid,dev";
        let options = MountOptions::parse(line).unwrap();
        assert!(options.suid && options.dev && !options.exec && !options.read_only && options.ids.is_empty());
        let options = MountOptions::parse("idmap,map_uid=1000,map_group=0,over_dead").unwrap();
        assert_eq!(options.ids, IdMap { uid: Some(1000), gid: None, group: Some(0) });
        assert!(options.idmap && options.over_dead);
    }

    #[test]
    fn what_cannot_be_used_is_named_with_the_mend() {
        for (text, says) in [
            ("rw,colour=blue", "colour=blue"),
            ("turbo", "it is not known; known are ro"),
            ("mode=fast", "mode is work"),
            ("mode", "needs a value"),
            ("transport=rail", "transport is auto, dev"),
            ("transport", "needs a value"),
            ("threads=0", "from 1 to 64"),
            ("threads=many", "from 1 to 64"),
            ("uid=1000", "granary ns set"),
            ("map_uid", "needs a value"),
            ("map_uid=4294967295", "number of a user"),
            ("map_group=staff", "number of a user"),
            ("sync", "fsync"),
        ] {
            let e = MountOptions::parse(text).unwrap_err();
            assert_eq!(e.kind(), Kind::Invalid);
            assert!(e.to_string().contains(says), "{text}: {e}");
            assert!(e.to_string().starts_with("mount option"), "{e}");
        }
    }
}
