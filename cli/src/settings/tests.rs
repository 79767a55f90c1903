use std::io::Write;
use std::path::Path;

use super::*;

fn sources(
    flags: &[(&str, &str)],
    env: &[(&str, &str)],
    file: Option<&str>,
) -> (Sources, tempfile::NamedTempFile) {
    let mut config = tempfile::NamedTempFile::new().unwrap();
    config.write_all(file.unwrap_or("").as_bytes()).unwrap();
    let own = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<Vec<_>>()
    };
    let env = own(env).into_iter().map(|(k, v)| (k.into(), v.into())).collect();
    (Sources { config: Some(config.path().to_owned()), flags: own(flags), env }, config)
}

fn message(flags: &[(&str, &str)], env: &[(&str, &str)], file: Option<&str>) -> String {
    let e = sources(flags, env, file).0.resolve().unwrap_err();
    assert_eq!(e.exit, 2);
    e.message
}

#[test]
fn the_table_has_every_limit_once() {
    let fields = serde_json::to_value(Limits::default()).unwrap();
    let fields: Vec<_> = fields.as_object().unwrap().keys().cloned().collect();
    let mut listed: Vec<_> =
        SETTINGS.iter().filter(|s| s.scope == Scope::Limit).map(|s| s.name.to_owned()).collect();
    listed.sort();
    let mut sorted = fields;
    sorted.sort();
    assert_eq!(listed, sorted);
    for s in SETTINGS {
        let by_name = if s.name.contains("_bytes_") {
            Unit::Bytes
        } else if s.name.contains("_ms") {
            Unit::Period
        } else {
            s.unit
        };
        assert_eq!(s.unit, by_name, "{}", s.name);
    }
}

#[test]
fn flag_beats_variable_beats_file_beats_default() {
    let file = Some("dirty_bytes_max = \"1GiB\"\nsmall_period_ms = 10\nuploads_max = 7\n");
    let env = [("GRANARY_DIRTY_BYTES_MAX", "2GiB"), ("GRANARY_SMALL_PERIOD_MS", "3s"), ("HOME", "/")];
    let (s, _keep) = sources(&[("dirty_bytes_max", "3GiB")], &env, file);
    let settings = s.resolve().unwrap();
    assert_eq!(settings.limits.dirty_bytes_max, 3 << 30);
    assert_eq!(settings.limits.small_period_ms, 3_000);
    assert_eq!(settings.limits.uploads_max, 7);
    assert_eq!(settings.limits.fetches_max, Limits::default().fetches_max);
    assert_eq!(settings.meta.folder().unwrap(), Path::new("/var/lib/granary/meta"));
    assert!(settings.is_given("uploads_max") && !settings.is_given("meta"));
}

#[test]
fn memory_is_the_share_of_the_machine_unless_it_is_given() {
    let found = sources(&[], &[], None).0.resolve().unwrap();
    assert_eq!(found.limits.memory_bytes_max, memory::share_of_process());
    assert!(!found.is_given("memory_bytes_max"));
    let given = sources(&[("memory_bytes_max", "77MiB")], &[], None).0.resolve().unwrap();
    assert_eq!(given.limits.memory_bytes_max, 77 << 20);
}

#[test]
fn several_servers_have_commas_between_them() {
    let env = [("GRANARY_STORE_ENDPOINTS", "http://a:7480, http://b:7480,")];
    let found = sources(&[], &env, None).0.resolve().unwrap();
    assert_eq!(found.store_endpoints, ["http://a:7480", "http://b:7480"]);
    assert!(sources(&[], &[], None).0.resolve().unwrap().store_endpoints.is_empty());
}

#[test]
fn what_was_asked_for_is_compared_by_value() {
    let asked = sources(&[("dirty_bytes_max", "1GiB"), ("uploads_max", "7")], &[], None).0.resolve().unwrap();
    let node = sources(&[("dirty_bytes_max", "1024MiB")], &[], None).0.resolve().unwrap();
    assert_eq!(node.differing(&asked.given_limits()), ["uploads_max"]);
    assert!(asked.differing(&asked.given_limits()).is_empty());
}

#[test]
fn relative_paths_become_absolute() {
    let (s, _keep) = sources(&[("meta", "here/meta")], &[], None);
    assert!(s.resolve().unwrap().meta.folder().unwrap().is_absolute());
}

#[test]
fn an_empty_variable_is_unset() {
    let (s, _keep) = sources(&[], &[("GRANARY_META", "")], None);
    assert_eq!(s.resolve().unwrap().meta.folder().unwrap(), Path::new("/var/lib/granary/meta"));
}

#[test]
fn what_is_no_setting_is_refused_with_the_nearest() {
    let m = message(&[], &[], Some("dirty_byte_max = 1"));
    assert!(m.contains("\"dirty_byte_max\" in /") && m.contains("did you mean \"dirty_bytes_max\"?"), "{m}");
    let m = message(&[], &[], Some("colour = 'blue'"));
    assert!(m.contains("colour") && m.contains("granary node --help"), "{m}");
    let m = message(&[], &[("GRANARY_CACHE_BYTE_MAX", "1GiB")], None);
    assert!(m.contains("GRANARY_CACHE_BYTE_MAX; did you mean GRANARY_CACHE_BYTES_MAX?"), "{m}");
    let m = message(&[("sockt", "/x")], &[], None);
    assert!(m.contains("did you mean \"socket\"?"), "{m}");
}

#[test]
fn variables_of_services_and_scripts_are_left_alone() {
    let env = [
        ("GRANARY_SERVICE_HOST", "10.0.0.1"),
        ("GRANARY_PORT_80_TCP", "tcp://10.0.0.1:80"),
        ("GRANARY_BIN", "/x"),
        ("GRANARY_CACHE_DIR", "/y"),
        ("GRANARY_TEST_S3_ENDPOINT", "http://x"),
    ];
    let (s, _keep) = sources(&[], &env, None);
    s.resolve().unwrap();
}

#[test]
fn impossible_values_name_setting_origin_and_mend() {
    let m = message(&[], &[("GRANARY_DIRTY_BYTES_MAX", "12")], None);
    assert!(
        m.contains("dirty_bytes_max = 12") && m.contains("GRANARY_DIRTY_BYTES_MAX") && m.contains("from"),
        "{m}"
    );
    let m = message(&[("small_period_ms", "soon")], &[], None);
    assert!(m.contains("small_period_ms") && m.contains("--small-period-ms") && m.contains("2s"), "{m}");
    let m = message(&[("uploads_max", "5000000000")], &[], None);
    assert!(m.contains("uploads_max"), "{m}");
    let m = message(&[("metrics_port", "70000")], &[], None);
    assert!(m.contains("65535"), "{m}");
    let m = message(&[("metrics_port", "9710"), ("metrics_address", "here")], &[], None);
    assert!(m.contains("metrics_address") && m.contains("no IP address"), "{m}");
    let m = message(&[("metrics_address", "127.0.0.2")], &[], None);
    assert!(m.contains("metrics_port"), "{m}");
    let m = message(&[("log_format", "xml")], &[], None);
    assert!(m.contains("auto, human, json"), "{m}");
    let m = message(&[("transport", "rail")], &[], None);
    assert!(m.contains("transport") && m.contains("\"rail\"") && m.contains("auto, dev"), "{m}");
}

#[test]
fn a_bad_file_is_named() {
    let m = message(&[], &[], Some("meta = "));
    assert!(m.contains("is not TOML"), "{m}");
    let m = message(&[], &[], Some("meta = [1]"));
    assert!(m.contains("setting meta") && m.contains("array"), "{m}");
    let missing = Sources { config: Some("/nonexistent/granary.toml".into()), ..Sources::default() };
    assert!(missing.resolve().unwrap_err().message.contains("/nonexistent/granary.toml: No such file"));
    let by_variable =
        Sources { env: vec![("GRANARY_CONFIG".into(), "/nonexistent/b.toml".into())], ..Sources::default() };
    assert!(by_variable.resolve().unwrap_err().message.contains("/nonexistent/b.toml"));
}

#[test]
fn the_service_and_other_nodes() {
    let (s, _keep) = sources(
        &[("meta", "https://a:1,https://b:2"), ("data_listen", "127.0.0.1:0"), ("token_file", "t")],
        &[("GRANARY_LISTEN", "[::]:99"), ("GRANARY_TRUST", "/a.pub, /b.pub,"), ("GRANARY_AUDIT_LOG", "/x")],
        Some("tls_cert = '/c'\ntls_key = '/k'\n"),
    );
    let settings = s.resolve().unwrap();
    assert_eq!(settings.meta.service().unwrap().len(), 2);
    assert_eq!(settings.data.listen.unwrap().port(), 0);
    assert!(settings.token_file.unwrap().is_absolute());
    assert_eq!(settings.service.listen.port(), 99);
    assert_eq!(settings.service.trust, [Path::new("/a.pub"), Path::new("/b.pub")]);
    assert_eq!(settings.service.tls, Some(TlsPaths { cert: "/c".into(), key: "/k".into() }));
    assert_eq!(settings.audit_log, Some("/x".into()));
    for (flags, part) in [
        (&[("listen", "localhost")][..], "0.0.0.0:7411"),
        (&[("tls_cert", "/c")], "belong together"),
        (&[("data_tls_key", "/k")], "belong together"),
        (&[("data_advertise", "a:1")], "data_listen"),
        (&[("meta", "https://a/b")], "https://HOST:PORT"),
    ] {
        assert!(message(flags, &[], None).contains(part), "{flags:?}");
    }
}

#[test]
fn more_folders_of_the_read_cache() {
    let text = "/mnt/a/cache=100GiB, /mnt/b = 64MiB ,/mnt/c,";
    let (s, _keep) = sources(&[("cache_dirs", text), ("cache_bytes_max", "1GiB")], &[], None);
    let folders = s.resolve().unwrap().cache_dirs;
    let folder = |path: &str, bytes_max| CacheFolder { path: path.into(), bytes_max };
    assert_eq!(
        folders,
        [folder("/mnt/a/cache", 100 << 30), folder("/mnt/b", 64 << 20), folder("/mnt/c", 1 << 30)]
    );
    for (text, part) in [
        ("/a=63MiB", "64MiB"),
        ("/a=much", "/a=much"),
        ("/a,/b,/a", "once"),
        ("/var/cache/granary/more", "once"),
    ] {
        let m = message(&[("cache_dirs", text)], &[], None);
        assert!(m.contains(part) && m.contains("cache_dirs") && m.contains("--cache-dirs"), "{m}");
    }
}

#[test]
fn parts_of_the_read_cache_by_namespace() {
    let both = [("cache_shares", "user/alice=1GiB..2GiB"), ("cache_bytes_max", "1GiB")];
    let (s, _keep) = sources(&both, &[], None);
    let share = s.resolve().unwrap().cache_shares.of(&"user/alice".parse().unwrap());
    assert_eq!((share.bytes_min, share.bytes_max), (1 << 30, 2 << 30));
    let m = message(&[("cache_shares", "user/alice=1025MiB.."), ("cache_bytes_max", "1GiB")], &[], None);
    assert!(m.contains("--cache-shares") && m.contains("cache_bytes_max"), "{m}");
    let more = [
        ("cache_dirs", "/more=64MiB"),
        ("cache_shares", "user/alice=1025MiB.."),
        ("cache_bytes_max", "1GiB"),
    ];
    assert!(sources(&more, &[], None).0.resolve().is_ok(), "other disks count too");
}
