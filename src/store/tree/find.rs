//! Finding a directory in a union by its path.

use std::path::Path;

use crate::layer::stat::Kind;
use crate::store::base::{Result, StoreError};
use crate::union::{self, NodeId, NodeRef, Union};

/// Finds a directory of a union by its absolute path. Symlinks are followed within the union, as a
/// container would follow them. `None` when there is none.
///
/// # Errors
/// The disk cannot be read, or symlinks lead in a circle.
pub(in crate::store) fn find_dir<'u>(
    source: &'u Union,
    path: &Path,
) -> Result<Option<NodeRef<'u>>> {
    /// As many as the kernel follows.
    const MOST_LINKS: usize = 40;
    let unreadable = |error: union::Error| {
        StoreError::failed(
            format!("cannot read '{}' of the image", path.display()),
            error,
            "run 'unionmount system check'",
        )
    };
    let mut left: Vec<Vec<u8>> = parts(path.as_os_str().as_encoded_bytes());
    let mut way = vec![source.root()];
    let mut links = 0;
    while let Some(name) = left.pop() {
        if name == b".." {
            if way.len() > 1 {
                way.pop();
            }
            continue;
        }
        let here = way.last().map_or(NodeId::ROOT, NodeRef::id);
        let Some(entry) = source.find(here, &name).map_err(unreadable)? else {
            return Ok(None);
        };
        match entry.attr.kind() {
            Kind::Dir => way.push(entry.node),
            Kind::Symlink if links < MOST_LINKS => {
                links += 1;
                let target = source.readlink(entry.node.id()).map_err(unreadable)?;
                if target.starts_with(b"/") {
                    way.truncate(1);
                }
                left.extend(parts(&target));
            }
            _ => return Ok(None),
        }
    }
    Ok(way.pop())
}

/// The parts of a path, the last one first.
fn parts(path: &[u8]) -> Vec<Vec<u8>> {
    let parts = path.split(|byte| *byte == b'/');
    let mut parts: Vec<Vec<u8>> = parts
        .filter(|part| !part.is_empty() && *part != b".")
        .map(<[u8]>::to_vec)
        .collect();
    parts.reverse();
    parts
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::union::Config;

    #[test]
    fn symlinks_are_followed_within_the_union() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("d/e")).unwrap();
        std::fs::write(at("d/f"), "x").unwrap();
        symlink("d/e", at("way")).unwrap();
        symlink("/way/../e", at("round")).unwrap();
        symlink("loop", at("loop")).unwrap();
        let source = Union::open(&Config {
            lowers: vec![dir.path().to_owned()],
            ..Config::default()
        })
        .unwrap();
        let find = |path: &str| {
            let found = find_dir(&source, Path::new(path)).unwrap();
            found.map(|dir| dir.id())
        };
        let found = source.lookup(NodeId::ROOT, b"d").unwrap().unwrap();
        let found = source.lookup(found.node, b"e").unwrap().unwrap().node;
        for path in ["/way", "/d/../d/e/", "/round"] {
            assert_eq!(find(path), Some(found), "{path}");
        }
        for missing in ["/none", "/d/f", "/loop"] {
            assert_eq!(find(missing), None, "{missing}");
        }
    }
}
