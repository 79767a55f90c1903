//! `granary init`: what it makes, and what it refuses without leaving anything behind.

mod common;

use std::os::unix::fs::PermissionsExt;

use common::{CannedS3, World, exists};
use granary_tests::Port;

#[test]
fn a_volume_is_made_once() {
    let world = World::empty();
    let url = world.store_url();
    let out = world.run(&["init", "--store", &format!("{url}/")]).unwrap_ok();
    assert!(out.contains(&url), "{out}");
    assert!(exists(&world.path("store/granary-volume")) && exists(&world.path("meta/CURRENT")));
    world.run(&["init", "--store", &url]).refused(1, &["already has this volume", "granary mount"]);
    let again = world.run(&["init", "--if-missing", "--store", &url]).unwrap_ok();
    assert!(again.contains("is there already"), "{again}");
    // Where another process has it, that is all that can be known.
    let held = granary_meta::engine::RocksEngine::open(world.meta()).unwrap();
    world.run(&["init", "--if-missing", "--store", &url]).unwrap_ok();
    world.run(&["init", "--store", &url]).refused(1, &["in use by another process"]);
    held.close().unwrap();
    drop(held);
    let other = format!("file://{}", world.path("other").display());
    for args in [&["init"][..], &["init", "--if-missing"]] {
        world
            .run(&[args, &["--store", &other]].concat())
            .refused(1, &["already has another volume", &url, "--meta"]);
    }
    assert!(!exists(&world.path("other")));
}

#[test]
fn what_a_volume_has_in_folders_is_closed_to_others() {
    let world = World::empty();
    world.run(&["init", "--store", &world.store_url()]).unwrap_ok();
    for folder in ["store", "meta"] {
        let mode = std::fs::metadata(world.path(folder)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700, "{folder}");
    }
}

/// A cluster's secrets are made before anything runs in it.
#[test]
fn a_volume_is_made_for_a_key_that_was_there_before_it() {
    let world = World::empty();
    let [key, other] = ["k", "other"].map(|name| world.path(name).display().to_string());
    for key in [&key, &other] {
        world.run(&["token", "key", "--key", key, "--new-volume"]).unwrap_ok();
    }
    let issued = world.run(&["token", "issue", "--user", "root", "--key", &key]).unwrap_ok();
    let told = world.run(&["token", "inspect", "--json", issued.trim()]).unwrap_ok();
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    let public = format!("{key}.pub");
    let init = |key: &str| world.run(&["init", "--if-missing", "--store", &world.store_url(), "--key", key]);
    for _ in 0..2 {
        let out = init(&public).unwrap_ok();
        assert!(out.contains(told["volume"].as_str().unwrap()), "{out} {told}");
    }
    init(&other).refused(1, &["the key is for", "granary token key --volume"]);
    init("/none").refused(1, &["/none"]);
}

#[test]
fn a_store_holds_one_volume() {
    let world = World::with_volume();
    let meta = world.path("meta2");
    world
        .run(&["init", "--meta", meta.to_str().unwrap(), "--store", &world.store_url()])
        .refused(1, &["already holds another volume", "--store"]);
    assert!(!exists(&meta));
}

#[test]
fn an_interrupted_init_goes_on() {
    let world = World::with_volume();
    let marker = world.path("store/granary-volume");
    let before = std::fs::read(&marker).unwrap();
    std::fs::remove_file(&marker).unwrap(); // as if it was stopped before the store was marked
    world.try_node(&[]).err().unwrap().refused(1, &["granary init"]);
    world.run(&["init", "--store", &world.store_url()]).unwrap_ok();
    assert_eq!(std::fs::read(&marker).unwrap(), before);
}

#[test]
fn places_that_cannot_be_are_refused() {
    let world = World::empty();
    world.run(&["init"]).refused(2, &["--store s3://BUCKET/PREFIX"]);
    world.run(&["init", "--store", "/srv/x"]).refused(2, &["file:///FOLDER"]);
    world.run(&["init", "--store", "file://srv/x"]).refused(2, &["whole path"]);
    let in_the_way = world.path("file");
    std::fs::write(&in_the_way, "precious").unwrap();
    let ran = world.run(&["init", "--store", &format!("file://{}/store", in_the_way.display())]);
    assert!(ran.code == 1 && ran.err.contains("file/store"), "{ran:?}");
    let ran = world.run(&["init", "--store", "file:///proc/granary-store"]);
    assert!(ran.code == 1 && ran.err.contains("/proc/granary-store"), "{ran:?}");
    assert!(!exists(&world.meta()));

    std::fs::create_dir(world.meta()).unwrap();
    std::fs::write(world.path("meta/thesis.tex"), "precious").unwrap();
    world.run(&["init", "--store", &world.store_url()]).refused(1, &["has files that are no volume's"]);
    assert_eq!(std::fs::read_dir(world.meta()).unwrap().count(), 1);
}

#[test]
fn a_store_that_does_not_answer_is_told() {
    let world = World::empty();
    let port = Port::new(); // nobody listens there
    let url = format!("http://{}", port.address());
    let env = [
        ("AWS_ENDPOINT_URL", url.as_str()),
        ("AWS_ACCESS_KEY_ID", "x"),
        ("AWS_SECRET_ACCESS_KEY", "x"),
        ("GRANARY_RETRY_MS_MAX", "50"),
    ];
    let ran = world.run_with(&["init", "--store", "s3://bucket/prefix"], &env);
    ran.refused(3, &["bucket", &url]);
    assert!(!exists(&world.meta()));
}

#[test]
fn what_the_store_refuses_is_told() {
    type Answer = fn(&str) -> (u16, &'static str);
    let cases: [(&str, Answer, i32, &[&str]); 4] = [
        ("wrong key", |_| (403, "InvalidAccessKeyId"), 3, &["AWS_ACCESS_KEY_ID"]),
        ("wrong secret", |_| (403, "SignatureDoesNotMatch"), 3, &["AWS_SECRET_ACCESS_KEY"]),
        ("missing bucket", |_| (404, "NoSuchBucket"), 1, &["bucket"]),
        (
            "read-only bucket",
            |method| {
                if matches!(method, "PUT" | "POST" | "DELETE") { (403, "AccessDenied") } else { (200, "") }
            },
            3,
            &["write"],
        ),
    ];
    for (what, answer, code, parts) in cases {
        let (world, server) = (World::empty(), CannedS3::new(answer));
        let ran = world.run_with(&["init", "--store", "s3://bucket/prefix"], &server.env());
        assert_eq!(ran.code, code, "{what}: {ran:?}");
        ran.refused(code, parts);
        assert!(ran.err.contains("bucket"), "{what}: {}", ran.err);
        assert!(!exists(&world.meta()), "{what}");
    }
}

/// What trusts nobody can be spoken to without TLS, and says what it wants for TLS.
#[test]
fn a_system_without_certificates() {
    let none = [("SSL_CERT_FILE", "/nowhere"), ("SSL_CERT_DIR", "/nowhere")];
    let (world, server) = (World::empty(), CannedS3::new(|_| (403, "InvalidAccessKeyId")));
    let over_tls = [
        ("AWS_ENDPOINT_URL", "https://127.0.0.1:1"),
        ("AWS_ACCESS_KEY_ID", "a"),
        ("AWS_SECRET_ACCESS_KEY", "b"),
    ];
    let init = |env: &[(&str, &str)]| world.run_with(&["init", "--store", "s3://bucket"], env);
    init(&[&over_tls[..], &none].concat())
        .refused(2, &["https://127.0.0.1:1", "No CA certificates", "AWS_CA_BUNDLE"]);
    let ran = init(&[&server.env()[..], &none].concat());
    ran.refused(3, &["bucket", "AWS_ACCESS_KEY_ID"]);
}

#[test]
fn missing_keys_are_told() {
    let world = World::empty();
    let env = [("AWS_ENDPOINT_URL", "http://127.0.0.1:1"), ("HOME", world.dir.path().to_str().unwrap())];
    let ran = world.run_with(&["init", "--store", "s3://bucket"], &env);
    ran.refused(3, &["AWS_ACCESS_KEY_ID"]);
}
