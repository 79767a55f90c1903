//! Settings and names that cannot be used end every command with 2, before anything is touched.

mod common;

use common::{World, exists};

#[test]
fn unknown_settings_are_refused_by_name() {
    let world = World::empty();
    let file = world.path("bad.toml");
    std::fs::write(&file, "dirty_byte_max = \"1GiB\"\n").unwrap();
    world
        .run(&["node", "--config", file.to_str().unwrap()])
        .refused(2, &["unknown setting \"dirty_byte_max\"", "bad.toml", "dirty_bytes_max"]);
    world
        .run_with(&["status"], &[("GRANARY_SOCKETS", "/x")])
        .refused(2, &["GRANARY_SOCKETS", "did you mean GRANARY_SOCKET?"]);
    world.run(&["node", "--dirty-byte-max", "1"]).refused(2, &["--dirty-byte-max", "--dirty-bytes-max"]);
    world.run(&["status", "--config", "/nonexistent.toml"]).refused(2, &["/nonexistent.toml"]);
    assert!(!exists(&world.path("cache")));
}

#[test]
fn impossible_values_name_setting_origin_and_mend() {
    let world = World::empty();
    world
        .run_with(&["node"], &[("GRANARY_DIRTY_BYTES_MAX", "12")])
        .refused(2, &["dirty_bytes_max = 12 cannot work", "GRANARY_DIRTY_BYTES_MAX"]);
    world.run(&["node", "--cache-bytes-max", "64XB"]).refused(2, &["cache_bytes_max", "64XB", "16GiB"]);
    world.run(&["node", "--small-period-ms", "soon"]).refused(2, &["small_period_ms", "2s"]);
    world.run(&["node", "--uploads-max", "0"]).refused(2, &["uploads_max = 0", "from 1 to 256"]);
    world.run(&["node", "--log", "a=b=c"]).refused(2, &["log"]);
}

#[test]
fn bad_namespace_names_are_refused_with_the_form() {
    let world = World::empty();
    let long = format!("user/{}", "a".repeat(60));
    for bad in
        ["", "/user/a", "alice", "user/", "user/..", "user/a/b", "user/a\nb", "root/x", "user/-a", &long]
    {
        for command in
            [["mount", "--", bad, "/"].as_slice(), &["ns", "create", "--", bad], &["ns", "remove", "--", bad]]
        {
            world.run(command).refused(2, &["write KIND/NAME"]);
        }
    }
    assert!(!exists(&world.path("cache")) && !exists(&world.meta()));
}

#[test]
fn the_helper_of_mount_has_mounts_exit_codes() {
    let world = World::empty();
    let helper = world.path("mount.fuse.granary");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_granary"), &helper).unwrap();
    let run = |args: &[&str]| {
        let mut command = std::process::Command::new(&helper);
        let like = world.command(args);
        command.args(args).envs(like.get_envs().filter_map(|(name, value)| Some((name, value?))));
        common::Ran::of(&mut command)
    };
    run(&["user/a"]).refused(1, &["mount.fuse.granary NAMESPACE DIR"]);
    run(&["user/../b", "/", "-o", "rw"]).refused(1, &["write KIND/NAME"]);
    run(&["user/a", "/", "-o", "dirty_bytes_max=1"]).refused(1, &["dirty_bytes_max = 1"]);
    run(&["user/a", "/nonexistent/dir"]).refused(32, &["/nonexistent"]);
    assert_eq!(run(&["user/a", "/", "-fo", "noauto,meta=/m"]).code, 0);
}

#[test]
fn help_and_version() {
    let world = World::empty();
    assert!(world.run(&["--help"]).unwrap_ok().contains("Exit codes: 0 done"));
    assert!(world.run(&["node", "--help"]).unwrap_ok().contains("--dirty-bytes-max <SIZE>"));
    assert_eq!(world.run(&["version"]).unwrap_ok(), concat!("granary ", env!("CARGO_PKG_VERSION"), "\n"));
}
