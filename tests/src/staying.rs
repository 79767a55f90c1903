//! A node that stays when another takes its place (`granary node --stay`).

use std::fs;
use std::process::{Child, ExitStatus};

use crate::launcher::start_logged;
use crate::{Node, until};

/// All of it ends with this.
pub struct Staying {
    child: Child,
}

impl Staying {
    /// Takes the place of the one that runs (`keeper = on`), and serves.
    pub fn take_the_place(node: &Node) -> Staying {
        let command = node.command(&["node", "--replace", "--stay"]);
        let mut staying = Staying { child: start_logged(command, node.path("node.log")) };
        until("the one that was started serves", || {
            assert!(staying.is_there(), "it ended:\n{}", node.log());
            staying.serves(node).is_some()
        });
        staying
    }

    /// The process that serves now, if it is this one's.
    pub fn serves(&self, node: &Node) -> Option<u32> {
        let status: serde_json::Value = serde_json::from_str(&node.run(&["status", "--json"]).stdout).ok()?;
        let pid = status["pid"].as_u64()?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // Behind the name, which may have blanks: the state, and the parent.
        let parent: u32 = stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()?;
        (parent == self.child.id()).then_some(pid as u32)
    }

    pub fn is_there(&mut self) -> bool {
        self.child.try_wait().expect("wait").is_none()
    }

    /// Tells it to end, as kubelet does.
    pub fn terminate(mut self) -> ExitStatus {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("kill");
        self.child.wait().expect("wait")
    }

    /// It ends by itself.
    pub fn wait(mut self) -> ExitStatus {
        self.child.wait().expect("wait")
    }
}

impl Drop for Staying {
    fn drop(&mut self) {
        // It may have ended; and the kernel ends its node.
        let _gone = self.child.kill();
        let _ended = self.child.wait();
    }
}
