//! Granary in the cluster: our image, installed by our chart, once for all tests.

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use granary_tests::Port;
use serde_json::{Value, json};

use crate::beneath;
use crate::cluster::{eventually, get, kube_node, kubectl, ok, project, variable};

pub const HOME: &str = "granary";

/// Who may mount what in these tests: each account what bears its name, in the Kubernetes namespaces of tests that mount it.
const ACCESS: &str = r#"[[grant]]
to = ["withdrawn/*", "datasets/*", "fifty/*", "figures/*", "rebooted/*", "users/*"]
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
        beneath::prepare();
        install("1");
        settled();
        for (name, uid) in [("user/alice", "1001"), ("user/bob", "1002"), ("dataset/asr", "1001")] {
            let made = try_administrator(&["ns", "create", name, "--owner", uid, "--group", uid]);
            // A cluster that was used before has them.
            assert!(made.code == Some(0) || made.stderr.contains("is there already"), "{made:?}");
        }
    });
    settled();
    turn
}

/// Where what the node keeps is on this machine.
pub fn folder(name: &str) -> PathBuf {
    PathBuf::from(variable("KUBE_NODE_SHARED")).join("granary").join(name)
}

/// Two versions of the image, to upgrade from one to the other, and the sidecars'. `GRANARY_KUBE_IMAGE`: an archive of one that was
/// built by `deploy/Containerfile`.
fn images() {
    kube_node(&["sidecars"]);
    let program = format!("{}:/usr/bin/granary", variable("GRANARY_BIN"));
    for version in ["1", "2"] {
        let name = format!("granary.test/granary:{version}");
        match std::env::var("GRANARY_KUBE_IMAGE") {
            Ok(archive) => kube_node(&["load", &name, &archive]),
            // Without any certificates that are trusted: the store is spoken to without TLS, and all else by certificates of its own.
            Err(_) => kube_node(&["image", &name, "--bin", &program, "--", "/usr/bin/granary"]),
        };
    }
}

fn values(version: &str) -> Value {
    static PORT: OnceLock<Port> = OnceLock::new();
    let sidecar = |name: &str| format!("granary.test/csi-{name}:1");
    let path = |name: &str| folder(name).display().to_string();
    let mut values = json!({
        "image": {"repository": "granary.test/granary", "tag": version},
        "sidecars": {
            "provisioner": sidecar("provisioner"), "resizer": sidecar("resizer"),
            "registrar": sidecar("registrar"), "livenessprobe": sidecar("livenessprobe"),
        },
        "paths": {
            "kubelet": variable("KUBE_NODE_KUBELET_DIR"),
            "cache": path("cache"), "meta": path("meta"), "run": path("run"),
        },
        "node": {
            "settings": {"cache_free_percent_min": 0, "small_period_ms": "500ms", "large_period_ms": "1s"},
            "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "4Gi"}},
        },
        "csi": {"livenessPort": PORT.get_or_init(Port::new).number()},
        // Without kube-proxy only the host's network reaches the API server.
        "controller": {"hostNetwork": true},
        "access": ACCESS,
    });
    beneath::values(&mut values);
    values
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
    let service = beneath::is_rgw().then_some("sts/granary-meta");
    let others =
        ["ds/granary-keeper", "ds/granary-node", "ds/granary-csi-node", "deploy/granary-csi-controller"];
    for workload in service.into_iter().chain(others) {
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

/// Waits until what runs of a workload is this version of the image.
pub fn runs(app: &str, version: &str) {
    let image = format!("granary.test/granary:{version}");
    eventually(&format!("{app} runs {image}"), || {
        live(app).is_some_and(|pod| {
            pod["spec"]["containers"][0]["image"] == image.as_str()
                && pod["status"]["containerStatuses"][0]["ready"] == true
        })
    });
}

/// The pod of a workload, once there is one that is not being deleted.
pub fn pod(app: &str) -> Value {
    let mut found = None;
    eventually(&format!("there is a pod of {app}"), || {
        found = live(app);
        found.is_some()
    });
    found.expect("it was found")
}

fn live(app: &str) -> Option<Value> {
    let all = get(&["-n", HOME, "pod", "-l", &format!("app={app}")]);
    let mut all = all["items"].as_array()?.iter();
    all.find(|pod| pod["metadata"]["deletionTimestamp"].is_null()).cloned()
}

/// Its name.
pub fn pod_of(app: &str) -> String {
    pod(app)["metadata"]["name"].as_str().expect("a name").to_owned()
}

/// A `granary` command in the node's own pod, whatever comes of it.
pub fn try_granary(args: &[&str]) -> granary_tests::Output {
    let pod = pod_of("granary-node");
    kubectl(&[&["-n", HOME, "exec", &pod, "-c", "node", "--", "granary"], args].concat())
}

/// A `granary ns` command by an administrator's right, which a node of a metadata service has not itself: the controller has a token.
fn try_administrator(args: &[&str]) -> granary_tests::Output {
    if !beneath::is_rgw() {
        return try_granary(args);
    }
    let by = ["--socket", "/run/granary/node.sock", "--token-file", "/etc/granary-volumes/volumes"];
    let exec = ["-n", HOME, "exec", "deploy/granary-csi-controller", "-c", "csi", "--", "granary"];
    kubectl(&[&exec[..], args, &by].concat())
}

/// The volume's namespaces.
pub fn namespaces() -> String {
    let out = try_administrator(&["ns", "list"]);
    assert_eq!(out.code, Some(0), "{}\n{}{}", out.stdout, out.stderr, logs());
    out.stdout
}

/// One that must succeed; what it printed.
pub fn granary(args: &[&str]) -> String {
    let out = try_granary(args);
    assert_eq!(out.code, Some(0), "granary {args:?}\n{}\n{}{}", out.stdout, out.stderr, logs());
    out.stdout
}

pub fn status() -> Value {
    serde_json::from_str(&granary(&["status", "--json"])).expect("JSON")
}

/// Waits until another node's process than this one serves.
pub fn another(than: u32) {
    eventually("another node's process serves", || {
        let status: Option<Value> = serde_json::from_str(&try_granary(&["status", "--json"]).stdout).ok();
        status.is_some_and(|status| status["pid"].as_u64().is_some_and(|pid| pid != u64::from(than)))
    });
}

/// Waits until everything is in the store.
pub fn stored() {
    eventually("all of it is stored", || {
        let status = status();
        let mut all = ["mounts", "draining"].iter().flat_map(|which| status[which].as_array()).flatten();
        all.all(|space| space["dirty_bytes"] == 0)
    });
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

/// The process of ours in a workload's pod: the one that was started with this word. By its cgroup, so that it is this cluster's.
pub fn pid_of(app: &str, word: &str) -> u32 {
    let pod = pod(app)["metadata"]["uid"].as_str().expect("a uid").to_owned();
    let all = std::fs::read_dir("/proc").expect("/proc").flatten();
    let mut pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let serving = pids.find(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|&byte| byte == 0).any(|one| one == word.as_bytes())
            && std::fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|text| text.contains(&pod))
    });
    serving.unwrap_or_else(|| panic!("no process of {app} was started with {word}"))
}

/// The process of the driver on the node.
pub fn csi_pid() -> u32 {
    pid_of("granary-csi-node", "--serve=node")
}

/// What the parts wrote, the end of it.
pub fn logs() -> String {
    let of = |app: &str, container: &str| {
        let (label, container) = (format!("-lapp={app}"), format!("-c{container}"));
        let out = kubectl(&["-n", HOME, "logs", &label, &container, "--tail=30"]);
        format!("\n--- {app} {container} ---\n{}{}", out.stdout, out.stderr)
    };
    of("granary-node", "node")
        + &of("granary-keeper", "keeper")
        + &of("granary-meta", "meta")
        + &of("granary-csi-node", "csi")
        + &of("granary-csi-controller", "csi")
        + &of("granary-csi-controller", "provisioner")
}
