//! A metadata service, and a node whose own token opens nothing: each volume is mounted by a token for it alone.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use granary_tests::{Locker, Node, Service, until, until_within};
use serde_json::Value;
use std::time::Duration;
use tonic::Code;

use crate::api::{ALICE, Api, BOB, Pod, grants};
use crate::driver::{Driver, Publish, target};

const READER: Pod = Pod { namespace: "readers", account: "reader", name: "reader-0" };

const READERS: &str = r#"
    [[grant]]
    to = ["readers/*"]
    namespaces = ["user/alice"]
"#;

/// What is written stays on the node until somebody asks for the store.
const DIRTY: (&str, &str) = ("GRANARY_SMALL_PERIOD_MS", "3600000");

struct Scene {
    // Ended in this order: who asks before who answers.
    driver: Option<Driver>,
    node: Node,
    service: Service,
    _api: Api,
    root: String,
}

impl Scene {
    fn new(ttl: &str) -> Scene {
        let service = Service::new();
        let root = service.token("root", &[], "admin");
        for namespace in ["user/alice", "user/bob", "group/other"] {
            let made = service.as_bearer(&root, &["ns", "create", namespace, "--mode", "0777"]);
            assert_eq!(made.code, Some(0), "{made:?}");
        }
        // Nobody's files: it names the node, and that it may ask at all.
        let node = service.node_with(&service.token("granary-node", &[], "read-only"), &[DIRTY]);
        let api = Api::start();
        [ALICE, BOB, READER].into_iter().for_each(|pod| api.knows(pod));
        fs::write(node.path("csi.token"), delegating(&service)).expect("a token");
        let file = node.path("csi.token").display().to_string();
        let driver = Driver::guarded_with(
            &node,
            &api,
            &grants(READERS),
            &["--delegate", &file, "--delegate-ttl", ttl],
        );
        Scene { driver: Some(driver), node, service, _api: api, root }
    }

    fn driver(&self) -> &Driver {
        self.driver.as_ref().expect("it runs")
    }

    /// The connection that a namespace's mount works through.
    fn link(&self, namespace: &str) -> Value {
        let status = self.node.status();
        let mounts = status["mounts"].as_array().expect("mounts").iter();
        let mut found = mounts.filter(|mount| mount["namespace"] == namespace);
        found.next().unwrap_or_else(|| panic!("{namespace} is not mounted: {status}"))["service"].clone()
    }

    fn dirty_bytes(&self, namespace: &str) -> u64 {
        let status = self.node.status();
        let all =
            ["mounts", "draining"].into_iter().flat_map(|part| status[part].as_array().expect("a list"));
        let of_it = all.filter(|space| space["namespace"] == namespace);
        of_it.map(|space| space["dirty_bytes"].as_u64().expect("a number")).max().unwrap_or(0)
    }

    /// A token of an administrator's for one namespace, in a file.
    fn delegated(&self, namespace: &str) -> String {
        let made = self.service.as_bearer(&self.root, &["token", "delegate", namespace, "--ttl", "10min"]);
        assert_eq!(made.code, Some(0), "{made:?}");
        let file = self.node.path("handed.token");
        fs::write(&file, made.stdout).expect("written");
        file.display().to_string()
    }

    fn as_root(&self, args: &[&str]) -> String {
        let out = self.service.as_bearer(&self.root, args);
        assert_eq!(out.code, Some(0), "{args:?}: {out:?}");
        out.stdout
    }
}

fn delegating(service: &Service) -> String {
    let key = service.path("granary.key").display().to_string();
    let args =
        ["token", "issue", "--user", "csi", "--rights", "delegate", "--namespace", "user/*", "--key", &key];
    service.ok(&args).trim().to_owned()
}

/// The tokens that the node keeps for its next start.
fn kept(node: &Node) -> Vec<PathBuf> {
    let files = fs::read_dir(node.path("cache/tokens")).into_iter().flatten().flatten();
    files.map(|file| file.path()).collect()
}

fn is_denied(done: std::io::Result<()>) -> bool {
    match done {
        Ok(()) => false,
        Err(e) => {
            assert_eq!(e.raw_os_error(), Some(libc::EACCES), "{e}");
            true
        }
    }
}

#[test]
fn a_volumes_token_opens_that_volume_and_no_other() {
    let scene = Scene::new("1h");
    let (node, driver, service) = (&scene.node, scene.driver(), &scene.service);
    let (hers, his, read) = (target(node, "hers"), target(node, "his"), target(node, "read"));
    // To read first, in the mode in which others may come to write later, on the same node.
    let reads = Publish::inline(READER, "user/alice").with("mountMode", "work");
    driver.publish(&read, &reads).expect("published");
    assert_eq!(scene.link("user/alice")["rights"], "read-only");
    driver.publish(&hers, &Publish::inline(ALICE, "user/alice")).expect("published");
    driver.publish(&his, &Publish::inline(BOB, "user/bob")).expect("published");
    fs::write(hers.join("file"), "hers").expect("she writes");
    fs::write(his.join("file"), "his").expect("he writes");
    assert_eq!(fs::read_to_string(read.join("file")).expect("read"), "hers");
    let refused = fs::write(read.join("file"), "x").expect_err("to read only");
    assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
    let link = scene.link("user/alice");
    assert_eq!((&link["rights"], &link["user"]), (&"read-write".into(), &"csi".into()));
    assert!((3_000_000..=3_600_000).contains(&link["token_left_ms"].as_u64().expect("a number")), "{link}");

    // The node has no right but by those tokens, and each of them is good for its own namespace only.
    assert!(!node.ok(&["ns", "list"]).contains("user/"));
    assert_eq!(kept(node).len(), 2);
    for file in kept(node) {
        let token = fs::read_to_string(&file).expect("a token");
        let own = granary_meta::token::inspect(&token).expect("a token").only().expect("one").to_string();
        let other = if own == "user/alice" { "user/bob" } else { "user/alice" };
        let listed = service.as_bearer(&token, &["ns", "list"]);
        assert!(listed.stdout.contains(&own) && !listed.stdout.contains(other), "{listed:?}");
        for namespace in [other, &own] {
            let passed_on = service.as_bearer(&token, &["token", "delegate", namespace]);
            assert!(
                passed_on.code != Some(0) && passed_on.stderr.contains("may not delegate"),
                "{passed_on:?}"
            );
        }
        let (dir, token) = (target(node, "stolen"), file.display().to_string());
        fs::create_dir_all(&dir).expect("a directory");
        node.fails(
            &["mount", other, dir.to_str().expect("utf-8"), "--token-file", &token],
            "there is no namespace",
        );
    }
    // Nor does the driver's own token open anything, or make one for what it was not issued for.
    let own = fs::read_to_string(node.path("csi.token")).expect("a token");
    assert!(!service.as_bearer(&own, &["ns", "list"]).stdout.contains("user/"));
    let beyond = service.as_bearer(&own, &["token", "delegate", "group/other"]);
    assert!(beyond.stderr.contains("may not delegate"), "{beyond:?}");

    let sessions = scene.as_root(&["meta", "sessions"]);
    assert!(sessions.contains(" user/alice ") && sessions.contains(" user/bob "), "{sessions}");
    let audit = service.audit_log();
    assert!(
        audit.contains("delegated") && audit.contains("pod users/alice-0") && audit.contains("user/bob"),
        "{audit}"
    );
    for dir in [&read, &hers, &his] {
        driver.unpublish(dir).expect("gone");
    }
    // What is in the store, and mounted nowhere, keeps no session.
    node.ok(&["sync", "--all"]);
    until("the node lets go", || {
        let sessions = scene.as_root(&["meta", "sessions"]);
        !sessions.contains(" user/alice ") && !sessions.contains(" user/bob ")
    });
}

#[test]
fn open_files_and_locks_go_on_while_tokens_are_renewed() {
    let scene = Scene::new("2s");
    let dir = target(&scene.node, "hers");
    let publish = Publish::inline(ALICE, "user/alice");
    scene.driver().publish(&dir, &publish).expect("published");
    let mut open = File::create_new(dir.join("open")).expect("created");
    fs::write(dir.join("lock"), "").expect("written");
    let (mut holder, mut other) = (Locker::with(&dir.join("lock")), Locker::with(&dir.join("lock")));
    holder.is("flock f ex", "ok");
    let began = scene.link("user/alice")["session"].clone();
    let mut written = 0u64;
    // The first token is refused half a minute after its end; by then the connection shows another.
    let mut age = 0;
    until_within("the connection was renewed", Duration::from_secs(120), || {
        written += 1;
        open.write_all_at(&written.to_le_bytes(), 0).expect("written");
        fs::write(dir.join(format!("file-{}", written % 50)), written.to_string()).expect("a file");
        if written.is_multiple_of(20) {
            open.sync_all().expect("synced");
            scene.driver().publish(&dir, &publish).expect("as kubelet does, again and again");
            let link = scene.link("user/alice");
            let since = link["since_ms"].as_u64().expect("a number");
            let renewed = since < age && link["connected"] == true;
            age = since;
            return renewed;
        }
        false
    });
    let mut text = [0; 8];
    open.seek(SeekFrom::Start(0)).expect("seek");
    open.write_all(&written.to_le_bytes()).expect("written");
    open.seek(SeekFrom::Start(0)).expect("seek");
    File::open(dir.join("open")).expect("opened").read_exact(&mut text).expect("read");
    assert_eq!(u64::from_le_bytes(text), written);
    assert_eq!(scene.link("user/alice")["session"], began, "the same session");
    assert_eq!(scene.link("user/alice")["fenced"], Value::Null);
    other.is("flock f ex nb", "EAGAIN");
    holder.is("flock f un", "ok");
    other.is("flock f ex nb", "ok");
    drop((holder, other, open));
    scene.driver().unpublish(&dir).expect("gone");
}

#[test]
fn a_withdrawn_right_ends_with_its_token_and_what_was_written_is_kept() {
    let scene = Scene::new("1s");
    let dir = target(&scene.node, "hers");
    let publish = Publish::inline(ALICE, "user/alice");
    scene.driver().publish(&dir, &publish).expect("published");
    fs::write(dir.join("precious"), vec![7; 300_000]).expect("written");
    File::open(dir.join("precious")).expect("opened").sync_all().expect("synced");
    fs::write(scene.node.path("access.toml"), "").expect("withdrawn");
    until_within("the right ends", Duration::from_secs(120), || {
        let refused = scene.driver().publish(&dir, &publish).expect_err("withdrawn");
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
        is_denied(fs::write(dir.join("more"), "x"))
    });
    let condition = scene.driver().condition(&dir);
    let told = scene.node.ok(&["status"]);
    assert!(
        told.contains("THE TOKEN HAS ENDED") && told.contains("granary token hand"),
        "{told}\n{condition:?}"
    );
    assert!(scene.dirty_bytes("user/alice") >= 300_000, "{told}");
    // The administrator brings it out, while the pod still may nothing.
    scene
        .node
        .fails(&["token", "hand", &scene.delegated("user/bob"), "--namespace", "user/alice"], "there is no");
    let handed = scene.node.ok(&["token", "hand", &scene.delegated("user/alice")]);
    assert!(
        handed.contains("user/alice by this token") && handed.contains("not in the store yet"),
        "{handed}"
    );
    scene.node.ok(&["sync", "--all"]);
    assert_eq!(scene.dirty_bytes("user/alice"), 0);
    let other = scene.service.node(&scene.root);
    let there = other.mount("user/alice", "ro");
    assert_eq!(fs::read(there.join("precious")).expect("read"), vec![7; 300_000]);
    other.umount(&there);
    scene.driver().unpublish(&dir).expect("gone");
}

#[test]
fn a_revoked_parent_ends_its_volumes_and_another_one_takes_them_on() {
    let scene = Scene::new("1h");
    let dir = target(&scene.node, "hers");
    let publish = Publish::inline(ALICE, "user/alice");
    scene.driver().publish(&dir, &publish).expect("published");
    fs::write(dir.join("file"), "before").expect("written");
    let parent = scene.node.path("csi.token");
    let next = delegating(&scene.service);
    scene.as_root(&["token", "revoke", parent.to_str().expect("utf-8")]);
    let (kept, file) = (kept(&scene.node), dir.join("more"));
    let stolen = fs::read_to_string(&kept[0]).expect("a token");
    let refused = scene.service.as_bearer(&stolen, &["ns", "list"]);
    assert!(refused.stderr.contains("not accepted"), "{refused:?}");
    until("the right ends", || is_denied(fs::write(&file, "x")));
    // It cannot be renewed by the same token, and is by another.
    let refused = scene.driver().publish(&dir, &publish).expect_err("revoked");
    assert!(refused.message().contains("no token can be had for user/alice"), "{refused}");
    fs::write(&parent, next).expect("the administrator's next");
    until("the driver shows its next token", || scene.driver().publish(&dir, &publish).is_ok());
    until("the mount goes on", || !is_denied(fs::write(&file, "after")));
    assert_eq!(fs::read_to_string(dir.join("file")).expect("read"), "before");
    assert_eq!(fs::read_to_string(&file).expect("read"), "after");
    scene.driver().unpublish(&dir).expect("gone");
}

#[test]
fn a_node_that_is_started_anew_goes_on_by_the_tokens_it_kept() {
    let mut scene = Scene::new("1h");
    let dir = target(&scene.node, "hers");
    scene.driver().publish(&dir, &Publish::inline(ALICE, "user/alice")).expect("published");
    fs::write(dir.join("file"), vec![3; 200_000]).expect("written");
    File::open(dir.join("file")).expect("opened").sync_all().expect("synced");
    // Nobody gives it others.
    drop(scene.driver.take());
    scene.node.kill();
    scene.node.start();
    assert!(scene.dirty_bytes("user/alice") >= 200_000, "{}", scene.node.log());
    // Without one it keeps what is there, and says so.
    scene.node.kill();
    kept(&scene.node).iter().for_each(|file| fs::remove_file(file).expect("removed"));
    scene.node.start();
    assert_eq!(scene.dirty_bytes("user/alice"), 0);
    let left = scene.node.status()["unopened"][0].clone();
    assert!(left["bytes"].as_u64().expect("a number") >= 200_000, "{left}");
    let told = scene.node.ok(&["status"]);
    assert!(told.contains("unopened") && told.contains("granary token hand"), "{told}");
    let handed = scene.node.ok(&["token", "hand", &scene.delegated("user/alice")]);
    assert!(handed.contains("not in the store yet"), "{handed}");
    assert_eq!(scene.node.status()["unopened"], Value::Array(vec![]));
    scene.node.ok(&["sync", "--all"]);
    let other = scene.service.node(&scene.root);
    let there = other.mount("user/alice", "ro");
    assert_eq!(fs::read(there.join("file")).expect("read"), vec![3; 200_000]);
    other.umount(&there);
    granary_tests::run_ok("umount -l \"$1\"", &[&dir]); // what the killed node left
}

#[test]
fn a_controller_with_a_token_of_its_own_needs_none_of_the_nodes() {
    let mut scene = Scene::new("1h");
    let file = scene.node.path("volumes.token");
    fs::write(&file, &scene.root).expect("a token");
    let delegate = scene.node.path("csi.token");
    let with = |path: &Path| path.to_str().expect("utf-8").to_owned();
    drop(scene.driver.take());
    let driver = Driver::start(
        &scene.node,
        &["--access", "none", "--volumes-token", &with(&file), "--delegate", &with(&delegate)],
    );
    let (volume, _) = driver.claim("pvc-1", "team-a");
    assert!(scene.service.as_bearer(&scene.root, &["ns", "list"]).stdout.contains(&volume));
    assert!(!scene.node.ok(&["ns", "list"]).contains(&volume));
    driver.delete(&volume).expect("deleted");
    assert!(!scene.service.as_bearer(&scene.root, &["ns", "list"]).stdout.contains(&volume));
}
