//! One namespace on several nodes, each with a kernel mount, a cache and a proven identity of its own, and one metadata service.

mod appending;
mod faults;
mod history;
mod linear;
mod locks;
mod model;
mod recover;
mod staged;
mod tls;
