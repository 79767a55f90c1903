//! Who may not, and what is malformed: refused, and nobody else notices.

use granary_core::{Ino, Kind, NamespaceId, ObjectId};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::rig::*;
use crate::Metadata;
use crate::call::Call;
use crate::wire::pb::metadata_client::MetadataClient;
use crate::wire::{pb, request};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

async fn raw(rig: &Rig) -> MetadataClient<Channel> {
    MetadataClient::connect(format!("http://{}", rig.address())).await.unwrap()
}

fn hello() -> pb::ClientFrame {
    let hello = pb::Hello { node: 99, name: "hostile".into(), ..Default::default() };
    pb::ClientFrame { number: 1, hello: Some(hello), ..Default::default() }
}

fn bearer(
    frames: Vec<pb::ClientFrame>,
    token: &str,
) -> Request<impl futures::Stream<Item = pb::ClientFrame> + use<>> {
    // Stays open: only the service ends it.
    let frames = futures::StreamExt::chain(futures::stream::iter(frames), futures::stream::pending());
    let mut request = Request::new(frames);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

/// How the service ends a stream of these frames.
async fn ends(rig: &Rig, frames: Vec<pb::ClientFrame>, token: &str) -> Status {
    let mut client = raw(rig).await;
    let mut inbound = match soon(client.session(bearer(frames, token))).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => return status,
    };
    loop {
        match soon(inbound.message()).await {
            Ok(Some(_)) => {}
            Ok(None) => return Status::ok(""),
            Err(status) => return status,
        }
    }
}

fn asks(number: u64, call: Option<pb::request::Call>) -> pb::ClientFrame {
    let request = pb::Request { id: number, unacked: 0, ns: 1, call };
    let item = Some(pb::client_item::Item::Request(request));
    pb::ClientFrame { number, items: vec![pb::ClientItem { item }], ..Default::default() }
}

#[test]
fn malformed_frames_end_their_stream_and_nobody_elses() {
    runtime().block_on(async {
        let rig = Rig::start().await;
        let (_client, space) = rig.space().await;
        let named =
            |name: &[u8]| asks(2, Some(pb::request::Call::Lookup(pb::Entry { dir: 1, name: name.to_vec() })));
        let entry = pb::ClientItem { item: None };
        let many = vec![entry.clone(); 20_000];
        let cases = [
            vec![pb::ClientFrame::default()],
            vec![asks(1, None)],
            vec![hello(), hello()],
            vec![hello(), asks(2, None)],
            vec![hello(), asks(7, Some(request::encode_call(&Call::Sync)))],
            vec![hello(), named(b"..")],
            vec![hello(), named(b"a/b")],
            vec![hello(), named(&[b'x'; 300])],
            vec![hello(), pb::ClientFrame { number: 2, items: vec![entry], ..Default::default() }],
            vec![hello(), pb::ClientFrame { number: 2, items: many, ..Default::default() }],
            vec![pb::ClientFrame {
                hello: Some(pb::Hello { name: "x".repeat(5000), ..Default::default() }),
                ..hello()
            }],
        ];
        for (i, frames) in cases.into_iter().enumerate() {
            let status = ends(&rig, frames, "bob").await;
            assert_eq!(status.code(), Code::InvalidArgument, "case {i}: {status:?}");
        }
        // Larger than a frame may be.
        let value = vec![0; 17 << 20];
        let huge =
            asks(2, Some(pb::request::Call::SetXattr(pb::SetXattr { ino: 1, value, ..Default::default() })));
        let status = ends(&rig, vec![hello(), huge], "bob").await;
        assert!(matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted), "{status:?}");
        create(&space, Ino::ROOT, "still here").await.unwrap();
        rig.end().await;
    });
}

#[test]
fn bytes_that_are_no_protocol_harm_nobody() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    runtime().block_on(async {
        let rig = Rig::start().await;
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        let settings = [preface.clone(), vec![0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
        for bytes in [
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            vec![0xff; 1000],
            [preface, vec![0xff; 100]].concat(),
            [settings, vec![0xff, 0xff, 0xff, 1, 4, 0, 0, 0, 1]].concat(),
        ] {
            let mut stream = tokio::net::TcpStream::connect(rig.address()).await.unwrap();
            // It may be closed while we write.
            let _ = stream.write_all(&bytes).await;
            let mut answer = Vec::new();
            let _ = soon(stream.read_to_end(&mut answer)).await;
        }
        let (_client, space) = rig.space().await;
        create(&space, Ino::ROOT, "f").await.unwrap();
        rig.end().await;
    });
}

#[test]
fn every_refused_greeting_is_the_same() {
    runtime().block_on(async {
        let rig = Rig::start().await;
        let refused: Vec<Status> = vec![
            ends(&rig, vec![hello()], "bob:forged").await,
            ends(&rig, vec![hello()], "").await,
            raw(&rig).await.session(futures::stream::iter([hello()])).await.unwrap_err(),
        ];
        for status in refused {
            assert_eq!(status.code(), Code::Unauthenticated);
            assert_eq!(
                status.message(),
                "the token is not accepted; ask the administrator of this volume for a new one"
            );
        }
        let e = super::super::Client::connect(rig.options("bob:forged")).await.unwrap_err();
        assert_eq!(e.kind(), Kind::Denied);
        // Without a token it is told whether the service works, and no more.
        let health = raw(&rig).await.health(pb::HealthRequest {}).await.unwrap().into_inner();
        assert_eq!((health.status, health.version.as_str()), (1, "test"));
        rig.end().await;
    });
}

#[test]
fn a_namespace_that_is_not_granted_does_not_exist() {
    runtime().block_on(async {
        let rig = Rig::start().await;
        let mallory = rig.client("mallory").await;
        let (there, never) = ("user/alice".parse().unwrap(), "user/nobody".parse().unwrap());
        let error = |e: granary_core::Error| (e.kind(), e.to_string().replace("alice", "nobody"));
        let first = error(mallory.namespace(&there).await.unwrap_err());
        assert_eq!(first, error(mallory.namespace(&never).await.unwrap_err()));
        assert_eq!(first.0, Kind::NotFound);
        assert_eq!(mallory.namespaces().await.unwrap(), vec![]);
        for id in 0..5 {
            assert_eq!(mallory.by_id(NamespaceId(id)).await.unwrap_err().kind(), Kind::NotFound);
            // Guessed, past our own client's checks.
            let call = Call::GetAttr { ino: Ino::ROOT };
            let e = mallory.core.call(None, NamespaceId(id), call).await.unwrap_err();
            assert_eq!(e.kind(), Kind::NotFound);
        }
        let reader = rig.client("bob:read").await;
        let space = reader.namespace(&NAME.parse().unwrap()).await.unwrap();
        assert_eq!(create(&space, Ino::ROOT, "f").await.unwrap_err().kind(), Kind::ReadOnly);
        // A node asks for these on its own, to delete and to rewrite objects.
        assert_eq!(space.dead_objects(1).await.unwrap_err().kind(), Kind::ReadOnly);
        assert_eq!(space.live_objects(ObjectId(0), 1).await.unwrap_err().kind(), Kind::ReadOnly);
        assert_eq!(space.getattr(Ino::ROOT).await.unwrap().nlink, 2);
        rig.end().await;
    });
}
