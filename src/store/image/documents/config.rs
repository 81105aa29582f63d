//! The configuration of an image: what is shown of it, and how `commit` changes it.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::change::Change;
use super::json::{malformed, object, or_default, parse, write};
use super::platform::Platform;
use crate::archive::Digest;
use crate::store::base::Result;

/// One step of an image's making.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct HistoryStep {
    /// When, in RFC 3339.
    #[serde(default, deserialize_with = "or_default")]
    pub created: String,
    /// By which command.
    #[serde(default, deserialize_with = "or_default")]
    pub created_by: String,
    /// The comment of its author.
    #[serde(default, deserialize_with = "or_default")]
    pub comment: String,
    /// It changed no file.
    #[serde(default, deserialize_with = "or_default")]
    pub empty_layer: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct RootFs {
    /// Some leave it out; there is only one.
    #[serde(rename = "type", default, deserialize_with = "or_default")]
    kind: String,
    #[serde(default, deserialize_with = "or_default")]
    diff_ids: Vec<String>,
}

/// The parts of a configuration that are used.
#[derive(Clone, Debug, Deserialize)]
pub struct ImageConfig {
    /// When the image was made, in RFC 3339; may be empty.
    #[serde(default, deserialize_with = "or_default")]
    pub created: String,
    /// Who made it.
    #[serde(default, deserialize_with = "or_default")]
    pub author: String,
    /// The comment of its author.
    #[serde(default, deserialize_with = "or_default")]
    pub comment: String,
    /// What it runs on.
    #[serde(flatten)]
    pub platform: Platform,
    /// How it is run: `Cmd`, `Env`, `Labels`, .. as docker names them.
    #[serde(default, deserialize_with = "or_default")]
    pub config: Map<String, Value>,
    /// How it was made, the oldest step first.
    #[serde(default, deserialize_with = "or_default")]
    pub history: Vec<HistoryStep>,
    rootfs: RootFs,
}

impl ImageConfig {
    /// Reads a configuration.
    ///
    /// # Errors
    /// It is none, or its layers are not named by digests.
    pub fn read(bytes: &[u8], name: &str) -> Result<Self> {
        let config: Self = parse(bytes, name)?;
        if !matches!(config.rootfs.kind.as_str(), "layers" | "") {
            return Err(malformed(name, "its rootfs is not of the type 'layers'"));
        }
        config.diff_ids(name)?;
        Ok(config)
    }

    /// The digests of the uncompressed layers, the oldest (lowest) first.
    ///
    /// # Errors
    /// One of them is no digest.
    pub fn diff_ids(&self, name: &str) -> Result<Vec<Digest>> {
        let digest = |text: &String| {
            text.parse().map_err(|error| {
                malformed(
                    name,
                    &format!("the diff_id '{}': {error}", text.escape_debug()),
                )
            })
        };
        self.rootfs.diff_ids.iter().map(digest).collect()
    }

    /// What a container of it would run: entry point and command, as one line.
    #[must_use]
    pub fn command(&self) -> String {
        let words = |key: &str| match self.config.get(key) {
            Some(Value::Array(words)) => words
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
            Some(Value::String(line)) => vec![line.clone()],
            _ => Vec::new(),
        };
        let mut all: Vec<String> = words("Entrypoint");
        all.extend(words("Cmd"));
        all.join(" ")
    }

    /// The directories that are to be volumes.
    #[must_use]
    pub fn volumes(&self) -> Vec<String> {
        match self.config.get("Volumes") {
            Some(Value::Object(volumes)) => volumes.keys().cloned().collect(),
            _ => Vec::new(),
        }
    }
}

/// What `commit` adds to a configuration.
#[derive(Clone, Debug)]
pub struct Addition<'a> {
    /// The digest of the new layer.
    pub diff_id: Digest,
    /// When, in RFC 3339.
    pub created: &'a str,
    /// Who.
    pub author: &'a str,
    /// Why.
    pub message: &'a str,
    /// By which command.
    pub created_by: &'a str,
    /// Instructions as in a Dockerfile.
    pub changes: &'a [String],
}

/// The configuration of an image with one layer more. What is not understood stays as it is.
///
/// # Errors
/// The base is no configuration, or an instruction is wrong.
pub fn extend(base: &[u8], addition: &Addition<'_>) -> Result<Vec<u8>> {
    let name = "the configuration of the image";
    let mut document: Map<String, Value> = parse(base, name)?;
    // What docker recorded of the build that made the base is not true of the new image.
    for stale in ["id", "parent", "container", "container_config", "size"] {
        document.remove(stale);
    }
    document.insert("created".into(), json!(addition.created));
    if !addition.author.is_empty() {
        document.insert("author".into(), json!(addition.author));
    }
    if !addition.message.is_empty() {
        document.insert("comment".into(), json!(addition.message));
    }
    let rootfs = object(&mut document, "rootfs")?;
    let diff_ids = rootfs.entry("diff_ids").or_insert_with(|| json!([]));
    match diff_ids {
        Value::Array(ids) => ids.push(json!(addition.diff_id.to_string())),
        other => *other = json!([addition.diff_id.to_string()]),
    }
    let mut step = Map::new();
    step.insert("created".into(), json!(addition.created));
    step.insert("created_by".into(), json!(addition.created_by));
    for (key, text) in [("author", addition.author), ("comment", addition.message)] {
        if !text.is_empty() {
            step.insert(key.into(), json!(text));
        }
    }
    match document.entry("history").or_insert_with(|| json!([])) {
        Value::Array(steps) => steps.push(Value::Object(step)),
        other => *other = json!([step]),
    }
    let config = object(&mut document, "config")?;
    for change in addition.changes {
        Change(change).apply(config)?;
    }
    write(&document)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn base() -> String {
        json!({
            "architecture": "amd64", "os": "linux", "created": null, "unknown": {"kept": 1},
            "container_config": {"Cmd": ["x"]},
            "config": {"Env": ["PATH=/bin", "A=0"], "Cmd": ["sh"], "Labels": null},
            "rootfs": {"type": "layers", "diff_ids": [Digest::of(b"1").to_string()]},
            "history": [{"created_by": "COPY", "empty_layer": false}],
        })
        .to_string()
    }

    fn extended(changes: &[&str]) -> Result<Value> {
        let changes: Vec<String> = changes.iter().map(|&change| change.to_owned()).collect();
        let addition = Addition {
            diff_id: Digest::of(b"2"),
            created: "2024-01-01T00:00:00Z",
            author: "me",
            message: "why",
            created_by: "unionmount commit",
            changes: &changes,
        };
        Ok(serde_json::from_slice(&extend(base().as_bytes(), &addition)?).unwrap())
    }

    #[test]
    fn a_commit_adds_a_layer_and_a_step() {
        let document = extended(&[]).unwrap();
        assert_eq!(document["unknown"], json!({"kept": 1}));
        assert_eq!(document["container_config"], Value::Null);
        assert_eq!(document["rootfs"]["diff_ids"].as_array().unwrap().len(), 2);
        assert_eq!(document["history"][1]["comment"], "why");
        let config = ImageConfig::read(document.to_string().as_bytes(), "it").unwrap();
        assert_eq!(config.diff_ids("it").unwrap()[1], Digest::of(b"2"));
        assert_eq!(config.command(), "sh");
        assert_eq!(config.platform.to_string(), "linux/amd64");
    }

    #[test]
    fn instructions_change_how_it_is_run() {
        let document = extended(&[
            "CMD [\"a\", \"b c\"]",
            "entrypoint run it",
            "ENV A=1 B=\"x y\" C=d\\ e",
            "ENV OLD the rest of it",
            "EXPOSE 80 53/udp",
            "LABEL a.b=c d='e f'",
            "USER 1:2",
            "VOLUME [\"/data\"]",
            "VOLUME /x /y",
            "WORKDIR srv",
            "WORKDIR app",
            "STOPSIGNAL SIGTERM",
        ])
        .unwrap();
        let expected = json!({
            "Cmd": ["a", "b c"],
            "Entrypoint": ["/bin/sh", "-c", "run it"],
            "Env": ["PATH=/bin", "A=1", "B=x y", "C=d e", "OLD=the rest of it"],
            "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
            "Labels": {"a.b": "c", "d": "e f"},
            "User": "1:2",
            "Volumes": {"/data": {}, "/x": {}, "/y": {}},
            "WorkingDir": "/srv/app",
            "StopSignal": "SIGTERM",
        });
        assert_eq!(document["config"], expected);
        for wrong in [
            "RUN x",
            "CMD",
            "ENV =x",
            "ENV A='x",
            "EXPOSE http",
            "EXPOSE 1/x",
            "",
        ] {
            assert!(extended(&[wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_no_configuration_is_refused() {
        for text in [
            "{}",
            "[]",
            r#"{"rootfs":{"type":"x"}}"#,
            r#"{"rootfs":{"type":"layers","diff_ids":["sha256:../x"]}}"#,
            r#"{"rootfs":{"type":"layers"},"rootfs":{"type":"layers"}}"#,
        ] {
            assert!(ImageConfig::read(text.as_bytes(), "it").is_err(), "{text}");
        }
        for text in [
            r#"{"rootfs":{"type":"layers","diff_ids":null}}"#,
            r#"{"rootfs":{"diff_ids":[]}}"#,
            r#"{"rootfs":{"type":null},"os":null,"architecture":null,"variant":null}"#,
            r#"{"rootfs":{"type":""},"config":null,"history":null,"created":null}"#,
            r#"{"rootfs":{},"history":[{}]}"#,
        ] {
            assert!(ImageConfig::read(text.as_bytes(), "it").is_ok(), "{text}");
        }
    }
}
