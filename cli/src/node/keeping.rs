//! The node's dealings with the keeper of its mounts ([`granary_fuse::keeper`]): it is started when it is missing, is given every
//! mount that can be kept, and is replaced, with all that it had, when it ends.
//!
//! Who starts the node again when that ends: systemd or Kubernetes where they run it, else the keeper, in the way in which it was
//! started. A keeper that a node started ends by itself, some seconds after its last mount.
//!
//! With `keeper = apart` somebody else runs the keeper, and starts it again: the node waits for it, and never starts one. What it
//! started would be in its own container or unit, and end with it.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use granary_core::{Kind, NamespaceId, SessionId};
use granary_fuse::keeper::client::Link;
use granary_fuse::keeper::wire::Word;
use granary_fuse::keeper::{Greeting, Keepsake};
use granary_meta::PackedSource;
use rustix::event::{PollFd, PollFlags, poll};
use serde::{Deserialize, Serialize};

use super::table::Point;
use crate::exit::{Failure, Outcome};
use crate::settings::{Keeper, Settings};
use crate::token_file::Secret;

/// How long a keeper has to answer after it was started, and how often that is tried.
const START_WAIT: Duration = Duration::from_secs(5);
const TRY_INTERVAL: Duration = Duration::from_millis(10);
/// How long a starting node waits for a keeper that somebody else starts: both begin with the machine.
const APART_WAIT: Duration = Duration::from_secs(60);
/// Between tries to replace a keeper that ended.
const REPLACE_INTERVAL: Duration = Duration::from_secs(1);
/// What says that somebody else starts the node again.
const SUPERVISED: [&str; 3] = ["INVOCATION_ID", "NOTIFY_SOCKET", "KUBERNETES_SERVICE_HOST"];

/// How a node is started again.
#[derive(Debug, Serialize, Deserialize)]
pub struct Revival {
    program: PathBuf,
    args: Vec<String>,
    dir: PathBuf,
}

impl Revival {
    fn of_this_process(settings: &Settings) -> Option<Revival> {
        if SUPERVISED.iter().any(|name| std::env::var_os(name).is_some()) {
            return None;
        }
        let ours = |arg: &String| !["--notify", "--replace", "--when-free"].contains(&arg.as_str());
        let mut args: Vec<String> = std::env::args().skip(1).filter(ours).collect();
        if settings.log_file.is_none() {
            // Nobody reads what it would write to standard error.
            args.extend(["--log-file".to_owned(), settings.cache.join("node.log").display().to_string()]);
        }
        Some(Revival { program: program()?, args, dir: std::env::current_dir().ok()? })
    }

    /// For the keeper: starts a node as a Hello said.
    pub fn start(hello: &[u8]) -> std::io::Result<Child> {
        let Revival { program, args, dir } = serde_json::from_slice(hello)?;
        spawn(Command::new(program).args(args).current_dir(dir))
    }
}

/// This program, or what was put in its place since.
fn program() -> Option<PathBuf> {
    let path = std::env::current_exe().ok()?;
    let text = path.to_str()?;
    Some(PathBuf::from(text.strip_suffix(" (deleted)").unwrap_or(text)))
}

/// In a session of its own, so that it does not end with us.
fn spawn(command: &mut Command) -> std::io::Result<Child> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // SAFETY: setsid is async-signal-safe and touches no memory of this process.
    unsafe { command.pre_exec(|| rustix::process::setsid().map(|_| ()).map_err(Into::into)) };
    command.spawn()
}

/// What the next process needs to serve a mount, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kept {
    pub namespace: u32,
    pub path: PathBuf,
    pub mode: String,
    pub read_only: bool,
    /// `never`, `relative` or `strict`.
    pub atime: String,
    pub acl: bool,
    /// The version of a packed data set that is shown.
    pub packed: Option<PackedSource>,
    pub minor: u32,
    pub max_write: u32,
    pub flags: u64,
    pub points: Vec<Point>,
    /// Where the metadata is a service's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<KeptSession>,
}

/// The session with a metadata service that a mount goes through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeptSession {
    pub id: u64,
    /// Its bearer's; `None`: it is the node's own, whose token is in a file. The keeper has it in its memory alone.
    pub token: Option<Secret>,
}

/// The node's own session, if one of these mounts goes through it.
pub(super) fn own_session(entries: &[Entry]) -> Option<SessionId> {
    let kept = entries.iter().filter_map(|entry| serde_json::from_slice::<Kept>(&entry.blob).ok());
    let mut own = kept.filter_map(|kept| kept.session).filter(|session| session.token.is_none());
    own.next().map(|session| SessionId(session.id))
}

impl Kept {
    pub fn greeting(&self) -> Greeting {
        Greeting { minor: self.minor, max_write: self.max_write, flags: self.flags }
    }

    pub fn id(&self) -> NamespaceId {
        NamespaceId(self.namespace)
    }

    fn bytes(&self) -> Outcome<Vec<u8>> {
        serde_json::to_vec(self)
            .map_err(|e| Failure::failed(format!("cannot write what is kept of a mount: {e}")))
    }
}

/// Device numbers in one.
pub(super) fn number((major, minor): (u32, u32)) -> u64 {
    u64::from(major) << 32 | u64::from(minor)
}

/// One mount that is given back.
#[derive(Debug)]
pub(super) struct Entry {
    pub device: (u32, u32),
    pub blob: Vec<u8>,
    pub descriptors: Vec<OwnedFd>,
}

struct Ours {
    kept: Kept,
    descriptors: Vec<OwnedFd>,
}

/// The keeper, as the node sees it.
pub struct Keeping {
    socket: PathBuf,
    who: Keeper,
    hello: Vec<u8>,
    /// Guards the connection: one message and its answer at a time. Held over that, on threads that may block.
    link: Mutex<Option<Link>>,
    /// Guards what the keeper has, for another one; for a look-up or a change.
    ours: Mutex<BTreeMap<u64, Ours>>,
}

/// Where a node's keeper listens.
pub fn socket_of(node: &Path) -> PathBuf {
    let mut name = node.as_os_str().to_owned();
    name.push(".keeper");
    name.into()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Keeping {
    /// Connects, and starts a keeper if there is none, or waits for it. Blocks.
    pub fn start(settings: &Settings, who: Keeper) -> Outcome<Arc<Keeping>> {
        let socket = socket_of(&settings.socket);
        let revival = Revival::of_this_process(settings);
        let hello = revival.map(|revival| serde_json::to_vec(&revival)).transpose();
        let hello = hello.map_err(|e| Failure::failed(format!("cannot tell the keeper: {e}")))?;
        let (link, ours) = (Mutex::new(None), Mutex::default());
        let keeping = Arc::new(Keeping { socket, who, hello: hello.unwrap_or_default(), link, ours });
        if who == Keeper::Apart {
            // Whoever looks while we wait finds the lock free.
            drop(keeping.tried(APART_WAIT)?);
        }
        keeping.connect()?;
        let watching = Arc::downgrade(&keeping);
        let thread = std::thread::Builder::new().name("granary-keeping".to_owned());
        thread
            .spawn(move || {
                while let Some(keeping) = watching.upgrade() {
                    keeping.watch();
                }
            })
            .map_err(|e| Failure::io("cannot start a thread", &e))?;
        Ok(keeping)
    }

    fn connect(&self) -> Outcome<()> {
        let mut slot = lock(&self.link);
        let link = match (Link::connect(&self.socket), self.who) {
            (Ok(link), _) => link,
            (Err(e), Keeper::Apart) => return Err(self.cannot(&e)),
            (Err(_), Keeper::Own) => self.start_one()?,
        };
        link.say(Word::Hello, 0, &self.hello, &[])?;
        *slot = Some(link);
        Ok(())
    }

    fn start_one(&self) -> Outcome<Link> {
        let program = program().ok_or_else(|| Failure::failed("cannot find this program's own file"))?;
        let mut command = Command::new(program);
        command.args(["keeper", "--ends-idle", "--socket"]).arg(&self.socket).current_dir("/");
        let mut child = spawn(&mut command).map_err(|e| self.cannot(&e))?;
        let link = self.tried(START_WAIT)?;
        // Reaped when it ends, should that be before us.
        std::thread::spawn(move || child.wait());
        Ok(link)
    }

    /// Connects as soon as one is there.
    fn tried(&self, wait: Duration) -> Outcome<Link> {
        let mut tries = wait.as_millis() / TRY_INTERVAL.as_millis();
        loop {
            match Link::connect(&self.socket) {
                Ok(link) => return Ok(link),
                Err(e) if tries == 0 => return Err(self.cannot(&e)),
                Err(_) => std::thread::sleep(TRY_INTERVAL),
            }
            tries -= 1;
        }
    }

    fn cannot(&self, e: &std::io::Error) -> Failure {
        let socket = self.socket.display();
        let what = match self.who {
            Keeper::Own => format!("cannot reach the keeper of the mounts at {socket}"),
            Keeper::Apart => format!(
                "no keeper of the mounts answers at {socket}; run `granary keeper --socket {socket}` there, or set keeper to off"
            ),
        };
        Failure::io(what, e)
    }

    fn say(
        &self,
        word: Word,
        mount: u64,
        blob: &[u8],
        descriptors: &[OwnedFd],
    ) -> Outcome<Vec<granary_fuse::keeper::wire::Message>> {
        match &*lock(&self.link) {
            Some(link) => Ok(link.say(word, mount, blob, descriptors)?),
            None => Err(Failure::of_kind(
                Kind::Unavailable,
                "there is no keeper of the mounts now; it is looked for",
            )),
        }
    }

    /// Until the keeper ends; then another one gets what it had.
    fn watch(&self) {
        let watched = lock(&self.link).as_ref().and_then(|link| link.descriptor().try_clone_to_owned().ok());
        let next = match self.who {
            Keeper::Own => "another one is started",
            Keeper::Apart => "another one gets them as soon as it is there",
        };
        if let Some(watched) = watched {
            let mut end = [PollFd::from_borrowed_fd(watched.as_fd(), PollFlags::RDHUP)];
            while let Err(rustix::io::Errno::INTR) = poll(&mut end, None) {}
            tracing::warn!("the keeper of the mounts ended; {next}");
        }
        *lock(&self.link) = None;
        let given = self.connect().and_then(|()| {
            for (mount, ours) in &*lock(&self.ours) {
                self.say(Word::Put, *mount, &ours.kept.bytes()?, &ours.descriptors)?;
            }
            Ok(())
        });
        if let Err(failure) = given {
            tracing::error!("mounts are not kept now: {failure}");
            *lock(&self.link) = None;
            std::thread::sleep(REPLACE_INTERVAL);
        }
    }

    /// Whether there is one now.
    pub fn is_there(&self) -> bool {
        lock(&self.link).is_some()
    }

    /// What was kept of a process that ended. Blocks, as all that follows.
    pub(super) fn all(&self) -> Outcome<Vec<Entry>> {
        let entries = self.say(Word::Get, 0, b"", &[])?.into_iter();
        Ok(entries
            .map(|entry| Entry {
                device: ((entry.mount >> 32) as u32, entry.mount as u32),
                blob: entry.blob,
                descriptors: entry.descriptors,
            })
            .collect())
    }

    pub(super) fn put(&self, kept: Kept, keepsake: Keepsake) -> Outcome<()> {
        let mount = number(keepsake.device);
        self.say(Word::Put, mount, &kept.bytes()?, &keepsake.descriptors)?;
        self.remember(mount, kept, keepsake.descriptors, false)
    }

    /// Of one that the keeper has already, perhaps in other words.
    pub(super) fn remember(
        &self,
        mount: u64,
        kept: Kept,
        descriptors: Vec<OwnedFd>,
        changed: bool,
    ) -> Outcome<()> {
        let bytes = kept.bytes()?;
        lock(&self.ours).insert(mount, Ours { kept, descriptors });
        match changed {
            true => self.say(Word::Note, mount, &bytes, &[]).map(drop),
            false => Ok(()),
        }
    }

    /// How its mountpoints were asked for changed.
    pub(super) fn note(&self, mount: u64, points: &[Point]) -> Outcome<()> {
        self.change(|kept_mount, kept| {
            if kept_mount == mount {
                kept.points = points.to_vec();
            }
        })
    }

    /// A new session took the place of one that ended.
    pub(super) fn note_session(&self, before: SessionId, now: SessionId) -> Outcome<()> {
        self.change(|_, kept| {
            if let Some(session) = kept.session.as_mut().filter(|session| session.id == before.0) {
                session.id = now.0;
            }
        })
    }

    /// The bearer of a session has a newer token.
    pub(super) fn note_token(&self, id: SessionId, token: &Secret) -> Outcome<()> {
        self.change(|_, kept| {
            if let Some(session) = kept.session.as_mut().filter(|session| session.id == id.0) {
                session.token = Some(token.clone());
            }
        })
    }

    /// Tells the keeper of each mount of which something changes.
    fn change(&self, change: impl Fn(u64, &mut Kept)) -> Outcome<()> {
        let mut changed = Vec::new();
        for (mount, ours) in &mut *lock(&self.ours) {
            let before = ours.kept.clone();
            change(*mount, &mut ours.kept);
            if ours.kept != before {
                changed.push((*mount, ours.kept.bytes()?));
            }
        }
        for (mount, bytes) in changed {
            self.say(Word::Note, mount, &bytes, &[])?;
        }
        Ok(())
    }

    /// It ended.
    pub(super) fn remove(&self, mount: u64) {
        if lock(&self.ours).remove(&mount).is_some()
            && let Err(failure) = self.say(Word::Remove, mount, b"", &[])
        {
            tracing::debug!("{failure}"); // the keeper sees it by itself
        }
    }

    /// The node ends on purpose, and is not to be started again.
    pub(super) fn bye(&self) {
        if let Err(failure) = self.say(Word::Bye, 0, b"", &[]) {
            tracing::warn!("{failure}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_back_and_nothing_else() {
        let point = Point {
            dir: "/mnt/a".into(),
            tree: Some("b".into()),
            asked: Some("ro".into()),
            read_only: true,
            owner: Some(7),
            own: false,
        };
        let kept = Kept {
            namespace: 3,
            path: "/mnt/a".into(),
            mode: "work".into(),
            read_only: false,
            atime: "never".into(),
            acl: true,
            packed: None,
            minor: 45,
            max_write: 1 << 20,
            flags: u64::MAX,
            points: vec![point],
            session: None,
        };
        assert!(!String::from_utf8(kept.bytes().unwrap()).unwrap().contains("session"), "older ones read it");
        let token = Some(serde_json::from_str("\"secret\"").unwrap());
        let kept = Kept { session: Some(KeptSession { id: u64::MAX, token }), ..kept };
        assert!(!format!("{kept:?}").contains("secret"));
        let bytes = kept.bytes().unwrap();
        assert_eq!(serde_json::from_slice::<Kept>(&bytes).unwrap(), kept);
        assert!(serde_json::from_slice::<Kept>(&bytes[1..]).is_err());
        assert_eq!(
            (number((1, 2)), socket_of(Path::new("/run/n.sock"))),
            (1 << 32 | 2, "/run/n.sock.keeper".into())
        );
    }
}
