//! One binary, every command: short-lived commands that talk to the node process over its socket, and that process.
//!
//! | module | what it is |
//! |---|---|
//! | `args`, `settings`, `units` | the command line, and one table of settings for flags, variables and file |
//! | `commands` | one file a command, and `mount.fuse.granary` |
//! | `start`, `client`, `wire`, `progress` | starting a node, talking to it, what is said, what a person sees meanwhile |
//! | `datasets` | data sets: pack, index, verify, ls, cat, unpack, plan; they need no node |
//! | `maintenance` | long works on a volume: through the node, or on the metadata's folder |
//! | `packed` | packed data sets as namespaces: where they are, and what may be shown of them |
//! | `node` | the node process: its socket, its mounts, its end |
//! | `exit`, `output` | how a command ends, and how it says anything |
//! | `log`, `users`, `randomness` | the log; the system's users; the system's randomness |

// A closed pipe or a full disk must not become a panic: `output` says everything.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod args;
pub mod client;
pub mod commands;
pub mod datasets;
pub mod exit;
pub mod failpoints;
pub mod log;
pub mod maintenance;
pub mod namespaces;
pub mod node;
pub mod output;
pub mod packed;
pub mod policies;
pub mod progress;
pub mod randomness;
pub mod recovery;
pub mod removal;
pub mod service;
pub mod settings;
pub mod start;
pub mod token_file;
pub mod units;
pub mod users;
pub mod volume;
pub mod when;
pub mod wire;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};

/// The whole program.
pub fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let name = args.first().map(Path::new).and_then(Path::file_name).unwrap_or_default();
    if name == "mount.fuse.granary" {
        return commands::mount_helper::main(&args[1..]);
    }
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(told) => return output::of_parser(&told),
    };
    let outcome = match cli.command {
        Command::Init(args) => commands::init::run(&args),
        Command::Node(args) => commands::node::run(args),
        Command::Mount(args) => commands::mount::run(&args),
        Command::Umount(args) => commands::umount::run(&args),
        Command::Sync(args) => commands::sync::run(&args),
        Command::Warmup(args) => commands::warmup::run(&args),
        Command::Status(args) => commands::status::run(&args),
        Command::Bench(args) => commands::bench::run(&args),
        Command::Top(args) => commands::top::run(&args),
        Command::Trace(args) => commands::trace::run(&args),
        Command::Explain(args) => commands::explain::run(&args),
        Command::Csi(args) => commands::csi::run(&args),
        Command::Keeper(args) => commands::keeper::run(&args),
        Command::Doctor(args) => commands::doctor::run(&args),
        Command::Ns(args) => commands::ns::run(&args),
        Command::Fsck(args) => commands::fsck::run(&args),
        Command::Gc(args) => commands::gc::run(&args),
        Command::Rebuild(args) => commands::rebuild::run(&args),
        Command::Recover(args) => commands::recover::run(&args),
        Command::Meta(args) => commands::meta::run(args),
        Command::Token(args) => commands::token::run(&args),
        Command::Pack(args) => datasets::run_pack(&args),
        Command::Index(args) => datasets::run_index(&args),
        Command::Verify(args) => datasets::run_verify(&args),
        Command::Ls(args) => datasets::run_ls(&args),
        Command::Cat(args) => datasets::run_cat(&args),
        Command::Unpack(args) => datasets::run_unpack(&args),
        Command::Plan(args) => datasets::run_plan(&args),
        Command::Version => commands::version::run(),
    };
    output::end(outcome)
}
