//! What a person sees while a sync runs: bytes and files left, and the rate. Nothing when nobody looks.

use std::io::IsTerminal;
use std::time::Duration;

use granary_core::{Clock, SystemClock};
use granary_maintain::progress::Step;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::say;
use crate::units::{show_bytes, show_period_ms};
use crate::wire::{RecoveryLine, SyncLine, WarmStatus};

/// Bytes stored per second, smoothed over the last seconds, from samples of a counter.
#[derive(Debug, Default)]
pub struct Rate {
    last: Option<(Duration, u64)>,
    bytes_per_s: f64,
}

impl Rate {
    /// `total` bytes had been stored at `now`.
    pub fn sample(&mut self, now: Duration, total: u64) {
        if let Some((then, before)) = self.last {
            let seconds = now.saturating_sub(then).as_secs_f64();
            if seconds < 0.1 {
                return;
            }
            let current = total.saturating_sub(before) as f64 / seconds;
            // The first sample counts whole; later ones decay over about five seconds.
            let weight = if self.bytes_per_s == 0.0 { 1.0 } else { 1.0 - (-seconds / 5.0).exp() };
            self.bytes_per_s += (current - self.bytes_per_s) * weight;
        }
        self.last = Some((now, total));
    }

    pub fn bytes_per_s(&self) -> u64 {
        self.bytes_per_s as u64
    }

    /// How long `bytes` will take; unknown while nothing moves.
    pub fn left_ms(&self, bytes: u64) -> Option<u64> {
        (self.bytes_per_s >= 1.0).then(|| (bytes as f64 / self.bytes_per_s * 1000.0) as u64)
    }
}

/// Progress of one sync on the terminal.
pub struct Progress {
    bar: Option<ProgressBar>,
    rate: Rate,
    /// Most bytes that were left at any time: the bar's full length.
    most: u64,
    /// What was last told where there is no terminal: failures only, each once.
    told: Option<String>,
}

impl Progress {
    /// Drawn on standard error when that is a terminal.
    pub fn new(what: &str) -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{prefix} [{bar:24}] {msg}") {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_prefix(what.to_owned());
            bar
        });
        Progress { bar, rate: Rate::default(), most: 0, told: None }
    }

    pub fn on_line(&mut self, line: &SyncLine) {
        let Some(bar) = &self.bar else { return self.tell_failure(line) };
        let SyncLine::Progress { dirty_bytes, dirty_files, uploaded_bytes, error } = line else {
            bar.finish_and_clear();
            return;
        };
        self.rate.sample(SystemClock.monotonic(), *uploaded_bytes);
        self.most = self.most.max(*dirty_bytes);
        bar.set_length(self.most);
        bar.set_position(self.most - dirty_bytes);
        bar.set_message(describe(*dirty_bytes, *dirty_files, &self.rate, error.as_deref()));
    }
}

impl Progress {
    fn tell_failure(&mut self, line: &SyncLine) {
        if let SyncLine::Progress { error, .. } = line
            && *error != self.told
        {
            if let Some(error) = error {
                say(format_args!("storing fails, and is tried again: {error}"));
            }
            self.told = error.clone();
        }
    }
}

impl Drop for Progress {
    /// Also when the sync ends by an error: the line is not left on the terminal.
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Progress of a warmup on the terminal: files, bytes, rate, time left.
pub struct WarmProgress {
    bar: Option<ProgressBar>,
    rate: Rate,
}

impl WarmProgress {
    /// Drawn on standard error when that is a terminal.
    pub fn new(what: &str) -> WarmProgress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{prefix} [{bar:24}] {msg}") {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_prefix(what.to_owned());
            bar
        });
        WarmProgress { bar, rate: Rate::default() }
    }

    pub fn on_status(&mut self, status: &WarmStatus) {
        let Some(bar) = &self.bar else { return };
        self.rate.sample(SystemClock.monotonic(), status.bytes);
        bar.set_length(status.bytes_total.max(status.bytes).max(1));
        bar.set_position(status.bytes);
        bar.set_message(describe_warmup(status, &self.rate));
    }
}

impl Drop for WarmProgress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn describe_warmup(status: &WarmStatus, rate: &Rate) -> String {
    let more = if status.counted { "" } else { "+" };
    let mut text = format!(
        "{} of {}{more} files, {} of {}{more}, {}/s",
        status.files,
        status.files_total.max(status.files),
        show_bytes(status.bytes),
        show_bytes(status.bytes_total.max(status.bytes)),
        show_bytes(rate.bytes_per_s())
    );
    let left = status.bytes_total.saturating_sub(status.bytes);
    if let Some(ms) = rate.left_ms(left).filter(|_| status.counted) {
        text += &format!(", {} left", show_period_ms(ms.div_ceil(1000) * 1000));
    }
    text
}

/// Steps of a long work on the terminal.
pub struct Steps {
    bar: Option<ProgressBar>,
}

impl Steps {
    /// Drawn on standard error when that is a terminal.
    pub fn new() -> Steps {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("[{bar:24}] {msg}") {
                bar.set_style(style.progress_chars("=> "));
            }
            bar
        });
        Steps { bar }
    }

    pub fn on_step(&self, step: &Step) {
        let Some(bar) = &self.bar else { return };
        bar.set_length(step.total.max(step.done).max(1));
        bar.set_position(if step.total == 0 { 0 } else { step.done });
        bar.set_message(describe_step(step));
    }
}

impl Steps {
    /// A line of one's own, with how much of `total` is done; where there is no terminal it is printed each time.
    pub fn on_line(&self, text: &str, done: u64, total: u64) {
        let Some(bar) = &self.bar else {
            say(text);
            return;
        };
        bar.set_length(total.max(done).max(1));
        bar.set_position(done);
        bar.set_message(text.to_owned());
    }
}

impl Default for Steps {
    fn default() -> Steps {
        Steps::new()
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn describe_step(step: &Step) -> String {
    let mut text = format!("{}: {}", step.doing, step.done);
    if step.total > 0 {
        text += &format!(" of {}", step.total);
    }
    if step.bytes > 0 {
        text += &format!(", {} read", show_bytes(step.bytes));
    }
    text
}

/// How far a recovery is, in words.
pub fn describe_recovery(line: &RecoveryLine) -> String {
    let left = match line.left_ms {
        0 => String::new(),
        ms => format!(", {} left", show_period_ms(ms.div_ceil(1000) * 1000)),
    };
    format!(
        "bringing back what was not in the store: {} of {} read, {} changes ({} new), {} large files{left}",
        show_bytes(line.bytes),
        show_bytes(line.bytes_total),
        line.records,
        line.replayed,
        line.files
    )
}

fn describe(bytes: u64, files: u64, rate: &Rate, error: Option<&str>) -> String {
    let mut text =
        format!("{} in {files} files left, {}/s", show_bytes(bytes), show_bytes(rate.bytes_per_s()));
    if let Some(ms) = rate.left_ms(bytes) {
        text += &format!(", {}", show_period_ms(ms.div_ceil(1000) * 1000));
    }
    if let Some(error) = error {
        text += &format!(" (trying again: {error})");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_follows_the_counter() {
        let mut rate = Rate::default();
        assert_eq!(rate.left_ms(1), None);
        for second in 0..20 {
            rate.sample(Duration::from_secs(second), second * 1_000_000);
        }
        assert!((990_000..=1_000_000).contains(&rate.bytes_per_s()), "{}", rate.bytes_per_s());
        assert_eq!(rate.left_ms(2_000_000).map(|ms| ms / 100), Some(20));
        for second in 20..60 {
            rate.sample(Duration::from_secs(second), 20_000_000);
        }
        assert!(rate.bytes_per_s() < 5_000);
    }

    #[test]
    fn steps_are_shown_with_what_is_known() {
        let step = Step { doing: "listing".into(), done: 7, total: 0, bytes: 0 };
        assert_eq!(describe_step(&step), "listing: 7");
        let step = Step { doing: "reading".into(), done: 7, total: 9, bytes: 1 << 20 };
        assert_eq!(describe_step(&step), "reading: 7 of 9, 1.0 MiB read");
    }

    #[test]
    fn a_warmup_is_told_with_what_is_counted_so_far() {
        let mut rate = Rate::default();
        rate.sample(Duration::ZERO, 0);
        rate.sample(Duration::from_secs(1), 1 << 20);
        let mut status = WarmStatus {
            files: 2,
            bytes: 1 << 20,
            files_total: 1000,
            bytes_total: 3 << 20,
            ..WarmStatus::default()
        };
        let text = describe_warmup(&status, &rate);
        assert_eq!(text, "2 of 1000+ files, 1.0 MiB of 3.0 MiB+, 1.0 MiB/s");
        status.counted = true;
        assert!(describe_warmup(&status, &rate).ends_with("1.0 MiB/s, 2 s left"));
    }

    #[test]
    fn a_recovery_is_told_with_the_time_left() {
        let line = RecoveryLine {
            bytes: 1 << 30,
            bytes_total: 4 << 30,
            records: 9,
            replayed: 2,
            files: 1,
            left_ms: 2_100,
        };
        let text = describe_recovery(&line);
        assert!(
            text.ends_with("1.0 GiB of 4.0 GiB read, 9 changes (2 new), 1 large files, 3 s left"),
            "{text}"
        );
        assert!(!describe_recovery(&RecoveryLine { left_ms: 0, ..line }).contains("left"));
    }

    #[test]
    fn what_is_shown() {
        let mut rate = Rate::default();
        rate.sample(Duration::ZERO, 0);
        rate.sample(Duration::from_secs(1), 1 << 20);
        let text = describe(3 << 20, 12, &rate, Some("store does not answer"));
        assert_eq!(text, "3.0 MiB in 12 files left, 1.0 MiB/s, 3 s (trying again: store does not answer)");
    }
}
