//! Real programs at work on a mount, as users run them.

mod everyday;
mod inotify;
mod locks;
mod postgres;
mod rig;

use std::process::Command;

use granary_tests::run;
use rig::{Mode, Rig};

macro_rules! scripts {
    ($($test:ident: $file:literal in $($mode:ident),+;)+) => {
        $(#[test]
        fn $test() {
            $(Rig::get().script(Mode::$mode, $file, include_str!($file), &[]);)+
        })+
    };
}

scripts! {
    git_keeps_history_and_commits_from_four_worktrees_at_once: "git.sh" in Work, Data;
    archives_and_copies_keep_everything: "archive.sh" in Work, Data;
    editors_save: "editors.sh" in Work, Data;
    pip_installs_into_a_virtual_environment: "python.sh" in Work;
    names_of_every_byte_and_length_and_deep_trees: "names.py" in Work, Data;
    limits_appending_direct_and_synchronous_writes: "limits.py" in Work, Data;
    two_processes_write_one_sqlite_database: "sqlite.py" in Work, Data;
    a_hundred_thousand_entries: "crowd.py" in Data;
}

#[test]
fn a_compiler_builds_a_library() {
    // Real sources that every build of this workspace has: those of lz4, which RocksDB uses. (What other platforms need is not here.)
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let out = run(Command::new(env!("CARGO"))
        .args(["metadata", "--offline", "--locked", "--format-version", "1", "--filter-platform", &platform])
        .arg("--manifest-path")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")));
    let metadata: serde_json::Value = serde_json::from_str(&out.stdout).expect("cargo prints JSON");
    let package = metadata["packages"].as_array().expect("packages").iter().find(|p| p["name"] == "lz4-sys");
    let manifest = package.expect("lz4-sys is used")["manifest_path"].as_str().expect("a path");
    let sources = std::path::Path::new(manifest).with_file_name("liblz4").join("lib");
    let rig = Rig::get();
    for mode in [Mode::Work, Mode::Data] {
        rig.script(mode, "compiler.sh", include_str!("compiler.sh"), &[sources.to_str().expect("utf-8")]);
    }
}
