//! A metadata service and nodes of one machine: each node has its own socket, cache, token and mountpoint, and is reached, if
//! a test wants to disturb it, through a proxy of its own.

use std::path::PathBuf;

use crate::node::Node;
use crate::proxy::Proxy;
use crate::service::Service;

/// How long the service waits for a session that says nothing. Longer than a machine that is busy with other tests keeps a node from
/// saying something; tests that wait for its end wait so long.
pub const LEASE_TIME_MS: u64 = 10_000;

/// Nodes come first, so that they end while the service still answers.
pub struct Cluster {
    pub nodes: Vec<Node>,
    pub proxies: Vec<Proxy>,
    pub service: Service,
}

impl Cluster {
    /// `count` nodes, each with a token for `group/team` and its own user `user/node<i>`.
    pub fn new(count: usize) -> Cluster {
        Cluster::with_settings(
            count,
            &[("GRANARY_SMALL_PERIOD_MS", "50"), ("GRANARY_LARGE_PERIOD_MS", "100")],
        )
    }

    /// The same with settings of the nodes.
    pub fn with_settings(count: usize, settings: &[(&str, &str)]) -> Cluster {
        let service = Service::with(&[("GRANARY_LEASE_TIME_MS", &LEASE_TIME_MS.to_string())]);
        let admin = service.token("root", &[], "admin");
        let made = service.as_bearer(&admin, &["ns", "create", "group/team", "--owner", "0", "--group", "0"]);
        assert_eq!(made.code, Some(0), "{made:?}");
        let mut cluster = Cluster { nodes: Vec::new(), proxies: Vec::new(), service };
        for i in 0..count {
            let proxy = Proxy::new(&format!("127.0.0.1:{}", cluster.service.port()));
            let mut node = Node::unstarted(settings);
            let token = node.path("node.token");
            let text = cluster.service.token(&format!("node{i}"), &["team"], "read-write");
            std::fs::write(&token, text).expect("write");
            node.set("GRANARY_META", &proxy.url());
            node.set("GRANARY_TOKEN_FILE", &token.to_string_lossy());
            node.set_port("GRANARY_DATA_LISTEN");
            node.start();
            cluster.nodes.push(node);
            cluster.proxies.push(proxy);
        }
        cluster
    }

    /// Mounts `group/team` on every node.
    pub fn mount(&self, options: &str) -> Vec<PathBuf> {
        self.nodes.iter().map(|node| node.mount("group/team", options)).collect()
    }
}
