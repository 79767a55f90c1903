//! What pods notice when parts end or are replaced.

use std::fs;

use crate::cluster::{Space, eventually, get, kube_node, kubectl};
use crate::figures::record;
use crate::install::{HOME, csi_pid, folder, install, kill, node_pid, pod_of, settled, status, turn};
use crate::pods::{by, claim, claimed, inline, loaded, pod};

/// Rounds of the load so far.
fn beats(space: &Space, pod: &str) -> usize {
    space.sh(pod, "wc -l </tmp/beats").trim().parse().expect("a number")
}

/// Waits until the load has done `more` rounds from now.
fn goes_on(space: &Space, pod: &str, more: usize) {
    let before = beats(space, pod);
    eventually("the pod's program goes on", || beats(space, pod) >= before + more);
}

/// Ends the load; its failures, and its longest time between two rounds in seconds.
fn end(space: &Space, pod: &str) -> (String, f64) {
    space.sh(pod, "touch /tmp/end; while [ ! -e /tmp/ended ]; do sleep 0.1; done");
    let beats = space.sh(pod, "cat /tmp/beats");
    let times: Vec<f64> = beats.lines().map(|line| line.parse().expect("a time")).collect();
    let longest = times.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
    (space.sh(pod, "cat /tmp/failures"), longest)
}

#[test]
fn a_pod_is_deleted_while_it_writes() {
    let _turn = turn();
    let space = Space::new("deleted");
    space.apply(vec![claim("work", "1Gi"), loaded("writer", claimed("work"))]);
    space.running("writer");
    goes_on(&space, "writer", 20);
    space.delete_pod("writer");
    // Another finds what it left, whole: each file was renamed into its place.
    space.apply(vec![pod("reader", claimed("work"))]);
    space.running("reader");
    let sizes = space.sh("reader", "stat -c %s /data/load/f? | sort -u");
    assert_eq!(sizes, "65536\n");
}

#[test]
fn the_kubelet_is_restarted() {
    let _turn = turn();
    let space = Space::new("kubelet");
    space.apply(vec![claim("work", "1Gi"), loaded("writer", claimed("work"))]);
    space.running("writer");
    goes_on(&space, "writer", 5);
    kube_node(&["restart", "kubelet"]);
    eventually("it knows its pods again", || space.exec("writer", "true").code == Some(0));
    goes_on(&space, "writer", 20);
    let (failures, longest) = end(&space, "writer");
    assert_eq!(failures, "");
    record("longest pause of a writer, kubelet restarted", &format!("{longest:.2} s"));
    // It knows the mount, and takes it away with the pod.
    space.delete_pod("writer");
    eventually("nothing of it is mounted", || {
        status()["mounts"].as_array().is_some_and(|mounts| mounts.is_empty())
    });
}

#[test]
fn the_driver_is_killed_while_pods_are_made() {
    let _turn = turn();
    let space = Space::new("driver");
    space.apply(vec![claim("work", "1Gi"), loaded("writer", claimed("work"))]);
    space.running("writer");
    let names: Vec<String> = (0..6).map(|n| format!("p{n}")).collect();
    space.apply(names.iter().map(|name| pod(name, claimed("work"))).collect());
    kill(csi_pid());
    for name in &names {
        space.running(name);
        space.sh(name, "ls /data/load");
    }
    let (failures, longest) = end(&space, "writer");
    assert_eq!(failures, "");
    record("longest pause of a writer, driver killed", &format!("{longest:.2} s"));
    settled();
}

#[test]
fn the_driver_is_upgraded_under_load() {
    let _turn = turn();
    let space = Space::new("upgraded");
    space.apply(vec![claim("work", "1Gi"), loaded("writer", claimed("work"))]);
    space.running("writer");
    let pid = node_pid();
    install("2");
    settled();
    let image = |app: &str| get(&["-n", HOME, "pod", &pod_of(app)])["spec"]["containers"][0]["image"].clone();
    eventually("the new driver runs", || image("granary-csi-node") == "granary.test/granary:2");
    goes_on(&space, "writer", 20);
    // The node's process is the administrator's to end: OnDelete.
    assert_eq!((node_pid(), image("granary-node")), (pid, "granary.test/granary:1".into()));
    let (failures, longest) = end(&space, "writer");
    assert_eq!(failures, "");
    record("longest pause of a writer, driver upgraded", &format!("{longest:.2} s"));
    install("1");
    settled();
}

/// What is true as long as no keeper holds the mounts: a pod that is there loses its volume, and what it had written and
/// synced is there for the next.
#[test]
fn the_node_process_is_killed() {
    let _turn = turn();
    let space = Space::new("killed");
    space.apply(vec![claim("work", "1Gi"), loaded("writer", claimed("work"))]);
    space.running("writer");
    space.sh("writer", "echo kept >/data/kept; sync /data/kept");
    goes_on(&space, "writer", 5);
    let pid = node_pid();
    kill(pid);
    eventually("another node's process serves", || {
        kubectl(&[
            "-n",
            HOME,
            "exec",
            &pod_of("granary-node"),
            "-c",
            "node",
            "--",
            "granary",
            "status",
            "--json",
        ])
        .stdout
        .parse::<serde_json::Value>()
        .is_ok_and(|status| status["pid"].as_u64().is_some_and(|new| new != u64::from(pid)))
    });
    settled();
    let lost = space.exec("writer", "ls /data");
    assert!(lost.stderr.contains("not connected"), "{lost:?}");
    space.delete_pod("writer");
    space.apply(vec![pod("next", claimed("work"))]);
    space.running("next");
    assert_eq!(space.sh("next", "cat /data/kept"), "kept\n");
}

#[test]
fn everything_is_killed_and_comes_back() {
    let _turn = turn();
    let space = Space::new("rebooted");
    let mut writer = loaded("writer", claimed("work"));
    writer["spec"]["restartPolicy"] = "Always".into();
    space.apply(vec![claim("work", "1Gi"), writer, by(pod("home", inline("user/alice")), "alice", 1001)]);
    space.running("writer");
    space.running("home");
    space.sh("home", "echo kept >/data/kept; sync /data/kept");
    goes_on(&space, "writer", 5);
    for pid in [node_pid(), csi_pid()] {
        kill(pid);
    }
    kube_node(&["stop"]);
    kube_node(&["start"]);
    settled();
    // The pods are the same, their containers are new, and so are their mounts.
    space.running("writer");
    space.running("home");
    eventually("its files are there", || space.exec("home", "cat /data/kept").stdout == "kept\n");
    goes_on(&space, "writer", 5);
    assert_eq!(end(&space, "writer").0, "");
    space.sh("home", "rm /data/kept");
}

#[test]
fn the_store_is_gone_while_a_pod_writes() {
    let _turn = turn();
    let space = Space::new("outage");
    space.apply(vec![claim("work", "1Gi"), loaded("writer", claimed("work"))]);
    space.running("writer");
    goes_on(&space, "writer", 5);
    // A file where the objects' folder was: nothing can be stored, nor read.
    let (objects, away) = (folder("store/ns"), folder("store/away"));
    fs::rename(&objects, &away).expect("rename");
    fs::write(&objects, "in the way").expect("write");
    eventually("the node tells that storing fails", || {
        let told = status().to_string();
        told.contains("\"error\":\"")
    });
    goes_on(&space, "writer", 50);
    fs::remove_file(&objects).expect("remove");
    fs::rename(&away, &objects).expect("rename");
    let (failures, longest) = end(&space, "writer");
    assert_eq!(failures, "");
    record("longest pause of a writer, store gone", &format!("{longest:.2} s"));
    eventually("all of it is stored", || {
        let mounts = status()["mounts"].clone();
        let dirty = |mount: &serde_json::Value| mount["dirty_bytes"].as_u64() != Some(0);
        !mounts.as_array().expect("mounts").iter().any(dirty)
    });
}
