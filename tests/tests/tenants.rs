//! Each tenant apart: what somebody tries who has no right to it, over every way in. Each attempt must be refused, tell
//! nothing, change nothing, and leave everybody else served.

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use granary_core::{
    Ino, Kind, NamespaceId, NamespaceName, NodeId, ObjectId, SessionId, SystemClock, TestClock, Timestamp,
};
use granary_meta::call::{Answer, Call, Hello, Request};
use granary_meta::token::{Grant, Rights, SigningKey, issue};
use granary_meta::wire::pb::metadata_client::MetadataClient;
use granary_meta::wire::pb::server_item::Item as Said;
use granary_meta::wire::pb::{ClientFrame, ClientItem, client_item};
use granary_meta::wire::{request, response, session};
use granary_meta::{
    Commit, CopyRange, Durability, FileType, Lock, LockKind, LockOwner, LockRequest, NamespaceChange,
    NewInline, NewInode, NewNamespace, ObjectInfo, RenameMode, SetAttr,
};
use granary_tests::{Node, Output, Port, Service, run};
use tokio_stream::StreamExt;
use tonic::Status;

const MALLORY: u32 = 61_003;

/// A service and a node, alice's file to steal, and what mallory has by right.
struct World {
    service: Service,
    node: Node,
    mallory: String,
    data_port: Port,
    runtime: tokio::runtime::Runtime,
}

impl World {
    fn new() -> World {
        let service = Service::new();
        let data_port = Port::new();
        let listen = data_port.address();
        let settings = [("GRANARY_DATA_LISTEN", listen.as_str()), ("GRANARY_SMALL_PERIOD_MS", "1h")];
        let node = service.node_with(&service.token("root", &[], "admin"), &settings);
        for (name, owner) in [
            ("user/alice", "61001"),
            ("group/asr", "61001"),
            ("dataset/libri", "0"),
            ("user/mallory", "61003"),
        ] {
            node.ok(&["ns", "create", name, "--owner", owner, "--group", owner]);
        }
        // Mountpoints lie in the test's private directory: let others through to them, and to the binary.
        fs::set_permissions(node.path("."), fs::Permissions::from_mode(0o755)).expect("chmod");
        let binary = node.command(&[]).get_program().to_owned();
        fs::copy(binary, node.path("granary")).expect("copy");
        let dir = node.mount("user/alice", "");
        fs::write(dir.join("diary"), "secret").expect("write");
        let mallory = service.token("mallory", &["guests"], "read-write");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        World { service, node, mallory, data_port, runtime }
    }

    /// Everybody who should be served still is, and mallory has what is theirs and no more.
    fn is_well(&mut self, after: &str) {
        assert!(self.service.is_running(), "{after}: the service is gone");
        let dir = self.node.path("mnt-user-alice");
        assert_eq!(fs::read_to_string(dir.join("diary")).expect("alice reads"), "secret", "{after}");
        fs::write(dir.join("note"), after).unwrap_or_else(|e| panic!("{after}: alice cannot write: {e}"));
        let answer = self.ask(0, Call::Namespaces);
        let Ok(Answer::Namespaces(all)) = &answer else { panic!("{after}: {answer:?}") };
        let names: Vec<_> = all.iter().map(|ns| ns.name.as_str()).collect();
        assert_eq!(names, ["user/mallory"], "{after}");
    }

    /// A command of mallory's at the node's socket.
    fn at_socket(&self, args: &[&str]) -> Output {
        let theirs = self.node.command(args);
        let mut command = Command::new("setpriv");
        command.args([
            format!("--reuid={MALLORY}"),
            format!("--regid={MALLORY}"),
            "--clear-groups".to_owned(),
        ]);
        command.arg(self.node.path("granary")).args(theirs.get_args()).env_remove("GRANARY_TOKEN_FILE");
        for (name, value) in theirs.get_envs() {
            match value {
                Some(value) if name != "GRANARY_TOKEN_FILE" => command.env(name, value),
                _ => command.env_remove(name),
            };
        }
        run(&mut command)
    }

    /// What the node answers to these bytes at its socket.
    fn raw_at_socket(&self, bytes: &[u8]) -> String {
        let mut stream = UnixStream::connect(self.node.path("node.sock")).expect("the node listens");
        // It may close before all is written: that is a refusal too.
        let _ = stream.write_all(bytes).and_then(|()| stream.shutdown(Shutdown::Write));
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn raw_at_port(&self, port: u16, bytes: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        // Bytes that are no question need no answer: who waits for one gives up.
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
        let _ = stream.write_all(bytes).and_then(|()| stream.shutdown(Shutdown::Write));
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        answer
    }

    /// A stream that says these frames under this token; whether a session was resumed, and the answers by the numbers of
    /// their calls.
    fn stream(&self, token: &str, frames: Vec<ClientFrame>, wanted: usize) -> Result<Told, Status> {
        self.runtime.block_on(async {
            let mut client = MetadataClient::connect(self.service.url()).await.expect("the service listens");
            // It stays open after its last frame.
            let frames = tokio_stream::iter(frames).chain(tokio_stream::pending());
            let mut asked = tonic::Request::new(frames);
            if !token.is_empty() {
                let bearer =
                    format!("Bearer {token}").parse().map_err(|_| Status::unauthenticated("no header"))?;
                asked.metadata_mut().insert("authorization", bearer);
            }
            let mut answers = client.session(asked).await?.into_inner();
            let mut told = Told::default();
            while told.answers.len() < wanted {
                let Some(frame) = answers.message().await? else {
                    return Err(Status::aborted("the stream was ended"));
                };
                told.resumed |= frame.greeting.is_some_and(|greeting| greeting.resumed);
                for item in frame.items {
                    match item.item {
                        Some(Said::Response(said)) => {
                            let said = response::decode(said).expect("a response of the service");
                            told.answers.insert(said.id, said.result);
                        }
                        Some(Said::Ended(failure)) => return Err(Status::aborted(failure.message)),
                        _ => {}
                    }
                }
            }
            Ok(told)
        })
    }

    /// What mallory's own session is answered to a call in a namespace whose number they guess; 0: of the volume.
    fn ask(&self, ns: u32, call: Call) -> granary_core::Result<Answer> {
        let asked = Request { id: 1, acked_below: 1, ns: NamespaceId(ns), call };
        let item = ClientItem { item: Some(client_item::Item::Request(request::encode(&asked))) };
        let frames =
            vec![hello(None), ClientFrame { number: 2, items: vec![item], ..ClientFrame::default() }];
        let mut told = self.stream(&self.mallory, frames, 1).unwrap_or_else(|e| panic!("{asked:?}: {e}"));
        told.answers.remove(&1).expect("an answer")
    }
}

#[derive(Debug, Default)]
struct Told {
    resumed: bool,
    answers: HashMap<u64, granary_core::Result<Answer>>,
}

fn hello(session: Option<u64>) -> ClientFrame {
    let said = Hello {
        session: session.map(SessionId),
        node: NodeId(666),
        name: "mallory".to_owned(),
        data_address: None,
        held: Vec::new(),
        anew: false,
    };
    ClientFrame { number: 1, hello: Some(session::encode_hello(&said)), ..ClientFrame::default() }
}

fn name(text: &str) -> NamespaceName {
    text.parse().expect("a name")
}

/// At the node's socket, as a user of the machine who is neither alice nor an administrator.
#[test]
fn at_the_socket_of_the_node() {
    let mut w = World::new();
    let alices = w.node.path("mnt-user-alice").display().to_string();
    let own = w.node.path("own").display().to_string();
    fs::create_dir(&own).expect("mkdir");
    let own = own.as_str();
    let stolen = w.node.path("stolen.token").display().to_string();
    fs::write(&stolen, w.service.token("alice", &[], "admin")).expect("write");
    fs::set_permissions(&stolen, fs::Permissions::from_mode(0o644)).expect("chmod");
    let table: &[(&[&str], &str)] = &[
        (&["mount", "user/alice", own], "no namespace user/alice"),
        (&["mount", "user/nobody-at-all", own], "no namespace user/nobody-at-all"),
        (&["mount", "group/asr", own], "no namespace group/asr"),
        (&["mount", "dataset/libri", own], "no namespace dataset/libri"),
        (&["mount", "bucket/x", own], "no namespace bucket/x"),
        (&["mount", "user/../alice", own], "KIND/NAME"),
        // Also with a token that would do: the machine's own rules are kept beside the service's.
        (&["mount", "user/alice", own, "--token-file", &stolen], "no namespace user/alice"),
        (&["umount", &alices], "nothing of this node is mounted"),
        (&["umount", "--lazy", &alices], "nothing of this node is mounted"),
        (&["ns", "create", "user/mine"], "only root"),
        (&["ns", "set", "user/alice", "--owner", "61003"], "only root"),
        (&["ns", "remove", "user/alice", "--force"], "only root"),
        (&["node", "stop"], "only root"),
    ];
    for (args, part) in table {
        let out = w.at_socket(args);
        let told = out.code.is_some_and(|code| code != 0) && out.stderr.contains(part);
        assert!(told && !out.stderr.contains("panicked"), "{args:?}: {out:?}");
        w.is_well(&args.join(" "));
    }
    for args in [&["status", "--json"][..], &["ns", "list", "--json"]] {
        let out = w.at_socket(args);
        assert!(
            out.code == Some(0) && !out.stdout.contains("alice") && !out.stdout.contains("asr"),
            "{out:?}"
        );
    }
}

/// Bytes that are no requests, at the node's socket, the service's port and the port for other nodes.
#[test]
fn malformed_bytes_everywhere() {
    let mut w = World::new();
    let head = |rest: &str| format!("POST /v1/mount HTTP/1.1\r\nhost: x\r\n{rest}\r\n\r\n");
    let huge = format!("GET /v1/status HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
    let json = |body: &str| {
        head(&format!("content-type: application/json\r\ncontent-length: {}", body.len())) + body
    };
    for (what, bytes) in [
        ("noise", "\0\x01\x02 noise \r\n\r\n".repeat(1000)),
        ("a huge header", huge),
        ("a body without end", head("content-type: application/json\r\ncontent-length: 99999999999")),
        ("no JSON", json("{")),
        ("deep JSON", json(&"[".repeat(60_000))),
        ("unknown words", json(r#"{"namespace":"user/a","dir":"/mnt","root":true}"#)),
        ("a path for a token", json(r#"{"namespace":"user/a","dir":"/mnt","token":{"file":"/etc/shadow"}}"#)),
        (
            "smuggling",
            head("content-length: 5\r\ntransfer-encoding: chunked")
                + "0\r\n\r\nGET /v1/stop HTTP/1.1\r\n\r\n",
        ),
        ("another method", "DELETE /v1/namespaces HTTP/1.1\r\nhost: x\r\n\r\n".to_owned()),
        ("another path", "GET /v1/../../etc/shadow HTTP/1.1\r\nhost: x\r\n\r\n".to_owned()),
    ] {
        let answer = w.raw_at_socket(bytes.as_bytes());
        assert!(!answer.starts_with("HTTP/1.1 2"), "{what}: {answer}");
        w.is_well(what);
    }
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let frame =
        |kind: u8, len: [u8; 3], body: &[u8]| [&preface[..], &len, &[kind, 0, 0, 0, 0, 1], body].concat();
    let tls_hello = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 500]].concat();
    for (what, bytes) in [
        ("noise", vec![0xa5; 1 << 16]),
        ("HTTP/1", b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n".to_vec()),
        ("TLS where there is none", tls_hello),
        ("a frame as long as can be", frame(0, [0xff; 3], &[0; 4096])),
        ("headers that are none", frame(1, [0, 1, 0], &[0xff; 256])),
        ("settings without end", [&preface[..], &[0, 0, 0, 4, 0, 0, 0, 0, 0].repeat(20_000)].concat()),
        ("nothing", Vec::new()),
    ] {
        for port in [w.service.port(), w.data_port.number()] {
            let answer = w.raw_at_port(port, &bytes);
            let text = String::from_utf8_lossy(&answer);
            assert!(!text.contains("secret") && !text.contains("HTTP/1.1 200"), "{what}: {text}");
            w.is_well(what);
        }
    }
}

/// Tokens that are none.
#[test]
fn tokens_that_do_not_count() {
    let mut w = World::new();
    let volume = {
        let token = w.service.token("x", &[], "read-only");
        granary_meta::token::inspect(&token).expect("a token").volume
    };
    let admin = Grant {
        user: "mallory".into(),
        groups: vec![],
        rights: Rights::Admin,
        namespaces: None,
        lifetime_secs: 3600,
    };
    let trusted = fs::read_to_string(w.service.path("granary.key")).expect("the key");
    let trusted = SigningKey::from_pem(&trusted).expect("the key");
    let strange = SigningKey::from_seed(&[7; 32]).expect("a key");
    let now = &SystemClock;
    let signed = |key: &SigningKey, volume: &str, clock: &dyn granary_core::Clock| {
        issue(key, volume, &admin, clock, 1).expect("a token")
    };
    let good = w.mallory.clone();
    let parts: Vec<&str> = good.split('.').collect();
    let theirs = signed(&strange, &volume, now);
    let claims = theirs.split('.').nth(1).expect("claims");
    let revoked = w.service.token("mallory", &[], "read-write");
    let root = w.service.token("root", &[], "admin");
    fs::write(w.service.path("revoked.token"), &revoked).expect("write");
    let file = w.service.path("revoked.token").display().to_string();
    let out = w.service.as_bearer(&root, &["token", "revoke", &file]);
    assert_eq!(out.code, Some(0), "{out:?}");
    // {"alg":"none"}
    let none = format!("eyJhbGciOiJub25lIn0.{claims}.");
    let tokens = [
        ("none at all", String::new()),
        ("noise", "noise".to_owned()),
        ("another key", theirs.clone()),
        ("another volume", signed(&trusted, &"0".repeat(32), now)),
        ("expired in 1970", signed(&trusted, &volume, &TestClock::default())),
        ("greater rights under a genuine signature", [parts[0], claims, parts[2]].join(".")),
        ("no signature", format!("{}.{}.", parts[0], parts[1])),
        ("no algorithm", none),
        ("cut", good[..good.len() - 1].to_owned()),
        ("huge", "a.".repeat(6000)),
        ("revoked", revoked),
    ];
    let mut told = Vec::new();
    for (what, token) in &tokens {
        match w.stream(token, vec![hello(None)], 1) {
            Err(status) => {
                assert_eq!(status.code(), tonic::Code::Unauthenticated, "{what}: {status}");
                told.push(status.message().to_owned());
            }
            Ok(answer) => panic!("{what}: {answer:?}"),
        }
        w.is_well(what);
    }
    assert!(told.iter().all(|words| *words == told[0]), "the reason is told: {told:?}");
    let audit = w.service.audit_log();
    for part in ["no trusted key", "another volume", "expired", "revoked"] {
        assert!(audit.contains(part), "{part:?} is not in the audit log:\n{audit}");
    }
    // On a node with the administrator's token, a mount's own token decides.
    fs::create_dir(w.node.path("here")).expect("mkdir");
    fs::write(w.node.path("theirs"), &theirs).expect("write");
    let (dir, file) =
        (w.node.path("here").display().to_string(), w.node.path("theirs").display().to_string());
    w.node.fails(&["mount", "user/alice", &dir, "--token-file", &file], "token is not accepted");
    w.is_well("a forged token at a node");
}

/// A session of mallory's own, proven, that asks for what is others'.
#[test]
fn calls_into_other_namespaces() {
    let mut w = World::new();
    let file =
        || NewInode { kind: FileType::File, mode: 0o644, umask: 0, uid: 0, gid: 0, rdev: 0, target: vec![] };
    let text = |text: &str| text.as_bytes().into();
    let ino = Ino(2);
    let dir = Ino::ROOT;
    let lock = Lock { flock: false, kind: LockKind::Exclusive, start: 0, end: u64::MAX, pid: 1 };
    let owner = LockOwner(1);
    let calls = [
        Call::Lookup { dir, name: text("diary") },
        Call::GetAttr { ino },
        Call::ReadDir { dir, cookie: 0, max: 100, with_attr: true },
        Call::Parent { dir },
        Call::ReadLink { ino },
        Call::GetXattr { ino, name: text("user.x") },
        Call::ListXattr { ino },
        Call::SetXattr {
            ino,
            name: text("user.x"),
            value: text("y"),
            create_only: false,
            replace_only: false,
        },
        Call::RemoveXattr { ino, name: text("user.x") },
        Call::Create { dir, name: text("mine"), new: file(), open: true },
        Call::Tmpfile { dir, new: file() },
        Call::Link { ino, dir, name: text("mine") },
        Call::Unlink { dir, name: text("diary") },
        Call::Rmdir { dir, name: text("diary") },
        Call::Rename {
            dir,
            name: text("diary"),
            to_dir: dir,
            to_name: text("mine"),
            mode: RenameMode::Replace,
        },
        Call::SetAttr { ino, set: SetAttr { mode: Some(0o777), size: Some(0), ..SetAttr::default() } },
        Call::Open { ino },
        Call::Extents { ino, with_inline: true },
        Call::Commit(Commit {
            ino,
            size: 0,
            mtime: Timestamp::default(),
            ctime: Timestamp::default(),
            extents: vec![],
            holes: vec![(0, 6)],
            staged_seq: 1,
        }),
        Call::KeepInline {
            object: ObjectInfo {
                id: ObjectId(1),
                kind: granary_core::ObjectKind::Pack,
                payload_len: 6,
                total_len: 100,
            },
            copies: vec![NewInline { ino, at: 0, crc: 0, bytes: (*b"theirs").into() }],
        },
        Call::Live { staged: vec![] },
        Call::Object { id: ObjectId(1) },
        Call::DeadObjects { max: 10 },
        Call::LiveObjects { after: ObjectId(0), max: 10 },
        Call::ForgetObjects { ids: vec![ObjectId(1)] },
        Call::CopyRange(CopyRange {
            from: ino,
            from_offset: 0,
            to: Ino(3),
            to_offset: 0,
            len: 6,
            staged_seq: 0,
        }),
        Call::Sync,
        Call::Lease { ino },
        Call::TestLock { ino, owner, lock },
        Call::Lock { ino, request: LockRequest { owner, lock, unlock: false, wait: true } },
        Call::Peer { node: NodeId(1) },
    ];
    // The first namespace that was made is alice's; 9 was never made: the two must be told in the same words.
    for call in calls {
        let refusals = [1, 2, 9, u32::MAX].map(|ns| match w.ask(ns, call.clone()) {
            Err(e) => (
                e.kind(),
                e.to_string().replace(&NamespaceId(ns).to_string(), "N").replace(&ns.to_string(), "N"),
            ),
            Ok(answer) => panic!("{call:?} in {ns}: {answer:?}"),
        });
        assert_eq!(refusals[0].0, Kind::NotFound, "{call:?}: {refusals:?}");
        assert!(refusals.iter().all(|r| *r == refusals[0]), "{call:?}: {refusals:?}");
        w.is_well(&format!("{call:?}"));
    }
}

/// The same of the volume, and of other sessions.
#[test]
fn calls_of_the_volume_and_others_sessions() {
    let mut w = World::new();
    let missing = |w: &World, asked: &str| match w.ask(0, Call::Namespace { name: name(asked) }) {
        Err(e) => (e.kind(), e.to_string().replace(asked, "NAME")),
        Ok(answer) => panic!("{asked}: {answer:?}"),
    };
    let never = missing(&w, "user/nobody-at-all");
    assert_eq!(never.0, Kind::NotFound);
    for asked in ["user/alice", "group/asr", "dataset/libri", "user/root", "group/mallory", "bucket/x"] {
        assert_eq!(missing(&w, asked), never, "{asked}");
        w.is_well(asked);
    }
    let new = NewNamespace {
        name: name("user/mine"),
        uid: 0,
        gid: 0,
        mode: 0o777,
        bytes_max: 0,
        inodes_max: 0,
        durability: Durability::Local,
        trash_ms: granary_meta::TRASH_MS_DEFAULT,
        packed: None,
    };
    let root = w.service.token("root", &[], "admin");
    let id = granary_meta::token::inspect(&root).expect("a token").id;
    let change = NamespaceChange { uid: Some(MALLORY), ..NamespaceChange::default() };
    for call in [
        Call::CreateNamespace { new: NewNamespace { name: name("user/alice"), ..new.clone() } },
        Call::CreateNamespace { new },
        Call::SetNamespace { name: name("user/alice"), change },
        Call::SetNamespace {
            name: name("user/mallory"),
            change: NamespaceChange { bytes_max: Some(0), ..change },
        },
        Call::RemoveNamespace { name: name("user/alice"), force: true },
        Call::RevokeToken { token: id },
        Call::Delegate {
            namespace: name("user/alice"),
            read_only: true,
            lifetime_secs: 60,
            purpose: "mallory".to_owned(),
        },
        Call::Delegate {
            namespace: name("user/mallory"),
            read_only: false,
            lifetime_secs: 60,
            purpose: String::new(),
        },
    ] {
        let e = w.ask(0, call.clone()).expect_err("refused");
        assert!(matches!(e.kind(), Kind::Permission | Kind::Denied | Kind::NotFound), "{call:?}: {e:?}");
        w.is_well(&format!("{call:?}"));
    }
    let Ok(Answer::Sessions(sessions)) = w.ask(0, Call::Sessions) else { panic!("no sessions") };
    assert!(sessions.iter().all(|session| session.user == "mallory"), "{sessions:?}");
    // Somebody else's session, its number known.
    let all = w.service.as_bearer(&root, &["meta", "sessions", "--json"]);
    let all: serde_json::Value = serde_json::from_str(&all.stdout).expect("JSON");
    for session in all.as_array().expect("a list").iter().filter(|session| session["user"] == "root") {
        let number = u64::from_str_radix(session["session"].as_str().expect("text"), 16).expect("a number");
        let asked = Request { id: 1, acked_below: 1, ns: NamespaceId(0), call: Call::Namespaces };
        let item = ClientItem { item: Some(client_item::Item::Request(request::encode(&asked))) };
        let frames =
            vec![hello(Some(number)), ClientFrame { number: 2, items: vec![item], ..ClientFrame::default() }];
        let told = w.stream(&w.mallory, frames, 1).expect("a session of their own");
        assert!(!told.resumed, "{number:x} was taken over");
        w.is_well("a session taken over");
    }
}

/// Frames that break the rules end their own stream, and nothing else.
#[test]
fn frames_against_the_rules() {
    let mut w = World::new();
    let asked = |id: u64, call: Call| {
        let asked = Request { id, acked_below: 1, ns: NamespaceId(0), call };
        ClientItem { item: Some(client_item::Item::Request(request::encode(&asked))) }
    };
    let frame = |number: u64, items: Vec<ClientItem>| ClientFrame { number, items, ..ClientFrame::default() };
    let mut nameless = hello(None);
    nameless.hello.as_mut().expect("a hello").name = "x".repeat(1 << 20);
    let empty = ClientItem { item: None };
    for (what, frames) in [
        ("no hello", vec![frame(1, vec![asked(1, Call::Namespaces)])]),
        ("an endless name", vec![nameless]),
        ("a second hello", vec![hello(None), ClientFrame { number: 2, ..hello(None) }]),
        ("an empty item", vec![hello(None), frame(2, vec![empty])]),
        ("very many items", vec![hello(None), frame(2, vec![asked(1, Call::Namespaces); 100_000])]),
        (
            "a frame that is too long",
            vec![hello(None), frame(2, vec![asked(1, Call::RevokeToken { token: "x".repeat(64 << 20) })])],
        ),
        ("an answer to no recall, and an end to no call", {
            let released = granary_meta::wire::pb::Released { id: 99, open: true };
            let items = vec![
                ClientItem { item: Some(client_item::Item::Released(released)) },
                ClientItem { item: Some(client_item::Item::Cancel(77)) },
                empty_call(),
            ];
            vec![hello(None), frame(2, items)]
        }),
    ] {
        let status = match w.stream(&w.mallory, frames, 1) {
            Err(status) => status,
            Ok(told) => panic!("{what}: {told:?}"),
        };
        assert!(!status.message().contains("panicked"), "{what}: {status}");
        w.is_well(what);
    }
}

/// A request without a call.
fn empty_call() -> ClientItem {
    let request = granary_meta::wire::pb::Request { id: 1, ..Default::default() };
    ClientItem { item: Some(client_item::Item::Request(request)) }
}
