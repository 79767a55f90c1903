//! Over a Ceph and the metadata service: what pods notice when those end.

use crate::beneath::Outage;
use crate::breaks::{end, goes_on};
use crate::cluster::{Space, eventually, kube};
use crate::figures::record;
use crate::install::{HOME, kill, pid_of, pod, stored, turn};
use crate::pods::{claim, claimed, loaded};

/// Deletes the service's pod, and waits for the next.
fn replaced() {
    let before = pod("granary-meta")["metadata"]["uid"].clone();
    kube(&["-n", HOME, "delete", "pod", "granary-meta-0", "--timeout=240s"]);
    eventually("another pod of the service is ready", || {
        let now = pod("granary-meta");
        now["metadata"]["uid"] != before && now["status"]["containerStatuses"][0]["ready"] == true
    });
}

#[test]
fn the_metadata_service_is_killed_and_replaced() {
    let _turn = turn();
    let space = Space::new("service");
    space.apply(vec![claim("work", "1Gi"), loaded("writer", claimed("work"))]);
    space.running("writer");
    goes_on(&space, "writer", 20);
    kill(pid_of("granary-meta", "serve"));
    goes_on(&space, "writer", 20);
    replaced();
    goes_on(&space, "writer", 20);
    let (failures, longest) = end(&space, "writer");
    assert_eq!(failures, "");
    record(
        "longest pause of a writer, metadata service killed, then its pod deleted",
        &format!("{longest:.2} s"),
    );
    stored();
}

/// It starts again without the store, and what was written meanwhile goes there later.
#[test]
fn the_service_is_replaced_while_the_store_is_gone() {
    let _turn = turn();
    let space = Space::new("both");
    space.apply(vec![claim("work", "1Gi"), loaded("writer", claimed("work"))]);
    space.running("writer");
    goes_on(&space, "writer", 20);
    let outage = Outage::begin();
    replaced();
    goes_on(&space, "writer", 20);
    drop(outage);
    let (failures, longest) = end(&space, "writer");
    assert_eq!(failures, "");
    record(
        "longest pause of a writer, metadata service replaced without a store",
        &format!("{longest:.2} s"),
    );
    stored();
}
