//! The driver as Kubernetes' own conformance test sees it, over a real node process, real mounts and the real store.

use std::os::unix::net::UnixStream;
use std::process::{Child, Command};

use granary_tests::{Node, StoreKind, run, until};

/// Ended when the test is.
struct Driver(Child);

impl Driver {
    fn start(node: &Node) -> Driver {
        let socket = node.path("csi.sock");
        let endpoint = format!("unix://{}", socket.display());
        let child = node.command(&["csi", "--endpoint", &endpoint, "--node-id", "node-1"]).spawn();
        let driver = Driver(child.expect("the driver starts"));
        until("the driver listens", || UnixStream::connect(&socket).is_ok());
        driver
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn csi_sanity_passes() {
    let sanity = std::env::var("GRANARY_CSI_SANITY")
        .expect("GRANARY_CSI_SANITY names the program csi-sanity; tools/test builds it");
    let node = Node::new(StoreKind::S3);
    let _driver = Driver::start(&node);
    let out = run(Command::new(&sanity)
        .arg(format!("--csi.endpoint=unix://{}", node.path("csi.sock").display()))
        .arg(format!("--csi.mountdir={}", node.path("target").display()))
        .arg(format!("--csi.stagingdir={}", node.path("staging").display()))
        .args(["--ginkgo.no-color", "--ginkgo.seed=1"]));
    assert_eq!(out.code, Some(0), "{}\n{}\n{}", out.stdout, out.stderr, node.log());
    let last = out.stdout.lines().find(|line| line.contains(" Passed | ")).expect("how many passed");
    let passed: u32 = last
        .split(" Passed")
        .next()
        .and_then(|text| text.split_whitespace().last())
        .and_then(|number| number.parse().ok())
        .expect("a number");
    println!("{last}");
    // What it leaves out are the snapshots, clones, attachments and groups that the driver does not claim.
    assert!(passed >= 48, "{last}");
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("the table of mounts");
    assert!(!mounts.contains(&node.path("target").display().to_string()), "{mounts}");
}
