//! What is beneath the installation: a folder of the node, with metadata of its own; or, where `tools/test kube rgw` started a Ceph, its
//! RGW and the metadata service that the chart runs, with the keys, token and certificates of `deploy/secrets`.

use std::fs;
use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::cluster::{apply, ok, project, variable};
use crate::install::{HOME, folder, kill};

/// How long a volume's token lasts.
pub const TTL_S: u64 = 120;

/// Whether a Ceph is there, and a metadata service is used.
pub fn is_rgw() -> bool {
    std::env::var_os("GRANARY_KUBE_RGW").is_some()
}

/// What the chart is told of it.
pub fn values(values: &mut Value) {
    if is_rgw() {
        let bucket = variable("GRANARY_KUBE_RGW");
        values["volume"] = json!({"store": format!("s3://{bucket}/volume")});
        values["meta"] = json!({"mode": "service", "storage": {"className": "by-hand", "size": "1Gi"},
            "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "2Gi"}}});
        // So short that a right that is withdrawn ends within a test, and long enough to outlast what they break.
        values["csi"]["delegate"] = json!({"ttl": format!("{TTL_S}s")});
    } else {
        values["volume"] = json!({"store": "file:///srv/store"});
        let node = &mut values["node"];
        node["extraVolumes"] = json!([{"name": "store", "hostPath":
            {"path": folder("store").display().to_string(), "type": "DirectoryOrCreate"}}]);
        node["extraVolumeMounts"] = json!([{"name": "store", "mountPath": "/srv/store"}]);
        values["meta"] = json!({"mode": "node"});
    }
}

/// What must be there before the chart is installed.
pub fn prepare() {
    if !is_rgw() {
        return;
    }
    let (host, ours) = (variable("KUBE_NODE_HOST"), variable("AWS_ENDPOINT_URL"));
    let port =
        ours.rsplit(':').next().and_then(|port| port.parse().ok()).expect("AWS_ENDPOINT_URL has a port");
    relay(&host, port);
    ok(Command::new(project().join("deploy/secrets"))
        .arg(folder("secrets"))
        .env("GRANARY", variable("GRANARY_BIN"))
        .env("NAMESPACE", HOME)
        .env("AWS_ENDPOINT_URL", format!("http://{host}:{port}")));
    // Of the service's metadata: an administrator's to give, where nothing provisions volumes.
    let path = folder("metadata");
    fs::create_dir_all(&path).expect("a folder");
    apply(&[
        json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "granary-meta"}, "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "by-hand",
            "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": path.display().to_string()},
            "claimRef": {"namespace": HOME, "name": "meta-granary-meta-0"},
        }}),
    ]);
}

/// Pods with a network of their own reach the host only by its address on their bridge, where RGW does not listen.
fn relay(host: &str, port: u16) {
    static LISTENS: OnceLock<()> = OnceLock::new();
    LISTENS.get_or_init(|| {
        let listener = TcpListener::bind((host, port)).expect("the bridge's address is free");
        std::thread::spawn(move || {
            for here in listener.incoming().flatten() {
                // Without RGW the connection just ends.
                let Ok(there) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                let pair = |one: &TcpStream, other: &TcpStream| {
                    Ok::<_, io::Error>((one.try_clone()?, other.try_clone()?))
                };
                for (from, to) in [pair(&here, &there), pair(&there, &here)].into_iter().flatten() {
                    std::thread::spawn(move || pump(from, to));
                }
            }
        });
    });
}

fn pump(mut from: TcpStream, mut to: TcpStream) {
    // Either end may close whenever it likes.
    let _ended = io::copy(&mut from, &mut to);
    let _closed = to.shutdown(Shutdown::Write);
}

/// The store is gone until this is dropped.
pub struct Outage;

impl Outage {
    pub fn begin() -> Outage {
        if is_rgw() {
            let file = PathBuf::from(variable("CEPH_RGW_STATE")).join("run/rgw.pid");
            let text = fs::read_to_string(file).expect("RGW's number");
            kill(text.split_whitespace().next().and_then(|pid| pid.parse().ok()).expect("a number"));
        } else {
            // A file where the objects' folder was: nothing can be stored, nor read.
            fs::rename(folder("store/ns"), folder("store/away")).expect("rename");
            fs::write(folder("store/ns"), "in the way").expect("write");
        }
        Outage
    }
}

impl Drop for Outage {
    fn drop(&mut self) {
        if is_rgw() {
            ok(Command::new(project().join("tools/ceph-rgw")).arg("start"));
        } else {
            fs::remove_file(folder("store/ns")).expect("remove");
            fs::rename(folder("store/away"), folder("store/ns")).expect("rename");
        }
    }
}
