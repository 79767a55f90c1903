//! `granary node`, `granary node run`, `granary node stop`.

use crate::args::{NodeArgs, NodeCommand, PlaceFlags};
use crate::client::{Client, block_on};
use crate::exit::{Failure, Outcome};
use crate::node;
use crate::units::show_period_ms;
use crate::wire::StopReply;

pub fn run(args: NodeArgs) -> Outcome<()> {
    match args.command {
        None => foreground(args.notify, || args.flags.sources().resolve()),
        Some(NodeCommand::Run { flags }) => {
            foreground(args.notify, || args.flags.and(flags).sources().resolve())
        }
        Some(NodeCommand::Stop { flags }) => stop(&flags),
    }
}

fn foreground(notify: bool, settings: impl FnOnce() -> Outcome<crate::settings::Settings>) -> Outcome<()> {
    let starter = node::notify::Starter::new(notify);
    let outcome = settings().and_then(|settings| node::run(settings, &starter));
    if let Err(failure) = &outcome {
        starter.failed(failure);
    }
    outcome
}

/// Asks the node to stop, and returns when its process has ended.
fn stop(flags: &PlaceFlags) -> Outcome<()> {
    let settings = flags.sources().resolve()?;
    let client = Client::new(&settings.socket);
    let reply: StopReply = block_on(async { client.post("/v1/stop", &serde_json::json!({})).await })?;
    for busy in &reply.busy {
        eprintln!("granary: {busy}; waiting for up to {}", show_period_ms(reply.wait_ms));
    }
    wait_for_end(reply.pid)
}

fn wait_for_end(pid: u32) -> Outcome<()> {
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
