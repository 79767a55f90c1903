//! What a keeper is for: the node's process ends, and programs in pods wait for the next one. Their open files go on.

use crate::breaks::{beats, end, goes_on, longest_after};
use crate::cluster::{Space, eventually, get, kube};
use crate::figures::record;
use crate::install::{
    HOME, another, granary, kill, node_pid, pid_of, pod, settled, status, try_granary, turn,
};
use crate::pods::{claim, claimed, loaded};

/// A pod that works on a volume, with a node's process in a pod that was never restarted: kubelet restarts a container at once only the
/// first time.
fn at_work(name: &str) -> Space {
    if pod("granary-node")["status"]["containerStatuses"][0]["restartCount"] != 0 {
        let before = node_pid();
        kube(&["-n", HOME, "delete", "pod", "-l", "app=granary-node", "--timeout=240s"]);
        another(before);
        settled();
    }
    let space = Space::new(name);
    space.apply(vec![claim("work", "1Gi"), loaded("writer", claimed("work"))]);
    space.running("writer");
    goes_on(&space, "writer", 20);
    assert!(kept(), "{}", status());
    space
}

fn kept() -> bool {
    status()["mounts"]
        .as_array()
        .is_some_and(|all| !all.is_empty() && all.iter().all(|mount| mount["kept"] == true))
}

/// It saw no error; how long it waited is recorded.
fn only_waited(space: &Space, why: &str) {
    goes_on(space, "writer", 20);
    let (failures, longest) = end(space, "writer");
    assert_eq!(failures, "");
    record(&format!("longest pause of a writer, {why}"), &format!("{longest:.2} s"));
    settled();
    // It is one of many mounts, and taken away like them.
    space.delete_pod("writer");
    eventually("nothing of it is mounted", || {
        status()["mounts"].as_array().is_some_and(|mounts| mounts.is_empty())
    });
}

#[test]
fn the_node_process_is_killed() {
    let _turn = turn();
    let space = at_work("killed");
    let before = node_pid();
    kill(before);
    another(before);
    assert!(kept(), "{}", status());
    only_waited(&space, "node's process killed");
}

/// As an upgrade does it: each time the next pod is up before the one before it ends.
#[test]
fn the_node_is_renewed_again_and_again() {
    let _turn = turn();
    let space = at_work("renewed");
    let mut pauses = Vec::new();
    for _ in 0..5 {
        let (begun, before) = (beats(&space, "writer"), node_pid());
        kube(&["-n", HOME, "rollout", "restart", "ds/granary-node"]);
        kube(&["-n", HOME, "rollout", "status", "ds/granary-node", "--timeout=240s"]);
        settled();
        assert_ne!(node_pid(), before);
        goes_on(&space, "writer", 10);
        pauses.push(longest_after(&space, "writer", begun));
    }
    pauses.sort_by(f64::total_cmp);
    let shown: Vec<String> = pauses.iter().map(|pause| format!("{pause:.2}")).collect();
    record("longest pauses of a writer, node's pod renewed five times", &format!("{} s", shown.join(", ")));
    only_waited(&space, "node's pod renewed five times");
}

/// One that takes the place of the node that runs, and then cannot serve, gives it back.
#[test]
fn an_upgrade_that_does_not_start_is_undone_by_itself() {
    let _turn = turn();
    let space = at_work("unfit");
    let sound = pod("granary-node")["metadata"]["name"].clone();
    // A folder without a volume, found when it has the place.
    kube(&["-n", HOME, "set", "env", "ds/granary-node", "-c", "node", "GRANARY_META=/nowhere"]);
    eventually("the unfit one has tried", || {
        let all = get(&["-n", HOME, "pod", "-l", "app=granary-node"]);
        all["items"].as_array().is_some_and(|all| {
            all.iter().any(|pod| {
                pod["metadata"]["name"] != sound
                    && pod["status"]["containerStatuses"][0]["restartCount"].as_u64().is_some_and(|n| n > 0)
            })
        })
    });
    goes_on(&space, "writer", 20);
    kube(&["-n", HOME, "rollout", "undo", "ds/granary-node"]);
    kube(&["-n", HOME, "rollout", "status", "ds/granary-node", "--timeout=240s"]);
    only_waited(&space, "node's pod renewed by one that does not start, and back");
}

/// Its pod is deleted, by a person or a drain.
#[test]
fn the_node_pod_is_deleted() {
    let _turn = turn();
    let space = at_work("replaced");
    let before = node_pid();
    kube(&["-n", HOME, "delete", "pod", "-l", "app=granary-node", "--timeout=240s"]);
    another(before);
    only_waited(&space, "node's pod deleted");
}

#[test]
fn the_keeper_is_killed_and_the_node_leaves() {
    let _turn = turn();
    let space = at_work("keeper");
    let restarts = pod("granary-keeper")["status"]["containerStatuses"][0]["restartCount"].as_u64();
    let before = pid_of("granary-keeper", "keeper");
    kill(before);
    eventually("there is another keeper", || {
        let now = &pod("granary-keeper")["status"]["containerStatuses"][0];
        now["ready"] == true && now["restartCount"].as_u64() > restarts && kept()
    });
    goes_on(&space, "writer", 5);
    // It has been given everything: what the node leaves goes on.
    let before = node_pid();
    let left = try_granary(&["node", "leave"]);
    assert!(!left.stderr.contains("not kept"), "{left:?}");
    another(before);
    only_waited(&space, "keeper killed, then the node's process told to leave");
    granary(&["status"]);
}
