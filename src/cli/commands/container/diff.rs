//! `container diff`: each change is written when it is found, so that what it takes does not grow
//! with the changes.

use std::fmt::Write as _;
use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use clap::Args;
use serde_json::json;

use crate::cli::commands::store_args::StoreArgs;
use crate::cli::ui::exit::{Failure, written};
use crate::cli::ui::visible;
use crate::store::{ChangeKind, changes};

const EXAMPLES: &str = "\
Names that are not UTF-8:
  Without --json paths are written as they are, byte for byte, but on a terminal, where what would act on it is escaped.
  With -z each line ends in a NUL byte instead of a line feed, which a name may have, and nothing is escaped. In JSON,
  \"Path\" has U+FFFD in place of bytes that are not UTF-8; such an entry also has \"PathHex\", the exact bytes of
  the path in hexadecimal.

Examples:
  unionmount container diff box
  unionmount container diff --json box | jq -r '.[] | select(.Kind == \"D\").Path'";

/// `container diff`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli::commands) struct DiffArgs {
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub container: String,

    /// Print one JSON document
    #[arg(long)]
    pub json: bool,

    /// End each line in a NUL byte, and escape nothing
    #[arg(short = 'z', long = "null", conflicts_with = "json")]
    pub null: bool,
}

/// Writes what was added, changed and deleted.
///
/// # Errors
/// There is no such container, or it cannot be read. What was found before is written.
pub(super) fn run(store: &StoreArgs, args: &DiffArgs) -> Result<(), Failure> {
    let store = store.open()?;
    let container = store.container(&args.container)?;
    let view = store.view(&container)?;
    let mut sheet = Sheet {
        out: BufWriter::new(io::stdout().lock()),
        json: args.json,
        null: args.null,
        for_people: visible::is_for_people() && !args.null,
        empty: true,
    };
    let mut failed = None;
    changes(
        &view.config,
        &mut |path, what| match sheet.add(path, what) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        },
    )?;
    written(failed.map_or_else(|| sheet.end(), Err))
}

/// The list as it is being written.
struct Sheet<W: Write> {
    out: W,
    json: bool,
    null: bool,
    for_people: bool,
    empty: bool,
}

impl<W: Write> Sheet<W> {
    fn add(&mut self, path: &Path, what: ChangeKind) -> io::Result<()> {
        let bytes = path.as_os_str().as_bytes();
        if !self.json {
            write!(self.out, "{} ", what.letter())?;
            match self.for_people {
                true => self.out.write_all(&visible::name(bytes))?,
                false => self.out.write_all(bytes)?,
            }
            let end: &[u8] = if self.null { b"\0" } else { b"\n" };
            return self.out.write_all(end);
        }
        let mut entry = json!({"Kind": what, "Path": path.to_string_lossy()});
        if path.to_str().is_none() {
            entry["PathHex"] = json!(hex(bytes));
        }
        let separator = if self.empty { "[" } else { "," };
        self.out.write_all(separator.as_bytes())?;
        self.empty = false;
        // Line feeds in names are escaped, so that these are the ones between fields.
        for line in visible::json(&serde_json::to_string_pretty(&entry)?).lines() {
            write!(self.out, "\n  {line}")?;
        }
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        match (self.json, self.empty) {
            (true, true) => self.out.write_all(b"[]\n")?,
            (true, false) => self.out.write_all(b"\n]\n")?,
            (false, _) => {}
        }
        self.out.flush()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing into a String does not fail.
        if write!(text, "{byte:02x}").is_err() {
            log::debug!("a String cannot be written");
        }
        text
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::ffi::OsStr;

    use serde_json::Value;

    use super::*;

    fn text(entries: &[(&[u8], ChangeKind)], json: bool) -> Vec<u8> {
        written_to(entries, json, false, false)
    }

    fn written_to(
        entries: &[(&[u8], ChangeKind)],
        json: bool,
        null: bool,
        for_people: bool,
    ) -> Vec<u8> {
        let mut sheet = Sheet {
            out: Vec::new(),
            json,
            null,
            for_people,
            empty: true,
        };
        for (path, what) in entries {
            sheet
                .add(Path::new(OsStr::from_bytes(path)), *what)
                .unwrap();
        }
        sheet.end().unwrap();
        sheet.out
    }

    #[test]
    fn it_is_one_document_whatever_is_in_it() {
        assert_eq!(text(&[], true), b"[]\n");
        assert_eq!(text(&[], false), b"");
        let entries: [(&[u8], _); 3] = [
            (b"/a\nb", ChangeKind::Added),
            (b"/c", ChangeKind::Changed),
            (b"/\xff\x01", ChangeKind::Deleted),
        ];
        assert_eq!(text(&entries, false), b"A /a\nb\nC /c\nD /\xff\x01\n");
        let exact = written_to(&entries, false, true, false);
        assert_eq!(exact, b"A /a\nb\0C /c\0D /\xff\x01\0");
        let shown = written_to(&entries, false, false, true);
        assert_eq!(shown, b"A /a\\nb\nC /c\nD /\\xff\\u0001\n");
        let whole = json!([
            {"Kind": "A", "Path": "/a\nb"},
            {"Kind": "C", "Path": "/c"},
            {"Kind": "D", "Path": "/\u{fffd}\u{1}", "PathHex": "2fff01"},
        ]);
        let written = text(&entries, true);
        assert_eq!(serde_json::from_slice::<Value>(&written).unwrap(), whole);
        let pretty = serde_json::to_string_pretty(&whole).unwrap() + "\n";
        assert_eq!(String::from_utf8(written).unwrap(), pretty);
    }
}
