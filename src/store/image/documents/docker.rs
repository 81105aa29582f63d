//! `manifest.json`: the list of images in an archive of `docker save`.

use serde::{Deserialize, Serialize};

use super::form;
use super::json::{malformed, or_default, parse};
use crate::store::base::Result;

/// One image of the archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DockerImage {
    /// The member with the configuration.
    pub config: String,
    /// Its names.
    #[serde(default, deserialize_with = "or_default")]
    pub repo_tags: Vec<String>,
    /// The members with the layers, the oldest (lowest) first.
    #[serde(default, deserialize_with = "or_default")]
    pub layers: Vec<String>,
}

/// Reads the list.
///
/// # Errors
/// It is not of this form, or names a member that could not be in the archive.
pub fn read(bytes: &[u8], name: &str) -> Result<Vec<DockerImage>> {
    form::refuse_ambiguous(bytes, form::DOCKER, name)?;
    let entries: Vec<DockerImage> = parse(bytes, name)?;
    for entry in &entries {
        for member in entry.layers.iter().chain([&entry.config]) {
            if !is_inside(member) {
                return Err(malformed(
                    name,
                    &format!(
                        "'{}' would be outside of the archive",
                        member.escape_debug()
                    ),
                ));
            }
        }
    }
    Ok(entries)
}

/// A relative path without `..`.
fn is_inside(member: &str) -> bool {
    !member.is_empty()
        && !member.starts_with('/')
        && !member.contains('\0')
        && member.split('/').all(|part| part != "..")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn members_stay_inside() {
        let list = r#"[{"Config":"a.json","RepoTags":null,"Layers":["x/layer.tar"],"Other":1}]"#;
        let entries = read(list.as_bytes(), "manifest.json").unwrap();
        assert_eq!(entries[0].layers, ["x/layer.tar"]);
        for member in ["../x", "/etc/passwd", "a/../../b", ""] {
            let list = list.replace("x/layer.tar", member);
            assert!(read(list.as_bytes(), "manifest.json").is_err(), "{member}");
        }
    }
}
