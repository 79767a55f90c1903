//! Starting a node in the background, for the first `granary mount`: this program again, as a session of its own. It is
//! waited for until it serves; when it cannot, its own message is told.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{ChildStdout, Command, Stdio};
use std::time::Duration;

use granary_core::Kind;
use tokio::sync::mpsc;

use crate::args::NodeFlags;
use crate::client::Client;
use crate::exit::{Failure, Outcome, plain};
use crate::node::notify::Notice;
use crate::progress::{Steps, describe_recovery};
use crate::settings::{Settings, Unit, dashed, find};

/// How long a node may say nothing while it starts; it goes on when nobody waits any more.
const READY_WAIT: Duration = Duration::from_secs(120);
/// How often a socket is tried, while another command's node is starting.
const TRY_INTERVAL: Duration = Duration::from_millis(50);

/// The node at the socket of these settings, started if there is none. `flags` are those the settings were made of.
pub async fn node(settings: &Settings, flags: &NodeFlags) -> Outcome<Client> {
    let client = Client::new(&settings.socket);
    if client.is_there().await? {
        return Ok(client);
    }
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::of_kind(
            Kind::Permission,
            format!(
                "no node is running at {}, and only root can start one that mounts; run `sudo granary node`, or this \
                 command with sudo",
                settings.socket.display()
            ),
        ));
    }
    match start(settings, flags).await {
        Ok(()) => Ok(client),
        // Another command was faster: its node is ours too, once it serves at this socket.
        Err(failure) if failure.is(Kind::Busy) => {
            let wait = async {
                while !client.is_there().await? {
                    tokio::time::sleep(TRY_INTERVAL).await;
                }
                Ok(())
            };
            match tokio::time::timeout(Duration::from_secs(10), wait).await {
                Ok(outcome) => outcome.map(|()| client),
                Err(_) => Err(failure),
            }
        }
        Err(failure) => Err(failure),
    }
}

async fn start(settings: &Settings, flags: &NodeFlags) -> Outcome<()> {
    let mut child =
        command(settings, flags)?.spawn().map_err(|e| Failure::io("cannot start the node process", &e))?;
    let Some(out) = child.stdout.take() else {
        return Err(Failure::failed("the node process was started without a pipe to tell by"));
    };
    let (tell, mut told) = mpsc::channel(4);
    tokio::task::spawn_blocking(move || read_notices(out, &tell));
    let log = settings.cache.join("node.log");
    let steps = Steps::new();
    // While it tells how far it is, it is waited for.
    let last = loop {
        match tokio::time::timeout(READY_WAIT, told.recv()).await {
            Ok(Some(Notice::Recovering(line))) => {
                steps.on_line(&describe_recovery(&line), line.bytes, line.bytes_total);
            }
            last => break last,
        }
    };
    drop(steps);
    match last {
        Err(_) => Err(Failure::of_kind(
            Kind::Unavailable,
            format!(
                "the node (pid {}) is still starting after {} s; see {}, and try again",
                child.id(),
                READY_WAIT.as_secs(),
                log.display()
            ),
        )),
        Ok(Some(Notice::Ready)) => Ok(()),
        Ok(Some(Notice::Failed(failure))) => {
            let _ = child.wait(); // it is ending
            Err(failure)
        }
        Ok(_) => {
            let how = child.wait().map_or_else(|e| plain(&e), |status| status.to_string());
            Err(Failure::failed(format!(
                "the node process ended before it was ready ({how}); see {}",
                log.display()
            )))
        }
    }
}

/// Until the last, or what is none.
fn read_notices(out: ChildStdout, tell: &mpsc::Sender<Notice>) {
    for line in BufReader::new(out).lines() {
        let Some(notice) = line.ok().and_then(|line| serde_json::from_str(&line).ok()) else { return };
        let more = matches!(notice, Notice::Recovering(_));
        if tell.blocking_send(notice).is_err() || !more {
            return;
        }
    }
}

fn command(settings: &Settings, flags: &NodeFlags) -> Outcome<Command> {
    let program =
        std::env::current_exe().map_err(|e| Failure::io("cannot find this program's own file", &e))?;
    let mut command = Command::new(program);
    command.args(["node", "--notify"]);
    // The node's working directory is the root, so that it keeps no mount busy: paths go as they were resolved here.
    command.arg("--meta").arg(settings.meta.to_string());
    for (name, path) in [("cache", &settings.cache), ("socket", &settings.socket)] {
        command.arg(format!("--{name}")).arg(path);
    }
    if let Some(path) = flags.sources().config_file() {
        let path = std::path::absolute(&path)
            .map_err(|e| Failure::io(format!("cannot find the settings file {}", path.display()), &e))?;
        command.arg("--config").arg(path);
    }
    for (name, value) in &flags.given {
        if ["meta", "cache", "socket", "log_file"].contains(&name.as_str()) {
            continue;
        }
        let flag = format!("--{}", dashed(name));
        if find(name).is_some_and(|s| s.unit == Unit::Path) {
            let path = std::path::absolute(value)
                .map_err(|e| Failure::io(format!("cannot use the path {value:?} of {flag}"), &e))?;
            command.arg(flag).arg(path);
        } else {
            command.arg(flag).arg(value);
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).current_dir("/").env_remove("NOTIFY_SOCKET");
    if stderr_is_journal() {
        command.stderr(Stdio::inherit());
    } else {
        let log = settings.log_file.clone().unwrap_or_else(|| settings.cache.join("node.log"));
        command.arg("--log-file").arg(log).stderr(Stdio::null());
    }
    // SAFETY: setsid is async-signal-safe and touches no memory of this process.
    unsafe { command.pre_exec(|| rustix::process::setsid().map(|_| ()).map_err(Into::into)) };
    Ok(command)
}

/// Whether our standard error goes to systemd's journal: it says so by device and inode.
fn stderr_is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let Ok(stat) = rustix::fs::fstat(rustix::stdio::stderr()) else { return false };
    stream == format!("{}:{}", stat.st_dev, stat.st_ino)
}
