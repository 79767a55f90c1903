//! Two nodes on one metadata service, each a process with directories of its own: what one does, the other sees.

use std::fs;

use granary_tests::{Service, run};

#[test]
fn what_one_node_writes_the_other_reads_before_it_is_stored() {
    let service = Service::new();
    let token = service.token("root", &[], "admin");
    // Nothing leaves for the store while the test runs: each byte is read from the node that has it.
    let wait = [("GRANARY_SMALL_PERIOD_MS", "1h"), ("GRANARY_LARGE_PERIOD_MS", "1h")];
    let (a, b) = (service.node_with(&token, &wait), service.node_with(&token, &wait));
    let (left, right) = (a.mount("group/asr", ""), b.mount("group/asr", ""));
    for i in 0..50usize {
        let bytes: Vec<u8> = (0..i * 977).map(|n| (n * 31 + i) as u8).collect();
        let (from, to) = if i % 2 == 0 { (&left, &right) } else { (&right, &left) };
        fs::write(from.join(format!("f{i}")), &bytes).expect("write");
        assert!(fs::read(to.join(format!("f{i}"))).expect("read on the other node") == bytes, "file {i}");
    }
    let status = a.status();
    assert_ne!(status["mounts"][0]["dirty_files"], 0, "{status}");
    let link = &status["mounts"][0]["service"];
    assert_eq!((&link["connected"], &link["rights"]), (&true.into(), &"admin".into()), "{status}");
    let sessions = service.as_bearer(&token, &["meta", "sessions", "--json"]);
    let sessions: serde_json::Value = serde_json::from_str(&sessions.stdout).expect("JSON");
    assert!(sessions.as_array().is_some_and(|all| all.len() >= 2), "{sessions}");
}

#[test]
fn the_service_is_killed_and_started_amid_work() {
    let mut service = Service::new();
    let token = service.token("root", &[], "admin");
    let node = service.node(&token);
    let dir = node.mount("group/asr", "");
    fs::write(dir.join("before"), "1").expect("write");
    let writer = {
        let dir = dir.clone();
        std::thread::spawn(move || {
            for i in 0..300 {
                fs::write(dir.join(format!("f{i}")), i.to_string())
                    .expect("programs see a pause, not an error");
            }
        })
    };
    granary_tests::until("some files are written", || dir.join("f20").exists());
    service.kill();
    service.start();
    writer.join().expect("the writer ended well");
    for i in 0..300 {
        assert_eq!(fs::read_to_string(dir.join(format!("f{i}"))).expect("read"), i.to_string());
    }
    let other = service.node(&token);
    let there = other.mount("group/asr", "");
    assert_eq!(fs::read_dir(&there).expect("listing").count(), 301);
}

#[test]
fn without_a_service_it_is_said_where_none_answers() {
    let mut service = Service::new();
    let token = service.token("root", &[], "admin");
    let url = service.url();
    service.stop();
    let node = granary_tests::Node::unstarted(&[("GRANARY_META", &url)]);
    let file = node.path("t");
    fs::write(&file, &token).expect("write");
    let dir = node.path("mnt");
    fs::create_dir(&dir).expect("mkdir");
    let mut command = node.command(&["mount", "group/asr"]);
    command.arg(&dir).env("GRANARY_TOKEN_FILE", &file);
    let out = run(&mut command);
    assert_eq!(out.code, Some(3), "{out:?}");
    assert!(out.stderr.contains(&url) && out.stderr.contains("start it"), "{}", out.stderr);
    // And without a token it says how to get one.
    let mut command = node.command(&["mount", "group/asr"]);
    command.arg(&dir);
    let out = run(&mut command);
    assert_eq!(out.code, Some(2), "{out:?}");
    assert!(
        out.stderr.contains("--token-file") && out.stderr.contains("granary token issue"),
        "{}",
        out.stderr
    );
}

#[test]
fn each_mount_is_its_token_s() {
    let service = Service::new();
    let node = service.node(&service.token("root", &[], "admin"));
    for (name, rights) in [("alice", "read-write"), ("bob", "read-only")] {
        node.ok(&["ns", "create", &format!("user/{name}")]);
        fs::write(node.path(name), service.token(name, &["asr"], rights)).expect("write");
        fs::create_dir(node.path(&format!("at-{name}"))).expect("mkdir");
    }
    let mount = |who: &str, namespace: &str| {
        let (token, dir) = (node.path(who), node.path(&format!("at-{who}")));
        let (token, dir) = (token.display().to_string(), dir.display().to_string());
        node.run(&["mount", namespace, &dir, "--token-file", &token])
    };
    for (who, other) in
        [("alice", "user/bob"), ("bob", "user/alice"), ("alice", "dataset/x"), ("bob", "user/none")]
    {
        let out = mount(who, other);
        assert!(out.code == Some(1) && out.stderr.contains("no namespace"), "{who} at {other}: {out:?}");
    }
    assert_eq!(mount("alice", "user/alice").code, Some(0));
    assert_eq!(mount("bob", "user/bob").code, Some(0));
    fs::write(node.path("at-alice/f"), "hers").expect("alice writes");
    let e = fs::write(node.path("at-bob/f"), "").expect_err("bob may only read");
    assert_eq!(e.raw_os_error(), Some(libc::EROFS), "{e}");
    let status = node.status();
    let users: Vec<_> =
        status["mounts"].as_array().expect("mounts").iter().map(|m| m["service"]["user"].clone()).collect();
    assert_eq!(users, ["alice", "bob"], "{status}");
}
