//! Points in time as image documents have them (RFC 3339), and how long ago they are, in words.

use std::time::{SystemTime, UNIX_EPOCH};

use super::error::{Result, StoreError};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The environment variable for reproducible builds (reproducible-builds.org): seconds since 1970.
const EPOCH_VARIABLE: &str = "SOURCE_DATE_EPOCH";

/// Now, in seconds since 1970.
#[must_use]
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
}

/// The time that something new gets: `SOURCE_DATE_EPOCH` when it is set, else now.
///
/// # Errors
/// The variable is no number.
pub(crate) fn creation() -> Result<String> {
    let time = match std::env::var(EPOCH_VARIABLE) {
        Ok(text) => text
            .trim()
            .parse()
            .ok()
            .and_then(|seconds: i64| OffsetDateTime::from_unix_timestamp(seconds).ok())
            .ok_or_else(|| {
                StoreError::invalid(
                    format!("{EPOCH_VARIABLE} is '{text}', not a number of seconds"),
                    "set it to seconds since 1970, or unset it",
                )
            })?,
        Err(_) => OffsetDateTime::now_utc(),
    };
    Ok(time.format(&Rfc3339).unwrap_or_else(|_| ZERO.to_owned()))
}

/// What stands for no time at all in image documents.
pub(crate) const ZERO: &str = "0001-01-01T00:00:00Z";

/// Seconds since 1970 of a time in RFC 3339; `None` for anything else and for the zero time.
#[must_use]
pub(crate) fn parse(text: &str) -> Option<i64> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    (time.year() > 1).then(|| time.unix_timestamp())
}

/// Seconds since 1970 in RFC 3339.
#[must_use]
pub(crate) fn format(seconds: i64) -> String {
    OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| ZERO.to_owned())
}

/// A number of seconds in the words that docker uses.
#[must_use]
pub(crate) fn duration_words(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const WEEK: i64 = 7 * DAY;
    const MONTH: i64 = 30 * DAY;
    const YEAR: i64 = 365 * DAY;
    match seconds {
        ..1 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..MINUTE => format!("{seconds} seconds"),
        MINUTE..120 => "About a minute".to_owned(),
        120..HOUR => format!("{} minutes", seconds / MINUTE),
        HOUR..5400 => "About an hour".to_owned(),
        5400..172_800 => format!("{} hours", (seconds + HOUR / 2) / HOUR),
        172_800..1_209_600 => format!("{} days", seconds / DAY),
        1_209_600..5_184_000 => format!("{} weeks", seconds / WEEK),
        5_184_000..63_072_000 => format!("{} months", seconds / MONTH),
        _ => format!("{} years", seconds / YEAR),
    }
}

/// How long ago a point in time is, in words; `N/A` for none.
#[must_use]
pub(crate) fn ago(then: Option<i64>) -> String {
    match then {
        Some(then) => format!("{} ago", duration_words(now().saturating_sub(then))),
        None => "N/A".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written() {
        assert_eq!(parse("1970-01-02T00:00:00Z"), Some(86400));
        assert_eq!(
            parse("2024-02-29T12:00:00.123456789+02:00"),
            Some(1_709_200_800)
        );
        assert_eq!(parse(ZERO), None);
        assert_eq!(parse("yesterday"), None);
        assert_eq!(format(86400), "1970-01-02T00:00:00Z");
    }

    #[test]
    fn words() {
        let table = [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (61, "About a minute"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (47 * 3600, "47 hours"),
            (13 * 86400, "13 days"),
            (15 * 86400, "2 weeks"),
            (90 * 86400, "3 months"),
            (800 * 86400, "2 years"),
        ];
        for (seconds, words) in table {
            assert_eq!(duration_words(seconds), words, "{seconds}");
        }
    }
}
