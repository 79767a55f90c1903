//! What a person sees while a data set is worked on: files, bytes, rate, time left. Nothing when nobody looks.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use granary_core::{Clock, SystemClock};
use granary_packer::counts::Counts;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::progress::Rate;
use crate::units::{show_bytes, show_period_ms};

/// How often it is drawn.
const PERIOD: Duration = Duration::from_millis(200);

/// Done and to do; a total of 0 is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    pub files: u64,
    pub bytes: u64,
    pub files_total: u64,
    pub bytes_total: u64,
}

impl From<&Counts> for Done {
    fn from(counts: &Counts) -> Done {
        let of = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed);
        Done {
            files: of(&counts.files),
            bytes: of(&counts.bytes),
            files_total: of(&counts.files_total),
            bytes_total: of(&counts.bytes_total),
        }
    }
}

pub struct Bar;

impl Bar {
    /// Does the work, and draws how far it is on standard error when that is a terminal.
    pub fn during<T>(what: &str, quiet: bool, done: impl Fn() -> Done + Sync, work: impl FnOnce() -> T) -> T {
        if quiet || !std::io::stderr().is_terminal() {
            return work();
        }
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let drawing = scope.spawn(|| draw(what, &done, &ended));
            let result = work();
            ended.store(true, Ordering::Release);
            drawing.thread().unpark();
            result
        })
    }
}

fn draw(what: &str, done: &impl Fn() -> Done, ended: &AtomicBool) {
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{prefix} [{bar:24}] {msg}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(what.to_owned());
    let mut rate = Rate::default();
    while !ended.load(Ordering::Acquire) {
        let now = done();
        rate.sample(SystemClock.monotonic(), now.bytes);
        let (position, length) = match now.bytes_total {
            0 => (now.files, now.files_total),
            total => (now.bytes, total),
        };
        bar.set_length(length.max(position).max(1));
        bar.set_position(if length == 0 { 0 } else { position });
        bar.set_message(describe(now, &rate));
        std::thread::park_timeout(PERIOD);
    }
    bar.finish_and_clear();
}

fn describe(done: Done, rate: &Rate) -> String {
    let of = |total: u64, shown: String| if total == 0 { String::new() } else { format!(" of {shown}") };
    let mut text = format!(
        "{}{} files, {}{}, {}/s",
        done.files,
        of(done.files_total, done.files_total.to_string()),
        show_bytes(done.bytes),
        of(done.bytes_total, show_bytes(done.bytes_total)),
        show_bytes(rate.bytes_per_s())
    );
    let left = done.bytes_total.saturating_sub(done.bytes);
    if let Some(ms) = rate.left_ms(left).filter(|_| done.bytes_total > 0) {
        text += &format!(", {} left", show_period_ms(ms.div_ceil(1000) * 1000));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_shown() {
        let mut rate = Rate::default();
        rate.sample(Duration::ZERO, 0);
        rate.sample(Duration::from_secs(1), 1 << 20);
        let done = Done { files: 3, bytes: 1 << 20, files_total: 0, bytes_total: 0 };
        assert_eq!(describe(done, &rate), "3 files, 1.0 MiB, 1.0 MiB/s");
        let done = Done { files_total: 9, bytes_total: 3 << 20, ..done };
        assert_eq!(describe(done, &rate), "3 of 9 files, 1.0 MiB of 3.0 MiB, 1.0 MiB/s, 2 s left");
    }
}
