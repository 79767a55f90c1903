//! The pods and claims that tests use.

use serde_json::{Value, json};

const IMAGE: &str = "granary.test/busybox:1";

/// A pod that waits, with one volume at /data. It does not wait for its end when it is deleted.
pub fn pod(name: &str, volume: Value) -> Value {
    with_script(name, volume, "exec sleep 1000000")
}

pub fn with_script(name: &str, volume: Value, script: &str) -> Value {
    let mut volume = volume;
    volume["name"] = "data".into();
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": false,
        "containers": [{
            "name": "main", "image": IMAGE, "command": ["sh", "-c", script, "main", "/data/load"],
            "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        }],
        "volumes": [volume],
    }})
}

/// A pod under the load of `load.sh`.
pub fn loaded(name: &str, volume: Value) -> Value {
    with_script(name, volume, include_str!("load.sh"))
}

/// The same pod by another account.
pub fn by(mut pod: Value, account: &str, uid: u32) -> Value {
    pod["spec"]["serviceAccountName"] = account.into();
    pod["spec"]["securityContext"] = json!({"runAsUser": uid, "runAsGroup": uid});
    pod
}

pub fn claimed(claim: &str) -> Value {
    json!({"persistentVolumeClaim": {"claimName": claim}})
}

pub fn inline(namespace: &str) -> Value {
    json!({"csi": {"driver": "csi.granary.dev", "volumeAttributes": {"namespace": namespace}}})
}

pub fn empty() -> Value {
    json!({"emptyDir": {}})
}

pub fn claim(name: &str, size: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": {
        "storageClassName": "granary",
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": size}},
    }})
}
