//! What a command says, and the one way of saying it.
//!
//! | what | where to | when it cannot be written |
//! |---|---|---|
//! | an answer, all of it | standard output | the command fails and says why; a reader that went away (`\| head`) is no failure |
//! | one of many answers | standard output | the same; when the reader went away the command ends there, without a word |
//! | a remark | standard error | nobody is there to read it: the command goes on, and its exit code says how it went |
//!
//! `println!` and `eprintln!` end the process with a panic in all three cases, so this crate forbids them (see `lib.rs`).

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::exit::{Failure, Outcome};

/// Prints all of an answer.
pub fn print(text: &str) -> Outcome<()> {
    match print_next(text.as_bytes()) {
        Err(failure) if failure.is_reader_gone() => Ok(()),
        other => other,
    }
}

/// Prints one of many answers, or a part of one; who prints more must end when this does.
pub fn print_next(bytes: &[u8]) -> Outcome<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(unwritten)
}

/// Prints for programs.
pub fn print_json(value: &impl serde::Serialize) -> Outcome<()> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|e| Failure::failed(format!("cannot print the answer: {e}")))?;
    print(&(text + "\n"))
}

/// Why standard output cannot be written, for those who buffer it themselves.
pub fn unwritten(e: io::Error) -> Failure {
    match e.kind() {
        io::ErrorKind::BrokenPipe => Failure::reader_gone(),
        _ => Failure::io("cannot write to standard output", &e),
    }
}

/// A remark, as a line of its own.
pub fn say(remark: impl Display) {
    say_as("granary", remark);
}

/// The same by another name of this program.
pub fn say_as(program: &str, remark: impl Display) {
    Remarks.say(&format!("{program}: {remark}\n"));
}

/// Standard error as a writer that never fails.
#[derive(Clone, Copy, Debug)]
pub struct Remarks;

impl Remarks {
    /// In one write, so that lines of several processes stay whole.
    fn say(self, text: &str) {
        let _nobody_reads = io::stderr().write_all(text.as_bytes());
    }
}

impl Write for Remarks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _nobody_reads = io::stderr().write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Help and version, or what is wrong with the command line, as the parser words it.
pub fn of_parser(told: &clap::Error) -> ExitCode {
    let printed = told.print().and_then(|()| io::stdout().flush());
    match printed {
        Err(e) if !told.use_stderr() => end(Err(unwritten(e))),
        _ => ExitCode::from(u8::try_from(told.exit_code()).unwrap_or(1)),
    }
}

/// The end of a command: its message, if it has one, and its exit code.
pub fn end(outcome: Outcome<()>) -> ExitCode {
    let Err(failure) = outcome else { return ExitCode::SUCCESS };
    if failure.is_reader_gone() {
        return ExitCode::SUCCESS;
    }
    say(&failure);
    ExitCode::from(failure.exit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_went_away_is_no_failure_and_a_full_disk_is_one() {
        let gone = unwritten(io::Error::from_raw_os_error(libc::EPIPE));
        assert!(gone.is_reader_gone() && gone.exit == 0);
        let full = unwritten(io::Error::from_raw_os_error(libc::ENOSPC));
        assert!(!full.is_reader_gone());
        assert_eq!(
            (full.exit, full.message.as_str()),
            (1, "cannot write to standard output: No space left on device")
        );
    }
}
