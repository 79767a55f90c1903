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

use std::fs;
use std::io;
use std::time::Duration;

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

#[cfg(test)]
mod tests {
    use super::*;

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
