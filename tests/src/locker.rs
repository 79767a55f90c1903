//! A process that takes and holds locks as it is told, so that it can be killed while it holds or waits for one.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::launcher::start;
use crate::program::until;

const PROGRAM: &str = r#"
import errno, fcntl, os, signal, struct, sys
class Interrupted(Exception): pass
def interrupt(*_): raise Interrupted
signal.signal(signal.SIGUSR1, interrupt)
files = {}
KINDS = {'ex': (fcntl.LOCK_EX, fcntl.F_WRLCK), 'sh': (fcntl.LOCK_SH, fcntl.F_RDLCK), 'un': (fcntl.LOCK_UN, fcntl.F_UNLCK)}
FLOCK = 'hhqqi4x'
def control(name, command, kind, start, length):
    record = struct.pack(FLOCK, KINDS[kind][1], 0, int(start), int(length), 0)
    return struct.unpack(FLOCK, fcntl.fcntl(files[name], command, record))
def answer(verb, name, *args):
    if verb == 'open': files[name] = os.open(args[0], os.O_RDWR | os.O_CREAT)
    elif verb == 'close': os.close(files.pop(name))
    elif verb == 'dup': files[args[0]] = os.dup(files[name])
    elif verb == 'flock': fcntl.flock(files[name], KINDS[args[0]][0] | (fcntl.LOCK_NB if args[1:] == ('nb',) else 0))
    elif verb == 'posix': control(name, fcntl.F_SETLK if args[3:] == ('nb',) else fcntl.F_SETLKW, *args[:3])
    elif verb == 'ofd': control(name, 37 if args[3:] == ('nb',) else 38, *args[:3])
    elif verb == 'getlk':
        kind, _, start, length, pid = control(name, fcntl.F_GETLK, *args)
        if kind == fcntl.F_UNLCK: return 'free'
        return '%s %d %d %d' % ('ex' if kind == fcntl.F_WRLCK else 'sh', start, length, pid)
    elif verb == 'append': return str(os.write(files[name], args[0].encode()))
    elif verb == 'seekend': return str(os.lseek(files[name], 0, os.SEEK_END))
    elif verb == 'read': return os.pread(files[name], 1 << 20, 0).decode()
    else: raise ValueError(verb)
    return 'ok'
for line in sys.stdin:
    try: reply = answer(*line.split())
    except OSError as e: reply = 'EDEADLK' if e.errno == errno.EDEADLK else errno.errorcode[e.errno]
    except Interrupted: reply = 'EINTR'
    print(reply, flush=True)
"#;

/// Commands are lines, `VERB FILE ARGS`: `open f PATH`, `close f`, `dup f g`, `flock f ex|sh|un [nb]`,
/// `posix|ofd f ex|sh|un START LENGTH [nb]`, `getlk f KIND START LENGTH`, `append f TEXT`, `seekend f`, `read f`.
/// Answers: `ok`, the name of an errno, or what was asked for. Killed when dropped.
#[derive(Debug)]
pub struct Locker {
    child: Child,
    input: File,
    output: BufReader<File>,
}

impl Default for Locker {
    fn default() -> Self {
        Locker::new()
    }
}

impl Locker {
    pub fn new() -> Locker {
        let mut python = Command::new("python3");
        python.args(["-c", PROGRAM]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let started = start(python);
        let (input, output) = (started.input.expect("piped"), started.output.expect("piped"));
        Locker { child: started.child, input, output: BufReader::new(output) }
    }

    /// One that has `path` open as `f`.
    pub fn with(path: &Path) -> Locker {
        let mut locker = Locker::new();
        locker.is(&format!("open f {}", path.display()), "ok");
        locker
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Says something without waiting for the answer.
    pub fn tell(&mut self, command: &str) {
        writeln!(self.input, "{command}").expect("the locker reads");
    }

    /// Whether it has answered what it was told last.
    pub fn has_answered(&self) -> bool {
        self.can_read(0)
    }

    fn can_read(&self, seconds: i64) -> bool {
        let mut fds = [PollFd::new(self.output.get_ref(), PollFlags::IN)];
        let timeout = Timespec { tv_sec: seconds, tv_nsec: 0 };
        !self.output.buffer().is_empty() || poll(&mut fds, Some(&timeout)).expect("poll") > 0
    }

    /// Waits for the answer, a minute at most.
    #[track_caller]
    pub fn answer(&mut self) -> String {
        assert!(self.can_read(60), "the locker did not answer within a minute");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("the locker answers");
        line.trim_end().to_owned()
    }

    pub fn ask(&mut self, command: &str) -> String {
        self.tell(command);
        self.answer()
    }

    /// Asks, and the answer must be this.
    #[track_caller]
    pub fn is(&mut self, command: &str, answer: &str) {
        let got = self.ask(command);
        assert_eq!(got, answer, "{command}");
    }

    /// Tells it to take a lock that somebody holds, and returns once it sleeps in the system call. The service may yet have to
    /// hear of it.
    #[track_caller]
    pub fn waits(&mut self, command: &str) {
        self.tell(command);
        let calls = [libc::SYS_flock, libc::SYS_fcntl].map(|number| format!("{number} "));
        let state = format!("/proc/{}/syscall", self.pid());
        until("the locker sleeps in its call", || {
            assert!(!self.has_answered(), "{command}: it does not wait, but is told {}", self.answer());
            let text = std::fs::read_to_string(&state).expect("the locker lives");
            calls.iter().any(|call| text.starts_with(call))
        });
    }

    /// SIGUSR1: what it waits for ends with EINTR.
    pub fn interrupt(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::USR1).expect("kill");
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.child.kill().expect("kill -9");
        self.child.wait().expect("wait");
    }
}

impl Drop for Locker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
