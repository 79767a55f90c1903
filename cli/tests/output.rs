//! What a command does when nobody can read it: a full disk and a closed pipe behind standard output and standard error, for every
//! command there is.

#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Stdio;

use clap::CommandFactory;
use common::{Ran, World};
use granary::args::Cli;
use granary_tests::{apart, start_with};

/// Every write to it fails for want of room.
fn full() -> Stdio {
    fs::File::options().write(true).open("/dev/full").unwrap().into()
}

/// Its reader has gone.
fn gone() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

/// What takes the place of a pipe.
type Unheard = fn() -> Stdio;

/// Runs it with these in the place of pipes.
fn run(world: &World, args: &[&str], out: Option<Unheard>, err: Option<Unheard>) -> Ran {
    let mut command = world.command(args);
    let ended = apart(move || {
        command.stdout(out.map_or_else(Stdio::piped, |out| out()));
        command.stderr(err.map_or_else(Stdio::piped, |err| err()));
        command.spawn()?.wait_with_output()
    });
    ended.unwrap().into()
}

/// Every command with those below it, as words.
fn commands() -> Vec<Vec<String>> {
    fn below(command: &clap::Command, words: &[String], all: &mut Vec<Vec<String>>) {
        all.push(words.to_vec());
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
            below(sub, &[words, &[sub.get_name().to_owned()]].concat(), all);
        }
    }
    let mut all = Vec::new();
    below(&Cli::command(), &[], &mut all);
    all
}

#[test]
fn the_help_of_every_command() {
    let world = World::empty();
    let commands = commands();
    assert!(commands.len() > 40, "{}", commands.len());
    for words in &commands {
        let words = [words.iter().map(String::as_str).collect(), vec!["--help"]].concat();
        let ran = run(&world, &words, Some(full), None);
        assert_eq!(ran.code, 1, "{words:?}: {}", ran.err);
        assert_eq!(
            ran.err, "granary: cannot write to standard output: No space left on device\n",
            "{words:?}"
        );
        let ran = run(&world, &words, Some(full), Some(full));
        assert_eq!(ran.code, 1, "{words:?}");
        let ran = run(&world, &words, Some(gone), None);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{words:?}");
        let ran = run(&world, &words, None, Some(gone));
        assert!(ran.code == 0 && ran.out.contains("Usage: granary"), "{words:?}: {}", ran.out);
    }
}

#[test]
fn refusals_have_their_exit_code_whoever_listens() {
    let world = World::empty();
    world.command(&[]); // writes the settings file
    let (nowhere, config) = (world.path("nowhere"), world.path("bad.toml"));
    fs::write(&config, "dirty_byte_max = 1\n").unwrap();
    let (nowhere, config) = (nowhere.to_str().unwrap(), config.to_str().unwrap());
    let mut lines: Vec<Vec<&str>> = vec![
        vec!["status"],
        vec!["status", "--config", config],
        vec!["ls", nowhere],
        vec!["cat", nowhere, "x"],
        vec!["mount", "user/root", nowhere],
        vec!["umount", nowhere],
        vec!["sync", "--all"],
        vec!["node", "--uploads-max", "0"],
        vec!["node", "stop"],
        vec!["ns", "list"],
        vec!["pack", nowhere, nowhere],
        vec!["token", "inspect", "no token"],
        vec!["fsck"],
    ];
    let commands = commands();
    for words in &commands {
        lines.push([words.iter().map(String::as_str).collect(), vec!["--no-such-flag"]].concat());
    }
    for line in &lines {
        let heard = run(&world, line, None, None);
        assert!((1..=3).contains(&heard.code) && !heard.err.is_empty(), "{line:?}: {heard:?}");
        for unheard in [full as Unheard, gone] {
            let ran = run(&world, line, Some(unheard), Some(unheard));
            assert_eq!(ran.code, heard.code, "{line:?}: {}", heard.err);
        }
    }
}

/// A world with a node, a mount, and a data set of enough files to fill a pipe.
struct Served {
    world: World,
    dir: PathBuf,
    data: String,
}

impl Served {
    fn new() -> Served {
        let world = World::for_mounts();
        let (dir, from) = (world.path("dir"), world.path("src"));
        fs::create_dir(&dir).unwrap();
        fs::create_dir(&from).unwrap();
        for n in 0..2_000 {
            fs::write(from.join(format!("{}-{n:06}.txt", "long".repeat(40))), "x").unwrap();
        }
        let data = world.path("data").to_str().unwrap().to_owned();
        world.run(&["pack", from.to_str().unwrap(), &data]).unwrap_ok();
        world.run(&["mount", "user/root", dir.to_str().unwrap()]).unwrap_ok();
        Served { world, dir, data }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.dir, rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn answers_that_cannot_be_written_fail_and_readers_that_went_away_are_no_failure() {
    let served = Served::new();
    let (world, data) = (&served.world, served.data.as_str());
    let dir = served.dir.to_str().unwrap();
    let path = format!("{}-000007.txt", "long".repeat(40));
    let (tree, key, sample) = (world.path("tree"), world.path("k"), world.path("sample"));
    fs::write(&sample, "x").unwrap();
    let (tree, key) = (tree.to_str().unwrap(), key.to_str().unwrap());
    let volume = "0123456789abcdef0123456789abcdef";
    world.run(&["token", "key", "--key", key, "--volume", volume]).unwrap_ok();
    let answers: &[&[&str]] = &[
        &["version"],
        &["--version"],
        &["status"],
        &["status", "--json"],
        &["ns", "list"],
        &["ns", "list", "--json"],
        &["ns", "show", "user/root"],
        &["ns", "show", "user/root", "--json"],
        &["top", "--once"],
        &["top", "--once", "--json"],
        &["top", "--json", "--interval", "100ms"],
        &["explain", dir],
        &["explain", dir, "--json"],
        &["warmup", "--check", dir],
        &["warmup", "--list", "--json"],
        &["token", "issue", "--user", "root", "--key", key],
        &["ls", data],
        &["ls", data, "--json"],
        &["ls", data, "-l"],
        &["ls", data, "--versions"],
        &["cat", data, &path],
        &["verify", data],
        &["verify", data, "--json"],
        &["index", data],
        &["unpack", data, tree],
        &["fsck"],
        &["gc"],
    ];
    for &line in answers {
        // A loop of figures has no end of its own.
        if !line.contains(&"--interval") {
            let heard = run(world, line, None, None);
            assert!(heard.code == 0 && !heard.out.is_empty(), "{line:?}: {heard:?}");
            let ran = run(world, line, None, Some(gone));
            assert_eq!(ran.code, 0, "{line:?}: a remark that nobody hears");
        }
        let ran = run(world, line, Some(full), None);
        let why = "cannot write to standard output: No space left on device";
        assert!(ran.code == 1 && ran.err.contains(why), "{line:?}: {} {}", ran.code, ran.err);
        let ran = run(world, line, Some(gone), None);
        assert!(ran.code == 0 && !ran.err.contains("standard output"), "{line:?}: {} {}", ran.code, ran.err);
    }
}

#[test]
fn remarks_that_nobody_hears_change_nothing() {
    let served = Served::new();
    let (world, two) = (&served.world, served.world.path("two"));
    fs::create_dir(&two).unwrap();
    let two = two.to_str().unwrap();
    for unheard in [full as Unheard, gone] {
        // Told that the node has other limits; told that bytes are not stored yet.
        let line = ["mount", "user/daemon", two, "-o", "uploads_max=9"];
        assert_eq!(run(world, &line, None, Some(unheard)).code, 0);
        fs::write(world.path("two/file"), vec![7; 100_000]).unwrap();
        assert_eq!(run(world, &["umount", two], None, Some(unheard)).code, 0);
        assert!(!world.path("two/file").exists());
    }
}

#[test]
fn a_node_whose_log_goes_nowhere_serves() {
    for unheard in [full as Unheard, gone] {
        let world = World::with_volume();
        let mut command = world.command(&["node", "--notify", "--log", "debug"]);
        command.stdout(Stdio::piped());
        let mut node = start_with(command, move |command| {
            command.stderr(unheard());
            Ok(())
        });
        let mut line = String::new();
        let mut out = BufReader::new(node.output.take().unwrap());
        out.read_line(&mut line).unwrap();
        drop(out); // who started it goes too
        world.run(&["status"]).unwrap_ok();
        world.run(&["node", "stop"]).unwrap_ok();
        assert!(node.child.wait().unwrap().success(), "{line}");
    }
}
