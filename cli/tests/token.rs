//! `granary token`: keys and tokens, with the real binary and nobody to ask.

mod common;

use std::os::unix::fs::PermissionsExt;

use common::{World, exists};

const VOLUME: &str = "0123456789abcdef0123456789abcdef";

fn path(world: &World, name: &str) -> String {
    world.path(name).display().to_string()
}

#[test]
fn a_key_knows_its_volume_and_signs() {
    let world = World::with_volume();
    let key = path(&world, "granary.key");
    let told = world.run(&["token", "key", "--key", &key]).unwrap_ok();
    assert!(told.contains("--trust") && told.contains(&format!("{key}.pub")), "{told}");
    let mode = |path: &str| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&key), mode(&format!("{key}.pub"))), (0o600, 0o644));
    world.run(&["token", "key", "--key", &key]).refused(1, &["is there already", "never overwritten"]);

    let token = world
        .run(&["token", "issue", "--user", "alice", "--group", "asr", "--group", "nlp", "--key", &key])
        .unwrap_ok();
    assert_eq!(token.lines().count(), 1);
    let shown = world.run(&["token", "inspect", token.trim()]).unwrap_ok();
    for part in ["alice", "asr, nlp", "read-write", "user/alice, group/asr, group/nlp", ", in ", "genuine"] {
        assert!(shown.contains(part), "{part:?} is not in {shown}");
    }
    std::fs::write(world.path("alice.token"), &token).unwrap();
    let json = world.run(&["token", "inspect", &path(&world, "alice.token"), "--json"]).unwrap_ok();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&json["user"], &json["state"], &json["expired"]),
        (&"alice".into(), &"valid".into(), &false.into())
    );
    let node = world.node();
    let status: serde_json::Value =
        serde_json::from_str(&world.run(&["status", "--json"]).unwrap_ok()).unwrap();
    assert_eq!(json["volume"], status["volume"]);
    // Through the node, which has the metadata now.
    let second = path(&world, "second.key");
    let mut command = world.command(&["token", "key", "--key", &second]);
    command.env_remove("GRANARY_META");
    common::Ran::of(&mut command).unwrap_ok();
    assert!(std::fs::read_to_string(&second).unwrap().contains(json["volume"].as_str().unwrap()));
    drop(node);
}

#[test]
fn what_cannot_be_is_refused_in_words() {
    let world = World::empty();
    let key = path(&world, "k");
    world
        .run(&["token", "key", "--key", &key])
        .refused(1, &["--volume UUID", "no volume in", "granary init"]);
    assert!(!exists(&world.path("k")) && !exists(&world.path("k.pub")));
    world.run(&["token", "key", "--key", &key, "--volume", "x"]).refused(2, &["32 hexadecimal digits"]);
    world.run(&["token", "key", "--key", &key, "--volume", VOLUME]).unwrap_ok();
    let issue = |more: &[&str]| {
        let mut args = vec!["token", "issue", "--key", &key];
        args.extend(more);
        world.run(&args)
    };
    issue(&["--user", "../root"]).refused(2, &["its user cannot be one", "user/alice"]);
    issue(&["--user", "a", "--group", "b c"]).refused(2, &["one of its groups cannot be one"]);
    issue(&["--user", "a", "--ttl", "soon"]).refused(2, &["--ttl", "for example"]);
    issue(&["--user", "a", "--ttl", "0"]).refused(2, &["at least a second"]);
    issue(&["--user", "a", "--ttl", "1000d"]).refused(2, &["at most 400 days"]);
    issue(&["--user", "a", "--rights", "root"]).refused(2, &["read-only"]);
    issue(&[]).refused(2, &["--user"]);
    let public = format!("{key}.pub");
    world.run(&["token", "issue", "--user", "a", "--key", &public]).refused(2, &["public part"]);
    world
        .run(&["token", "issue", "--user", "a", "--key", "/none"])
        .refused(1, &["/none", "granary token key"]);
    for (token, part) in [("nonsense", "cannot read the token file"), ("eyJ.eyJ.x", "no token of Granary")] {
        let ran = world.run(&["token", "inspect", token]);
        assert!(ran.code != 0 && ran.err.contains(part) && !ran.err.contains("panicked"), "{ran:?}");
    }
    std::fs::set_permissions(world.path("k"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let ran = issue(&["--user", "a"]);
    assert!(ran.code == 0 && ran.err.contains("chmod 600"), "{ran:?}");
}

#[test]
fn expired_is_told() {
    let world = World::empty();
    let key = path(&world, "k");
    world.run(&["token", "key", "--key", &key, "--volume", VOLUME]).unwrap_ok();
    // Signed by our own library with times of long ago, since the command signs from now on only.
    let signer = granary_meta::token::SigningKey::from_pem(&std::fs::read_to_string(&key).unwrap()).unwrap();
    let grant = granary_meta::token::Grant {
        user: "alice".into(),
        groups: vec![],
        rights: granary_meta::token::Rights::ReadOnly,
        namespaces: None,
        lifetime_secs: 60,
    };
    let clock = granary_core::TestClock::default(); // January 1970
    let token = granary_meta::token::issue(&signer, VOLUME, &grant, &clock, 7).unwrap();
    let shown = world.run(&["token", "inspect", &token]).unwrap_ok();
    assert!(shown.contains("EXPIRED") && shown.contains("1970-01-12"), "{shown}");
    let json = world.run(&["token", "inspect", &token, "--json"]).unwrap_ok();
    assert!(json.contains("\"expired\": true"), "{json}");
}
