//! Settings: one table, three ways to give each. A setting `dirty_bytes_max` is the flag `--dirty-bytes-max`, the
//! variable `GRANARY_DIRTY_BYTES_MAX` and the key `dirty_bytes_max` of `granary.toml`; the first of these that gives
//! it wins, then comes the default.
//!
//! The file is the one of `--config`, else of `GRANARY_CONFIG`, else `/etc/granary/granary.toml` if that exists. The working
//! directory is never searched: root's commands must not obey a file somebody else left there.
//!
//! What is not a setting is refused by name, with the nearest setting. A variable that begins with `GRANARY_` is refused
//! only when it looks like a misspelt setting, since Kubernetes makes variables from the names of services.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use granary_cache::CacheFolder;
use granary_core::limits::Limits;
use granary_fuse::Transport;

mod memory;
mod place;
mod shares;

pub use place::MetaPlace;
pub use shares::CacheShares;

use crate::exit::{Exit, Failure, Outcome, plain};
use crate::units;

/// How a setting's value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Path,
    Text,
    Bytes,
    Period,
    Count,
    Port,
}

/// Which commands have a flag for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Says which volume and node is meant: every command.
    Place,
    /// Concerns a process that serves, a node or a metadata service.
    Process,
    /// Concerns the node process: commands that start or are one.
    Node,
    /// Concerns the metadata service alone.
    Service,
    /// A field of [`Limits`]; the same commands as `Process`.
    Limit,
}

/// Whose settings a command has flags for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Those who talk to a process.
    Caller,
    Node,
    Service,
}

impl Scope {
    pub fn concerns(self, who: Who) -> bool {
        match self {
            Scope::Place => true,
            Scope::Process | Scope::Limit => who != Who::Caller,
            Scope::Node => who == Who::Node,
            Scope::Service => who == Who::Service,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub name: &'static str,
    pub unit: Unit,
    pub scope: Scope,
    pub help: &'static str,
}

const fn setting(name: &'static str, unit: Unit, scope: Scope, help: &'static str) -> Setting {
    Setting { name, unit, scope, help }
}

/// Every setting there is.
pub const SETTINGS: &[Setting] = &[
    setting(
        "meta",
        Unit::Path,
        Scope::Place,
        "Folder of the volume's metadata, or https://HOST:PORT of the service that has it",
    ),
    setting(
        "cache",
        Unit::Path,
        Scope::Place,
        "Folder on the node's disk for cached and not yet stored bytes",
    ),
    setting(
        "cache_dirs",
        Unit::Text,
        Scope::Node,
        "More folders for the read cache, on other disks: PATH or PATH=SIZE, with commas between them",
    ),
    setting(
        "cache_shares",
        Unit::Text,
        Scope::Node,
        "What namespaces have of the read cache: NAME=MIN..MAX or KIND/*=MIN..MAX, with commas between them",
    ),
    setting("socket", Unit::Path, Scope::Place, "Socket of the node process"),
    setting("store", Unit::Text, Scope::Place, "Where objects are: s3://BUCKET/PREFIX or file:///FOLDER"),
    setting(
        "store_endpoints",
        Unit::Text,
        Scope::Place,
        "Several servers of an s3:// store, with commas between them, instead of AWS_ENDPOINT_URL",
    ),
    setting(
        "token_file",
        Unit::Path,
        Scope::Place,
        "File with the token that proves to the metadata service who asks",
    ),
    setting(
        "meta_ca",
        Unit::Path,
        Scope::Place,
        "Certificates (PEM) that vouch for the metadata service, instead of the system's",
    ),
    setting(
        "log",
        Unit::Text,
        Scope::Process,
        "What to log: error, warn, info, debug, or granary_cache=debug,info",
    ),
    setting("log_format", Unit::Text, Scope::Process, "human, json, or auto (human on a terminal)"),
    setting(
        "log_file",
        Unit::Path,
        Scope::Process,
        "Log to this file (kept below 32 MiB) instead of standard error",
    ),
    setting(
        "audit_log",
        Unit::Path,
        Scope::Process,
        "Write who was refused what to this file (kept below 32 MiB) instead of the log",
    ),
    setting("metrics_port", Unit::Port, Scope::Process, "Loopback port for Prometheus, at /metrics"),
    setting(
        "metrics_address",
        Unit::Text,
        Scope::Process,
        "IP address at which metrics_port listens, instead of loopback; anybody who reaches it may read",
    ),
    setting(
        "meta_backup_interval_ms",
        Unit::Period,
        Scope::Process,
        "How often the metadata is saved in the store, when it changed; 0: never",
    ),
    setting(
        "meta_backups_max",
        Unit::Count,
        Scope::Process,
        "How many backups of the metadata are kept in the store",
    ),
    setting(
        "transport",
        Unit::Text,
        Scope::Node,
        "How mounts get their requests: dev (/dev/fuse), uring (over io_uring), or auto (uring where the kernel has it)",
    ),
    setting(
        "keeper",
        Unit::Text,
        Scope::Node,
        "on: a second process holds the mounts, so that they and open files outlive the node process; apart: the same, and somebody \
         else runs it (granary keeper); off: they end with it",
    ),
    setting("stop_wait_ms", Unit::Period, Scope::Node, "How long a stopping node waits for busy mounts"),
    setting(
        "stop_drain_ms",
        Unit::Period,
        Scope::Node,
        "How long a stopping node waits for the store to have what only its disk has; 0: the next start stores it",
    ),
    setting(
        "data_listen",
        Unit::Text,
        Scope::Node,
        "ADDRESS:PORT at which other nodes read what is not in the store yet; none: nobody does",
    ),
    setting(
        "data_advertise",
        Unit::Text,
        Scope::Node,
        "HOST:PORT by which they reach it, when that is another",
    ),
    setting("data_tls_cert", Unit::Path, Scope::Node, "Certificate (PEM) of data_listen: TLS from then on"),
    setting("data_tls_key", Unit::Path, Scope::Node, "Its private key (PEM)"),
    setting("data_ca", Unit::Path, Scope::Node, "Certificates (PEM) that vouch for other nodes: TLS to them"),
    setting("listen", Unit::Text, Scope::Service, "ADDRESS:PORT at which nodes reach the service"),
    setting(
        "lease_time_ms",
        Unit::Period,
        Scope::Service,
        "How long a node may be silent before what it holds is given to others",
    ),
    setting("tls_cert", Unit::Path, Scope::Service, "The service's certificate, with its chain (PEM)"),
    setting("tls_key", Unit::Path, Scope::Service, "Its private key (PEM)"),
    setting(
        "trust",
        Unit::Text,
        Scope::Service,
        "Public keys (files, with commas between them) whose tokens count",
    ),
    setting("small_file_bytes_max", Unit::Bytes, Scope::Limit, "Files up to this size are packed"),
    setting("small_period_ms", Unit::Period, Scope::Limit, "Small files leave for the store after this long"),
    setting(
        "large_period_ms",
        Unit::Period,
        Scope::Limit,
        "Large files leave after this long without writes",
    ),
    setting(
        "dirty_bytes_max",
        Unit::Bytes,
        Scope::Limit,
        "One namespace's bytes not yet in the store; its writers wait at it",
    ),
    setting(
        "dirty_files_max",
        Unit::Count,
        Scope::Limit,
        "One namespace's files not yet in the store; its writers wait at it",
    ),
    setting("cache_bytes_max", Unit::Bytes, Scope::Limit, "Disk space of the read cache"),
    setting(
        "cache_free_bytes_min",
        Unit::Bytes,
        Scope::Limit,
        "Free space on the cache's disk left to others",
    ),
    setting(
        "cache_free_percent_min",
        Unit::Count,
        Scope::Limit,
        "The same as a part of that disk, in percent; the larger counts",
    ),
    setting(
        "memory_bytes_max",
        Unit::Bytes,
        Scope::Limit,
        "Memory for data in flight; by default a share of what the control group and the machine have",
    ),
    setting("uploads_max", Unit::Count, Scope::Limit, "Uploads at once, of one namespace"),
    setting(
        "upload_bytes_per_s_max",
        Unit::Bytes,
        Scope::Limit,
        "Bytes a second that one namespace sends to the store; 0: no limit",
    ),
    setting(
        "compaction_bytes_per_s",
        Unit::Bytes,
        Scope::Limit,
        "Bytes per second read and written to rewrite objects that are mostly dead; 0: never",
    ),
    setting(
        "compaction_period_ms",
        Unit::Period,
        Scope::Limit,
        "Objects are looked through for those so often",
    ),
    setting(
        "fetches_max",
        Unit::Count,
        Scope::Limit,
        "Downloads at once; fewer while the store does not bear that many",
    ),
    setting(
        "hedge_percent_max",
        Unit::Count,
        Scope::Limit,
        "Downloads of 100 that may be asked for twice because the answer is late; 0: none",
    ),
    setting("store_connect_ms_max", Unit::Period, Scope::Limit, "How long connecting to the store may take"),
    setting(
        "store_first_byte_ms_max",
        Unit::Period,
        Scope::Limit,
        "How long the store may take to begin its answer",
    ),
    setting(
        "store_stall_ms_max",
        Unit::Period,
        Scope::Limit,
        "How long no byte may move in the middle of a request or an answer",
    ),
    setting("log_segment_bytes_max", Unit::Bytes, Scope::Limit, "Size of one segment of the stage log"),
    setting("open_files_max", Unit::Count, Scope::Limit, "Open descriptors of cache and stage"),
    setting("commit_interval_ms", Unit::Period, Scope::Limit, "Longest time of an operation in memory only"),
    setting("sync_interval_ms", Unit::Period, Scope::Limit, "Longest time without fsync on the node's disk"),
    setting(
        "retry_ms_max",
        Unit::Period,
        Scope::Limit,
        "A store request is tried again for at most this long",
    ),
    setting(
        "dead_object_grace_ms",
        Unit::Period,
        Scope::Limit,
        "How long an object stays after its last byte died",
    ),
];

/// Variables of our own that are no settings: the file's name, and what scripts around the program use.
const OTHER_VARIABLES: [&str; 4] =
    ["GRANARY_CONFIG", "GRANARY_BIN", "GRANARY_CACHE_DIR", "GRANARY_FAILPOINTS"];

pub const CONFIG_DEFAULT: &str = "/etc/granary/granary.toml";

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

/// The longest time between two backups: thirty days.
const BACKUP_INTERVAL_MS_MAX: u64 = 30 * 86_400_000;

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

/// What was asked for, before it is looked at.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    pub config: Option<PathBuf>,
    /// From flags or mount options: setting and value.
    pub flags: Vec<(String, String)>,
    pub env: Vec<(OsString, OsString)>,
}

#[derive(Clone, Debug)]
struct Given {
    text: String,
    /// How a message names where it was given: `--meta`, `GRANARY_META`, `/etc/granary/granary.toml`.
    origin: String,
}

type GivenSettings = BTreeMap<&'static str, Given>;

impl Sources {
    /// The process's environment and these flags.
    pub fn new(config: Option<PathBuf>, flags: Vec<(String, String)>) -> Sources {
        Sources { config, flags, env: std::env::vars_os().collect() }
    }

    /// The file that is read: `None` when there is none and none was asked for.
    pub fn config_file(&self) -> Option<PathBuf> {
        let named =
            self.env.iter().find(|(name, _)| name == "GRANARY_CONFIG").map(|(_, value)| PathBuf::from(value));
        self.config
            .clone()
            .or(named)
            .or_else(|| Some(PathBuf::from(CONFIG_DEFAULT)).filter(|path| path.exists()))
    }

    pub fn resolve(&self) -> Outcome<Settings> {
        let mut given = GivenSettings::new();
        if let Some(path) = self.config_file() {
            read_file(&path, &mut given)?;
        }
        read_env(&self.env, &mut given)?;
        for (name, text) in &self.flags {
            let known = find(name).ok_or_else(|| unknown(name, "on the command line"))?;
            given.insert(known.name, Given { text: text.clone(), origin: format!("--{}", dashed(name)) });
        }
        let mut settings = build(&given)?;
        if !settings.is_given("memory_bytes_max") {
            settings.limits.memory_bytes_max = memory::share_of_process();
        }
        Ok(settings)
    }
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

/// `dirty_bytes_max` as a flag: `dirty-bytes-max`.
pub fn dashed(name: &str) -> String {
    name.replace('_', "-")
}

pub fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|s| s.name == name)
}

fn unknown(name: &str, place: &str) -> Failure {
    let mend = match nearest(name) {
        Some(near) => format!("did you mean {near:?}?"),
        None => "`granary node --help` lists all of them".to_owned(),
    };
    Failure::usage(format!("unknown setting {name:?} {place}; {mend}"))
}

/// The known setting nearest to a misspelt one, if it is near at all.
fn nearest(name: &str) -> Option<&'static str> {
    let near = SETTINGS.iter().map(|s| (distance(name, s.name), s.name)).min()?;
    (near.0 <= 1 + name.len() / 5).then_some(near.1)
}

/// Levenshtein's distance, in bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substitute = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

fn read_file(path: &Path, given: &mut GivenSettings) -> Outcome<()> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        Failure::usage(format!("cannot read the settings file {}: {}", path.display(), plain(&e)))
    })?;
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| {
        Failure::usage(format!(
            "the settings file {} is not TOML: {}",
            path.display(),
            e.to_string().trim_end()
        ))
    })?;
    for (name, value) in table {
        let known = find(&name).ok_or_else(|| unknown(&name, &format!("in {}", path.display())))?;
        let text = match value {
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            other => {
                return Err(Failure::usage(format!(
                    "setting {name} in {} is a {}; write a number or a string",
                    path.display(),
                    other.type_str()
                )));
            }
        };
        given.insert(known.name, Given { text, origin: path.display().to_string() });
    }
    Ok(())
}

fn read_env(env: &[(OsString, OsString)], given: &mut GivenSettings) -> Outcome<()> {
    for (variable, value) in env {
        let Some(variable) = variable.to_str() else { continue };
        let Some(name) = variable.strip_prefix("GRANARY_") else { continue };
        if OTHER_VARIABLES.contains(&variable) {
            continue;
        }
        let name = name.to_ascii_lowercase();
        let Some(known) = find(&name) else {
            if let Some(near) = nearest(&name) {
                return Err(Failure::usage(format!(
                    "unknown setting in the variable {variable}; did you mean GRANARY_{}?",
                    near.to_ascii_uppercase()
                )));
            }
            continue;
        };
        let text = value.to_str().ok_or_else(|| {
            Failure::usage(format!("the variable {variable} is not UTF-8; give a path or value that is"))
        })?;
        if text.is_empty() {
            continue; // as unset: how shells and service files turn a variable off
        }
        given.insert(known.name, Given { text: text.to_owned(), origin: variable.to_owned() });
    }
    Ok(())
}

fn build(given: &GivenSettings) -> Outcome<Settings> {
    let bad = |name: &str, origin: &str, why: String| {
        Failure::usage(format!("setting {name} (from {origin}): {why}"))
    };
    let text = |name: &str| given.get(name).map(|g| g.text.clone());
    let path = |name: &str, default: &str| -> Outcome<PathBuf> {
        let Some(g) = given.get(name) else { return Ok(PathBuf::from(default)) };
        std::path::absolute(&g.text)
            .map_err(|e| bad(name, &g.origin, format!("{:?} is no path: {}", g.text, plain(&e))))
    };
    let number = |s: &Setting, g: &Given| -> Outcome<u64> {
        match s.unit {
            Unit::Bytes => units::parse_bytes(&g.text),
            Unit::Period => units::parse_period_ms(&g.text),
            _ => units::parse_count(&g.text),
        }
        .map_err(|why| bad(s.name, &g.origin, why))
    };

    let mut limits = serde_json::Map::new();
    for s in SETTINGS.iter().filter(|s| s.scope == Scope::Limit) {
        if let Some(g) = given.get(s.name) {
            limits.insert(s.name.to_owned(), number(s, g)?.into());
        }
    }
    let limits = limits_from(limits, given)?;

    let log_format = match text("log_format").as_deref() {
        None | Some("auto") => LogFormat::Auto,
        Some("human") => LogFormat::Human,
        Some("json") => LogFormat::Json,
        Some(other) => {
            let origin = &given["log_format"].origin;
            return Err(bad("log_format", origin, format!("{other:?} is not one of auto, human, json")));
        }
    };
    let metrics_port = match given.get("metrics_port") {
        None => None,
        Some(g) => Some(g.text.parse::<u16>().ok().filter(|&port| port > 0).ok_or_else(|| {
            bad("metrics_port", &g.origin, format!("{:?} is no port; give a number from 1 to 65535", g.text))
        })?),
    };
    let metrics_address = match given.get("metrics_address") {
        None => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Some(g) if metrics_port.is_none() => {
            return Err(bad(
                "metrics_address",
                &g.origin,
                "it is the address of metrics_port, which is not given".to_owned(),
            ));
        }
        Some(g) => g.text.parse::<IpAddr>().map_err(|_| {
            bad("metrics_address", &g.origin, format!("{:?} is no IP address; give one, as 10.0.0.7", g.text))
        })?,
    };
    let period = |name: &str, default: u64| match (find(name), given.get(name)) {
        (Some(s), Some(g)) => number(s, g).map(|ms| ms.min(3_600_000)),
        _ => Ok(default),
    };
    let transport = match given.get("transport") {
        None => Transport::default(),
        Some(g) => g.text.parse().map_err(|e: granary_core::Error| {
            bad("transport", &g.origin, format!("{:?} cannot be: {e}", g.text))
        })?,
    };
    let keeper = match given.get("keeper") {
        None => None,
        Some(g) => match g.text.as_str() {
            "on" => Some(Keeper::Own),
            "apart" => Some(Keeper::Apart),
            "off" => None,
            other => {
                return Err(bad("keeper", &g.origin, format!("{other:?} is neither on, apart nor off")));
            }
        },
    };
    let stop_wait_ms = period("stop_wait_ms", 10_000)?;
    let stop_drain_ms = period("stop_drain_ms", 0)?;
    let counted = |name: &str, default: u64, max: u64| match (find(name), given.get(name)) {
        (Some(s), Some(g)) => match number(s, g)? {
            n if n <= max => Ok(n),
            n => Err(bad(name, &g.origin, format!("{n} cannot work; give at most {max}"))),
        },
        _ => Ok(default),
    };
    let backup = BackupSettings {
        interval_ms: counted("meta_backup_interval_ms", 3_600_000, BACKUP_INTERVAL_MS_MAX)?,
        keep: counted("meta_backups_max", 24, 100_000)?.max(1) as usize,
    };
    let optional = |name: &str| given.contains_key(name).then(|| path(name, "")).transpose();
    let address = |name: &str| -> Outcome<Option<SocketAddr>> {
        let Some(g) = given.get(name) else { return Ok(None) };
        g.text.parse().map(Some).map_err(|_| {
            bad(
                name,
                &g.origin,
                format!(
                    "{:?} is no address; write one like 127.0.0.1:7411, 0.0.0.0:7411 or [::]:7411",
                    g.text
                ),
            )
        })
    };
    let pair = |cert: &str, key: &str| match (optional(cert)?, optional(key)?) {
        (Some(cert), Some(key)) => Ok(Some(TlsPaths { cert, key })),
        (None, None) => Ok(None),
        _ => Err(Failure::usage(format!(
            "settings {cert} and {key} belong together: give both, for TLS, or none"
        ))),
    };
    let meta =
        given.get("meta").map(|g| MetaPlace::parse(&g.text).map_err(|why| bad("meta", &g.origin, why)));
    let listed = |name: &str| -> Vec<String> {
        let text = text(name).unwrap_or_default();
        text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
    };
    let trust = listed("trust").into_iter().map(|file| {
        std::path::absolute(&file)
            .map_err(|e| Failure::usage(format!("setting trust: {file:?}: {}", plain(&e))))
    });
    let data = DataSettings {
        listen: address("data_listen")?,
        advertise: text("data_advertise"),
        tls: pair("data_tls_cert", "data_tls_key")?,
        ca: optional("data_ca")?,
    };
    if data.advertise.is_some() && data.listen.is_none() {
        return Err(Failure::usage(
            "setting data_advertise says how other nodes reach data_listen, which is not given; give both",
        ));
    }
    let service = ServiceSettings {
        listen: address("listen")?.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 7411))),
        tls: pair("tls_cert", "tls_key")?,
        trust: trust.collect::<Outcome<_>>()?,
        lease_time_ms: period("lease_time_ms", 10_000)?,
    };
    let cache = path("cache", "/var/cache/granary")?;
    let cache_dirs = match given.get("cache_dirs") {
        Some(g) => parse_cache_dirs(&g.text, &cache, limits.cache_bytes_max)
            .map_err(|why| bad("cache_dirs", &g.origin, why))?,
        None => Vec::new(),
    };
    let cache_shares = match given.get("cache_shares") {
        Some(g) => {
            let more = cache_dirs.iter().map(|folder| folder.bytes_max);
            CacheShares::parse(&g.text, more.fold(limits.cache_bytes_max, u64::saturating_add))
                .map_err(|why| bad("cache_shares", &g.origin, why))?
        }
        None => CacheShares::default(),
    };
    Ok(Settings {
        cache,
        cache_dirs,
        cache_shares,
        meta: meta.transpose()?.unwrap_or(MetaPlace::Folder("/var/lib/granary/meta".into())),
        socket: path("socket", "/run/granary/node.sock")?,
        store: text("store"),
        store_endpoints: listed("store_endpoints"),
        token_file: optional("token_file")?,
        meta_ca: optional("meta_ca")?,
        data,
        service,
        audit_log: optional("audit_log")?,
        log: text("log").unwrap_or_else(|| "info".to_owned()),
        log_format,
        log_file: optional("log_file")?,
        metrics: metrics_port.map(|port| SocketAddr::from((metrics_address, port))),
        transport,
        keeper,
        stop_wait_ms,
        stop_drain_ms,
        backup,
        limits,
        given: given.keys().copied().collect(),
    })
}

/// The least size of a folder of the read cache, as that of `cache_bytes_max`.
const CACHE_FOLDER_BYTES_MIN: u64 = 64 << 20;

/// `PATH` or `PATH=SIZE`, with commas between them; without a size it is `bytes_max`. What is wrong, for a person.
fn parse_cache_dirs(text: &str, cache: &Path, bytes_max: u64) -> Result<Vec<CacheFolder>, String> {
    let mut folders: Vec<CacheFolder> = Vec::new();
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let (path, size) =
            item.rsplit_once('=').map_or((item, None), |(path, size)| (path.trim(), Some(size.trim())));
        let bytes_max =
            size.map_or(Ok(bytes_max), units::parse_bytes).map_err(|why| format!("{item:?}: {why}"))?;
        if bytes_max < CACHE_FOLDER_BYTES_MIN {
            return Err(format!("{item:?}: {bytes_max} bytes cannot work; give at least 64MiB"));
        }
        let path = std::path::absolute(path).map_err(|e| format!("{path:?} is no path: {}", plain(&e)))?;
        if path.starts_with(cache) || folders.iter().any(|known| known.path == path) {
            return Err(format!("{} is used for the cache already; name each folder once", path.display()));
        }
        folders.push(CacheFolder { path, bytes_max });
    }
    Ok(folders)
}

fn limits_from(values: serde_json::Map<String, serde_json::Value>, given: &GivenSettings) -> Outcome<Limits> {
    let with_origin = |message: String| {
        // The message names the setting; say where it came from.
        let word = message.split_whitespace().find_map(|w| given.get_key_value(w));
        match word {
            Some((name, g)) => Failure::usage(format!("{message} (setting {name} comes from {})", g.origin)),
            None => Failure::usage(message),
        }
    };
    for (name, value) in &values {
        // Counts are 32 bits wide in `Limits`; say so in our words rather than serde's.
        if matches!(name.as_str(), "uploads_max" | "fetches_max" | "open_files_max")
            && value.as_u64().is_some_and(|v| v > u64::from(u32::MAX))
        {
            return Err(with_origin(format!("setting {name} = {value} cannot work; it is far too large")));
        }
    }
    let limits: Limits = serde_json::from_value(serde_json::Value::Object(values))
        .map_err(|e| Failure::new(Exit::Usage, format!("settings cannot be used: {e}")))?;
    limits.validate().map_err(|e| with_origin(e.to_string()))?;
    Ok(limits)
}

#[cfg(test)]
mod tests;
