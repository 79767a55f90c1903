//! The thread of a program that waits for an answer, as `/proc` shows it.
//!
//! A request over a ring whose program gets a signal before it was copied to its entry is sent no INTERRUPT, then or later (Linux
//! 6.14 to 6.18: `fuse_uring_prepare_send` does not look, as `fuse_dev_do_read` does). But the program's state tells: it sleeps
//! so that any signal wakes it until it has got one, and from then on so that none does.
//!
//! | state | |
//! |---|---|
//! | S | no signal yet; the next one makes an INTERRUPT, since the request is here |
//! | D | it had a signal |
//! | others | about to sleep, or just woken: to be looked at again |
//!
//! And which signal it was that a program got: of any one the kernel tells once, and of later ones no more. A write is to end with
//! those alone that end the program, since nothing expects it to be interrupted; such a one is `SIGKILL` by then, pending for each thread,
//! whichever it was (`complete_signal` in the kernel's `kernel/signal.c`).

use std::fs;
use std::io;
use std::time::Duration;

/// Between two looks whether a thread that had a signal is being killed.
const KILLED_AGAIN: Duration = Duration::from_millis(200);
/// Between two looks at a thread that is on its way to sleep.
const AGAIN: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Sleeps,
    Deaf,
    Awake,
}

/// Of the text of `/proc/<thread>/stat`: the letter behind the name, which is in parentheses and may hold any.
fn parse(stat: &[u8]) -> Option<State> {
    let at = stat.iter().rposition(|&b| b == b')')?;
    Some(match stat.get(at + 2)? {
        b'S' => State::Sleeps,
        b'D' => State::Deaf,
        _ => State::Awake,
    })
}

fn state(thread: u32) -> io::Result<Option<State>> {
    Ok(parse(&fs::read(format!("/proc/{thread}/stat"))?))
}

/// Returns when a thread, which waits for an answer, had a signal before; never, when it had not, or cannot be seen (it is of a
/// container whose processes are not ours to see).
pub(super) async fn had_a_signal(thread: u32) {
    loop {
        match state(thread) {
            Ok(Some(State::Deaf)) => return,
            Ok(Some(State::Awake)) => tokio::time::sleep(AGAIN).await,
            Ok(Some(State::Sleeps) | None) | Err(_) => std::future::pending().await,
        }
    }
}

/// Of the text of `/proc/<thread>/status`: whether SIGKILL waits for the thread.
fn is_killed(status: &str) -> bool {
    let pending = status.lines().find_map(|line| line.strip_prefix("SigPnd:"));
    let pending = pending.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    pending.is_some_and(|bits| bits & (1 << (libc::SIGKILL - 1)) != 0)
}

/// Returns when a thread, which waits for an answer and had a signal, is being killed; never, when it cannot be seen.
pub(super) async fn is_being_killed(thread: u32) {
    loop {
        match fs::read_to_string(format!("/proc/{thread}/status")) {
            Ok(status) if is_killed(&status) => return,
            Ok(_) => tokio::time::sleep(KILLED_AGAIN).await,
            Err(_) => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_killed_has_that_signal_pending_whatever_else() {
        let of = |bits: &str| {
            is_killed(&format!("Name:\tdd\nSigQ:\t0/1\nSigPnd:\t{bits}\nShdPnd:\t0000000000000100\n"))
        };
        assert!(of("0000000000000100") && of("0000000000004102"));
        assert!(!of("0000000000000000") && !of("fffffffffffffeff") && !of("?") && !is_killed(""));
        let me = rustix::thread::gettid().as_raw_nonzero();
        assert!(!is_killed(&fs::read_to_string(format!("/proc/{me}/status")).unwrap()));
    }

    #[test]
    fn the_state_is_behind_the_last_parenthesis() {
        assert_eq!(parse(b"12 (a) b) D 1 2 3"), Some(State::Deaf));
        assert_eq!(parse(b"12 (cat) S 1 2 3"), Some(State::Sleeps));
        assert_eq!(parse(b"12 (S) R 1 2 3"), Some(State::Awake));
        assert_eq!(parse(b"12 (cat)"), None);
        assert_eq!(parse(b""), None);
        let me = rustix::thread::gettid().as_raw_nonzero().get() as u32;
        assert_eq!(state(me).unwrap(), Some(State::Awake));
        assert!(state(0).is_err());
    }
}
