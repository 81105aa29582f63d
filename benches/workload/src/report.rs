//! From figures to tables.

use std::collections::BTreeMap;
use std::fs;

use crate::Outcome;

/// The system that the others are measured by.
pub(crate) const YARDSTICK: &str = "overlay";

/// Medians and their spread, by row and system.
pub(crate) struct Figures(BTreeMap<(String, String), Vec<f64>>);

impl Figures {
    /// Reads lines of `row<TAB>system<TAB>seconds`.
    pub(crate) fn read(results: &str) -> Outcome<Self> {
        let mut figures: BTreeMap<_, Vec<f64>> = BTreeMap::new();
        for line in fs::read_to_string(results)?.lines() {
            let mut fields = line.split('\t');
            let (Some(row), Some(system), Some(seconds)) =
                (fields.next(), fields.next(), fields.next())
            else {
                return Err(format!("not a result: {line:?}").into());
            };
            figures
                .entry((row.to_owned(), system.to_owned()))
                .or_default()
                .push(seconds.parse()?);
        }
        for values in figures.values_mut() {
            values.sort_by(f64::total_cmp);
        }
        Ok(Self(figures))
    }

    /// The median of a row on a system, in seconds.
    pub(crate) fn median(&self, row: &str, system: &str) -> Option<f64> {
        median(self.0.get(&(row.to_owned(), system.to_owned()))?)
    }

    /// The median as a ratio to the yardstick's.
    pub(crate) fn ratio(&self, row: &str, system: &str) -> Option<f64> {
        let yardstick = self
            .median(row, YARDSTICK)
            .filter(|seconds| *seconds > 0.0)?;
        Some(self.median(row, system)? / yardstick)
    }

    /// Half of the distance between the quartiles, in percent of the median.
    fn spread(&self, row: &str, system: &str) -> Option<f64> {
        let values = self.0.get(&(row.to_owned(), system.to_owned()))?;
        let low = values.get(values.len() / 4)?;
        let high = values.get(values.len() - 1 - values.len() / 4)?;
        Some((high - low) * 50.0 / median(values)?)
    }
}

/// Lines of `id<TAB>title`.
pub(crate) fn read_rows(rows: &str) -> Outcome<Vec<(String, String)>> {
    let text = fs::read_to_string(rows)?;
    let row = |line: &str| {
        let (row, title) = line.split_once('\t').unwrap_or((line, line));
        (row.to_owned(), title.to_owned())
    };
    Ok(text.lines().map(row).collect())
}

/// The geometric mean of all rows that both systems have, and their number.
pub(crate) fn geometric_mean(
    figures: &Figures,
    rows: &[(String, String)],
    system: &str,
) -> Option<(f64, usize)> {
    let ratios: Vec<f64> = rows
        .iter()
        .filter_map(|(row, _)| figures.ratio(row, system))
        .collect();
    let count = ratios.len();
    let logs: f64 = ratios.iter().map(|ratio| ratio.ln()).sum();
    (count > 0).then(|| ((logs / count as f64).exp(), count))
}

/// Prints a Markdown table: the yardstick's median in seconds with its spread, and for the others
/// the ratio of medians to it, or `-` where a system has no figure. Without the yardstick all are
/// seconds.
pub(crate) fn report(rows: &str, results: &str, systems: &[String]) -> Outcome<()> {
    let figures = Figures::read(results)?;
    let rows = read_rows(rows)?;
    let by_ratio = systems.iter().any(|system| system == YARDSTICK);
    let others: Vec<&String> = systems
        .iter()
        .filter(|system| *system != YARDSTICK)
        .collect();
    print!("| work |");
    if by_ratio {
        print!(" {YARDSTICK}, seconds |");
    }
    for system in &others {
        print!(" {system} |");
    }
    println!("\n| --- |{}", " ---: |".repeat(systems.len()));
    for (row, title) in &rows {
        print!("| {title} |");
        if by_ratio {
            match (
                figures.median(row, YARDSTICK),
                figures.spread(row, YARDSTICK),
            ) {
                (Some(seconds), Some(spread)) => print!(" {seconds:.4} ±{spread:.0} % |"),
                _ => print!(" - |"),
            }
        }
        for system in &others {
            match (figures.ratio(row, system), figures.median(row, system)) {
                (Some(ratio), _) if by_ratio => print!(" {} |", significant(ratio)),
                (_, Some(seconds)) => print!(" {seconds:.4} s |"),
                _ => print!(" - |"),
            }
        }
        println!();
    }
    if by_ratio {
        print!("| **geometric mean** | 1 |");
        for system in &others {
            match geometric_mean(&figures, &rows, system) {
                Some((mean, count)) => print!(" **{}** of {count} rows |", significant(mean)),
                None => print!(" - |"),
            }
        }
        println!();
    }
    Ok(())
}

/// Lines of `request clients system time processor-time` in, a table out.
pub(crate) fn crossings(results: &str, systems: &[String]) -> Outcome<()> {
    type Figures = (Vec<f64>, Vec<f64>);
    let mut rows: BTreeMap<(String, u64), BTreeMap<String, Figures>> = BTreeMap::new();
    for line in fs::read_to_string(results)?.lines() {
        let [kind, clients, system, time, cpu] = line.split_whitespace().collect::<Vec<_>>()[..]
        else {
            return Err(format!("not a line of figures: {line}").into());
        };
        let row = rows.entry((kind.to_owned(), clients.parse()?)).or_default();
        let figures = row.entry(system.to_owned()).or_default();
        figures.0.push(time.parse()?);
        figures.1.push(cpu.parse()?);
    }
    print!("| one request, us of time (of processor) |");
    for system in systems {
        print!(" {system} |");
    }
    println!("\n| --- |{}", " ---: |".repeat(systems.len()));
    for ((kind, clients), mut row) in rows {
        print!("| {kind}, clients: {clients} |");
        for system in systems {
            let figures = row.remove(system).unwrap_or_default();
            let (mut time, mut cpu) = figures;
            time.sort_by(f64::total_cmp);
            cpu.sort_by(f64::total_cmp);
            match (median(&time), median(&cpu)) {
                (Some(time), Some(cpu)) => print!(" {time:.1} ({cpu:.1}) |"),
                _ => print!(" - |"),
            }
        }
        println!();
    }
    Ok(())
}

/// The middle of sorted values.
fn median(values: &[f64]) -> Option<f64> {
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values.get(middle).copied()
    } else {
        Some((values.get(middle.checked_sub(1)?)? + values.get(middle)?) / 2.0)
    }
}

/// Two digits are what repeated runs agree on.
pub(crate) fn significant(ratio: f64) -> String {
    if ratio >= 10.0 {
        format!("{ratio:.0}")
    } else if ratio >= 1.0 {
        format!("{ratio:.1}")
    } else {
        format!("{ratio:.2}")
    }
}
