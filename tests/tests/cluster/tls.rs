//! Everything on the wire encrypted, through the commands that a person uses: the service, and the nodes' own bytes.

use std::fs;
use std::path::PathBuf;

use granary_tests::{Node, Service, fill, read_tree, run, seed};

/// An authority whose key was thrown away, and a certificate of its for loopback.
fn pem(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../meta/src/remote/tests/pem").join(name);
    path.to_string_lossy().into_owned()
}

/// A node whose bytes never leave for the store by themselves.
fn node(service: &Service, user: &str) -> Node {
    let mut node = Node::unstarted(&[
        ("GRANARY_SMALL_PERIOD_MS", "3600000"),
        ("GRANARY_LARGE_PERIOD_MS", "3600000"),
        ("GRANARY_META", &service.url()),
        ("GRANARY_META_CA", &pem("ca.pem")),
        ("GRANARY_DATA_TLS_CERT", &pem("server.pem")),
        ("GRANARY_DATA_TLS_KEY", &pem("server.key")),
        ("GRANARY_DATA_CA", &pem("ca.pem")),
    ]);
    node.set_port("GRANARY_DATA_LISTEN");
    let token = node.path("node.token");
    fs::write(&token, service.token(user, &["team"], "read-write")).expect("write");
    node.set("GRANARY_TOKEN_FILE", &token.to_string_lossy());
    node.start();
    node
}

#[test]
fn nodes_work_over_tls_and_read_each_others_bytes() {
    let service =
        Service::with(&[("GRANARY_TLS_CERT", &pem("server.pem")), ("GRANARY_TLS_KEY", &pem("server.key"))]);
    let nodes = [node(&service, "a"), node(&service, "b")];
    let mounts = nodes.each_ref().map(|node| node.mount("group/team", ""));
    fill(&mounts[0], seed(), 40, 20_000);
    fs::write(mounts[1].join("large"), vec![7; 8 << 20]).expect("write");
    assert!(read_tree(&mounts[0]) == read_tree(&mounts[1]), "the tree differs on the other node");
    let words = nodes[0].ok(&["status"]);
    assert!(words.contains(&format!("connected to {}", service.url())), "{words}");
}

#[test]
fn without_the_right_authority_nothing_is_said() {
    let service =
        Service::with(&[("GRANARY_TLS_CERT", &pem("server.pem")), ("GRANARY_TLS_KEY", &pem("server.key"))]);
    let token = service.path("token");
    fs::write(&token, service.token("a", &[], "read-write")).expect("write");
    let list = |url: &str, ca: Option<&str>| {
        let mut command = service.command(&["ns", "list"]);
        command.env("GRANARY_META", url).env("GRANARY_TOKEN_FILE", &token);
        command.envs(ca.map(|ca| ("GRANARY_META_CA", pem(ca))));
        run(&mut command)
    };
    let out = list(&service.url(), Some("ca.pem"));
    assert_eq!(out.code, Some(0), "{out:?}");
    // The server's own certificate signs nothing.
    for (url, ca, mend) in [
        (service.url(), Some("server.pem"), "--meta-ca"),
        (service.url(), None, "--meta-ca"),
        (service.url().replace("https:", "http:"), None, "it is https://"),
    ] {
        let out = list(&url, ca);
        assert!(out.code.is_some_and(|code| code != 0), "{url} {ca:?}: {out:?}");
        assert!(out.stderr.contains(&url) && out.stderr.contains(mend), "{url} {ca:?}: {out:?}");
    }
}
