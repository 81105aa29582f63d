//! What a directory of a union shows.

use crate::layer::dir::Name;
use crate::union::{self, NodeId, Union};

/// The names in a directory, without `.` and `..`.
///
/// # Errors
/// Those of the union's readdir.
pub(super) fn names(union: &Union, dir: NodeId) -> union::Result<Vec<Name>> {
    let mut names = Vec::new();
    union.readdir(dir, 0, |entry| {
        if !matches!(&*entry.name, b"." | b"..") {
            names.push(Name::clone(&entry.name));
        }
        true
    })?;
    Ok(names)
}
