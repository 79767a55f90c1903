//! How many calls a second the metadata service does in this process, over RocksDB in a temporary folder, and what its
//! memory is: `cargo run --release -p granary-meta --example service_ops [FILES] [CLIENTS]`. Every answer to a change
//! waits until the engine has it, so this is what a session sees, without the network.

use std::sync::Arc;

use futures::executor::block_on;
use granary_core::limits::Limits;
use granary_core::{Clock, Error, Ino, Kind, NamespaceId, NodeId, Result, SystemClock};
use granary_meta::call::{Answer, Call, Hello, Released, Request};
use granary_meta::engine::RocksEngine;
use granary_meta::service::{Connection, Identity, Outgoing, Rights, Service, ServiceOptions};
use granary_meta::{Durability, FileType, NewInode, NewNamespace, RenameMode, Tuning, Volume, VolumeInfo};

struct Client {
    connection: Connection,
    ns: NamespaceId,
    id: u64,
    /// Where the listing goes on.
    cookie: u64,
}

impl Client {
    fn new(service: &Arc<Service>, node: u64) -> Result<Client> {
        let who = Identity {
            user: "bench".into(),
            groups: vec![],
            rights: Rights::ReadWrite,
            namespaces: None,
            token: "t".into(),
            parent: None,
            expires: None,
        };
        let hello = Hello {
            session: None,
            node: NodeId(node),
            name: "here".into(),
            data_address: None,
            held: vec![],
            anew: false,
        };
        let (_, connection) = service.greet(who, hello)?;
        let mut client = Client { connection, ns: NamespaceId(0), id: 0, cookie: 0 };
        match client.call(Call::Namespace { name: "user/bench".parse()? })? {
            Answer::Namespace(info) => client.ns = info.id,
            other => return Err(Error::new(Kind::Bug, format!("not a namespace: {other:?}"))),
        }
        Ok(client)
    }

    fn call(&mut self, call: Call) -> Result<Answer> {
        self.id += 1;
        self.connection.submit(Request { id: self.id, acked_below: self.id, ns: self.ns, call });
        loop {
            match block_on(self.connection.next()) {
                Outgoing::Response(response) => return response.result,
                Outgoing::Recall(recall) => self.connection.released(Released { id: recall.id, open: false }),
                Outgoing::Ended(e) => return Err(e),
            }
        }
    }

    fn made(&mut self, dir: Ino, name: String, kind: FileType) -> Result<Ino> {
        let new = NewInode { kind, mode: 0o755, umask: 0, uid: 0, gid: 0, rdev: 0, target: vec![] };
        match self.call(Call::Create { dir, name: name.into_bytes().into(), new, open: false })? {
            Answer::Attr(attr) => Ok(attr.ino),
            other => Err(Error::new(Kind::Bug, format!("not an inode: {other:?}"))),
        }
    }
}

fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|s| s.parse::<u64>().ok()).unwrap_or(0) * 4096
}

/// Nanoseconds this thread has run, as Linux counts them; on a busy machine more telling than the time that passed.
fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|s| s.parse().ok()).unwrap_or(0)
}

/// All clients do `n` calls each; prints calls a second of all together, and what one took of its client's CPU, the
/// service's work for it included.
fn measure(
    what: &str,
    clients: &mut [(Client, Ino)],
    n: u64,
    f: impl Fn(&mut Client, Ino, u64) -> Result<()> + Sync,
) -> Result<()> {
    let start = SystemClock.monotonic();
    let run = |client: &mut Client, dir: Ino| {
        let cpu = cpu_ns();
        (0..n).try_for_each(|i| f(client, dir, i)).map(|()| cpu_ns() - cpu)
    };
    let cpu = std::thread::scope(|scope| {
        let run = &run;
        let runs: Vec<_> =
            clients.iter_mut().map(|(client, dir)| scope.spawn(move || run(client, *dir))).collect();
        let mut cpu = 0;
        for run in runs {
            cpu += run.join().map_err(|_| Error::new(Kind::Bug, "a client panicked"))??;
        }
        Ok::<u64, Error>(cpu)
    })?;
    let taken = SystemClock.monotonic() - start;
    let calls = (n * clients.len() as u64).max(1);
    let rate = calls as f64 / taken.as_secs_f64();
    println!("{what:<44} {rate:>12.0} /s {:>10} ns CPU each", cpu / calls);
    Ok(())
}

fn main() -> Result<()> {
    let arg = |i: usize| std::env::args().nth(i).and_then(|s| s.parse::<u64>().ok());
    let (files, count) = (arg(1).unwrap_or(100_000), arg(2).unwrap_or(1).max(1));
    let dir = std::env::temp_dir().join(format!("granary-service-ops-{}", std::process::id()));
    let engine = RocksEngine::open(&dir)?;
    let info = VolumeInfo { uuid: "0".repeat(32), store_url: "file:///nowhere".into(), created_unix_ms: 0 };
    Volume::init(&*engine, &info)?;
    let volume = Volume::open_served(engine, Arc::new(SystemClock), &Limits::default(), Tuning::default())?;
    volume.create_namespace(NewNamespace {
        name: "user/bench".parse()?,
        uid: 0,
        gid: 0,
        mode: 0o755,
        bytes_max: 0,
        inodes_max: 0,
        durability: Durability::Local,
        trash_ms: granary_meta::TRASH_MS_DEFAULT,
        packed: None,
    })?;
    let mut sessions = 0;
    let random = Box::new(move || {
        sessions += 1;
        sessions
    });
    // Who is done with its share is silent until all are.
    let hour = std::time::Duration::from_secs(3600);
    let options =
        ServiceOptions { leases_max: 10_000_000, lease_time: hour, grace: hour, ..ServiceOptions::default() };
    let service = Service::start(volume, Arc::new(SystemClock), random, options)?;
    let mut clients = Vec::new();
    let mut maker = Client::new(&service, 0)?;
    for node in 1..=count {
        let dir = maker.made(Ino::ROOT, format!("d{node}"), FileType::Directory)?;
        clients.push((Client::new(&service, node)?, dir));
    }
    // It does not listen for recalls from here on.
    maker.connection.leave();
    let n = files / count;
    let name = |i: u64| format!("file-{i:08}").into_bytes().into_boxed_slice();
    let before = resident_bytes();
    println!("{count} clients, a directory each");
    measure("create", &mut clients, n, |client, dir, i| {
        client.made(dir, format!("file-{i:08}"), FileType::File).map(drop)
    })?;
    let (leases, grown) = (service.stats().leases, resident_bytes().saturating_sub(before));
    println!(
        "  {leases} leases; memory grew by {grown} bytes, caches included: {} for each million files",
        grown * 1_000_000 / (n * count).max(1)
    );
    measure("lookup", &mut clients, n, |client, dir, i| {
        client.call(Call::Lookup { dir, name: name(i) }).map(drop)
    })?;
    measure("getattr", &mut clients, n, |client, dir, _| client.call(Call::GetAttr { ino: dir }).map(drop))?;
    measure("rename", &mut clients, n, |client, dir, i| {
        let to_name = format!("moved-{i:08}").into_bytes().into();
        let mode = RenameMode::Replace;
        client.call(Call::Rename { dir, name: name(i), to_dir: dir, to_name, mode }).map(drop)
    })?;
    measure("readdir of 100 entries with attributes", &mut clients, n / 100, |client, dir, _| {
        let cookie = client.cookie;
        match client.call(Call::ReadDir { dir, cookie, max: 100, with_attr: true })? {
            Answer::Entries(page) => client.cookie = page.last().map_or(0, |entry| entry.cookie),
            other => return Err(Error::new(Kind::Bug, format!("not a listing: {other:?}"))),
        }
        Ok(())
    })?;
    measure("unlink", &mut clients, n, |client, dir, i| {
        let name = format!("moved-{i:08}").into_bytes().into();
        client.call(Call::Unlink { dir, name }).map(drop)
    })?;
    println!("  {} leases are left", service.stats().leases);
    service.stop()?;
    service.volume().shutdown()?;
    drop(clients);
    std::fs::remove_dir_all(&dir).map_err(|e| Error::io("cannot remove the temporary folder", e))
}
