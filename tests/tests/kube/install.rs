//! Granary in the cluster: our image, installed by our chart, once for all tests.

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use granary_tests::free_port;
use serde_json::{Value, json};

use crate::cluster::{eventually, get, kube, kube_node, kubectl, ok, project, variable};

pub const HOME: &str = "granary";

/// Who may mount what in these tests: each account what bears its name, in the Kubernetes namespaces of tests that mount it.
const ACCESS: &str = r#"[[grant]]
to = ["datasets/*", "fifty/*", "figures/*", "rebooted/*", "users/*"]
namespaces = ["user/{account}", "dataset/*"]
rights = "rw"
squash = true
"#;

/// Tests take turns: what one breaks on purpose another must not meet.
pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    static INSTALLED: OnceLock<()> = OnceLock::new();
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    INSTALLED.get_or_init(|| {
        images();
        install("1");
        settled();
        for (name, uid) in [("user/alice", "1001"), ("user/bob", "1002"), ("dataset/asr", "1001")] {
            granary(&["ns", "create", name, "--owner", uid, "--group", uid]);
        }
    });
    settled();
    turn
}

/// Where what the node keeps is on this machine.
pub fn folder(name: &str) -> PathBuf {
    PathBuf::from(variable("KUBE_NODE_SHARED")).join("granary").join(name)
}

/// Two versions of the image, to upgrade from one to the other, and the sidecars'.
fn images() {
    kube_node(&["sidecars"]);
    let program = format!("{}:/usr/bin/granary", variable("GRANARY_BIN"));
    for version in ["1", "2"] {
        let name = format!("granary.test/granary:{version}");
        kube_node(&["image", &name, "--bin", &program, "--", "/usr/bin/granary"]);
    }
}

fn values(version: &str) -> Value {
    static PORT: OnceLock<u16> = OnceLock::new();
    let sidecar = |name: &str| format!("granary.test/csi-{name}:1");
    let path = |name: &str| folder(name).display().to_string();
    json!({
        "image": {"repository": "granary.test/granary", "tag": version},
        "sidecars": {
            "provisioner": sidecar("provisioner"), "resizer": sidecar("resizer"),
            "registrar": sidecar("registrar"), "livenessprobe": sidecar("livenessprobe"),
        },
        "volume": {"store": "file:///srv/store"},
        "meta": {"mode": "node"},
        "paths": {
            "kubelet": variable("KUBE_NODE_KUBELET_DIR"),
            "cache": path("cache"), "meta": path("meta"), "run": path("run"),
        },
        "node": {
            "settings": {"cache_free_percent_min": 0, "small_period_ms": "500ms", "large_period_ms": "1s"},
            "extraVolumes": [{"name": "store", "hostPath": {"path": path("store"), "type": "DirectoryOrCreate"}}],
            "extraVolumeMounts": [{"name": "store", "mountPath": "/srv/store"}],
            "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "4Gi"}},
        },
        "csi": {"livenessPort": *PORT.get_or_init(free_port)},
        // Without kube-proxy only the host's network reaches the API server.
        "controller": {"hostNetwork": true},
        "access": ACCESS,
    })
}

/// Installs, or upgrades to, this version of the image.
pub fn install(version: &str) {
    let file = folder("values.json");
    std::fs::create_dir_all(folder("")).expect("a folder");
    std::fs::write(&file, values(version).to_string()).expect("write");
    ok(Command::new(variable("GRANARY_HELM"))
        .args(["upgrade", "--install", "granary"])
        .arg(project().join("deploy/chart/granary"))
        .args(["--namespace", HOME, "--create-namespace", "--values"])
        .arg(&file));
}

/// Waits until everything of ours runs and the driver is registered.
pub fn settled() {
    for workload in ["ds/granary-node", "ds/granary-csi-node", "deploy/granary-csi-controller"] {
        eventually(workload, || {
            let status = &get(&["-n", HOME, workload])["status"];
            let count = |key: &str| status[key].as_u64().unwrap_or(0);
            let generation = get(&["-n", HOME, workload])["metadata"]["generation"].clone();
            status["observedGeneration"] == generation
                && count("numberReady") + count("readyReplicas") == 1
                && count("numberUnavailable") + count("unavailableReplicas") == 0
        });
    }
    let node = variable("KUBE_NODE_NAME");
    eventually("the driver is registered", || {
        let drivers = get(&["csinode", &node])["spec"]["drivers"].clone();
        drivers.as_array().is_some_and(|all| all.iter().any(|driver| driver["name"] == "csi.granary.dev"))
    });
}

/// The pod of a workload.
pub fn pod_of(app: &str) -> String {
    kube(&["-n", HOME, "get", "pod", "-l", &format!("app={app}"), "-o", "jsonpath={.items[0].metadata.name}"])
}

/// A `granary` command in the node's own pod.
pub fn granary(args: &[&str]) -> String {
    let pod = pod_of("granary-node");
    kube(&[&["-n", HOME, "exec", &pod, "-c", "node", "--", "granary"], args].concat())
}

pub fn status() -> Value {
    serde_json::from_str(&granary(&["status", "--json"])).expect("JSON")
}

/// The node process, as this machine counts it.
pub fn node_pid() -> u32 {
    status()["pid"].as_u64().expect("a pid") as u32
}

/// kill -9 of a process of the cluster's, by its number.
pub fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid as i32).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kill -9");
}

/// The process of the driver on the node: the one of our programs that serves CSI there.
pub fn csi_pid() -> u32 {
    let of = |pid: u32| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let roots = std::fs::read_dir("/proc").expect("/proc");
    let pids = roots.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let serving = pids.filter(|&pid| {
        let line = of(pid);
        let words: Vec<&[u8]> = line.split(|&byte| byte == 0).collect();
        words.contains(&&b"csi"[..]) && words.contains(&&b"--serve=node"[..]) && in_this_cluster(pid)
    });
    serving.last().expect("the driver runs")
}

/// Whether a process belongs to the cluster of these tests, by its cgroup.
fn in_this_cluster(pid: u32) -> bool {
    let pod = kube(&[
        "-n",
        HOME,
        "get",
        "pod",
        "-l",
        "app=granary-csi-node",
        "-o",
        "jsonpath={.items[0].metadata.uid}",
    ]);
    std::fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|text| text.contains(&pod))
}

/// What the parts wrote, the end of it.
pub fn logs() -> String {
    let of = |app: &str, container: &str| {
        let (label, container) = (format!("-lapp={app}"), format!("-c{container}"));
        let out = kubectl(&["-n", HOME, "logs", &label, &container, "--tail=30"]);
        format!("\n--- {app} {container} ---\n{}{}", out.stdout, out.stderr)
    };
    of("granary-node", "node")
        + &of("granary-csi-node", "csi")
        + &of("granary-csi-controller", "csi")
        + &of("granary-csi-controller", "provisioner")
}
