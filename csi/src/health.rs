//! Whether a mount answers, found out without being caught in it.
//!
//! statfs(2) goes to whoever serves the mount, and a process that hangs keeps the caller for ever: no signal but SIGKILL ends that
//! wait. So it is asked by a thread of its own, and waited for a bounded time. A thread that is caught stays, and is the only one for
//! that mount: whoever asks next is told for how long it has been waiting, and starts no other.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use granary_core::{Clock, Error, Kind, Result};
use rustix::fs::StatVfs;
use tokio::sync::oneshot;

/// A mount that does not answer within this is told as unhealthy.
pub const HEALTH_WAIT: Duration = Duration::from_secs(5);
/// Threads that are caught, at most.
const CAUGHT_MAX: usize = 256;

/// Of bytes or of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount {
    pub total: u64,
    pub used: u64,
    pub available: u64,
}

/// What a volume holds and may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    pub bytes: Amount,
    pub files: Amount,
}

impl Room {
    fn of(stat: &StatVfs) -> Room {
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Room {
            bytes: Amount {
                total: bytes(stat.f_blocks),
                used: bytes(stat.f_blocks.saturating_sub(stat.f_bfree)),
                available: bytes(stat.f_bavail),
            },
            files: Amount {
                total: stat.f_files,
                used: stat.f_files.saturating_sub(stat.f_ffree),
                available: stat.f_favail,
            },
        }
    }
}

/// What a mount answered.
#[derive(Clone, Debug)]
pub enum Answer {
    Room(Room),
    /// Nobody serves it any more.
    Dead,
    Failed(String),
    /// Not within the bound; for how long by now.
    Silent(Duration),
}

/// Threads that ask.
#[derive(Clone, Debug)]
pub struct Probes {
    clock: Arc<dyn Clock>,
    /// Since when each is asked. Guards the map for a look-up or a change.
    asked: Arc<Mutex<HashMap<PathBuf, Duration>>>,
}

impl Probes {
    pub fn new(clock: Arc<dyn Clock>) -> Probes {
        Probes { clock, asked: Arc::default() }
    }

    /// Asks within [`HEALTH_WAIT`].
    pub async fn ask(&self, dir: &Path) -> Result<Answer> {
        self.ask_with(dir, HEALTH_WAIT, |dir| rustix::fs::statvfs(dir).map_err(io::Error::from)).await
    }

    async fn ask_with(
        &self,
        dir: &Path,
        wait: Duration,
        stat: impl FnOnce(&Path) -> io::Result<StatVfs> + Send + 'static,
    ) -> Result<Answer> {
        let now = self.clock.monotonic();
        {
            let mut asked = lock(&self.asked);
            if let Some(since) = asked.get(dir) {
                return Ok(Answer::Silent(now.saturating_sub(*since)));
            }
            if asked.len() >= CAUGHT_MAX {
                let text = format!("{CAUGHT_MAX} mounts of this node do not answer; no more are asked");
                return Err(Error::new(Kind::Unavailable, text));
            }
            asked.insert(dir.to_owned(), now);
        }
        let (tell, told) = oneshot::channel();
        let (place, path) = (Place { asked: self.asked.clone(), dir: dir.to_owned() }, dir.to_owned());
        let thread = std::thread::Builder::new().name("granary-probe".to_owned()).spawn(move || {
            let answer = stat(&path);
            drop(place); // before it is told, so that who asks again at once is not turned away
            let _nobody_waits = tell.send(answer);
        });
        thread.map_err(|e| Error::io("cannot start a thread that asks a mount", e))?;
        Ok(match tokio::time::timeout(wait, told).await {
            Ok(Ok(Ok(stat))) => Answer::Room(Room::of(&stat)),
            Ok(Ok(Err(e))) if matches!(e.raw_os_error(), Some(ENOTCONN | ECONNABORTED)) => Answer::Dead,
            Ok(Ok(Err(e))) => Answer::Failed(e.to_string()),
            Ok(Err(_)) => {
                return Err(Error::new(Kind::Bug, "a thread that asked a mount ended without an answer"));
            }
            Err(_) => Answer::Silent(wait),
        })
    }
}

const ENOTCONN: i32 = rustix::io::Errno::NOTCONN.raw_os_error();
const ECONNABORTED: i32 = rustix::io::Errno::CONNABORTED.raw_os_error();

fn lock(asked: &Mutex<HashMap<PathBuf, Duration>>) -> MutexGuard<'_, HashMap<PathBuf, Duration>> {
    asked.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One thread's; also given back when the thread could not be started, or panics.
struct Place {
    asked: Arc<Mutex<HashMap<PathBuf, Duration>>>,
    dir: PathBuf,
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.asked).remove(&self.dir);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use granary_core::TestClock;

    use super::*;

    #[tokio::test]
    async fn a_mount_that_hangs_catches_one_thread_and_nobody_else() {
        let clock = Arc::new(TestClock::default());
        let probes = Probes::new(clock.clone());
        let (release, held) = mpsc::channel::<()>();
        let dir = Path::new("/");
        let stuck = move |dir: &Path| {
            held.recv().ok();
            rustix::fs::statvfs(dir).map_err(io::Error::from)
        };
        let answer = probes.ask_with(dir, Duration::ZERO, stuck).await.unwrap();
        assert!(matches!(answer, Answer::Silent(_)), "{answer:?}");
        clock.advance(Duration::from_secs(60));
        let never = |_: &Path| panic!("a second thread");
        let answer = probes.ask_with(dir, Duration::ZERO, never).await.unwrap();
        assert!(matches!(answer, Answer::Silent(since) if since == Duration::from_secs(60)), "{answer:?}");
        // Another mount is asked as ever.
        assert!(matches!(probes.ask(Path::new("/proc")).await.unwrap(), Answer::Room(_)));
        drop(release);
        while lock(&probes.asked).contains_key(dir) {
            std::thread::yield_now();
        }
        assert!(matches!(probes.ask(dir).await.unwrap(), Answer::Room(_)));
    }

    #[tokio::test]
    async fn what_is_dead_is_told_from_what_fails() {
        let probes = Probes::new(Arc::new(TestClock::default()));
        let wait = Duration::from_secs(60);
        for (errno, dead) in [(ENOTCONN, true), (ECONNABORTED, true), (5, false)] {
            let answer =
                probes.ask_with(Path::new("/x"), wait, move |_| Err(io::Error::from_raw_os_error(errno)));
            assert_eq!(matches!(answer.await.unwrap(), Answer::Dead), dead, "{errno}");
        }
        assert!(matches!(probes.ask(Path::new("/nowhere/at/all")).await.unwrap(), Answer::Failed(_)));
    }
}
