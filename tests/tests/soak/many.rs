//! Nodes that share a namespace through a metadata service: nodes are killed, the service is, and connections are cut.

use std::path::PathBuf;

use granary_tests::{Cluster, Weather, until};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::progress::Progress;
use super::store;
use super::team::Team;
use super::{Lane, SETTINGS};

const NODES: usize = 2;
const THREADS: usize = 2;
const NAMESPACE: &str = "group/team";

pub struct Many {
    cluster: Cluster,
    mounts: Vec<PathBuf>,
    /// One a node.
    teams: Vec<Team>,
    rng: StdRng,
    rounds: u64,
    operations: u64,
}

/// What a round brings, besides cut connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    KillNode(usize),
    KillService,
    StopNode(usize),
    /// The node comes back with nothing but the store.
    WipeNode(usize),
}

impl Many {
    pub fn new(seed: u64) -> Many {
        let cluster = Cluster::with_settings(NODES, &SETTINGS);
        let mounts = cluster.mount("");
        let dirs = |node: usize| (0..THREADS).map(|t| format!("n{node}t{t}")).collect::<Vec<_>>();
        let teams = mounts.iter().enumerate().map(|(node, mnt)| Team::new(mnt, &dirs(node))).collect();
        let rng = StdRng::seed_from_u64(seed ^ 2);
        Many { cluster, mounts, teams, rng, rounds: 0, operations: 0 }
    }

    /// All work until so many operations are done, in the middle of which it happens.
    fn work(&mut self, operations: u64, event: Event, what: &str) {
        let (progress, weather) = (Progress::default(), Weather::default());
        let (cluster, rng) = (&mut self.cluster, &mut self.rng);
        self.teams.iter_mut().for_each(|team| team.seed(rng));
        let failures = std::thread::scope(|scope| {
            let (progress, weather) = (&progress, &weather);
            let threads: Vec<_> = (self.teams.iter_mut().zip(&self.mounts))
                .map(|(team, mnt)| {
                    scope.spawn(move || {
                        let _end = progress.until_dropped();
                        team.work(mnt, weather, progress, operations, |_| {})
                    })
                })
                .collect();
            let middle = rng.random_range(0..operations);
            for at in [middle / 2, middle] {
                if !progress.wait_for(at) {
                    break;
                }
                let proxy = &cluster.proxies[rng.random_range(0..NODES)];
                if at < middle && rng.random() { proxy.cut() } else { proxy.lose_answer() }
            }
            match event {
                Event::KillNode(node) => cluster.nodes[node].kill(),
                Event::KillService => {
                    cluster.service.kill();
                    cluster.service.start();
                }
                _ => {}
            }
            let ended: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
            ended.into_iter().map(|t| t.unwrap_or_else(|e| std::panic::resume_unwind(e))).collect::<Vec<_>>()
        });
        cluster.proxies.iter().for_each(|proxy| proxy.mend());
        self.operations += progress.total();
        for (node, failures) in failures.iter().enumerate() {
            let gone = event == Event::KillNode(node) && failures.iter().all(|f| f.is_gone());
            assert!(gone || failures.is_empty(), "{what}: node {node}: {failures:?}");
        }
    }

    fn start(&mut self, node: usize) {
        self.cluster.nodes[node].start();
        self.cluster.nodes[node].mount(NAMESPACE, "");
    }

    /// Stops a node, and takes its disk away when all is in the store.
    fn wipe(&mut self, node: usize) {
        let mnt = self.mounts[node].to_str().expect("utf-8");
        self.cluster.nodes[node].ok(&["umount", "--drain", mnt]);
        self.cluster.nodes[node].stop();
        self.cluster.nodes[node].empty_cache();
    }

    fn empty_the_trash(&self) {
        let service = &self.cluster.service;
        let admin = service.token("root", &[], "admin");
        let ok = |args: &[&str]| {
            let out = service.as_bearer(&admin, args);
            assert_eq!(out.code, Some(0), "{out:?}");
            out.stdout
        };
        ok(&["ns", "set", NAMESPACE, "--trash", "0"]);
        until("the trash is empty", || {
            let shown = ok(&["ns", "show", NAMESPACE, "--json"]);
            let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
            shown["usage"]["trash_inodes"] == 0
        });
    }

    /// Metadata and store agree, byte by byte.
    fn check(&mut self) {
        for (node, mnt) in self.cluster.nodes.iter_mut().zip(&self.mounts) {
            node.ok(&["umount", "--drain", mnt.to_str().expect("utf-8")]);
            node.stop();
        }
        self.cluster.service.stop();
        println!("{}", self.cluster.service.ok(&["fsck", "--data"]));
        self.cluster.service.start();
        (0..NODES).for_each(|node| self.start(node));
    }

    /// Every node shows what each has done.
    fn compare(&mut self, what: &str) {
        for (node, mnt) in self.mounts.iter().enumerate() {
            self.teams.iter_mut().for_each(|team| team.compare(mnt, &format!("{what}: node {node}")));
        }
    }
}

impl Lane for Many {
    fn round(&mut self) {
        self.rounds += 1;
        let node = self.rng.random_range(0..NODES);
        let event = match self.rng.random_range(0..6) {
            0..2 => Event::KillNode(node),
            2..4 => Event::KillService,
            4 => Event::StopNode(node),
            _ => Event::WipeNode(node),
        };
        let operations = self.rng.random_range(30..400);
        let what = format!("many nodes, round {}: {event:?} within {operations}", self.rounds);
        println!("{what}");
        self.work(operations, event, &what);
        match event {
            Event::KillNode(node) => {
                self.start(node);
                let mnt = &self.mounts[node];
                self.teams[node].recover(mnt, &what);
            }
            Event::KillService => {}
            Event::StopNode(node) => {
                self.cluster.nodes[node].stop();
                self.start(node);
            }
            Event::WipeNode(node) => {
                self.wipe(node);
                self.start(node);
            }
        }
        self.compare(&what);
    }

    fn end(mut self) -> u64 {
        (0..NODES).for_each(|node| self.wipe(node));
        (0..NODES).for_each(|node| self.start(node));
        self.compare("in the end, from the store alone");
        self.check();
        for (team, mnt) in self.teams.drain(..).zip(&self.mounts) {
            team.clear(mnt);
        }
        self.empty_the_trash();
        for (node, mnt) in self.cluster.nodes.iter_mut().zip(&self.mounts) {
            node.ok(&["umount", "--drain", mnt.to_str().expect("utf-8")]);
            node.stop();
        }
        // Sessions of nodes that were killed may have files open without a name, for minutes. A service that starts gives them
        // one lease time, and answers nobody else before.
        self.cluster.service.stop();
        self.cluster.service.start();
        self.start(0);
        self.cluster.nodes[0].stop();
        self.cluster.service.stop();
        let service = &self.cluster.service;
        let url = format!("file://{}", service.path("store").display());
        store::is_empty_after(&url, || service.ok(&["gc", "--delete", "--grace", "0s"]));
        self.operations
    }
}
