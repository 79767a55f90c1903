//! What a volume costs a pod. Told on standard output, and written as a table to the file that `GRANARY_KUBE_FIGURES` names.

use std::fs::OpenOptions;
use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::beneath;
use crate::cluster::{Space, kubectl, ok, variable};
use crate::install::{granary, status, turn};
use crate::pods::{by, claim, claimed, empty, inline, pod};

/// A line of the table.
pub fn record(what: &str, figure: &str) {
    let what = match beneath::is_rgw() {
        true => format!("over RGW and a metadata service: {what}"),
        false => what.to_owned(),
    };
    println!("{what}: {figure}");
    let Ok(path) = std::env::var("GRANARY_KUBE_FIGURES") else { return };
    let file = OpenOptions::new().create(true).append(true).open(&path);
    let mut file = file.unwrap_or_else(|e| panic!("{path}: {e}"));
    writeln!(file, "| {what} | {figure} |").unwrap_or_else(|e| panic!("{path}: {e}"));
}

/// How long these take to be ready from the moment they are asked for.
#[allow(clippy::disallowed_methods)] // a measurement
fn ready(space: &Space, documents: Vec<Value>, pods: &[String]) -> Duration {
    let start = Instant::now();
    space.apply(documents);
    let names: Vec<String> = pods.iter().map(|name| format!("pod/{name}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let out = kubectl(
        &[&["-n", &space.name, "wait", "--for=condition=Ready", "--timeout=500s"][..], &names].concat(),
    );
    assert_eq!(out.code, Some(0), "{}\n{}", out.stderr, space.told(&pods[0]));
    start.elapsed()
}

/// The middle of several.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

#[test]
fn a_pod_with_a_volume_runs_nearly_as_soon_as_one_without() {
    let _turn = turn();
    let space = Space::new("figures");
    let (mut without, mut with_claim, mut with_inline) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..3 {
        let name = |what: &str| format!("{what}{n}");
        let (a, b, c) = (name("plain"), name("claim"), name("inline"));
        without.push(ready(&space, vec![pod(&a, empty())], std::slice::from_ref(&a)));
        let made = vec![claim(&b, "1Gi"), pod(&b, claimed(&b))];
        with_claim.push(ready(&space, made, std::slice::from_ref(&b)));
        let own = by(pod(&c, inline("user/alice")), "alice", 1001);
        with_inline.push(ready(&space, vec![own], std::slice::from_ref(&c)));
    }
    record("pod without a volume, asked for to ready, median of 3", &seconds(median(without)));
    record("pod with a new claim, asked for to ready, median of 3", &seconds(median(with_claim)));
    record("pod with an inline volume, asked for to ready, median of 3", &seconds(median(with_inline)));
}

fn memory() -> u64 {
    status()["memory_bytes"].as_u64().expect("memory")
}

#[test]
fn fifty_pods_at_once_have_their_volumes() {
    let _turn = turn();
    let space = Space::new("fifty");
    let before = memory();
    let pods: Vec<String> = (0..50).map(|n| format!("p{n}")).collect();
    let documents = (0..50).map(|n| {
        let name = &pods[n];
        if n % 2 == 0 {
            pod(name, claimed("shared"))
        } else {
            by(pod(name, inline("user/alice")), "alice", 1001)
        }
    });
    let time = ready(&space, std::iter::once(claim("shared", "1Gi")).chain(documents).collect(), &pods);
    for name in ["p0", "p49"] {
        space.sh(name, "echo $HOSTNAME >/data/$HOSTNAME && ls /data");
    }
    let each = memory().saturating_sub(before) / 50;
    record("50 pods at once, half a claim's, half inline, all ready", &seconds(time));
    record("memory of the node's process for each of their mounts", &format!("{} KiB", each / 1024));
    space.kube(&["delete", "pod", "--all", "--grace-period=1", "--timeout=500s"]);
    granary(&["status"]);
}

/// The program's own measurement, in a pod and on the node, one after the other.
#[test]
fn files_in_a_pod_are_as_fast_as_on_the_node() {
    let _turn = turn();
    let space = Space::new("speed");
    // By the same program here and there.
    let script = |dir: &str| {
        format!(
            "cd {dir}; now() {{ busybox cut -d' ' -f1 /proc/uptime; }}; n=0; s=$(now); \
             while [ $n -lt 500 ]; do n=$((n+1)); echo $n >s$n; done; busybox head -c 200000000 /dev/zero >large; \
             e=$(now); busybox rm s* large; echo $s $e"
        )
    };
    space.apply(vec![claim("work", "1Gi"), pod("one", claimed("work"))]);
    space.running("one");
    let uid = space.get(&["pod", "one"])["metadata"]["uid"].as_str().expect("a uid").to_owned();
    let volume = space.get(&["pvc", "work"])["spec"]["volumeName"].as_str().expect("a name").to_owned();
    let dir =
        format!("{}/pods/{uid}/volumes/kubernetes.io~csi/{volume}/mount", variable("KUBE_NODE_KUBELET_DIR"));
    let took = |text: String| {
        let times: Vec<f64> = text.split_whitespace().map(|word| word.parse().expect("a time")).collect();
        times[1] - times[0]
    };
    let (mut inside, mut outside) = (Vec::new(), Vec::new());
    for _round in 0..3 {
        inside.push(took(space.sh("one", &script("/data"))));
        outside.push(took(ok(Command::new("busybox").args(["sh", "-euc", &script(&dir)]))));
    }
    inside.sort_by(f64::total_cmp);
    outside.sort_by(f64::total_cmp);
    record(
        "500 small files and 200 MB written, in the pod and on its node's mount, median of 3",
        &format!("{:.2} s and {:.2} s", inside[1], outside[1]),
    );
}
