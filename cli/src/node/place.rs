//! A node's place is the cache directory, which one process alone has. How a starting node comes by it.

use std::time::Duration;

use granary_core::Kind;

use super::lock::CacheLock;
use crate::client::{Client, block_on};
use crate::exit::{Failure, Outcome};
use crate::settings::Settings;
use crate::wire::StopReply;

/// How long one that does not listen may have the place before it is named, and how often that is tried: it starts, or is ending.
const REPLACE_WAIT: Duration = Duration::from_secs(10);
const TRY_INTERVAL: Duration = Duration::from_millis(10);
/// How long one that cannot leave now is asked again: its metadata service may be replaced, too.
const SERVICE_WAIT: Duration = Duration::from_secs(120);
const ASK_INTERVAL: Duration = Duration::from_millis(100);

/// What is done about a node that has the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It is named in an error.
    Alone,
    /// It is told to leave its mounts to us.
    Replace,
    /// Its end is waited for.
    Wait,
}

/// The place, once it is ours. Blocks.
pub fn take(settings: &Settings, turn: Turn) -> Outcome<CacheLock> {
    match turn {
        Turn::Alone => CacheLock::acquire(&settings.cache),
        Turn::Replace => replace(settings),
        Turn::Wait => CacheLock::wait(&settings.cache),
    }
}

/// Also from one that waited and was faster than we were, when the one before it left.
fn replace(settings: &Settings) -> Outcome<CacheLock> {
    let mut tries = REPLACE_WAIT.as_millis() / TRY_INTERVAL.as_millis();
    let mut asks = SERVICE_WAIT.as_millis() / ASK_INTERVAL.as_millis();
    loop {
        match ask_to_leave(settings) {
            Err(failure) if failure.is(Kind::Unavailable) && asks > 0 => {
                asks -= 1;
                std::thread::sleep(ASK_INTERVAL);
                continue;
            }
            asked => asked?,
        }
        match CacheLock::acquire(&settings.cache) {
            Err(failure) if failure.is(Kind::Busy) && tries > 0 => std::thread::sleep(TRY_INTERVAL),
            other => return other,
        }
        tries -= 1;
    }
}

/// Has the node that runs end, and leave its mounts. None is fine.
pub fn ask_to_leave(settings: &Settings) -> Outcome<()> {
    let client = Client::new(&settings.socket);
    let reply: Option<StopReply> = block_on(async {
        if !client.is_there().await? {
            return Ok(None);
        }
        match client.post("/v1/leave", &serde_json::json!({})).await {
            // It ended by itself meanwhile.
            Err(_) if !client.is_there().await? => Ok(None),
            other => other.map(Some),
        }
    })?;
    reply.map_or(Ok(()), |reply| wait_for_end(reply.pid))
}

/// Until a node's process has ended, with all that it had open.
pub fn wait_for_end(pid: u32) -> Outcome<()> {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw)
        .ok_or_else(|| Failure::failed("the node told a process number that cannot be"))?;
    let process = match rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) {
        Ok(fd) => fd,
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(e) => return Err(Failure::io("cannot wait for the node's end", &e.into())),
    };
    let mut wanted = [rustix::event::PollFd::new(&process, rustix::event::PollFlags::IN)];
    loop {
        match rustix::event::poll(&mut wanted, None) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(Failure::io("cannot wait for the node's end", &e.into())),
        }
    }
}
