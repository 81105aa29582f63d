//! Stores of other engines, for reading: a layer of docker's `overlay2` directory, and a podman
//! store.
//!
//! Both keep a layer as a directory with `diff`, its tree; `link`, a short name; and `lower`, the
//! short names of what lies below it, newest first, as `l/SHORT:l/SHORT`. `l` beside the layers
//! holds a symlink for each short name.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::store::base::{Context, Result, StoreError};
use crate::store::image::documents::parse;
use crate::union::Config;

/// A `lower` file names at most so many bytes of layers.
const LONGEST_LOWER: usize = 1 << 20;
/// Where podman keeps its configuration, after `CONTAINERS_STORAGE_CONF` and the user's own.
const SYSTEM_CONF: [&str; 2] = [
    "/etc/containers/storage.conf",
    "/usr/share/containers/storage.conf",
];
/// Where the store of root is.
const SYSTEM_STORE: &str = "/var/lib/containers/storage";

/// The union of a layer directory and everything below it, for reading.
///
/// # Errors
/// It is no such directory, or a layer below it is missing.
pub(crate) fn overlay2(dir: &Path) -> Result<Config> {
    let wrong = |why: String| {
        StoreError::not_found(
            format!(
                "'{}' is no layer of an overlay2 directory: {why}",
                dir.display()
            ),
            "name a directory below /var/lib/docker/overlay2 that has 'diff' and 'link'",
        )
    };
    let dir = dir
        .canonicalize()
        .map_err(|error| wrong(error.to_string()))?;
    let Some(store) = dir.parent() else {
        return Err(wrong("it has no directory above it".to_owned()));
    };
    let tree = dir.join("diff");
    if !tree.is_dir() {
        return Err(wrong("it has no directory 'diff'".to_owned()));
    }
    let mut lowers = vec![tree];
    match fs::read(dir.join("lower")) {
        Ok(text) if text.len() <= LONGEST_LOWER => {
            let text = String::from_utf8_lossy(&text);
            for word in text.trim().split(':').filter(|word| !word.is_empty()) {
                if !is_link(word) {
                    return Err(wrong(format!("'lower' names '{}'", word.escape_debug())));
                }
                let lower = store.join(word);
                let lower = lower
                    .canonicalize()
                    .map_err(|error| wrong(format!("'{}': {error}", lower.display())))?;
                // A link leads to a layer of the same store, wherever it points.
                if !lower.starts_with(store) || !lower.is_dir() {
                    return Err(wrong(format!("'{word}' leads to '{}'", lower.display())));
                }
                lowers.push(lower);
            }
        }
        Ok(_) => return Err(wrong("'lower' is too long".to_owned())),
        // The lowest layer of an image has none.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(wrong(format!("'lower': {error}"))),
    }
    Ok(Config {
        lowers,
        read_only: true,
        ..Config::default()
    })
}

/// `l/` and a short name, which is upper case letters and digits.
fn is_link(word: &str) -> bool {
    word.strip_prefix("l/").is_some_and(|short| {
        !short.is_empty() && short.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

#[derive(Deserialize)]
struct StorageEntry {
    id: String,
    #[serde(default)]
    names: Option<Vec<String>>,
    /// The top layer, of images and containers.
    #[serde(default)]
    layer: Option<String>,
}

/// The union of a container, image or layer of a podman store, by id, by the beginning of an id, or
/// by name.
///
/// # Errors
/// There is no store, or nothing of that name in it.
pub(crate) fn podman(word: &str, store: Option<&Path>) -> Result<Config> {
    let store = match store {
        Some(store) => store.to_owned(),
        None => graph_root()?,
    };
    if !store.is_dir() {
        return Err(StoreError::not_found(
            format!("there is no podman store '{}'", store.display()),
            "name it with --store DIR ('podman info' shows it as graphRoot)",
        ));
    }
    for kind in ["containers", "images", "layers"] {
        let entries = entries_of(&store, kind)?;
        if let Some(entry) = only_match(&entries, kind, word)? {
            let layer = entry.top_layer(kind, word)?;
            return overlay2(&store.join("overlay").join(layer));
        }
    }
    Err(StoreError::not_found(
        format!(
            "nothing in '{}' is called '{}'",
            store.display(),
            word.escape_debug()
        ),
        "give the id or name of a container, an image or a layer (podman ps -a, podman images), or another --store DIR",
    ))
}

fn entries_of(store: &Path, kind: &str) -> Result<Vec<StorageEntry>> {
    let path = store.join(format!("overlay-{kind}/{kind}.json"));
    let text = match fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.context("read", &path)?,
    };
    parse(&text, &path.to_string_lossy())
}

/// The entry that a word stands for: one of that name, or else the only one whose id begins so.
fn only_match<'a>(
    entries: &'a [StorageEntry],
    kind: &str,
    word: &str,
) -> Result<Option<&'a StorageEntry>> {
    let mut found: Vec<&StorageEntry> = entries.iter().filter(|e| e.is(word)).collect();
    if found.is_empty() && word.len() >= 3 {
        found = entries.iter().filter(|e| e.id.starts_with(word)).collect();
    }
    match found.as_slice() {
        [] => Ok(None),
        [only] => Ok(Some(only)),
        _ => Err(StoreError::ambiguous(
            format!("several {kind} begin with '{word}'"),
            "give more digits of the one that is meant",
        )),
    }
}

impl StorageEntry {
    /// The id of the layer on top of it, or its own when it is one; safe as a part of a path.
    fn top_layer(&self, kind: &str, word: &str) -> Result<&str> {
        let layer = if kind == "layers" {
            &self.id
        } else {
            self.layer.as_ref().ok_or_else(|| {
                StoreError::not_found(
                    format!("'{word}' has no layer"),
                    "name another image or container",
                )
            })?
        };
        if !layer.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(StoreError::malformed(
                format!(
                    "the layer of '{word}' has the id '{}'",
                    layer.escape_debug()
                ),
                "check the podman store with 'podman system check'",
            ));
        }
        Ok(layer)
    }

    /// A name may be given without its registry and tag.
    fn is(&self, word: &str) -> bool {
        let names = self.names.iter().flatten();
        let with_tag = format!("{word}:latest");
        let is_name = |name: &String| {
            let short = name.rsplit('/').next().unwrap_or(name);
            [name.as_str(), short]
                .iter()
                .any(|name| *name == word || *name == with_tag)
        };
        self.id == word || names.into_iter().any(is_name)
    }
}

#[derive(Deserialize)]
struct StorageConf {
    storage: Option<StorageTable>,
}

#[derive(Deserialize)]
struct StorageTable {
    graphroot: Option<PathBuf>,
}

/// Where podman keeps its store: what its configuration says, else its default.
fn graph_root() -> Result<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let is_root = rustix::process::geteuid().is_root();
    let mut files: Vec<PathBuf> = Vec::new();
    files.extend(std::env::var_os("CONTAINERS_STORAGE_CONF").map(PathBuf::from));
    if let Some(home) = home.as_ref().filter(|_| !is_root) {
        let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
        let config = config.unwrap_or_else(|| home.join(".config"));
        files.push(config.join("containers/storage.conf"));
    }
    if is_root {
        files.extend(SYSTEM_CONF.map(PathBuf::from));
    }
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else {
            continue;
        };
        let conf: StorageConf = toml::from_str(&text).map_err(|error| {
            StoreError::invalid(
                format!("'{}': {}", file.display(), error.message()),
                "correct it, or name the store with --store DIR",
            )
        })?;
        if let Some(root) = conf.storage.and_then(|storage| storage.graphroot)
            && !root.as_os_str().is_empty()
        {
            return Ok(root);
        }
    }
    match home {
        Some(home) if !is_root => Ok(home.join(".local/share/containers/storage")),
        _ => Ok(PathBuf::from(SYSTEM_STORE)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::symlink;

    use super::*;

    fn layer(store: &Path, id: &str, short: &str, lower: Option<&str>) {
        let dir = store.join(id);
        fs::create_dir_all(dir.join("diff")).unwrap();
        fs::create_dir_all(store.join("l")).unwrap();
        fs::write(dir.join("link"), short).unwrap();
        symlink(format!("../{id}/diff"), store.join("l").join(short)).unwrap();
        if let Some(lower) = lower {
            fs::write(dir.join("lower"), lower).unwrap();
        }
    }

    #[test]
    fn a_stack_is_found_by_its_links() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("overlay");
        layer(&store, "aa11", "AAA", None);
        layer(&store, "bb22", "BBB", Some("l/AAA"));
        layer(&store, "cc33", "CCC", Some("l/BBB:l/AAA"));
        let config = overlay2(&store.join("cc33")).unwrap();
        let real = store.canonicalize().unwrap();
        let expected: Vec<PathBuf> = ["cc33", "bb22", "aa11"]
            .iter()
            .map(|id| real.join(id).join("diff"))
            .collect();
        assert_eq!(config.lowers, expected);
        assert!(config.upper.is_none());
        let alone = overlay2(&store.join("aa11")).unwrap();
        assert_eq!(alone.lowers.len(), 1);

        let write = |kind: &str, text: &str| {
            let place = dir.path().join(format!("overlay-{kind}"));
            fs::create_dir_all(&place).unwrap();
            fs::write(place.join(format!("{kind}.json")), text).unwrap();
        };
        write(
            "images",
            r#"[{"id":"1234abcd","names":["localhost/app:latest"],"layer":"bb22"}]"#,
        );
        write(
            "containers",
            r#"[{"id":"5678","names":["box"],"layer":"cc33"}]"#,
        );
        write("layers", r#"[{"id":"aa11"},{"id":"bb22"},{"id":"cc33"}]"#);
        for (word, layers) in [
            ("app", 2),
            ("localhost/app:latest", 2),
            ("1234", 2),
            ("box", 3),
            ("aa11", 1),
        ] {
            let config = podman(word, Some(dir.path())).unwrap();
            assert_eq!(config.lowers.len(), layers, "{word}");
        }
        assert!(podman("none", Some(dir.path())).is_err());
        assert!(podman("box", Some(&dir.path().join("missing"))).is_err());
    }

    #[test]
    fn links_do_not_lead_out() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("overlay2");
        fs::create_dir_all(dir.path().join("outside")).unwrap();
        layer(&store, "aa", "AAA", Some("l/OUT"));
        symlink("../../outside", store.join("l/OUT")).unwrap();
        layer(&store, "bb", "BBB", Some("../../outside"));
        layer(&store, "cc", "CCC", Some("l/NONE"));
        for id in ["aa", "bb", "cc", "l", "missing"] {
            assert!(overlay2(&store.join(id)).is_err(), "{id}");
        }
    }
}
