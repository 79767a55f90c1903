//! The cluster that `tools/test kube` started, as kubectl and `tools/kube-node` show it.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use granary_tests::{Output, run, until_within};
use serde_json::Value;

use crate::install::{HOME, logs, try_granary};

/// What any step may take on a busy machine of two cores.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// A variable that `tools/test kube` sets.
pub fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run this by `tools/test kube`"))
}

/// The project's folder.
pub fn project() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// Runs a program that must succeed; what it printed.
pub fn ok(command: &mut Command) -> String {
    let out = run(command);
    assert_eq!(out.code, Some(0), "{command:?}\n{}\n{}", out.stdout, out.stderr);
    out.stdout
}

pub fn kubectl(args: &[&str]) -> Output {
    run(Command::new("kubectl").args(args))
}

/// A call of kubectl that must succeed.
pub fn kube(args: &[&str]) -> String {
    ok(Command::new("kubectl").args(args))
}

pub fn kube_node(args: &[&str]) -> String {
    ok(Command::new(project().join("tools/kube-node")).args(args))
}

/// Makes or changes what the documents say.
pub fn apply(documents: &[Value]) {
    let out = send(&["apply", "-f", "-"], documents);
    assert_eq!(out.code, Some(0), "{documents:?}\n{}\n{}", out.stdout, out.stderr);
}

/// Gives the documents to kubectl's standard input.
pub fn send(args: &[&str], documents: &[Value]) -> Output {
    let mut child = Command::new("kubectl")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kubectl starts");
    let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": documents});
    let mut input = child.stdin.take().expect("it was asked for");
    input.write_all(list.to_string().as_bytes()).expect("kubectl reads");
    drop(input);
    let out = child.wait_with_output().expect("kubectl ends");
    Output {
        code: out.status.code(),
        stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
    }
}

/// One object, as JSON.
pub fn get(args: &[&str]) -> Value {
    serde_json::from_str(&kube(&[&["get", "-o", "json"], args].concat())).expect("JSON")
}

/// Asks again until the cluster says so; the last answers are told when it never does.
pub fn eventually(what: &str, mut ready: impl FnMut() -> bool) {
    until_within(what, PATIENCE, || {
        let done = ready();
        if !done {
            // kubectl takes a tenth of a second itself; this leaves the cores to the cluster.
            std::thread::park_timeout(Duration::from_millis(100));
        }
        done
    });
}

/// A Kubernetes namespace of a test's own, gone with it.
pub struct Space {
    pub name: String,
}

impl Space {
    pub fn new(name: &str) -> Space {
        apply(&[serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})]);
        // Pods are refused before it is there.
        eventually("the default account", || kubectl(&["-n", name, "get", "sa", "default"]).code == Some(0));
        for account in ["alice", "bob"] {
            apply(&[serde_json::json!({"apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": {"name": account, "namespace": name}})]);
        }
        Space { name: name.to_owned() }
    }

    pub fn kube(&self, args: &[&str]) -> String {
        kube(&[&["-n", &self.name], args].concat())
    }

    pub fn apply(&self, mut documents: Vec<Value>) {
        for document in &mut documents {
            document["metadata"]["namespace"] = self.name.clone().into();
        }
        apply(&documents);
    }

    pub fn get(&self, args: &[&str]) -> Value {
        get(&[&["-n", &self.name], args].concat())
    }

    /// Waits until a pod's containers run.
    pub fn running(&self, pod: &str) {
        self.wait(pod, "Ready");
    }

    pub fn wait(&self, pod: &str, condition: &str) {
        let (condition, patience) =
            (format!("--for=condition={condition}"), format!("--timeout={}s", PATIENCE.as_secs()));
        let out = kubectl(&["-n", &self.name, "wait", &condition, &patience, &format!("pod/{pod}")]);
        assert_eq!(out.code, Some(0), "{}\n{}", out.stderr, self.told(pod));
    }

    /// What is known of a pod, for a failure's message.
    pub fn told(&self, pod: &str) -> String {
        let out = kubectl(&["-n", &self.name, "describe", "pod", pod]);
        let events = out.stdout.find("\nStatus:").map_or("", |at| &out.stdout[at..]);
        format!("{events}{}", crate::install::logs())
    }

    /// Runs a script in a pod.
    pub fn exec(&self, pod: &str, script: &str) -> Output {
        kubectl(&["-n", &self.name, "exec", pod, "--", "sh", "-c", script])
    }

    /// One that must succeed; what it printed.
    pub fn sh(&self, pod: &str, script: &str) -> String {
        let out = self.exec(pod, script);
        assert_eq!(out.code, Some(0), "{script}\n{}\n{}\n{}", out.stdout, out.stderr, self.told(pod));
        out.stdout
    }

    pub fn delete_pod(&self, pod: &str) {
        self.kube(&["delete", "pod", pod, "--grace-period=1", "--timeout=240s"]);
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("--- events ---\n{}", kubectl(&["-n", &self.name, "get", "events"]).stdout);
            println!("--- pods ---\n{}", kubectl(&["-n", HOME, "get", "pods"]).stdout);
            println!("--- status ---\n{}{}", try_granary(&["status"]).stdout, logs());
        }
        let out = kubectl(&["delete", "namespace", &self.name, "--timeout=240s", "--ignore-not-found"]);
        assert!(out.code == Some(0) || std::thread::panicking(), "{}", out.stderr);
    }
}
