//! The driver over a real node process and real mounts: Kubernetes' own conformance test over the real store, and what that does not
//! ask: who may, whose ids, what becomes of mounts that are dead or hang.
//!
//! | module | what it is |
//! |---|---|
//! | `api` | an API server that knows the pods of a test |
//! | `driver` | the driver, and calls as kubelet makes them |
//! | `access`, `ids`, `health`, `drain`, `tokens` | tests |

mod access;
mod api;
mod drain;
mod driver;
mod health;
mod ids;
mod tokens;

use std::process::Command;

use driver::Driver;
use granary_tests::{Node, StoreKind, run};

#[test]
fn csi_sanity_passes() {
    let sanity = std::env::var("GRANARY_CSI_SANITY")
        .expect("GRANARY_CSI_SANITY names the program csi-sanity; tools/test builds it");
    let node = Node::new(StoreKind::S3);
    let _driver = Driver::start(&node, &["--access", "none"]);
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
