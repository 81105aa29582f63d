//! Everything about the directories of a mount that can be wrong, found before anything is mounted,
//! each with its cure.
//!
//! Paths are resolved by the kernel, never as text: engines pass `l/XXX/../diff1` where `l/XXX` is
//! a symlink. Two directories are the same when device and inode number agree, whatever their paths
//! (bind mounts), and one lies inside the other when it is met on the way up.

use std::collections::HashMap;
use std::fmt;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, StatxFlags};
use rustix::io::Errno;

use crate::cli::ui::shown;
use crate::fuse::session::descriptor;
use crate::union::config::{Config, SetupError};

/// What the checks found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Checked {
    /// The mountpoint as an absolute path without symlinks; `/dev/fd/N` as it was given.
    pub mountpoint: PathBuf,
}

/// What a directory is for. Layers are counted from 1, as a user counts what was typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Lower { number: usize, of: usize },
    DataOnly { number: usize, of: usize },
    Upper,
    Work,
    Volume,
    Mountpoint,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lower { of: 1, .. } => f.write_str("lower directory"),
            Self::Lower { number, of } => write!(f, "lower directory {number} of {of}"),
            Self::DataOnly { number, of } => write!(f, "data-only directory {number} of {of}"),
            Self::Upper => f.write_str("upper directory"),
            Self::Work => f.write_str("work directory"),
            Self::Volume => f.write_str("volume"),
            Self::Mountpoint => f.write_str("mountpoint"),
        }
    }
}

/// Device and inode number.
type Id = (u64, u64);

/// A directory that exists.
struct Dir<'a> {
    role: Role,
    given: &'a Path,
    /// Without symlinks; `None` when the kernel cannot name it (above a chroot, deleted).
    real: Option<PathBuf>,
    id: Id,
}

impl fmt::Display for Dir<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.role, shown(self.given))
    }
}

/// Number of directories that hold the union's entries.
#[must_use]
pub(in crate::cli) fn layers(config: &Config) -> usize {
    config.lowers.len() + usize::from(config.upper.is_some())
}

/// Checks the directories of a mount.
///
/// # Errors
/// The first problem, with its cure.
pub(in crate::cli) fn check(config: &Config, mountpoint: &Path) -> Result<Checked, SetupError> {
    let of = config.lowers.len();
    // Directories that are only read.
    let mut read = Vec::with_capacity(of + 1);
    for (index, path) in config.lowers.iter().enumerate() {
        read.push(layer(
            Role::Lower {
                number: index + 1,
                of,
            },
            path,
        )?);
    }
    for (index, path) in config.data_only.iter().enumerate() {
        let number = index + 1;
        let of = config.data_only.len();
        read.push(layer(Role::DataOnly { number, of }, path)?);
    }
    // Directories that are written.
    let mut written = Vec::new();
    if let Some(upper) = &config.upper {
        let upper = layer(Role::Upper, upper)?;
        if config.read_only {
            read.push(upper);
        } else {
            let Some(work) = &config.work else {
                return Err(SetupError::new(
                    "a writable union needs a work directory",
                    "add one on the file system of the upper directory",
                ));
            };
            let work = examine(Role::Work, work)?;
            changeable(&upper)?;
            changeable(&work)?;
            one_disk(&upper, &work)?;
            written.extend([upper, work]);
        }
    }
    let mut ways = Ways::default();
    apart(&written, &read, &mut ways)?;
    let volumes = volumes(config, &written, &read, &mut ways)?;
    if descriptor(mountpoint).is_some() {
        return Ok(Checked {
            mountpoint: mountpoint.to_owned(),
        });
    }
    let mountpoint = examine(Role::Mountpoint, mountpoint)?;
    // What is read through a volume must not be the union itself, either.
    read.extend(volumes);
    clear_of_mountpoint(&written, &read, &mountpoint, &mut ways)?;
    Ok(Checked {
        mountpoint: mountpoint
            .real
            .unwrap_or_else(|| mountpoint.given.to_owned()),
    })
}

/// Makes sure that a path is a directory.
fn examine(role: Role, path: &Path) -> Result<Dir<'_>, SetupError> {
    let meta = path
        .metadata()
        .map_err(|err| unreachable_directory(role, path, &err))?;
    if !meta.is_dir() {
        return Err(SetupError::new(
            format!("{role} {} is {}, not a directory", shown(path), kind(&meta)),
            "name a directory",
        ));
    }
    Ok(Dir {
        role,
        given: path,
        real: path.canonicalize().ok(),
        id: (meta.dev(), meta.ino()),
    })
}

/// A directory whose entries will be seen: it must be readable too.
fn layer(role: Role, path: &Path) -> Result<Dir<'_>, SetupError> {
    let dir = examine(role, path)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(_) => Ok(dir),
        Err(err) => Err(unreachable_directory(role, path, &err.into())),
    }
}

fn kind(meta: &Metadata) -> &'static str {
    if meta.is_file() {
        "a file"
    } else {
        "a special file"
    }
}

fn unreachable_directory(role: Role, path: &Path, err: &std::io::Error) -> SetupError {
    let what = format!("{role} {}: {err}", shown(path));
    let explained = match err.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT) => SetupError::new(
            format!("{role} {} does not exist", shown(path)),
            "create it with mkdir, or correct the path",
        ),
        Some(Errno::NOTCONN) => SetupError::new(
            format!(
                "{role} {} is a dead mount: its daemon was killed",
                shown(path)
            ),
            format!("run `unionmount umount --force {}`", path.display()),
        ),
        Some(Errno::ACCESS | Errno::PERM) => SetupError::new(
            what,
            "run as a user who may read it, or change the mode of it and of the directories above it",
        ),
        Some(Errno::NOTDIR) => SetupError::new(
            what,
            "a part of the path is not a directory: correct the path",
        ),
        Some(Errno::LOOP) => {
            SetupError::new(what, "symlinks lead in a circle: correct them or the path")
        }
        Some(Errno::NAMETOOLONG) => SetupError::new(
            what,
            "use a shorter path (a relative one, for instance); \\: stands for a colon in lowerdir, a plain colon separates",
        ),
        _ => SetupError::new(what, "check the file system that it is on"),
    };
    explained.caused_by(err)
}

fn changeable(dir: &Dir<'_>) -> Result<(), SetupError> {
    let access = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    match rustix::fs::accessat(CWD, dir.given, access, AtFlags::EACCESS) {
        Ok(()) => Ok(()),
        Err(err @ Errno::ROFS) => Err(SetupError::new(
            format!("{dir} cannot be written: {err}"),
            "use a directory on a writable disk, or mount read-only (--read-only, -o ro)",
        ).caused_by(&err)),
        Err(err) => Err(SetupError::new(
            format!("{dir} cannot be written: {err}"),
            "run as its owner, use a directory of your own, or mount read-only (--read-only, -o ro)",
        ).caused_by(&err)),
    }
}

/// Finished files are moved from the work directory into the upper by rename(2), which works within
/// one mount only.
fn one_disk(upper: &Dir<'_>, work: &Dir<'_>) -> Result<(), SetupError> {
    let difference = if upper.id.0 != work.id.0 {
        "file system"
    } else if matches!((mount_id(upper.given), mount_id(work.given)), (Some(one), Some(other)) if one != other)
    {
        "mount (a bind mount?)"
    } else {
        return Ok(());
    };
    Err(SetupError::new(
        format!("{work} is on another {difference} than {upper}"),
        "put the two beside each other in one directory",
    ))
}

/// The mount that a directory is reached through; `None` before Linux 5.8.
fn mount_id(path: &Path) -> Option<u64> {
    let stat = rustix::fs::statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID).ok()?;
    (stat.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(stat.stx_mnt_id)
}

/// The directories that are written neither contain each other nor one that is read, nor the other
/// way round: the work directory is emptied, and what is written would show up, or vanish, in a
/// layer that is taken as constant.
fn apart(written: &[Dir<'_>], read: &[Dir<'_>], ways: &mut Ways) -> Result<(), SetupError> {
    for (index, one) in written.iter().enumerate() {
        for other in written.iter().skip(index + 1).chain(read) {
            if let Some(relation) = ways.relation(one, other) {
                return Err(SetupError::new(
                    relation,
                    "use separate directories, none inside the other",
                ));
            }
        }
    }
    Ok(())
}

/// The volumes that are directories. Nothing that the union is made of can be changed through a
/// volume: it would be one object in two places, of which one takes it for constant. So a writable
/// volume is neither in such a directory nor contains one. One that is read-only may be a lower
/// directory, or contain any, as a home contains a store of containers.
fn volumes<'a>(
    config: &'a Config,
    written: &[Dir<'_>],
    read: &[Dir<'_>],
    ways: &mut Ways,
) -> Result<Vec<Dir<'a>>, SetupError> {
    let mut dirs = Vec::new();
    for volume in &config.volumes {
        let is_file = volume.source.metadata().is_ok_and(|meta| !meta.is_dir());
        let dir = if is_file {
            // Deleted, or above a chroot: then it is in no directory that can be compared.
            let Some(holder) = holder(&volume.source) else {
                continue;
            };
            holder
        } else {
            examine(Role::Volume, &volume.source)?
        };
        for other in written.iter().chain(read) {
            // An upper that this union only reads may be written by another.
            let changes = !volume.read_only || matches!(other.role, Role::Upper | Role::Work);
            if changes && (dir.id == other.id || ways.is_inside(&dir, other)) {
                return Err(SetupError::new(
                    format!("{dir} is in the {other}"),
                    match other.role {
                        Role::Upper | Role::Work => {
                            "share another directory: what is there belongs to the union"
                        }
                        _ => {
                            "share another directory, or this one read-only (:ro): layers do not change"
                        }
                    },
                ));
            }
            if !volume.read_only && !is_file && ways.is_inside(other, &dir) {
                return Err(SetupError::new(
                    format!("{other} is inside {dir}"),
                    "share a directory beside it, or this one read-only (:ro)",
                ));
            }
        }
        if !is_file {
            dirs.push(dir);
        }
    }
    Ok(dirs)
}

/// The directory that holds the file of a volume, as what the volume is in.
fn holder(file: &Path) -> Option<Dir<'_>> {
    let real = file.canonicalize().ok()?.parent()?.to_owned();
    let meta = real.metadata().ok()?;
    Some(Dir {
        role: Role::Volume,
        given: file,
        real: Some(real),
        id: (meta.dev(), meta.ino()),
    })
}

/// A mount over a directory that is written would hide it from its user; a mountpoint inside a
/// layer would make the union contain itself, and the daemon would wait for its own answer. A layer
/// that is only read may lie at or below the mountpoint: it is opened before the mount covers it.
fn clear_of_mountpoint(
    written: &[Dir<'_>],
    read: &[Dir<'_>],
    mountpoint: &Dir<'_>,
    ways: &mut Ways,
) -> Result<(), SetupError> {
    for dir in written {
        if let Some(relation) = ways.relation(dir, mountpoint) {
            return Err(SetupError::new(
                relation,
                "mount on another directory, outside of the ones it is made of",
            ));
        }
    }
    for dir in read {
        if dir.id != mountpoint.id && ways.is_inside(mountpoint, dir) {
            return Err(SetupError::new(
                format!("{mountpoint} is inside {dir}"),
                "mount on another directory, outside of the ones it is made of",
            ));
        }
    }
    Ok(())
}

/// What lies above directories. Several hundred layers have nearly all of it in common, so each is
/// looked at once.
#[derive(Default)]
struct Ways {
    ids: HashMap<PathBuf, Option<Id>>,
}

impl Ways {
    /// How two directories are in each other's way, as a sentence; `None` when they are not.
    fn relation(&mut self, one: &Dir<'_>, other: &Dir<'_>) -> Option<String> {
        if one.id == other.id {
            Some(format!("{one} and {other} are the same directory"))
        } else if self.is_inside(one, other) {
            Some(format!("{one} is inside {other}"))
        } else if self.is_inside(other, one) {
            Some(format!("{other} is inside {one}"))
        } else {
            None
        }
    }

    fn is_inside(&mut self, inner: &Dir<'_>, outer: &Dir<'_>) -> bool {
        let Some(real) = &inner.real else {
            return false;
        };
        real.ancestors()
            .skip(1)
            .any(|above| self.id(above) == Some(outer.id))
    }

    fn id(&mut self, path: &Path) -> Option<Id> {
        if let Some(known) = self.ids.get(path) {
            return *known;
        }
        let id = path.metadata().ok().map(|meta| (meta.dev(), meta.ino()));
        self.ids.insert(path.to_owned(), id);
        id
    }
}

#[cfg(test)]
mod tests;
