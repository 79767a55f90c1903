//! What a keeper is for: the node's process ends, and programs in pods wait for the next one. Their open files go on.

use crate::breaks::{end, goes_on};
use crate::cluster::{Space, eventually};
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
        crate::cluster::kube(&["-n", HOME, "delete", "pod", "-l", "app=granary-node", "--timeout=240s"]);
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

/// Its pod is deleted, as a rolling update does.
#[test]
fn the_node_pod_is_deleted() {
    let _turn = turn();
    let space = at_work("replaced");
    let before = node_pid();
    crate::cluster::kube(&["-n", HOME, "delete", "pod", "-l", "app=granary-node", "--timeout=240s"]);
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
