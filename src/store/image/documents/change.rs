//! Instructions as in a Dockerfile, which `commit` applies to how an image is run.

use serde_json::{Map, Value, json};

use super::json::object;
use crate::store::base::{Result, StoreError};

/// One instruction with its value, as the user wrote it.
pub(super) struct Change<'a>(pub(super) &'a str);

impl Change<'_> {
    /// Applies it to the `config` of an image.
    ///
    /// # Errors
    /// It is no instruction that is supported here, or its value is wrong.
    pub(super) fn apply(&self, config: &mut Map<String, Value>) -> Result<()> {
        let (instruction, value) = self
            .0
            .trim()
            .split_once([' ', '\t', '='])
            .ok_or_else(|| self.wrong("it has no value"))?;
        let value = value.trim();
        if value.is_empty() {
            return Err(self.wrong("it has no value"));
        }
        match instruction.to_ascii_uppercase().as_str() {
            "CMD" => set(config, "Cmd", command(value)),
            "ENTRYPOINT" => set(config, "Entrypoint", command(value)),
            "USER" => set(config, "User", json!(value)),
            "STOPSIGNAL" => set(config, "StopSignal", json!(value)),
            "WORKDIR" => set_directory(config, value),
            "ENV" => set_variables(config, self.pairs(value)?),
            "LABEL" => {
                let labels = object(config, "Labels")?;
                for (name, value) in self.pairs(value)? {
                    labels.insert(name, json!(value));
                }
            }
            "EXPOSE" => self.expose(config, value)?,
            "VOLUME" => add_volumes(object(config, "Volumes")?, value),
            _ => return Err(self.wrong("this instruction is not supported here")),
        }
        Ok(())
    }

    fn pairs(&self, value: &str) -> Result<Vec<(String, String)>> {
        pairs(value).ok_or_else(|| self.wrong("it is not NAME=VALUE"))
    }

    fn expose(&self, config: &mut Map<String, Value>, value: &str) -> Result<()> {
        let ports = object(config, "ExposedPorts")?;
        for word in value.split_whitespace() {
            let (port, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
            let numbers = port.split('-');
            if numbers.clone().count() > 2
                || numbers.clone().any(|number| number.parse::<u16>().is_err())
                || !["tcp", "udp", "sctp"].contains(&protocol)
            {
                return Err(self.wrong("a port is a number, as in 80/tcp"));
            }
            ports.insert(format!("{port}/{protocol}"), json!({}));
        }
        Ok(())
    }

    fn wrong(&self, why: &str) -> StoreError {
        StoreError::invalid(
            format!("--change '{}': {why}", self.0.escape_debug()),
            "write CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, VOLUME, WORKDIR or STOPSIGNAL with its value, as in a Dockerfile",
        )
    }
}

fn set(config: &mut Map<String, Value>, key: &str, value: Value) {
    config.insert(key.to_owned(), value);
}

/// A relative one is in the one before.
fn set_directory(config: &mut Map<String, Value>, value: &str) {
    let current = config.get("WorkingDir").and_then(Value::as_str);
    let current = current.unwrap_or("/");
    let joined = std::path::Path::new("/").join(current).join(value);
    set(config, "WorkingDir", json!(joined.to_string_lossy()));
}

fn set_variables(config: &mut Map<String, Value>, pairs: Vec<(String, String)>) {
    let list = config.entry("Env").or_insert_with(|| json!([]));
    if !list.is_array() {
        *list = json!([]);
    }
    if let Value::Array(list) = list {
        for (name, value) in pairs {
            let prefix = format!("{name}=");
            list.retain(|old| !old.as_str().is_some_and(|old| old.starts_with(&prefix)));
            list.push(json!(format!("{prefix}{value}")));
        }
    }
}

fn add_volumes(volumes: &mut Map<String, Value>, value: &str) {
    let paths = match serde_json::from_str::<Vec<String>>(value) {
        Ok(paths) => paths,
        Err(_) => value.split_whitespace().map(str::to_owned).collect(),
    };
    for path in paths {
        volumes.insert(path, json!({}));
    }
}

/// The exec form is a JSON array; anything else is a line for the shell.
fn command(value: &str) -> Value {
    match serde_json::from_str::<Vec<String>>(value) {
        Ok(words) => json!(words),
        Err(_) => json!(["/bin/sh", "-c", value]),
    }
}

/// `A=1 B="x y"`, or the old form `A the rest`.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let first = text.split_whitespace().next()?;
    if !first.contains('=') {
        let (name, value) = text.split_once(char::is_whitespace)?;
        return Some(vec![(name.to_owned(), value.trim().to_owned())]);
    }
    let mut found = Vec::new();
    for word in words(text)? {
        let (name, value) = word.split_once('=')?;
        if name.is_empty() {
            return None;
        }
        found.push((name.to_owned(), value.to_owned()));
    }
    Some(found)
}

/// Words as a shell splits them: quotes hold spaces, a backslash takes the next character as it is.
fn words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word = String::new();
    let (mut quote, mut inside) = (None, false);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(open), _) if character == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(character);
                inside = true;
            }
            (None | Some('"'), '\\') => {
                word.push(characters.next()?);
                inside = true;
            }
            (None, _) if character.is_whitespace() => {
                if inside {
                    words.push(std::mem::take(&mut word));
                }
                inside = false;
            }
            _ => {
                word.push(character);
                inside = true;
            }
        }
    }
    if inside {
        words.push(word);
    }
    quote.is_none().then_some(words)
}
