//! Client and service over loopback in one process, with a proxy between them that breaks what can break.

mod cache_rules;
mod faults;
mod hostile;
mod leases;
mod many;
mod proxy;
mod rig;
mod takeover;
mod tls;
mod trash;
