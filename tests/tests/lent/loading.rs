//! A loader's process, and what it says.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use granary_tests::start;

/// Killed when dropped.
pub struct Loading {
    child: Child,
    commands: File,
    said: BufReader<File>,
}

/// The program; a copy of it may be where others reach it.
pub fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_loading"))
}

impl Loading {
    pub fn start(url: &str, socket: &Path) -> Loading {
        Loading::with_seed(url, socket, 7)
    }

    /// Another seed, another order.
    pub fn with_seed(url: &str, socket: &Path, seed: u64) -> Loading {
        let mut command = Command::new(program());
        command.arg(url).arg(socket).arg("32").arg(seed.to_string());
        Loading::of(command)
    }

    pub fn of(mut command: Command) -> Loading {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let started = start(command);
        let said = BufReader::new(started.output.expect("its output"));
        Loading { child: started.child, commands: started.input.expect("its input"), said }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn tell(&mut self, command: &str) {
        writeln!(self.commands, "{command}").expect("the loader listens");
    }

    /// Up to the end of what it was told last.
    pub fn hear(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            let bytes = self.said.read_line(&mut line).expect("the loader speaks");
            let line = line.trim_end().to_owned();
            match &line[..] {
                _ if bytes == 0 => panic!("the loader ended after {lines:#?}"),
                "ok" => return lines,
                _ => lines.push(line),
            }
            if lines.last().is_some_and(|line| line.starts_with("error: ")) {
                return lines;
            }
        }
    }

    pub fn ask(&mut self, command: &str) -> Vec<String> {
        self.tell(command);
        self.hear()
    }

    /// A counter of its metrics.
    pub fn counter(&mut self, name: &str) -> u64 {
        let lines = self.ask("metrics");
        let value = lines.iter().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
        value.unwrap_or_else(|| panic!("no {name} in {lines:#?}")) as u64
    }
}

impl Drop for Loading {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
