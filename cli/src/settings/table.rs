//! Every setting there is: its name, how its value is written, whom it concerns.

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
    /// A field of [`Limits`](granary_core::limits::Limits); the same commands as `Process`.
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

/// `dirty_bytes_max` as a flag: `dirty-bytes-max`.
pub fn dashed(name: &str) -> String {
    name.replace('_', "-")
}

pub fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|s| s.name == name)
}
