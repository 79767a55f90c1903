//! `granary mount`.

use std::path::Path;

use granary_core::{Kind, NamespaceName};
use granary_fuse::MountOptions;

use crate::args::{MountArgs, NodeFlags};
use crate::client::block_on;
use crate::exit::{Failure, Outcome, plain};
use crate::output::say;
use crate::settings::Settings;
use crate::start;
use crate::token_file::{self, Secret};
use crate::wire::{MountReply, MountRequest};

pub fn run(args: &MountArgs) -> Outcome<()> {
    let options = Options::split(&args.options.join(","));
    let reply = mount(&args.namespace, &args.dir, options, args.flags.clone())?;
    super::print(&describe(&reply))
}

fn describe(reply: &MountReply) -> String {
    let made = if reply.created { ", a new namespace," } else { "" };
    let how = if reply.bound { "bound to its other mount" } else { "mounted" };
    format!("{}{made} is {how} at {} (mode {})\n", reply.namespace, reply.dir, reply.mode)
}

/// What stands after `-o`, sorted by who it is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `cache=/nvme/granary` and the like.
    pub settings: Vec<(String, String)>,
    /// The mount's own.
    pub mount: Vec<String>,
    /// It is mounted there, and its flags are to change.
    pub remount: bool,
}

impl Options {
    /// mount(8) and fstab have words of their own, which say nothing to a file system: those are left out.
    pub fn split(text: &str) -> Options {
        let mut options = Options::default();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            let of_fstab = [
                "defaults", "auto", "noauto", "user", "nouser", "users", "owner", "group", "nofail",
                "_netdev",
            ]
            .contains(&name)
                || name.starts_with("x-")
                || name.starts_with("X-")
                || name == "comment";
            if of_fstab {
                continue;
            }
            if word == "remount" {
                options.remount = true;
                continue;
            }
            // `transport` is both: as an option it is this mount's, whatever the node does with others; the flag is the node's.
            match crate::settings::find(name).filter(|_| !MountOptions::takes_value(name)) {
                Some(setting) if word.contains('=') => {
                    options.settings.push((setting.name.to_owned(), value.to_owned()));
                }
                _ => options.mount.push(word.to_owned()),
            }
        }
        options
    }
}

/// Mounts, starting a node if there is none.
pub fn mount(namespace: &str, dir: &Path, options: Options, mut flags: NodeFlags) -> Outcome<MountReply> {
    if options.remount {
        return Err(Failure::usage(
            "`granary mount` mounts anew only: use `mount -o remount,... DIR`, which is the kernel's",
        ));
    }
    flags.given.extend(options.settings);
    let settings = flags.sources().resolve()?;
    let namespace: NamespaceName = namespace.parse()?;
    let dir = super::real_dir(dir)?;
    check_dir(&dir)?;
    let request = MountRequest {
        tree: None,
        namespace: namespace.to_string(),
        dir: super::text_of(&dir)?,
        options: options.mount.join(","),
        meta: settings.is_given("meta").then(|| settings.meta.to_string()),
        cache: settings.is_given("cache").then(|| settings.cache.display().to_string()),
        token: token(&settings, &flags)?,
        limits: settings.given_limits(),
    };
    let reply: MountReply =
        block_on(async { start::node(&settings, &flags).await?.post("/v1/mount", &request).await })?;
    if !reply.ignored.is_empty() {
        say(format_args!(
            "the node at {} runs already with other values of {}, and keeps them; to change them, stop it with \
             `granary node stop`",
            settings.socket.display(),
            reply.ignored.join(", ")
        ));
    }
    Ok(reply)
}

/// The token that was asked for, read with the caller's own rights. One that the settings file names for the node need not be
/// readable by everybody: then the node shows it.
fn token(settings: &Settings, flags: &NodeFlags) -> Outcome<Option<Secret>> {
    let Some(path) = settings.token_file.as_ref().filter(|_| settings.meta.service().is_some()) else {
        return Ok(None);
    };
    let asked = flags.given.iter().any(|(name, _)| name == "token_file");
    match token_file::read(path) {
        Ok(token) => Ok(Some(token)),
        Err(failure) if failure.is(Kind::Access) && !asked => Ok(None),
        Err(failure) => Err(failure),
    }
}

fn check_dir(dir: &Path) -> Outcome<()> {
    match std::fs::metadata(dir) {
        Ok(meta) if meta.is_dir() => Ok(()),
        Ok(_) => Err(Failure::of_kind(
            Kind::NotDirectory,
            format!("cannot mount at {}: it is no directory; make one, and mount there", dir.display()),
        )),
        // A mount whose node died: the node takes it away first.
        Err(e) if e.raw_os_error() == Some(libc::ENOTCONN) => Ok(()),
        Err(e) => Err(Failure::of_kind(
            Kind::NotFound,
            format!("cannot mount at {}: {}; make it with `mkdir -p {0}`", dir.display(), plain(&e)),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_go_where_they_belong() {
        let options = Options::split(
            "defaults,mode=work,remount,,_netdev,meta=/m,dirty_bytes_max=1GiB,x-systemd.automount, ro,nofail,transport=uring",
        );
        assert_eq!(options.mount, ["mode=work", "ro", "transport=uring"]);
        assert!(options.remount);
        let settings: Vec<_> = options.settings.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(settings, [("meta", "/m"), ("dirty_bytes_max", "1GiB")]);
        // Without a value it is no setting: the mount refuses it by name.
        assert_eq!(Options::split("cache").mount, ["cache"]);
    }

    #[test]
    fn bad_places_and_names_are_told_before_a_node_is_started() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let run = |namespace: &str, dir: &Path| {
            mount(namespace, dir, Options::default(), NodeFlags::default()).unwrap_err()
        };
        assert!(run("user/a", file.path()).is(Kind::NotDirectory));
        assert!(run("user/a", &file.path().with_extension("missing")).message.contains("mkdir -p"));
        for bad in ["", "/user/a", "alice", "user/..", "user/a\nb", &format!("user/{}", "a".repeat(60))] {
            let e = run(bad, Path::new("/"));
            assert!(e.exit == 2 && e.message.contains("write KIND/NAME"), "{bad:?}: {e}");
        }
    }
}
