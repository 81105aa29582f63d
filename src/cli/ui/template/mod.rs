//! `--format`: the part of Go's templates that scripts around docker use.
//!
//! `{{.Field}}`, `{{.A.B}}`, `{{json .A}}`, `{{len .A}}`, `{{upper .A}}`, `{{lower .A}}`, `{{join
//! .A ","}}`, `{{index .A 0}}`, `{{range .A}}..{{end}}`, `{{if .A}}..{{else}}..{{end}}`; `\t` and
//! `\n` in the text.

mod evaluate;

use serde_json::Value;

use super::exit::Failure;
use super::visible;
use evaluate::fill;

/// A template that can be filled in many times.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::cli) struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Show(Expression),
    Range(Expression, Vec<Part>),
    If(Expression, Vec<Part>, Vec<Part>),
}

#[derive(Clone, Debug, PartialEq)]
struct Expression {
    function: Option<Function>,
    /// Fields from the current value on; empty for the value itself.
    path: Vec<String>,
    argument: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Function {
    Json,
    Len,
    Upper,
    Lower,
    Join,
    Index,
}

/// What ended a sequence of parts.
#[derive(PartialEq, Eq)]
enum Stop {
    Text,
    Else,
    End,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// [`Failure::Usage`] for what it cannot do.
    pub(in crate::cli) fn parse(text: &str) -> Result<Self, Failure> {
        let text = text.replace("\\t", "\t").replace("\\n", "\n");
        let mut rest = text.as_str();
        let (parts, stop) = parts(&mut rest)?;
        if stop != Stop::Text {
            return Err(wrong("an 'end' or 'else' without a beginning"));
        }
        Ok(Self { parts })
    }

    /// Fills it in.
    ///
    /// # Errors
    /// [`Failure::Usage`] for a field that is not there, with those that are.
    pub(in crate::cli) fn fill(&self, value: &Value) -> Result<String, Failure> {
        let mut out = String::new();
        fill(&self.parts, value, &str::to_owned, &mut out)?;
        Ok(out)
    }

    /// Fills it in with values that are cells: of one line, and with nothing in them that acts on a
    /// terminal.
    ///
    /// # Errors
    /// As [`Template::fill`].
    pub(in crate::cli) fn fill_cells(&self, value: &Value) -> Result<String, Failure> {
        let mut out = String::new();
        let cell = |text: &str| visible::line(text).into_owned();
        fill(&self.parts, value, &cell, &mut out)?;
        Ok(out)
    }

    /// The template with each field replaced by `header` of its name: the first line of a table.
    #[must_use]
    pub(in crate::cli) fn headers(&self, header: impl Fn(&str) -> String) -> String {
        let mut line = String::new();
        for part in &self.parts {
            match (part, shown_field(part)) {
                (Part::Text(text), _) => line.push_str(text),
                (_, Some(field)) => line.push_str(&header(field)),
                _ => {}
            }
        }
        line
    }
}

fn shown_field(part: &Part) -> Option<&str> {
    match part {
        Part::Show(expression) => expression.path.last().map(String::as_str),
        _ => None,
    }
}

fn wrong(what: &str) -> Failure {
    Failure::Usage(format!(
        "--format: {what}; write fields as in '{{{{.ID}}}} {{{{json .Names}}}}', or 'json'"
    ))
}

fn parts(rest: &mut &str) -> Result<(Vec<Part>, Stop), Failure> {
    let mut found = Vec::new();
    loop {
        let Some(start) = rest.find("{{") else {
            if !rest.is_empty() {
                found.push(Part::Text((*rest).to_owned()));
            }
            *rest = "";
            return Ok((found, Stop::Text));
        };
        let (text, behind) = rest.split_at(start);
        if !text.is_empty() {
            found.push(Part::Text(text.to_owned()));
        }
        let inside = behind.get(2..).unwrap_or_default();
        let Some((action, after)) = inside.split_once("}}") else {
            return Err(wrong("a '{{' is not closed"));
        };
        *rest = after;
        let action = action.trim().trim_matches('-').trim();
        match action.split_once(char::is_whitespace) {
            None if action == "end" => return Ok((found, Stop::End)),
            None if action == "else" => return Ok((found, Stop::Else)),
            Some(("range", of)) => {
                let of = expression(of)?;
                match parts(rest)? {
                    (body, Stop::End) => found.push(Part::Range(of, body)),
                    _ => return Err(wrong("a 'range' has no 'end'")),
                }
            }
            Some(("if", of)) => {
                let of = expression(of)?;
                let (then, stop) = parts(rest)?;
                let otherwise = match stop {
                    Stop::End => Vec::new(),
                    Stop::Else => match parts(rest)? {
                        (otherwise, Stop::End) => otherwise,
                        _ => return Err(wrong("an 'else' has no 'end'")),
                    },
                    Stop::Text => return Err(wrong("an 'if' has no 'end'")),
                };
                found.push(Part::If(of, then, otherwise));
            }
            _ => found.push(Part::Show(expression(action)?)),
        }
    }
}

fn expression(text: &str) -> Result<Expression, Failure> {
    let unknown = || wrong(&format!("'{}' is not understood", text.escape_debug()));
    let text = text.trim();
    let (function, rest) = match text.split_once(char::is_whitespace) {
        None => (None, text),
        Some((name, rest)) => {
            let function = match name {
                "json" => Function::Json,
                "len" => Function::Len,
                "upper" => Function::Upper,
                "lower" => Function::Lower,
                "join" => Function::Join,
                "index" => Function::Index,
                _ => return Err(unknown()),
            };
            (Some(function), rest.trim())
        }
    };
    let (path, argument) = match rest.split_once(char::is_whitespace) {
        None => (rest, None),
        Some((path, argument)) => (path, Some(argument.trim().trim_matches('"').to_owned())),
    };
    let takes_argument = matches!(function, Some(Function::Join | Function::Index));
    if takes_argument != argument.is_some() {
        return Err(unknown());
    }
    let path = path.strip_prefix('.').ok_or_else(unknown)?;
    let path: Vec<String> = path
        .split('.')
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect();
    Ok(Expression {
        function,
        path,
        argument,
    })
}

#[cfg(test)]
mod tests;
