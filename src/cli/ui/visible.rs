//! Text of others, as it is shown: names, labels, commands of images, messages that quote them.
//!
//! * On a terminal nothing is written that would move its cursor, change its colours, answer for
//!   the user, or turn the order of characters round: such characters are written as the escapes of
//!   JSON (`\u001b`), bytes that are no UTF-8 as `\xff`. That holds for everything that is printed,
//!   and is exact for JSON, which means the same.
//! * A cell of a table is one word of one line wherever it goes: tabs and line feeds are escaped
//!   there, too, since those end it.
//! * Into a pipe or a file, lists of paths and templates are written as they are, byte for byte, as
//!   ls(1) and podman do: scripts want names, not what people see. Where a name may hold a line
//!   feed, `--json` and `-z` tell it apart.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::IsTerminal as _;

/// Whether people see what is printed.
#[must_use]
pub(in crate::cli) fn is_for_people() -> bool {
    std::io::stdout().is_terminal()
}

/// What a character would do to a terminal, or to the order of those around it (Unicode's
/// bidirectional controls).
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escape_into(c: char, text: &mut String) {
    match c {
        '\n' => text.push_str("\\n"),
        '\r' => text.push_str("\\r"),
        '\t' => text.push_str("\\t"),
        c => {
            // Writing into a String does not fail.
            if write!(text, "\\u{:04x}", u32::from(c)).is_err() {
                log::debug!("a String cannot be written");
            }
        }
    }
}

fn escaped(text: &str, stays: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(|c| acts(c) && !stays(c)) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if acts(c) && !stays(c) {
            escape_into(c, &mut shown);
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

/// A text of one line: a cell, a name, a message.
#[must_use]
pub(in crate::cli) fn line(text: &str) -> Cow<'_, str> {
    escaped(text, |_| false)
}

/// JSON text in which nothing acts: between its strings there are line feeds, and in them escapes
/// mean the same.
#[must_use]
pub(in crate::cli) fn json(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c == '\n')
}

/// Whole lines, for a terminal.
#[must_use]
pub(in crate::cli) fn lines(text: &[u8]) -> Vec<u8> {
    shown(text, |c| matches!(c, '\n' | '\t'))
}

/// A name of any bytes, for a terminal.
#[must_use]
pub(in crate::cli) fn name(bytes: &[u8]) -> Vec<u8> {
    shown(bytes, |_| false)
}

fn shown(bytes: &[u8], stays: impl Fn(char) -> bool) -> Vec<u8> {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(&escaped(chunk.valid(), &stays));
        for byte in chunk.invalid() {
            text.extend(std::ascii::escape_default(*byte).map(char::from));
        }
    }
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_acts_on_a_terminal_is_escaped() {
        assert_eq!(line("plain äöü 漢字"), "plain äöü 漢字");
        assert_eq!(line("a\nb\tc\u{1b}[2J\u{7f}"), r"a\nb\tc\u001b[2J\u007f");
        // CSI in one character, and text that is read backwards.
        assert_eq!(line("\u{9b}31m\u{202e}txt"), r"\u009b31m\u202etxt");
        assert_eq!(lines(b"a\tb\n\x1b[0m\xff\n"), b"a\tb\n\\u001b[0m\\xff\n");
        assert_eq!(name(b"a\nb\xc2\x9b"), br"a\nb\u009b");
        let value = serde_json::json!({"a\u{9b}": ["\u{1b}\u{7f}\u{9b}\n"], "n": 1});
        let text = serde_json::to_string_pretty(&value).unwrap();
        let shown = json(&text);
        assert!(shown.is_ascii(), "{shown}");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&shown).unwrap(),
            value
        );
    }
}
