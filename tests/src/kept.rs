//! A node whose mounts a keeper holds, and that the keeper starts again when it is killed.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::{Node, until};

/// All that is left of node and keeper ends with it.
pub struct Kept {
    pub node: Node,
    pid: i32,
}

impl Kept {
    /// The node runs with `GRANARY_KEEPER=on`.
    pub fn of(node: Node) -> Kept {
        let pid = node.pid() as i32;
        Kept { node, pid }
    }

    /// The process that listens now.
    fn listening(&self) -> Option<i32> {
        let socket = UnixStream::connect(self.node.path("node.sock")).ok()?;
        let pid = rustix::net::sockopt::socket_peercred(&socket).ok()?.pid.as_raw_nonzero().get();
        // Not one that was killed and whose socket is not closed yet.
        fs::exists(format!("/proc/{pid}/exe")).is_ok_and(|is| is).then_some(pid)
    }

    /// kill -9, and the next process.
    pub fn again(&mut self) {
        kill(self.pid);
        let before = self.pid;
        until("the keeper started the node again", || {
            self.listening().filter(|pid| *pid != before).inspect(|pid| self.pid = *pid).is_some()
        });
    }

    /// Processes that are this node's, or its keeper's: their arguments name its directory.
    pub fn processes(&self, word: &str) -> Vec<i32> {
        let root = self.node.path("").display().to_string();
        let all = fs::read_dir("/proc").expect("/proc");
        let all = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let is_ours = |pid: &i32| {
            let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split('\0').nth(1) == Some(word) && line.contains(&root)
        };
        all.filter(is_ours).collect()
    }

    /// kill -9 of the keeper.
    pub fn kill_keeper(&self) {
        self.processes("keeper").into_iter().for_each(kill);
    }

    /// Unmounts and stops; the keeper ends by itself.
    pub fn end(self, dir: &Path) {
        self.node.umount(dir);
        self.stop();
    }

    /// Stops the node; returns when the keeper has ended as well.
    pub fn stop(&self) {
        self.node.ok(&["node", "stop"]);
        until("the keeper ends", || self.processes("keeper").is_empty());
    }
}

impl Drop for Kept {
    /// A test that failed leaves none of them, and tells what those said that the keeper started.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.node.path("cache/node.log")).unwrap_or_default();
            eprintln!("--- log of the node as the keeper started it ---\n{log}");
        }
        self.processes("keeper").into_iter().for_each(kill);
        self.processes("node").into_iter().for_each(kill);
    }
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
    // It may have ended by itself.
    let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}
