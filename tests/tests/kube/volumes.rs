//! What pods see.

use serde_json::json;

use crate::cluster::{Space, eventually};
use crate::install::{namespaces, turn};
use crate::pods::{by, claim, claimed, inline, pod};

#[test]
fn a_claim_is_written_by_one_pod_and_read_by_another_and_grows() {
    let _turn = turn();
    let space = Space::new("claims");
    space.apply(vec![claim("work", "64Mi"), pod("one", claimed("work")), pod("two", claimed("work"))]);
    space.running("one");
    space.sh(
        "one",
        "echo hello >/data/greeting; mkdir /data/dir; head -c 3000000 /dev/urandom >/data/dir/large",
    );
    let sum = space.sh("one", "md5sum </data/dir/large");
    space.running("two");
    assert_eq!(space.sh("two", "cat /data/greeting"), "hello\n");
    assert_eq!(space.sh("two", "md5sum </data/dir/large"), sum);
    // More than it may hold is refused, until it grows.
    let full = space.exec("two", "head -c 100000000 /dev/zero >/data/more");
    assert_ne!(full.code, Some(0), "64 MiB hold 100 MB");
    space.sh("two", "rm /data/more");
    space.kube(&["patch", "pvc", "work", "-p", r#"{"spec":{"resources":{"requests":{"storage":"256Mi"}}}}"#]);
    eventually("the claim has grown", || {
        space.get(&["pvc", "work"])["status"]["capacity"]["storage"] == "256Mi"
    });
    eventually("the pod may write more", || {
        space.exec("two", "head -c 100000000 /dev/zero >/data/more").code == Some(0)
    });
    // What the claim made goes with it.
    let volume = space.get(&["pvc", "work"])["spec"]["volumeName"].as_str().expect("a name").to_owned();
    assert!(namespaces().contains(&volume));
    space.delete_pod("one");
    space.delete_pod("two");
    space.kube(&["delete", "pvc", "work", "--timeout=240s"]);
    eventually("the namespace is gone", || !namespaces().contains(&volume));
}

#[test]
fn users_have_their_own_and_not_each_others() {
    let _turn = turn();
    let space = Space::new("users");
    space.apply(vec![
        by(pod("alice", inline("user/alice")), "alice", 1001),
        by(pod("bob", inline("user/bob")), "bob", 1002),
        by(pod("thief", inline("user/alice")), "bob", 1001),
    ]);
    space.running("alice");
    space.running("bob");
    space.sh("alice", "echo secret >/data/letter; chmod 644 /data/letter");
    assert_eq!(space.sh("alice", "cat /data/letter"), "secret\n");
    assert!(!space.sh("bob", "ls -a /data").contains("letter"));
    // Bob's pod says that it is alice's volume it wants, and even has her user id: it never runs, and says why.
    eventually("the pod that may not is told so", || {
        let events =
            space.kube(&["get", "events", "--field-selector", "involvedObject.name=thief", "-o", "json"]);
        events.contains("FailedMount") && events.contains("user/alice")
    });
    assert_eq!(space.get(&["pod", "thief"])["status"]["phase"], "Pending");
    space.sh("alice", "rm /data/letter");
}

#[test]
fn a_data_set_is_read_by_many_and_written_by_none() {
    let _turn = turn();
    let space = Space::new("datasets");
    space.apply(vec![by(pod("maker", inline("dataset/asr")), "alice", 1001)]);
    space.running("maker");
    space.sh("maker", "mkdir -p /data/train; for i in 1 2 3 4 5 6 7 8; do echo $i >/data/train/$i; done");
    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "datasets-asr"}, "spec": {
        "capacity": {"storage": "1Ti"}, "accessModes": ["ReadOnlyMany"], "storageClassName": "",
        "persistentVolumeReclaimPolicy": "Retain", "claimRef": {"namespace": "datasets", "name": "asr"},
        "csi": {"driver": "csi.granary.dev", "volumeHandle": "dataset/asr", "readOnly": true,
                "volumeAttributes": {"mountMode": "data"}},
    }});
    crate::cluster::apply(&[volume]);
    let mut wanted = claim("asr", "1Ti");
    wanted["spec"]["storageClassName"] = "".into();
    wanted["spec"]["volumeName"] = "datasets-asr".into();
    wanted["spec"]["accessModes"] = json!(["ReadOnlyMany"]);
    let readers = ["r1", "r2", "r3"].map(|name| by(pod(name, claimed("asr")), "bob", 1002));
    space.apply([vec![wanted], readers.to_vec()].concat());
    for reader in ["r1", "r2", "r3"] {
        space.running(reader);
        assert_eq!(space.sh(reader, "cat /data/train/*"), "1\n2\n3\n4\n5\n6\n7\n8\n");
        let refused = space.exec(reader, "echo x >/data/train/9");
        assert!(refused.stderr.contains("Read-only file system"), "{refused:?}");
    }
    // A claim's end does not take the data with it.
    for reader in ["r1", "r2", "r3"] {
        space.delete_pod(reader);
    }
    space.kube(&["delete", "pvc", "asr", "--timeout=240s"]);
    crate::cluster::kube(&["delete", "pv", "datasets-asr", "--timeout=240s"]);
    assert_eq!(space.sh("maker", "cat /data/train/3"), "3\n");
    space.sh("maker", "rm -r /data/train");
}
