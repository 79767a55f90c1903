//! What is written for people, taken by the real API server without being carried out.

use std::fs;
use std::process::Command;

use crate::cluster::{Space, kubectl, ok, project, variable};
use crate::install::turn;

fn dry_run(file: &str) {
    let out = kubectl(&["apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", file]);
    assert_eq!(out.code, Some(0), "{file}\n{}\n{}", out.stdout, out.stderr);
}

#[test]
fn the_examples_are_taken() {
    let _turn = turn();
    let _space = Space::new("team-asr");
    let files = fs::read_dir(project().join("deploy/examples")).expect("the folder of examples");
    let mut count = 0;
    for file in files.flatten() {
        dry_run(file.path().to_str().expect("utf-8"));
        count += 1;
    }
    assert!(count >= 4, "{count} examples");
}

/// With a metadata service, keeper, labels and dashboard, which the tests' own installation has not.
#[test]
fn the_other_values_are_taken() {
    let _turn = turn();
    let out = ok(Command::new(variable("GRANARY_HELM")).args(["template", "other"]).arg(project().join("deploy/chart/granary")).args([
        "--namespace=granary",
        "--set=volume.store=s3://training/granary,keeper.enabled=true,csi.labels=true,csi.tokenInSecrets=true,metrics.dashboard.enabled=true",
    ]));
    let file = crate::install::folder("other.yaml");
    fs::write(&file, out).expect("write");
    let file = file.to_str().expect("utf-8");
    // Under another release's names, so that nothing of the one that runs is in its way.
    let out = kubectl(&[
        "apply",
        "--server-side",
        "--force-conflicts",
        "--dry-run=server",
        "--validate=strict",
        "-f",
        file,
    ]);
    assert_eq!(out.code, Some(0), "{}\n{}", out.stdout, out.stderr);
}
