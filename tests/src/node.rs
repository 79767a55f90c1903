//! One node process and all that belongs to it.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::launcher::start_logged;
use crate::port::Port;
use crate::program::{Output, run, until};

/// Which store a test runs over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// A folder of the test's own.
    Folder,
    /// The S3 server of `GRANARY_TEST_S3_ENDPOINT`, a prefix of the test's own in `GRANARY_TEST_S3_BUCKET`.
    S3,
}

/// A volume, its node process and its mounts.
pub struct Node {
    root: tempfile::TempDir,
    store_url: String,
    child: Option<Child>,
    settings: Vec<(String, String)>,
    /// Those that it listens at.
    ports: Vec<Port>,
}

impl Node {
    /// Makes a volume and starts a node on it.
    pub fn new(store: StoreKind) -> Node {
        Node::with_settings(store, &[])
    }

    /// The same with settings given as `GRANARY_*` variables.
    pub fn with_settings(store: StoreKind, settings: &[(&str, &str)]) -> Node {
        let mut node = Node::unstarted(settings);
        node.store_url = match store {
            StoreKind::Folder => format!("file://{}/store", node.root.path().display()),
            StoreKind::S3 => {
                static COUNT: AtomicU32 = AtomicU32::new(0);
                let bucket = std::env::var("GRANARY_TEST_S3_BUCKET")
                    .expect("GRANARY_TEST_S3_ENDPOINT, GRANARY_TEST_S3_BUCKET and AWS_* name an S3 server; tools/test sets them");
                let n = COUNT.fetch_add(1, Ordering::Relaxed);
                format!(
                    "s3://{bucket}/{}-{n}",
                    node.root.path().file_name().expect("a name").to_string_lossy()
                )
            }
        };
        let url = node.store_url.clone();
        node.ok(&["init", "--store", &url]);
        node.start();
        node
    }

    /// Directories for a node, with nothing in them and no volume of its own.
    pub fn unstarted(settings: &[(&str, &str)]) -> Node {
        assert!(rustix::process::geteuid().is_root(), "system tests mount: run them as root");
        assert!(Path::new("/dev/fuse").exists(), "system tests mount: /dev/fuse is missing (modprobe fuse)");
        // Not tmpfs, which cannot back passthrough's stage files on every kernel.
        let root = tempfile::Builder::new()
            .prefix("granary-test.")
            .tempdir_in("/var/tmp")
            .expect("a directory below /var/tmp");
        let settings = settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Node { root, store_url: String::new(), child: None, settings, ports: Vec::new() }
    }

    /// One more setting, as a variable, for what is started from now on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.settings.push((name.to_owned(), value.to_owned()));
    }

    /// A setting that is an address: it gets a port of its own.
    pub fn set_port(&mut self, name: &str) {
        let port = Port::new();
        self.set(name, &port.address());
        self.ports.push(port);
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub fn store_url(&self) -> &str {
        &self.store_url
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the node runs").id()
    }

    /// A `granary` command with this node's settings.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command
            .args(args)
            .env("GRANARY_META", self.path("meta"))
            .env("GRANARY_CACHE", self.path("cache"))
            .env("GRANARY_SOCKET", self.path("node.sock"))
            // Tests run on machines whose disk others have filled.
            .env("GRANARY_CACHE_FREE_PERCENT_MIN", "0")
            .envs(self.settings.iter().map(|(k, v)| (k, v)));
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        run(&mut self.command(args))
    }

    /// Runs a command that must succeed; returns what it printed.
    pub fn ok(&self, args: &[&str]) -> String {
        let out = self.run(args);
        assert_eq!(out.code, Some(0), "granary {args:?}\n{}\n{}\n{}", out.stdout, out.stderr, self.log());
        out.stdout
    }

    /// Runs a command that must fail and say `part`.
    pub fn fails(&self, args: &[&str], part: &str) {
        let out = self.run(args);
        assert!(out.code.is_some_and(|c| c != 0), "granary {args:?} succeeded: {}", out.stdout);
        assert!(out.stderr.contains(part), "granary {args:?} does not say {part:?} but:\n{}", out.stderr);
        assert!(!out.stderr.contains("panicked"), "{}", out.stderr);
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("node.log")).unwrap_or_default()
    }

    /// Starts the node process and waits until it answers.
    pub fn start(&mut self) {
        self.start_with(&[]);
    }

    /// The same with variables for this start alone.
    pub fn start_with(&mut self, variables: &[(&str, &str)]) {
        assert!(self.child.is_none());
        let mut command = self.command(&["node"]);
        command.envs(variables.iter().copied());
        self.child = Some(start_logged(command, self.path("node.log")));
        until("the node answers", || {
            if let Some(status) = self.child.as_mut().expect("it was started").try_wait().expect("wait") {
                if status.signal() == Some(libc::SIGKILL) && !variables.is_empty() {
                    return true; // at a failpoint, before it was looked at
                }
                panic!(
                    "the node ended with {status}:\n{}",
                    fs::read_to_string(self.root.path().join("node.log")).unwrap_or_default()
                );
            }
            UnixStream::connect(self.root.path().join("node.sock")).is_ok()
        });
    }

    /// Mounts `namespace` at a directory named after it.
    pub fn mount(&self, namespace: &str, options: &str) -> PathBuf {
        let dir = self.path(&format!("mnt-{}", namespace.replace('/', "-")));
        match fs::create_dir(&dir) {
            // It may be there, also as a mount that a killed node left dead.
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => panic!("{}: {e}", dir.display()),
            _ => {}
        }
        self.mount_at(namespace, &dir, options);
        dir
    }

    pub fn mount_at(&self, namespace: &str, dir: &Path, options: &str) {
        let mut args = vec!["mount", namespace, dir.to_str().expect("utf-8")];
        if !options.is_empty() {
            args.extend(["-o", options]);
        }
        self.ok(&args);
    }

    pub fn umount(&self, dir: &Path) {
        self.ok(&["umount", dir.to_str().expect("utf-8")]);
    }

    pub fn sync(&self, dir: &Path) {
        self.ok(&["sync", dir.to_str().expect("utf-8")]);
    }

    pub fn status(&self) -> serde_json::Value {
        serde_json::from_str(&self.ok(&["status", "--json"])).expect("status is JSON")
    }

    /// What the node answers at its socket, head and body.
    pub fn get(&self, path: &str) -> String {
        let mut socket = UnixStream::connect(self.path("node.sock")).expect("the node listens");
        write!(socket, "GET {path} HTTP/1.1\r\nhost: granary\r\nconnection: close\r\n\r\n").expect("ask");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("an answer");
        answer
    }

    /// Ends the node as an administrator would, and waits for it.
    pub fn stop(&mut self) {
        let mut child = self.child.take().expect("the node runs");
        rustix::process::kill_process(pid(&child), rustix::process::Signal::TERM).expect("kill");
        let status = child.wait().expect("wait");
        assert!(status.success(), "the node ended with {status}:\n{}", self.log());
    }

    /// Tells the node to stop, and does not wait.
    pub fn terminate(&mut self) {
        let child = self.child.as_ref().expect("the node runs");
        rustix::process::kill_process(pid(child), rustix::process::Signal::TERM).expect("kill");
    }

    /// Waits for the end of a node that ends by itself.
    pub fn wait(&mut self) -> ExitStatus {
        self.child.take().expect("the node was started").wait().expect("wait")
    }

    /// Waits for a node that was told to stop by itself.
    pub fn stop_ended(&mut self) {
        let status = self.child.take().expect("the node runs").wait().expect("wait");
        assert!(status.success(), "the node ended with {status}:\n{}", self.log());
    }

    /// kill -9: what a crash does.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("the node runs");
        child.kill().expect("kill -9");
        child.wait().expect("wait");
    }

    /// Another process takes this one's place, and its mounts (`keeper = on`).
    pub fn replace(&mut self) {
        let mut before = self.child.take().expect("the node runs");
        self.child = Some(start_logged(self.command(&["node", "--replace"]), self.path("node.log")));
        before.wait().expect("wait");
        until("the next node answers", || {
            let ended = self.child.as_mut().expect("it was started").try_wait().expect("wait");
            assert!(ended.is_none(), "the node ended:\n{}", self.log());
            UnixStream::connect(self.path("node.sock")).is_ok()
        });
    }

    /// What a new machine has: nothing but metadata and store. The node must be stopped.
    pub fn empty_cache(&mut self) {
        assert!(self.child.is_none());
        // The directory itself may be a disk of its own.
        for entry in fs::read_dir(self.path("cache")).expect("the cache directory is there") {
            let path = entry.expect("an entry").path();
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        }
        drop_page_cache();
    }

    /// Stops the node when all of the namespace mounted at `dir` is in the store, and mounts it again, on what is a new machine.
    pub fn come_back_from_the_store(&mut self, dir: &Path, namespace: &str, options: &str) -> PathBuf {
        self.sync(dir);
        self.umount(dir);
        self.stop();
        self.empty_cache();
        self.start();
        self.mount(namespace, options)
    }

    /// Files in the folder store, by name; the volume's marker left out.
    pub fn stored_objects(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut todo = vec![self.path("store").join("ns")];
        while let Some(dir) = todo.pop() {
            for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    todo.push(entry.path());
                } else {
                    found.push(entry.path().to_string_lossy().into_owned());
                }
            }
        }
        found
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of the node ---\n{}", self.log());
        }
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let prefix = self.root.path().to_string_lossy().into_owned();
        for dir in mounts.lines().rev().filter_map(|l| l.split(' ').nth(1)).filter(|d| d.starts_with(&prefix))
        {
            // Best effort: a mount that is gone already is what we want.
            let _ = rustix::mount::unmount(dir, rustix::mount::UnmountFlags::DETACH);
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn pid(child: &Child) -> rustix::process::Pid {
    rustix::process::Pid::from_child(child)
}

/// The binary under test: `GRANARY_BIN`, or the one built beside the tests.
pub(crate) fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("GRANARY_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().expect("the test's own path");
    let path = test.ancestors().nth(2).expect("target folder").join("granary");
    assert!(path.exists(), "{} is missing: build it first (cargo build -p granary)", path.display());
    path
}

/// Makes the kernel forget clean pages and entries.
pub fn drop_page_cache() {
    rustix::fs::sync();
    fs::write("/proc/sys/vm/drop_caches", "3").expect("root may drop caches");
}
