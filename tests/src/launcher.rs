//! Starting programs from threads that have none of this process's files.
//!
//! A child has copies of its parent's files until it becomes the program, and closes them then. While it has them,
//!
//! * a mount whose file is among them is busy, though who opened it has closed it: an unmount is refused;
//! * for a file of a mount the close is a FLUSH: the child waits for a node, or for a metadata service, that may be away, and that
//!   perhaps the child itself is to become;
//! * a program that another thread has just copied is open for writing, and cannot be started (ETXTBSY).
//!
//! Tests of one binary run side by side in one process, so each of them would meet the files of all others. Therefore every program
//! is started here: by a thread with a table of files of its own, empty from the start.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError, mpsc};

/// What becomes of a thread that has files of nobody else's.
fn forget_files() {
    // SAFETY: what is closed are the copies in this thread's own table; nothing of the thread's own is open yet.
    let rc = unsafe { libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_UNSHARE as libc::c_int) };
    assert_eq!(rc, 0, "close_range: {}", io::Error::last_os_error());
}

/// Does this, which starts a program and waits for its end, without any file of this process.
pub fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            forget_files();
            work()
        });
        thread.join().unwrap_or_else(|e| std::panic::resume_unwind(e))
    })
}

/// A program that runs, and this process's ends of the pipes that it was given. It goes on when this is dropped.
#[derive(Debug)]
pub struct Started {
    pub child: Child,
    pub input: Option<File>,
    pub output: Option<File>,
    pub errors: Option<File>,
}

impl Started {
    /// Waits for its end, and for all that it says until then.
    pub fn finish(mut self) -> io::Result<Output> {
        drop(self.input.take());
        let all = |pipe: Option<File>| {
            let mut said = Vec::new();
            pipe.map_or(Ok(0), |mut pipe| pipe.read_to_end(&mut said)).map(|_| said)
        };
        let (output, errors) = (self.output.take(), self.errors.take());
        let (stdout, stderr) = std::thread::scope(|scope| {
            let errors = scope.spawn(|| all(errors));
            (all(output), errors.join().unwrap_or_else(|e| std::panic::resume_unwind(e)))
        });
        Ok(Output { status: self.child.wait()?, stdout: stdout?, stderr: stderr? })
    }
}

/// What is done with a command in the thread that starts it.
type Before = Box<dyn FnOnce(&mut Command) -> io::Result<()> + Send>;

struct Order {
    command: Command,
    before: Before,
    done: mpsc::Sender<io::Result<Open>>,
}

/// A program, and its pipes in the table of the thread that started it, until `taken` is dropped.
#[derive(Debug)]
struct Open {
    child: Child,
    thread: i32,
    /// Input, output, errors.
    pipes: [Option<RawFd>; 3],
    taken: mpsc::Sender<()>,
}

/// One for the whole process: a program may want to end with the thread that started it.
static ORDERS: LazyLock<Mutex<mpsc::Sender<Order>>> = LazyLock::new(|| {
    let (orders, received) = mpsc::channel();
    std::thread::spawn(move || serve(&received));
    Mutex::new(orders)
});

/// Starts a program. Its input, output and errors are pipes where the command says so. No file of this process may be among what it is
/// given: that is [`start_with`]'s.
pub fn start(command: Command) -> Started {
    start_with(command, |_| Ok(()))
}

/// The same with no input, and what it says appended to a file.
pub fn start_logged(command: Command, log: PathBuf) -> Child {
    let logged = move |command: &mut Command| {
        let log = OpenOptions::new().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(())
    };
    start_with(command, logged).child
}

/// Starts a program after `before` gave it files, which are to be opened there.
pub fn start_with(
    command: Command,
    before: impl FnOnce(&mut Command) -> io::Result<()> + Send + 'static,
) -> Started {
    let (done, open) = mpsc::channel();
    let name = format!("{command:?}");
    ORDERS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send(Order { command, before: Box::new(before), done })
        .expect("the launcher");
    let Open { child, thread, pipes, taken } =
        open.recv().expect("the launcher").unwrap_or_else(|e| panic!("cannot start {name}: {e}"));
    let [input, output, errors] = pipes.map(|pipe| {
        let path = format!("/proc/self/task/{thread}/fd/{}", pipe?);
        Some(path)
    });
    let reading = |path: String| File::open(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let writing =
        |path: String| OpenOptions::new().write(true).open(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let started = Started {
        child,
        input: input.map(writing),
        output: output.map(reading),
        errors: errors.map(reading),
    };
    drop(taken);
    started
}

fn serve(orders: &mpsc::Receiver<Order>) {
    forget_files();
    let thread = rustix::thread::gettid().as_raw_nonzero().get();
    for Order { mut command, before, done } in orders {
        let (taken, until_taken) = mpsc::channel();
        let started = before(&mut command).and_then(|()| command.spawn());
        drop(command);
        let mut ours = (None, None, None);
        let open = started.map(|mut child| {
            ours = (child.stdin.take(), child.stdout.take(), child.stderr.take());
            let pipes = [
                ours.0.as_ref().map(AsRawFd::as_raw_fd),
                ours.1.as_ref().map(AsRawFd::as_raw_fd),
                ours.2.as_ref().map(AsRawFd::as_raw_fd),
            ];
            Open { child, thread, pipes, taken }
        });
        // Who ordered it waits for it, and then takes its own ends.
        let _ = done.send(open);
        let _ = until_taken.recv();
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};

    use super::*;

    #[test]
    fn a_program_has_none_of_this_processs_files() {
        let held = tempfile::NamedTempFile::new().unwrap();
        // Kept over exec, so that it would be seen.
        rustix::io::fcntl_setfd(&held, rustix::io::FdFlags::empty()).unwrap();
        let path = held.path().to_str().unwrap();
        let mut list = Command::new("bash");
        list.args(["-c", "ls -l /proc/$$/fd"]);
        let has_it = |out: Output| String::from_utf8(out.stdout).unwrap().contains(path);
        assert!(has_it(list.output().unwrap()), "else it would be seen");
        assert!(!has_it(apart(|| list.output()).unwrap()));
        list.stdout(Stdio::piped());
        assert!(!has_it(start(list).finish().unwrap()));
    }

    #[test]
    fn pipes_reach_who_started_it_and_end_with_it() {
        let mut cat = Command::new("cat");
        cat.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut cat = start(cat);
        let (mut input, output) = (cat.input.take().unwrap(), cat.output.take().unwrap());
        assert!(cat.errors.is_none());
        let mut output = BufReader::new(output);
        for said in ["one\n", "two\n"] {
            input.write_all(said.as_bytes()).unwrap();
            let mut heard = String::new();
            output.read_line(&mut heard).unwrap();
            assert_eq!(heard, said);
        }
        drop(input);
        assert!(cat.child.wait().unwrap().success());
        assert_eq!(output.read_line(&mut String::new()).unwrap(), 0);
    }

    #[test]
    fn what_is_logged_is_appended() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        for said in ["one", "two"] {
            let mut echo = Command::new("bash");
            echo.args(["-c", "echo $0; echo $0 >&2", said]);
            assert!(start_logged(echo, log.clone()).wait().unwrap().success());
        }
        assert_eq!(std::fs::read_to_string(log).unwrap(), "one\none\ntwo\ntwo\n");
    }
}
