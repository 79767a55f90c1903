//! Plots: bars with what the rounds lie between. `plotters` draws them, with nothing but its SVG backend.

use anyhow::{Result, anyhow};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use super::numbers::number;
use super::{PEERS, RAW_GETS, RAW_PUTS, Row, title};
use crate::stats::Summary;
use crate::system::{EXT4, GRANARY};

const WIDTH: u32 = 1100;
const BAR_HEIGHT: u32 = 16;
const GAP: f64 = 1.0;
/// A rate far below its base would have no bar: the axis is logarithmic, and begins here.
const RATIO_MIN: f64 = 0.001;

/// One bar.
#[derive(Clone, Debug, PartialEq)]
struct Bar {
    /// Of the work; the same for the bars of a row, which lie together.
    work: String,
    system: &'static str,
    value: Summary,
}

/// Each plot's file name and its SVG; a plot without a bar is left out.
pub fn all(rows: &[Row]) -> Result<Vec<(&'static str, String)>> {
    let mut plots = Vec::new();
    let ratios = ratios(rows);
    if !ratios.is_empty() {
        plots.push((
            "ratios.svg",
            draw("ratio to the base of the row (1: as fast; logarithmic)", &ratios, true)?,
        ));
    }
    let rates = throughput(rows);
    if !rates.is_empty() {
        plots.push(("throughput.svg", draw("MB/s", &rates, false)?));
    }
    Ok(plots)
}

/// Of rates to their base, by each system that has one.
fn ratios(rows: &[Row]) -> Vec<Bar> {
    let systems: Vec<&'static str> = [GRANARY].into_iter().chain(PEERS).collect();
    let of_row = |row: &Row| {
        let bars = systems.iter().filter_map(|&system| {
            let value = row.ratio(system).filter(|s| s.median.is_finite())?;
            Some(Bar { work: work_of(row), system, value })
        });
        bars.collect::<Vec<_>>()
    };
    rows.iter().filter(|row| row.unit.ends_with("/s")).flat_map(of_row).collect()
}

/// Of bytes, by everything that moved some.
fn throughput(rows: &[Row]) -> Vec<Bar> {
    let systems: Vec<&'static str> = [RAW_GETS, RAW_PUTS, EXT4, GRANARY].into_iter().chain(PEERS).collect();
    let of_row = |row: &Row| {
        let bars = systems
            .iter()
            .filter_map(|&system| Some(Bar { work: row.work.clone(), system, value: row.summary(system)? }));
        bars.collect::<Vec<_>>()
    };
    rows.iter().filter(|row| row.unit == "MB/s").flat_map(of_row).collect()
}

fn work_of(row: &Row) -> String {
    if row.base == EXT4 { row.work.clone() } else { format!("{} (to {})", row.work, row.base) }
}

fn colour(system: &str) -> RGBColor {
    match system {
        GRANARY => RGBColor(0, 114, 178), // Okabe and Ito's palette, which colour-blind people tell apart
        EXT4 => RGBColor(120, 120, 120),
        RAW_GETS | RAW_PUTS => RGBColor(190, 190, 190),
        "juicefs" => RGBColor(230, 159, 0),
        "s3fs" => RGBColor(0, 158, 115),
        _ => RGBColor(204, 121, 167),
    }
}

/// Where each bar lies, from the top: bars of one work together, a gap and a line for its title before them.
fn places(bars: &[Bar]) -> (Vec<f64>, f64) {
    let mut y = 0.0;
    let mut places = Vec::with_capacity(bars.len());
    for (i, bar) in bars.iter().enumerate() {
        if i == 0 || bars[i - 1].work != bar.work {
            y += GAP + 1.0;
        }
        places.push(y);
        y += 1.0;
    }
    (places, y + GAP)
}

fn draw(caption: &str, bars: &[Bar], logarithmic: bool) -> Result<String> {
    let (places, rows) = places(bars);
    let largest = bars.iter().map(|bar| bar.value.max).fold(1.0, f64::max) * 1.1;
    let mut svg = String::new();
    {
        let height = 60 + (rows * f64::from(BAR_HEIGHT)) as u32;
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        area.fill(&WHITE).map_err(|e| anyhow!("cannot draw: {e}"))?;
        let mut builder = ChartBuilder::on(&area);
        builder.margin(10).margin_right(130).x_label_area_size(40);
        let y = rows..0.0;
        if logarithmic {
            let x = (RATIO_MIN..largest).log_scale();
            let chart = builder.build_cartesian_2d(x, y).map_err(|e| anyhow!("cannot draw: {e}"))?;
            bars_on(chart, caption, bars, &places, RATIO_MIN)
        } else {
            let chart =
                builder.build_cartesian_2d(0.0..largest, y).map_err(|e| anyhow!("cannot draw: {e}"))?;
            bars_on(chart, caption, bars, &places, 0.0)
        }
        .map_err(|e| anyhow!("cannot draw: {e}"))?;
        area.present().map_err(|e| anyhow!("cannot draw: {e}"))?;
    }
    Ok(svg)
}

fn bars_on<'a, X>(
    mut chart: ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, RangedCoordf64>>,
    caption: &str,
    bars: &[Bar],
    places: &[f64],
    least: f64,
) -> Result<(), String>
where
    X: Ranged<ValueType = f64> + plotters::coord::ranged1d::ValueFormatter<f64>,
{
    let failed = |e: DrawingAreaErrorKind<_>| format!("{e:?}");
    let label = |value: &f64| number(*value);
    let mut mesh = chart.configure_mesh();
    mesh.disable_y_mesh().disable_y_axis().x_desc(caption).x_labels(8).x_label_formatter(&label);
    mesh.draw().map_err(failed)?;
    let text = ("sans-serif", 12).into_font();
    for (i, (bar, &y)) in bars.iter().zip(places).enumerate() {
        if i == 0 || bars[i - 1].work != bar.work {
            let title = Text::new(bar.work.clone(), (least, y - 1.0), text.clone());
            chart.draw_series([title]).map_err(failed)?;
        }
        let Summary { median, min, max } = bar.value;
        let fill = colour(bar.system).filled();
        let rectangle = Rectangle::new([(least, y + 0.1), (median.max(least), y + 0.9)], fill);
        chart.draw_series([rectangle]).map_err(failed)?;
        let range = [(min.max(least), y + 0.5), (max.max(least), y + 0.5)];
        chart.draw_series([PathElement::new(range, BLACK.stroke_width(1))]).map_err(failed)?;
        let words = format!(" {} {}", title(bar.system), number(median));
        let label = Text::new(words, (max.max(least), y + 0.1), text.clone());
        chart.draw_series([label]).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Aim;

    fn row(work: &str, unit: &'static str, base: &'static str, samples: &[(&'static str, &[f64])]) -> Row {
        let mut row = Row::new(work, unit, base, Aim::None);
        row.samples.extend(samples.iter().map(|(system, values)| (*system, values.to_vec())));
        row
    }

    #[test]
    fn bars_are_of_rates_with_a_base_and_of_bytes() {
        let rows = [
            row(
                "create <4 KiB>",
                "files/s",
                EXT4,
                &[(EXT4, &[10.0, 20.0]), (GRANARY, &[5.0, 20.0]), ("juicefs", &[1.25, 5.0])],
            ),
            row("cold", "MB/s", RAW_GETS, &[(RAW_GETS, &[400.0]), (GRANARY, &[300.0])]),
            row("memory", "MiB", EXT4, &[(GRANARY, &[90.0])]),
        ];
        let ratios = ratios(&rows);
        let what: Vec<_> =
            ratios.iter().map(|bar| (bar.work.as_str(), bar.system, bar.value.median)).collect();
        assert_eq!(
            what,
            [
                ("create <4 KiB>", GRANARY, 0.75),
                ("create <4 KiB>", "juicefs", 0.1875),
                ("cold (to raw GETs)", GRANARY, 0.75)
            ]
        );
        assert_eq!(throughput(&rows).len(), 2);

        let plots = all(&rows).unwrap();
        assert_eq!(plots.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["ratios.svg", "throughput.svg"]);
        let svg = &plots[0].1;
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
        assert!(svg.contains("create &lt;4 KiB&gt;") && svg.contains("JuiceFS 0.19"), "{svg}");
        // The frame's background, and three bars.
        assert_eq!(svg.matches("<rect").count(), 4, "{svg}");
        assert!(all(&rows[2..]).unwrap().is_empty());
    }

    #[test]
    fn bars_of_one_work_lie_together() {
        let value = Summary { median: 1.0, min: 1.0, max: 1.0 };
        let bar = |work: &str| Bar { work: work.into(), system: GRANARY, value };
        let (places, rows) = places(&[bar("a"), bar("a"), bar("b")]);
        assert_eq!((places, rows), (vec![2.0, 3.0, 6.0], 8.0));
    }
}
