//! Granary in a real Kubernetes of one node, installed by its own chart. `tools/test kube` starts the cluster, builds what is
//! needed and runs this; `tools/test kube short` leaves out what takes minutes.
//!
//! | file | what |
//! |---|---|
//! | `volumes` | claims, inline volumes, data sets: who sees what |
//! | `breaks` | kubelet, driver and node's process end, the store is gone, while a pod works |
//! | `figures` | how long a pod with a volume takes to run, beside one without; fifty at once |
//! | `examples` | `deploy/examples` and the chart's other values, as the API server takes them |
//!
//! Tests take turns. Each has a Kubernetes namespace of its own and leaves nothing in it.

mod breaks;
mod cluster;
mod examples;
mod figures;
mod install;
mod pods;
mod volumes;
