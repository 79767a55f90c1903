use granary_core::Kind;
use proptest::prelude::*;

use super::*;

fn find(environment: &Environment) -> Result<Settings> {
    Settings::find(&Options { environment: environment.clone(), ..Options::default() })
}

fn endpoint(settings: &Settings) -> Option<&str> {
    assert_eq!(settings.endpoints.len(), 1);
    settings.endpoints[0].as_deref()
}

fn env() -> Environment {
    Environment::default()
}

/// An environment whose HOME has these files.
fn home(credentials: &str, config: &str) -> (tempfile::TempDir, Environment) {
    let dir = tempfile::tempdir().unwrap();
    let aws = dir.path().join(".aws");
    std::fs::create_dir(&aws).unwrap();
    std::fs::write(aws.join("credentials"), credentials).unwrap();
    std::fs::write(aws.join("config"), config).unwrap();
    let env = env().with("HOME", dir.path().to_str().unwrap());
    (dir, env)
}

const CREDENTIALS: &str = "\
# ours
[default]
aws_access_key_id = ID1
aws_secret_access_key = with#hash/and=equals ; comment
[ceph]
aws_access_key_id=ID2
aws_secret_access_key=S2
aws_session_token=T2
";

const CONFIG: &str = "\
[default]
region = eu-west-1
[profile ceph]
region = default
services = local
endpoint_url = http://all-services
s3 =
    addressing_style = path
output = json
[profile plain]
endpoint_url = https://rgw.example/
[services local]
s3 =
  endpoint_url = http://127.0.0.1:7480  # here
dynamodb =
  endpoint_url = http://no
";

#[test]
fn variables_come_before_files() {
    let (_dir, files) = home(CREDENTIALS, CONFIG);
    let found = find(&files).unwrap();
    assert_eq!((endpoint(&found), found.region.as_str()), (None, "eu-west-1"));
    assert_eq!(found.keys.unwrap().secret, "with#hash/and=equals");

    let env = files
        .with("AWS_ACCESS_KEY_ID", "E")
        .with("AWS_SECRET_ACCESS_KEY", "F")
        .with("AWS_SESSION_TOKEN", "")
        .with("AWS_DEFAULT_REGION", "later")
        .with("AWS_REGION", "first")
        .with("AWS_ENDPOINT_URL", "http://general:1")
        .with("AWS_ENDPOINT_URL_S3", "http://special:2/");
    let found = find(&env).unwrap();
    assert_eq!(found.keys, Some(Keys { id: "E".into(), secret: "F".into(), token: None }));
    assert_eq!((endpoint(&found), found.region.as_str()), (Some("http://special:2"), "first"));
    let ignored = find(&env.with("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")).unwrap();
    assert_eq!(endpoint(&ignored), None);
}

#[test]
fn a_profile_is_gathered_from_both_files_and_its_services() {
    let (_dir, files) = home(CREDENTIALS, CONFIG);
    let found = find(&files.clone().with("AWS_PROFILE", "ceph")).unwrap();
    assert_eq!(endpoint(&found), Some("http://127.0.0.1:7480"));
    assert_eq!(found.region, "default");
    assert_eq!(found.keys, Some(Keys { id: "ID2".into(), secret: "S2".into(), token: Some("T2".into()) }));
    let found = find(&files.clone().with("AWS_PROFILE", "plain")).unwrap();
    assert_eq!((endpoint(&found), found.keys.clone()), (Some("https://rgw.example"), None));
    let e = find(&files.with("AWS_PROFILE", "absent")).unwrap_err();
    assert!(e.to_string().contains("\"absent\" (AWS_PROFILE) is in neither"), "{e}");
}

#[test]
fn half_a_pair_of_keys_is_refused_without_showing_it() {
    let e = find(&env().with("AWS_SECRET_ACCESS_KEY", "hidden")).unwrap_err();
    assert_eq!(e.kind(), Kind::Invalid);
    assert!(e.to_string().contains("gives AWS_SECRET_ACCESS_KEY without AWS_ACCESS_KEY_ID"), "{e}");
    assert!(!e.to_string().contains("hidden"));
    let (_dir, files) = home("[default]\naws_access_key_id = x\n", "");
    assert!(find(&files).unwrap_err().to_string().contains("the AWS profile \"default\" gives"));
}

#[test]
fn secrets_are_not_in_debug_output() {
    let env = env().with("AWS_SECRET_ACCESS_KEY", "hidden").with("AWS_ACCESS_KEY_ID", "id");
    let found = find(&env).unwrap();
    assert!(!format!("{env:?} {found:?}").contains("hidden"));
}

#[test]
fn endpoints_that_cannot_be_are_refused() {
    for (bad, why) in [
        ("rgw:7480", "neither http"),
        ("ftp://x", "neither http"),
        ("http://u:p@x", "user name"),
        ("rgw", "no URL"),
        ("http://x?y", "follows"),
        ("http://x,http://y", "the setting store_endpoints alone"),
    ] {
        let e = find(&env().with("AWS_ENDPOINT_URL", bad)).unwrap_err();
        assert!(e.to_string().contains(why), "{bad}: {e}");
    }
}

#[test]
fn several_servers_come_before_the_one_of_the_environment() {
    let environment = env().with("AWS_ENDPOINT_URL", "http://general:1");
    let several = |endpoints: &[&str]| {
        let endpoints = endpoints.iter().map(|&e| e.to_owned()).collect();
        Settings::find(&Options { endpoints, environment: environment.clone(), ..Options::default() })
    };
    let found = several(&["http://a:1/", "https://b"]).unwrap();
    assert_eq!(found.endpoints, [Some("http://a:1".to_owned()), Some("https://b".to_owned())]);
    assert_eq!(endpoint(&several(&[]).unwrap()), Some("http://general:1"));
    for (endpoints, why) in [
        (&["http://a", "http://a/"][..], "names http://a twice"),
        (&["http://a", "b"], "\"b\" (store_endpoints) cannot be used: it is no URL"),
        (&["http://a"; 65], "names 65 servers; name at most 64"),
    ] {
        let e = several(endpoints).unwrap_err();
        assert!(e.kind() == Kind::Invalid && e.to_string().contains(why), "{e}");
    }
}

#[test]
fn damaged_files_are_named_with_their_line() {
    for (text, line) in [
        ("[default\n", "line 1"),
        ("x = 1\n", "line 1"),
        ("[a]\n\nnothing\n", "line 3"),
        ("[a]\n= 1", "line 2"),
    ] {
        let (_dir, files) = home(text, "");
        let e = find(&files).unwrap_err();
        assert!(e.to_string().contains(line) && e.to_string().contains(".aws/credentials"), "{e}");
    }
}

proptest! {
    #[test]
    fn any_text_is_parsed_without_panic(text in "[\\[\\]= \t\n#;a-c\u{e9}]{0,200}") {
        let _ = profile::parse(&text);
    }

    #[test]
    fn what_is_written_is_read(values in prop::collection::btree_map("[a-z_]{1,12}", "[A-Za-z0-9/+=]{1,40}", 1..8)) {
        let mut text = "[default]\n".to_owned();
        for (key, value) in &values {
            text += &format!("{key} = {value}\n");
        }
        prop_assert_eq!(&profile::parse(&text).unwrap()["default"], &values);
    }
}
