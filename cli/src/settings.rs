//! Settings: one table, three ways to give each. A setting `dirty_bytes_max` is the flag `--dirty-bytes-max`, the
//! variable `GRANARY_DIRTY_BYTES_MAX` and the key `dirty_bytes_max` of `granary.toml`; the first of these that gives
//! it wins, then comes the default.
//!
//! The file is the one of `--config`, else of `GRANARY_CONFIG`, else `/etc/granary/granary.toml` if that exists. The working
//! directory is never searched: root's commands must not obey a file somebody else left there.
//!
//! What is not a setting is refused by name, with the nearest setting. A variable that begins with `GRANARY_` is refused
//! only when it looks like a misspelt setting, since Kubernetes makes variables from the names of services.

mod build;
mod cache_dirs;
mod memory;
mod place;
mod shares;
mod sources;
mod table;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;

use granary_cache::CacheFolder;
use granary_core::limits::Limits;
use granary_fuse::Transport;

pub use place::MetaPlace;
pub use shares::CacheShares;
pub use sources::{CONFIG_DEFAULT, Sources};
pub use table::{SETTINGS, Scope, Setting, Unit, Who, dashed, find};

/// Who runs the process that holds the mounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeper {
    /// The node starts it when it is missing.
    Own,
    /// Somebody who restarts it, as Kubernetes and systemd do. One of the node's own would end with what runs the node.
    Apart,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Auto,
    Human,
    Json,
}

/// All settings with their values; paths are absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub meta: MetaPlace,
    pub cache: PathBuf,
    /// More folders for the read cache.
    pub cache_dirs: Vec<CacheFolder>,
    /// What namespaces have of the read cache.
    pub cache_shares: CacheShares,
    pub socket: PathBuf,
    pub store: Option<String>,
    /// Servers of the store; none: what the AWS tools would use.
    pub store_endpoints: Vec<String>,
    pub token_file: Option<PathBuf>,
    pub meta_ca: Option<PathBuf>,
    pub data: DataSettings,
    pub service: ServiceSettings,
    pub audit_log: Option<PathBuf>,
    pub log: String,
    pub log_format: LogFormat,
    pub log_file: Option<PathBuf>,
    /// Where Prometheus asks.
    pub metrics: Option<SocketAddr>,
    /// For mounts whose options do not say it.
    pub transport: Transport,
    /// Mounts outlive the process, where they can.
    pub keeper: Option<Keeper>,
    pub stop_wait_ms: u64,
    pub stop_drain_ms: u64,
    pub backup: BackupSettings,
    pub limits: Limits,
    /// The names that were given, and not left at their default.
    given: Vec<&'static str>,
}

/// How the metadata is saved in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupSettings {
    /// 0: never.
    pub interval_ms: u64,
    pub keep: usize,
}

/// How other nodes reach what is staged here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DataSettings {
    pub listen: Option<SocketAddr>,
    /// `HOST:PORT`.
    pub advertise: Option<String>,
    pub tls: Option<TlsPaths>,
    /// Other nodes are spoken to over TLS, and must be vouched for by these.
    pub ca: Option<PathBuf>,
}

/// How the metadata service listens, and whom it trusts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSettings {
    pub listen: SocketAddr,
    pub tls: Option<TlsPaths>,
    pub trust: Vec<PathBuf>,
    pub lease_time_ms: u64,
}

/// A certificate with its chain, and its private key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsPaths {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Settings {
    /// Whether somebody asked for this value, rather than the default.
    pub fn is_given(&self, name: &str) -> bool {
        self.given.contains(&name)
    }

    /// The limits that somebody asked for, with their values.
    pub fn given_limits(&self) -> serde_json::Map<String, serde_json::Value> {
        let mut limits = self.limits_by_name();
        limits.retain(|name, _| self.is_given(name));
        limits
    }

    /// Of these limits, the names of those that have other values here.
    pub fn differing(&self, limits: &serde_json::Map<String, serde_json::Value>) -> Vec<String> {
        let ours = self.limits_by_name();
        limits
            .iter()
            .filter(|(name, value)| ours.get(*name) != Some(*value))
            .map(|(name, _)| name.clone())
            .collect()
    }

    fn limits_by_name(&self) -> serde_json::Map<String, serde_json::Value> {
        match serde_json::to_value(&self.limits) {
            Ok(serde_json::Value::Object(limits)) => limits,
            _ => unreachable!("limits are a plain struct of numbers"),
        }
    }
}
