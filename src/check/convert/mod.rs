//! Rewriting the marks of a layer in place: as `.wh.` files (`wh`) or as 0/0 devices and opaque
//! xattrs (`char`).
//!
//! # Crash
//! In each directory the new marks are made first and brought to the disk, then the old ones are
//! removed. Killed between any two steps, a name is hidden by a mark of either form or by both, and
//! a directory is opaque by either or both: a reader of all forms (this program) sees the same tree
//! at every moment. Kernel overlayfs, which reads one form only, has to wait until the conversion
//! was run again to its end; that run finds the remaining marks by itself. The root says that
//! `.wh.` names are ordinary ones as the last step towards `char`, and takes it back as the first
//! step towards `wh`. The times of a directory are stored in an xattr before anything in it
//! changes, and put back when it is done: killed before, its mtime is that of the conversion, until
//! that was run again to its end.

mod rewrite;
mod times;

use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::names::DotNames;
use super::users_of;
use crate::layer::marks::TRUSTED_PREFIX;
use crate::layer::marks::root::{says_devices, set_devices, storable_prefix, unset_devices};
use crate::layer::{FdCache, WritableDir};
use crate::union::config::SetupError;
use crate::union::open_root;
use rewrite::Rewrite;

/// Descriptors that a walk keeps open at most.
const CACHED_FDS: usize = 128;

/// A form of marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// `.wh.NAME` and `.wh..wh..opq` files: OCI layers, stores of engines with a mount program.
    Wh,
    /// 0/0 devices and opaque xattrs: kernel overlayfs.
    Char,
}

/// What was rewritten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Converted {
    /// Whiteouts.
    pub whiteouts: usize,
    /// Opaque directories.
    pub opaque: usize,
    /// Leftovers without meaning that kernel overlayfs would show, removed.
    pub leftovers: usize,
    /// Whiteouts of names that are too long for a `.wh.` file: those stay devices.
    pub kept: usize,
}

/// What went wrong, and where.
struct Trouble {
    call: &'static str,
    path: PathBuf,
    errno: Errno,
}

type Step<T> = std::result::Result<T, Trouble>;

/// Rewrites all marks of a layer. Other file systems that are mounted in it are left alone.
///
/// # Errors
/// A directory that is in use, that cannot be read or written, whose disk cannot store the form; a
/// name that would become a mark.
pub(crate) fn convert(layer: &Path, to: Form) -> Result<Converted, SetupError> {
    if let Some(user) = users_of(layer).first() {
        return Err(SetupError::new(
            format!("{} is in use by {user}", layer.display()),
            "unmount that first",
        )
        .caused_by(&Errno::BUSY));
    }
    let fd = open_root(layer).map_err(|errno| {
        SetupError::new(
            format!("cannot open {}: {errno}", layer.display()),
            "give the directory of a layer, which you may read and write",
        )
        .caused_by(&errno)
    })?;
    convert_open(&WritableDir::root(fd, &FdCache::new(CACHED_FDS)), layer, to)
}

/// The same for a layer that is open and not in use.
pub(super) fn convert_open(
    root: &WritableDir,
    layer: &Path,
    to: Form,
) -> Result<Converted, SetupError> {
    run(root, to).map_err(|trouble| {
        let Trouble { call, path, errno } = trouble;
        let cure = match errno {
            // Found by ourselves, before anything was changed.
            Errno::EXIST => "rename it, since that name would be a mark",
            Errno::PERM | Errno::ACCESS => {
                "convert as root, or as the owner of the layer; what was done so far stays valid"
            }
            Errno::OPNOTSUPP => "the disk cannot store marks of this form; use the other one",
            _ => "remove the cause and run the conversion again; what was done so far stays valid",
        };
        SetupError::new(
            format!("{call} {}: {errno}", layer.join(path).display()),
            cure,
        )
        .caused_by(&errno)
    })
}

fn at<T>(call: &'static str, path: &Path, result: rustix::io::Result<T>) -> Step<T> {
    result.map_err(|errno| Trouble {
        call,
        path: path.to_owned(),
        errno,
    })
}

fn run(root: &WritableDir, to: Form) -> Step<Converted> {
    let top = Path::new("");
    let names = DotNames::of(&root.read_only()).map_err(|(path, errno)| Trouble {
        call: "read",
        path,
        errno,
    })?;
    if let Some(path) = &names.ordinary
        && (to == Form::Wh || names.marks)
    {
        return Err(Trouble {
            call: "keep the ordinary name",
            path: path.clone(),
            errno: Errno::EXIST,
        });
    }
    // Towards devices they stay what they are.
    let plain_names = at("read", top, says_devices(root))? || names.ordinary.is_some();
    if to == Form::Wh {
        at("setxattr", top, unset_devices(root))?;
    }
    let device = at("stat", top, root.stat())?.dev;
    let prefix = at("setxattr", top, storable_prefix(root))?;
    let mut rewrite = Rewrite {
        to,
        times: format!("{prefix}times"),
        plain_names: plain_names && to == Form::Char,
        namespace: if prefix == TRUSTED_PREFIX {
            "trusted."
        } else {
            "user."
        },
        done: Converted::default(),
    };
    let mut todo = vec![(root.clone(), PathBuf::new())];
    while let Some((dir, path)) = todo.pop() {
        // The disk of another file system that is mounted there.
        if at("stat", &path, dir.stat())?.dev != device {
            continue;
        }
        let directories = at("convert", &path, rewrite.directory(&dir))?;
        for name in directories {
            todo.push((dir.child(&name), path.join(super::report::path_of(&name))));
        }
    }
    if to == Form::Char {
        let prefix = at("setxattr", top, storable_prefix(root))?;
        at("setxattr", top, set_devices(root, prefix))?;
    }
    Ok(rewrite.done)
}
