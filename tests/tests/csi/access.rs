//! Who may mount what.

use std::fs;

use granary_tests::{Node, StoreKind};
use tonic::Code;

use crate::api::{ALICE, Api, BOB, Pod, grants};
use crate::driver::{Driver, Publish, target};
use crate::health::{Container, Shared};

const TRAINER: Pod = Pod { namespace: "team-a", account: "trainer", name: "train-0" };

const EVERYBODYS: &str = r#"
    [[grant]]
    to = ["*/*"]
    namespaces = ["dataset/digits"]
"#;

fn scene() -> (Node, Api, Driver) {
    let node = Node::new(StoreKind::Folder);
    for namespace in ["user/alice", "user/bob", "dataset/digits"] {
        node.ok(&["ns", "create", namespace, "--mode", "0777"]);
    }
    let api = Api::start();
    [ALICE, BOB, TRAINER].into_iter().for_each(|pod| api.knows(pod));
    let driver = Driver::guarded(&node, &api, &grants(EVERYBODYS));
    (node, api, driver)
}

#[test]
fn a_pod_gets_what_its_account_is_granted_and_nothing_else() {
    let (node, _api, driver) = scene();
    let (hers, his, set) = (target(&node, "hers"), target(&node, "his"), target(&node, "set"));
    driver.publish(&hers, &Publish::inline(ALICE, "user/alice")).expect("hers");
    fs::write(hers.join("file"), "hers").expect("she writes");
    // Whatever a pod writes into its volume's attributes, it is its token that counts.
    for publish in [
        Publish::inline(BOB, "user/alice"),
        Publish::inline(BOB, "user/alice").with("tree", "x"),
        Publish::inline(TRAINER, "user/alice"),
        Publish::inline(Pod { account: "alice", ..BOB }, "user/alice"),
        Publish::inline(Pod { name: "unknown", ..ALICE }, "user/alice"),
        Publish { pod: None, ..Publish::inline(ALICE, "user/alice") },
        Publish::inline(ALICE, "user/alice").with("uid", "1000"),
    ] {
        let refused = driver.publish(&his, &publish).expect_err("it is not granted");
        assert_eq!(refused.code(), Code::PermissionDenied, "{publish:?}: {refused}");
        assert!(!refused.message().contains("token-of"), "{refused}");
        assert!(!his.exists());
    }
    driver.publish(&set, &Publish::inline(TRAINER, "dataset/digits")).expect("everybody reads it");
    let e = fs::write(set.join("file"), "x").expect_err("and nobody writes");
    assert_eq!(e.raw_os_error(), Some(libc::EROFS));
    for dir in [&hers, &set] {
        driver.unpublish(dir).expect("gone");
        assert!(!dir.exists());
    }
}

#[test]
fn a_claims_volume_is_for_pods_of_its_kubernetes_namespace() {
    let (node, _api, driver) = scene();
    let (volume, context) = driver.claim("pvc-1", "team-a");
    assert_eq!(context.get("claimNamespace").map(String::as_str), Some("team-a"));
    let publish = |pod, claimed: &str| {
        let attributes = vec![("claimNamespace", claimed.to_owned())];
        Publish { volume: volume.clone(), attributes, pod: Some(pod), ..Publish::default() }
    };
    let dir = target(&node, "claim");
    let refused = driver.publish(&dir, &publish(ALICE, "team-a")).expect_err("another's");
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    driver.publish(&dir, &publish(TRAINER, "team-a")).expect("its own");
    fs::write(dir.join("file"), "x").expect("it writes");
    driver.unpublish(&dir).expect("gone");
    // In a pod's own attributes that word is not taken.
    let inline = Publish::inline(ALICE, &volume).with("claimNamespace", "users");
    assert_eq!(driver.publish(&dir, &inline).expect_err("no").code(), Code::InvalidArgument);
    let inline = Publish::inline(ALICE, &volume);
    assert_eq!(driver.publish(&dir, &inline).expect_err("no").code(), Code::PermissionDenied);
}

#[test]
fn a_right_that_is_taken_back_is_told_and_does_not_break_the_pod() {
    let (node, _api, driver) = scene();
    let dir = target(&node, "hers");
    let publish = Publish::inline(ALICE, "user/alice");
    driver.publish(&dir, &publish).expect("hers");
    driver.publish(&dir, &publish).expect("and again, as kubelet does");
    assert!(!driver.condition(&dir).expect("mounted").abnormal);
    let all = grants(EVERYBODYS);
    for (left, says) in [("", "may not mount"), (&all.replace("rw", "ro"), "more of user/alice")] {
        fs::write(node.path("access.toml"), left).expect("written");
        let refused = driver.publish(&dir, &publish).expect_err("taken back");
        assert!(refused.code() == Code::PermissionDenied && refused.message().contains(says), "{refused}");
        let condition = driver.condition(&dir).expect("still mounted");
        assert!(condition.abnormal && condition.message.contains(says), "{condition:?}");
        fs::write(dir.join("file"), "still hers").expect("programs go on");
    }
    fs::write(node.path("access.toml"), all).expect("written");
    driver.publish(&dir, &publish).expect("given back");
    assert!(!driver.condition(&dir).expect("mounted").abnormal);
    driver.unpublish(&dir).expect("gone");
}

#[test]
fn the_driver_wants_to_be_told_who_may() {
    let node = Node::new(StoreKind::Folder);
    let endpoint = format!("unix://{}", node.path("csi.sock").display());
    node.fails(&["csi", "--endpoint", &endpoint, "--node-id", "n"], "--access");
}

/// The node process is in a container, and the pods are in others: their copies of the mount have to have what it has.
#[test]
fn what_is_read_only_is_so_in_every_mount_namespace() {
    let (node, _api, driver) = scene();
    let (writes, reads) = (target(&node, "writes"), target(&node, "reads"));
    let inside = node.path("inside");
    fs::create_dir(&inside).expect("a directory");
    let pods = Shared::make(node.path("pods"));
    let container = Container::start(&node.path("pods"), &inside);
    driver.publish(&writes, &Publish::inline(ALICE, "user/alice")).expect("published");
    driver
        .publish(&reads, &Publish { read_only: true, ..Publish::inline(ALICE, "user/alice") })
        .expect("published");
    let there = |name: &str| container.path(&inside).join(name).join("file");
    fs::write(there("writes"), "hers").expect("written");
    assert_eq!(fs::read_to_string(there("reads")).expect("read"), "hers");
    let refused = fs::write(there("reads"), "more").expect_err("read-only");
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    for dir in [&writes, &reads] {
        driver.unpublish(dir).expect("unpublished");
    }
    drop((container, pods));
}
