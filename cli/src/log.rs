//! The log: for people on a terminal, JSON otherwise; to standard error, or to a file that stays bounded.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::prelude::*;

use crate::exit::{Failure, Outcome};
use crate::output::Remarks;
use crate::settings::{LogFormat, Settings};

/// The log file is renamed to `FILE.1` at this size, replacing the one before.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// The target of events that say who was refused what.
pub const AUDIT: &str = "granary::audit";

/// Starts logging for this process, as the settings say. Called once, by commands that log.
pub fn start(settings: &Settings) -> Outcome<()> {
    let filter = EnvFilter::try_new(&settings.log).map_err(|e| {
        Failure::usage(format!(
            "setting log = {:?} cannot be used: {e}; write error, warn, info or debug",
            settings.log
        ))
    })?;
    let terminal = settings.log_file.is_none() && io::stderr().is_terminal();
    let json = match settings.log_format {
        LogFormat::Json => true,
        LogFormat::Human => false,
        LogFormat::Auto => !terminal,
    };
    let plain = fmt::layer().with_ansi(terminal).with_target(json);
    let main = match (&settings.log_file, json) {
        (Some(path), true) => plain.json().with_writer(LogFile::open(path)?).boxed(),
        (Some(path), false) => plain.with_writer(LogFile::open(path)?).boxed(),
        (None, true) => plain.json().with_writer(|| Remarks).boxed(),
        (None, false) => plain.with_writer(|| Remarks).boxed(),
    };
    // Who was refused what has a file of its own when one is wanted, whatever the log leaves out.
    let apart = settings.audit_log.is_some();
    let main = main.with_filter(filter.and(filter_fn(move |event| !(apart && event.target() == AUDIT))));
    let audit = match &settings.audit_log {
        Some(path) => {
            let layer = fmt::layer().json().with_writer(LogFile::open_private(path)?);
            Some(layer.with_filter(filter_fn(|event| event.target() == AUDIT)))
        }
        None => None,
    };
    let outcome = tracing_subscriber::registry().with(main).with(audit).try_init();
    outcome.map_err(|e| Failure::failed(format!("cannot start the log: {e}")))?;
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let what = panic.payload_as_str().unwrap_or("unknown");
        tracing::error!(place, "a bug in granary: {what}; please report it with this log");
    }));
    Ok(())
}

/// Logging for a short command: warnings only, on standard error.
pub fn start_quiet() {
    let filter = EnvFilter::new("warn");
    // Fails only when logging was started before, which is as good.
    let _ =
        tracing_subscriber::fmt().with_env_filter(filter).without_time().with_writer(|| Remarks).try_init();
}

/// An append-only file of at most [`FILE_BYTES_MAX`], and its predecessor.
pub struct LogFile {
    path: PathBuf,
    /// Guards the open file and its length; held for one write, on a local disk.
    state: Mutex<State>,
}

struct State {
    file: File,
    /// For the next one.
    how: OpenOptions,
    bytes: u64,
}

impl LogFile {
    pub fn open(path: &Path) -> Outcome<LogFile> {
        LogFile::open_as(path, 0o644)
    }

    /// Readable by its owner only.
    pub fn open_private(path: &Path) -> Outcome<LogFile> {
        LogFile::open_as(path, 0o600)
    }

    fn open_as(path: &Path, mode: u32) -> Outcome<LogFile> {
        let cannot = |e: io::Error| Failure::io(format!("cannot open the log file {}", path.display()), &e);
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(cannot)?;
        }
        let mut how = OpenOptions::new();
        how.create(true).append(true).mode(mode);
        let file = how.open(path).map_err(cannot)?;
        let bytes = file.metadata().map_err(cannot)?.len();
        Ok(LogFile { path: path.to_owned(), state: Mutex::new(State { file, how, bytes }) })
    }
}

/// One record's way into the file.
pub struct Line<'a> {
    path: &'a Path,
    state: MutexGuard<'a, State>,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.state.bytes >= FILE_BYTES_MAX {
            let mut old = self.path.as_os_str().to_owned();
            old.push(".1");
            std::fs::rename(self.path, old)?;
            self.state.file = self.state.how.open(self.path)?;
            self.state.bytes = 0;
        }
        let n = self.state.file.write(bytes)?;
        self.state.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogFile {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { path: &self.path, state: self.state.lock().unwrap_or_else(PoisonError::into_inner) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_stays_bounded_and_nothing_is_torn() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/node.log");
        let log = LogFile::open(&path).unwrap();
        log.state.lock().unwrap().bytes = FILE_BYTES_MAX - 1;
        log.make_writer().write_all(b"last of the old\n").unwrap();
        log.make_writer().write_all(b"first of the new\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "first of the new\n");
        assert_eq!(std::fs::read_to_string(dir.path().join("sub/node.log.1")).unwrap(), "last of the old\n");
        drop(log);
        let again = LogFile::open(&path).unwrap();
        assert_eq!(again.state.lock().unwrap().bytes, 17);
    }

    #[test]
    fn a_place_that_cannot_be_is_named() {
        let e = LogFile::open(Path::new("/proc/none/node.log")).err().unwrap();
        assert!(e.message.contains("/proc/none/node.log"), "{e}");
    }
}
