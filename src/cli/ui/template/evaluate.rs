//! Filling a template in.

use std::borrow::Cow;

use serde_json::Value;

use super::{Expression, Function, Part, wrong};
use crate::cli::ui::exit::Failure;

pub(super) fn fill(
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

    /// What the expression says about a value.
    ///
    /// # Errors
    /// A field that is not there, and a function that the field is not made for.
    pub(super) fn evaluate(&self, value: &Value) -> Result<Value, Failure> {
        let found = self.field(value)?;
        match self.function {
            None => Ok(found.into_owned()),
            Some(function) => function.of(&found, self.argument.as_deref().unwrap_or_default()),
        }
    }

    /// The field that the path leads to.
    fn field<'v>(&self, value: &'v Value) -> Result<Cow<'v, Value>, Failure> {
        let mut found = value;
        let mut parent = "";
        for (at, name) in self.path.iter().enumerate() {
            found = match found {
                Value::Object(members) => match members.get(name) {
                    Some(member) => member,
                    None if parent == "Config" && at + 1 == self.path.len() => {
                        return self
                            .unset(name)
                            .map(Cow::Owned)
                            .ok_or_else(|| no_field(name, members));
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
        Ok(Cow::Borrowed(found))
    }
}

impl Function {
    fn of(self, found: &Value, argument: &str) -> Result<Value, Failure> {
        Ok(match self {
            Self::Json => Value::String(found.to_string()),
            Self::Upper => Value::String(text(found).to_uppercase()),
            Self::Lower => Value::String(text(found).to_lowercase()),
            Self::Len => Value::from(match found {
                Value::Array(items) => items.len(),
                Value::Object(members) => members.len(),
                Value::String(text) => text.len(),
                Value::Null => 0,
                _ => return Err(wrong("'len' needs a list or a text")),
            }),
            Self::Join => match found {
                Value::Array(items) => {
                    let items: Vec<String> = items.iter().map(text).collect();
                    Value::String(items.join(argument))
                }
                Value::Null => Value::String(String::new()),
                _ => return Err(wrong("'join' needs a list")),
            },
            Self::Index => match found {
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
