//! `granary plan`, with the real binary.
#![allow(clippy::unwrap_used)] // test code, though not inside a #[test] function

mod common;

use common::World;

/// A data set of 200 files of 1,000 bytes in several shards.
fn packed(world: &World) -> String {
    let files = world.path("files");
    std::fs::create_dir(&files).unwrap();
    for n in 0..200 {
        std::fs::write(files.join(format!("{n:04}.bin")), vec![n as u8; 1000]).unwrap();
    }
    let to = world.path("shards").display().to_string();
    world.run(&["pack", files.to_str().unwrap(), &to, "--shard-size", "64KiB"]).unwrap_ok();
    to
}

#[test]
fn a_training_is_told_what_it_would_ask() {
    let world = World::empty();
    let data = packed(&world);
    let told = world.run(&["plan", &data, "--batch-size", "4", "--ranks", "2"]).unwrap_ok();
    for part in ["version 1: 200 samples", "25 global batches of 8", "tau ", "none: it is on this machine"] {
        assert!(told.contains(part), "{part:?} is not in {told}");
    }
    let json =
        world.run(&["plan", &data, "--shuffle", "shards", "--cache-bytes", "1GiB", "--json"]).unwrap_ok();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&json["method"], &json["samples"], &json["mapped"]),
        (&"shards".into(), &200.into(), &true.into())
    );
    assert!(json["quality"]["same_shard"].as_f64().unwrap() > 1.0, "{json}");
}

#[test]
fn what_cannot_be_planned_is_refused_with_the_mend() {
    let world = World::empty();
    let data = packed(&world);
    world
        .run(&["plan", &data, "--shuffle", "random"])
        .refused(2, &["it is one of none, shards, window, full"]);
    world.run(&["plan", &data, "--cache-bytes", "much"]).refused(2, &["is not a size"]);
    world.run(&["plan", &data, "--version", "9"]).refused(1, &["has no version 9", "granary ls --versions"]);
    let nowhere = world.path("nowhere").display().to_string();
    world.run(&["plan", &nowhere]).refused(1, &["is not there"]);
}
