//! Sizes as docker writes them: decimal units, three or four digits.

/// Units of a thousand each.
const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];

/// Three digits, as in the tables of images and containers: `5.59MB`.
#[must_use]
pub(in crate::cli) fn size(bytes: u64) -> String {
    digits(bytes, 3)
}

/// Four digits, as in `system df`: `5.588MB`.
#[must_use]
pub(in crate::cli) fn exact_size(bytes: u64) -> String {
    digits(bytes, 4)
}

fn digits(bytes: u64, precision: usize) -> String {
    // Scaled to thousandths of a unit, so that whole numbers do: no float is exact enough for 2^63.
    let mut unit = 0;
    let mut divisor: u64 = 1;
    while unit + 1 < UNITS.len() && bytes / divisor >= 1000 {
        divisor *= 1000;
        unit += 1;
    }
    let (mut whole, mut decimals) = rounded(bytes, divisor, precision);
    if whole >= 1000 && unit + 1 < UNITS.len() {
        unit += 1;
        (whole, decimals) = (1, String::new());
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    if decimals.is_empty() {
        format!("{whole}{name}")
    } else {
        format!("{whole}.{decimals}{name}")
    }
}

/// The quotient with as many digits in all as asked for, without zeros at the end.
fn rounded(bytes: u64, divisor: u64, precision: usize) -> (u64, String) {
    let length = (bytes / divisor).to_string().len();
    let places = precision.saturating_sub(length);
    let scale = 10_u128.pow(u32::try_from(places).unwrap_or(0));
    let (bytes, divisor) = (u128::from(bytes), u128::from(divisor));
    let scaled = (bytes * scale + divisor / 2) / divisor;
    let whole = u64::try_from(scaled / scale).unwrap_or(u64::MAX);
    let rest = scaled % scale;
    let decimals = if places == 0 || rest == 0 {
        String::new()
    } else {
        let text = format!("{rest:0places$}");
        text.trim_end_matches('0').to_owned()
    };
    (whole, decimals)
}

/// A share in percent, as `system df` writes it behind what is reclaimable.
#[must_use]
pub(in crate::cli) fn percent(part: u64, whole: u64) -> String {
    match part.saturating_mul(100).checked_div(whole) {
        Some(percent) => format!(" ({percent}%)"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written_as_docker_does() {
        let table = [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1234, "1.23kB"),
            (5_588_123, "5.59MB"),
            (72_800_000, "72.8MB"),
            (124_000_000, "124MB"),
            (999_600, "1MB"),
            (1_000_000_000, "1GB"),
            (1_430_000_000, "1.43GB"),
            (u64::MAX, "18.4EB"),
        ];
        for (bytes, text) in table {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(exact_size(5_588_123), "5.588MB");
        assert_eq!(exact_size(1_073_741_824), "1.074GB");
        assert_eq!(percent(1, 3), " (33%)");
        assert_eq!(percent(0, 0), "");
    }
}
