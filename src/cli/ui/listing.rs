//! What commands print: tables as docker aligns them, JSON, templates, ids alone.

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::exit::{Failure, print};
use super::template::Template;
use super::visible;

/// Narrowest column, and the space between columns, as docker has them.
const NARROWEST: usize = 10;
const GAP: usize = 3;
/// Longest text in a column of commands, unless `--no-trunc` is given.
const LONGEST: usize = 45;
/// Longest command in the table of containers.
pub(in crate::cli) const SHORT_COMMAND: usize = 20;

/// How a listing is printed.
#[derive(Clone, Debug, Default, Args)]
pub(in crate::cli) struct ListArgs {
    /// Print one JSON document with exact numbers
    #[arg(long, conflicts_with_all = ["format", "quiet"])]
    pub json: bool,

    /// Print 'table ..', 'json', or a template with {{.Field}} for each line
    #[arg(long, value_name = "TEMPLATE")]
    pub format: Option<String>,

    /// Print ids (or names) only
    #[arg(short, long, conflicts_with = "format")]
    pub quiet: bool,

    /// Do not shorten ids and texts
    #[arg(long)]
    pub no_trunc: bool,
}

/// How one or several things are printed in full.
#[derive(Clone, Debug, Default, Args)]
pub(in crate::cli) struct InspectArgs {
    /// Print this template with {{.Field}} instead of JSON
    #[arg(short, long, value_name = "TEMPLATE")]
    pub format: Option<String>,

    /// Print JSON (as without options)
    #[arg(long, conflicts_with = "format")]
    pub json: bool,
}

/// A column: its header, and the field it shows.
pub(in crate::cli) type Column = (&'static str, &'static str);

/// Lines to be printed.
pub(in crate::cli) struct ListOutput<'a> {
    /// The columns of the usual table.
    pub columns: &'a [Column],
    /// Columns that templates may name besides.
    pub more: &'a [Column],
    /// A line each, an object of texts.
    pub lines: Vec<Value>,
    /// The field that `--quiet` shows.
    pub quiet: &'a str,
    /// What `--json` shows.
    pub document: Value,
}

impl ListOutput<'_> {
    /// Prints it.
    ///
    /// # Errors
    /// A wrong template, and standard output that cannot be written.
    pub(in crate::cli) fn print(&self, args: &ListArgs) -> Result<(), Failure> {
        print(self.text(args)?.as_bytes())
    }

    fn text(&self, args: &ListArgs) -> Result<String, Failure> {
        if args.json {
            return document(&self.document);
        }
        if args.quiet {
            let template = Template::parse(&format!("{{{{.{}}}}}", self.quiet))?;
            return self.lines(&template);
        }
        match args.format.as_deref() {
            None | Some("table") => {
                let fields: Vec<String> = self
                    .columns
                    .iter()
                    .map(|(_, field)| format!("{{{{.{field}}}}}"))
                    .collect();
                self.table(&Template::parse(&fields.join("\t"))?)
            }
            Some("json") => self.lines(&Template::parse("{{json .}}")?),
            Some(format) => match format.strip_prefix("table ") {
                Some(format) => self.table(&Template::parse(format)?),
                None => self.lines(&Template::parse(format)?),
            },
        }
    }

    fn lines(&self, template: &Template) -> Result<String, Failure> {
        let mut text = String::new();
        for line in &self.lines {
            text.push_str(&filled(template, line)?);
            text.push('\n');
        }
        Ok(text)
    }

    fn table(&self, template: &Template) -> Result<String, Failure> {
        let header = |field: &str| {
            let mut known = self.columns.iter().chain(self.more);
            match known.find(|(_, name)| *name == field) {
                Some((header, _)) => (*header).to_owned(),
                None => field.to_uppercase(),
            }
        };
        let mut lines = vec![template.headers(header)];
        for line in &self.lines {
            lines.push(template.fill_cells(line)?);
        }
        Ok(align(&lines))
    }
}

/// Puts cells, which tabs separate, below each other.
fn align(lines: &[String]) -> String {
    let rows: Vec<Vec<&str>> = lines
        .iter()
        .map(|line| line.split('\t').collect())
        .collect();
    let width = |cell: &str| cell.chars().count();
    let mut widths: Vec<usize> = Vec::new();
    for row in &rows {
        // The last cell of a line has nothing behind it.
        let cells = row.len().saturating_sub(1);
        for (column, cell) in row.iter().take(cells).enumerate() {
            let wanted = (width(cell) + GAP).max(NARROWEST);
            match widths.get_mut(column) {
                Some(widest) => *widest = wanted.max(*widest),
                None => widths.push(wanted),
            }
        }
    }
    let mut text = String::new();
    for row in rows {
        let last = row.len().saturating_sub(1);
        for (column, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if column < last {
                let room = widths.get(column).copied().unwrap_or(0);
                text.extend(std::iter::repeat_n(' ', room.saturating_sub(width(cell))));
            }
        }
        text.push('\n');
    }
    text
}

/// Prints things in full: JSON, or a template for each.
///
/// # Errors
/// A wrong template, and standard output that cannot be written.
pub(in crate::cli) fn print_inspected(
    values: Vec<Value>,
    args: &InspectArgs,
) -> Result<(), Failure> {
    let text = match args.format.as_deref() {
        None | Some("json") => document(&Value::Array(values))?,
        Some(format) => {
            let template = Template::parse(format)?;
            let mut text = String::new();
            for value in &values {
                text.push_str(&filled(&template, value)?);
                text.push('\n');
            }
            text
        }
    };
    print(text.as_bytes())
}

/// One JSON document, indented.
///
/// # Errors
/// It cannot be written as JSON.
pub(in crate::cli) fn document(value: &impl Serialize) -> Result<String, Failure> {
    let mut text = serde_json::to_string_pretty(value).map_err(|error| {
        Failure::Operation(format!(
            "cannot write JSON: {error}; report this, it is a mistake in unionmount"
        ))
    })?;
    text.push('\n');
    Ok(visible::json(&text).into_owned())
}

/// A template filled in for its reader: people see values in which nothing acts, programs get
/// them as they are.
///
/// # Errors
/// Those of [`Template::fill`].
pub(in crate::cli) fn filled(template: &Template, value: &Value) -> Result<String, Failure> {
    match visible::is_for_people() {
        true => template.fill_cells(value),
        false => template.fill(value),
    }
}

/// A value as JSON.
///
/// # Errors
/// It cannot be written as JSON.
pub(in crate::cli) fn value(of: &impl Serialize) -> Result<Value, Failure> {
    serde_json::to_value(of).map_err(|error| {
        Failure::Operation(format!(
            "cannot write JSON: {error}; report this, it is a mistake in unionmount"
        ))
    })
}

/// A text that fits into a column.
#[must_use]
pub(in crate::cli) fn shortened(text: &str, no_trunc: bool, longest: Option<usize>) -> String {
    let longest = longest.unwrap_or(LONGEST);
    let text = text.replace(['\t', '\n', '\r'], " ");
    if no_trunc || text.chars().count() <= longest {
        return text;
    }
    let mut short: String = text.chars().take(longest - 1).collect();
    short.push('…');
    short
}

/// An id, short unless it is wanted whole.
#[must_use]
pub(in crate::cli) fn id(id: &str, no_trunc: bool) -> String {
    if no_trunc {
        id.to_owned()
    } else {
        crate::store::ids::short(id).to_owned()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn listing() -> ListOutput<'static> {
        ListOutput {
            columns: &[
                ("REPOSITORY", "Repository"),
                ("TAG", "Tag"),
                ("IMAGE ID", "ID"),
            ],
            more: &[],
            lines: vec![
                json!({"Repository": "debian", "Tag": "12", "ID": "0123456789ab"}),
                json!({"Repository": "localhost/some/app", "Tag": "latest", "ID": "ba9876543210"}),
            ],
            quiet: "ID",
            document: json!([{"ID": "sha256:01"}]),
        }
    }

    fn text(args: ListArgs) -> String {
        listing().text(&args).unwrap()
    }

    #[test]
    fn a_table_is_aligned_as_dockers() {
        let expected = "\
REPOSITORY           TAG       IMAGE ID
debian               12        0123456789ab
localhost/some/app   latest    ba9876543210
";
        assert_eq!(text(ListArgs::default()), expected);
        let format = Some("table {{.Tag}}\\t{{.ID}}".to_owned());
        let expected = "TAG       IMAGE ID\n12        0123456789ab\nlatest    ba9876543210\n";
        assert_eq!(
            text(ListArgs {
                format,
                ..ListArgs::default()
            }),
            expected
        );
    }

    #[test]
    fn other_forms() {
        let quiet = ListArgs {
            quiet: true,
            ..ListArgs::default()
        };
        assert_eq!(text(quiet), "0123456789ab\nba9876543210\n");
        let format = Some("{{.Repository}}:{{.Tag}}".to_owned());
        let lines = ListArgs {
            format,
            ..ListArgs::default()
        };
        assert_eq!(text(lines), "debian:12\nlocalhost/some/app:latest\n");
        let json = ListArgs {
            json: true,
            ..ListArgs::default()
        };
        let parsed: Value = serde_json::from_str(&text(json)).unwrap();
        assert_eq!(parsed, json!([{"ID": "sha256:01"}]));
        assert_eq!(shortened("a\tb", false, None), "a b");
        assert_eq!(shortened(&"x".repeat(50), false, Some(10)), "xxxxxxxxx…");
    }
}
