//! A tar archive that can be read at any place: where each member is, found by going from header to
//! header.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::Member;
use crate::archive::Limits;
use crate::archive::tar::{EntryKind, TarReader, padding};
use crate::store::base::{Context, Result, StoreError};

/// Members that an archive of images may have: one for each layer and document, and their
/// directories.
const MOST_MEMBERS: usize = 100_000;
/// Links that are followed from one name to a member.
const MOST_LINKS: usize = 8;
/// Bytes that are read for a header.
const HEADER_BUFFER: usize = 4096;

/// Where a member is.
#[derive(Clone, Debug)]
enum TarMember {
    Data {
        offset: u64,
        size: u64,
    },
    /// Another member of this name: old versions of `docker save` store equal layers so.
    Link(String),
}

/// An archive with the places of its members.
#[derive(Debug)]
pub(super) struct Tarball {
    file: Arc<File>,
    members: HashMap<String, TarMember>,
}

impl Tarball {
    pub(super) fn new(file: File, limits: &Limits, given: &Path) -> Result<Self> {
        let file = Arc::new(file);
        let end = file.metadata().context("stat", given)?.len();
        let unreadable = |why: String| {
            StoreError::malformed(
                format!("cannot read the archive '{}': {why}", given.display()),
                "name an OCI layout or an archive of docker save or podman save; download it again if it was one",
            )
        };
        let mut members = HashMap::new();
        let mut at = 0;
        loop {
            let section = Section {
                file: Arc::clone(&file),
                at,
                end,
            };
            let mut reader =
                TarReader::new(BufReader::with_capacity(HEADER_BUFFER, section), *limits);
            let next = reader
                .next_entry()
                .map_err(|error| unreadable(error.to_string()))?;
            let Some(entry) = next else { break };
            let (data, stored) = reader.data_place();
            let name = plain_name(&entry.path);
            let offset = at + data;
            let behind = offset.saturating_add(stored);
            if behind > end {
                return Err(unreadable(format!("member '{name}' goes beyond the end")));
            }
            at = behind + padding(stored);
            let place = match entry.what {
                EntryKind::File(size) if size == stored => TarMember::Data { offset, size },
                EntryKind::Symlink(ref target) => {
                    TarMember::Link(beside(&name, &String::from_utf8_lossy(target)))
                }
                EntryKind::HardLink(ref target) => TarMember::Link(plain_name(target)),
                _ => continue,
            };
            if members.len() >= MOST_MEMBERS {
                return Err(unreadable(format!(
                    "it has more than {MOST_MEMBERS} members"
                )));
            }
            members.insert(name, place);
        }
        Ok(Self { file, members })
    }

    pub(super) fn member(&self, name: &str) -> Result<Option<Member>> {
        let mut name = name.strip_prefix("./").unwrap_or(name).to_owned();
        for _ in 0..MOST_LINKS {
            match self.members.get(&name) {
                None => return Ok(None),
                Some(TarMember::Link(target)) => name.clone_from(target),
                Some(TarMember::Data { offset, size }) => {
                    return Ok(Some(Member {
                        size: *size,
                        reader: Box::new(Section {
                            file: Arc::clone(&self.file),
                            at: *offset,
                            end: offset.saturating_add(*size),
                        }),
                    }));
                }
            }
        }
        Err(StoreError::malformed(
            format!("links of the archive lead from '{name}' in a circle"),
            "the archive is damaged: download or build it again",
        ))
    }
}

/// A part of a file.
struct Section {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let most = left.min(buffer.len());
        let len = self
            .file
            .read_at(buffer.get_mut(..most).unwrap_or_default(), self.at)?;
        self.at += u64::try_from(len).unwrap_or(0);
        Ok(len)
    }
}

/// A name without `./` in front; the names that are looked for are plain text.
fn plain_name(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    name.trim_start_matches("./")
        .trim_end_matches('/')
        .to_owned()
}

/// The name that a symlink's target stands for, seen from the link's directory.
fn beside(link: &str, target: &str) -> String {
    let mut parts: Vec<&str> = link.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;

    use super::*;

    fn tarball(build: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Result<Tarball> {
        let mut builder = tar::Builder::new(Vec::new());
        build(&mut builder);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&builder.into_inner().unwrap()).unwrap();
        Tarball::new(file, &Limits::default(), Path::new("a.tar"))
    }

    fn add(builder: &mut tar::Builder<Vec<u8>>, name: &str, content: &[u8]) {
        let mut header = tar::Header::new_gnu();
        header.set_size(u64::try_from(content.len()).unwrap());
        header.set_mode(0o644);
        builder.append_data(&mut header, name, content).unwrap();
    }

    fn link(builder: &mut tar::Builder<Vec<u8>>, name: &str, target: &str) {
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        header.set_entry_type(tar::EntryType::Symlink);
        builder.append_link(&mut header, name, target).unwrap();
    }

    #[test]
    fn members_are_found_and_links_followed() {
        let long = format!("blobs/{}", "x".repeat(200));
        let tarball = tarball(|builder| {
            add(builder, "a/layer.tar", &[7; 1000]);
            link(builder, "b/layer.tar", "../a/layer.tar");
            link(builder, "c", "c");
            add(builder, &long, b"long");
            add(builder, "empty", b"");
        })
        .unwrap();
        for (name, size) in [
            ("a/layer.tar", 1000),
            ("b/layer.tar", 1000),
            (&long, 4),
            ("empty", 0),
        ] {
            let mut member = tarball.member(name).unwrap().unwrap();
            let mut bytes = Vec::new();
            member.reader.read_to_end(&mut bytes).unwrap();
            assert_eq!((bytes.len(), member.size), (size, size as u64), "{name}");
        }
        assert!(tarball.member("none").unwrap().is_none());
        assert!(tarball.member("c").is_err());
    }

    #[test]
    fn what_is_no_archive_is_refused() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[b'x'; 5000]).unwrap();
        assert!(Tarball::new(file, &Limits::default(), Path::new("x")).is_err());
    }
}
