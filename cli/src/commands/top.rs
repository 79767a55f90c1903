//! `granary top`: the node at work. [`model`] makes rates of counters, [`view`] draws them, [`screen`] has the terminal.

pub mod model;
mod screen;
pub mod view;

use std::io::IsTerminal;
use std::time::Duration;

use crate::args::TopArgs;
use crate::client::{Client, block_on};
use crate::exit::{Failure, Outcome};
use crate::output::print_next;
use crate::wire::observe::Stats;
use model::Frame;

/// Shorter intervals would measure the looking.
const INTERVAL_MS_MIN: u64 = 100;

pub fn run(args: &TopArgs) -> Outcome<()> {
    let settings = args.flags.sources().resolve()?;
    let client = Client::new(&settings.socket);
    let interval = Duration::from_millis(args.interval.max(INTERVAL_MS_MIN));
    let look = || block_on(client.get::<Stats>("/v1/stats"));
    if args.once || !args.json && !std::io::stdout().is_terminal() {
        let frame = Frame::since_start(&look()?);
        return if args.json { super::print_json(&frame) } else { super::print(&view::text(&frame)) };
    }
    if args.json { lines(look, interval) } else { screen::run(look, interval) }
}

/// A line of JSON each interval, until the reader goes away.
fn lines(look: impl Fn() -> Outcome<Stats>, interval: Duration) -> Outcome<()> {
    let mut before = look()?;
    loop {
        std::thread::sleep(interval);
        let now = look()?;
        let text = serde_json::to_string(&Frame::between(&before, &now))
            .map_err(|e| Failure::failed(format!("cannot print the figures: {e}")))?;
        print_next((text + "\n").as_bytes())?;
        before = now;
    }
}

/// A duration as people compare them: three digits.
pub fn show_micros(micros: u64) -> String {
    let scaled = |value: f64, unit: &str| match value {
        v if v < 10.0 => format!("{v:.2} {unit}"),
        v if v < 100.0 => format!("{v:.1} {unit}"),
        v => format!("{v:.0} {unit}"),
    };
    match micros {
        0..1_000 => format!("{micros} us"),
        1_000..1_000_000 => scaled(micros as f64 / 1e3, "ms"),
        _ => scaled(micros as f64 / 1e6, "s"),
    }
}

#[cfg(test)]
mod tests {
    use super::show_micros;

    #[test]
    fn durations_have_three_digits() {
        let shown = [0, 999, 1_000, 12_340, 999_000, 2_034_000, 61_000_000].map(show_micros);
        assert_eq!(shown, ["0 us", "999 us", "1.00 ms", "12.3 ms", "999 ms", "2.03 s", "61.0 s"]);
    }
}
