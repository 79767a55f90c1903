//! Loaders and processes: killed at any moment, forked.

#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use granary_loader::{Method, Options, Shuffle, Source, SourceOptions, State};

use common::{folder, loader, numbers, rest};

fn options() -> Options {
    let shuffle = Shuffle { run_bytes: 4096, lanes: 4, mix_samples: 3, ..Method::Window.into() };
    Options { batch_samples: 10, seed: 11, shuffle, ..Options::default() }
}

/// With the variable set this is not a test but the training that is killed: it says what it was given and where it is.
#[test]
fn the_training_that_is_killed() {
    let Ok(folder) = std::env::var("GRANARY_TEST_TRAINING") else { return };
    let source = Source::open(&folder, SourceOptions::default()).unwrap();
    let loader = loader(&source, options());
    let mut out = std::io::stdout();
    while let Some(batch) = loader.next_batch().unwrap() {
        writeln!(out, "given {}", serde_json::to_string(&numbers(&batch)).unwrap()).unwrap();
        writeln!(out, "state {}", loader.state().to_json()).unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn after_a_kill_it_goes_on_from_the_last_state() {
    let dir = tempfile::tempdir().unwrap();
    let source = folder(dir.path(), &[70, 80, 50], 400);
    let expected: Vec<u64> =
        rest(&loader(&source, options())).into_iter().flat_map(|(_, samples)| samples).collect();
    for lines in [2, 9, 24] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_training_that_is_killed", "--nocapture"])
            .env("GRANARY_TEST_TRAINING", dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut given: Vec<u64> = Vec::new();
        let mut state = None;
        let mut read = 0;
        let mut pending = Vec::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if let Some(batch) = line.strip_prefix("given ").or(line.split("given ").nth(1)) {
                pending = serde_json::from_str(batch).unwrap();
            } else if let Some(json) = line.strip_prefix("state ") {
                // Only what the state says was given counts.
                given.append(&mut pending);
                state = Some(State::from_json(json).unwrap());
            } else {
                continue;
            }
            read += 1;
            if read == lines {
                // SIGKILL.
                child.kill().unwrap();
                break;
            }
        }
        child.wait().unwrap();
        let again = loader(&source, options());
        again.load_state(&state.unwrap()).unwrap();
        given.extend(rest(&again).into_iter().flat_map(|(_, samples)| samples));
        assert_eq!(given, expected, "killed after {lines} lines");
    }
}

/// What a forked child says, through a pipe.
fn in_a_child(work: impl FnOnce() -> String) -> String {
    let (read, mut write) = std::io::pipe().unwrap();
    // SAFETY: the child runs nothing but `work` and leaves without running anything of the test's.
    match unsafe { libc::fork() } {
        -1 => panic!("cannot fork"),
        0 => {
            let said =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or("panicked".to_owned());
            write.write_all(said.as_bytes()).ok();
            // SAFETY: ends the process at once.
            unsafe { libc::_exit(0) }
        }
        child => {
            drop(write);
            let said = std::io::read_to_string(read).unwrap();
            // SAFETY: the child is ours.
            assert_eq!(unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) }, child);
            said
        }
    }
}

#[test]
fn a_forked_child_goes_on_with_threads_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let source = folder(dir.path(), &[70, 80, 50], 400);
    let loader = loader(&source, options());
    let first = numbers(&loader.next_batch().unwrap().unwrap());
    let said = in_a_child(|| {
        let sample = common::says(&source.sample(150).unwrap());
        let many: Vec<u64> = source.read_many(&[3, 199]).unwrap().iter().map(common::says).collect();
        format!("{sample} {many:?} {:?}", rest(&loader))
    });
    // The parent is where it was.
    let rest = rest(&loader);
    assert_eq!(said, format!("150 [3, 199] {rest:?}"));
    assert_eq!((first.len(), rest.len()), (10, 19));
}
