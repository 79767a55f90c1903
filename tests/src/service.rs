//! A metadata service process with a volume of its own.

use std::fs::{self, OpenOptions};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::node::{binary, free_port, own_directory};
use crate::program::{run, until};

/// `granary meta serve` on loopback, with the key that signs tokens for it.
pub struct Service {
    root: tempfile::TempDir,
    port: u16,
    child: Option<Child>,
    settings: Vec<(String, String)>,
}

impl Service {
    /// Makes a volume over a folder and serves it.
    pub fn new(settings: &[(&str, &str)]) -> Service {
        let settings = settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut service = Service { root: own_directory(), port: free_port(), child: None, settings };
        let store = service.store_url();
        service.ok(&["init", "--store", &store]);
        let key = service.path("key").display().to_string();
        service.ok(&["token", "key", "--key", &key]);
        service.token("root", &[], "admin");
        service.ok(&["ns", "create", "group/team", "--owner", "0", "--group", "0"]);
        service.start();
        service
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub fn store_url(&self) -> String {
        format!("file://{}/store", self.root.path().display())
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the service runs").id()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("service.log")).unwrap_or_default()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command
            .args(args)
            .env("GRANARY_META", self.path("meta"))
            .env("GRANARY_CACHE", self.path("cache"))
            .env("GRANARY_SOCKET", self.path("node.sock"))
            .envs(self.settings.iter().map(|(k, v)| (k, v)));
        command
    }

    fn ok(&self, args: &[&str]) -> String {
        let out = run(&mut self.command(args));
        assert_eq!(out.code, Some(0), "granary {args:?}\n{}\n{}\n{}", out.stdout, out.stderr, self.log());
        out.stdout
    }

    /// What an administrator asks the running service: `meta status`, `meta sessions`, `token revoke`.
    pub fn admin(&self, args: &[&str]) -> String {
        let (url, token) = (self.url(), self.path("root.admin.token").display().to_string());
        self.ok(&[args, &["--meta", &url, "--token-file", &token]].concat())
    }

    /// A file with a token for `user` and groups: `read-only`, `read-write` or `admin`.
    pub fn token(&self, user: &str, groups: &[&str], rights: &str) -> PathBuf {
        let key = self.path("key").display().to_string();
        let mut args =
            vec!["token", "issue", "--user", user, "--rights", rights, "--ttl", "1d", "--key", &key];
        groups.iter().for_each(|group| args.extend(["--group", *group]));
        let file = self.path(&format!("{user}.{rights}.token"));
        fs::write(&file, self.ok(&args)).expect("write");
        file
    }

    /// Starts the process and waits until it takes connections.
    pub fn start(&mut self) {
        assert!(self.child.is_none());
        let file = self.path("service.log");
        let log = OpenOptions::new().create(true).append(true).open(file).expect("log file");
        let (listen, trust) = (self.address(), self.path("key.pub").display().to_string());
        let mut command = self.command(&["meta", "serve", "--listen", &listen, "--trust", &trust]);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("dup")).stderr(log);
        self.child = Some(command.spawn().expect("the granary binary starts"));
        until("the service listens", || {
            let ended = self.child.as_mut().expect("it was started").try_wait().expect("wait");
            assert!(ended.is_none(), "the service ended with {ended:?}:\n{}", self.log());
            TcpStream::connect(self.address()).is_ok()
        });
    }

    /// SIGTERM, and waits for its end.
    pub fn stop(&mut self) {
        let mut child = self.child.take().expect("the service runs");
        kill_process(Pid::from_child(&child), Signal::TERM).expect("kill");
        let status = child.wait().expect("wait");
        assert!(status.success(), "the service ended with {status}:\n{}", self.log());
    }

    /// kill -9.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("the service runs");
        child.kill().expect("kill -9");
        child.wait().expect("wait");
    }

    /// Objects in the folder store, below a namespace's id.
    pub fn store(&self) -> PathBuf {
        Path::new(self.root.path()).join("store")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of the service ---\n{}", self.log());
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
