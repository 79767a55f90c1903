//! What pods notice when parts end or are replaced.

use crate::beneath::Outage;
use crate::cluster::{Space, eventually, kube_node};
use crate::figures::record;
use crate::install::{
    HOME, another, csi_pid, granary, install, kill, node_pid, pid_of, pod_of, runs, settled, status, stored,
    try_granary, turn,
};
use crate::pods::{by, claim, claimed, inline, loaded, pod};

/// Rounds of the load so far.
pub fn beats(space: &Space, pod: &str) -> usize {
    space.sh(pod, "wc -l </tmp/beats").trim().parse().expect("a number")
}

/// Waits until the load has done `more` rounds from now.
pub fn goes_on(space: &Space, pod: &str, more: usize) {
    let before = beats(space, pod);
    eventually("the pod's program goes on", || beats(space, pod) >= before + more);
}

/// Ends the load; its failures, and its longest time between two rounds in seconds.
pub fn end(space: &Space, pod: &str) -> (String, f64) {
    space.sh(pod, "touch /tmp/end; while [ ! -e /tmp/ended ]; do sleep 0.1; done");
    (space.sh(pod, "cat /tmp/failures"), longest_after(space, pod, 0))
}

/// The longest time between two rounds of the load, in seconds, without its first rounds.
pub fn longest_after(space: &Space, pod: &str, rounds: usize) -> f64 {
    let beats = space.sh(pod, "cat /tmp/beats");
    let times: Vec<f64> = beats.lines().skip(rounds).map(|line| line.parse().expect("a time")).collect();
    times.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max)
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
        // A file that is always there: the others are being renamed.
        assert_eq!(space.sh(name, "head -n 1 /data/load/log"), "1\n");
    }
    let (failures, longest) = end(&space, "writer");
    assert_eq!(failures, "");
    record("longest pause of a writer, driver killed", &format!("{longest:.2} s"));
    settled();
}

#[test]
fn an_upgrade_under_load() {
    let _turn = turn();
    let space = Space::new("upgraded");
    space.apply(vec![claim("work", "1Gi"), loaded("writer", claimed("work"))]);
    space.running("writer");
    goes_on(&space, "writer", 5);
    let keeper = pid_of("granary-keeper", "keeper");
    for version in ["2", "1"] {
        install(version);
        runs("granary-csi-node", version);
        runs("granary-node", version);
        goes_on(&space, "writer", 20);
    }
    settled();
    assert_eq!(pid_of("granary-keeper", "keeper"), keeper);
    let (failures, longest) = end(&space, "writer");
    assert_eq!(failures, "");
    record("longest pause of a writer, all upgraded but the keeper, twice", &format!("{longest:.2} s"));
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
    // Something is there.
    granary(&["sync", "--all"]);
    let outage = Outage::begin();
    eventually("the node tells that storing fails", || {
        let told = status().to_string();
        told.contains("\"error\":\"")
    });
    goes_on(&space, "writer", 50);
    drop(outage);
    let (failures, longest) = end(&space, "writer");
    assert_eq!(failures, "");
    record("longest pause of a writer, store gone", &format!("{longest:.2} s"));
    stored();
}

/// What is not in the store is told by a drain, within its time, and by the process that stops; it is kept for the next.
#[test]
fn the_node_stops_while_the_store_is_gone() {
    let _turn = turn();
    let space = Space::new("stopped");
    space.apply(vec![claim("work", "1Gi"), pod("writer", claimed("work"))]);
    space.running("writer");
    space.sh("writer", "echo early >/data/early");
    granary(&["sync", "--all"]);
    let outage = Outage::begin();
    space.sh("writer", "echo late >/data/late; head -c 3000000 /dev/urandom >/data/large");
    let sum = space.sh("writer", "md5sum </data/large");
    space.delete_pod("writer");
    let volume = space.get(&["pvc", "work"])["spec"]["volumeName"].as_str().expect("a name").to_owned();
    let drained = try_granary(&["node", "drain", "--wait", "3s"]);
    assert_ne!(drained.code, Some(0));
    assert!(drained.stderr.contains(&volume) && drained.stderr.contains(" files: "), "{drained:?}");
    let (before, name) = (node_pid(), pod_of("granary-node"));
    // The next is started in the same container.
    granary(&["node", "stop"]);
    another(before);
    settled();
    let said = crate::cluster::kube(&["-n", HOME, "logs", &name, "-c", "node"]);
    assert!(said.contains("are not in the store; they are kept on this node's disk"), "{said}");
    // The next has it, still without the store.
    space.apply(vec![pod("reader", claimed("work"))]);
    space.running("reader");
    assert_eq!(space.sh("reader", "cat /data/late; md5sum </data/large"), format!("late\n{sum}"));
    drop(outage);
    stored();
    assert_eq!(space.sh("reader", "cat /data/early"), "early\n");
}
