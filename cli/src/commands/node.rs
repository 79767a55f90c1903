//! `granary node`, `granary node run`, `granary node drain`, `granary node stop`, `granary node leave`.

mod stay;

use crate::args::{NodeArgs, NodeCommand, PlaceFlags};
use crate::client::{Client, block_on};
use crate::exit::{Exit, Failure, Outcome};
use crate::node;
use crate::node::place::{Turn, ask_to_leave, wait_for_end};
use crate::output::say;
use crate::progress::Progress;
use crate::units::{parse_period_ms, show_bytes, show_period_ms};
use crate::wire::{DrainReport, DrainRequest, StopReply, SyncLine};

pub fn run(args: NodeArgs) -> Outcome<()> {
    let turn = match (args.replace, args.when_free) {
        (true, _) => Turn::Replace,
        (false, true) => Turn::Wait,
        (false, false) => Turn::Alone,
    };
    match args.command {
        None | Some(NodeCommand::Run { .. }) if args.stay => stay::run(turn),
        None => foreground(args.notify, turn, || args.flags.sources().resolve()),
        Some(NodeCommand::Run { flags }) => {
            foreground(args.notify, turn, || args.flags.and(flags).sources().resolve())
        }
        Some(NodeCommand::Drain { stop, json, wait, flags }) => drain(stop, json, wait.as_deref(), &flags),
        Some(NodeCommand::Stop { flags }) => stop(&flags),
        Some(NodeCommand::Leave { flags }) => ask_to_leave(&flags.sources().resolve()?),
    }
}

fn foreground(
    notify: bool,
    turn: Turn,
    settings: impl FnOnce() -> Outcome<crate::settings::Settings>,
) -> Outcome<()> {
    let starter = node::notify::Starter::new(notify);
    let outcome = settings().and_then(|settings| node::run(settings, turn, &starter));
    if let Err(failure) = &outcome {
        starter.failed(failure);
    }
    outcome
}

/// Empties the node; fails with what is left.
fn drain(and_stop: bool, json: bool, wait: Option<&str>, flags: &PlaceFlags) -> Outcome<()> {
    let wait_ms = wait.map(parse_period_ms).transpose();
    let request = DrainRequest { wait_ms: wait_ms.map_err(|why| Failure::usage(format!("--wait: {why}")))? };
    let settings = flags.sources().resolve()?;
    let client = Client::new(&settings.socket);
    let mut progress = Progress::new("draining");
    let mut report = None;
    block_on(client.follow("/v1/drain", &request, |line| {
        progress.on_line(line);
        if let SyncLine::Drained(drained) = line {
            report = Some(drained.clone());
        }
    }))?;
    drop(progress);
    let report = report
        .ok_or_else(|| Failure::failed("the node did not say what its drain came to; drain it again"))?;
    if json {
        let text = serde_json::to_string_pretty(&report)
            .map_err(|e| Failure::failed(format!("cannot print what is left: {e}")))?;
        super::print(&(text + "\n"))?;
    }
    if !report.clean {
        return Err(left_behind(&report));
    }
    if !json {
        super::print("nothing is on this node that is not in the store\n")?;
    }
    if and_stop { stop(flags) } else { Ok(()) }
}

/// The first reason decides the exit code.
fn left_behind(report: &DrainReport) -> Failure {
    let lines = report.left.iter().map(|left| match left.dirty_files {
        0 => format!("  {}: {}", left.what, left.why),
        files => format!("  {}, {} in {files} files: {}", left.what, show_bytes(left.dirty_bytes), left.why),
    });
    let text = format!(
        "the node is not empty; mend this, and drain it again:\n{}",
        lines.collect::<Vec<_>>().join("\n")
    );
    let exit = report.left.first().map_or(Exit::Failed.code(), |left| left.why.exit);
    Failure { message: text, ..Failure::new(Exit::from_code(exit), "") }
}

/// Asks the node to stop, and returns when its process has ended.
fn stop(flags: &PlaceFlags) -> Outcome<()> {
    let settings = flags.sources().resolve()?;
    let client = Client::new(&settings.socket);
    let reply: StopReply = block_on(async { client.post("/v1/stop", &serde_json::json!({})).await })?;
    for busy in &reply.busy {
        say(format_args!("{busy}; waiting for up to {}", show_period_ms(reply.wait_ms)));
    }
    wait_for_end(reply.pid)
}
