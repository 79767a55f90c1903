//! A service over an engine in memory and a clock that moves when told, and clients that do what they are told.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use granary_core::limits::Limits;
use granary_core::{Error, Ino, Kind, NamespaceId, NodeId, SessionId, TestClock};

use crate::call::*;
use crate::engine::MemoryEngine;
use crate::lease::{LeaseKind, Scope};
use crate::service::*;
use crate::types::*;
use crate::{Tuning, Volume};

pub const ROOT: Ino = Ino::ROOT;

pub fn quiet() -> Limits {
    Limits { commit_interval_ms: 60_000, sync_interval_ms: 600_000, ..Limits::default() }
}

pub fn options() -> ServiceOptions {
    ServiceOptions { tick: None, linger: Duration::ZERO, ..ServiceOptions::default() }
}

pub fn identity(user: &str, groups: &[&str], rights: Rights) -> Identity {
    let groups = groups.iter().map(|s| s.to_string()).collect();
    let token = format!("token-of-{user}");
    Identity { user: user.into(), groups, rights, namespaces: None, token, parent: None, expires: None }
}

pub fn new_namespace(name: &str) -> NewNamespace {
    NewNamespace {
        name: name.parse().unwrap(),
        uid: 7,
        gid: 8,
        mode: 0o755,
        bytes_max: 0,
        inodes_max: 0,
        durability: Durability::Local,
        trash_ms: TRASH_MS_DEFAULT,
        packed: None,
    }
}

/// A volume with namespaces user/a, group/g, user/b, served.
pub struct Rig {
    pub clock: Arc<TestClock>,
    pub engine: Arc<MemoryEngine>,
    pub options: ServiceOptions,
    pub service: Arc<Service>,
}

impl Rig {
    pub fn new() -> Rig {
        Rig::with(options())
    }

    pub fn with(options: ServiceOptions) -> Rig {
        let engine = Arc::new(MemoryEngine::default());
        let info = VolumeInfo { uuid: "0".repeat(32), store_url: "file:///x".into(), created_unix_ms: 5 };
        Volume::init(&*engine, &info).unwrap();
        let clock = Arc::new(TestClock::default());
        let service = serve(&engine, &clock, &options);
        for name in ["user/a", "group/g", "user/b"] {
            service.volume().create_namespace(new_namespace(name)).unwrap();
        }
        Rig { clock, engine, options, service }
    }

    /// The service's process is killed and another is started, on what was written.
    pub fn restart(&mut self) {
        self.engine = Arc::new(self.engine.crash(usize::MAX));
        self.service = serve(&self.engine, &self.clock, &self.options);
    }

    pub fn greet(&self, who: Identity, node: u64) -> Client {
        Client::greet(&self.service, who, hello(node, None)).unwrap()
    }

    /// A session of user a with namespace group/g.
    pub fn client(&self, node: u64) -> Client {
        let mut client = self.greet(identity("a", &["g"], Rights::ReadWrite), node);
        client.enter("group/g");
        client
    }

    pub fn pass(&self, time: Duration) {
        self.clock.advance(time);
        self.service.tick();
    }
}

fn serve(engine: &Arc<MemoryEngine>, clock: &Arc<TestClock>, options: &ServiceOptions) -> Arc<Service> {
    static SESSIONS: AtomicU64 = AtomicU64::new(100);
    let volume = Volume::open_served(engine.clone(), clock.clone(), &quiet(), Tuning::default()).unwrap();
    let random = Box::new(|| SESSIONS.fetch_add(1, Ordering::Relaxed));
    Service::start(volume, clock.clone(), random, options.clone()).unwrap()
}

pub fn hello(node: u64, session: Option<SessionId>) -> Hello {
    let (node, name) = (NodeId(node), format!("node-{node}"));
    Hello { session, node, name, data_address: None, held: vec![], anew: false }
}

pub struct Client {
    pub connection: Connection,
    pub greeting: Greeting,
    pub ns: NamespaceId,
    pub next_id: u64,
    pub acked_below: u64,
}

impl Client {
    pub fn greet(service: &Arc<Service>, who: Identity, hello: Hello) -> Result<Client, Error> {
        let (greeting, connection) = service.greet(who, hello)?;
        Ok(Client { connection, greeting, ns: NamespaceId(0), next_id: 1, acked_below: 0 })
    }

    /// What comes next, if anything does now.
    pub fn poll(&self) -> Option<Outgoing> {
        let mut next = pin!(self.connection.next());
        match next.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(what) => Some(what),
            Poll::Pending => None,
        }
    }

    pub fn submit(&mut self, call: Call) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.again(id, call);
        id
    }

    pub fn again(&self, id: u64, call: Call) {
        self.connection.submit(Request { id, acked_below: self.acked_below, ns: self.ns, call });
    }

    /// The answer, which comes next.
    pub fn response(&self, id: u64) -> Response {
        match self.poll() {
            Some(Outgoing::Response(response)) if response.id == id => response,
            other => panic!("an answer to call {id} was due, not {other:?}"),
        }
    }

    pub fn recall(&self) -> Recall {
        match self.poll() {
            Some(Outgoing::Recall(recall)) => recall,
            other => panic!("a recall was due, not {other:?}"),
        }
    }

    pub fn release(&self) -> Recall {
        let recall = self.recall();
        self.connection.released(Released { id: recall.id, open: false });
        recall
    }

    /// Answers all recalls that there are, and tells how many; nothing else is due.
    pub fn give_all_up(&self) -> u64 {
        let mut count = 0;
        while let Some(next) = self.poll() {
            let Outgoing::Recall(recall) = next else { panic!("only recalls were due, not {next:?}") };
            self.connection.released(Released { id: recall.id, open: false });
            count += 1;
        }
        count
    }

    pub fn ended(&self) -> Error {
        match self.poll() {
            Some(Outgoing::Ended(e)) => e,
            other => panic!("the end was due, not {other:?}"),
        }
    }

    pub fn is_quiet(&self) -> bool {
        match self.poll() {
            None => true,
            Some(other) => panic!("nothing was due, not {other:?}"),
        }
    }

    pub fn call(&mut self, call: Call) -> Response {
        let id = self.submit(call);
        self.response(id)
    }

    pub fn ask(&mut self, call: Call) -> Result<Answer, Error> {
        self.call(call).result
    }

    pub fn error(&mut self, call: Call) -> Kind {
        self.ask(call).unwrap_err().kind()
    }

    pub fn attr(&mut self, call: Call) -> Attr {
        match self.ask(call).unwrap() {
            Answer::Attr(attr) => attr,
            other => panic!("attributes were due, not {other:?}"),
        }
    }

    pub fn enter(&mut self, name: &str) {
        match self.ask(Call::Namespace { name: name.parse().unwrap() }).unwrap() {
            Answer::Namespace(info) => self.ns = info.id,
            other => panic!("a namespace was due, not {other:?}"),
        }
    }
}

pub fn create(name: &str, open: bool) -> Call {
    let new =
        NewInode { kind: FileType::File, mode: 0o644, umask: 0, uid: 1, gid: 2, rdev: 0, target: vec![] };
    Call::Create { dir: ROOT, name: name.as_bytes().into(), new, open }
}

pub fn mkdir(name: &str) -> Call {
    let new = NewInode {
        kind: FileType::Directory,
        mode: 0o755,
        umask: 0,
        uid: 1,
        gid: 2,
        rdev: 0,
        target: vec![],
    };
    Call::Create { dir: ROOT, name: name.as_bytes().into(), new, open: false }
}

pub fn lookup(name: &str) -> Call {
    Call::Lookup { dir: ROOT, name: name.as_bytes().into() }
}

pub fn unlink(name: &str) -> Call {
    Call::Unlink { dir: ROOT, name: name.as_bytes().into() }
}

pub fn chmod(ino: Ino, mode: u32) -> Call {
    Call::SetAttr { ino, set: SetAttr { mode: Some(mode), ..SetAttr::default() } }
}

pub fn commit(ino: Ino, size: u64) -> Call {
    let (extents, holes) = (vec![], vec![]);
    let mtime = granary_core::Timestamp::default();
    Call::Commit(Commit { ino, size, mtime, ctime: mtime, extents, holes, staged_seq: 0 })
}

pub fn reads(scope: Scope) -> (Scope, LeaseKind) {
    (scope, LeaseKind::Read)
}

pub fn writes(scope: Scope) -> (Scope, LeaseKind) {
    (scope, LeaseKind::Write)
}
