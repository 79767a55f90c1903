//! The figures on a screen, and as text.

use ratatui::Frame as Screen;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Cell, Paragraph, Row, Table, Wrap};

use super::model::{Frame, MountFrame, NodeFrame, OpFrame, Order};
use super::show_micros;
use crate::units::{show_bytes, show_period_ms};

/// What of the figures is looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looking {
    /// Of the mounts as they are in order.
    pub chosen: usize,
    pub order: Order,
    pub help: bool,
    /// Why there are no newer figures.
    pub trouble: Option<String>,
}

const MOUNTS: [&str; 11] = [
    "NAMESPACE",
    "OPS/S",
    "READ/S",
    "WRITE/S",
    "IO WAIT",
    "IN FLIGHT",
    "P50",
    "P99",
    "STORE",
    "DIRTY",
    "DRAIN",
];
const OPS: [&str; 10] =
    ["OPERATION", "/S", "COUNT", "FAILED", "WAITED", "IN FLIGHT", "P50", "P95", "P99", "P99.9"];

fn rate(bytes: f64) -> String {
    match bytes as u64 {
        0 => "-".to_owned(),
        bytes => show_bytes(bytes),
    }
}

fn percent(part: Option<f64>) -> String {
    part.map_or("-".to_owned(), |part| format!("{:.0} %", part * 100.0))
}

fn micros(us: Option<u64>) -> String {
    us.map_or("-".to_owned(), show_micros)
}

fn per_s(rate: f64) -> String {
    match rate {
        0.0 => "-".to_owned(),
        r if r < 10.0 => format!("{r:.1}"),
        r => format!("{r:.0}"),
    }
}

/// The slowest that programs wait for data in: its percentiles stand for the mount.
fn leading(mount: &MountFrame) -> Option<&OpFrame> {
    mount.ops.iter().find(|op| op.op == "read").or(mount.ops.first())
}

fn mount_cells(mount: &MountFrame) -> [String; 11] {
    let op = leading(mount);
    let store = mount.tiers.iter().find(|tier| tier.tier == "store");
    let read = mount.tiers.iter().any(|tier| tier.reads > 0);
    let drain = match (mount.drain_bytes_per_s, mount.left_ms) {
        (Some(rate), Some(left)) => format!("{}/s, {} left", show_bytes(rate), show_period_ms(left)),
        (Some(rate), None) => format!("{}/s", show_bytes(rate)),
        (None, _) => "-".to_owned(),
    };
    [
        mount.namespace.clone(),
        per_s(mount.ops_per_s),
        rate(mount.read_bytes_per_s),
        rate(mount.written_bytes_per_s),
        percent(Some(mount.io_wait)),
        mount.in_flight.to_string(),
        micros(op.and_then(|op| op.p50_us)),
        micros(op.and_then(|op| op.p99_us)),
        percent(store.filter(|_| read).map(|tier| tier.share)),
        rate(mount.dirty_bytes as f64),
        drain,
    ]
}

fn op_cells(op: &OpFrame) -> [String; 10] {
    [
        op.op.clone(),
        per_s(op.per_s),
        op.count.to_string(),
        op.failed.to_string(),
        op.waited.to_string(),
        op.in_flight.to_string(),
        micros(op.p50_us),
        micros(op.p95_us),
        micros(op.p99_us),
        micros(op.p999_us),
    ]
}

fn node_lines(seconds: f64, node: &NodeFrame) -> [String; 2] {
    let optional = |name: &str, rate: Option<f64>| {
        rate.map_or(String::new(), |rate| format!(", {name} {}/s", per_s(rate)))
    };
    [
        format!(
            "last {seconds:.1} s   memory {}   cache {} of {}   objects read: memory {}, disk {}, store {}",
            show_bytes(node.memory_bytes),
            show_bytes(node.cache_bytes),
            show_bytes(node.cache_bytes_max),
            percent(node.memory_hits),
            percent(node.disk_hits),
            percent(node.store_reads),
        ),
        format!(
            "store: {} in flight, {} waiting, {}/s fetched{}{}   prefetch: {} useful/s, {} wasted/s",
            node.store_in_flight,
            node.store_waiting,
            rate(node.fetched_bytes_per_s),
            optional("hedged", node.hedges_per_s),
            optional("stragglers", node.stragglers_per_s),
            per_s(node.prefetch_useful_per_s),
            per_s(node.prefetch_wasted_per_s),
        ),
    ]
}

fn tier_line(mount: &MountFrame) -> String {
    let read = mount.tiers.iter().filter(|tier| tier.reads > 0);
    let parts: Vec<String> = read
        .map(|tier| format!("{} {} ({})", tier.tier, percent(Some(tier.share)), show_bytes(tier.bytes)))
        .collect();
    match parts.is_empty() {
        true => "read from: nothing (what the kernel had itself is not seen)".to_owned(),
        false => format!("read from: {} (what the kernel had itself is not seen)", parts.join(", ")),
    }
}

/// For pipes: everything of every mount.
pub fn text(frame: &Frame) -> String {
    let mut out = node_lines(frame.seconds, &frame.node).join("\n") + "\n\n";
    let header = MOUNTS.map(str::to_owned);
    let rows: Vec<_> = std::iter::once(header).chain(frame.mounts.iter().map(mount_cells)).collect();
    out += &crate::commands::columns(&rows);
    for mount in &frame.mounts {
        out += &format!(
            "\n{} ({}) at {}\n{}\n",
            mount.namespace,
            mount.mode,
            mount.dirs.join(", "),
            tier_line(mount)
        );
        if let Some(error) = &mount.error {
            out += &format!("STORING FAILS: {error}\n");
        }
        let header = OPS.map(str::to_owned);
        let rows: Vec<_> = std::iter::once(header).chain(mount.ops.iter().map(op_cells)).collect();
        out += &crate::commands::columns(&rows);
    }
    out
}

/// For people at a terminal.
pub fn draw(screen: &mut Screen<'_>, frame: &Frame, looking: &Looking) {
    let mounts = (frame.mounts.len() as u16 + 2).clamp(3, (screen.area().height / 3 + 2).max(3));
    let areas = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(mounts),
        Constraint::Min(3),
        Constraint::Length(1),
    ])
    .split(screen.area());
    let lines: Vec<Line<'_>> = node_lines(frame.seconds, &frame.node).into_iter().map(Line::from).collect();
    screen.render_widget(Paragraph::new(lines), areas[0]);
    draw_mounts(screen, areas[1], frame, looking);
    match frame.mounts.get(looking.chosen) {
        _ if looking.help => draw_help(screen, areas[2]),
        Some(mount) => draw_mount(screen, areas[2], mount),
        None => screen.render_widget(Paragraph::new("nothing is mounted that you may see"), areas[2]),
    }
    let foot = match &looking.trouble {
        Some(trouble) => format!("NO NEWER FIGURES: {trouble}"),
        None => format!("q quit  up/down choose  s sort (by {})  h help", looking.order.name()),
    };
    screen.render_widget(Paragraph::new(foot), areas[3]);
}

fn table<'a, const N: usize>(header: [&'a str; N], rows: Vec<Row<'a>>, first: u16) -> Table<'a> {
    let widths = (0..N).map(|at| match at {
        0 => Constraint::Length(first),
        // A rate and a time left.
        at if at + 1 == N => Constraint::Fill(2),
        _ => Constraint::Fill(1),
    });
    Table::new(rows, widths).header(Row::new(header).style(Style::new().add_modifier(Modifier::BOLD)))
}

fn row<const N: usize>(cells: [String; N]) -> Row<'static> {
    Row::new(cells.into_iter().map(Cell::from))
}

fn draw_mounts(screen: &mut Screen<'_>, area: Rect, frame: &Frame, looking: &Looking) {
    // The chosen one is always on the screen.
    let room = usize::from(area.height.saturating_sub(2)).max(1);
    let first = (looking.chosen + 1).saturating_sub(room);
    let rows = frame.mounts.iter().enumerate().skip(first).map(|(at, mount)| {
        let style =
            if at == looking.chosen { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() };
        row(mount_cells(mount)).style(style)
    });
    let widest = frame.mounts.iter().map(|mount| mount.namespace.len()).max().unwrap_or(0);
    let table = table(MOUNTS, rows.collect(), widest.clamp(9, 32) as u16);
    screen.render_widget(table, area);
}

fn draw_mount(screen: &mut Screen<'_>, area: Rect, mount: &MountFrame) {
    let title = format!(" {} ({}) at {} ", mount.namespace, mount.mode, mount.dirs.join(", "));
    let block = Block::bordered().title(title);
    let inner = block.inner(area);
    screen.render_widget(block, area);
    let areas =
        Layout::vertical([Constraint::Length(if mount.error.is_some() { 2 } else { 1 }), Constraint::Min(1)])
            .split(inner);
    let mut lines = vec![Line::from(tier_line(mount))];
    lines.extend(mount.error.as_ref().map(|error| Line::from(format!("STORING FAILS: {error}"))));
    screen.render_widget(Paragraph::new(lines), areas[0]);
    let rows = mount.ops.iter().map(|op| row(op_cells(op))).collect();
    screen.render_widget(table(OPS, rows, 16), areas[1]);
}

const HELP: &str = "q, Esc       quit\n\
    up, down     choose a mount (k and j do too)\n\
    s            sort the mounts by the next column\n\
    h, ?         this\n\n\
    IO WAIT      time that programs waited for data that was not ready, in a second of time; several may wait at once\n\
    P50, P99     of reads, from the kernel's request to its answer; of the busiest operation where nothing is read\n\
    STORE        reads that waited for the store\n\
    DIRTY        bytes that are not in the store yet; DRAIN: how fast they go there\n\
    WAITED       requests that were not ready in memory\n\
    What the kernel has in its page cache, or reads from the node's disk itself, asks nobody and is not counted.";

fn draw_help(screen: &mut Screen<'_>, area: Rect) {
    let help = Paragraph::new(HELP).wrap(Wrap { trim: false }).block(Block::bordered().title(" help "));
    screen.render_widget(help, area);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::top::model::tests::{before, now};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::buffer::Buffer;

    fn drawn(frame: &Frame, looking: &Looking, width: u16, height: u16) -> Buffer {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|screen| draw(screen, frame, looking)).unwrap();
        terminal.backend().buffer().clone()
    }

    fn symbols(buffer: &Buffer) -> Vec<String> {
        let width = usize::from(buffer.area.width);
        let lines = buffer.content.chunks(width);
        lines
            .map(|line| line.iter().map(|cell| cell.symbol()).collect::<String>().trim_end().to_owned())
            .collect()
    }

    fn wanted_screen() -> String {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/commands/top/screen.txt");
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn the_screen_is_what_it_should_be() {
        let mut frame = Frame::between(&before(), &now());
        frame.sort(Order::Read);
        let looking = Looking { order: Order::Read, ..Looking::default() };
        let buffer = drawn(&frame, &looking, 132, 13);
        assert_eq!(symbols(&buffer), wanted_screen().lines().map(str::to_owned).collect::<Vec<_>>());
        // The same symbols, with styles: the chosen mount is reversed, headers are bold.
        let mut wanted = Buffer::with_lines(wanted_screen().lines().map(|line| format!("{line:<132}")));
        wanted.set_style(Rect::new(0, 2, 132, 1), Style::new().add_modifier(Modifier::BOLD));
        wanted.set_style(Rect::new(0, 3, 132, 1), Style::new().add_modifier(Modifier::REVERSED));
        wanted.set_style(Rect::new(1, 8, 130, 1), Style::new().add_modifier(Modifier::BOLD));
        assert_eq!(buffer, wanted);
    }

    #[test]
    fn a_small_or_an_empty_screen_is_no_trouble() {
        let frame = Frame::between(&before(), &now());
        for (width, height) in [(1, 1), (20, 3), (300, 100)] {
            drawn(&frame, &Looking::default(), width, height);
        }
        let empty = drawn(&Frame::default(), &Looking::default(), 80, 10);
        assert!(symbols(&empty).iter().any(|line| line == "nothing is mounted that you may see"));
    }

    #[test]
    fn help_and_trouble_are_told() {
        let frame = Frame::between(&before(), &now());
        let looking =
            Looking { help: true, trouble: Some("no node is running".into()), ..Looking::default() };
        let all = symbols(&drawn(&frame, &looking, 132, 24)).join("\n");
        assert!(
            all.contains("sort the mounts") && all.contains("NO NEWER FIGURES: no node is running"),
            "{all}"
        );
    }

    #[test]
    fn pipes_get_every_mount() {
        let text = text(&Frame::between(&before(), &now()));
        for part in [
            "user/alice (work) at /mnt/alice",
            "group/asr (data)",
            "P99.9",
            "hedged 2.0/s",
            "stage 75 % (1.0 MiB)",
        ] {
            assert!(text.contains(part), "{part:?} in:\n{text}");
        }
    }
}
