//! `--format`: the part of Go's templates that scripts around docker use.
//!
//! `{{.Field}}`, `{{.A.B}}`, `{{json .A}}`, `{{len .A}}`, `{{upper .A}}`, `{{lower .A}}`, `{{join
//! .A ","}}`, `{{index .A 0}}`, `{{range .A}}..{{end}}`, `{{if .A}}..{{else}}..{{end}}`; `\t` and
//! `\n` in the text.

use serde_json::Value;

use super::exit::Failure;
use super::visible;

/// A template that can be filled in many times.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Template {
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
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
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
    pub(crate) fn fill(&self, value: &Value) -> Result<String, Failure> {
        let mut out = String::new();
        fill(&self.parts, value, &str::to_owned, &mut out)?;
        Ok(out)
    }

    /// Fills it in with values that are cells: of one line, and with nothing in them that acts on a
    /// terminal.
    ///
    /// # Errors
    /// As [`Template::fill`].
    pub(crate) fn fill_cells(&self, value: &Value) -> Result<String, Failure> {
        let mut out = String::new();
        let cell = |text: &str| visible::line(text).into_owned();
        fill(&self.parts, value, &cell, &mut out)?;
        Ok(out)
    }

    /// The template with each field replaced by `header` of its name: the first line of a table.
    #[must_use]
    pub(crate) fn headers(&self, header: impl Fn(&str) -> String) -> String {
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

fn fill(
    parts: &[Part],
    value: &Value,
    show: &dyn Fn(&str) -> String,
    out: &mut String,
) -> Result<(), Failure> {
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Show(expression) => out.push_str(&show(&text(&expression.evaluate(value)?))),
            Part::Range(of, body) => match of.evaluate(value)? {
                Value::Array(items) => {
                    for item in &items {
                        fill(body, item, show, out)?;
                    }
                }
                Value::Object(members) => {
                    for item in members.values() {
                        fill(body, item, show, out)?;
                    }
                }
                Value::Null => {}
                _ => return Err(wrong("'range' needs a list")),
            },
            Part::If(of, then, otherwise) => {
                let chosen = if is_true(&of.evaluate(value)?) {
                    then
                } else {
                    otherwise
                };
                fill(chosen, value, show, out)?;
            }
        }
    }
    Ok(())
}

fn no_field(name: &str, members: &serde_json::Map<String, Value>) -> Failure {
    let known: Vec<&str> = members.keys().map(String::as_str).collect();
    wrong(&format!(
        "there is no field '{name}', but {}",
        known.join(", ")
    ))
}

impl Expression {
    /// What docker has for a field of an image's `Config` that the image does not set (image-spec
    /// `config.md` leaves such fields out; docker's templates are filled from a struct that has all
    /// of them).
    fn unset(&self, name: &str) -> Option<Value> {
        let value = match name {
            "User" | "WorkingDir" | "StopSignal" => Value::String(String::new()),
            "Env" | "Entrypoint" | "Cmd" => Value::Array(Vec::new()),
            "ExposedPorts" | "Volumes" | "Labels" => Value::Object(serde_json::Map::new()),
            _ => return None,
        };
        let is_text = value.is_string();
        let as_json = matches!(self.function, Some(Function::Json));
        Some(if as_json && !is_text {
            Value::Null
        } else {
            value
        })
    }

    fn evaluate(&self, value: &Value) -> Result<Value, Failure> {
        let mut found = value;
        let mut missing = None;
        let mut parent = "";
        for (at, name) in self.path.iter().enumerate() {
            found = match found {
                Value::Object(members) => match members.get(name) {
                    Some(member) => member,
                    None if parent == "Config" && at + 1 == self.path.len() => {
                        missing = self.unset(name);
                        if missing.is_none() {
                            return Err(no_field(name, members));
                        }
                        break;
                    }
                    None => return Err(no_field(name, members)),
                },
                Value::Null => &Value::Null,
                _ => {
                    return Err(wrong(&format!(
                        "'{name}' is asked of something without fields"
                    )));
                }
            };
            parent = name;
        }
        let found = missing.as_ref().unwrap_or(found);
        let argument = self.argument.as_deref().unwrap_or_default();
        Ok(match self.function {
            None => found.clone(),
            Some(Function::Json) => Value::String(found.to_string()),
            Some(Function::Upper) => Value::String(text(found).to_uppercase()),
            Some(Function::Lower) => Value::String(text(found).to_lowercase()),
            Some(Function::Len) => Value::from(match found {
                Value::Array(items) => items.len(),
                Value::Object(members) => members.len(),
                Value::String(text) => text.len(),
                Value::Null => 0,
                _ => return Err(wrong("'len' needs a list or a text")),
            }),
            Some(Function::Join) => match found {
                Value::Array(items) => {
                    let items: Vec<String> = items.iter().map(text).collect();
                    Value::String(items.join(argument))
                }
                Value::Null => Value::String(String::new()),
                _ => return Err(wrong("'join' needs a list")),
            },
            Some(Function::Index) => match found {
                Value::Array(items) => argument
                    .parse::<usize>()
                    .ok()
                    .and_then(|at| items.get(at))
                    .cloned()
                    .ok_or_else(|| wrong("'index' is out of range"))?,
                Value::Object(members) => {
                    let member = members.get(argument).cloned();
                    member.unwrap_or_else(|| Value::String(String::new()))
                }
                Value::Null => Value::String(String::new()),
                _ => return Err(wrong("'index' needs a list or an object")),
            },
        })
    }
}

fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(truth) => *truth,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
    }
}

/// As Go prints a value.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "<no value>".to_owned(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(text).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(members) => {
            let members: Vec<String> = members
                .iter()
                .map(|(name, value)| format!("{name}:{}", text(value)))
                .collect();
            format!("map[{}]", members.join(" "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn templates_are_filled_in() {
        let value = json!({
            "ID": "abc", "Size": 7, "Names": ["a", "b"],
            "RootFS": {"Layers": ["x", "y"]}, "Labels": {"k": "v"}, "Config": {}, "None": null, "Empty": "",
        });
        let table = [
            ("{{.ID}}", "abc"),
            ("{{ .ID }}\\t{{.Size}}\\n", "abc\t7\n"),
            ("{{.RootFS.Layers}}", "[x y]"),
            (
                "{{.Config.User}}|{{.Config.Env}}|{{.Config.Labels}}",
                "|[]|map[]",
            ),
            (
                "{{index .Config.Labels \"x\"}}|{{json .Config.Cmd}}|{{json .Config.User}}",
                "|null|\"\"",
            ),
            (
                "{{if .Config.Entrypoint}}yes{{else}}no{{end}}{{len .Config.Volumes}}",
                "no0",
            ),
            ("{{json .Names}}", "[\"a\",\"b\"]"),
            ("{{json .}}", &value.to_string()),
            ("{{len .Names}}{{len .None}}", "20"),
            ("{{upper .ID}}{{lower .ID}}", "ABCabc"),
            ("{{join .Names \",\"}}", "a,b"),
            ("{{index .Names 1}}{{index .Labels \"k\"}}", "bv"),
            ("{{range .RootFS.Layers}}<{{.}}>{{end}}", "<x><y>"),
            (
                "{{if .Empty}}no{{else}}yes{{end}}{{if .ID}}!{{end}}",
                "yes!",
            ),
            ("{{.Labels}}", "map[k:v]"),
            ("{{.None.Deeper}}", "<no value>"),
            ("plain", "plain"),
        ];
        for (template, expected) in table {
            let filled = Template::parse(template).unwrap().fill(&value).unwrap();
            assert_eq!(filled, expected, "{template}");
        }
        let message = Template::parse("{{.Nope}}")
            .unwrap()
            .fill(&value)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("no field 'Nope', but") && message.contains("RootFS"),
            "{message}"
        );
    }

    #[test]
    fn wrong_templates_are_refused() {
        for text in [
            "{{.A",
            "{{end}}",
            "{{range .A}}",
            "{{if .A}}{{else}}",
            "{{A}}",
            "{{foo .A}}",
            "{{join .A}}",
            "{{.A 1}}",
        ] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn headers_stand_for_fields() {
        let template = Template::parse("{{.ID}}\\t{{.Size}}").unwrap();
        assert_eq!(template.headers(str::to_lowercase), "id\tsize");
    }
}
