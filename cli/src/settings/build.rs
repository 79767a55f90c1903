//! Settings made of what was given.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use granary_core::limits::Limits;
use granary_fuse::Transport;

use super::cache_dirs::parse_cache_dirs;
use super::sources::{Given, GivenSettings};
use super::table::{SETTINGS, Scope, Setting, Unit, find};
use super::{
    BackupSettings, CacheShares, DataSettings, Keeper, LogFormat, MetaPlace, ServiceSettings, Settings,
    TlsPaths,
};
use crate::exit::{Exit, Failure, Outcome, plain};
use crate::units;

/// The longest time between two backups: thirty days.
const BACKUP_INTERVAL_MS_MAX: u64 = 30 * 86_400_000;

pub(super) fn build(given: &GivenSettings) -> Outcome<Settings> {
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
