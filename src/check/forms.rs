//! Layers that have marks of both forms.

use std::path::{Path, PathBuf};

use super::report::{Finding, Kind, path_of};
use super::subject::{CACHED_FDS, opened, unreadable};
use crate::layer::marks::inventory::Marks;
use crate::layer::{FdCache, ReadOnlyDir};
use crate::union::config::SetupError;

/// Returns a finding for a layer that has marks of both forms.
pub(super) fn mixed_forms(path: &Path) -> Result<Option<Finding>, SetupError> {
    let (mut beside, mut in_place) = (0, 0);
    let mut example = PathBuf::new();
    let root = ReadOnlyDir::alone(opened(path)?, &FdCache::new(CACHED_FDS));
    let mut todo = vec![(root, PathBuf::new())];
    while let Some((dir, at)) = todo.pop() {
        let marks = Marks::read(&dir, false).map_err(|errno| unreadable(&path.join(&at), errno))?;
        if marks.redirected {
            // Written with `redirect_dir`: a renamed directory leaves a device, whatever form the
            // other marks have.
            return Ok(None);
        }
        let (files, others) = marks.by_form();
        beside += files;
        in_place += others;
        if let Some(name) = marks.example_beside() {
            example = at.join(path_of(&name));
        }
        for name in &marks.directories {
            todo.push((dir.child(name), at.join(path_of(name))));
        }
    }
    Ok((beside > 0 && in_place > 0).then(|| Finding {
        kind: Kind::MixedForms,
        layer: path.to_owned(),
        path: example,
        explanation: format!(
            "{beside} marks are .wh. files and {in_place} devices or xattrs: programs that read one form only see another tree; see 'unionmount convert'"
        ),
        mended: false,
    }))
}
