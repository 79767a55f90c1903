//! A real metadata service with its own volume, keys and tokens, and nodes that work through it.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};

use tempfile::TempDir;

use crate::launcher::start_logged;
use crate::node::binary;
use crate::port::Port;
use crate::{Node, Output, run, until};

/// `granary meta serve` over a folder store. Killed when dropped.
pub struct Service {
    root: TempDir,
    port: Port,
    child: Option<Child>,
    /// More settings of the service, as variables.
    settings: Vec<(String, String)>,
    scheme: &'static str,
}

impl Service {
    pub fn new() -> Service {
        Service::with(&[])
    }

    /// With more settings, as variables.
    pub fn with(settings: &[(&str, &str)]) -> Service {
        let root =
            tempfile::Builder::new().prefix("granary-service.").tempdir().expect("temporary directory");
        let mut service = Service {
            root,
            port: Port::new(),
            child: None,
            settings: settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            scheme: if settings.iter().any(|(k, _)| *k == "GRANARY_TLS_CERT") { "https" } else { "http" },
        };
        let store = format!("file://{}", service.path("store").display());
        service.ok(&["init", "--store", &store]);
        let key = service.path("granary.key").display().to_string();
        service.ok(&["token", "key", "--key", &key]);
        service.start();
        service
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub fn port(&self) -> u16 {
        self.port.number()
    }

    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.port.address())
    }

    pub fn audit_log(&self) -> String {
        fs::read_to_string(self.path("audit.log")).unwrap_or_default()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("service.log")).unwrap_or_default()
    }

    /// A command on the service's own machine: its folder, its key.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command
            .args(args)
            .env("GRANARY_META", self.path("meta"))
            .env("GRANARY_CACHE", self.path("cache"))
            .env("GRANARY_SOCKET", self.path("none.sock"))
            .env("GRANARY_LISTEN", self.port.address())
            .env("GRANARY_TRUST", self.path("granary.key.pub"))
            .env("GRANARY_AUDIT_LOG", self.path("audit.log"))
            .envs(self.settings.iter().map(|(k, v)| (k, v)));
        command
    }

    pub fn ok(&self, args: &[&str]) -> String {
        let out = run(&mut self.command(args));
        assert_eq!(out.code, Some(0), "granary {args:?}\n{}\n{}\n{}", out.stdout, out.stderr, self.log());
        out.stdout
    }

    /// A command of somebody who has this token and knows the service's address.
    pub fn as_bearer(&self, token: &str, args: &[&str]) -> Output {
        let file = self.path("bearer.token");
        fs::write(&file, token).expect("write");
        let mut command = self.command(args);
        command.env("GRANARY_META", self.url()).env("GRANARY_TOKEN_FILE", file);
        run(&mut command)
    }

    /// A token, signed by the key that the service trusts.
    pub fn token(&self, user: &str, groups: &[&str], rights: &str) -> String {
        self.token_for(user, groups, rights, "1h")
    }

    pub fn token_for(&self, user: &str, groups: &[&str], rights: &str, ttl: &str) -> String {
        let key = self.path("granary.key").display().to_string();
        let mut args =
            vec!["token", "issue", "--user", user, "--rights", rights, "--ttl", ttl, "--key", &key];
        for group in groups {
            args.extend(["--group", group]);
        }
        self.ok(&args).trim().to_owned()
    }

    /// Starts the process and waits until it serves.
    pub fn start(&mut self) {
        assert!(self.child.is_none());
        // Counted first: it may serve before the next instruction here.
        let before = self.log().matches("serving the metadata").count();
        let child = start_logged(self.command(&["meta", "serve"]), self.path("service.log"));
        self.child = Some(child);
        until("the service serves", || {
            if let Some(status) = self.child.as_mut().expect("it was started").try_wait().expect("wait") {
                panic!("the service ended with {status}:\n{}", self.log());
            }
            self.log().matches("serving the metadata").count() > before
        });
    }

    /// kill -9.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("the service runs");
        child.kill().expect("kill -9");
        child.wait().expect("wait");
    }

    /// Ends it as an administrator would, and waits for it.
    pub fn stop(&mut self) {
        let mut child = self.child.take().expect("the service runs");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("kill");
        let status = child.wait().expect("wait");
        assert!(status.success(), "the service ended with {status}:\n{}", self.log());
    }

    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().expect("wait").is_none())
    }

    /// A node of its own directories that works through this service, by this token.
    pub fn node(&self, token: &str) -> Node {
        self.node_with(token, &[])
    }

    pub fn node_with(&self, token: &str, settings: &[(&str, &str)]) -> Node {
        let mut node = Node::unstarted(settings);
        fs::write(node.path("node.token"), token).expect("write");
        let file = node.path("node.token").display().to_string();
        node.set("GRANARY_META", &self.url());
        node.set("GRANARY_TOKEN_FILE", &file);
        node.start();
        node
    }
}

impl Default for Service {
    fn default() -> Service {
        Service::new()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of the service ---\n{}\n{}", self.log(), self.audit_log());
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
