//! Several sessions at once against a linear history: each client keeps exactly what its grants allow, answers from what
//! it keeps whenever it may, and is never to be stale.
//!
//! What "now" is, the namespace itself says: a read that is answered from a cache must be what the service's own state is
//! at that moment, with what another's write lease holds back counted in. Everything is driven by one thread, in an order
//! that a seed decides: messages to and from each session are delivered one at a time, late, and across reconnections.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use futures::executor::block_on;
use granary_core::{EntryName, Ino, Kind};

use super::rig::*;
use crate::Metadata;
use crate::call::*;
use crate::lease::{LeaseKind, Scope};
use crate::service::leases::ScopeKey;
use crate::service::{Outgoing, Rights};
use crate::types::{Attr, RenameMode};

/// xorshift64*: all choices come from it.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
    }
}

const NAMES: u64 = 4;

fn name(n: u64) -> String {
    format!("f{n}")
}

/// A node: its connection, what it keeps, and what it has asked.
struct Node {
    client: Client,
    leases: HashMap<Scope, LeaseKind>,
    attrs: HashMap<Ino, Attr>,
    /// Of the root: what a name is, or that it is missing.
    names: BTreeMap<u64, Option<Ino>>,
    /// Sizes that a write lease lets it hold back.
    held: HashMap<Ino, u64>,
    opens: HashSet<Ino>,
    /// Calls that were asked and not answered, by number.
    asked: BTreeMap<u64, Call>,
    /// Those of them that were asked again on a new connection.
    again: HashSet<u64>,
    /// Recalls that came and are not answered: the commits they wait for.
    recalled: VecDeque<(Recall, Option<u64>)>,
}

impl Node {
    fn new(rig: &Rig, node: u64) -> Node {
        Node {
            client: rig.client(node),
            leases: HashMap::new(),
            attrs: HashMap::new(),
            names: BTreeMap::new(),
            held: HashMap::new(),
            opens: HashSet::new(),
            asked: BTreeMap::new(),
            again: HashSet::new(),
            recalled: VecDeque::new(),
        }
    }

    fn ask(&mut self, call: Call) -> u64 {
        self.client.acked_below =
            self.asked.iter().find(|(_, call)| call.changes()).map_or(self.client.next_id, |(id, _)| *id);
        let id = self.client.submit(call.clone());
        self.asked.insert(id, call);
        id
    }

    /// May something be kept on this lease's account, or used?
    fn has(&self, scope: Scope) -> bool {
        self.leases.contains_key(&scope)
    }

    fn is_recalled(&self, scope: Scope) -> bool {
        self.recalled.iter().any(|(recall, _)| recall.scope == scope)
    }

    fn keep_attr(&mut self, attr: &Attr) {
        if self.has(Scope::Inode(attr.ino)) {
            self.attrs.insert(attr.ino, attr.clone());
        }
    }

    fn keep_name(&mut self, n: u64, ino: Option<Ino>) {
        if self.has(Scope::Directory(ROOT)) {
            self.names.insert(n, ino);
        }
    }

    fn took(&mut self, response: Response) {
        let Some(call) = self.asked.remove(&response.id) else {
            panic!("an answer to call {} came twice", response.id)
        };
        for (scope, kind) in &response.grants {
            assert!(!self.is_recalled(*scope), "{scope:?} was granted while it is being recalled");
            self.leases.insert(*scope, *kind);
        }
        let number = |n: &[u8]| u64::from(n[1] - b'0'); // What was done long ago says nothing of now.
        let late = self.again.remove(&response.id) && call.changes();
        match (&call, &response.result) {
            (Call::Create { name, .. } | Call::Unlink { name, .. }, Ok(answer)) if late => {
                self.names.remove(&number(name));
                if let Answer::Attr(attr) = answer {
                    self.keep_attr(attr);
                    if matches!(call, Call::Create { open: true, .. }) {
                        self.opens.insert(attr.ino);
                    }
                }
            }
            (Call::Lookup { name, .. }, Ok(Answer::Attr(attr))) => {
                self.keep_attr(attr);
                self.keep_name(number(name), Some(attr.ino));
            }
            (Call::Lookup { name, .. }, Err(e)) if e.kind() == Kind::NotFound => {
                self.keep_name(number(name), None)
            }
            (Call::Create { name, open, .. }, Ok(Answer::Attr(attr))) => {
                self.keep_attr(attr);
                self.keep_name(number(name), Some(attr.ino));
                if *open {
                    self.opens.insert(attr.ino);
                }
            }
            (Call::Unlink { name, .. }, Ok(Answer::Attr(attr))) => {
                self.keep_attr(attr);
                self.keep_name(number(name), None);
            }
            (Call::Rename { name, to_name, .. }, Ok(Answer::Renamed(lost))) => {
                // Two names of one inode change nothing; what the names are now was not said.
                self.names.remove(&number(name));
                self.names.remove(&number(to_name));
                if let Some(attr) = lost {
                    self.keep_attr(attr);
                }
            }
            (_, Ok(Answer::Attr(attr))) => self.keep_attr(attr),
            (Call::Close { inos }, Ok(_)) => self.opens.retain(|ino| !inos.contains(ino)),
            (_, Err(e)) => assert!(
                matches!(e.kind(), Kind::NotFound | Kind::Stale | Kind::Exists | Kind::Invalid),
                "{call:?}: {e}"
            ),
            _ => {}
        }
        for attr in &response.touched {
            self.keep_attr(attr);
        }
        // What was handed over, or is of a file that is gone, is held back no more.
        if let Call::Commit(commit) = &call
            && self.held.get(&commit.ino) == Some(&commit.size)
        {
            self.held.remove(&commit.ino);
        }
        for (_, waits) in &mut self.recalled {
            if *waits == Some(response.id) {
                *waits = None;
            }
        }
    }

    /// Takes one message, if there is one.
    fn take(&mut self) -> bool {
        match self.client.poll() {
            None => false,
            Some(Outgoing::Response(response)) => {
                self.took(response);
                true
            }
            Some(Outgoing::Recall(recall)) => {
                if self.recalled.iter().all(|(known, _)| known.id != recall.id) {
                    // What is held back is handed over first.
                    let held = match recall.scope {
                        Scope::Inode(ino) => self.held.get(&ino).map(|size| (ino, *size)),
                        Scope::Directory(_) => None,
                    };
                    let waits = held.map(|(ino, size)| self.ask(commit(ino, size)));
                    self.recalled.push_back((recall, waits));
                }
                true
            }
            Some(Outgoing::Ended(e)) => panic!("the session ended: {e}"),
        }
    }

    /// Answers the first recall that waits for no commit.
    fn release(&mut self) {
        let first = |at: usize| {
            let scope = self.recalled[at].0.scope;
            self.recalled.iter().position(|(recall, _)| recall.scope == scope) == Some(at)
        };
        let ready = |at: &usize| self.recalled[*at].1.is_none() && first(*at);
        let Some(at) = (0..self.recalled.len()).find(ready) else { return };
        let Some((recall, _)) = self.recalled.remove(at) else { return };
        let mut open = false;
        match recall.scope {
            Scope::Inode(ino) => {
                assert!(!self.held.contains_key(&ino), "something is held back still");
                open = self.opens.contains(&ino);
                if recall.wanted == LeaseKind::Write {
                    self.attrs.remove(&ino);
                }
            }
            Scope::Directory(_) => self.names.clear(),
        }
        match (recall.wanted, self.leases.get_mut(&recall.scope)) {
            (LeaseKind::Write, _) => drop(self.leases.remove(&recall.scope)),
            (LeaseKind::Read, Some(kind)) => *kind = LeaseKind::Read,
            (LeaseKind::Read, None) => {}
        }
        self.client.connection.released(Released { id: recall.id, open });
    }

    /// The connection breaks, with all that was under way, and another comes.
    fn reconnect(&mut self, rig: &Rig, node: u64) {
        let who = identity("a", &["g"], Rights::ReadWrite);
        let again = hello(node, Some(self.client.greeting.session));
        let (greeting, connection) = rig.service.greet(who, again).unwrap();
        assert!(greeting.resumed);
        self.client.connection = connection;
        // Those that have no answer come again.
        self.recalled.clear();
        self.again = self.asked.keys().copied().collect();
        for (id, call) in &self.asked {
            self.client.again(*id, call.clone());
        }
    }
}

struct World {
    rig: Rig,
    nodes: Vec<Node>,
    random: Random,
    /// Names that were made, by number of tries that were answered with success.
    seed: u64,
}

impl World {
    fn new(seed: u64) -> World {
        let rig = Rig::new();
        let nodes = (1..=3).map(|node| Node::new(&rig, node)).collect();
        World { rig, nodes, random: Random(seed * 2 + 1), seed }
    }

    /// What an inode's size is, wherever it is held back.
    fn true_attr(&self, ino: Ino) -> Option<(u64, u32, u32)> {
        let space = self.space();
        let attr = block_on(space.getattr(ino)).ok()?;
        let holder = self.nodes.iter().find_map(|node| node.held.get(&ino));
        Some((holder.copied().unwrap_or(attr.size), attr.mode, attr.nlink))
    }

    fn space(&self) -> std::sync::Arc<crate::LocalNamespace> {
        self.rig.service.volume().namespace(&"group/g".parse().unwrap()).unwrap()
    }

    fn true_name(&self, n: u64) -> Option<Ino> {
        let name = name(n);
        block_on(self.space().lookup(ROOT, EntryName::new(name.as_bytes()).unwrap()))
            .ok()
            .map(|attr| attr.ino)
    }

    /// All that all nodes keep is true now.
    fn check(&self) {
        let mut writers: HashMap<Ino, usize> = HashMap::new();
        for (i, node) in self.nodes.iter().enumerate() {
            for (ino, attr) in &node.attrs {
                if !node.has(Scope::Inode(*ino)) {
                    continue;
                }
                let size = node.held.get(ino).copied().unwrap_or(attr.size);
                let own_under_way = node.asked.values().any(|call| call.changes());
                if let Some(truth) = self.true_attr(*ino)
                    && !own_under_way
                {
                    assert_eq!(
                        (size, attr.mode, attr.nlink),
                        truth,
                        "seed {}: node {i} is stale about inode {ino}",
                        self.seed
                    );
                }
            }
            if node.has(Scope::Directory(ROOT)) && !node.asked.values().any(|call| call.changes()) {
                for (n, ino) in &node.names {
                    assert_eq!(*ino, self.true_name(*n), "seed {}: node {i} is stale about {n}", self.seed);
                }
            }
            for (scope, kind) in &node.leases {
                if let (Scope::Inode(ino), LeaseKind::Write) = (scope, kind) {
                    let other = writers.insert(*ino, i);
                    assert_eq!(other, None, "seed {}: two nodes may write inode {ino}", self.seed);
                }
            }
            for (scope, _) in node.leases.iter().filter(|(_, kind)| **kind == LeaseKind::Write) {
                for (j, other) in self.nodes.iter().enumerate().filter(|(j, _)| *j != i) {
                    assert!(
                        !other.has(*scope),
                        "seed {}: {i} may write what {j} reads: {scope:?}",
                        self.seed
                    );
                }
            }
        }
    }

    fn step(&mut self) {
        let i = self.random.below(self.nodes.len() as u64) as usize;
        let (n, m) = (self.random.below(NAMES), self.random.below(NAMES));
        let what = self.random.below(40);
        let node = &mut self.nodes[i];
        let mut known: Vec<Ino> = node.names.values().flatten().copied().collect();
        known.extend(node.opens.iter().copied());
        known.sort_unstable();
        let ino = if known.is_empty() { ROOT } else { known[m as usize % known.len()] };
        match what {
            0..=9 => drop(node.take()),
            10..=15 => node.release(),
            16 => node.reconnect(&self.rig, i as u64 + 1),
            _ if node.asked.len() > 6 => drop(node.take()),
            17..=19 => drop(node.ask(lookup(&name(n)))),
            20..=22 => drop(node.ask(create(&name(n), m % 2 == 0))),
            23..=24 => {
                // What is open under a lease is told before its last name goes.
                for ino in node.opens.clone() {
                    node.ask(Call::Open { ino });
                }
                node.ask(unlink(&name(n)));
            }
            25..=26 => {
                for ino in node.opens.clone() {
                    node.ask(Call::Open { ino });
                }
                let (name, to_name) = (name(n).into_bytes().into(), name(m).into_bytes().into());
                let mode = if n % 2 == 0 { RenameMode::Replace } else { RenameMode::Exchange };
                node.ask(Call::Rename { dir: ROOT, name, to_dir: ROOT, to_name, mode });
            }
            27..=28 => drop(node.ask(chmod(ino, 0o600 + n as u32))),
            29..=30 => drop(node.ask(Call::GetAttr { ino })),
            31..=33 => drop(node.ask(Call::Lease { ino })),
            34 => {
                if known.contains(&ino) && node.has(Scope::Inode(ino)) {
                    node.opens.insert(ino);
                }
            }
            35 => {
                if node.opens.remove(&ino) {
                    node.ask(Call::Close { inos: vec![ino] });
                }
            }
            _ => {
                // A write under the lease, held back; not while the lease is being given up, or something is under way.
                let writes = node.leases.get(&Scope::Inode(ino)) == Some(&LeaseKind::Write);
                let busy =
                    node.is_recalled(Scope::Inode(ino)) || node.asked.values().any(|call| call.changes());
                if writes && !busy && node.attrs.contains_key(&ino) && ino != ROOT {
                    let size = self.random.below(1000) + 1;
                    node.held.insert(ino, size);
                }
            }
        }
        self.check();
    }

    /// Everybody answers until nothing is under way: it must come to an end.
    fn settle(&mut self) {
        for _ in 0..100_000 {
            let mut moved = false;
            for node in &mut self.nodes {
                moved |= node.take();
                moved |= !node.recalled.is_empty();
                node.release();
            }
            self.check();
            if !moved && self.nodes.iter().all(|node| node.asked.is_empty()) {
                return;
            }
        }
        panic!(
            "seed {}: calls wait for ever: {:?}",
            self.seed,
            self.nodes.iter().map(|n| &n.asked).collect::<Vec<_>>()
        );
    }
}

#[test]
fn nobody_is_ever_stale_and_nobody_waits_for_ever() {
    let base: u64 = std::env::var("GRANARY_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    for seed in base..base + 60 {
        println!("seed {seed}");
        let mut world = World::new(seed);
        for _ in 0..600 {
            world.step();
        }
        world.settle();
        assert_eq!(world.space().check().unwrap(), []);
        for node in &world.nodes {
            let session = world.rig.service.sessions.find(node.client.greeting.session).unwrap();
            let space = session.granted(node.client.ns).unwrap().space;
            let state = space.lock();
            for (scope, kind) in &node.leases {
                let (Scope::Inode(ino) | Scope::Directory(ino)) = *scope;
                let known = state.leases.holds(session.member, ScopeKey::new(*scope).unwrap());
                // What is gone needs no lease.
                assert!(
                    known == Some(*kind) || world.true_attr(ino).is_none(),
                    "seed {seed}: {scope:?} {known:?}"
                );
            }
            assert_eq!(state.parked(), 0);
        }
    }
}
