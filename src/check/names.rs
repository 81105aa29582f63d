//! What the `.wh.` names of a layer are: marks, or files that were given such names.
//!
//! Kernel overlayfs takes such names for ordinary ones, and says nowhere that it did. Rewriting and
//! removing marks must not take a file for one. A mark is an empty regular file; in a layer that
//! kernel overlayfs wrote to it is one only if it has no write permission, as we make them when we
//! go on with such an upper.

use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::report::path_of;
use crate::layer::ReadOnlyDir;
use crate::layer::dir::{Dir, Name};
use crate::layer::marks::root::{has_device_marks, reads_plain_names};
use crate::layer::marks::{NameMeaning, WH_PREFIX, meaning};
use crate::layer::stat::{Kind, Stat};

/// Permissions to write.
const WRITABLE: u32 = 0o222;

/// The `.wh.` names of a layer, all directories of its disk together.
#[derive(Debug, Default)]
pub(super) struct DotNames {
    /// One that is no mark.
    pub(super) ordinary: Option<PathBuf>,
    /// There are marks.
    pub(super) marks: bool,
}

impl DotNames {
    /// Looks at a whole layer. Errors come with the directory that cannot be read.
    pub(super) fn of(root: &ReadOnlyDir) -> Result<Self, (PathBuf, Errno)> {
        // By what its root says: none of them is a mark, or the kernel wrote there.
        let (all_plain, kernels) = (reads_plain_names(root), has_device_marks(root));
        let mut found = Self::default();
        let device = root.stat().map_err(|errno| (PathBuf::new(), errno))?.dev;
        let mut todo = vec![(root.clone(), PathBuf::new())];
        while let Some((dir, path)) = todo.pop() {
            let directories = found
                .look_at(&dir, &path, device, |name, stat| {
                    !all_plain && is_mark(name, stat, kernels)
                })
                .map_err(|errno| (path.clone(), errno))?;
            for name in directories {
                todo.push((dir.child(&name), path.join(path_of(&name))));
            }
        }
        Ok(found)
    }

    /// Looks at one directory, and returns those in it.
    fn look_at(
        &mut self,
        dir: &Dir,
        path: &Path,
        device: u64,
        is_mark: impl Fn(&[u8], &Stat) -> bool,
    ) -> rustix::io::Result<Vec<Name>> {
        if dir.stat()?.dev != device {
            return Ok(Vec::new());
        }
        let (mut dotted, mut directories) = (Vec::new(), Vec::new());
        dir.for_each(|name, kind, _| {
            if name.starts_with(WH_PREFIX) {
                dotted.push(Name::from(name));
            } else if kind.is_none_or(|kind| kind == Kind::Dir) {
                directories.push((Name::from(name), kind));
            }
        })?;
        for name in dotted {
            let stat = dir.stat_on_disk(&name)?;
            if is_mark(&name, &stat) {
                self.marks = true;
            } else {
                self.ordinary
                    .get_or_insert_with(|| path.join(path_of(&name)));
                if stat.kind() == Kind::Dir {
                    directories.push((name, Some(Kind::Dir)));
                }
            }
        }
        let mut sure = Vec::with_capacity(directories.len());
        for (name, kind) in directories {
            if kind.is_some() || dir.stat_on_disk(&name)?.kind() == Kind::Dir {
                sure.push(name);
            }
        }
        Ok(sure)
    }
}

/// Whether what is at a `.wh.` name is a mark, or a leftover of one who marks so (AUFS keeps
/// directories).
fn is_mark(name: &[u8], stat: &Stat, kernels: bool) -> bool {
    let empty = stat.kind() == Kind::File && stat.size == 0;
    match kernels {
        true => empty && stat.perm() & WRITABLE == 0,
        false => empty || meaning(name) == NameMeaning::Leftover,
    }
}
