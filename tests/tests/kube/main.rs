//! Granary in a real Kubernetes of one node, installed by its own chart. `tools/test kube` starts the cluster, builds what is
//! needed and runs this, over a folder and once more over a Ceph and a metadata service; `tools/test kube short` leaves out what takes
//! minutes.
//!
//! | file | what |
//! |---|---|
//! | `volumes` | claims, inline volumes, data sets: who sees what |
//! | `breaks` | kubelet and driver end, the store is gone, everything is, while a pod works |
//! | `kept` | the node's process and the keeper end: pods wait, and see no error |
//! | `service` | over Ceph alone: the metadata service ends, the store is gone with it |
//! | `beneath` | what the installation is over |
//! | `figures` | how long a pod with a volume takes to run, beside one without; fifty at once |
//! | `examples` | `deploy/examples` and the chart's other values, as the API server takes them |
//!
//! Tests take turns. Each has a Kubernetes namespace of its own and leaves nothing in it.

mod beneath;
mod breaks;
mod cluster;
mod examples;
mod figures;
mod install;
mod kept;
mod pods;
mod service;
mod volumes;
