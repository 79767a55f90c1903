//! A volume of its own for each test, in a temporary directory, and the real binary.
#![allow(dead_code)] // each test file uses a part of it
#![allow(clippy::unwrap_used)] // test code, though not inside a #[test] function

pub mod s3;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::JoinHandle;

use granary::client::{Client, block_on};
use granary::exit::{Failure, Outcome};
use granary::node::notify::Notice;
use granary_tests::{Started, apart, start};
use tempfile::TempDir;

pub struct World {
    pub dir: TempDir,
    /// Of every command, beside what names the world.
    env: Vec<(String, String)>,
}

impl World {
    /// Nothing is there yet.
    pub fn empty() -> World {
        World { dir: tempfile::tempdir().unwrap(), env: Vec::new() }
    }

    /// With a volume in a folder.
    pub fn with_volume() -> World {
        World::empty().initialised()
    }

    /// Below `/mnt`, in directories that only root can change: where users may have mountpoints.
    pub fn for_mounts() -> World {
        let dir = tempfile::Builder::new().prefix("granary-test.").tempdir_in("/mnt").unwrap();
        World { dir, env: Vec::new() }.initialised()
    }

    /// All of its commands, and so its node, reach this bucket.
    pub fn with_bucket(mut self, bucket: &s3::S3) -> World {
        self.env = bucket.env().into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        self
    }

    fn initialised(self) -> World {
        self.run(&["init", "--store", &self.store_url()]).unwrap_ok();
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn meta(&self) -> PathBuf {
        self.path("meta")
    }

    pub fn store_url(&self) -> String {
        format!("file://{}", self.path("store").display())
    }

    /// The binary, told of this world by variables, and of nothing else.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_granary"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("GRANARY_") || name.to_string_lossy().starts_with("AWS_") {
                command.env_remove(name);
            }
        }
        std::fs::write(self.path("granary.toml"), "").unwrap();
        command
            .args(args)
            .env("GRANARY_CONFIG", self.path("granary.toml"))
            .env("GRANARY_META", self.meta())
            .env("GRANARY_CACHE", self.path("cache"))
            .env("GRANARY_SOCKET", self.path("node.sock"))
            // Tests run on machines whose disk others have filled.
            .env("GRANARY_CACHE_FREE_PERCENT_MIN", "0")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        Ran::of(&mut self.command(args))
    }

    /// A command that runs beside the test.
    pub fn begin(&self, args: &[&str]) -> Started {
        let mut command = self.command(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        start(command)
    }

    pub fn run_with(&self, args: &[&str], env: &[(&str, &str)]) -> Ran {
        Ran::of(self.command(args).envs(env.iter().copied()))
    }

    /// A node that serves.
    pub fn node(&self) -> Node {
        self.try_node(&[]).unwrap_or_else(|ran| panic!("the node did not start: {}", ran.err))
    }

    pub fn try_node(&self, args: &[&str]) -> Result<Node, Ran> {
        let mut all = vec!["node", "--notify"];
        all.extend(args);
        let mut node = self.begin(&all);
        let mut line = String::new();
        let mut out = BufReader::new(node.output.take().unwrap());
        out.read_line(&mut line).unwrap();
        match serde_json::from_str::<Notice>(&line) {
            Ok(Notice::Ready) => Ok(Node { child: node.child, errors: node.errors }),
            Ok(Notice::Failed(failure)) => {
                let ran = Ran::from(node.finish().unwrap());
                assert_eq!(ran.code, i32::from(failure.exit));
                assert!(
                    ran.err.contains(&failure.message),
                    "{:?} is not told on stderr: {}",
                    failure.message,
                    ran.err
                );
                Err(ran)
            }
            Ok(Notice::Recovering(_)) | Err(_) => {
                panic!("{line:?}: {}", Ran::from(node.finish().unwrap()).err)
            }
        }
    }

    pub fn client(&self) -> Client {
        Client::new(&self.path("node.sock"))
    }

    /// What the node answers to this body.
    pub fn post(&self, path: &str, body: serde_json::Value) -> Outcome<serde_json::Value> {
        block_on(self.client().post(path, &body))
    }

    pub fn refusal(&self, path: &str, body: serde_json::Value) -> Failure {
        self.post(path, body).expect_err("the node should have refused this")
    }
}

impl Drop for World {
    /// A node that a mount started is nobody's child: it must not outlive a test that failed.
    fn drop(&mut self) {
        if exists(&self.path("node.sock")) {
            self.run(&["node", "stop"]);
        }
    }
}

/// A running node; killed if the test forgets it.
pub struct Node {
    child: Child,
    errors: Option<File>,
}

impl Node {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for its end.
    pub fn ended(mut self) -> Ran {
        let mut err = String::new();
        self.errors.take().unwrap().read_to_string(&mut err).unwrap();
        let status = self.child.wait().unwrap();
        Ran { code: status.code().unwrap_or(-1), out: String::new(), err }
    }

    pub fn stop(self) -> Ran {
        self.signal(rustix::process::Signal::TERM);
        self.ended()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a command ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Ran {
        Ran {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ran {
    pub fn of(command: &mut Command) -> Ran {
        apart(|| command.output()).expect("cannot start the binary").into()
    }

    #[track_caller]
    pub fn unwrap_ok(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self.out
    }

    /// It failed with this code, and its message has all these parts.
    #[track_caller]
    pub fn refused(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        for part in parts {
            assert!(self.err.contains(part), "{part:?} is not in: {}", self.err);
        }
        assert!(!self.err.contains("panicked"), "{}", self.err);
    }
}

/// A user of the system who is not root; with it, tests need root, as all that mount do.
pub fn daemon() -> granary::users::User {
    granary::users::by_login("daemon").unwrap()
}

/// Runs the binary as that user, from where it can be reached: the build's folder may be closed to others.
pub fn as_daemon(world: &World, args: &[&str]) -> Ran {
    use std::os::unix::process::CommandExt;
    let binary = world.path("granary");
    if !binary.exists() {
        let built = env!("CARGO_BIN_EXE_granary");
        std::fs::hard_link(built, &binary).or_else(|_| std::fs::copy(built, &binary).map(drop)).unwrap();
    }
    let command = world.command(args);
    let mut theirs = Command::new(binary);
    theirs.args(command.get_args()).uid(daemon().uid).gid(daemon().gid);
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => theirs.env(name, value),
            None => theirs.env_remove(name),
        };
    }
    Ran::of(&mut theirs)
}

/// Lets that user reach the world's socket and settings.
pub fn open_to_daemon(world: &World) {
    use std::os::unix::fs::PermissionsExt;
    world.command(&[]); // writes the settings file
    for path in [world.dir.path().to_owned(), world.path("granary.toml")] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// An S3 server that answers each request by what this says of its method: a status and an error code.
pub struct CannedS3 {
    pub url: String,
    _thread: JoinHandle<()>,
}

impl CannedS3 {
    pub fn new(answer: impl Fn(&str) -> (u16, &'static str) + Send + Sync + 'static) -> CannedS3 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answer = std::sync::Arc::new(answer);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let answer = answer.clone();
                std::thread::spawn(move || while serve_one(&mut stream, &*answer).is_some() {});
            }
        });
        CannedS3 { url, _thread: thread }
    }

    pub fn env(&self) -> Vec<(&str, &str)> {
        vec![
            ("AWS_ENDPOINT_URL", self.url.as_str()),
            ("AWS_ACCESS_KEY_ID", "canned"),
            ("AWS_SECRET_ACCESS_KEY", "canned"),
            ("AWS_REGION", "us-east-1"),
            ("GRANARY_RETRY_MS_MAX", "50"),
        ]
    }
}

fn serve_one(stream: &mut std::net::TcpStream, answer: &dyn Fn(&str) -> (u16, &'static str)) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let (mut line, mut length) = (String::new(), 0);
    reader.read_line(&mut line).ok()?;
    let method = line.split(' ').next().filter(|m| !m.is_empty())?.to_owned();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        if header.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok()?;
        }
    }
    std::io::copy(&mut reader.take(length), &mut std::io::sink()).ok()?;
    let (status, code) = answer(&method);
    let list = "<ListBucketResult><Name>b</Name><KeyCount>0</KeyCount><MaxKeys>1</MaxKeys>\
                <IsTruncated>false</IsTruncated></ListBucketResult>";
    let body = match (status, method.as_str()) {
        (_, "HEAD") => String::new(),
        (200, _) => list.to_owned(),
        _ => format!("<Error><Code>{code}</Code><Message>canned</Message></Error>"),
    };
    write!(
        stream,
        "HTTP/1.1 {status} Canned\r\ncontent-type: application/xml\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .ok()
}

/// A mountpoint, or a directory for one. What is mounted there is detached when the test ends, however it does.
pub struct Mountpoint(pub PathBuf);

impl Mountpoint {
    pub fn new(world: &World, name: &str) -> Mountpoint {
        let path = world.path(name);
        std::fs::create_dir(&path).unwrap();
        Mountpoint(path)
    }

    pub fn text(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Mountpoint {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

/// Whether a path is there.
pub fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
