//! The terminal: what is drawn, and what keys do.

use std::io;
use std::time::Duration;

use granary_core::{Clock, SystemClock};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use super::model::Frame;
use super::view::{Looking, draw};
use crate::exit::{Failure, Outcome};
use crate::wire::observe::Stats;

/// Draws until told to end. While the node does not answer, the last figures stay, with why.
pub fn run(look: impl Fn() -> Outcome<Stats>, interval: Duration) -> Outcome<()> {
    let first = look()?; // a node that is not there is told before the screen is taken
    let cannot = |e: io::Error| Failure::io("cannot use the terminal (give --once)", &e);
    let mut terminal = ratatui::try_init().map_err(cannot)?;
    let shown = show(&mut terminal, look, first, interval);
    ratatui::try_restore().map_err(cannot)?;
    shown.map_err(cannot)
}

fn show(
    terminal: &mut DefaultTerminal,
    look: impl Fn() -> Outcome<Stats>,
    first: Stats,
    interval: Duration,
) -> io::Result<()> {
    let clock = SystemClock;
    let (mut frame, mut before, mut looking) = (Frame::since_start(&first), first, Looking::default());
    let mut due = clock.monotonic() + interval;
    loop {
        frame.sort(looking.order);
        looking.chosen = looking.chosen.min(frame.mounts.len().saturating_sub(1));
        terminal.draw(|screen| draw(screen, &frame, &looking))?;
        let left = due.saturating_sub(clock.monotonic());
        if event::poll(left)? {
            if let Event::Key(key) = event::read()?
                && key.kind != KeyEventKind::Release
                && !press(key.code, key.modifiers, &mut looking)
            {
                return Ok(());
            }
            continue;
        }
        due = clock.monotonic() + interval;
        match look() {
            Ok(now) => {
                frame = Frame::between(&before, &now);
                (before, looking.trouble) = (now, None);
            }
            Err(failure) => looking.trouble = Some(failure.message),
        }
    }
}

/// Whether it goes on.
fn press(key: KeyCode, modifiers: KeyModifiers, looking: &mut Looking) -> bool {
    match key {
        KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => return false,
        KeyCode::Char('q') | KeyCode::Esc => return false,
        KeyCode::Up | KeyCode::Char('k') => looking.chosen = looking.chosen.saturating_sub(1),
        KeyCode::Down | KeyCode::Char('j') => looking.chosen += 1,
        KeyCode::Char('s') => looking.order = looking.order.next(),
        KeyCode::Char('h' | '?') => looking.help = !looking.help,
        _ => {}
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::top::model::Order;

    #[test]
    fn keys_do_what_the_help_says() {
        let mut looking = Looking::default();
        let mut press = |key| press(key, KeyModifiers::NONE, &mut looking);
        for key in [KeyCode::Down, KeyCode::Char('j'), KeyCode::Up, KeyCode::Char('s'), KeyCode::Char('h')] {
            assert!(press(key));
        }
        assert!(!press(KeyCode::Char('q')));
        assert_eq!((looking.chosen, looking.order, looking.help), (1, Order::Ops, true));
        assert!(!super::press(KeyCode::Char('c'), KeyModifiers::CONTROL, &mut looking));
        assert!(super::press(KeyCode::Char('c'), KeyModifiers::NONE, &mut looking));
    }
}
