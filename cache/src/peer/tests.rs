//! Peers over loopback: tickets, bytes, and nodes that are gone.

use std::sync::Arc;
use std::time::Duration;

use granary_core::error::fail;
use granary_core::{Ino, Kind, NamespaceId, NodeId, Result, TestClock};
use granary_meta::lease::PeerInfo;
use granary_meta::{Extent, Metadata};
use tokio::net::TcpSocket;
use tokio_util::sync::CancellationToken;

use super::{PeerClient, PeerClientOptions, PeerServer, PeerServerOptions, Peers, TicketCheck};
use crate::tree::nodes_for_tests::Nodes;
use crate::tree::pattern_for_tests as pattern;

struct OneTicket(NamespaceId);

impl TicketCheck for OneTicket {
    fn check(&self, ticket: &str) -> Result<NamespaceId> {
        if ticket == "good" { Ok(self.0) } else { fail(Kind::Denied, "that is no ticket") }
    }
}

struct Rig {
    nodes: Nodes,
    ns: NamespaceId,
    address: String,
    /// The same address, which nobody else gets when the server is gone.
    _held: TcpSocket,
    stop: CancellationToken,
    serving: tokio::task::JoinHandle<Result<()>>,
}

/// Node 1 serves; node 2 asks.
async fn rig() -> Rig {
    let nodes = Nodes::new(2).await;
    let ns = nodes.sessions[0].namespace();
    let options = PeerServerOptions::default();
    let server = PeerServer::new(NodeId(1), Arc::new(OneTicket(ns)), Arc::new(TestClock::default()), options);
    server.register(ns, &nodes.tree(0));
    let (held, socket) = (TcpSocket::new_v4().unwrap(), TcpSocket::new_v4().unwrap());
    held.set_reuseaddr(true).unwrap();
    socket.set_reuseaddr(true).unwrap();
    held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = held.local_addr().unwrap();
    socket.bind(address).unwrap();
    let (listener, address) = (socket.listen(16).unwrap(), address.to_string());
    let stop = CancellationToken::new();
    let serving = tokio::spawn(server.serve(listener, stop.clone().cancelled_owned()));
    Rig { nodes, ns, address, _held: held, stop, serving }
}

impl Rig {
    fn client(&self, ticket: &str, address: Option<String>) -> Arc<PeerClient> {
        self.nodes.sessions[1].set_peer(PeerInfo {
            node: NodeId(1),
            name: "gpu-17".into(),
            address,
            ticket: ticket.into(),
            silent: Duration::from_secs(42),
        });
        let options = PeerClientOptions { wait: Duration::from_secs(5), ..PeerClientOptions::default() };
        PeerClient::new(self.nodes.sessions[1].clone(), Arc::new(TestClock::default()), options)
    }

    async fn staged(&self, name: &str, size: usize) -> (Ino, Vec<Extent>) {
        let file = self.nodes.create(0, name).await;
        file.write(0, &pattern(1, size), false).await.unwrap();
        file.fsync().await.unwrap();
        let ino = file.ino();
        self.nodes.tree(0).close(file).await.unwrap();
        (ino, self.nodes.sessions[1].extents(ino).await.unwrap().1)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn staged_bytes_come_from_the_node_that_has_them() {
    let rig = rig().await;
    let client = rig.client("good", Some(rig.address.clone()));
    for size in [3000, 10 << 20] {
        let (ino, extents) = rig.staged(&format!("f{size}"), size).await;
        assert_eq!(extents.len(), 1);
        let bytes = client.read(rig.ns, ino, &extents[0], &extents[0]).await.unwrap().unwrap();
        assert!(bytes == pattern(1, size));
        let part = crate::extent_map::clip(&extents[0], 7, 2000);
        let bytes = client.read(rig.ns, ino, &part, &extents[0]).await.unwrap().unwrap();
        assert_eq!(bytes, pattern(1, size)[7..2000]);
        rig.nodes.tree(0).sync().await.unwrap();
        assert_eq!(client.read(rig.ns, ino, &part, &extents[0]).await.unwrap(), None, "it was uploaded");
    }
    rig.stop.cancel();
    drop(client);
    rig.serving.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_started_again_elsewhere_is_found() {
    let rig = rig().await;
    let (ino, extents) = rig.staged("f", 3000).await;
    // Nobody listens there, and nobody else gets it meanwhile.
    let before = TcpSocket::new_v4().unwrap();
    before.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let client = rig.client("good", Some(before.local_addr().unwrap().to_string()));
    let e = client.read(rig.ns, ino, &extents[0], &extents[0]).await.unwrap_err();
    assert!(e.kind() == Kind::Unavailable && e.to_string().contains("has not answered for 42 s"), "{e}");
    let (node, address, silent) = (NodeId(1), Some(rig.address.clone()), Duration::ZERO);
    let (name, ticket) = ("gpu-17".into(), "good".into());
    rig.nodes.sessions[1].set_peer(PeerInfo { node, name, address, ticket, silent });
    let bytes = client.read(rig.ns, ino, &extents[0], &extents[0]).await.unwrap().unwrap();
    assert!(bytes == pattern(1, 3000), "what was known of it is asked again");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_good_ticket_nothing_is_told() {
    let rig = rig().await;
    let (ino, extents) = rig.staged("f", 3000).await;
    for ticket in ["bad", "", "good "] {
        let client = rig.client(ticket, Some(rig.address.clone()));
        let e = client.read(rig.ns, ino, &extents[0], &extents[0]).await.unwrap_err();
        assert_eq!(e.kind(), Kind::Unavailable, "{e}");
        assert!(e.to_string().contains("gpu-17") && e.to_string().contains("refused"), "{e}");
    }
    let client = rig.client("good", Some(rig.address.clone()));
    let other = NamespaceId(rig.ns.0 + 1);
    let e = client.read(other, ino, &extents[0], &extents[0]).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Unavailable, "another namespace: {e}");
    rig.stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_gone_is_named() {
    let rig = rig().await;
    let (ino, extents) = rig.staged("f", 3000).await;
    rig.stop.cancel();
    let address = rig.address.clone();
    let client = rig.client("good", Some(address.clone()));
    rig.serving.await.unwrap().unwrap();
    let read = client.read(rig.ns, ino, &extents[0], &extents[0]).await;
    let e = read.unwrap_err();
    assert_eq!((e.kind(), e.errno()), (Kind::Unavailable, 5));
    for part in ["gpu-17", &address, "0..3000", "start granary there"] {
        assert!(e.to_string().contains(part), "{part} is not in: {e}");
    }
}
