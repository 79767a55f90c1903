//! `mount.fuse.granary`: what mount(8) runs for the type `fuse.granary`, so that fstab works:
//!
//! ```text
//! user/alice  /mnt/alice  fuse.granary  _netdev,mode=work,meta=/var/lib/granary/meta  0 0
//! ```
//!
//! `mount.fuse.granary NAMESPACE DIR [-sfnv] [-o OPTIONS] [-t TYPE]`. Options also carry settings (`meta=`, `cache=`,
//! `socket=`, limits). Exit codes are mount(8)'s: 0 mounted, 1 cannot be used as given, 32 not mounted.
//!
//! `-o remount` changes what the kernel itself heeds (`ro`, `suid`, `dev`, `exec`, when the last access is noted). The rest of
//! what stands in fstab is the mount's until it is unmounted, and is left as it is.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use granary_fuse::MountOptions;

use super::mount::{Options, mount};
use crate::args::NodeFlags;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::say_as;

/// How mount(8) calls this program.
const PROGRAM: &str = "mount.fuse.granary";
const USAGE: u8 = 1;
const NOT_MOUNTED: u8 = 32;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Call {
    namespace: String,
    dir: PathBuf,
    options: Vec<String>,
    /// Do everything but mount.
    fake: bool,
    verbose: bool,
}

pub fn main(args: &[OsString]) -> ExitCode {
    match parse(args).and_then(|call| run(&call)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say_as(PROGRAM, &failure);
            ExitCode::from(if failure.exit == Exit::Usage.code() { USAGE } else { NOT_MOUNTED })
        }
    }
}

fn run(call: &Call) -> Outcome<()> {
    let options = Options::split(&call.options.join(","));
    if call.fake {
        let flags = NodeFlags { config: None, given: options.settings };
        return flags.sources().resolve().map(|_| ());
    }
    if options.remount {
        let flags = MountOptions::parse(&options.mount.join(","))?;
        let dir = super::real_dir(&call.dir)?;
        granary_fuse::remount(&dir, &call.namespace, &flags)?;
        if call.verbose {
            say_as(PROGRAM, format_args!("{} is mounted anew at {}", call.namespace, dir.display()));
        }
        return Ok(());
    }
    let reply = mount(&call.namespace, &call.dir, options, NodeFlags::default())?;
    if call.verbose {
        say_as(PROGRAM, format_args!("{} is mounted at {}", reply.namespace, reply.dir));
    }
    Ok(())
}

fn parse(args: &[OsString]) -> Outcome<Call> {
    const FORM: &str = "write mount.fuse.granary NAMESPACE DIR [-sfnv] [-o OPTIONS]";
    let mut call = Call::default();
    let mut places = Vec::new();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let text = arg.to_str().unwrap_or("");
        let Some(letters) = text.strip_prefix('-').filter(|l| !l.is_empty()) else {
            places.push(arg.clone());
            continue;
        };
        for (at, letter) in letters.char_indices() {
            match letter {
                's' | 'n' => {} // sloppy options, no mtab: nothing to do differently
                'f' => call.fake = true,
                'v' => call.verbose = true,
                'o' | 't' | 'N' => {
                    let inline = &letters[at + 1..];
                    let value = if inline.is_empty() {
                        let next = rest.next().and_then(|v| v.to_str());
                        next.ok_or_else(|| Failure::usage(format!("-{letter} needs a value; {FORM}")))?
                    } else {
                        inline
                    };
                    match letter {
                        'o' => call.options.push(value.to_owned()),
                        't' => {}
                        _ => {
                            return Err(Failure::usage(
                                "mounting in another mount namespace (-N) is done by the node process; run the node there",
                            ));
                        }
                    }
                    break;
                }
                _ => return Err(Failure::usage(format!("unknown flag -{letter}; {FORM}"))),
            }
        }
    }
    let [namespace, dir] = places.as_slice() else { return Err(Failure::usage(FORM)) };
    call.namespace = namespace.to_string_lossy().into_owned();
    call.dir = PathBuf::from(dir);
    Ok(call)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(line: &str) -> Outcome<Call> {
        parse(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn as_mount_calls_it() {
        let got = call("user/alice /mnt/a -sv -o rw,mode=work -orelatime -t fuse.granary").unwrap();
        assert_eq!(
            got,
            Call {
                namespace: "user/alice".into(),
                dir: "/mnt/a".into(),
                options: vec!["rw,mode=work".into(), "relatime".into()],
                fake: false,
                verbose: true,
            }
        );
        assert!(call("user/alice /mnt/a -fn").unwrap().fake);
    }

    #[test]
    fn what_cannot_be_used_is_told() {
        for (line, part) in [
            ("user/alice", "write mount.fuse.granary"),
            ("a b c", "write mount.fuse.granary"),
            ("a b -q", "-q"),
            ("a b -o", "-o needs a value"),
            ("a b -N 12", "mount namespace"),
        ] {
            let e = call(line).unwrap_err();
            assert!(e.exit == 2 && e.message.contains(part), "{line}: {e}");
        }
    }
}
