//! Telling whoever started the node that it is ready, or why not: the `granary mount` that waits for one line of JSON on
//! our standard output, and systemd (`Type=notify`).

use std::io::Write;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use serde::{Deserialize, Serialize};

use crate::exit::{Failure, plain};
use crate::progress::describe_recovery;
use crate::wire::RecoveryLine;

/// The line on standard output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Notice {
    /// It brings back what was staged when it ended last; comes once a second.
    Recovering(RecoveryLine),
    Ready,
    Failed(Failure),
}

/// Who started this process.
#[derive(Debug)]
pub struct Starter {
    waits: bool,
}

impl Starter {
    /// `waits`: somebody reads our standard output for a [`Notice`].
    pub fn new(waits: bool) -> Starter {
        Starter { waits }
    }

    /// The node serves. Standard output is not used any more after this.
    pub fn ready(&self) {
        systemd("READY=1");
        if self.waits {
            tell(&Notice::Ready);
            if let Ok(null) = std::fs::OpenOptions::new().write(true).open("/dev/null") {
                // The starter's pipe is closed by this; when it fails, the pipe merely stays open.
                let _ = rustix::stdio::dup2_stdout(&null);
            }
        }
    }

    /// Not yet, and how far it is. systemd is asked for the time that takes.
    pub fn recovering(&self, line: RecoveryLine) {
        systemd(&format!("STATUS={}\nEXTEND_TIMEOUT_USEC=30000000", describe_recovery(&line)));
        if self.waits {
            tell(&Notice::Recovering(line));
        }
    }

    /// Whether somebody reads our standard output; then nobody reads standard error.
    pub fn waits(&self) -> bool {
        self.waits
    }

    pub fn failed(&self, failure: &Failure) {
        if self.waits {
            tell(&Notice::Failed(failure.clone()));
        }
    }

    pub fn stopping(&self) {
        systemd("STOPPING=1");
    }
}

fn tell(notice: &Notice) {
    let Ok(mut line) = serde_json::to_vec(notice) else { return };
    line.push(b'\n');
    let mut out = std::io::stdout().lock();
    // The starter may have gone; the node does not need it.
    let _ = out.write_all(&line).and_then(|()| out.flush());
}

/// Sends a state to the service manager that asked for it by `NOTIFY_SOCKET`, as sd_notify(3) does.
fn systemd(state: &str) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let sent = address(&name).and_then(|to| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &to));
    if let Err(e) = sent {
        tracing::warn!("cannot tell systemd {state} through {}: {}", name.to_string_lossy(), plain(&e));
    }
}

fn address(name: &std::ffi::OsStr) -> std::io::Result<SocketAddr> {
    match name.as_encoded_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest),
        _ => SocketAddr::from_pathname(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_kinds() {
        assert_eq!(address("@granary/x".as_ref()).unwrap().as_abstract_name(), Some(&b"granary/x"[..]));
        let path = address("/run/x".as_ref()).unwrap();
        assert_eq!(path.as_pathname(), Some(std::path::Path::new("/run/x")));
    }

    #[test]
    fn notices_are_read_back() {
        let recovering = Notice::Recovering(RecoveryLine { bytes: 7, ..RecoveryLine::default() });
        for notice in [Notice::Ready, recovering, Notice::Failed(Failure::usage("why"))] {
            let line = serde_json::to_string(&notice).unwrap();
            assert_eq!(serde_json::from_str::<Notice>(&line).unwrap(), notice);
        }
    }
}
