//! PostgreSQL's data directory on a mount, under pgbench: all of PostgreSQL is killed amid it, then the node below it. No
//! transaction that was acknowledged is lost, none is half there, and no index or page is damaged.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use granary_tests::{Node, StoreKind, run, seed, start_logged, until, until_within};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::process::{Pid, Signal, kill_process};

const CLIENTS: u64 = 4;
/// After a kill it first goes through its log, and fsyncs all that it has.
const RECOVERY_MAX: Duration = Duration::from_secs(300);
/// A user that every Debian and Ubuntu has, since PostgreSQL refuses to run as root.
const USER: &str = "nobody";
const UID: u32 = 65_534;

struct Postgres {
    programs: PathBuf,
    data: PathBuf,
    /// For the socket, logs and pgbench's records, on the plain disk.
    scratch: PathBuf,
    server: Option<Child>,
    /// Transactions that were acknowledged to some pgbench.
    acknowledged: u64,
    runs: u32,
}

impl Postgres {
    /// Makes an empty cluster with page checksums, and pgbench's tables in it.
    fn create(data: PathBuf, scratch: PathBuf) -> Postgres {
        let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
            .expect("PostgreSQL is installed (tools/setup test)")
            .map(|e| e.expect("entry").path().join("bin"))
            .filter(|bin| bin.join("postgres").exists())
            .collect();
        versions.sort();
        let programs = versions.pop().expect("PostgreSQL's server is installed (tools/setup test)");
        fs::create_dir(&scratch).expect("mkdir");
        std::os::unix::fs::chown(&scratch, Some(UID), Some(UID)).expect("chown");
        let mut postgres = Postgres { programs, data, scratch, server: None, acknowledged: 0, runs: 0 };
        postgres.ok("initdb", &["--data-checksums", "--auth=trust", "--no-locale", "--encoding=UTF8"]);
        postgres.start();
        postgres.ok("pgbench", &["--initialize", "--quiet", "--scale=1"]);
        postgres.ok("psql", &["-qc", "create extension amcheck"]);
        postgres
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        command
            .args([&format!("--reuid={UID}"), &format!("--regid={UID}"), "--clear-groups"])
            .args(["--pdeathsig", "KILL"])
            .arg(self.programs.join(program))
            .current_dir(&self.scratch)
            .env("PGDATA", &self.data)
            .env("PGHOST", &self.scratch)
            .env("PGUSER", USER)
            .env("PGDATABASE", "postgres");
        command
    }

    fn ok(&self, program: &str, args: &[&str]) -> String {
        let out = run(self.command(program).args(args));
        assert_eq!(out.code, Some(0), "{program} {args:?}\n{}\n{}\n{}", out.stdout, out.stderr, self.log());
        out.stdout
    }

    fn log(&self) -> String {
        fs::read_to_string(self.scratch.join("server.log")).unwrap_or_default()
    }

    fn start(&mut self) {
        let mut command = self.command("postgres");
        command.arg("-k").arg(&self.scratch).args(["-c", "listen_addresses="]);
        // Checkpoints in the middle of it all.
        command.args(["-c", "checkpoint_timeout=30s", "-c", "max_wal_size=32MB", "-c", "wal_recycle=on"]);
        self.server = Some(start_logged(command, self.scratch.join("server.log")));
        until_within("PostgreSQL takes connections", RECOVERY_MAX, || {
            let ended = self.server.as_mut().expect("started").try_wait().expect("wait");
            assert!(ended.is_none(), "PostgreSQL ended with {ended:?}:\n{}", self.log());
            run(&mut self.command("pg_isready")).code == Some(0)
        });
    }

    /// A fast shutdown, which writes a checkpoint.
    fn stop(&mut self) {
        let mut server = self.server.take().expect("it runs");
        kill_process(Pid::from_child(&server), Signal::INT).expect("kill");
        assert!(server.wait().expect("wait").success(), "{}", self.log());
    }

    /// Its processes: all work in the data directory.
    fn processes(&self) -> Vec<Pid> {
        let entries = fs::read_dir("/proc").expect("/proc").flatten();
        let ours = entries.filter(|e| fs::read_link(e.path().join("cwd")).is_ok_and(|cwd| cwd == self.data));
        ours.filter_map(|e| Pid::from_raw(e.file_name().to_str()?.parse().ok()?)).collect()
    }

    /// kill -9 of every process of it.
    fn kill(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        let _ = server.kill();
        until("all of PostgreSQL is gone", || {
            let left = self.processes();
            for &pid in &left {
                // It may have ended by itself meanwhile.
                let _ = kill_process(pid, Signal::KILL);
            }
            let _ = server.try_wait();
            left.is_empty()
        });
        server.wait().expect("wait");
    }

    /// pgbench's own mix of transactions, `each` by each client; a record of each that was acknowledged.
    fn pgbench(&mut self, each: u64) -> Child {
        self.runs += 1;
        let mut command = self.command("pgbench");
        command.arg(format!("--client={}", CLIENTS / 2)).arg(format!("--transactions={each}"));
        command.args(["--no-vacuum", "--log"]).arg(format!("--log-prefix=acknowledged.{}", self.runs));
        start_logged(command, self.scratch.join(format!("pgbench.{}.out", self.runs)))
    }

    /// Runs `disturb` after each client of one pgbench did `moment` transactions, while another goes on; then ends all.
    fn under_load(&mut self, moment: u64, disturb: impl FnOnce(&mut Postgres)) {
        let mut endless = self.pgbench(1_000_000);
        let mut counted = self.pgbench(moment);
        let counted = counted.wait().expect("wait");
        assert!(counted.success(), "pgbench ended with {counted}:\n{}", self.log());
        disturb(self);
        self.kill();
        endless.wait().expect("wait");
        self.acknowledged = 0;
        for entry in fs::read_dir(&self.scratch).expect("readdir") {
            let entry = entry.expect("entry");
            if entry.file_name().to_string_lossy().starts_with("acknowledged.") {
                self.acknowledged += fs::read_to_string(entry.path()).expect("read").lines().count() as u64;
            }
        }
        assert!(self.acknowledged >= moment);
    }

    /// `kills` is how often transactions were cut off, each of which may have been done though nobody was told.
    fn check(&self, kills: u64) {
        let sums = "select (select sum(abalance) from pgbench_accounts), (select sum(tbalance) from pgbench_tellers),
            (select sum(bbalance) from pgbench_branches), (select coalesce(sum(delta), 0) from pgbench_history),
            (select count(*) from pgbench_history), (select count(*) from pgbench_accounts)";
        let line = self.ok("psql", &["-qAtF", " ", "-c", sums]);
        let n: Vec<i64> = line.split_whitespace().map(|n| n.parse().expect("a number")).collect();
        assert!(n[0] == n[1] && n[1] == n[2] && n[2] == n[3], "a transaction is half there: {line}");
        assert_eq!(n[5], 100_000);
        let done = n[4] as u64;
        assert!(done >= self.acknowledged, "{done} transactions of {} acknowledged", self.acknowledged);
        assert!(done <= self.acknowledged + kills * CLIENTS, "{done} transactions of {}", self.acknowledged);
        self.ok("pg_amcheck", &["--heapallindexed", "--parent-check", "--database=postgres"]);
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}

fn open(node: &Node) -> PathBuf {
    let dir = node.mount("user/postgres", "");
    let data = dir.join("data");
    if !data.exists() {
        fs::create_dir(&data).expect("mkdir");
        std::os::unix::fs::chown(&data, Some(UID), Some(UID)).expect("chown");
        for path in [&node.path("."), &dir] {
            fs::set_permissions(path, Permissions::from_mode(0o755)).expect("chmod");
        }
    }
    data
}

#[test]
fn postgresql_loses_nothing_when_it_or_the_node_is_killed() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let settings = [("GRANARY_SMALL_PERIOD_MS", "50"), ("GRANARY_LARGE_PERIOD_MS", "100")];
    let mut node = Node::with_settings(StoreKind::Folder, &settings);
    let data = open(&node);
    let mut postgres = Postgres::create(data, node.path("postgres"));
    for kills in 1..=4 {
        let moment = rng.random_range(10..150);
        if kills % 2 == 1 {
            postgres.under_load(moment, |_| ());
        } else {
            postgres.under_load(moment, |_| node.kill());
            node.start();
            open(&node);
        }
        postgres.start();
        postgres.check(kills);
    }
    postgres.stop();
    postgres.ok("pg_checksums", &["--check"]);
    // And from the store alone.
    let dir: &Path = &node.path("mnt-user-postgres");
    node.sync(dir);
    node.umount(dir);
    node.stop();
    node.empty_cache();
    node.start();
    open(&node);
    postgres.ok("pg_checksums", &["--check"]);
    postgres.start();
    postgres.check(4);
    postgres.stop();
    println!("{} acknowledged transactions over 4 kills, none lost", postgres.acknowledged);
}
