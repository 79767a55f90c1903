//! Over a Ceph and the metadata service: what pods notice when those end.

use std::time::Duration;

use granary_tests::until_within;
use serde_json::json;

use crate::beneath::{Outage, TTL_S};
use crate::breaks::{end, goes_on};
use crate::cluster::{PATIENCE, Space, eventually, get, kube};
use crate::figures::record;
use crate::install::{self, HOME, granary, kill, pid_of, status, stored, turn};
use crate::pods::{by, claim, claimed, inline, loaded, pod};

/// Deletes the service's pod, and waits for the next.
fn replaced() {
    let before = install::pod("granary-meta")["metadata"]["uid"].clone();
    kube(&["-n", HOME, "delete", "pod", "granary-meta-0", "--timeout=240s"]);
    eventually("another pod of the service is ready", || {
        let now = install::pod("granary-meta");
        now["metadata"]["uid"] != before && now["status"]["containerStatuses"][0]["ready"] == true
    });
}

/// The file of grants, in the cluster.
fn grants() -> String {
    let map = get(&["-n", HOME, "configmap", "granary-access"]);
    map["data"]["access.toml"].as_str().expect("a file").to_owned()
}

fn set_grants(text: &str) {
    let patch = json!({"data": {"access.toml": text}}).to_string();
    kube(&["-n", HOME, "patch", "configmap", "granary-access", "--type", "merge", "-p", &patch]);
}

/// Each volume is mounted by a token for it alone, which is not renewed when its grant is gone.
#[test]
fn a_withdrawn_grant_ends_with_its_token() {
    let _turn = turn();
    let space = Space::new("withdrawn");
    space.apply(vec![
        by(pod("alice", inline("user/alice")), "alice", 1001),
        by(pod("bob", inline("user/bob")), "bob", 1002),
    ]);
    space.running("alice");
    space.running("bob");
    // The node opens nothing by a right of its own.
    assert!(!granary(&["ns", "list"]).contains("user/"));
    let told = status();
    for mount in told["mounts"].as_array().expect("mounts") {
        let link = &mount["service"];
        assert_eq!(link["user"], "granary-csi", "{told}");
        assert!(link["token_left_ms"].as_u64().is_some_and(|left| left <= TTL_S * 1000), "{told}");
    }
    space.sh("alice", "echo hers >/data/hers; chmod 644 /data/hers; sync /data/hers");
    assert!(!space.sh("bob", "ls -a /data").contains("hers"));
    let granted = grants();
    set_grants(&granted.replace("\"withdrawn/*\", ", ""));
    // The file reaches the driver, and the token ends; for that it is waited half a minute more.
    until_within("her right has ended", Duration::from_secs(TTL_S) + PATIENCE, || {
        std::thread::park_timeout(Duration::from_secs(1)); // leaves the cores to the cluster
        let tried = space.exec("alice", "echo more >>/data/hers");
        tried.code != Some(0) && tried.stderr.contains("Permission denied")
    });
    set_grants(&granted);
    eventually("it is hers again", || space.exec("alice", "echo again >/data/again").code == Some(0));
    assert!(space.sh("alice", "cat /data/hers").starts_with("hers\n"));
    space.sh("alice", "rm /data/hers /data/again");
}

#[test]
fn the_metadata_service_is_killed_and_replaced() {
    let _turn = turn();
    let space = Space::new("service");
    space.apply(vec![claim("work", "1Gi"), loaded("writer", claimed("work"))]);
    space.running("writer");
    goes_on(&space, "writer", 20);
    kill(pid_of("granary-meta", "serve"));
    goes_on(&space, "writer", 20);
    replaced();
    goes_on(&space, "writer", 20);
    let (failures, longest) = end(&space, "writer");
    assert_eq!(failures, "");
    record(
        "longest pause of a writer, metadata service killed, then its pod deleted",
        &format!("{longest:.2} s"),
    );
    stored();
}

/// It starts again without the store, and what was written meanwhile goes there later.
#[test]
fn the_service_is_replaced_while_the_store_is_gone() {
    let _turn = turn();
    let space = Space::new("both");
    space.apply(vec![claim("work", "1Gi"), loaded("writer", claimed("work"))]);
    space.running("writer");
    goes_on(&space, "writer", 20);
    let outage = Outage::begin();
    replaced();
    goes_on(&space, "writer", 20);
    drop(outage);
    let (failures, longest) = end(&space, "writer");
    assert_eq!(failures, "");
    record(
        "longest pause of a writer, metadata service replaced without a store",
        &format!("{longest:.2} s"),
    );
    stored();
}
