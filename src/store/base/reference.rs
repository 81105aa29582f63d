//! Names of images: `REPOSITORY[:TAG]`, in the short form that docker shows.

use super::error::{Result, StoreError};

/// The tag that is meant when none is given.
const LATEST: &str = "latest";
/// Longest repository, in bytes (distribution/reference). Of what is kept and shown: what was read
/// may be longer, and what is shown is always a name again.
const LONGEST: usize = 255;
/// Longest tag (distribution/reference).
const LONGEST_TAG: usize = 128;
/// Where docker takes a name from that names no registry.
const HUB: &str = "docker.io/";
/// What docker leaves out when it shows a name of one part.
const HUB_LIBRARIES: [&str; 2] = ["docker.io/library/", "index.docker.io/library/"];
/// The registry that podman sets for what was built on this machine.
pub(crate) const LOCAL: &str = "localhost/";

/// A name with a tag.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// `debian`, `localhost/app`, `registry.example:5000/team/app`.
    pub repository: String,
    /// `latest`, `12-slim`.
    pub tag: String,
}

impl Reference {
    /// Reads a name; the tag may be missing.
    ///
    /// # Errors
    /// Something that is no name: upper case, a digest, characters that a path would take for
    /// something else.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |why: &str| {
            StoreError::invalid(
                format!("'{}' is not a name of an image: {why}", text.escape_debug()),
                "write REPOSITORY[:TAG], as in debian:12 or localhost/team/app",
            )
        };
        if text.contains('@') {
            return Err(bad("it has a digest"));
        }
        let (repository, tag) = match text.rsplit_once(':') {
            // A colon before the last slash belongs to the registry's port.
            Some((repository, tag)) if !tag.contains('/') => (repository, tag),
            _ => (text, LATEST),
        };
        if !is_tag(tag) {
            return Err(bad("its tag is wrong"));
        }
        let repository = short(repository);
        if repository.len() > LONGEST {
            return Err(bad("it is too long"));
        }
        let mut parts = repository.split('/');
        let first = parts.next().unwrap_or_default();
        let rest: Vec<&str> = parts.collect();
        let first_is_fine = is_component(first) || (!rest.is_empty() && is_registry(first));
        if !first_is_fine || !rest.iter().all(|part| is_component(part)) {
            return Err(bad(
                "a part of it is empty, or has other characters than a-z 0-9 . _ -",
            ));
        }
        Ok(Self {
            repository: repository.to_owned(),
            tag: tag.to_owned(),
        })
    }

    /// Whether it names a registry.
    #[must_use]
    pub fn has_registry(&self) -> bool {
        has_registry(&self.repository)
    }

    /// The name in an archive: what it says, or only a tag, which `repository` completes. `None`
    /// for a tag without one.
    ///
    /// # Errors
    /// It is no name.
    pub fn from_annotation(text: &str, repository: Option<&str>) -> Result<Option<Self>> {
        match repository {
            _ if text.contains(['/', ':']) => Self::parse(text).map(Some),
            Some(repository) => Self::parse(&format!("{repository}:{text}")).map(Some),
            None => Ok(None),
        }
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.repository, self.tag)
    }
}

/// Leaves out the registry that is meant when none is named, unless the rest would name another
/// one.
fn short(repository: &str) -> &str {
    let mut libraries = HUB_LIBRARIES.iter();
    let plain = libraries.find_map(|prefix| repository.strip_prefix(prefix));
    match (plain, repository.strip_prefix(HUB)) {
        (Some(name), _) if !name.contains('/') => name,
        (_, Some(name)) if !has_registry(name) => name,
        _ => repository,
    }
}

/// Whether the first part of a name is a host, as docker tells it from a user.
fn has_registry(repository: &str) -> bool {
    repository
        .split_once('/')
        .is_some_and(|(first, _)| first.contains(['.', ':']) || first == "localhost")
}

fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= LONGEST_TAG
        && tag.bytes().next().is_some_and(word)
        && tag
            .bytes()
            .all(|byte| word(byte) || matches!(byte, b'.' | b'-'))
}

/// Lower case letters and digits, with separators between them (distribution/reference).
fn is_component(part: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = [part.bytes().next(), part.bytes().next_back()];
    ends.iter().all(|end| end.is_some_and(alphanumeric))
        && part
            .bytes()
            .all(|byte| alphanumeric(byte) || matches!(byte, b'.' | b'_' | b'-'))
        && !part.contains("..")
}

/// A host, with a port or without.
fn is_registry(part: &str) -> bool {
    let (host, port) = part.rsplit_once(':').unwrap_or((part, "0"));
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    !host.is_empty()
        && host.bytes().all(inner)
        && !host.starts_with(['.', '-'])
        && !host.contains("..")
        && !port.is_empty()
        && port.bytes().all(|byte| byte.is_ascii_digit())
}

/// A name made from the name of a file or directory: what is not allowed becomes a dash.
#[must_use]
pub(crate) fn repository_from(file_name: &str) -> Option<String> {
    let stem = file_name
        .split_once(".tar")
        .map_or(file_name, |(stem, _)| stem);
    let mut name = String::with_capacity(stem.len());
    for character in stem.chars() {
        let character = character.to_ascii_lowercase();
        if character.is_ascii_lowercase() || character.is_ascii_digit() {
            name.push(character);
        } else if !name.is_empty() && !name.ends_with('-') {
            name.push('-');
        }
    }
    let name = name.trim_end_matches('-');
    is_component(name).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_are_read() {
        let table = [
            ("debian", "debian:latest"),
            ("debian:12-slim", "debian:12-slim"),
            ("docker.io/library/debian:12", "debian:12"),
            ("docker.io/team/app", "team/app:latest"),
            // Shortened, they would be other images.
            (
                "docker.io/docker.io/team/app",
                "docker.io/docker.io/team/app:latest",
            ),
            ("docker.io/library/a.b/app", "library/a.b/app:latest"),
            ("localhost/app:1", "localhost/app:1"),
            (
                "reg.example:5000/team/app",
                "reg.example:5000/team/app:latest",
            ),
            ("Reg.example/team/app:V1", "Reg.example/team/app:V1"),
            ("a__b/c-d.e", "a__b/c-d.e:latest"),
        ];
        for (text, expected) in table {
            assert_eq!(Reference::parse(text).unwrap().to_string(), expected);
            assert_eq!(Reference::parse(expected).unwrap().to_string(), expected);
        }
    }

    #[test]
    fn the_longest_name_is_read_again() {
        let longest = "a".repeat(255);
        let tag = "t".repeat(128);
        for text in [
            longest.clone(),
            format!("docker.io/library/{longest}:{tag}"),
        ] {
            let name = Reference::parse(&text).unwrap();
            assert_eq!(name.repository, longest);
            assert_eq!(Reference::parse(&name.to_string()).unwrap(), name);
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in [
            "",
            ":",
            "a:",
            ":a",
            "a/",
            "/a",
            "a//b",
            "../x",
            "a/../b",
            "A",
            "a b",
            "a:b c",
            "a@sha256:00",
            "a:.x",
            "-a",
            "a-",
            "x:1/a:",
            "a\n",
        ] {
            assert!(Reference::parse(text).is_err(), "{text:?}");
        }
        assert!(Reference::parse(&"a".repeat(256)).is_err());
    }

    #[test]
    fn names_come_from_annotations_and_files() {
        let name = |text, repository| {
            let name = Reference::from_annotation(text, repository).unwrap();
            name.map(|name| name.to_string()).unwrap_or_default()
        };
        assert_eq!(name("v1", Some("app")), "app:v1");
        assert_eq!(name("v1", None), "");
        assert_eq!(name("docker.io/library/app:v1", Some("x")), "app:v1");
        assert_eq!(
            repository_from("My App_v1.tar.gz").as_deref(),
            Some("my-app-v1")
        );
        assert_eq!(repository_from("...").as_deref(), None);
        assert_eq!(repository_from("plain").as_deref(), Some("plain"));
    }
}
