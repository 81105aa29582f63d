//! From figures to a bar chart.

use std::fmt::Write as _;

use crate::Outcome;
use crate::report::{Figures, YARDSTICK, geometric_mean, read_rows, significant};

/// Pixels: a bar's height, the gap between rows, the columns left of and at the right of the bars.
const BAR: usize = 7;
const GAP: usize = 8;
const TITLES: usize = 330;
const BARS: usize = 520;
const TOP: usize = 70;
/// Ratios at the ends of the axis.
const LEAST: f64 = 0.1;
const MOST: f64 = 32.0;
/// Ratios that are marked.
const MARKS: [f64; 8] = [0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0];
/// One for each system, told apart also by those who see few colours.
const COLOURS: [&str; 6] = [
    "#0b6fa4", "#56b4e9", "#e69f00", "#d55e00", "#009e73", "#999999",
];

/// Prints an SVG: for each row a bar for each system, from the yardstick (1) to the ratio, on a
/// logarithmic scale, so that twice as slow is as long as twice as fast.
pub(crate) fn chart(title: &str, rows: &str, results: &str, systems: &[String]) -> Outcome<()> {
    let figures = Figures::read(results)?;
    let rows = read_rows(rows)?;
    let others: Vec<&String> = systems
        .iter()
        .filter(|system| *system != YARDSTICK)
        .collect();
    let mut lines: Vec<(String, Vec<Option<f64>>)> = rows
        .iter()
        .map(|(row, title)| {
            let ratios = others.iter().map(|system| figures.ratio(row, system));
            (title.clone(), ratios.collect())
        })
        .collect();
    lines.retain(|(_, ratios)| ratios.iter().any(Option::is_some));
    let means = others
        .iter()
        .map(|system| geometric_mean(&figures, &rows, system).map(|(mean, _)| mean));
    lines.push(("geometric mean".to_owned(), means.collect()));

    let step = BAR * others.len() + GAP;
    let height = TOP + step * lines.len() + 30;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"20\" font-size=\"15\">{title}</text>\n",
        width = TITLES + BARS + 20,
        title = escaped(title),
    );
    for (number, system) in others.iter().enumerate() {
        let x = 10 + number * 150;
        let colour = COLOURS[number % COLOURS.len()];
        writeln!(
            svg,
            "<rect x=\"{x}\" y=\"32\" width=\"12\" height=\"10\" fill=\"{colour}\"/>\
             <text x=\"{}\" y=\"42\">{}</text>",
            x + 17,
            escaped(system),
        )?;
    }
    for mark in MARKS {
        let x = position(mark);
        let (colour, width) = if mark == 1.0 {
            ("black", 1.5)
        } else {
            ("#cccccc", 0.7)
        };
        writeln!(
            svg,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{}\" stroke=\"{colour}\" \
             stroke-width=\"{width}\"/><text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\" \
             fill=\"#555555\">{mark}</text>",
            height - 25,
            TOP - 5,
        )?;
    }
    for (number, (title, ratios)) in lines.iter().enumerate() {
        let y = TOP + number * step + GAP / 2;
        writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            TITLES - 8,
            y + (step - GAP) / 2 + 4,
            escaped(title),
        )?;
        for (which, ratio) in ratios.iter().enumerate() {
            let Some(ratio) = ratio else { continue };
            let (from, to) = (position(1.0), position(*ratio));
            writeln!(
                svg,
                "<rect x=\"{:.1}\" y=\"{}\" width=\"{:.1}\" height=\"{}\" fill=\"{}\">\
                 <title>{}</title></rect>",
                from.min(to),
                y + which * BAR,
                (to - from).abs().max(0.5),
                BAR - 1,
                COLOURS[which % COLOURS.len()],
                significant(*ratio),
            )?;
        }
    }
    writeln!(
        svg,
        "<text x=\"{TITLES}\" y=\"{}\" fill=\"#555555\">time as a ratio to kernel overlayfs, \
         logarithmic; to the left is faster</text>\n</svg>",
        height - 8,
    )?;
    print!("{svg}");
    Ok(())
}

/// Where a ratio lies on the axis, in pixels.
fn position(ratio: f64) -> f64 {
    let part = (ratio.clamp(LEAST, MOST) / LEAST).ln() / (MOST / LEAST).ln();
    TITLES as f64 + part * BARS as f64
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
