//! `granary node --stay`: for who starts again whatever ends, as kubelet does with containers. There a node that was replaced would come
//! back, and replace the one that replaced it. So the node runs as a process below this one, which stays when that ends:
//!
//! | the node | what follows |
//! |---|---|
//! | ended well: it was replaced, or stopped | the next one is started; it waits until nobody else has the place ([`Turn::Wait`]) |
//! | ended badly | this process ends as it did, and whoever started us sees it |
//! | is told to end by a signal to this process | it leaves its mounts where all are kept, else stops cleanly; this process ends with it |
//!
//! So two of these take turns: the newer one serves, and when it ends the older one does, at once. No other process of the node's
//! outlives this one: the kernel kills it.

use std::process::ExitStatus;

use rustix::process::{Pid, Signal};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use crate::client::block_on;
use crate::exit::{Exit, Failure, Outcome};
use crate::node::place::Turn;
use crate::output::say;

/// Flags that say what is done the first time, or by this process.
const OURS: [&str; 3] = ["--stay", "--replace", "--when-free"];

pub fn run(first: Turn) -> Outcome<()> {
    block_on(async {
        let mut told = Told::watch()?;
        let mut turn = first;
        loop {
            let mut node = start(turn)?;
            if attend(&mut node, &mut told).await? {
                return Ok(());
            }
            say(
                "the node ended, and this process stays: the next one starts as soon as no other has its place",
            );
            turn = Turn::Wait;
        }
    })
}

/// Until it ended well: whether that was what we were told to do.
async fn attend(node: &mut Child, told: &mut Told) -> Outcome<bool> {
    let mut times = 0;
    loop {
        tokio::select! {
            ended = node.wait() => {
                let ended = ended.map_err(|e| Failure::io("cannot wait for the node's process", &e))?;
                return judge(ended, times > 0);
            }
            () = told.again() => {
                times += 1;
                // The first time it leaves, or stops; the second time it waits for nobody.
                pass_on(node, if times == 1 { Signal::USR2 } else { Signal::TERM })?;
            }
        }
    }
}

fn judge(ended: ExitStatus, told: bool) -> Outcome<bool> {
    use std::os::unix::process::ExitStatusExt;
    match (ended.code(), ended.signal()) {
        (Some(0), _) => Ok(told),
        // It did not yet look at signals, and had nothing to leave.
        (_, Some(signal)) if told && (signal == Signal::USR2.as_raw() || signal == Signal::TERM.as_raw()) => {
            Ok(true)
        }
        (Some(code), _) => Err(Failure::new(
            Exit::from_code(u8::try_from(code).unwrap_or(1)),
            format!("the node ended with code {code}; its last lines say why"),
        )),
        (None, signal) => Err(Failure::failed(format!(
            "the node was killed by signal {}",
            signal.map_or_else(|| "?".to_owned(), |signal| signal.to_string())
        ))),
    }
}

/// This program again, with the same settings.
fn start(turn: Turn) -> Outcome<Child> {
    let cannot = |e: &std::io::Error| Failure::io("cannot start the node's process", e);
    let program = std::env::current_exe().map_err(|e| cannot(&e))?;
    let mut command = Command::new(program);
    command.args(args(std::env::args().skip(1), turn));
    let parent = rustix::process::getpid();
    // SAFETY: prctl and getppid are async-signal-safe and touch no memory of this process.
    unsafe {
        command.pre_exec(move || {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            match rustix::process::getppid() == Some(parent) {
                true => Ok(()),
                false => Err(rustix::io::Errno::SRCH.into()), // we ended before that
            }
        })
    };
    command.spawn().map_err(|e| cannot(&e))
}

fn args(given: impl Iterator<Item = String>, turn: Turn) -> Vec<String> {
    let mut args: Vec<String> = given.filter(|arg| !OURS.contains(&arg.as_str())).collect();
    let flag = match turn {
        Turn::Alone => return args,
        Turn::Replace => "--replace",
        Turn::Wait => "--when-free",
    };
    // Behind the word `node`, before a word that follows it.
    let at = args.iter().position(|arg| arg == "node").map_or(args.len(), |at| at + 1);
    args.insert(at, flag.to_owned());
    args
}

fn pass_on(node: &Child, signal: Signal) -> Outcome<()> {
    // None: it ended, and will be waited for.
    let Some(pid) = node.id().and_then(|pid| Pid::from_raw(pid.cast_signed())) else { return Ok(()) };
    rustix::process::kill_process(pid, signal)
        .map_err(|e| Failure::io("cannot tell the node's process to end", &e.into()))
}

/// The signals that tell us to end.
struct Told {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Told {
    fn watch() -> Outcome<Told> {
        let watch =
            |kind| signal(kind).map_err(|e: std::io::Error| Failure::io("cannot watch for signals", &e));
        Ok(Told { terminate: watch(SignalKind::terminate())?, interrupt: watch(SignalKind::interrupt())? })
    }

    async fn again(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn the_nodes_own_flags_stay() {
        let given = || words("node --stay --replace --cache /c run --meta /m").into_iter();
        assert_eq!(args(given(), Turn::Replace), words("node --replace --cache /c run --meta /m"));
        assert_eq!(args(given(), Turn::Wait), words("node --when-free --cache /c run --meta /m"));
        assert_eq!(args(given(), Turn::Alone), words("node --cache /c run --meta /m"));
    }

    #[test]
    fn only_what_ended_well_is_followed_by_another() {
        let (ended, killed) = (|code: i32| ExitStatus::from_raw(code << 8), ExitStatus::from_raw);
        assert_eq!((judge(ended(0), false), judge(ended(0), true)), (Ok(false), Ok(true)));
        assert_eq!(judge(ended(3), false).unwrap_err().exit, 3);
        assert_eq!(judge(ended(3), true).unwrap_err().exit, 3);
        assert_eq!(judge(killed(Signal::USR2.as_raw()), true), Ok(true));
        assert!(judge(killed(Signal::USR2.as_raw()), false).unwrap_err().message.contains("signal 12"));
        assert!(judge(killed(9), true).unwrap_err().message.contains("signal 9"));
    }
}
